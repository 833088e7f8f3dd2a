//! Kills a process at every instruction of every operation of the semaphores.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_semaphore -- --nocapture
//! POLYPROC_KILL_FULL=1 cargo test --release -p polyproc-tests --test kill_semaphore -- --nocapture
//! ```

use polyproc_semaphore::{Cell, Head, Permit, RawSemaphore, Semaphore};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_tests::child::Child;
use polyproc_tests::kill::{Operation, Outcome, When, is_full};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::one_at_a_time;
use std::time::{Duration, Instant};

/// Longer than any permit that is there needs to be acquired, and far shorter than the backstop.
const SOON: Duration = Duration::from_millis(50);

/// Long enough to be stepped into a sleep before it is over.
const DELAY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 40 });

struct Scene {
    semaphore: Semaphore,
    /// How many peers had a permit.
    passed: Shared<AtomicU32>,
}

impl Scene {
    fn new(permits: u32) -> impl Fn() -> Scene {
        move || Scene { semaphore: Semaphore::new(permits).unwrap(), passed: Shared::new() }
    }

    /// So that the first use of a thread is not stepped through each time.
    fn warm_up(&self) {
        drop(self.semaphore.acquire());
    }

    /// The part of a peer that gets a permit sooner or later.
    fn pass(&self) {
        let permit = self.semaphore.acquire();
        self.passed.fetch_add(1, Ordering::Relaxed);
        drop(permit);
    }

    /// As a survivor: all peers got through. How many permits there are, each of which can be had at once.
    fn survey(&self, peers: u32, outcome: &Outcome<'_>) -> u32 {
        assert_eq!(self.passed.load(Ordering::Relaxed), peers, "not all peers had a permit");
        let said = self.semaphore.available();
        let permits: Vec<Permit<'_>> =
            (0..said).map(|_| self.semaphore.acquire_timeout(SOON).unwrap()).collect();
        assert!(self.semaphore.try_acquire().is_err(), "more than {said}: {:?}", self.semaphore);
        drop(permits);
        if said > 0 {
            outcome.heals(|| drop(self.semaphore.acquire()));
        }
        said
    }
}

/// The check of operations that leave as many permits as there were.
fn all_there(permits: u32, peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        assert_eq!(scene.survey(peers, outcome), permits, "{:?}", scene.semaphore);
        "all there"
    }
}

/// A peer that holds a permit until its first cue.
fn holder(scene: &Scene, cues: &Cues) {
    let permit = scene.semaphore.acquire();
    cues.wait(1);
    drop(permit);
}

/// A peer that waits for a permit.
fn waiter(scene: &Scene, _: &Cues) {
    scene.pass();
}

/// A peer that waits for a permit from its cue on.
fn late(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        scene.pass();
    }
}

/// A peer that takes a permit at one cue and gives it back at another.
fn barger(takes: u32, gives: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(takes);
        let permit = scene.semaphore.acquire();
        scene.passed.fetch_add(1, Ordering::Relaxed);
        cues.wait(gives);
        drop(permit);
    }
}

/// The victim acquires one.
fn acquiring(name: &str, permits: u32) -> Operation<Scene> {
    Operation::new(name, Scene::new(permits)).victim(|scene, stage| {
        Scene::new(1)().warm_up();
        stage.begin();
        let permit = scene.semaphore.acquire();
        stage.end();
        drop(permit);
    })
}

/// The victim gives one back.
fn giving_back(name: &str) -> Operation<Scene> {
    Operation::new(name, Scene::new(1)).victim(|scene, stage| {
        let permit = scene.semaphore.acquire();
        stage.begin();
        drop(permit);
        stage.end();
    })
}

#[test]
fn acquire_and_give_back() {
    let _turn = one_at_a_time();
    acquiring("acquire", 3).check(&["all there"], all_there(3, 0)).run().assert_clean();
    giving_back("give back").check(&["all there"], all_there(1, 0)).run().assert_clean();
}

#[test]
fn acquire_and_give_back_beside_others() {
    let _turn = one_at_a_time();
    Operation::new("acquire and give back, holding another", Scene::new(2))
        .victim(|scene, stage| {
            let first = scene.semaphore.acquire();
            stage.begin();
            let second = scene.semaphore.acquire();
            drop(first);
            stage.end();
            drop(second);
        })
        .check(&["all there"], all_there(2, 0))
        .run()
        .assert_clean();
}

