//! Kills a process at every instruction of every operation of the readers-writer lock.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_rwlock -- --nocapture
//! ```

use polyproc_rwlock::{LockTimeoutError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_tests::kill::{Operation, Outcome, When};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::one_at_a_time;
use std::time::Duration;

/// Longer than any lock that nobody holds needs to be taken, and far shorter than the backstop.
const SOON: Duration = Duration::from_millis(50);
/// Long enough to be stepped into a sleep before it is over.
const DELAY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 40 });

struct Scene {
    lock: RwLock<u64>,
    /// How many peers had the lock.
    passed: Shared<AtomicU32>,
}

impl Scene {
    /// With so many places for readers.
    fn new(readers: u32) -> Scene {
        Scene { lock: RwLock::with_readers(0, readers).unwrap(), passed: Shared::new() }
    }

    /// So that the first use of a thread is not stepped through each time.
    fn warm_up(&self) {
        drop(self.lock.read());
        drop(self.lock.write());
    }

    fn read(&self) -> RwLockReadGuard<'_, u64> {
        self.lock.read().unwrap_or_else(|error| error.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, u64> {
        self.lock.write().unwrap_or_else(|error| error.into_inner())
    }

    fn pass(&self, guard: impl Sized) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        drop(guard);
    }

    /// As a survivor: everybody else got through, and the lock is as it was when it was new. What the data was, and
    /// whether the victim poisoned it.
    fn survey(&self, peers: u32, outcome: &Outcome<'_>) -> (u64, bool) {
        assert_eq!(self.passed.load(Ordering::Relaxed), peers, "not all peers had the lock");
        let (value, poisoner) = match self.lock.write_timeout(SOON) {
            Ok(guard) => (*guard, None),
            Err(LockTimeoutError::Poisoned(error)) => (**error.get_ref(), Some(error.cause().pid())),
            Err(error) => panic!("{error}, after {SOON:?}: {:?}", self.lock),
        };
        self.lock.clear_poison();
        if let Some(pid) = poisoner {
            assert_eq!(pid, outcome.victim, "the wrong process is said to have died");
        }
        let guards: Vec<_> = (0..self.lock.max_readers()).map(|_| self.lock.try_read().unwrap()).collect();
        assert_eq!(self.lock.readers(), guards.len());
        drop(guards);
        assert_eq!((self.lock.readers(), self.lock.writer()), (0, None));
        outcome.heals(|| {
            drop(self.lock.write().unwrap());
            drop(self.lock.read().unwrap());
        });
        (value, poisoner.is_some())
    }
}

/// The check of operations that do not write: `peers` others had the lock, and nothing is poisoned.
fn untouched(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| match scene.survey(peers, outcome) {
        (0, false) => "clean",
        other => panic!("{other:?}"),
    }
}

/// The check of operations that wait to write: how many steps that takes is not the same each time.
fn poisoned_or_not(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| match scene.survey(peers, outcome) {
        (0, _) => "clean or poisoned",
        other => panic!("{other:?}"),
    }
}

/// The check of operations that take the lock to write: `peers` others had the lock.
fn poisoned(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| match scene.survey(peers, outcome) {
        (0, false) => "clean",
        (0, true) => "poisoned",
        other => panic!("{other:?}"),
    }
}

fn reads(scene: &Scene, _: &Cues) {
    scene.pass(scene.read());
}

fn writes(scene: &Scene, _: &Cues) {
    scene.pass(scene.write());
}

/// Reads from its beginning to this cue.
fn reads_until(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        let guard = scene.read();
        cues.wait(cue);
        scene.pass(guard);
    }
}

/// Has the lock to write from its beginning to this cue.
fn writes_until(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        let guard = scene.write();
        cues.wait(cue);
        scene.pass(guard);
    }
}

fn reads_from(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        scene.pass(scene.read());
    }
}

fn writes_from(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        scene.pass(scene.write());
    }
}

/// The victim reads.
fn reading(name: &str, readers: u32) -> Operation<Scene> {
    Operation::new(name, move || Scene::new(readers)).victim(|scene, stage| {
        scene.warm_up();
        stage.begin();
        let guard = scene.read();
        drop(guard);
        stage.end();
    })
}

/// The victim takes the lock to write, and is killed no later than with it.
fn writing(name: &str, readers: u32) -> Operation<Scene> {
    Operation::new(name, move || Scene::new(readers)).victim(|scene, stage| {
        scene.warm_up();
        stage.begin();
        let guard = scene.write();
        stage.end();
        drop(guard);
    })
}

#[test]
fn read_of_a_free_lock() {
    let _turn = one_at_a_time();
    reading("read, free", 4).check(&["clean"], untouched(0)).run().assert_clean();
    reading("read beside another reader", 4)
        .peer(reads_until(1))
        .check(&["clean"], untouched(1))
        .run()
        .assert_clean();
}

