//! Starting this program again. See posix_spawn(3).
//!
//! | what a child gets of its parent | |
//! |---|---|
//! | descriptors 0, 1, 2 | as [`Stream`] says, each by itself |
//! | descriptor 3, [`CONTROL`] | its end of the control socket |
//! | every other descriptor | closed, by libc 2.34 and later in one step, and before by number |
//! | signals | none blocked; `SIGPIPE` as at the start of a program |

use super::{check, checked};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr;
use polyproc_sys::atomic::{AtomicUsize, Ordering};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The descriptor at which a child finds its control socket.
pub(crate) const CONTROL: RawFd = 3;

/// Where a standard stream of a child leads.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Where the parent's leads.
    Inherit,
    /// To `/dev/null`.
    Null,
    /// To this descriptor, which is [`CONTROL`] + 1 at least.
    To(OwnedFd),
}

/// Starts this program again, with these arguments and environment, these standard streams and this control
/// socket, and with no other descriptor. Returns the child's id; until it is waited for, no other process can
/// get it.
///
/// The control socket's number is [`CONTROL`] + 1 at least.
pub(crate) fn start_again(
    arguments: &[CString],
    environment: &[CString],
    streams: &[Stream; 3],
    control: BorrowedFd<'_>,
) -> io::Result<libc::pid_t> {
    let mut actions = Actions::new()?;
    for (number, stream) in (0..).zip(streams) {
        match stream {
            Stream::Inherit => {}
            Stream::Null => {
                actions.open_null(number, if number == 0 { libc::O_RDONLY } else { libc::O_WRONLY })?
            }
            Stream::To(descriptor) => actions.duplicate(descriptor.as_raw_fd(), number)?,
        }
    }
    debug_assert!(control.as_raw_fd() > CONTROL);
    actions.duplicate(control.as_raw_fd(), CONTROL)?;
    actions.close_from(CONTROL + 1)?;
    let attributes = Attributes::new()?;
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    let mut pid = 0;
    // SAFETY: the path is a C string, the actions and attributes are initialised, and both lists end with a
    // null pointer and point to C strings that outlive the call.
    let error = unsafe {
        libc::posix_spawn(
            &mut pid,
            c"/proc/self/exe".as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    check(error)?;
    Ok(pid)
}

/// A list as execve(2) wants it.
fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|string| string.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// What the child does to its descriptors before it runs the program.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer points to.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        Ok(Actions(unsafe { actions.assume_init() }))
    }

    fn duplicate(&mut self, from: RawFd, to: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised; the numbers are only used in the child.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from, to) })
    }

    fn open_null(&mut self, number: RawFd, mode: libc::c_int) -> io::Result<()> {
        // SAFETY: the actions are initialised; the path, a C string, is copied.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.0, number, c"/dev/null".as_ptr(), mode, 0)
        })
    }

    fn close(&mut self, number: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised; the number is only used in the child.
        check(unsafe { libc::posix_spawn_file_actions_addclose(&mut self.0, number) })
    }

    /// Closes every descriptor from this one on.
    fn close_from(&mut self, first: RawFd) -> io::Result<()> {
        if let Some(add_close_from) = add_close_from() {
            // SAFETY: the actions are initialised, and the function is the one of this name and type in libc.
            return check(unsafe { add_close_from(&mut self.0, first) });
        }
        for number in inheritable(first)? {
            self.close(number)?;
        }
        Ok(())
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// `posix_spawn_file_actions_addclosefrom_np`, of glibc 2.34 and later.
type AddCloseFrom = unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, libc::c_int) -> libc::c_int;

/// [`ADD_CLOSE_FROM`] before it is known.
const UNKNOWN: usize = 0;

/// [`ADD_CLOSE_FROM`] where libc has no such function.
const MISSING: usize = 1;

/// Where the function is, or one of the values above. The C library may be older, so it is looked up.
static ADD_CLOSE_FROM: AtomicUsize = AtomicUsize::new(UNKNOWN);

/// Makes the start of a process do without the function that came with glibc 2.34: for tests of the fallback.
#[doc(hidden)]
pub fn without_close_from(without: bool) {
    ADD_CLOSE_FROM.store(if without { MISSING } else { UNKNOWN }, Ordering::Relaxed);
}

fn add_close_from() -> Option<AddCloseFrom> {
    // Relaxed: the address is all there is to know, and every thread finds the same.
    let mut address = ADD_CLOSE_FROM.load(Ordering::Relaxed);
    if address == UNKNOWN {
        let name: &CStr = c"posix_spawn_file_actions_addclosefrom_np";
        // SAFETY: the name is a C string, and the default search order needs no handle.
        let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        address = if function.is_null() { MISSING } else { function.expose_provenance() };
        ADD_CLOSE_FROM.store(address, Ordering::Relaxed);
    }
    if address == MISSING {
        return None;
    }
    let function = ptr::with_exposed_provenance::<()>(address);
    // SAFETY: the address is that of libc's function, which has this type and is never unloaded.
    Some(unsafe { core::mem::transmute::<*const (), AddCloseFrom>(function) })
}

/// The open descriptors from `first` on that a program started now would inherit.
fn inheritable(first: RawFd) -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
        // SAFETY: reads the flags of a number that need not even be open.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if number >= first && flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            found.push(number);
        }
    }
    Ok(found)
}

/// What the child does to its signals before it runs the program.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// No signal blocked, and `SIGPIPE` not ignored: the child's own runtime decides, as it did here.
    fn new() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer points to.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut attributes = Attributes(unsafe { attributes.assume_init() });
        let mut signals = empty_set();
        // SAFETY: the attributes and the set are initialised.
        check(unsafe { libc::posix_spawnattr_setsigmask(&mut attributes.0, &signals) })?;
        // SAFETY: the set is initialised, and the signal exists.
        checked(unsafe { libc::sigaddset(&mut signals, libc::SIGPIPE) }.into())?;
        // SAFETY: the attributes and the set are initialised.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&mut attributes.0, &signals) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        // SAFETY: the attributes are initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used again.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises what the pointer points to, and cannot fail.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    unsafe { set.assume_init() }
}