#[test]
fn forget() {
    let _turn = one_at_a_time();
    Operation::new("forget", Scene::new(2))
        .victim(|scene, stage| {
            let permit = scene.semaphore.acquire();
            stage.begin();
            permit.forget();
            stage.end();
        })
        .check(&["there", "forgotten"], |scene, outcome| match scene.survey(0, outcome) {
            2 => "there",
            1 => "forgotten",
            other => panic!("{other}: {:?}", scene.semaphore),
        })
        .run()
        .assert_clean();
}

#[test]
fn refused() {
    let _turn = one_at_a_time();
    Operation::new("try_acquire, held", Scene::new(1))
        .victim(|scene, stage| {
            Scene::new(1)().warm_up();
            stage.begin();
            let refused = scene.semaphore.try_acquire().is_err();
            stage.end();
            assert!(refused);
        })
        .peer(holder)
        .check(&["all there"], all_there(1, 0))
        .run()
        .assert_clean();
    Operation::new("acquire_timeout, held throughout", Scene::new(1))
        .victim(|scene, stage| {
            Scene::new(1)().warm_up();
            stage.begin();
            let refused = scene.semaphore.acquire_timeout(DELAY).is_err();
            stage.end();
            assert!(refused);
        })
        .peer(holder)
        .thinly(29)
        .check(&["all there"], all_there(1, 0))
        .run()
        .assert_clean();
}

