//! The system calls that starting, watching and ending a process takes, each as a safe function.
//!
//! See posix_spawn(3), pidfd_open(2), pidfd_send_signal(2), waitid(2), unix(7), fork(2).

#![allow(unsafe_code)]

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr;
use polyproc_sys::atomic::{AtomicUsize, Ordering};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The descriptor at which a child finds its control socket.
pub(crate) const CONTROL: RawFd = 3;
/// The most descriptors that one message can carry: the kernel's `SCM_MAX_FD`.
pub(crate) const DESCRIPTORS_MAX: usize = 253;

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

/// Starts this program again, with these arguments and environment, these standard streams and this control socket, and
/// with no other descriptor. Returns the child's id; until it is waited for, no other process can get it.
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
    // SAFETY: the path is a C string, the actions and attributes are initialised, and both lists end with a null
    // pointer and point to C strings that outlive the call.
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

/// The result of the functions that return an error number instead of setting it.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The result of a system call that returns -1 and sets the error number.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
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

/// Makes a write to a closed pipe an error instead of a death, as Rust's runtime does before `main`.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal runs no code in a handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Lets `SIGINT` pass without effect. Not by ignoring it, which programs that this process starts would inherit.
pub(crate) fn shrug_off_interrupts() {
    extern "C" fn nothing(_: libc::c_int) {}
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let fields = action.as_mut_ptr();
    // SAFETY: all zero, the struct has no handler, no flags, and an empty mask.
    let fields = unsafe { &mut *fields };
    fields.sa_sigaction = nothing as *const () as usize;
    fields.sa_flags = libc::SA_RESTART;
    // SAFETY: the action is complete, and its handler does nothing.
    unsafe { libc::sigaction(libc::SIGINT, fields, ptr::null_mut()) };
}

/// Whether the system marked this process as one that must not trust its environment: a set-user-ID program, say.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: looks up a number.
    (unsafe { libc::getauxval(libc::AT_SECURE) }) != 0
}

/// Whether this very process image was started by the path that [`start_again`] uses.
pub(crate) fn was_started_again() -> bool {
    // SAFETY: looks up a number.
    let path = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let path = ptr::with_exposed_provenance::<libc::c_char>(path as usize);
    // SAFETY: the kernel put a C string there when it started the program; it stays to the end.
    !path.is_null() && unsafe { CStr::from_ptr(path) } == c"/proc/self/exe"
}

/// Names the process as tools like `ps` and `top` show it.
pub(crate) fn set_title(title: &CStr) {
    // SAFETY: the title is a C string, of which the kernel copies up to 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, title.as_ptr()) };
}

/// A descriptor for the process with this id.
pub(crate) fn open_process(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let descriptor = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// Sends a signal to exactly this process.
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    let (process, no_details) = (process.as_raw_fd(), ptr::null::<libc::siginfo_t>());
    // SAFETY: without details the kernel fills them in as for kill(2).
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, signal, no_details, 0) })?;
    Ok(())
}

/// How this child ended, and takes it off the system's list; `None` if it has not ended.
///
/// `ECHILD` if it is not a child of this process, or somebody else has taken it off the list.
pub(crate) fn reap(process: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    wait(libc::P_PIDFD, process.as_raw_fd() as libc::id_t, libc::WEXITED | libc::WNOHANG)
}

/// Kills a child that was just made, and waits for it.
///
/// Not where the program ignores `SIGCHLD`: the kernel then takes children off its list by itself, and the id may be
/// somebody else's by now. The same could happen where another thread waits for any child there is, which nobody can
/// see from here.
pub(crate) fn kill_by_id(pid: libc::pid_t) {
    if ignores_children() {
        return;
    }
    // SAFETY: takes two numbers. The id is still the child's, as nobody has waited for it.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // An error is ECHILD: something else in the program has waited for it since.
    let _ = wait(libc::P_PID, pid as libc::id_t, libc::WEXITED);
}

/// Whether the kernel waits for this process's children by itself.
fn ignores_children() -> bool {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: the struct is valid to be written, and nothing is changed.
    unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), &mut action) };
    action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
}

fn wait(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<ExitStatus>> {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    retry(|| {
        // SAFETY: the struct is valid to be written.
        checked(unsafe { libc::waitid(kind, id, &mut info, options) }.into())
    })?;
    // SAFETY: waitid has filled in the fields of SIGCHLD, or left all of them zero.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    // The encoding of wait(2), which ExitStatus wants.
    Ok(Some(ExitStatus::from_raw(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    })))
}

/// How large a file this process may write: `RLIMIT_FSIZE`, which files of memory are subject to as well.
pub(crate) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct is valid to be written. If the call fails, which it has no reason to, there is no limit.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    limit.rlim_cur
}

/// Repeats a system call that a signal handler has interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// One packet off a socket, with the descriptors that came with it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The control messages of one packet: aligned, and with room for the most descriptors there can be.
#[repr(C, align(8))]
struct Ancillary([u8; 1056]);

// SAFETY: computes a size from a size.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) } as usize <= 1056);

