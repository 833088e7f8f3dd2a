//! Memory files: made, allocated up to their reserve, and sealed, so that no peer can take memory away under
//! a reader.
//!
//! See memfd_create(2), fallocate(2), and fcntl(2) on file sealing.

use crate::error::CreateError;
use crate::{available, layout::LINE};
use core::ffi::CStr;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

/// The seals of a region and their names. What is missing on receipt is named in the error.
pub(crate) const SEALS: [(u32, &str); 3] = [
    (libc::F_SEAL_SEAL as u32, "F_SEAL_SEAL"),
    (libc::F_SEAL_SHRINK as u32, "F_SEAL_SHRINK"),
    (libc::F_SEAL_GROW as u32, "F_SEAL_GROW"),
];

/// Allocation goes in steps of this many bytes: a signal undoes the step that it interrupts.
const STEP: u64 = 2 << 20;

/// So many bytes of reserves this process has asked for.
static FROM_RESERVES: AtomicU64 = AtomicU64::new(0);

/// Whether the kernel is known to lack `MFD_NOEXEC_SEAL` (before 6.3): 0 or 1.
static NOEXEC_SEAL_MISSING: AtomicU32 = AtomicU32::new(0);

/// Makes regions without `MFD_NOEXEC_SEAL`, as on kernels before 6.3: for tests of the fallback.
#[doc(hidden)]
pub fn without_noexec_seal(without: bool) {
    // Relaxed: nothing rides on it but which flags the kernel is asked for first.
    NOEXEC_SEAL_MISSING.store(without.into(), Ordering::Relaxed);
}

/// The size of a page in bytes.
pub(crate) fn page_size() -> u32 {
    // SAFETY: sysconf only reads its argument.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).expect("a page has a size")
}

/// A sealed memory file of `size` zero bytes, the first `allocated` of them allocated, for its owner only.
pub(crate) fn create(name: &CStr, allocated: u64, size: u64) -> io::Result<File> {
    check_size(size)?;
    if allocated >= available::WORTH_A_LOOK {
        check_available(allocated)?;
    }
    let file = File::from(open(name, size == allocated)?);
    // A memory file is born with mode 0777, and open(2) of /proc/PID/fd/N goes by the mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    allocate(&file, 0, allocated)?;
    if size > allocated {
        file.set_len(size)?;
    }
    seal(&file)?;
    Ok(file)
}

/// Allocates some more of a file, within its size. What is allocated already stays as it is.
pub(crate) fn allocate_more(file: &File, from: u64, length: u64) -> io::Result<()> {
    // Relaxed: the number is all that there is.
    let before = FROM_RESERVES.fetch_add(length, Ordering::Relaxed);
    if is_worth_a_look(before, length) {
        // Enough until the next look.
        check_available(length.max(STEP))?;
    }
    allocate(file, from, length)
}

/// A reserve may be asked for in many small pieces, so a look is taken once in so many bytes, whatever the
/// pieces.
fn is_worth_a_look(before: u64, length: u64) -> bool {
    length >= STEP || before % STEP + length >= STEP
}

/// Gives whole pages of a file back to the system. Its size stays.
pub(crate) fn punch(file: &File, from: u64, length: u64) -> io::Result<()> {
    const MODE: libc::c_int = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(file, MODE, from, length) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Refuses a file that is larger than can be.
fn check_size(size: u64) -> io::Result<()> {
    if size > i64::MAX as u64 {
        return Err(CreateError::TooLarge.into());
    }
    let [limit, _] = size_limits();
    if size > limit {
        // The kernel would answer with a signal that kills.
        return Err(CreateError::FileSize { requested: size, limit }.into());
    }
    Ok(())
}

/// Refuses what could not be allocated anyhow, and would take other programs down in the attempt.
fn check_available(size: u64) -> io::Result<()> {
    if let Some(available) = available::bytes()
        && size > available
    {
        return Err(CreateError::Memory { requested: size, available: Some(available), source: None }.into());
    }
    Ok(())
}

fn open(name: &CStr, has_arena: bool) -> io::Result<OwnedFd> {
    const FLAGS: libc::c_uint = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let opened = if NOEXEC_SEAL_MISSING.load(Ordering::Relaxed) != 0 {
        memfd_create(name, FLAGS)
    } else {
        memfd_create(name, FLAGS | libc::MFD_NOEXEC_SEAL).or_else(|error| {
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
            // Either the kernel does not know the flag, or something else is wrong and stays wrong without
            // it.
            let opened = memfd_create(name, FLAGS)?;
            without_noexec_seal(true);
            Ok(opened)
        })
    };
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => CreateError::Descriptors { has_arena, source: error }.into(),
        _ => error,
    })
}

