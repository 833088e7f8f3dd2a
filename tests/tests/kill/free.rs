//! Operations on a mutex that nobody else wants.

use crate::scene::{ADDING, Scene, added, poisoned};
use polyproc_mutex::{LockTimeoutError, Mutex, MutexGuard, TryLockError};
use polyproc_tests::kill::Operation;
use polyproc_tests::system::one_at_a_time;
use std::time::Duration;

/// Taking the lock, in one way or another, does nothing to the data, and poisons it from some instruction on.
fn taking(name: &str, warm: bool, take: fn(&Mutex<u64>) -> MutexGuard<'_, u64>) {
    let _turn = one_at_a_time();
    Operation::new(name, Scene::new)
        .victim(move |scene, stage| {
            if warm {
                scene.warm_up();
            }
            stage.begin();
            let guard = take(&scene.mutex);
            stage.end();
            drop(guard);
        })
        .check(&["clean", "poisoned"], poisoned(0))
        .run()
        .assert_clean();
}

#[test]
fn lock() {
    taking("lock", true, |mutex| mutex.lock().unwrap());
}

#[test]
fn lock_first_of_a_thread() {
    taking("lock, the first of a thread", false, |mutex| mutex.lock().unwrap());
}

#[test]
fn try_lock() {
    taking("try_lock", true, |mutex| mutex.try_lock().unwrap());
}

#[test]
fn lock_timeout() {
    taking("lock_timeout", true, |mutex| mutex.lock_timeout(Duration::from_secs(1)).unwrap());
}

/// What does not get a lock that a peer holds leaves no trace.
fn refused(name: &str, refused: fn(&Mutex<u64>) -> bool) {
    let _turn = one_at_a_time();
    Operation::new(name, Scene::new)
        .victim(move |scene, stage| {
            scene.warm_up();
            stage.begin();
            let refused = refused(&scene.mutex);
            stage.end();
            assert!(refused);
        })
        .peer(crate::scene::holder)
        .check(&["clean"], poisoned(0))
        .run()
        .assert_clean();
}

#[test]
fn try_lock_of_a_held_lock() {
    refused("try_lock, held", |mutex| matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
}

#[test]
fn lock_timeout_of_zero() {
    refused("lock_timeout of zero, held", |mutex| {
        matches!(mutex.lock_timeout(Duration::ZERO), Err(LockTimeoutError::TimedOut))
    });
}

#[test]
fn guard_drop() {
    let _turn = one_at_a_time();
    Operation::new("drop of the guard", Scene::new)
        .victim(|scene, stage| {
            let mut guard = scene.mutex.lock().unwrap();
            *guard = 1;
            stage.begin();
            drop(guard);
            stage.end();
        })
        .check(&["poisoned", "clean"], |scene, outcome| match scene.survey(0, outcome) {
            (1, true) => "poisoned",
            (1, false) => "clean",
            other => panic!("{other:?}"),
        })
        .run()
        .assert_clean();
}

#[test]
fn critical_section() {
    let _turn = one_at_a_time();
    Operation::new("lock, add, unlock", Scene::new)
        .victim(|scene, stage| {
            scene.warm_up();
            stage.begin();
            *scene.mutex.lock().unwrap() += 1;
            stage.end();
        })
        .check(&ADDING, added(0))
        .run()
        .assert_clean();
}
