//! Subject: two numbers that are always equal, read and written under one lock, alone and in mixes.

use polyproc_benches::{Processes, nanos, pinned_to, scaled, time_each};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Two numbers and their lock.
pub trait ReadWrite {
    /// Both, under the lock for reading.
    fn read(&self) -> [u64; 2];
    /// Adds one to both, under the lock for writing.
    fn write(&self);
}

/// What a write does.
#[inline(always)]
pub fn add_one(numbers: &mut [u64; 2]) {
    numbers.iter_mut().for_each(|number| *number += 1);
}

/// The processes or threads of a mix.
pub const CROWD: usize = 4;

/// Nanoseconds a read that nobody disturbs.
pub fn reads_alone(lock: &impl ReadWrite, count: u64) -> f64 {
    pinned_to(1, || time_each(scaled(count), || check(black_box(lock).read())))
}

/// Nanoseconds a write that nobody disturbs.
pub fn writes_alone(lock: &impl ReadWrite, count: u64) -> f64 {
    let (count, [before, _]) = (scaled(count), lock.read());
    let time = pinned_to(1, || time_each(count, || black_box(lock).write()));
    assert_eq!(lock.read(), [before + count; 2], "writes were lost");
    time
}

#[inline(always)]
fn check([one, other]: [u64; 2]) {
    assert_eq!(one, other, "a reader saw a writer at work");
}

/// Whether this turn of one of them is a write: every so many there is one, none if it is nought.
#[inline(always)]
fn is_write(turn: u64, every: u64, index: usize) -> bool {
    every != 0 && (turn + index as u64).is_multiple_of(every)
}

/// One's part of a mix.
fn mix(lock: &impl ReadWrite, each: u64, every: u64, index: usize) {
    for turn in 0..each {
        if is_write(turn, every, index) {
            lock.write();
        } else {
            check(lock.read());
        }
    }
}

fn checked(lock: &impl ReadWrite, each: u64, every: u64) {
    let writes = |index| (0..each).filter(|turn| is_write(*turn, every, index)).count() as u64;
    assert_eq!(lock.read(), [(0..CROWD).map(writes).sum::<u64>(); 2], "writes were lost");
}

/// Nanoseconds a turn of four processes, every so many of which is a write.
pub fn processes(lock: impl ReadWrite, each: u64, every: u64) -> f64 {
    let (each, lock) = (scaled(each), &lock);
    let timed = Processes::fork(CROWD, |index| {
        mix(lock, each, every, index);
        each
    })
    .run();
    checked(lock, each, every);
    nanos(timed.total) / (each * CROWD as u64) as f64
}

/// The same by threads.
pub fn threads(lock: impl ReadWrite + Sync, each: u64, every: u64) -> f64 {
    let each = scaled(each);
    let start = Barrier::new(CROWD);
    let times: Vec<_> = std::thread::scope(|scope| {
        let work = |index| {
            let (lock, start) = (&lock, &start);
            scope.spawn(move || {
                start.wait();
                let begun = Instant::now();
                mix(lock, each, every, index);
                (begun, Instant::now())
            })
        };
        let threads: Vec<_> = (0..CROWD).map(work).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    checked(&lock, each, every);
    let begun = times.iter().map(|(begun, _)| *begun).min().unwrap();
    nanos(times.iter().map(|(_, ended)| *ended).max().unwrap() - begun) / (each * CROWD as u64) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shared;
    use crate::adapters::posix::RwLock;
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// No lock at all.
    struct Unlocked(Shared<[AtomicU64; 2]>);

    impl ReadWrite for Unlocked {
        fn read(&self) -> [u64; 2] {
            // SAFETY: mapped as long as `self` lives, and only used as atomics.
            unsafe { &*self.0.at() }.each_ref().map(|number| number.load(Relaxed))
        }

        fn write(&self) {
            // SAFETY: as above.
            for number in unsafe { &*self.0.at() } {
                let seen = number.load(Relaxed);
                // Long enough for others to come.
                std::thread::yield_now();
                number.store(seen + 1, Relaxed);
            }
        }
    }

    #[test]
    fn who_locks_passes_and_who_does_not_fails() {
        for every in [0, 2, 10] {
            assert!(processes(RwLock::new(), 1000, every) > 0.0);
        }
        assert!(catch_unwind(|| processes(Unlocked(Shared::new()), 20_000, 2)).is_err());
    }
}
