//! Models of the condition: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-condition --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-condition --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use checker::sync::{Condvar as Bell, Mutex as Plain};
use checker::thread::{JoinHandle, spawn};
use polyproc_condition::{Ended, Queue, RawCondition, Slot};
use polyproc_mutex::RawMutex;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::model::{End, Explorer, run};
use std::time::Duration;
// Not the checker's: they would take part in the unwinding when a model fails, or be one more step.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// A deadline that lies ahead, which in a model runs out as soon as the thread would sleep.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

/// A condition, without the lock that there would be: what its waiters do around their sleep is counted instead.
struct Stage {
    queue: Queue,
    /// Beside the queue, so that their addresses are in the same order each time: the kernel of the model goes by it.
    slots: [Slot; 3],
    count: usize,
    /// Who waits or is gone, a bit for each, as the checker's own.
    arrived: Plain<u32>,
    bell: Bell,
    /// What lies between the sleep and the lock.
    way: polyproc_sys::atomic::AtomicU32,
    /// Who was back in the lock, had there been one, a bit for each.
    back: AtomicU32,
}

// SAFETY: atomics, and what the checker knows of.
unsafe impl Sync for Stage {}
// SAFETY: as above.
unsafe impl Send for Stage {}

impl Stage {
    fn new(count: usize) -> Arc<Stage> {
        Arc::new(Stage {
            queue: Queue::default(),
            slots: Default::default(),
            count,
            arrived: Plain::new(0),
            bell: Bell::new(),
            way: Default::default(),
            back: AtomicU32::new(0),
        })
    }

    fn condition(&self) -> RawCondition<'_> {
        RawCondition::new(&self.queue, &self.slots[..self.count])
    }

    fn wait(&self, tid: u32, deadline: Deadline) -> Ended {
        let release = || self.arrive(tid);
        let retake = || {
            // A step on the way back, with nothing pending.
            self.way.load(SeqCst);
            self.back.fetch_or(1 << tid, SeqCst);
        };
        // SAFETY: the slots live in an `Arc` that every thread has; nothing in the closures panics.
        let ((), ended) = unsafe { self.condition().wait(deadline, release, retake) }.unwrap();
        ended
    }

    /// Says that a waiter is there, or gone.
    fn arrive(&self, tid: u32) {
        *self.arrived.lock().unwrap() |= 1 << tid;
        self.bell.notify_all();
    }

    /// Waits until all up to this one have arrived.
    fn await_arrivals(&self, last: u32) {
        let mut arrived = self.arrived.lock().unwrap();
        while *arrived != (2 << last) - 2 {
            arrived = self.bell.wait(arrived).unwrap();
        }
    }

    /// A thread that waits until it is notified.
    fn waiter(self: &Arc<Stage>, tid: u32, mortal: Option<u32>) -> JoinHandle<End> {
        let stage = self.clone();
        spawn(move || {
            let arrived = stage.clone();
            let end = run(tid, mortal, || {
                assert_eq!(stage.wait(tid, Deadline::NEVER), Ended::Notified);
            });
            if end == End::Vanished {
                arrived.arrive(tid);
            }
            end
        })
    }
}

const MODEL: Explorer = Explorer { random: 1_000, rare: 0 };

/// An older waiter that is mortal, a younger one that is not, and one notification. Whoever of them is alive at the end
/// and was not in the lock again has it.
fn one_for_two(mortal: Option<u32>) -> End {
    let stage = Stage::new(2);
    let older = stage.waiter(1, mortal);
    stage.await_arrivals(1);
    let younger = stage.waiter(2, None);
    stage.await_arrivals(2);
    run(7, None, || {
        assert_eq!(stage.condition().notify(1), 1);
    });
    let end = older.join().unwrap();
    if stage.back.load(SeqCst) & 2 != 0 {
        // It was the older one, and it was back in the lock.
        run(8, None, || {
            stage.condition().notify(1);
        });
    }
    assert_eq!(younger.join().unwrap(), End::Finished);
    run(9, None, || assert_eq!(stage.condition().notify(9), 0));
    end
}

#[test]
fn a_waiter_that_vanishes_hands_its_notification_on() {
    let steps = MODEL.vanish_at_every_step(1, one_for_two);
    assert!(steps >= 20, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a waiter");
}

/// Two of three are notified, in the order of their arrival, whichever that is.
#[cfg(polyproc_shuttle)]
fn two_for_three(mortal: Option<u32>) -> End {
    let stage = Stage::new(3);
    let waiters = [stage.waiter(1, None), stage.waiter(2, mortal), stage.waiter(3, None)];
    stage.await_arrivals(3);
    run(7, None, || assert_eq!(stage.condition().notify(2), 2));
    // One is left, if nobody vanished; notified or not, the living come back.
    run(8, None, || while stage.condition().notify(1) != 0 {});
    let mut ends = waiters.map(|waiter| waiter.join().unwrap());
    ends.sort_by_key(|end| *end == End::Finished);
    ends[0]
}

#[cfg(polyproc_shuttle)]
#[test]
fn a_waiter_that_vanishes_among_three_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(1, two_for_three);
    println!("vanished at {steps} steps of a waiter among three");
}

/// How many waiters a notifier that vanishes has: more than one are too much for loom.
const AUDIENCE: u32 = if cfg!(polyproc_loom) { 1 } else { 3 };