#[test]
fn read_by_another_slot() {
    let _turn = one_at_a_time();
    Operation::new("read twice, read again", || Scene::new(2))
        .victim(|scene, stage| {
            scene.warm_up();
            stage.begin();
            let guards = [scene.read(), scene.read(), scene.read()];
            drop(guards);
            stage.end();
        })
        .check(&["clean"], untouched(0))
        .run()
        .assert_clean();
}

#[test]
fn first_read_of_a_thread() {
    let _turn = one_at_a_time();
    Operation::new("read, the first of a thread", || Scene::new(4))
        .victim(|scene, stage| {
            stage.begin();
            drop(scene.read());
            stage.end();
        })
        .check(&["clean"], untouched(0))
        .run()
        .assert_clean();
}

#[test]
fn read_that_waits_for_a_writer() {
    let _turn = one_at_a_time();
    reading("read, written until asleep", 4)
        .thinly(7)
        .peer(writes_until(1))
        .cue(When::Asleep)
        .check(&["clean"], untouched(1))
        .run()
        .assert_clean();
    reading("read, written until asleep, a writer and a reader behind", 4)
        .thinly(7)
        .peer(writes_until(3))
        .peer(writes_from(1))
        .peer(reads_from(2))
        .cue(When::Asleep)
        .cue(When::Next)
        .cue(When::Next)
        .check(&["clean"], untouched(3))
        .run()
        .assert_clean();
}

#[test]
fn read_with_a_writer_that_comes_at_any_time() {
    let _turn = one_at_a_time();
    let steps = reading("read, free", 4).run().steps();
    for step in (0..steps).step_by(steps as usize / 12 + 1) {
        reading(&format!("read, a writer comes after step {step}"), 4)
            .peer(writes_from(1))
            .cue(When::Step(step))
            .thinly(3)
            .check(&["clean"], untouched(1))
            .run()
            .assert_clean();
    }
}

#[test]
fn read_that_waits_for_a_place() {
    let _turn = one_at_a_time();
    for cue in [[1, 2], [2, 1]] {
        reading("read, no place until asleep, a writer behind", 2)
            .thinly(7)
            .peer(reads_until(cue[0] + 1))
            .peer(reads_until(cue[1] + 1))
            .peer(writes_from(1))
            .cue(When::Asleep)
            .cue(When::Next)
            .cue(When::Next)
            .check(&["clean"], untouched(3))
            .run()
            .assert_clean();
    }
}

#[test]
fn end_of_a_read() {
    let _turn = one_at_a_time();
    let ending = |name: &str, readers| {
        Operation::new(name, move || Scene::new(readers)).victim(|scene, stage| {
            let guard = scene.read();
            stage.begin();
            drop(guard);
            stage.end();
        })
    };
    ending("end of a read, a writer asleep", 4)
        .peer(writes)
        .check(&["clean"], untouched(1))
        .run()
        .assert_clean();
    ending("end of a read, two writers and a reader asleep", 4)
        .peer(writes)
        .peer(writes)
        .peer(reads)
        .check(&["clean"], untouched(3))
        .run()
        .assert_clean();
    ending("end of a read, a reader waits for the place", 1)
        .peer(reads)
        .peer(writes)
        .check(&["clean"], untouched(2))
        .run()
        .assert_clean();
    // The slot is free, but the writer is not awake yet: another reader is in and out before it.
    ending("end of a read, a writer asleep, a reader comes once it is free", 1)
        .peer(writes)
        .peer(reads_from(1))
        .cue(When::So(|scene| scene.lock.readers() == 0))
        .check(&["clean"], untouched(2))
        .run()
        .assert_clean();
}

#[test]
fn nested_read_before_a_writer_that_waits() {
    let _turn = one_at_a_time();
    Operation::new("read again, a writer asleep", || Scene::new(4))
        .victim(|scene, stage| {
            let outer = scene.read();
            stage.begin();
            let inner = scene.read();
            drop(outer);
            drop(inner);
            stage.end();
        })
        .peer(writes)
        .check(&["clean"], untouched(1))
        .run()
        .assert_clean();
}

#[test]
fn write_of_a_free_lock() {
    let _turn = one_at_a_time();
    writing("write, free", 4).check(&["clean", "poisoned"], poisoned(0)).run().assert_clean();
    Operation::new("write, add, end", || Scene::new(4))
        .victim(|scene, stage| {
            scene.warm_up();
            stage.begin();
            *scene.write() += 1;
            stage.end();
        })
        .check(&["old", "old and poisoned", "new and poisoned", "new"], |scene, outcome| {
            match scene.survey(0, outcome) {
                (0, false) => "old",
                (0, true) => "old and poisoned",
                (1, true) => "new and poisoned",
                (1, false) => "new",
                other => panic!("{other:?}"),
            }
        })
        .run()
        .assert_clean();
}

