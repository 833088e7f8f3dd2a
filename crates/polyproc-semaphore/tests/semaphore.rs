//! What a semaphore does in one process.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_semaphore::{
    AcquireTimeoutError, Arena, BoundedSemaphore, MAX_PERMITS, Permit, Semaphore, TryAcquireError,
};
use polyproc_sys::futex::backstop_rescues;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::watchdog;

const TICK: Duration = Duration::from_millis(20);

#[test]
fn permits_are_counted() {
    let semaphore = Semaphore::new(3).unwrap();
    assert_eq!(semaphore.available(), 3);
    let mut permits: Vec<Permit<'_>> = (0..3).map(|_| semaphore.acquire()).collect();
    assert_eq!(semaphore.available(), 0);
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::WouldBlock);
    drop(permits.remove(1));
    assert_eq!(semaphore.available(), 1);
    permits.push(semaphore.try_acquire().unwrap());
    drop(permits);
    assert_eq!(semaphore.available(), 3);
}

#[test]
fn a_timeout_is_not_over_too_early() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::new(1).unwrap();
    let permit = semaphore.acquire();
    let start = Instant::now();
    assert_eq!(semaphore.acquire_timeout(TICK).unwrap_err(), AcquireTimeoutError::TimedOut);
    assert!(start.elapsed() >= TICK);
    let start = Instant::now();
    assert_eq!(semaphore.acquire_until(start + TICK).unwrap_err(), AcquireTimeoutError::TimedOut);
    assert!(start.elapsed() >= TICK);
    drop(permit);
    drop(semaphore.acquire_timeout(TICK).unwrap());
    drop(semaphore.acquire_timeout(Duration::MAX).unwrap());
}

#[test]
fn zero_and_past_deadlines_look_once() {
    let semaphore = Semaphore::new(0).unwrap();
    let past = Instant::now() - TICK;
    assert_eq!(semaphore.acquire_timeout(Duration::ZERO).unwrap_err(), AcquireTimeoutError::TimedOut);
    assert_eq!(semaphore.acquire_until(past).unwrap_err(), AcquireTimeoutError::TimedOut);
    semaphore.release(1).unwrap();
    semaphore.acquire_timeout(Duration::ZERO).unwrap().forget();
    semaphore.release(1).unwrap();
    drop(semaphore.acquire_until(past).unwrap());
}

#[test]
fn release_adds_permits_beyond_the_first() {
    let semaphore = Semaphore::new(1).unwrap();
    semaphore.release(2).unwrap();
    assert_eq!(semaphore.available(), 3);
    let permits: Vec<_> = (0..3).map(|_| semaphore.try_acquire().unwrap()).collect();
    assert!(semaphore.try_acquire().is_err());
    drop(permits);
    assert_eq!(semaphore.available(), 3);
    semaphore.release(0).unwrap();
    assert_eq!(semaphore.available(), 3);
}

#[test]
fn forgotten_permits_make_room_for_others() {
    let semaphore = Semaphore::new(2).unwrap();
    for _ in 0..1000 {
        semaphore.acquire().forget();
        semaphore.acquire().forget();
        assert_eq!(semaphore.available(), 0);
        semaphore.release(2).unwrap();
    }
    assert_eq!(semaphore.available(), 2);
}

#[test]
fn there_are_at_most_so_many_permits() {
    let semaphore = Semaphore::new(MAX_PERMITS - 1).unwrap();
    let error = semaphore.release(2).unwrap_err();
    assert_eq!((error.requested, error.room), (2, 1));
    assert_eq!(error.to_string(), "2 permits were to be released, and there is room for 1");
    semaphore.release(1).unwrap();
    assert_eq!(semaphore.available(), MAX_PERMITS);
    assert!(semaphore.release(1).is_err());
    assert!(semaphore.release(u32::MAX).is_err());
    let permit = semaphore.acquire();
    assert_eq!(semaphore.available(), MAX_PERMITS - 1);
    assert!(semaphore.release(1).is_err(), "the held one counts");
    permit.forget();
    semaphore.release(1).unwrap();
    assert_eq!(semaphore.available(), MAX_PERMITS);
    assert_eq!(Semaphore::new(MAX_PERMITS + 1).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_bounded_semaphore_takes_back_what_was_forgotten() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    assert!(semaphore.release(1).is_err());
    let permit = semaphore.acquire();
    assert!(semaphore.release(1).is_err(), "one that is held comes back by itself");
    permit.forget();
    semaphore.acquire().forget();
    let error = semaphore.release(3).unwrap_err();
    assert_eq!((error.requested, error.room), (3, 2));
    assert_eq!(semaphore.available(), 0);
    semaphore.release(2).unwrap();
    assert_eq!(semaphore.available(), 2);
    assert!(semaphore.release(1).is_err());
    assert!(BoundedSemaphore::new(0).unwrap().release(1).is_err());
}

#[test]
fn as_many_as_there_are_cells_can_be_held() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::with_capacity(5, 2).unwrap();
    assert_eq!(semaphore.available(), 5);
    let (first, second) = (semaphore.acquire(), semaphore.acquire());
    assert_eq!(semaphore.available(), 3);
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::WouldBlock);
    let start = Instant::now();
    assert!(semaphore.acquire_timeout(TICK).is_err());
    assert!(start.elapsed() >= TICK);
    // A forgotten permit leaves its cell to another.
    first.forget();
    let third = semaphore.try_acquire().unwrap();
    assert_eq!(semaphore.available(), 2);
    drop((second, third));
    assert_eq!(semaphore.available(), 4);
    for holders in [0, 65_537] {
        let error = Semaphore::with_capacity(1, holders).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_cell_that_is_left_by_a_forgotten_permit_ends_a_wait() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::with_capacity(2, 1).unwrap();
    let permit = semaphore.acquire();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(semaphore.acquire()));
        std::thread::sleep(TICK);
        assert!(!waiter.is_finished());
        permit.forget();
        waiter.join().unwrap();
    });
    assert_eq!(semaphore.available(), 1);
}