fn memfd_create(name: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name is a live C string; the call touches no other memory.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts memory behind each of these bytes of the file, which becomes as long if it is shorter.
fn allocate(file: &File, from: u64, length: u64) -> io::Result<()> {
    in_steps(length, u64::from(page_size()), |done, step| fallocate(file, 0, from + done, step))
}

/// Calls fallocate(2). What it is called for lies in the file, or will, so that the numbers fit an i64.
fn fallocate(file: &File, mode: libc::c_int, from: u64, length: u64) -> io::Result<()> {
    // SAFETY: fallocate takes no address. A hole shows in the mappings of the file as zeros that somebody
    // wrote: such memory is shared, and whoever reads it by a pointer answers for that.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, from as i64, length as i64) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Allocates `size` bytes step by step with `allocate(from, length)`.
///
/// Not every kernel waits for a fatal signal to interrupt a step and undo it. Signals may come faster than a
/// step takes, from a profiler for instance, so an interrupted step is tried again at half its length.
fn in_steps(size: u64, page: u64, mut allocate: impl FnMut(u64, u64) -> io::Result<()>) -> io::Result<()> {
    let (mut done, mut step) = (0, STEP);
    while done < size {
        let length = step.min(size - done);
        let Err(error) = allocate(done, length) else {
            done += length;
            continue;
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => step = (step / 2).max(page),
            Some(libc::ENOSPC | libc::ENOMEM) => {
                return Err(
                    CreateError::Memory { requested: size, available: None, source: Some(error) }.into()
                );
            }
            _ => return Err(error),
        }
    }
    Ok(())
}

fn seal(file: &File) -> io::Result<()> {
    let seals = SEALS.iter().fold(0, |seals, (seal, _)| seals | *seal as libc::c_int);
    // SAFETY: this command takes an integer and touches no memory.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which of the [`SEALS`] a file lacks. A file that can have none lacks all.
pub(crate) fn missing_seals(file: &File) -> io::Result<u32> {
    // SAFETY: this command takes no argument and touches no memory.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    let found = if seals >= 0 {
        seals as u32
    } else {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        0
    };
    Ok(SEALS.iter().fold(0, |missing, (seal, _)| missing | (seal & !found)))
}

/// The first bytes of a file, which has at least that many.
pub(crate) fn read_header(file: &File) -> io::Result<[u8; LINE as usize]> {
    let mut header = [0; LINE as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut header, 0)?;
    Ok(header)
}

/// The bytes of memory that the system has. `None` if it does not tell.
pub(crate) fn physical_memory() -> Option<u64> {
    // SAFETY: sysconf only reads its argument.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages).ok().and_then(|pages| pages.checked_mul(page_size().into()))
}

/// The most descriptors that this process may have.
pub(crate) fn descriptor_limit() -> u64 {
    limit_of(libc::RLIMIT_NOFILE).unwrap_or(0)
}

/// The largest file that this process may make, and the most addresses that it may have.
pub(crate) fn size_limits() -> [u64; 2] {
    [libc::RLIMIT_FSIZE, libc::RLIMIT_AS].map(|resource| limit_of(resource).unwrap_or(u64::MAX))
}

fn limit_of(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type that getrlimit(2) fills.
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    (result == 0).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    const PAGE: u64 = 4096;

    /// Allocation by a kernel that is always interrupted in steps of more than `longest`.
    fn interrupted(size: u64, longest: u64) -> (u64, usize) {
        let (mut done, mut calls) = (0, 0);
        in_steps(size, PAGE, |from, length| {
            calls += 1;
            assert!(from == done && length > 0 && calls < 10_000, "{from} {length}");
            if length > longest {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            done += length;
            Ok(())
        })
        .unwrap();
        (done, calls)
    }

    #[test]
    fn many_small_pieces_are_worth_as_many_looks_as_few_large_ones() {
        for (piece, pieces, looks) in
            [(STEP, 8, 8), (4 * STEP, 8, 8), (STEP / 4, 32, 8), (PAGE, 2 * STEP / PAGE, 2)]
        {
            let mut before = PAGE;
            let found = (0..pieces).filter(|_| {
                let look = is_worth_a_look(before, piece);
                before += piece;
                look
            });
            assert_eq!(found.count(), looks, "{piece}");
        }
        assert!(is_worth_a_look(u64::MAX, u64::MAX) && is_worth_a_look(u64::MAX, 1));
        assert!(!is_worth_a_look(0, STEP - 1) && is_worth_a_look(1, STEP - 1));
    }

    #[test]
    fn signals_faster_than_a_step_do_not_stop_it() {
        assert_eq!(interrupted(5 * STEP, STEP), (5 * STEP, 5));
        assert_eq!(interrupted(STEP + PAGE, u64::MAX), (STEP + PAGE, 2));
        assert_eq!(interrupted(4 * STEP, STEP / 8).0, 4 * STEP);
        assert_eq!(interrupted(2 * STEP, PAGE).0, 2 * STEP);
    }

    #[test]
    fn a_refusal_halfway_is_out_of_memory_with_its_cause() {
        for errno in [libc::ENOSPC, libc::ENOMEM] {
            let mut steps = 0;
            let error = in_steps(5 * STEP, PAGE, |_, _| {
                steps += 1;
                if steps < 3 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
            })
            .unwrap_err();
            assert_eq!((steps, error.kind()), (3, io::ErrorKind::OutOfMemory));
            assert_eq!(error.to_string(), "not enough memory for 10485760 bytes to share");
            let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).unwrap();
            assert_eq!(cause.raw_os_error(), Some(errno));
        }
        let error = in_steps(1, PAGE, |_, _| Err(io::Error::from_raw_os_error(libc::EPERM))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