#[test]
fn write_that_waits_for_readers() {
    let _turn = one_at_a_time();
    writing("write, read until asleep", 4)
        .thinly(3)
        .peer(reads_until(1))
        .cue(When::Asleep)
        .check(&["clean or poisoned"], poisoned_or_not(1))
        .run()
        .assert_clean();
    writing("write, read by two until asleep, a reader and a writer behind", 4)
        .thinly(3)
        .peer(reads_until(3))
        .peer(reads_until(4))
        .peer(reads_from(1))
        .peer(writes_from(2))
        .cue(When::Asleep)
        .cue(When::Next)
        .cue(When::Next)
        .cue(When::Next)
        .check(&["clean or poisoned"], poisoned_or_not(4))
        .run()
        .assert_clean();
}

#[test]
fn write_that_waits_for_a_reader_that_dies() {
    let _turn = one_at_a_time();
    writing("write, the reader dies while this is asleep, another behind", 4)
        .thinly(3)
        .doomed_peer(|scene, cues| {
            let guard = scene.read();
            cues.wait(2);
            core::mem::forget(guard);
        })
        .peer(writes_from(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .check(&["clean or poisoned"], poisoned_or_not(1))
        .run()
        .assert_clean();
}

#[test]
fn end_of_a_write() {
    let _turn = one_at_a_time();
    Operation::new("end of a write, two readers and a writer asleep", || Scene::new(4))
        .victim(|scene, stage| {
            let guard = scene.write();
            stage.begin();
            drop(guard);
            stage.end();
        })
        .peer(reads)
        .peer(reads)
        .peer(writes)
        .check(&["poisoned", "clean"], poisoned(3))
        .run()
        .assert_clean();
}

#[test]
fn takes_over_what_the_dead_left() {
    let _turn = one_at_a_time();
    Operation::new("read, the place of a dead reader", || Scene::new(1))
        .victim(|scene, stage| {
            drop(scene.lock.try_write());
            stage.begin();
            drop(scene.read());
            stage.end();
        })
        .doomed_peer(|scene, _| core::mem::forget([scene.read(), scene.read()]))
        .check(&["clean"], untouched(0))
        .run()
        .assert_clean();
    Operation::new("read, after a dead writer", || Scene::new(4))
        .victim(|scene, stage| {
            stage.begin();
            let told = scene.lock.read().is_err();
            stage.end();
            assert!(told);
        })
        .doomed_peer(|scene, _| {
            scene.passed.store(std::process::id(), Ordering::Relaxed);
            core::mem::forget(scene.write());
        })
        .check(&["told"], |scene, outcome| {
            let error = scene.lock.try_read().unwrap_err();
            let TryLockError::Poisoned(error) = error else { panic!("{error}") };
            assert_eq!(error.cause().pid(), scene.passed.load(Ordering::Relaxed));
            drop(error);
            scene.lock.clear_poison();
            outcome.heals(|| drop(scene.lock.write().unwrap()));
            "told"
        })
        .run()
        .assert_clean();
}

#[test]
fn who_gives_up_leaves_nothing() {
    let _turn = one_at_a_time();
    let refused = |name: &str, readers, refused: fn(&RwLock<u64>) -> bool| {
        Operation::new(name, move || Scene::new(readers)).victim(move |scene, stage| {
            scene.warm_up();
            stage.begin();
            let refused = refused(&scene.lock);
            stage.end();
            assert!(refused);
        })
    };
    let clean = |operation: Operation<Scene>, peers| {
        operation.thinly(7).check(&["clean"], untouched(peers)).run().assert_clean();
    };
    let timed_read = |lock: &RwLock<u64>| matches!(lock.read_timeout(DELAY), Err(LockTimeoutError::TimedOut));
    let timed_write =
        |lock: &RwLock<u64>| matches!(lock.write_timeout(DELAY), Err(LockTimeoutError::TimedOut));
    clean(refused("try_read, written", 4, |lock| lock.try_read().is_err()).peer(writes_until(1)), 1);
    clean(refused("try_read, no place", 1, |lock| lock.try_read().is_err()).peer(reads_until(1)), 1);
    clean(refused("try_write, written", 4, |lock| lock.try_write().is_err()).peer(writes_until(1)), 1);
    clean(refused("try_write, read", 4, |lock| lock.try_write().is_err()).peer(reads_until(1)), 1);
    clean(refused("read_timeout, written", 4, timed_read).peer(writes_until(1)), 1);
    clean(refused("read_timeout, no place", 1, timed_read).peer(reads_until(1)), 1);
    clean(refused("write_timeout, read", 4, timed_write).peer(reads_until(1)), 1);
}