/// The next packet of a `SOCK_SEQPACKET` socket, of any length; `None` at the end. With `MSG_DONTWAIT` in `flags`,
/// `WouldBlock` if none is there. Its descriptors are closed on exec. `EMFILE` if there was no room for all of them.
pub(crate) fn receive(socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Option<Packet>> {
    let peek = libc::MSG_PEEK | libc::MSG_TRUNC;
    let length = retry(|| {
        // SAFETY: a buffer of no length is not written; MSG_TRUNC makes the result the packet's length.
        checked(unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), 0, flags | peek) } as libc::c_long)
    })? as usize;
    if length == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let mut ancillary = Ancillary([0; 1056]);
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = ancillary.0.as_mut_ptr().cast();
    header.msg_controllen = ancillary.0.len();
    let received = retry(|| {
        // SAFETY: the header points to a buffer and to room for control messages, both of the lengths that it gives.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags | libc::MSG_CMSG_CLOEXEC) };
        checked(count as libc::c_long)
    })? as usize;
    let descriptors = take_descriptors(&header);
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if received != length || header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(Packet { bytes, descriptors }))
}

/// The descriptors that the kernel has just put into this header's control messages.
fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the header was filled in by recvmsg, and its control messages are alive.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so the macros have found a whole header within the control messages, which are aligned.
        let this = unsafe { ptr::read(message) };
        if (this.cmsg_level, this.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above.
            let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
            // SAFETY: computes a size from a size.
            let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (this.cmsg_len - overhead) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the message's length says that so many numbers follow.
                let slot = unsafe { data.add(index) };
                // SAFETY: as above; the kernel writes all of them.
                let number = unsafe { ptr::read_unaligned(slot) };
                // SAFETY: the kernel has just made this descriptor for us, and nobody else has seen it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: the header is the one that the message is from.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    descriptors
}

/// What makes a socket this one and no other: the device and inode numbers of fstat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The identity of the socket with this number; `None` if it is no socket, or not open.
pub(crate) fn identify(number: RawFd) -> Option<Identity> {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the struct is valid to be written; the number need not even be open.
    let result = unsafe { libc::fstat(number, &mut stat) };
    (result == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
        .then_some(Identity { device: stat.st_dev, inode: stat.st_ino })
}

/// Takes charge of the socket that the start of this process left open for it, if it is this one, and lets no other
/// program inherit it. To be called once.
pub(crate) fn adopt(number: RawFd, identity: Identity) -> Option<OwnedFd> {
    if identify(number) != Some(identity) {
        return None;
    }
    // SAFETY: sets the flags of a number that is open.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: the descriptor is open. It was opened by the parent for this purpose alone, and nobody who did not look
    // for it as the caller does, once, knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Runs `f` when the process exits normally.
pub(crate) fn at_exit(f: extern "C" fn()) {
    // SAFETY: the function is never unloaded: it is part of the program.
    let result = unsafe { libc::atexit(f) };
    assert_eq!(result, 0, "no memory to register an exit handler");
}

/// Ends the process at once: no exit handler runs.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(code) }
}

/// Duplicates the process. `None` in the child.
///
/// # Safety
///
/// In a program with several threads, the child may only call async-signal-safe functions.
pub(crate) unsafe fn fork() -> io::Result<Option<libc::pid_t>> {
    // SAFETY: the caller's promise.
    let pid = checked(unsafe { libc::fork() }.into())?;
    Ok((pid != 0).then_some(pid as libc::pid_t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Whether [`kill_by_id`] leaves a child alone in a process that treats `SIGCHLD` like this.
    fn spares(handler: libc::sighandler_t, flags: libc::c_int) -> bool {
        // SAFETY: the child, and its child, make system calls only.
        let Some(pid) = unsafe { fork() }.unwrap() else {
            // SAFETY: all-zero is a valid value of this plain struct.
            let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
            action.sa_sigaction = handler;
            action.sa_flags = flags;
            // SAFETY: the struct is valid, and no handler runs.
            unsafe { libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut()) };
            // SAFETY: as above.
            let Ok(Some(child)) = (unsafe { fork() }) else {
                // Not for ever, should nobody end it.
                // SAFETY: takes a number.
                unsafe { libc::sleep(10) };
                exit_now(0)
            };
            let Ok(process) = open_process(child) else { exit_now(2) };
            kill_by_id(child);
            // Alive if it can be sent a signal through its own descriptor: one that was waited for cannot.
            exit_now(i32::from(send_signal(process.as_fd(), libc::SIGKILL).is_ok()))
        };
        let ended = wait(libc::P_PID, pid as libc::id_t, libc::WEXITED).unwrap().unwrap();
        assert!(matches!(ended.code(), Some(0 | 1)), "{ended}");
        ended.code() == Some(1)
    }

    #[test]
    fn an_id_that_may_be_somebody_elses_is_not_killed() {
        assert!(!spares(libc::SIG_DFL, 0));
        assert!(spares(libc::SIG_IGN, 0));
        assert!(spares(libc::SIG_DFL, libc::SA_NOCLDWAIT));
    }
}
