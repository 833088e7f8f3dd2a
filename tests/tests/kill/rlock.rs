//! The re-entrant lock, nested and not.

use crate::scene::SOON;
use polyproc_mutex::{LockTimeoutError, RLock};
use polyproc_tests::kill::{Operation, Outcome};
use polyproc_tests::system::one_at_a_time;

fn fresh() -> RLock<u64> {
    RLock::new(0).unwrap()
}

/// What a survivor finds, and whether the victim poisoned it.
fn survey(lock: &RLock<u64>, outcome: &Outcome<'_>) -> (u64, bool) {
    let found = match lock.lock_timeout(SOON) {
        Ok(guard) => (*guard, false),
        Err(LockTimeoutError::Poisoned(error)) => {
            assert_eq!(error.cause().pid(), outcome.victim);
            (**error.get_ref(), true)
        }
        Err(error) => panic!("{error}: {lock:?}"),
    };
    lock.clear_poison();
    assert_eq!(lock.depth(), 0);
    let (outer, inner) = (lock.lock().unwrap(), lock.lock().unwrap());
    assert_eq!((*outer, *inner, lock.depth()), (found.0, found.0, 2));
    drop((outer, inner));
    assert!(!lock.is_locked());
    outcome.heals(|| drop(lock.lock().unwrap()));
    found
}

fn poisoned(lock: &RLock<u64>, outcome: &Outcome<'_>) -> &'static str {
    match survey(lock, outcome) {
        (0, false) => "clean",
        (0, true) => "poisoned",
        other => panic!("{other:?}"),
    }
}

/// Another process waits for the lock, and has it once.
fn waiter(lock: &RLock<u64>) {
    match lock.lock() {
        Ok(guard) => drop(guard),
        Err(error) => drop(error.into_inner()),
    }
}

#[test]
fn lock() {
    let _turn = one_at_a_time();
    Operation::new("RLock: lock", fresh)
        .victim(|lock, stage| {
            drop(lock.lock().unwrap());
            stage.begin();
            let guard = lock.lock().unwrap();
            stage.end();
            drop(guard);
        })
        .check(&["clean", "poisoned"], poisoned)
        .run()
        .assert_clean();
}

#[test]
fn nested_lock() {
    let _turn = one_at_a_time();
    Operation::new("RLock: nested lock, one asleep", fresh)
        .victim(|lock, stage| {
            let outer = lock.lock().unwrap();
            stage.begin();
            let inner = lock.lock().unwrap();
            stage.end();
            drop((inner, outer));
        })
        .peer(|lock, _| waiter(lock))
        .check(&["poisoned"], poisoned)
        .run()
        .assert_clean();
}

#[test]
fn nested_unlock() {
    let _turn = one_at_a_time();
    Operation::new("RLock: nested unlock, one asleep", fresh)
        .victim(|lock, stage| {
            let (outer, inner) = (lock.lock().unwrap(), lock.lock().unwrap());
            stage.begin();
            drop(inner);
            stage.end();
            drop(outer);
        })
        .peer(|lock, _| waiter(lock))
        .check(&["poisoned"], poisoned)
        .run()
        .assert_clean();
}

#[test]
fn last_unlock() {
    let _turn = one_at_a_time();
    Operation::new("RLock: last unlock, one asleep", fresh)
        .victim(|lock, stage| {
            drop(lock.lock().unwrap());
            let (outer, inner) = (lock.lock().unwrap(), lock.lock().unwrap());
            drop(inner);
            stage.begin();
            drop(outer);
            stage.end();
        })
        .peer(|lock, _| waiter(lock))
        .check(&["poisoned", "clean"], poisoned)
        .run()
        .assert_clean();
}

#[test]
fn critical_section() {
    let _turn = one_at_a_time();
    Operation::new("RLock: lock, lock, unlock, set, unlock", fresh)
        .victim(|lock, stage| {
            drop(lock.lock().unwrap());
            stage.begin();
            let mut outer = lock.lock().unwrap();
            drop(lock.lock().unwrap());
            outer.set(1).unwrap();
            drop(outer);
            stage.end();
        })
        .check(&["old", "old and poisoned", "new and poisoned", "new"], |lock, outcome| {
            match survey(lock, outcome) {
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
