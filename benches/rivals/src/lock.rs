//! Subject: a counter that is incremented under a lock, alone and by several, at once or after some work; and who gets it how
//! often.

use polyproc_benches::fairness::{Seen, by_processes, by_threads, total};
use polyproc_benches::{Processes, nanos, pin_to, pinned_to, scaled, time_each, work};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// A number and its lock.
pub trait Counter {
    /// Locks, works, adds one, unlocks.
    fn work_and_add(&self, work: impl FnOnce());

    /// Locks, adds one, unlocks.
    #[inline(always)]
    fn increment(&self) {
        self.work_and_add(|| ());
    }

    /// What it is.
    fn total(&self) -> u64;
}

/// Nanoseconds an increment that nobody disturbs.
pub fn alone(counter: &impl Counter, count: u64) -> f64 {
    let (count, before) = (scaled(count), counter.total());
    let time = pinned_to(1, || time_each(count, || black_box(counter).increment()));
    assert_eq!(counter.total() - before, count, "increments were lost");
    time
}

/// Two are pinned to two CPUs; more find their own.
fn place(index: usize, among: usize) {
    if among == 2 {
        pin_to(index);
    }
}

/// Nanoseconds an increment of `among` processes that increment `each` times, after so many turns of work under the lock.
pub fn processes(counter: impl Counter, among: usize, each: u64, turns: u64) -> f64 {
    let each = scaled(each);
    let counter = &counter;
    let timed = Processes::prepared(among, |index| {
        place(index, among);
        move || {
            add(counter, each, turns);
            each
        }
    })
    .run();
    let all = each * among as u64;
    assert_eq!(counter.total(), all, "increments were lost");
    nanos(timed.total) / all as f64
}

/// `count` increments: two loops, because even the question whether to work takes time.
#[inline(always)]
fn add(counter: &impl Counter, count: u64, turns: u64) {
    if turns == 0 {
        (0..count).for_each(|_| counter.increment());
    } else {
        (0..count).for_each(|_| counter.work_and_add(|| work(turns)));
    }
}

/// The same by threads.
pub fn threads(counter: impl Counter + Sync, among: usize, each: u64, turns: u64) -> f64 {
    let each = scaled(each);
    let start = Barrier::new(among);
    let times: Vec<_> = std::thread::scope(|scope| {
        let work = |index| {
            let (counter, start) = (&counter, &start);
            scope.spawn(move || {
                place(index, among);
                start.wait();
                let begun = Instant::now();
                add(counter, each, turns);
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

/// What processes see that want to increment for some time.
pub fn shared_by_processes(counter: impl Counter, among: usize, period: Duration) -> Vec<Seen> {
    let seen = by_processes(among, period, || counter.increment());
    assert_eq!(counter.total(), total(&seen), "increments were lost");
    seen
}

/// What threads see.
pub fn shared_by_threads(counter: impl Counter + Sync, among: usize, period: Duration) -> Vec<Seen> {
    let seen = by_threads(among, period, || counter.increment());
    assert_eq!(counter.total(), total(&seen), "increments were lost");
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shared;
    use std::panic::catch_unwind;

    /// No lock: an increment loses what another did meanwhile.
    struct Unlocked(Shared<std::sync::atomic::AtomicU64>);

    impl Counter for Unlocked {
        fn work_and_add(&self, work: impl FnOnce()) {
            use std::sync::atomic::Ordering::Relaxed;
            // SAFETY: mapped as long as `self` lives, and only used as an atomic.
            let number = unsafe { &*self.0.at() };
            let seen = number.load(Relaxed);
            work();
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
        assert!(catch_unwind(|| processes(Unlocked(Shared::new()), 4, 10_000, 0)).is_err());
        assert!(catch_unwind(|| processes(Unlocked(Shared::new()), 4, 10_000, 10)).is_err());
        let period = Duration::from_millis(20);
        assert!(catch_unwind(|| shared_by_processes(Unlocked(Shared::new()), 4, period)).is_err());
    }
}
