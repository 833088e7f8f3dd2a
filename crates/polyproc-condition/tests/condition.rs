//! Waits and notifications, between threads.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_condition::{Arena, Condition, MOST_SLOTS};
use polyproc_memory::handover;
use polyproc_mutex::{Mutex, PoisonCause};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex as Plain;
use std::time::{Duration, Instant};
use support::{wait_until, watchdog};

const TICK: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn nobody_waits_and_nobody_is_notified() {
    let condition = Condition::new().unwrap();
    assert!(!condition.notify_one());
    assert_eq!((condition.notify(7), condition.notify(0), condition.notify_all()), (0, 0, 0));
    // A notification is for those who wait, and is not kept.
    let mutex = Mutex::new(()).unwrap();
    let (_, result) = condition.wait_timeout(mutex.lock().unwrap(), TICK).unwrap();
    assert!(result.timed_out());
}

#[test]
fn who_waited_longest_is_notified_first() {
    let _watchdog = watchdog();
    let (mutex, condition, order) =
        (Mutex::new(0u32).unwrap(), Condition::new().unwrap(), Plain::new(vec![]));
    std::thread::scope(|scope| {
        for number in 0..6 {
            scope.spawn({
                let (mutex, condition, order) = (&mutex, &condition, &order);
                move || {
                    drop(condition.wait(mutex.lock().unwrap()).unwrap());
                    order.lock().unwrap().push(number);
                }
            });
            wait_until("one more waits", || condition.waiting() == number + 1);
        }
        for number in 0..3 {
            assert!(condition.notify_one());
            wait_until("it is back", || order.lock().unwrap().len() == number + 1);
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        assert_eq!(condition.waiting(), 3);
        // One that is late asks for no more than there are.
        assert_eq!(condition.notify(2), 2);
        wait_until("two more are back", || order.lock().unwrap().len() == 5);
        assert_eq!(condition.notify(9), 1);
    });
    assert_eq!(order.lock().unwrap()[5], 5);
    assert_eq!(condition.waiting(), 0);
}

/// Else who asks for more than there are would go on for as long as they come back.
#[test]
fn who_waits_again_is_not_notified_twice_by_one_call() {
    let _watchdog = watchdog();
    const WAITERS: u32 = 8;
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| {
                let mut over = mutex.lock().unwrap();
                while *over == 0 {
                    over = condition.wait(over).unwrap();
                }
            });
        }
        wait_until("all wait", || condition.waiting() == WAITERS);
        let start = Instant::now();
        let mut most = 0;
        while start.elapsed() < 10 * TICK && most <= WAITERS {
            most = most.max(condition.notify(u32::MAX));
        }
        *mutex.lock().unwrap() = 1;
        condition.notify_all();
        assert!(most <= WAITERS, "{most} of {WAITERS}");
    });
}

#[test]
fn all_are_notified_at_once() {
    let _watchdog = watchdog();
    const WAITERS: u32 = 20;
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    for _ in 0..20 {
        std::thread::scope(|scope| {
            for _ in 0..WAITERS {
                scope.spawn(|| *condition.wait(mutex.lock().unwrap()).unwrap() += 1);
            }
            wait_until("all wait", || condition.waiting() == WAITERS);
            assert_eq!(condition.notify_all(), WAITERS);
            assert_eq!(condition.waiting(), 0);
        });
        assert_eq!(std::mem::take(&mut *mutex.lock().unwrap()), WAITERS);
    }
}

/// With the lock held, a notification is exactly for those who are waiting.
#[test]
fn the_lock_is_free_while_one_waits_and_held_after() {
    let _watchdog = watchdog();
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let guard = condition.wait(mutex.lock().unwrap()).unwrap();
            assert!(mutex.try_lock().is_err());
            *guard
        });
        wait_until("it waits", || condition.waiting() == 1);
        let mut guard = mutex.lock().unwrap();
        condition.notify_one();
        std::thread::sleep(TICK);
        assert!(!waiter.is_finished(), "it did not wait for the lock");
        *guard = 5;
        drop(guard);
        assert_eq!(waiter.join().unwrap(), 5);
    });
    assert!(!mutex.is_locked());
}

