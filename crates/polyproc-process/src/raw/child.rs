//! A process by its descriptor: signals for it, and its end. See pidfd_open(2), pidfd_send_signal(2),
//! waitid(2).
//!
//! By its descriptor, because an id is another process's as soon as somebody has waited for the one that had
//! it.

use super::{checked, retry};
use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

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
/// Not where the program ignores `SIGCHLD`: the kernel then takes children off its list by itself, and the id
/// may be somebody else's by now. The same could happen where another thread waits for any child there is,
/// which nobody can see from here.
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

#[cfg(test)]
mod tests {
    use super::super::{exit_now, fork};
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
