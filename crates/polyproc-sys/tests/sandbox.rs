//! In a sandbox that forbids futex_waitv(2). A test binary of its own: who finds it forbidden remembers it for the process.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, Wait, wait_any};
use polyproc_testing::forbid;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(30);

/// A list of allowed calls that is older than futex_waitv answers with EPERM, not with ENOSYS.
#[test]
fn any_word_ends_a_wait_where_a_sandbox_forbids_to_wait_for_several() {
    let words = [Futex::new(0), Futex::new(0)];
    let waiters = [(&words[0], 0), (&words[1], 0)];
    for word in &words {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                forbid(libc::SYS_futex_waitv, None);
                let start = Instant::now();
                assert_eq!(wait_any(&waiters, Deadline::after(TICK)), Wait::TimedOut);
                assert!(start.elapsed() >= TICK);
                wait_any(&waiters, Deadline::NEVER)
            });
            std::thread::sleep(2 * TICK);
            assert!(!sleeper.is_finished());
            word.store(1, Ordering::SeqCst);
            word.wake_all();
            assert!(matches!(sleeper.join().unwrap(), Wait::Woken | Wait::Changed));
        });
        word.store(0, Ordering::SeqCst);
    }
}
