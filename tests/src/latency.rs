//! How long it takes from the death of a lock's holder until the next waiter has the lock.

use crate::child::Child;
use crate::shared::{Cues, Shared};
use core::fmt;
use polyproc_mutex::{Mutex, PoisonError};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

/// What the processes tell each other.
#[derive(Debug, Default)]
struct Board {
    /// The round in which the waiter is about to wait.
    waiting: AtomicU32,
    /// The round in which it had the lock, and when, in nanoseconds.
    had: AtomicU32,
    when: AtomicU64,
}

/// Sorted times.
#[derive(Debug)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    /// The time that this many of a thousand do not exceed.
    pub fn per_mille(&self, part: usize) -> Duration {
        self.sorted[(self.sorted.len() * part / 1000).min(self.sorted.len() - 1)]
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.per_mille(1000)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills of a holder with one asleep: p50 {:?}, p99 {:?}, max {:?}",
            self.sorted.len(),
            self.per_mille(500),
            self.per_mille(990),
            self.max()
        )
    }
}

/// Kills the holder of a mutex so often, each time with one other process asleep on it, and measures from right before
/// the kill until that has the lock.
///
/// # Panics
///
/// If the other does not get it, or was not told who died.
pub fn measure(kills: u32) -> Latencies {
    let mutex = Mutex::new(0u32).expect("memory for a mutex");
    let (board, cues) = (Shared::<Board>::new(), Shared::<Cues>::new());
    let epoch = Instant::now();
    let mut waiter = Child::fork(|| {
        for round in 1..=kills {
            cues.wait(round);
            board.waiting.store(round, Ordering::Release);
            let error = mutex.lock().expect_err("its holder died");
            board.when.store(epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
            assert_eq!(error.cause().pid(), **error.get_ref());
            mutex.clear_poison();
            drop(error);
            // Release: pairs with the Acquire below, and brings the time along.
            board.had.store(round, Ordering::Release);
        }
    });
    let mut sorted: Vec<Duration> = (1..=kills)
        .map(|round| {
            let mut holder = Child::fork(|| {
                let mut guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                *guard = std::process::id();
                std::thread::sleep(LONG);
                drop(guard);
            });
            until("the holder holds", &waiter, || mutex.holder() == Some(holder.pid()));
            assert!(holder.settle(LONG));
            cues.give(round);
            until("the waiter waits", &waiter, || board.waiting.load(Ordering::Acquire) == round);
            assert!(waiter.settle(LONG));
            let killed = epoch.elapsed();
            holder.kill();
            until("the waiter has the lock", &waiter, || board.had.load(Ordering::Acquire) == round);
            Duration::from_nanos(board.when.load(Ordering::Relaxed)).saturating_sub(killed)
        })
        .collect();
    assert!(waiter.wait(LONG).is_some());
    assert_eq!((waiter.complaint(), waiter.rescues()), (None, 0));
    sorted.sort();
    Latencies { sorted }
}

/// Waits for it, not forever.
fn until(what: &str, waiter: &Child, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    let mut looks = 0;
    while !is_so() {
        assert!(start.elapsed() < LONG, "not in {LONG:?}: {what}; the waiter says {:?}", waiter.complaint());
        crate::child::pause(&mut looks);
    }
}
