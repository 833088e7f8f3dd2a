//! Operations on a mutex that others hold, wait for, or snatch away.

use crate::scene::{Scene, barger, holder, late, poisoned, waiter};
use polyproc_mutex::LockTimeoutError;
use polyproc_tests::kill::{Operation, When, is_full};
use polyproc_tests::system::one_at_a_time;
use std::time::Duration;

/// Long enough to be stepped into a sleep before it is over.
const DELAY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 40 });

/// The victim waits for the lock and gets it.
fn waiting(name: &str) -> Operation<Scene> {
    Operation::new(name, Scene::new).victim(|scene, stage| {
        scene.warm_up();
        stage.begin();
        let guard = scene.lock();
        stage.end();
        drop(guard);
    })
}

#[test]
fn lock_that_is_released_while_the_victim_sleeps() {
    let _turn = one_at_a_time();
    waiting("lock, released while asleep")
        .peer(holder)
        .cue(When::Asleep)
        .check(&["clean", "poisoned"], poisoned(0))
        .run()
        .assert_clean();
}

#[test]
fn lock_that_is_released_while_the_victim_is_awake() {
    let _turn = one_at_a_time();
    let sleeping = waiting("lock, held").peer(holder).cue(When::Asleep).run();
    let steps = sleeping.first_sleep();
    let stride = if is_full() { 1 } else { steps / 12 + 1 };
    for step in (0..=steps).step_by(stride as usize) {
        waiting(&format!("lock, released after step {step}"))
            .peer(holder)
            .cue(When::Step(step))
            .thinly(5)
            .check(&["clean", "poisoned"], poisoned(0))
            .run()
            .assert_clean();
    }
}

#[test]
fn lock_behind_another_waiter() {
    let _turn = one_at_a_time();
    waiting("lock, one asleep before")
        .peer(holder)
        .peer(waiter)
        .cue(When::Asleep)
        .check(&["clean", "poisoned"], poisoned(1))
        .run()
        .assert_clean();
}

#[test]
fn lock_before_another_waiter() {
    let _turn = one_at_a_time();
    waiting("lock, one asleep behind")
        .peer(|scene, cues| {
            let guard = scene.lock();
            cues.wait(2);
            drop(guard);
        })
        .peer(late(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .check(&["clean", "poisoned"], poisoned(1))
        .run()
        .assert_clean();
}

/// The victim is woken, and before it is back at the word another has the lock, with a plain compare-and-swap. If the
/// victim dies then, that other's unlock has to wake who sleeps behind.
#[test]
fn lock_that_a_barger_takes_from_the_woken_victim() {
    let _turn = one_at_a_time();
    waiting("lock, one asleep behind, snatched away when woken")
        .peer(|scene, cues| {
            let guard = scene.lock();
            cues.wait(2);
            drop(guard);
        })
        .peer(late(1))
        .peer(barger(3, 4))
        .cue(When::Asleep)
        .cue(When::Next)
        .cue(When::Next)
        .cue(When::Asleep)
        .check(&["clean", "poisoned"], poisoned(2))
        .run()
        .assert_clean();
}

#[test]
fn lock_timeout_that_ends_in_vain() {
    let _turn = one_at_a_time();
    Operation::new("lock_timeout, held throughout", Scene::new)
        .victim(|scene, stage| {
            scene.warm_up();
            stage.begin();
            let result = scene.mutex.lock_timeout(DELAY);
            stage.end();
            assert!(matches!(result, Err(LockTimeoutError::TimedOut)));
        })
        .peer(holder)
        .check(&["clean"], poisoned(0))
        .run()
        .assert_clean();
}

#[test]
fn lock_timeout_that_gets_it() {
    let _turn = one_at_a_time();
    Operation::new("lock_timeout, released while asleep", Scene::new)
        .victim(|scene, stage| {
            scene.warm_up();
            stage.begin();
            let guard = scene.mutex.lock_timeout(Duration::from_secs(10)).unwrap();
            stage.end();
            drop(guard);
        })
        .peer(holder)
        .peer(waiter)
        .cue(When::Asleep)
        .check(&["clean", "poisoned"], poisoned(1))
        .run()
        .assert_clean();
}

/// The victim holds the lock and releases it.
fn releasing(name: &str) -> Operation<Scene> {
    Operation::new(name, Scene::new).victim(|scene, stage| {
        let guard = scene.mutex.lock().unwrap();
        stage.begin();
        drop(guard);
        stage.end();
    })
}

#[test]
fn unlock_with_waiters() {
    let _turn = one_at_a_time();
    for waiters in 1..=3 {
        let mut operation = releasing(&format!("unlock, {waiters} asleep"));
        for _ in 0..waiters {
            operation = operation.peer(waiter);
        }
        operation.check(&["poisoned", "clean"], poisoned(waiters)).run().assert_clean();
    }
}

#[test]
fn unlock_with_waiters_and_a_barger() {
    let _turn = one_at_a_time();
    releasing("unlock, two asleep, snatched away once free")
        .peer(waiter)
        .peer(waiter)
        .peer(barger(1, 2))
        .cue(When::So(|scene| !scene.mutex.is_locked()))
        .check(&["poisoned", "clean"], poisoned(3))
        .run()
        .assert_clean();
}

/// The barger comes at every step of the unlock, for as long as the lock is held, as one more waiter.
#[test]
fn unlock_with_a_waiter_and_a_barger_at_any_time() {
    let _turn = one_at_a_time();
    let steps = releasing("unlock, one asleep").peer(waiter).run().steps();
    let stride = if is_full() { 1 } else { steps / 10 + 1 };
    for step in (0..steps).step_by(stride as usize) {
        releasing(&format!("unlock, one asleep, another comes after step {step}"))
            .peer(waiter)
            .peer(barger(1, 2))
            .cue(When::Step(step))
            .thinly(5)
            .check(&["poisoned", "clean"], poisoned(2))
            .run()
            .assert_clean();
    }
}
