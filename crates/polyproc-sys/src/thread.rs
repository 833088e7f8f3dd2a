//! Who the calling thread is: its ids, a number that no other thread of any process shares, and its robust
//! list.
//!
//! All of it is found once a thread and kept in a thread-local. A `fork` empties the record of the thread
//! that survives in the child, so that the child is somebody else and owns nothing.

use crate::atomic::{AtomicU32, Ordering};
use crate::robust::{self, Head};
use core::cell::Cell;
use core::ptr;

/// What a thread knows about itself. Zero everywhere until the first use, and again in a forked child.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) tid: Cell<u32>,
    pub(crate) pid: Cell<u32>,
    pub(crate) token: Cell<u64>,
    pub(crate) head: Cell<*mut Head>,
}

thread_local! {
    static RECORD: Record = const {
        Record {
            tid: Cell::new(0),
            pid: Cell::new(0),
            token: Cell::new(0),
            head: Cell::new(ptr::null_mut()),
        }
    };
}

/// The calling thread. Not `Send`: it speaks of the thread that asked.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    record: *const Record,
}

/// The calling thread, registered on its first call.
///
/// # Panics
///
/// If the thread has no robust list of glibc's layout, which [`robust::check`] finds out beforehand.
#[inline(always)]
pub fn current() -> Current {
    let record = RECORD.with(ptr::from_ref);
    let current = Current { record };
    if current.tid() == 0 {
        register(current);
    }
    current
}

/// The calling thread, which has called [`current`] before, in this process: without the question whether it
/// has.
///
/// # Safety
///
/// It has.
#[inline(always)]
pub unsafe fn registered() -> Current {
    Current { record: RECORD.with(ptr::from_ref) }
}

/// The id of the calling thread's process; 0 where the thread has not called [`current`] yet.
#[inline(always)]
pub fn pid() -> u32 {
    RECORD.with(|record| record.pid.get())
}

/// The calling thread's [token](Current::token); 0 where the thread has not called [`current`] yet.
#[inline(always)]
pub fn token() -> u64 {
    RECORD.with(|record| record.token.get())
}

/// Rises with every fork on the way to this process, by more than one if threads raced to register the
/// handler. It tells a guard that it was inherited.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A number that differs between a parent and its forked child, once any thread has called [`current`]. It
/// rises with every fork.
#[inline(always)]
pub fn forks() -> u32 {
    // Relaxed: changes only where there is one thread.
    FORKS.load(Ordering::Relaxed)
}

impl Current {
    #[inline(always)]
    pub(crate) fn record<'a>(self) -> &'a Record {
        // SAFETY: the record is a thread-local without a destructor, so it lives as long as its thread, and
        // `Current` never leaves that thread.
        unsafe { &*self.record }
    }

    /// The kernel's id of the thread, as its own PID namespace counts.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.record().tid.get()
    }

    /// The id of the thread's process.
    #[inline(always)]
    pub fn pid(self) -> u32 {
        self.record().pid.get()
    }

    /// A random number other than zero that is this thread's alone, in all processes of all PID namespaces.
    #[inline(always)]
    pub fn token(self) -> u64 {
        self.record().token.get()
    }
}

/// The first use of a thread, or the first after a fork.
#[cold]
#[inline(never)]
fn register(current: Current) {
    // Whether the fork handler is registered: 0 or 1. No `Once`: a fork while another thread is inside would
    // leave it unfinished in the child for ever. Two threads may register it both, which does no harm.
    static AT_FORK: AtomicU32 = AtomicU32::new(0);
    if AT_FORK.load(Ordering::Acquire) == 0 {
        // SAFETY: the handler is async-signal-safe: it stores to an atomic and to a thread-local without a
        // destructor.
        let result = unsafe { libc::pthread_atfork(None, None, Some(forget_the_parent)) };
        assert_eq!(result, 0, "no memory to register a fork handler");
        AT_FORK.store(1, Ordering::Release);
    }
    let head = robust::head().unwrap_or_else(|error| panic!("{error}"));
    let record = current.record();
    record.head.set(head);
    record.token.set(random());
    record.pid.set(std::process::id());
    // SAFETY: gettid has no arguments and cannot fail.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    record.tid.set(tid as u32);
}

/// Runs in the child of a fork, on the one thread that it has.
extern "C" fn forget_the_parent() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    RECORD.with(|record| {
        record.pid.set(0);
        if record.tid.replace(0) != 0 {
            Current { record }.head().forget_pending();
        }
    });
}

/// A random number other than zero.
fn random() -> u64 {
    let mut bytes = [0; 8];
    loop {
        // SAFETY: `bytes` is writable for its eight bytes.
        let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        let number = u64::from_ne_bytes(bytes);
        if count == 8 && number != 0 {
            return number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_differ_and_stay_themselves() {
        let here = (current().tid(), current().token());
        assert_eq!(here, (current().tid(), current().token()));
        assert_eq!(current().pid(), std::process::id());
        let there = std::thread::spawn(|| (current().tid(), current().token())).join().unwrap();
        assert_ne!(here.0, there.0);
        assert_ne!(here.1, there.1);
    }

    #[test]
    fn a_forked_child_is_somebody_else() {
        let (tid, token, before) = (current().tid(), current().token(), forks());
        // SAFETY: the child calls nothing but our own code, which takes no lock, and `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let renewed = forks() != before
                && current().tid() != tid
                && current().token() != token
                && current().pid() == current().tid();
            // SAFETY: ends the child without running the test harness's exit handlers.
            unsafe { libc::_exit(if renewed { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was made above.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        assert_eq!((tid, token, before), (current().tid(), current().token(), forks()));
    }
}
