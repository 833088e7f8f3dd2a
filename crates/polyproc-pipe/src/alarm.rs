//! [`Alarm`]: wakes a thread that sleeps in poll(2), from within its process.

use polyproc_sys::thread;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Wake;

thread_local! {
    /// What this thread had the last time, and in which process: to make one and close it takes as long as to wait for several ends
    /// that are ready.
    static KEPT: Cell<Option<(u32, Arc<Alarm>)>> = const { Cell::new(None) };
}

/// An eventfd(2): readable once it was rung, until it is silenced.
pub(crate) struct Alarm(File);

impl Alarm {
    /// The calling thread's, until it [keeps](Alarm::keep) it again. It may have been rung.
    pub(crate) fn of_thread() -> io::Result<Arc<Alarm>> {
        let kept = KEPT.try_with(Cell::take).ok().flatten();
        match kept {
            Some((forks, alarm)) if forks == thread::forks() => Ok(alarm),
            // In a forked child, it is the parent's, too.
            _ => Alarm::new(),
        }
    }

    pub(crate) fn keep(self: Arc<Alarm>) {
        // Not there any more if the thread ends.
        _ = KEPT.try_with(|kept| kept.set(Some((thread::forks(), self))));
    }

    fn new() -> io::Result<Arc<Alarm>> {
        // SAFETY: takes numbers only.
        let number = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Arc::new(Alarm(unsafe { OwnedFd::from_raw_fd(number) }.into())))
    }

    /// What to poll. Nobody else's of this process as long as the alarm is there.
    pub(crate) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn silence(&self) {
        // That it was not rung is no error.
        _ = (&self.0).read(&mut [0; 8]);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Alarm>) {
        // Only after 2^64 rings is there no room for one more.
        _ = (&self.0).write(&1u64.to_ne_bytes());
    }
}
