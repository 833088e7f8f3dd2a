//! A forked child owns none of its parent's locks, whatever guards it inherits.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{LockTimeoutError, Mutex, RLock, TryLockError};
use std::time::{Duration, Instant};
use support::{Child, Slot, wait_for_the_end, watchdog};

#[test]
fn the_child_of_a_holder_does_not_hold() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(1u32).unwrap();
    let (asking, got) = (Slot::new(), Slot::new());
    let mut guard = mutex.lock().unwrap();
    let parent = std::process::id();
    let child = Child::run(|| {
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        let (start, timeout) = (Instant::now(), Duration::from_millis(20));
        assert!(matches!(mutex.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert_eq!(mutex.holder(), Some(parent));
        // It is not told of a deadlock: it waits.
        asking.set(1);
        let guard = mutex.lock().unwrap();
        got.set(support::now());
        assert_eq!(*guard, 2);
    });
    asking.wait();
    child.wait_asleep();
    *guard = 2;
    let released = support::now();
    drop(guard);
    child.join();
    assert!(got.get() >= released);
    assert!(!mutex.is_locked());
}

#[test]
fn an_inherited_guard_is_inert() {
    let _watchdog = watchdog();
    let (mutex, rlock) = (Mutex::new(1u32).unwrap(), RLock::new(2u32).unwrap());
    let mut guards = Some((mutex.lock().unwrap(), rlock.lock().unwrap()));
    Child::run(|| {
        drop(guards.take());
        assert!(mutex.is_locked() && rlock.is_locked());
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(matches!(rlock.try_lock(), Err(TryLockError::WouldBlock)));
    })
    .join();
    let here = Some(std::process::id());
    assert_eq!((mutex.is_locked(), mutex.holder(), mutex.poison_cause()), (true, here, None));
    assert_eq!((rlock.is_locked(), rlock.holder(), rlock.depth()), (true, here, 1));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock))));
    });
    drop(guards);
    assert_eq!((mutex.is_locked(), rlock.is_locked()), (false, false));
    assert_eq!((*mutex.lock().unwrap(), *rlock.lock().unwrap()), (1, 2));
}

#[test]
fn an_inherited_guard_that_panics_does_not_poison() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(1u32).unwrap();
    let mut guard = Some(mutex.lock().unwrap());
    Child::run(|| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = guard.take();
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panic.is_err());
    })
    .join();
    assert_eq!((mutex.is_locked(), mutex.poison_cause()), (true, None));
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), 1);
}

#[test]
fn an_inherited_guard_does_not_release_what_the_child_took_since() {
    let _watchdog = watchdog();
    let (mutex, rlock) = (Mutex::new(1u32).unwrap(), RLock::new(2u32).unwrap());
    let released = Slot::new();
    let mut guards = Some((mutex.lock().unwrap(), rlock.lock().unwrap()));
    let child = Child::run(|| {
        let inherited = guards.take();
        released.wait();
        let own = (mutex.lock().unwrap(), rlock.lock().unwrap());
        drop(inherited);
        let here = Some(std::process::id());
        assert_eq!((mutex.holder(), rlock.holder(), rlock.depth()), (here, here, 1));
        drop(own);
    });
    drop(guards.take());
    released.set(1);
    child.join();
    assert_eq!((mutex.is_locked(), rlock.is_locked()), (false, false));
}

#[test]
fn a_killed_child_takes_nothing_from_its_parent() {
    let _watchdog = watchdog();
    let (mutex, rlock) = (Mutex::new(1u32).unwrap(), RLock::new(2u32).unwrap());
    let ready = Slot::new();
    let guards = (mutex.lock().unwrap(), rlock.lock().unwrap());
    let child = Child::run(|| {
        // Its thread has a list of its own by now, in which the parent's locks are not.
        drop(Mutex::new(0u32).unwrap().lock().unwrap());
        ready.set(1);
        wait_for_the_end();
    });
    ready.wait();
    child.kill();
    let here = Some(std::process::id());
    assert_eq!((mutex.holder(), rlock.holder(), rlock.depth()), (here, here, 1));
    drop(guards);
    assert_eq!((*mutex.lock().unwrap(), *rlock.lock().unwrap()), (1, 2));
}

#[test]
fn the_child_of_an_rlocks_holder_is_not_let_in() {
    let _watchdog = watchdog();
    let rlock = RLock::new(1u32).unwrap();
    let (mut outer, inner) = (rlock.lock().unwrap(), rlock.lock().unwrap());
    Child::run(|| {
        assert_eq!(rlock.depth(), 0);
        assert!(matches!(rlock.try_lock(), Err(TryLockError::WouldBlock)));
        let (start, timeout) = (Instant::now(), Duration::from_millis(20));
        assert!(matches!(rlock.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert!(outer.set(9).is_err(), "changed through an inherited guard");
    })
    .join();
    assert_eq!((*outer, rlock.depth()), (1, 2));
    drop(inner);
    outer.set(2).unwrap();
    drop(outer);
    Child::run(|| assert_eq!(*rlock.lock().unwrap(), 2)).join();
}

#[test]
fn a_grandchild_owns_nothing_either() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let mut guard = Some(mutex.lock().unwrap());
    Child::run(|| {
        Child::run(|| drop(guard.take())).join();
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
    })
    .join();
    assert_eq!(mutex.holder(), Some(std::process::id()));
    drop(guard);
    assert!(!mutex.is_locked());
}
