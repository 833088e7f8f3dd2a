//! Waiting with a lock that its holder can take again.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_condition::Condition;
use polyproc_mutex::{PoisonCause, RLock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::{Child, Slot, wait_for_the_end, wait_until, watchdog};

const TICK: Duration = Duration::from_millis(30);

#[test]
fn all_levels_are_released_and_taken_again() {
    let _watchdog = watchdog();
    let (lock, condition) = (RLock::new(()).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let outer = lock.lock().unwrap();
            let middle = lock.lock().unwrap();
            let inner = condition.wait(lock.lock().unwrap()).unwrap();
            assert_eq!(lock.depth(), 3);
            drop(inner);
            drop(middle);
            assert_eq!(lock.depth(), 1);
            drop(outer);
            assert_eq!(lock.depth(), 0);
        });
        wait_until("it waits", || condition.waiting() == 1);
        // Free for another, while it waits.
        let guards = [lock.try_lock().unwrap(), lock.lock().unwrap()];
        assert!(condition.notify_one());
        std::thread::sleep(TICK);
        assert!(!waiter.is_finished(), "it is back although the lock is taken");
        drop(guards);
    });
    assert!(!lock.is_locked());
}

#[test]
fn all_levels_are_taken_again_when_the_time_is_over() {
    let (lock, condition) = (RLock::new(()).unwrap(), Condition::new().unwrap());
    let _outer = lock.lock().unwrap();
    let start = Instant::now();
    let (inner, result) = condition.wait_timeout(lock.lock().unwrap(), TICK).unwrap();
    assert!(result.timed_out() && start.elapsed() >= TICK);
    assert_eq!(lock.depth(), 2);
    drop(inner);
    assert_eq!(lock.depth(), 1);
}

#[test]
fn data_is_there_to_look_at() {
    let _watchdog = watchdog();
    let (lock, condition) = (RLock::new(0u64).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| *condition.wait_while(lock.lock().unwrap(), |data| *data < 3).unwrap());
        for number in 1..=3 {
            wait_until("it waits", || condition.waiting() == 1);
            lock.lock().unwrap().set(number).unwrap();
            assert_eq!(condition.notify_all(), 1);
        }
        assert_eq!(waiter.join().unwrap(), 3);
    });
}

/// The other guard gives `&T`, and the data would change under it.
#[test]
fn data_that_another_guard_looks_at_is_not_let_go() {
    let (lock, condition) = (RLock::new(1u64).unwrap(), Condition::new().unwrap());
    let outer = lock.lock().unwrap();
    let inner = lock.lock().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| drop(condition.wait_timeout(inner, TICK)))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.starts_with("waiting with an RLock that is held 2 times"), "{message}");
    assert_eq!((*outer, lock.depth(), condition.waiting()), (1, 1, 0));
}

#[test]
fn a_holder_that_dies_meanwhile_poisons() {
    let _watchdog = watchdog();
    let (lock, condition, inside) = (RLock::new(()).unwrap(), Condition::new().unwrap(), Slot::new());
    let _outer = lock.lock().unwrap();
    let child = Child::run(|| {
        let _guard = lock.lock().unwrap();
        condition.notify_one();
        inside.set(1);
        wait_for_the_end();
    });
    let pid = child.pid();
    let killer = std::thread::spawn(move || {
        inside.wait();
        child.kill();
    });
    let error = condition.wait(lock.lock().unwrap()).unwrap_err();
    assert_eq!(error.cause(), PoisonCause::OwnerDied { pid });
    assert_eq!(lock.depth(), 2);
    killer.join().unwrap();
}
