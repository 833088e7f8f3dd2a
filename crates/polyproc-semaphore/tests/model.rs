//! Models of the semaphore: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-semaphore --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-semaphore --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use polyproc_semaphore::{Cell, Head, RawSemaphore, Refusal};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::model::{End, Explorer, Number, run};
// Not the checker's: it would take part in the unwinding when a model fails.
use std::sync::{Arc, Mutex};

/// A semaphore, and a number that two holders of its only permit would corrupt.
struct Shared {
    head: Head,
    /// In one piece with the head: the model takes words in the order of their addresses, which must be the same each time.
    cells: [Cell; 2],
    /// How many of the cells there are.
    count: usize,
    number: Number,
}

impl Shared {
    /// `permits` now, `most` at most, and so many cells.
    fn new(permits: u32, most: u32, cells: u32) -> Arc<Shared> {
        let (head, count) = (Head::default(), cells as usize);
        let shared = Shared { head, cells: Default::default(), count, number: Default::default() };
        shared.raw().set_up(permits, most);
        Arc::new(shared)
    }

    fn raw(&self) -> RawSemaphore<'_> {
        RawSemaphore::new(&self.head, &self.cells[..self.count])
    }

    fn acquire(&self) -> u32 {
        self.acquire_until(Deadline::NEVER).unwrap()
    }

    fn acquire_until(&self, deadline: Deadline) -> Result<u32, Refusal> {
        // SAFETY: every thread of a model keeps the semaphore alive by an `Arc`.
        unsafe { self.raw().acquire_until(0, deadline) }
    }

    fn put_back(&self, index: u32) {
        // SAFETY: each caller has acquired.
        unsafe { self.raw().put_back(index) };
    }

    fn forget(&self, index: u32) {
        // SAFETY: each caller has acquired.
        unsafe { self.raw().forget(index) };
    }

    /// A critical section with the only permit.
    fn pass(&self) {
        let index = self.acquire();
        self.number.increment();
        self.put_back(index);
    }

    /// As the last one there: takes all permits, so that their number is known, and returns it, with the room.
    fn audit(&self) -> (u32, u32) {
        let mut result = (0, 0);
        run(9, None, || {
            let said = self.raw().available();
            let mut held = Vec::new();
            while let Ok(index) = self.acquire_until(Deadline::PAST) {
                held.push(index);
            }
            assert_eq!((said, self.raw().available()), (held.len() as u32, 0));
            for index in &held {
                self.put_back(*index);
            }
            result = (held.len() as u32, self.raw().room());
            // What is said to be room is.
            assert!(self.raw().release(result.1 + 1).is_err());
            self.raw().release(result.1).unwrap();
            assert_eq!((self.raw().available(), self.raw().room()), (result.0 + result.1, 0));
        });
        result
    }
}

const MODEL: Explorer = Explorer { random: 500, rare: 0 };

/// A thread that cannot vanish.
fn spawn(
    tid: u32,
    shared: &Arc<Shared>,
    f: impl FnOnce(&Shared) + Send + 'static,
) -> checker::thread::JoinHandle<End> {
    let shared = shared.clone();
    checker::thread::spawn(move || run(tid, None, || f(&shared)))
}

/// `others` threads pass through the only permit while the mortal one does.
fn contend(others: u32, mortal: Option<u32>) -> End {
    let shared = Shared::new(1, 1, 1);
    let threads: Vec<_> = (0..others).map(|index| spawn(2 + index, &shared, Shared::pass)).collect();
    let end = run(1, mortal, || shared.pass());
    for thread in threads {
        assert_eq!(thread.join().unwrap(), End::Finished);
    }
    assert_eq!(shared.audit(), (1, 0));
    end
}

#[test]
fn two_threads_share_a_permit() {
    MODEL.explore(3, || assert_eq!(contend(1, None), End::Finished));
}

#[test]
fn three_threads_share_a_permit() {
    MODEL.explore(2, || assert_eq!(contend(2, None), End::Finished));
}

#[test]
fn a_thread_that_vanishes_strands_nobody() {
    assert!(MODEL.vanish_at_every_step(3, |mortal| contend(1, mortal)) >= 10);
}

#[test]
fn a_thread_that_vanishes_among_three_strands_nobody() {
    assert!(MODEL.vanish_at_every_step(1, |mortal| contend(2, mortal)) >= 10);
}

/// The holder gives the permit back and takes it again at once, so that it is taken when the woken waiter, who is mortal,
/// vanishes. A second waiter sleeps all the while.
fn overtaken(mortal: Option<u32>) -> End {
    let shared = Shared::new(1, 1, 1);
    let mut end = End::Finished;
    run(7, None, || {
        let index = shared.acquire();
        let first = {
            let shared = shared.clone();
            checker::thread::spawn(move || run(1, mortal, || shared.pass()))
        };
        let second = spawn(2, &shared, Shared::pass);
        shared.put_back(index);
        shared.pass();
        end = first.join().unwrap();
        assert_eq!(second.join().unwrap(), End::Finished);
    });
    assert_eq!(shared.audit(), (1, 0));
    end
}