#[test]
fn acquire_that_sleeps() {
    let _turn = one_at_a_time();
    acquiring("acquire, given back while asleep", 1)
        .peer(holder)
        .cue(When::Asleep)
        .thinly(19)
        .check(&["all there"], all_there(1, 0))
        .run()
        .assert_clean();
    acquiring("acquire, one asleep before", 1)
        .peer(holder)
        .peer(waiter)
        .cue(When::Asleep)
        .thinly(19)
        .check(&["all there"], all_there(1, 1))
        .run()
        .assert_clean();
    acquiring("acquire, one asleep behind", 1)
        .peer(|scene, cues| {
            let permit = scene.semaphore.acquire();
            cues.wait(2);
            drop(permit);
        })
        .peer(late(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(11)
        .check(&["all there"], all_there(1, 1))
        .run()
        .assert_clean();
}

/// The holder dies, and the victim, who is woken for it, as well.
#[test]
fn acquire_after_a_death() {
    let _turn = one_at_a_time();
    acquiring("acquire, a holder dies while asleep, one asleep behind", 1)
        .doomed_peer(|scene, cues| {
            let permit = scene.semaphore.acquire();
            cues.wait(2);
            core::mem::forget(permit);
        })
        .peer(late(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(11)
        .check(&["all there"], all_there(1, 1))
        .run()
        .assert_clean();
}

#[test]
fn acquire_for_which_a_permit_comes_at_any_time() {
    let _turn = one_at_a_time();
    let steps = acquiring("acquire, held", 1)
        .peer(holder)
        .peer(waiter)
        .thinly(99)
        .cue(When::Asleep)
        .run()
        .first_sleep();
    let stride = if is_full() { 1 } else { steps / 8 + 1 };
    for step in (0..=steps).step_by(stride as usize) {
        acquiring(&format!("acquire, given back after step {step}"), 1)
            .peer(holder)
            .peer(waiter)
            .cue(When::Step(step))
            .thinly(23)
            .check(&["all there"], all_there(1, 1))
            .run()
            .assert_clean();
    }
}

/// The victim is woken, and before it is back another has the permit. If the victim dies then, that other's end has to
/// wake who sleeps behind.
#[test]
fn acquire_that_is_overtaken() {
    let _turn = one_at_a_time();
    acquiring("acquire, one asleep behind, snatched away when woken", 1)
        .peer(|scene, cues| {
            let permit = scene.semaphore.acquire();
            cues.wait(2);
            drop(permit);
        })
        .peer(late(1))
        .peer(barger(3, 4))
        .cue(When::Asleep)
        .cue(When::Next)
        .cue(When::Next)
        .cue(When::Asleep)
        .thinly(29)
        .check(&["all there"], all_there(1, 2))
        .run()
        .assert_clean();
}

/// Two permits come back in one moment, and both wakes may hit the victim.
#[test]
fn acquire_that_is_woken_for_two() {
    let _turn = one_at_a_time();
    acquiring("acquire, two given back while asleep, one asleep behind", 2)
        .peer(|scene, cues| {
            let permits = (scene.semaphore.acquire(), scene.semaphore.acquire());
            cues.wait(2);
            drop(permits);
        })
        .peer(late(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(19)
        .check(&["all there"], all_there(2, 1))
        .run()
        .assert_clean();
}

#[test]
fn give_back_with_waiters() {
    let _turn = one_at_a_time();
    for waiters in 1..=3 {
        let mut operation = giving_back(&format!("give back, {waiters} asleep"));
        for _ in 0..waiters {
            operation = operation.peer(waiter);
        }
        operation.check(&["all there"], all_there(1, waiters)).run().assert_clean();
    }
    giving_back("give back, two asleep, snatched away once there")
        .peer(waiter)
        .peer(waiter)
        .peer(barger(1, 2))
        .cue(When::So(|scene| scene.semaphore.available() > 0))
        .check(&["all there"], all_there(1, 3))
        .run()
        .assert_clean();
}

/// A permit that nobody has held is brought into a cell: one that had a permit before, and one that nobody knew.
#[test]
fn acquire_what_was_released() {
    let _turn = one_at_a_time();
    let check = all_there(1, 0);
    acquiring("acquire, released, into a new cell", 0)
        .peer(|scene, _| scene.semaphore.release(1).unwrap())
        .check(&["all there"], check)
        .run()
        .assert_clean();
    acquiring("acquire, forgotten and released", 1)
        .peer(|scene, _| {
            scene.semaphore.acquire().forget();
            scene.semaphore.release(1).unwrap();
        })
        .check(&["all there"], all_there(1, 0))
        .run()
        .assert_clean();
}

/// The victim is woken for a permit in no cell, and dies on the way, with another asleep behind.
#[test]
fn acquire_what_comes_into_the_cell_of_a_forgotten_one() {
    let _turn = one_at_a_time();
    Operation::new("acquire what was released, and the next is forgotten", Scene::new(1))
        .victim(|scene, stage| {
            scene.semaphore.acquire().forget();
            scene.semaphore.release(1).unwrap();
            stage.begin();
            let permit = scene.semaphore.acquire();
            stage.end();
            drop(permit);
        })
        .check(&["all there"], |scene, outcome| {
            // The move that the victim may have died in is over: what is done to its cell since is not undone.
            scene.semaphore.acquire_timeout(SOON).unwrap().forget();
            scene.semaphore.release(1).unwrap();
            assert_eq!(scene.survey(0, outcome), 1, "{:?}", scene.semaphore);
            "all there"
        })
        .run()
        .assert_clean();
}

#[test]
fn acquire_what_is_released_while_asleep() {
    let _turn = one_at_a_time();
    for permits in 1..=2 {
        acquiring(&format!("acquire, {permits} released while asleep, one asleep behind"), 0)
            .peer(move |scene, cues| {
                cues.wait(2);
                scene.semaphore.release(permits).unwrap();
            })
            .peer(late(1))
            .cue(When::Asleep)
            .cue(When::Next)
            .thinly(19)
            .check(&["all there"], all_there(permits, 1))
            .run()
            .assert_clean();
    }
}

/// A semaphore in memory of the test's, whose room can be seen.
#[derive(Debug, Default)]
struct Bounded {
    head: Head,
    cells: [Cell; 2],
    passed: AtomicU32,
}

impl Bounded {
    fn raw(&self) -> RawSemaphore<'_> {
        RawSemaphore::new(&self.head, &self.cells)
    }

    fn acquire(&self) -> u32 {
        // SAFETY: no process unmaps it before the end of the play.
        unsafe { self.raw().acquire_until(0, Deadline::NEVER) }.unwrap()
    }

    fn pass(&self) {
        let index = self.acquire();
        self.passed.fetch_add(1, Ordering::Relaxed);
        // SAFETY: acquired above.
        unsafe { self.raw().put_back(index) };
    }

    /// With room for so many: in `supply`, or in the cells of forgotten permits.
    fn with_room(room: u32, forgotten: bool) -> Shared<Bounded> {
        let bounded = Shared::<Bounded>::new();
        if forgotten {
            bounded.raw().set_up(2, 2);
            for _ in 0..room {
                // SAFETY: acquired just now.
                unsafe { bounded.raw().forget(bounded.acquire()) };
            }
        } else {
            bounded.raw().set_up(2 - room, 2);
        }
        bounded
    }

    /// As a survivor: permits and room make two.
    fn survey(&self, outcome: &Outcome<'_>) -> u32 {
        let (said, room) = (self.raw().available(), self.raw().room());
        assert_eq!(said + room, 2, "{:?}", self.raw());
        let held: Vec<u32> = (0..said).map(|_| self.acquire()).collect();
        // SAFETY: as in `acquire`.
        assert!(unsafe { self.raw().acquire_until(0, Deadline::PAST) }.is_err());
        for index in held {
            // SAFETY: acquired above.
            unsafe { self.raw().put_back(index) };
        }
        assert!(self.raw().release(room + 1).is_err());
        if said > 0 {
            // SAFETY: acquired just now.
            outcome.heals(|| unsafe { self.raw().put_back(self.acquire()) });
        }
        self.raw().release(room).unwrap();
        assert_eq!((self.raw().available(), self.raw().room()), (2, 0));
        said
    }
}

fn released(before: u32, by: u32) -> impl Fn(&Shared<Bounded>, &Outcome<'_>) -> &'static str {
    move |bounded, outcome| match bounded.survey(outcome) {
        said if said == before => "old",
        said if said == before + by => "new",
        other => panic!("{other}: {:?}", bounded.raw()),
    }
}

#[test]
fn release() {
    let _turn = one_at_a_time();
    for forgotten in [false, true] {
        Operation::new(if forgotten { "release, collecting room" } else { "release" }, move || {
            Bounded::with_room(2, forgotten)
        })
        .victim(|bounded, stage| {
            Scene::new(1)().warm_up();
            stage.begin();
            bounded.raw().release(2).unwrap();
            stage.end();
        })
        .check(&["old", "new"], released(0, 2))
        .run()
        .assert_clean();
    }
    Operation::new("release, one too many", || Bounded::with_room(1, true))
        .victim(|bounded, stage| {
            Scene::new(1)().warm_up();
            stage.begin();
            let refused = bounded.raw().release(2).is_err();
            stage.end();
            assert!(refused);
        })
        .check(&["old"], |bounded, outcome| {
            assert_eq!(bounded.survey(outcome), 1);
            "old"
        })
        .run()
        .assert_clean();
}

/// If the victim did not get to it, another releases in its place; if it did, those who sleep must hear of it by the
/// victim's death alone.
#[test]
fn release_with_waiters() {
    let _turn = one_at_a_time();
    for (forgotten, waiters) in [(false, 1), (false, 2), (true, 2)] {
        let how = if forgotten { ", collecting room" } else { "" };
        let mut operation = Operation::new(format!("release of two{how}, {waiters} asleep"), move || {
            Bounded::with_room(2, forgotten)
        })
        .victim(|bounded, stage| {
            Scene::new(1)().warm_up();
            stage.begin();
            bounded.raw().release(2).unwrap();
            stage.end();
        })
        .peer(|bounded, cues| {
            cues.wait(1);
            if bounded.raw().room() == 2 {
                bounded.raw().release(2).unwrap();
            }
        });
        for _ in 0..waiters {
            operation = operation.peer(|bounded, _| bounded.pass());
        }
        operation
            .cue(When::So(|_| false))
            .check(&["all there"], move |bounded, outcome| {
                assert_eq!(bounded.passed.load(Ordering::Relaxed), waiters);
                assert_eq!(bounded.survey(outcome), 2);
                "all there"
            })
            .run()
            .assert_clean();
    }
}

/// From the death of a holder until the one who sleeps has the permit.
#[test]
fn killed_holders_permit_reaches_the_next_waiter_within_a_millisecond() {
    let _turn = one_at_a_time();
    const KILLS: usize = 250;
    let epoch = Instant::now();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let mut times: Vec<Duration> = (0..KILLS)
            .map(|_| {
                let semaphore = Semaphore::new(1).unwrap();
                let when = Shared::<polyproc_sys::atomic::AtomicU64>::new();
                let mut holder = Child::fork(|| {
                    let _permit = semaphore.acquire();
                    std::thread::sleep(Duration::from_secs(60));
                });
                while semaphore.available() > 0 {
                    std::thread::yield_now();
                }
                let mut waiter = Child::fork(|| {
                    let permit = semaphore.acquire();
                    when.store(epoch.elapsed().as_nanos() as u64, Ordering::SeqCst);
                    drop(permit);
                });
                assert!(holder.settle(SOON * 100) && waiter.settle(SOON * 100));
                assert_eq!(when.load(Ordering::SeqCst), 0);
                let killed = epoch.elapsed();
                holder.kill();
                assert!(waiter.wait(SOON * 100).is_some());
                assert_eq!((waiter.complaint(), semaphore.available()), (None, 1));
                Duration::from_nanos(when.load(Ordering::SeqCst)).saturating_sub(killed)
            })
            .collect();
        times.sort();
        let (p50, p99, max) = (times[KILLS / 2], times[KILLS * 99 / 100], times[KILLS - 1]);
        println!("{KILLS} kills of a holder with one asleep: p50 {p50:?}, p99 {p99:?}, max {max:?}");
        best = best.min(p99);
        if best <= Duration::from_millis(1) {
            return;
        }
    }
    panic!("the 99th percentile is {best:?} at best");
}
