//! A child while it runs, and how it ended.
//!
//! All of it goes by the child's pidfd, which is this child and no other for as long as it is open: no id is
//! ever looked up again.

use crate::raw;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::fork::Mutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::time::Duration;

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Status(ExitStatus),
    /// Somebody else has waited for it.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) daemon: bool,
    process: OwnedFd,
    /// The process that started it, of which a forked child with a copy of this is another.
    parent: u32,
    /// Kept, because the system tells it once only.
    end: Mutex<Option<End>>,
}

impl Running {
    pub(crate) fn new(pid: u32, name: String, daemon: bool, process: OwnedFd) -> Running {
        Running { pid, name, daemon, process, parent: std::process::id(), end: Mutex::new(None) }
    }

    /// Whether it is this process that started it.
    pub(crate) fn is_ours(&self) -> bool {
        self.parent == std::process::id()
    }

    pub(crate) fn sentinel(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// What [`end`](Running::end) has for a moment.
    #[cfg(test)]
    pub(crate) fn hold_end(&self) -> impl Sized {
        self.end.lock()
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(is_ready(self.sentinel(), Deadline::PAST), Ok(false))
    }

    /// How it ended, `None` if it has not. Does not wait.
    pub(crate) fn end(&self) -> io::Result<Option<End>> {
        let mut end = self.end.lock();
        if end.is_none() {
            *end = match raw::reap(self.sentinel()) {
                Ok(status) => status.map(End::Status),
                // Not on the list, but a forked child's copy of this handle may speak of a process that still
                // runs.
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    is_ready(self.sentinel(), Deadline::PAST)?.then_some(End::Unknown)
                }
                Err(error) => return Err(error),
            };
        }
        Ok(*end)
    }

    /// How it ended, as soon as it has; `None` at the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<Option<End>> {
        loop {
            if !is_ready(self.sentinel(), deadline)? {
                return Ok(None);
            }
            if let Some(end) = self.end()? {
                return Ok(Some(end));
            }
            // It is dead, but a debugger that traces it has to be told first.
            if deadline.has_passed() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a signal; to nobody, if it has ended.
    pub(crate) fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        match raw::send_signal(self.sentinel(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }
}

/// Waits until the descriptor can be read, which for a process means that it has ended, or until the
/// deadline.
pub(crate) fn is_ready(descriptor: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    loop {
        let timeout = match deadline.remaining() {
            None => PollTimeout::NONE,
            Some(_) if deadline == Deadline::PAST => PollTimeout::ZERO,
            // Rounded up, so as not to return early, and in slices if need be.
            Some(time) => {
                let millis = time.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], timeout) {
            Ok(0) if deadline.has_passed() => return Ok(false),
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
