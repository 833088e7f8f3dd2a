//! Subject: a token that two processes pass to and fro by two flags.

use crate::Shared;
use polyproc_benches::{Processes, nanos, pin_to};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds a round trip. `first` and `second` make, each in its process, what sets the other's flag and what waits for
/// and takes its own. The second waits for `pause` before it answers.
///
/// Some trips before the time counts are checked: who comes back from its wait too early, sees the wrong number.
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
    let timed = Processes::prepared(2, |index| {
        pin_to(cpus[index]);
        let (mut set, mut take) = match index {
            0 => first.take().unwrap()(),
            _ => second.take().unwrap()(),
        };
        let mut trip = move |check: &dyn Fn(u64)| {
            if index == 0 {
                check(0);
                set();
                take();
                check(2);
            } else {
                take();
                check(1);
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                set();
            }
        };
        for round in 0..(count / 10).clamp(8, 1000) {
            trip(&|step| match step {
                0 => turn.store(2 * round + 1, Ordering::SeqCst),
                1 => {
                    let seen = turn.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(seen, 2 * round + 1, "a wait ended too early");
                }
                _ => assert_eq!(turn.load(Ordering::SeqCst), 2 * round + 2, "a wait ended too early"),
            });
        }
        move || {
            (0..count).for_each(|_| trip(&|_| ()));
            count
        }
    })
    .run();
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
