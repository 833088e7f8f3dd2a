//! A lock that its holder can take again.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{Arena, LockTimeoutError, NestedError, PoisonCause, RLock, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};
use support::{Child, Slot, median, now, wait_asleep, wait_for_the_end, watchdog};

#[test]
fn smoke() {
    let lock = RLock::new(4u32).unwrap();
    assert_eq!((lock.is_locked(), lock.holder(), lock.depth()), (false, None, 0));
    let guard = lock.lock().unwrap();
    assert_eq!((*guard, format!("{guard:?}")), (4, "4".to_owned()));
    assert_eq!((lock.is_locked(), lock.holder(), lock.depth()), (true, Some(std::process::id()), 1));
    drop(guard);
    assert_eq!((lock.is_locked(), lock.holder(), lock.depth()), (false, None, 0));
    let arena = Arena::new(192).unwrap();
    assert_eq!(*RLock::new_in(&arena, 5u8).unwrap().lock().unwrap(), 5);
    assert!(RLock::new_in(&arena, 5u8).is_err());
}

#[test]
fn the_holder_is_let_in_again_whichever_way_it_asks() {
    let lock = RLock::new(()).unwrap();
    let clone = lock.clone();
    let _first = lock.lock().unwrap();
    let _second = clone.lock().unwrap();
    let _third = lock.try_lock().unwrap();
    let _fourth = lock.lock_timeout(Duration::ZERO).unwrap();
    let _fifth = clone.lock_until(Instant::now()).unwrap();
    assert_eq!((lock.depth(), clone.depth()), (5, 5));
}

#[test]
fn it_is_released_with_the_last_guard_in_any_order() {
    let _watchdog = watchdog();
    let lock = RLock::new(()).unwrap();
    let is_closed_to_others = || {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert_eq!(lock.depth(), 0);
                matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
            });
            other.join().unwrap()
        })
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let mut guards: Vec<_> = (0..3).map(|_| Some(lock.lock().unwrap())).collect();
        for (dropped, index) in order.into_iter().enumerate() {
            assert!(is_closed_to_others());
            assert_eq!(lock.depth(), 3 - dropped as u32);
            guards[index] = None;
        }
        assert!(!is_closed_to_others());
        assert_eq!((lock.is_locked(), lock.depth(), lock.holder()), (false, 0, None));
    }
}

#[test]
fn a_waiter_gets_it_when_the_last_guard_is_dropped() {
    let _watchdog = watchdog();
    let lock = RLock::new(1u32).unwrap();
    let (waiter, got) = (Slot::new(), Slot::new());
    let (outer, inner) = (lock.lock().unwrap(), lock.lock().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            waiter.set(support::tid().into());
            let _guard = lock.lock().unwrap();
            got.set(now());
            assert_eq!(lock.depth(), 1);
        });
        wait_asleep(waiter.wait() as u32);
        drop(outer);
        drop(lock.lock().unwrap());
        assert_eq!(got.get(), 0, "let in while the other is inside");
        let released = now();
        drop(inner);
        assert!(got.wait() >= released);
    });
}

