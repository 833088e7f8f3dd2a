//! Subject: a token that two processes pass to and fro by two flags.

use crate::channel::{be_busy, without};
use crate::{Shared, each};
use polyproc_benches::{Processes, nanos, pin_to};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds a round trip. `first` and `second` make, each in its process, what sets the other's flag and what waits for
/// and takes its own. The second waits for `pause` before it answers.
///
/// Some trips before the time counts are checked: who comes back from its wait too early, sees the wrong number. Times of single
/// trips are as those of [messages](crate::channel::round_trip).
pub fn round_trip<S: FnMut(), T: FnMut()>(
    count: u64,
    cpus: [usize; 2],
    pause: Duration,
    first: impl FnOnce() -> (S, T),
    second: impl FnOnce() -> (S, T),
) -> f64 {
    let first = Cell::new(Some(first));
    let second = Cell::new(Some(second));
    let turn = Shared::<AtomicU64>::new();
    // SAFETY: mapped as long as `turn` lives, all nought, and only used as an atomic.
    let turn = unsafe { &*turn.at() };
    let samples = each::samples(count);
    let timed = Processes::prepared(2, |index| {
        pin_to(cpus[index]);
        let (mut set, mut take) = match index {
            0 => first.take().unwrap()(),
            _ => second.take().unwrap()(),
        };
        let mut trip = move |check: &dyn Fn(u64), is_each: bool| {
            if index == 0 {
                check(0);
                set();
                take();
                check(2);
            } else {
                take();
                check(1);
                match is_each {
                    true => be_busy(pause),
                    false if pause.is_zero() => (),
                    false => std::thread::sleep(pause),
                }
                set();
            }
        };
        let samples = samples.as_ref();
        for round in 0..(count / 10).clamp(8, 1000) {
            let check = |step| match step {
                0 => turn.store(2 * round + 1, Ordering::SeqCst),
                1 => {
                    let seen = turn.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(seen, 2 * round + 1, "a wait ended too early");
                }
                _ => assert_eq!(turn.load(Ordering::SeqCst), 2 * round + 2, "a wait ended too early"),
            };
            trip(&check, false);
        }
        move || {
            let Some(samples) = samples else {
                (0..count).for_each(|_| trip(&|_| (), false));
                return count;
            };
            for number in 0..count {
                let start = Instant::now();
                trip(&|_| (), true);
                if index == 0 {
                    samples.note(number as usize, without(start, pause));
                }
            }
            count
        }
    })
    .run();
    each::keep(samples);
    assert_eq!(timed.figures, [count; 2]);
    nanos(timed.total) / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::posix::Semaphore;
    use std::panic::catch_unwind;

    #[test]
    fn who_does_not_wait_fails() {
        let trips = |waits: bool| {
            let semaphores = [(); 2].map(|()| Semaphore::new(0));
            let ends = |mine: usize, other: usize| {
                let semaphores = &semaphores;
                let take = move || {
                    if waits {
                        semaphores[mine].acquire();
                    }
                };
                (move || semaphores[other].release(), take)
            };
            round_trip(100, [0, 1], Duration::ZERO, || ends(0, 1), || ends(1, 0))
        };
        assert!(trips(true) > 0.0);
        assert!(catch_unwind(|| trips(false)).is_err());
    }
}