#[test]
fn a_waiter_that_is_woken_and_vanishes_while_overtaken_strands_nobody() {
    assert!(MODEL.vanish_at_every_step(1, overtaken) >= 10);
}

/// Two permits come back at a time, and both wakes may hit the same of two sleepers.
fn two_at_a_time(mortal: Option<u32>) -> End {
    let shared = Shared::new(2, 2, 2);
    let mut end = End::Finished;
    run(7, None, || {
        let (a, b) = (shared.acquire(), shared.acquire());
        let first = {
            let shared = shared.clone();
            checker::thread::spawn(move || run(1, mortal, || shared.put_back(shared.acquire())))
        };
        let second = spawn(2, &shared, |shared| shared.put_back(shared.acquire()));
        shared.put_back(a);
        shared.put_back(b);
        end = first.join().unwrap();
        assert_eq!(second.join().unwrap(), End::Finished);
    });
    assert_eq!(shared.audit(), (2, 0));
    end
}

#[test]
fn two_permits_at_a_time_wake_two() {
    assert!(MODEL.vanish_at_every_step(1, two_at_a_time) >= 10);
}

/// One waits for a permit that another releases without having held it.
fn released(mortal: Option<u32>, releaser_is_mortal: bool) -> End {
    let shared = Shared::new(0, 2, 1);
    let (releaser, acquirer) = if releaser_is_mortal { (mortal, None) } else { (None, mortal) };
    let other = {
        let shared = shared.clone();
        checker::thread::spawn(move || {
            run(2, releaser, || {
                shared.raw().release(1).unwrap();
            })
        })
    };
    // If the releaser vanishes before it has released, there is nothing to wait for.
    let deadline = if releaser.is_some() { Deadline::PAST } else { Deadline::NEVER };
    let acquired = run(1, acquirer, || {
        if let Ok(index) = shared.acquire_until(deadline) {
            shared.put_back(index);
        }
    });
    let released = other.join().unwrap();
    let (permits, room) = shared.audit();
    assert_eq!(permits + room, 2);
    if released == End::Finished {
        assert_eq!(permits, 1);
    }
    if releaser_is_mortal { released } else { acquired }
}

#[test]
fn an_acquirer_of_a_released_permit_that_vanishes_leaves_it_there() {
    assert!(MODEL.vanish_at_every_step(3, |mortal| released(mortal, false)) >= 10);
}

#[test]
fn a_releaser_that_vanishes_has_released_or_not() {
    assert!(MODEL.vanish_at_every_step(2, |mortal| released(mortal, true)) >= 2);
}

/// Two wait for two permits that come at once, one of them mortal; the cells are not known before.
fn released_to_two(mortal: Option<u32>) -> End {
    let shared = Shared::new(0, 2, 2);
    let first = {
        let shared = shared.clone();
        checker::thread::spawn(move || run(1, mortal, || shared.put_back(shared.acquire())))
    };
    let second = spawn(2, &shared, |shared| shared.put_back(shared.acquire()));
    run(7, None, || shared.raw().release(2).unwrap());
    let end = first.join().unwrap();
    assert_eq!(second.join().unwrap(), End::Finished);
    assert_eq!(shared.audit(), (2, 0));
    end
}

#[test]
fn released_permits_reach_all_who_wait() {
    assert!(MODEL.vanish_at_every_step(0, released_to_two) >= 10);
}

/// A permit comes into a cell that a sleeper has not known, is taken out by the mortal thread, and that vanishes with it.
fn unknown_cell(mortal: Option<u32>) -> End {
    let shared = Shared::new(0, 1, 1);
    let second = spawn(2, &shared, |shared| shared.put_back(shared.acquire()));
    let releaser = spawn(3, &shared, |shared| shared.raw().release(1).unwrap());
    let end = run(1, mortal, || shared.put_back(shared.acquire()));
    assert_eq!(releaser.join().unwrap(), End::Finished);
    assert_eq!(second.join().unwrap(), End::Finished);
    assert_eq!(shared.audit(), (1, 0));
    end
}

#[test]
fn a_cell_that_sleepers_did_not_know_is_known_in_time() {
    assert!(MODEL.vanish_at_every_step(0, unknown_cell) >= 10);
}

/// The mortal thread forgets a permit, while another waits for one.
fn forgotten(mortal: Option<u32>) -> End {
    let shared = Shared::new(2, 2, 2);
    let other = spawn(2, &shared, |shared| shared.put_back(shared.acquire()));
    let end = run(1, mortal, || shared.forget(shared.acquire()));
    assert_eq!(other.join().unwrap(), End::Finished);
    let (permits, room) = shared.audit();
    assert_eq!(permits + room, 2);
    assert_eq!(room, u32::from(end == End::Finished).max(room));
    end
}

#[test]
fn a_forgotten_permit_is_room_for_another() {
    assert!(MODEL.vanish_at_every_step(3, forgotten) >= 5);
}