#[test]
fn timeouts_are_for_others_and_never_early() {
    let _watchdog = watchdog();
    let lock = RLock::new(()).unwrap();
    let _guard = lock.lock().unwrap();
    Child::run(|| {
        for millis in [0, 1, 10, 300] {
            let (start, timeout) = (Instant::now(), Duration::from_millis(millis));
            assert!(matches!(lock.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
            assert!(start.elapsed() >= timeout);
            let deadline = Instant::now() + timeout;
            assert!(matches!(lock.lock_until(deadline), Err(LockTimeoutError::TimedOut)));
            assert!(Instant::now() >= deadline);
        }
    })
    .join();
}

#[test]
fn the_data_changes_only_through_the_only_guard() {
    let lock = RLock::new(1u32).unwrap();
    let mut outer = lock.lock().unwrap();
    outer.set(2).unwrap();
    let mut inner = lock.lock().unwrap();
    assert_eq!((outer.set(3), inner.set(4)), (Err(NestedError), Err(NestedError)));
    assert_eq!(NestedError.to_string(), "this thread holds the lock more than once");
    assert_eq!((*outer, *inner), (2, 2));
    drop(outer);
    inner.set(5).unwrap();
    assert_eq!(*inner, 5);
    let forgotten = lock.lock().unwrap();
    core::mem::forget(forgotten);
    assert_eq!(inner.set(6), Err(NestedError));
}

#[test]
fn processes_count_to_an_exact_sum_in_nested_sections() {
    const ROUNDS: u64 = 10_000;
    let _watchdog = watchdog();
    let lock = RLock::new(0u64).unwrap();
    let count = || {
        for _ in 0..ROUNDS {
            let mut guard = lock.lock().unwrap();
            let before = *lock.lock().unwrap();
            guard.set(before + 1).unwrap();
        }
    };
    let children: Vec<_> = (0..3).map(|_| Child::run(count)).collect();
    children.into_iter().for_each(Child::join);
    assert_eq!(*lock.lock().unwrap(), 3 * ROUNDS);
}

#[test]
fn killed_while_nested_it_is_handed_over_as_taken_once() {
    let _watchdog = watchdog();
    let lock = RLock::new(0u64).unwrap();
    let mut latencies = Vec::new();
    for round in 1..6 {
        let (holding, asking, got) = (Slot::new(), Slot::new(), Slot::new());
        let holder = Child::run(|| {
            lock.lock().unwrap().set(round).unwrap();
            let _guards = [lock.lock().unwrap(), lock.lock().unwrap(), lock.lock().unwrap()];
            assert_eq!(lock.depth(), 3);
            holding.set(1);
            wait_for_the_end();
        });
        holding.wait();
        let died = holder.pid();
        let waiter = Child::run(|| {
            asking.set(1);
            let error = lock.lock().unwrap_err();
            got.set(now());
            assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: died });
            let mut guard = error.into_inner();
            assert_eq!((*guard, lock.depth()), (round, 1));
            // Poisoned until it is repaired, for who is inside already as well.
            assert!(lock.lock().is_err());
            guard.set(10 * round).unwrap();
            lock.clear_poison();
            assert!(lock.lock().is_ok());
        });
        asking.wait();
        waiter.wait_asleep();
        let killed = now();
        holder.kill();
        waiter.join();
        latencies.push(got.get() - killed);
        assert_eq!((lock.is_locked(), lock.depth(), lock.holder()), (false, 0, None));
        assert_eq!(*lock.lock().unwrap(), 10 * round);
    }
    let latency = median(latencies);
    assert!(latency < Duration::from_millis(50), "{latency:?}");
}

#[test]
fn a_thread_that_ends_inside_does_not_let_its_successor_in_as_itself() {
    let _watchdog = watchdog();
    let lock = RLock::new(0u8).unwrap();
    let died = PoisonCause::OwnerDied { pid: std::process::id() };
    for _ in 0..20 {
        // Thread-locals of an ended thread are memory of the next: its identity must not be.
        std::thread::spawn({
            let lock = lock.clone();
            move || {
                core::mem::forget((lock.lock().unwrap(), lock.lock().unwrap()));
            }
        })
        .join()
        .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(lock.depth(), 0);
                let error = lock.lock().unwrap_err();
                assert_eq!((error.cause(), lock.depth()), (died, 1));
            });
        });
        lock.clear_poison();
    }
}

#[test]
fn a_panic_poisons_it() {
    let _watchdog = watchdog();
    let cause = PoisonCause::Panicked { pid: std::process::id() };
    let lock = RLock::new(0u8).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _guards = (lock.lock().unwrap(), lock.lock().unwrap());
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(panic.is_err());
    assert_eq!((lock.is_locked(), lock.is_poisoned(), lock.depth()), (false, true, 0));
    assert!(matches!(lock.try_lock(), Err(TryLockError::Poisoned(error)) if error.cause() == cause));
    assert!(matches!(
        lock.lock_timeout(Duration::ZERO),
        Err(LockTimeoutError::Poisoned(error)) if error.cause() == cause
    ));
    lock.clear_poison();
    assert!(lock.lock().is_ok());
}

#[test]
fn a_panic_with_an_inner_guard_poisons_for_the_outer_too() {
    let lock = RLock::new(0u8).unwrap();
    let outer = lock.lock().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _inner = lock.lock().unwrap();
        resume_unwind(Box::new("on purpose"));
    }));
    assert!(panic.is_err());
    assert_eq!((lock.is_poisoned(), lock.depth()), (true, 1));
    assert!(lock.lock().is_err());
    drop(outer);
    assert!(!lock.is_locked());
}

#[test]
fn debug_shows_the_data_to_its_holder_and_who_holds_it_to_others() {
    let _watchdog = watchdog();
    let lock = RLock::new(7i32).unwrap();
    let free = "RLock { data: 7, poison: None, .. }";
    assert_eq!(format!("{lock:?}"), free);
    let _guard = lock.lock().unwrap();
    assert_eq!(format!("{lock:?}"), free);
    assert_eq!(lock.depth(), 1);
    let pid = std::process::id();
    let locked = format!("RLock {{ data: <locked>, holder: Some({pid}), poison: None, .. }}");
    Child::run(|| assert_eq!(format!("{lock:?}"), locked)).join();
}
