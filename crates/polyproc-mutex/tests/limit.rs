//! A thread can hold as many locks as the kernel releases when it dies, and not one more.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{Arena, LockTimeoutError, Mutex, MutexGuard, PoisonCause, RLock, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use support::{Child, Slot, wait_for_the_end, watchdog};

const LIMIT: usize = 2048;

fn mutexes(count: usize) -> Vec<Mutex<u32>> {
    let arena = Arena::new(count * 128).unwrap();
    (0..count as u32).map(|number| Mutex::new_in(&arena, number).unwrap()).collect()
}

fn lock_all(mutexes: &[Mutex<u32>]) -> Vec<MutexGuard<'_, u32>> {
    mutexes.iter().map(|mutex| mutex.lock().unwrap()).collect()
}

#[test]
fn one_lock_more_than_the_kernel_releases_is_refused() {
    let _watchdog = watchdog();
    let mutexes = mutexes(LIMIT);
    let one_more = Mutex::new(0u32).unwrap();
    let mut guards = lock_all(&mutexes);

    assert!(matches!(one_more.try_lock(), Err(TryLockError::TooManyLocks)));
    let timed = one_more.lock_timeout(Duration::from_secs(60));
    assert!(matches!(timed, Err(LockTimeoutError::TooManyLocks)));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(one_more.lock()))).unwrap_err();
    assert_eq!(
        panic.downcast_ref::<String>().unwrap(),
        "this thread holds 2048 locks, as many as the kernel releases when a thread dies"
    );
    assert!(!one_more.is_locked() && !one_more.is_poisoned());
    // Another thread has a limit of its own.
    std::thread::scope(|scope| {
        scope.spawn(|| drop(one_more.lock().unwrap()));
    });

    drop(guards.remove(1000));
    let guard = one_more.lock().unwrap();
    assert!(matches!(mutexes[1000].try_lock(), Err(TryLockError::TooManyLocks)));
    drop(guard);
    drop(guards);
    assert!(mutexes.iter().all(|mutex| mutex.try_lock().is_ok()));
}

#[test]
fn taking_a_lock_again_does_not_count() {
    let _watchdog = watchdog();
    let mutexes = mutexes(LIMIT - 1);
    let (rlock, other) = (RLock::new(0u32).unwrap(), RLock::new(0u32).unwrap());
    let _guards = lock_all(&mutexes);
    let _outer = rlock.lock().unwrap();
    let _inner = [rlock.lock().unwrap(), rlock.try_lock().unwrap()];
    assert_eq!(rlock.depth(), 3);
    assert!(matches!(other.try_lock(), Err(TryLockError::TooManyLocks)));
    assert!(matches!(other.lock_timeout(Duration::ZERO), Err(LockTimeoutError::TooManyLocks)));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(other.lock()))).is_err());
    assert!(!other.is_locked());
}

#[test]
fn as_many_as_can_be_held_are_recovered() {
    let _watchdog = watchdog();
    let mutexes = mutexes(LIMIT);
    let holding = Slot::new();
    let child = Child::run(|| {
        let _guards = lock_all(&mutexes);
        holding.set(1);
        wait_for_the_end();
    });
    holding.wait();
    let cause = PoisonCause::OwnerDied { pid: child.kill() };
    for (number, mutex) in mutexes.iter().enumerate() {
        let error = mutex.lock_timeout(Duration::ZERO);
        assert!(
            matches!(&error, Err(LockTimeoutError::Poisoned(error)) if error.cause() == cause),
            "lock {number} is lost: {error:?}"
        );
    }
}

#[test]
fn a_waiter_at_the_limit_is_recovered_too() {
    let _watchdog = watchdog();
    let mutexes = mutexes(LIMIT - 1);
    let last = Mutex::new(0u32).unwrap();
    let guard = last.lock().unwrap();
    let asking = Slot::new();
    let child = Child::run(|| {
        let _guards = lock_all(&mutexes);
        asking.set(1);
        let _last = last.lock();
    });
    asking.wait();
    child.wait_asleep();
    let cause = PoisonCause::OwnerDied { pid: child.kill() };
    assert!(mutexes.iter().all(|mutex| mutex.try_lock().is_err_and(|error| match error {
        TryLockError::Poisoned(error) => error.cause() == cause,
        _ => false,
    })));
    // The one it waited for is as it was.
    assert_eq!(last.holder(), Some(std::process::id()));
    drop(guard);
    assert!(last.try_lock().is_ok());
}