#[test]
fn released_permits_reach_all_who_wait() {
    let _watchdog = watchdog();
    let before = backstop_rescues();
    let semaphore = Semaphore::new(0).unwrap();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..6).map(|_| scope.spawn(|| semaphore.acquire().forget())).collect();
        std::thread::sleep(TICK);
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        semaphore.release(2).unwrap();
        semaphore.release(4).unwrap();
    });
    assert_eq!((semaphore.available(), backstop_rescues() - before), (0, 0));
}

#[test]
fn threads_get_in_each_others_way_and_nothing_is_lost() {
    let _watchdog = watchdog();
    let (semaphore, inside) = (Semaphore::new(3).unwrap(), polyproc_sys::atomic::AtomicU32::new(0));
    use polyproc_sys::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for index in 0..6 {
            let (semaphore, inside) = (semaphore.clone(), &inside);
            scope.spawn(move || {
                for round in 0..2000 {
                    let permit = semaphore.acquire();
                    assert!(inside.fetch_add(1, SeqCst) < 3);
                    if round % 7 == 0 {
                        std::thread::yield_now();
                    }
                    inside.fetch_sub(1, SeqCst);
                    if (round + index) % 5 == 0 {
                        permit.forget();
                        semaphore.release(1).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(semaphore.available(), 3);
}

#[test]
fn debug_shows_who_holds() {
    let semaphore = Semaphore::new(3).unwrap();
    let _permits = (semaphore.acquire(), semaphore.acquire());
    let pid = std::process::id();
    let expected =
        format!("Semaphore {{ available: 1, room: {}, holders: [{pid}, {pid}], .. }}", MAX_PERMITS - 3);
    assert_eq!(format!("{semaphore:?}"), expected);
    let bounded = BoundedSemaphore::new(1).unwrap();
    assert_eq!(format!("{bounded:?}"), "BoundedSemaphore { available: 1, room: 0, holders: [], .. }");
}

#[test]
fn semaphores_of_an_arena_are_apart() {
    let arena = Arena::new(64 * 1024).unwrap();
    let (first, second) =
        (Semaphore::new_in(&arena, 1).unwrap(), BoundedSemaphore::with_capacity_in(&arena, 9, 9).unwrap());
    let _permit = first.acquire();
    assert_eq!((first.available(), second.available()), (0, 9));
}

/// The thread's robust list leads through the cell of a leaked permit, which has to stay mapped.
#[test]
fn a_leaked_permit_keeps_its_cell() {
    let other = Semaphore::new(1).unwrap();
    std::thread::spawn(move || {
        let semaphore = Semaphore::new(1).unwrap();
        core::mem::forget(semaphore.acquire());
        drop(semaphore);
        // Walks the list.
        drop((other.acquire(), other.try_acquire().map(drop)));
    })
    .join()
    .unwrap();

    // With a handle left, the permit comes back at the end of its thread.
    let semaphore = Semaphore::new(1).unwrap();
    let inside = semaphore.clone();
    std::thread::spawn(move || core::mem::forget(inside.acquire())).join().unwrap();
    assert_eq!(semaphore.available(), 1);
    drop(semaphore.try_acquire().unwrap());
}

#[test]
fn one_permit_more_than_the_kernel_brings_back_is_refused() {
    const LIMIT: usize = 2048;
    let semaphore = Semaphore::new(LIMIT as u32 + 1).unwrap();
    let mut permits: Vec<_> = (0..LIMIT).map(|_| semaphore.acquire()).collect();
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::TooManyLocks);
    assert_eq!(semaphore.acquire_timeout(TICK).unwrap_err(), AcquireTimeoutError::TooManyLocks);
    let panic = catch_unwind(AssertUnwindSafe(|| drop(semaphore.acquire()))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("2048 permits and locks"), "{message}");
    assert_eq!(semaphore.available(), 1);
    drop(permits.remove(1000));
    permits.push(semaphore.acquire());
    drop(permits);
    assert_eq!(semaphore.available(), LIMIT as u32 + 1);
}

/// Each releases only what it has forgotten itself, so nobody is one too many, whatever the others do meanwhile.
#[test]
fn who_has_forgotten_one_may_release_one() {
    let _watchdog = watchdog();
    let semaphore = BoundedSemaphore::new(4).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    semaphore.acquire().forget();
                    semaphore.release(1).unwrap();
                }
            });
        }
    });
    assert_eq!(semaphore.available(), 4);
}
