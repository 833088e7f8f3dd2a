//! A program's own fork handlers take a lock that forked children find free. A process of its own: handlers are for good.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_sys::fork::Mutex;
use polyproc_testing::watchdog;
use std::sync::atomic::{AtomicU32, Ordering};

static LOCK: Mutex<u32> = Mutex::new(0);
static CALLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn takes_the_lock() {
    *LOCK.lock() += 1;
    CALLED.fetch_add(1, Ordering::SeqCst);
}

/// Registered before the lock's: it comes after that one before the fork, and before it afterwards.
#[test]
fn handlers_of_the_thread_that_forks_may_take_it() {
    let _watchdog = watchdog();
    // SAFETY: a function of the program's lifetime.
    let result =
        unsafe { libc::pthread_atfork(Some(takes_the_lock), Some(takes_the_lock), Some(takes_the_lock)) };
    assert_eq!(result, 0);
    *LOCK.lock() = 10;
    // SAFETY: the child calls nothing but what is above, and `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let is_right = *LOCK.lock() == 12;
        // SAFETY: ends the child.
        unsafe { libc::_exit(if is_right { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: a child of this process that nobody else reaps.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(libc::WEXITSTATUS(status), 7, "status {status}");
    assert_eq!((*LOCK.lock(), CALLED.load(Ordering::SeqCst)), (12, 2));
}
