//! The system calls that starting, watching and ending a process takes, each as a safe function. Here are
//! those that a process makes for itself.
//!
//! See fork(2), signal(2), getauxval(3), prctl(2), getrlimit(2), atexit(3).

#![allow(unsafe_code)]

mod child;
mod socket;
mod spawn;

pub(crate) use child::{kill_by_id, open_process, reap, send_signal};
pub(crate) use socket::{DESCRIPTORS_MAX, Identity, Packet, adopt, identify, receive};
pub use spawn::without_close_from;
pub(crate) use spawn::{CONTROL, Stream, start_again};

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ptr;
use std::io;

/// The result of the functions that return an error number instead of setting it.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The result of a system call that returns -1 and sets the error number.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}

/// Makes a write to a closed pipe an error instead of a death, as Rust's runtime does before `main`.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal runs no code in a handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Lets `SIGINT` pass without effect. Not by ignoring it, which programs that this process starts would
/// inherit.
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

/// Whether the system marked this process as one that must not trust its environment: a set-user-ID program,
/// say.
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

/// How large a file this process may write: `RLIMIT_FSIZE`, which files of memory are subject to as well.
pub(crate) fn file_size_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct is valid to be written. If the call fails, which it has no reason to, there is no
    // limit.
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
