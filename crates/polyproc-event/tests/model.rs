//! Models of the event: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-event --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-event --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use polyproc_event::RawEvent;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::model::{End, Explorer, in_sandbox, run};
// Not the checker's: it would take part in the unwinding when a model fails.
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// A deadline that lies ahead, which in a model runs out as soon as the thread would sleep.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

/// A model in a sandbox is alone: the sandbox is the process's.
static ONE_AT_A_TIME: RwLock<()> = RwLock::new(());

const MODEL: Explorer = Explorer { random: 30_000, rare: 0 };

type Thread = checker::thread::JoinHandle<End>;

/// A thread of its own process.
fn spawn(tid: u32, mortal: Option<u32>, body: impl FnOnce() + Send + 'static) -> Thread {
    checker::thread::spawn(move || run(tid, mortal, body))
}

fn waiter(tid: u32, mortal: Option<u32>, event: &Arc<RawEvent>) -> Thread {
    let event = event.clone();
    spawn(tid, mortal, move || assert!(event.wait_until(Deadline::NEVER)))
}

fn event() -> Arc<RawEvent> {
    Arc::new(RawEvent::new())
}

/// Runs `body` as the immortal thread 9 and returns what it does.
fn observe<T>(body: impl FnOnce() -> T) -> T {
    let mut result = None;
    run(9, None, || result = Some(body()));
    result.unwrap()
}

/// A setter that vanishes has set the event and woken everybody, or neither.
#[test]
fn a_setter_that_vanishes_strands_nobody() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    for waiters in [1, 2] {
        let steps = MODEL.vanish_at_every_step(4, move |mortal| {
            let event = event();
            let threads: Vec<_> = (0..waiters).map(|number| waiter(2 + number, None, &event)).collect();
            let end = run(1, mortal, || event.set());
            // Set only if it is not, so that nobody is woken whom the dead should have woken.
            observe(|| {
                if !event.is_set() {
                    assert_eq!(end, End::Vanished);
                    event.set();
                }
            });
            for thread in threads {
                assert_eq!(thread.join().unwrap(), End::Finished);
            }
            end
        });
        assert!(steps >= 2, "the mortal thread had only {steps} steps");
        println!("vanished at {steps} steps, {waiters} waiting");
    }
}

/// Whoever waits, as far as can be seen, before a set and clear goes on after it.
#[test]
fn a_pulse_reaches_everybody_who_waited_before_it() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(5, |mortal| {
        let event = event();
        let thread = waiter(2, None, &event);
        let awaited = observe(|| event.is_awaited());
        let end = run(1, mortal, || {
            event.set();
            event.clear();
        });
        // If it came in time, the pulse is enough.
        if !awaited || end == End::Vanished {
            observe(|| event.set());
        }
        assert_eq!(thread.join().unwrap(), End::Finished);
        end
    });
    assert!(steps >= 4, "the mortal thread had only {steps} steps");
}

/// A waiter that vanishes, asleep or awake, keeps no other from going on.
#[test]
fn a_waiter_that_vanishes_strands_nobody() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(3, |mortal| {
        let event = event();
        let living = waiter(2, None, &event);
        let dying = waiter(1, mortal, &event);
        observe(|| event.set());
        assert_eq!(living.join().unwrap(), End::Finished);
        dying.join().unwrap()
    });
    assert!(steps >= 3, "the mortal thread had only {steps} steps");
}

/// Two set it, one of which vanishes; a third clears it meanwhile. The last set stays, and the waiter goes on.
#[test]
fn setters_and_a_clear_strand_nobody() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(3, |mortal| {
        let event = event();
        let patient = waiter(2, None, &event);
        let other = {
            let event = event.clone();
            spawn(3, None, move || {
                event.clear();
                event.set();
            })
        };
        let end = run(1, mortal, || {
            event.set();
            event.clear();
        });
        assert_eq!(other.join().unwrap(), End::Finished);
        observe(|| event.set());
        assert_eq!(patient.join().unwrap(), End::Finished);
        end
    });
    assert!(steps >= 4, "the mortal thread had only {steps} steps");
}

/// Timed waits say what is true: set when they say so, and never stranded by one another.
#[test]
fn a_wait_that_times_out_strands_nobody() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    let steps = MODEL.vanish_at_every_step(3, |mortal| {
        let event = event();
        let patient = waiter(2, None, &event);
        let end = run(1, mortal, || {
            if event.wait_until(soon()) {
                assert!(event.is_set(), "nobody clears it");
            }
        });
        observe(|| event.set());
        assert!(observe(|| event.wait_until(Deadline::PAST)));
        assert_eq!(patient.join().unwrap(), End::Finished);
        end
    });
    assert!(steps >= 3, "the mortal thread had only {steps} steps");
}

/// In a sandbox a `set` is made of several steps: whoever else comes in between, all go on.
#[test]
fn a_set_in_two_steps_strands_nobody() {
    let _one = ONE_AT_A_TIME.write().unwrap_or_else(|error| error.into_inner());
    in_sandbox(true);
    MODEL.explore(3, || {
        let event = event();
        let threads = [waiter(2, None, &event), waiter(3, None, &event)];
        observe(|| event.set());
        for thread in threads {
            assert_eq!(thread.join().unwrap(), End::Finished);
        }
        observe(|| assert!(event.is_set()));
    });
    MODEL.explore(3, || {
        let event = event();
        let thread = waiter(2, None, &event);
        let other = {
            let event = event.clone();
            spawn(1, None, move || {
                event.set();
                event.clear();
            })
        };
        assert_eq!(other.join().unwrap(), End::Finished);
        observe(|| event.set());
        assert_eq!(thread.join().unwrap(), End::Finished);
    });
    in_sandbox(false);
}

/// What was done before a `set` is visible after the wait, also if the event has been cleared meanwhile.
#[test]
fn a_wait_sees_what_was_done_before_the_set() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    MODEL.explore(5, || {
        let (event, work) = (event(), Arc::new(AtomicU32::new(0)));
        let setter = {
            let (event, work) = (event.clone(), work.clone());
            spawn(1, None, move || {
                work.store(1, Ordering::Relaxed);
                event.set();
            })
        };
        let clearer = {
            let event = event.clone();
            spawn(2, None, move || event.clear())
        };
        observe(|| {
            if event.wait_until(soon()) {
                assert_eq!(work.load(Ordering::Relaxed), 1);
            }
        });
        setter.join().unwrap();
        clearer.join().unwrap();
    });
}

/// Clear, then look: what is announced by a `set` of an event that is set already is found, or the event is set again.
#[test]
fn to_clear_and_then_look_misses_nothing() {
    let _one = ONE_AT_A_TIME.read().unwrap_or_else(|error| error.into_inner());
    MODEL.explore(4, || {
        let (event, work) = (event(), Arc::new(AtomicU32::new(0)));
        observe(|| event.set());
        let setter = {
            let (event, work) = (event.clone(), work.clone());
            spawn(1, None, move || {
                work.store(1, Ordering::Relaxed);
                event.set();
            })
        };
        let found = observe(|| {
            event.clear();
            work.load(Ordering::Relaxed) == 1
        });
        setter.join().unwrap();
        assert!(found || observe(|| event.is_set()));
    });
}