#[test]
fn a_deadline_ends_a_wait_and_not_sooner() {
    let _watchdog = watchdog();
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    let start = Instant::now();
    let (guard, result) = condition.wait_timeout(mutex.lock().unwrap(), TICK).unwrap();
    assert!(result.timed_out() && start.elapsed() >= TICK);
    assert!(mutex.is_locked());
    let (start, then) = (Instant::now(), Instant::now() + TICK);
    let (guard, result) = condition.wait_until(guard, then).unwrap();
    assert!(result.timed_out() && start.elapsed() >= TICK);
    let then = Instant::now() + TICK;
    let (mut guard, result) = condition.wait_until_while(guard, then, |number| *number == 0).unwrap();
    assert!(result.timed_out() && Instant::now() >= then);
    // What has passed, and zero, look once.
    let start = Instant::now();
    for _ in 0..100 {
        let (again, result) = condition.wait_timeout(guard, Duration::ZERO).unwrap();
        assert!(result.timed_out());
        let (again, result) = condition.wait_until(again, start).unwrap();
        assert!(result.timed_out());
        let (again, result) = condition.wait_timeout_while(again, Duration::ZERO, |_| true).unwrap();
        assert!(result.timed_out());
        guard = again;
    }
    assert!(start.elapsed() < Duration::from_secs(5), "they waited: {:?}", start.elapsed());
    assert_eq!(condition.waiting(), 0);
}

#[test]
fn a_wait_beyond_all_time_is_a_wait() {
    let _watchdog = watchdog();
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (_, result) = condition.wait_timeout(mutex.lock().unwrap(), Duration::MAX).unwrap();
            assert!(!result.timed_out());
        });
        wait_until("it waits", || condition.waiting() == 1);
        condition.notify_one();
    });
}

#[test]
fn a_predicate_is_asked_with_the_lock_until_it_is_content() {
    let _watchdog = watchdog();
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut asked = 0;
            let guard = mutex.lock().unwrap();
            let guard = condition.wait_while(guard, |number| {
                asked += 1;
                *number += 100; // It gets `&mut T`.
                *number % 100 < 3
            });
            (*guard.unwrap(), asked)
        });
        for _ in 0..3 {
            wait_until("it waits", || condition.waiting() == 1);
            *mutex.lock().unwrap() += 1;
            assert!(condition.notify_one());
        }
        assert_eq!(waiter.join().unwrap(), (403, 4));
    });
    // Content from the beginning: no wait.
    let (guard, result) =
        condition.wait_timeout_while(mutex.lock().unwrap(), Duration::ZERO, |number| *number == 0).unwrap();
    assert!(!result.timed_out());
    drop(guard);
    // Content in time: it says so.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("it waits", || condition.waiting() == 1);
            *mutex.lock().unwrap() = 1;
            condition.notify_all();
        });
        let guard = mutex.lock().unwrap();
        let (guard, result) = condition.wait_timeout_while(guard, LONG, |number| *number != 1).unwrap();
        assert_eq!((*guard, result.timed_out()), (1, false));
    });
}

#[test]
fn a_lock_poisoned_meanwhile_is_an_error_with_the_guard() {
    let _watchdog = watchdog();
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        let waiter =
            scope.spawn(|| condition.wait(mutex.lock().unwrap()).map(|guard| *guard).unwrap_err().cause());
        wait_until("it waits", || condition.waiting() == 1);
        let inside = scope.spawn(|| {
            let mut guard = mutex.lock().unwrap();
            condition.notify_one();
            *guard = 7;
            panic!("in the critical section");
        });
        assert!(inside.join().is_err());
        assert_eq!(waiter.join().unwrap(), PoisonCause::Panicked { pid: std::process::id() });
    });
    // A poisoned guard can wait as well. The lock says so each time.
    let guard = mutex.lock().unwrap_err().into_inner();
    let (guard, result) = condition.wait_timeout(guard, TICK).unwrap_err().into_inner();
    assert_eq!((*guard, result.timed_out()), (7, true));
    mutex.clear_poison();
    let (guard, _) = condition.wait_timeout(guard, Duration::ZERO).unwrap();
    drop(guard);
    assert!(!mutex.is_locked());
}

#[test]
fn a_predicate_that_panics_poisons() {
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    let guard = mutex.lock().unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| {
        drop(condition.wait_while(guard, |_| panic!("in the predicate")));
    }));
    assert!(result.is_err());
    assert!(!mutex.is_locked() && mutex.is_poisoned());
}

