//! [`Alarm`]: wakes a thread that sleeps in poll(2), from within its process.

use polyproc_sys::atomic::{AtomicU32, Ordering};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::task::Wake;

/// An eventfd(2), made when somebody is about to sleep: to make one and close it takes half as long as to
/// find out which of a few ends is ready.
///
/// Who rings it says so, and then looks for the descriptor; who sleeps makes that, and then looks whether it
/// was rung. So one of them sees the other.
#[derive(Default)]
pub(crate) struct Alarm {
    is_rung: AtomicU32,
    event: OnceLock<File>,
}

impl Alarm {
    /// What to poll, once it is made.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.event.get().map(File::as_raw_fd)
    }

    /// Sees to it that it can be polled, as far as there is room for another descriptor. Whether it was rung
    /// before.
    pub(crate) fn make(&self) -> bool {
        if self.event.get().is_none()
            && let Ok(event) = event()
        {
            _ = self.event.set(event);
        }
        // SeqCst: a swap, as in `wake`. Either it comes after that one, and sees it; or before, and then the
        // descriptor is seen there.
        self.is_rung.swap(0, Ordering::SeqCst) != 0
    }

    /// After it was polled: as if it had not been rung.
    pub(crate) fn silence(&self) {
        // That it was not rung is no error.
        _ = self.event.get().map(|mut event| event.read(&mut [0; 8]));
        self.is_rung.swap(0, Ordering::SeqCst);
    }
}

fn event() -> io::Result<File> {
    // SAFETY: takes numbers only.
    let number = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
}

impl Wake for Alarm {
    fn wake(self: Arc<Alarm>) {
        self.is_rung.swap(1, Ordering::SeqCst);
        // Only after 2^64 rings is there no room for one more.
        _ = self.event.get().map(|mut event| event.write(&1u64.to_ne_bytes()));
    }
}