/// Two release at once, where there is room for one; one of them is mortal, and finds room that has to be collected.
fn bounded(mortal: Option<u32>) -> End {
    let shared = Shared::new(1, 1, 1);
    run(8, None, || shared.forget(shared.acquire()));
    let results = Arc::new(Mutex::new(Vec::new()));
    let other = {
        let (shared, results) = (shared.clone(), results.clone());
        checker::thread::spawn(move || {
            run(2, None, || {
                let result = shared.raw().release(1);
                results.lock().unwrap().push(result.is_ok());
            })
        })
    };
    let end = run(1, mortal, || {
        let result = shared.raw().release(1);
        results.lock().unwrap().push(result.is_ok());
    });
    assert_eq!(other.join().unwrap(), End::Finished);
    let (permits, room) = shared.audit();
    // The other can only have failed if the mortal one has succeeded, whether it lived to tell or not.
    assert_eq!((permits, room), (1, 0));
    let successes = results.lock().unwrap().iter().filter(|ok| **ok).count();
    assert!(successes == 1 || (successes == 0 && end == End::Vanished));
    end
}

#[test]
fn one_of_two_is_refused_where_there_is_room_for_one() {
    assert!(MODEL.vanish_at_every_step(3, bounded) >= 10);
}

/// A mortal thread brings a forgotten permit's successor into its cell.
fn refilled(mortal: Option<u32>) -> End {
    let shared = Shared::new(2, 2, 1);
    run(8, None, || shared.forget(shared.acquire()));
    let other = spawn(2, &shared, |shared| shared.put_back(shared.acquire()));
    let end = run(1, mortal, || shared.put_back(shared.acquire()));
    assert_eq!(other.join().unwrap(), End::Finished);
    assert_eq!(shared.audit(), (1, 1));
    end
}

#[test]
fn a_permit_on_its_way_into_a_cell_arrives() {
    assert!(MODEL.vanish_at_every_step(1, refilled) >= 10);
}

/// A permit is handed to the mortal thread, which vanishes, while another waits for one, and nobody else comes.
fn handed_over(mortal: Option<u32>) -> End {
    let shared = Shared::new(1, 1, 1);
    let mut end = End::Finished;
    run(7, None, || {
        let index = shared.acquire();
        let first = {
            let shared = shared.clone();
            checker::thread::spawn(move || run(1, mortal, || shared.pass()))
        };
        let second = spawn(2, &shared, Shared::pass);
        // So that both sleep, in one of the orders.
        polyproc_sys::model::yield_now();
        shared.put_back(index);
        end = first.join().unwrap();
        assert_eq!(second.join().unwrap(), End::Finished);
    });
    assert_eq!(shared.audit(), (1, 0));
    end
}

#[test]
fn a_permit_handed_to_one_that_vanishes_goes_to_the_next() {
    assert!(MODEL.vanish_at_every_step(0, handed_over) >= 10);
}

/// The mortal thread has two permits when it vanishes. The kernel wakes for both, and may hit the same of two sleepers.
fn two_die(mortal: Option<u32>) -> End {
    let shared = Shared::new(2, 2, 2);
    let others: Vec<_> =
        (2..4).map(|tid| spawn(tid, &shared, |shared| shared.put_back(shared.acquire()))).collect();
    let end = run(1, mortal, || {
        let (a, b) = (shared.acquire(), shared.acquire());
        polyproc_sys::model::yield_now();
        shared.put_back(a);
        shared.put_back(b);
    });
    for other in others {
        assert_eq!(other.join().unwrap(), End::Finished);
    }
    assert_eq!(shared.audit(), (2, 0));
    end
}

#[test]
fn two_permits_of_one_that_vanishes_reach_two() {
    assert!(MODEL.vanish_at_every_step(0, two_die) >= 10);
}

/// One is at the gate, to no avail, when another comes there for a permit.
fn busy_gate(mortal: Option<u32>) -> End {
    let shared = Shared::new(0, 1, 1);
    run(8, None, || shared.raw().release(1).unwrap());
    let other = spawn(2, &shared, |shared| shared.put_back(shared.acquire()));
    let end = run(1, mortal, || assert!(shared.raw().release(1).is_err()));
    assert_eq!(other.join().unwrap(), End::Finished);
    assert_eq!(shared.audit(), (1, 0));
    end
}

#[test]
fn one_that_finds_the_gate_busy_hears_of_its_end() {
    assert!(MODEL.vanish_at_every_step(3, busy_gate) >= 5);
}

/// A waiter whose deadline has passed leaves nothing behind that keeps others waiting.
#[test]
fn a_waiter_that_times_out_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(2, |mortal| {
        let shared = Shared::new(1, 1, 1);
        let patient = spawn(2, &shared, Shared::pass);
        let end = run(1, mortal, || {
            // A deadline that lies ahead, which in a model runs out as soon as the thread would sleep.
            match shared.acquire_until(Deadline::after(std::time::Duration::from_secs(3600))) {
                Ok(index) => {
                    shared.number.increment();
                    shared.put_back(index);
                }
                Err(refusal) => assert_eq!(refusal, Refusal::TimedOut),
            }
        });
        assert_eq!(patient.join().unwrap(), End::Finished);
        assert_eq!(shared.audit(), (1, 0));
        end
    });
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
}
