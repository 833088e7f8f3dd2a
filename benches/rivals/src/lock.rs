//! Subject: a counter that is incremented under a lock, alone and by several.

use polyproc_benches::{Processes, nanos, pin_to, scaled, time_each};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// A number and its lock.
pub trait Counter {
    /// Locks, adds one, unlocks.
    fn increment(&self);
    /// What it is.
    fn total(&self) -> u64;
}

/// Nanoseconds an increment that nobody disturbs.
pub fn alone(counter: &impl Counter, count: u64) -> f64 {
    pin_to(1);
    let (count, before) = (scaled(count), counter.total());
    let time = time_each(count, || black_box(counter).increment());
    assert_eq!(counter.total() - before, count, "increments were lost");
    time
}

/// Two are pinned to two CPUs; more find their own.
fn place(index: usize, among: usize) {
    if among == 2 {
        pin_to(index);
    }
}

/// Nanoseconds an increment of `among` processes that increment `each` times.
pub fn processes(counter: impl Counter, among: usize, each: u64) -> f64 {
    let each = scaled(each);
    let counter = &counter;
    let timed = Processes::prepared(among, |index| {
        place(index, among);
        move || {
            (0..each).for_each(|_| counter.increment());
            each
        }
    })
    .run();
    let all = each * among as u64;
    assert_eq!(counter.total(), all, "increments were lost");
    nanos(timed.total) / all as f64
}

/// The same by threads.
pub fn threads(counter: impl Counter + Sync, among: usize, each: u64) -> f64 {
    let each = scaled(each);
    let start = Barrier::new(among);
    let times: Vec<_> = std::thread::scope(|scope| {
        let work = |index| {
            let (counter, start) = (&counter, &start);
            scope.spawn(move || {
                place(index, among);
                start.wait();
                let begun = Instant::now();
                (0..each).for_each(|_| counter.increment());
                (begun, Instant::now())
            })
        };
        let threads: Vec<_> = (0..among).map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let all = each * among as u64;
    assert_eq!(counter.total(), all, "increments were lost");
    let begun = times.iter().map(|(begun, _)| *begun).min().unwrap();
    nanos(times.iter().map(|(_, ended)| *ended).max().unwrap() - begun) / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shared;
    use std::panic::catch_unwind;

    /// No lock: an increment loses what another did meanwhile.
    struct Unlocked(Shared<std::sync::atomic::AtomicU64>);

    impl Counter for Unlocked {
        fn increment(&self) {
            use std::sync::atomic::Ordering::Relaxed;
            // SAFETY: mapped as long as `self` lives, and only used as an atomic.
            let number = unsafe { &*self.0.at() };
            let seen = number.load(Relaxed);
            // Long enough for others to come.
            std::thread::yield_now();
            number.store(seen + 1, Relaxed);
        }

        fn total(&self) -> u64 {
            // SAFETY: as above.
            unsafe { &*self.0.at() }.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    #[test]
    fn who_loses_increments_fails() {
        assert!(alone(&Unlocked(Shared::new()), 1000) > 0.0);
        assert!(catch_unwind(|| processes(Unlocked(Shared::new()), 4, 10_000)).is_err());
    }
}