/// A notifier that vanishes either notified nobody, or somebody that comes back without any help.
fn mortal_notifier(mortal: Option<u32>) -> End {
    let stage = Stage::new(AUDIENCE as usize);
    let waiters: Vec<_> = (1..=AUDIENCE).map(|tid| stage.waiter(tid, None)).collect();
    stage.await_arrivals(AUDIENCE);
    let end = run(7, mortal, || {
        assert_eq!(stage.condition().notify(1), 1);
    });
    run(8, None, || {
        // Whoever was notified is not notified again.
        stage.condition().notify(AUDIENCE);
    });
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), End::Finished);
    }
    end
}

#[test]
fn a_notifier_that_vanishes_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(2, mortal_notifier);
    assert!(steps >= 8, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of notify");
}

/// Once one knows of a notification to all, all do, whoever is there to tell them.
fn mortal_notifier_of_all(mortal: Option<u32>) -> End {
    let stage = Stage::new(AUDIENCE as usize);
    let waiters: Vec<_> = (1..=AUDIENCE).map(|tid| stage.waiter(tid, None)).collect();
    stage.await_arrivals(AUDIENCE);
    let end = run(7, mortal, || assert_eq!(stage.condition().notify_all(), AUDIENCE));
    // Before the commit it has done nothing.
    if stage.condition().waiting() == AUDIENCE {
        assert_eq!(end, End::Vanished);
        run(8, None, || assert_eq!(stage.condition().notify(AUDIENCE), AUDIENCE));
    }
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), End::Finished);
    }
    end
}

#[test]
fn a_notifier_of_all_that_vanishes_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(2, mortal_notifier_of_all);
    assert!(steps >= 8, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of notify_all");
}

/// One runs out of time while it is notified: it has been notified, or another has.
#[test]
fn a_waiter_out_of_time_swallows_nothing() {
    MODEL.explore(1, || {
        let stage = Stage::new(2);
        let hasty = {
            let stage = stage.clone();
            spawn(move || {
                let mut ended = None;
                run(1, None, || ended = Some(stage.wait(1, soon())));
                ended.unwrap()
            })
        };
        stage.await_arrivals(1);
        let patient = stage.waiter(2, None);
        stage.await_arrivals(2);
        run(7, None, || {
            assert_eq!(stage.condition().notify(1), 1);
        });
        // Without its own, the other has it.
        if hasty.join().unwrap() == Ended::Notified {
            run(8, None, || assert_eq!(stage.condition().notify(1), 1));
        }
        assert_eq!(patient.join().unwrap(), End::Finished);
    });
}

/// With more waiters than slots, the others poll.
#[test]
fn a_waiter_without_a_slot_misses_nothing() {
    MODEL.explore(2, || {
        let stage = Stage::new(1);
        let waiters = [stage.waiter(1, None), stage.waiter(2, None)];
        stage.await_arrivals(2);
        run(7, None, || {
            stage.condition().notify(1);
        });
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), End::Finished);
        }
    });
}

/// With the lock, and the number that it is about.
struct Locked {
    stage: Arc<Stage>,
    mutex: RawMutex,
    number: AtomicU32,
}

impl Locked {
    fn lock(&self) {
        // SAFETY: the mutex lives in an `Arc` that every thread has.
        unsafe { self.mutex.lock_until(Deadline::NEVER) }.unwrap();
    }

    fn unlock(&self) {
        // SAFETY: each caller has locked.
        unsafe { self.mutex.unlock() };
    }

    /// Takes one off the number as soon as there is one.
    fn take(&self) {
        self.lock();
        while self.number.load(SeqCst) == 0 {
            // SAFETY: as in `Stage::wait`; the lock is held.
            let waited =
                unsafe { self.stage.condition().wait(Deadline::NEVER, || self.unlock(), || self.lock()) };
            waited.unwrap();
        }
        self.number.fetch_sub(1, SeqCst);
        self.unlock();
    }

    fn put(&self) {
        self.lock();
        self.number.fetch_add(1, SeqCst);
        self.stage.condition().notify(1);
        self.unlock();
    }
}

// SAFETY: atomics, and what the checker knows of.
unsafe impl Sync for Locked {}
// SAFETY: as above.
unsafe impl Send for Locked {}

/// Some take, one of them mortal; one puts, enough for all of them.
fn exchange(takers: u32, mortal: Option<u32>) -> End {
    let locked = Arc::new(Locked {
        stage: Stage::new(takers as usize),
        mutex: RawMutex::new(),
        number: AtomicU32::new(0),
    });
    let threads: Vec<_> = (1..=takers)
        .map(|tid| {
            let locked = locked.clone();
            spawn(move || run(tid, mortal.filter(|_| tid == 1), || locked.take()))
        })
        .collect();
    run(9, None, || (0..takers).for_each(|_| locked.put()));
    let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(ends[1..].iter().all(|end| *end == End::Finished));
    ends[0]
}

#[test]
fn what_is_put_is_taken() {
    MODEL.explore(2, || assert_eq!(exchange(1, None), End::Finished));
}

#[test]
#[cfg(polyproc_shuttle)]
fn what_is_put_is_taken_by_the_living() {
    let steps = MODEL.vanish_at_every_step(1, |mortal| exchange(3, mortal));
    assert!(steps >= 40, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a taker");
}
