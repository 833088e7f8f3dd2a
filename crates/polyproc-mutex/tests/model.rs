//! Models of the lock: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-mutex --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-mutex --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use polyproc_mutex::{RawMutex, Refusal};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::model::{End, Explorer, Number, run};
// Not the checker's: it would take part in the unwinding when a model fails.
use std::sync::{Arc, Mutex};

/// A lock, and a number that two threads would corrupt if both were inside.
struct Shared {
    raw: RawMutex,
    number: Number,
}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared { raw: RawMutex::new(), number: Default::default() })
    }

    fn lock(&self) {
        // SAFETY: every thread of a model keeps the lock alive by an `Arc`.
        unsafe { self.raw.lock_until(Deadline::NEVER) }.unwrap();
    }

    fn unlock(&self) {
        // SAFETY: each caller has locked.
        unsafe { self.raw.unlock() };
    }
}

/// One at a time: what is taken out of the lock is the process's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MODEL: Explorer = Explorer { random: 20_000, rare: 0 };

/// `threads` others lock and unlock while the mortal one does; then whoever is left must still get the lock.
fn contend(others: u32, rounds: u32, mortal: Option<u32>) -> End {
    let shared = Shared::new();
    let threads: Vec<_> = (0..others)
        .map(|index| {
            let shared = shared.clone();
            checker::thread::spawn(move || {
                run(2 + index, None, || {
                    shared.lock();
                    shared.number.increment();
                    shared.unlock();
                })
            })
        })
        .collect();
    let end = run(1, mortal, || {
        for _ in 0..rounds {
            shared.lock();
            shared.number.increment();
            shared.unlock();
        }
    });
    for thread in threads {
        assert_eq!(thread.join().unwrap(), End::Finished);
    }
    run(9, None, || {
        shared.lock();
        shared.unlock();
    });
    end
}

#[test]
fn two_threads_exclude_each_other() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    MODEL.explore(4, || assert_eq!(contend(1, 2, None), End::Finished));
}

#[test]
fn three_threads_exclude_each_other() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    MODEL.explore(2, || assert_eq!(contend(2, 1, None), End::Finished));
}

#[test]
fn a_thread_that_vanishes_strands_nobody() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(3, |mortal| contend(1, 1, mortal));
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of two threads");
}

#[test]
fn a_thread_that_vanishes_among_three_strands_nobody() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(2, |mortal| contend(2, 1, mortal));
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of three threads");
}

/// The holder unlocks and locks again at once, so that the lock is taken when the woken waiter, who is mortal, vanishes.
/// A second waiter sleeps all the while: the holder's second unlock must wake it.
fn overtaken(mortal: Option<u32>) -> End {
    let shared = Shared::new();
    shared_lock_as(7, &shared, || {
        let first = {
            let shared = shared.clone();
            checker::thread::spawn(move || {
                run(1, mortal, || {
                    shared.lock();
                    shared.unlock();
                })
            })
        };
        let second = {
            let shared = shared.clone();
            checker::thread::spawn(move || {
                run(2, None, || {
                    shared.lock();
                    shared.unlock();
                })
            })
        };
        shared.unlock();
        shared.lock();
        shared.unlock();
        let end = first.join().unwrap();
        assert_eq!(second.join().unwrap(), End::Finished);
        end
    })
}

/// Runs `f` as the thread `tid`, with the lock held at its beginning.
fn shared_lock_as(tid: u32, shared: &Arc<Shared>, f: impl FnOnce() -> End) -> End {
    let mut end = End::Finished;
    run(tid, None, || {
        shared.lock();
        end = f();
    });
    end
}

#[test]
fn a_waiter_that_is_woken_and_vanishes_while_overtaken_strands_nobody() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(2, overtaken);
    println!("vanished at {steps} steps of a woken waiter");
}

/// The look at the census is what saves the second waiter: without it, the model finds the lost wake-up.
#[test]
#[cfg(polyproc_loom)]
fn without_the_census_the_wake_up_is_lost() {
    use polyproc_mutex::model::be_blind;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    be_blind(true);
    let result = catch_unwind(AssertUnwindSafe(|| MODEL.vanish_at_every_step(2, overtaken)));
    be_blind(false);
    let error = result.expect_err("the model did not find the lost wake-up");
    let message = error.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.to_lowercase().contains("deadlock"), "it failed, but of something else: {message}");
}

/// A new census may be begun at any useless wake, while others are on their way to sleep.
#[test]
fn a_new_census_strands_nobody() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    polyproc_mutex::model::set_patience(1);
    MODEL.explore(2, || assert_eq!(overtaken(None), End::Finished));
    MODEL.explore(2, || assert_eq!(contend(2, 2, None), End::Finished));
    polyproc_mutex::model::set_patience(u32::MAX);
}

/// A waiter whose deadline has passed leaves nothing behind that keeps others waiting.
#[test]
fn a_waiter_that_times_out_strands_nobody() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(2, |mortal| {
        let shared = Shared::new();
        let patient = {
            let shared = shared.clone();
            checker::thread::spawn(move || {
                run(2, None, || {
                    shared.lock();
                    shared.number.increment();
                    shared.unlock();
                })
            })
        };
        let end = run(1, mortal, || {
            // A deadline that lies ahead, which in a model runs out as soon as the thread would sleep.
            let soon = Deadline::after(std::time::Duration::from_secs(3600));
            // SAFETY: as in `lock`.
            match unsafe { shared.raw.lock_until(soon) } {
                Ok(()) => {
                    shared.number.increment();
                    shared.unlock();
                }
                Err(refusal) => assert_eq!(refusal, Refusal::TimedOut),
            }
        });
        assert_eq!(patient.join().unwrap(), End::Finished);
        end
    });
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
}