#[test]
fn more_than_there_are_slots_poll_and_miss_nothing() {
    let _watchdog = watchdog();
    const WAITERS: u32 = 6;
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::with_slots(2).unwrap());
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                scope.spawn(|| *condition.wait_while(mutex.lock().unwrap(), |go| *go == 0).unwrap() += 1)
            })
            .collect();
        wait_until("the slots are full", || condition.waiting() == 2);
        std::thread::sleep(TICK);
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        *mutex.lock().unwrap() = 1;
        condition.notify_all();
    });
    assert_eq!(*mutex.lock().unwrap(), WAITERS + 1);
    // Out of time without a slot.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drop(condition.wait(mutex.lock().unwrap()).unwrap()));
        }
        wait_until("the slots are full", || condition.waiting() == 2);
        let start = Instant::now();
        let guard = mutex.lock().unwrap();
        let (guard, result) = condition.wait_timeout_while(guard, TICK, |_| true).unwrap();
        assert!(result.timed_out() && start.elapsed() >= TICK);
        drop(guard);
        assert_eq!(condition.notify(2), 2);
    });
}

/// More than the kernel lets one thread watch.
#[test]
fn very_many_wait_and_all_come_back() {
    let _watchdog = watchdog();
    const WAITERS: u32 = 140;
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::with_slots(WAITERS as usize).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| *condition.wait(mutex.lock().unwrap()).unwrap() += 1);
        }
        wait_until("all wait", || condition.waiting() == WAITERS);
        assert_eq!(condition.notify(WAITERS / 2), WAITERS / 2);
        wait_until("half are back", || *mutex.lock().unwrap() == WAITERS / 2);
        assert_eq!(condition.notify_all(), WAITERS / 2);
    });
    assert_eq!(*mutex.lock().unwrap(), WAITERS);
}

#[test]
fn without_waiting_for_several_words_nobody_is_missed() {
    let _watchdog = watchdog();
    polyproc_sys::futex::without_waitv(true);
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| *condition.wait(mutex.lock().unwrap()).unwrap() += 1);
        }
        wait_until("all wait", || condition.waiting() == 5);
        assert_eq!(condition.notify(2), 2);
        wait_until("two are back", || *mutex.lock().unwrap() == 2);
        assert_eq!(condition.notify_all(), 3);
    });
    polyproc_sys::futex::without_waitv(false);
    assert_eq!(*mutex.lock().unwrap(), 5);
}

#[test]
fn a_condition_has_one_slot_at_least() {
    for slots in [0, MOST_SLOTS + 1, usize::MAX] {
        let error = Condition::with_slots(slots).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("a condition has 1 to 4095 slots, not {slots}"));
    }
    assert!(Condition::with_slots(MOST_SLOTS).is_ok());
}

#[test]
fn a_thread_with_too_many_locks_is_refused_before_it_releases_any() {
    let _watchdog = watchdog();
    let arena = Arena::new(2048 * 128).unwrap();
    let mutexes: Vec<_> = (0..2047).map(|_| Mutex::new_in(&arena, 0u32).unwrap()).collect();
    let (mutex, condition) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    let mut others: Vec<_> = mutexes.iter().map(|mutex| mutex.lock().unwrap()).collect();
    let guard = mutex.lock().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| drop(condition.wait_timeout(guard, TICK)))).unwrap_err();
    assert_eq!(
        panic.downcast_ref::<String>().unwrap(),
        "this thread holds 2048 locks, as many as the kernel releases when a thread dies"
    );
    assert_eq!(condition.waiting(), 0);
    mutex.clear_poison();
    // One less, and it works.
    others.pop();
    let (_, result) = condition.wait_timeout(mutex.lock().unwrap(), TICK).unwrap();
    assert!(result.timed_out());
}

#[test]
fn a_received_handle_is_the_same_condition() {
    let _watchdog = watchdog();
    let arena = Arena::new(1 << 14).unwrap();
    for condition in [Condition::with_slots(3).unwrap(), Condition::new_in(&arena).unwrap()] {
        let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&condition));
        let duplicates = descriptors.iter().map(|descriptor| {
            use std::os::fd::AsFd;
            descriptor.as_fd().try_clone_to_owned().unwrap()
        });
        let bytes = bytes.unwrap();
        let received: Condition =
            handover::receive(duplicates.collect(), || postcard::from_bytes(&bytes)).unwrap();
        let mutex = Mutex::new(0u32).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(received.wait(mutex.lock().unwrap()).unwrap()));
            wait_until("it waits", || condition.waiting() == 1);
            let shown = format!("{condition:?}");
            assert!(shown.contains(&format!("waiters: [{}], returning: 0", std::process::id())), "{shown}");
            assert!(condition.clone().notify_one());
        });
    }
    let condition = Condition::new().unwrap();
    assert!(postcard::to_stdvec(&condition).is_err(), "outside of a hand-over");
}
