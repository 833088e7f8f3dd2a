//! A panic in the critical section poisons, and only there.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{LockTimeoutError, Mutex, PoisonCause, RLock, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;
use support::{Child, watchdog};

/// A panic that prints nothing.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("on purpose"))
}

fn here() -> PoisonCause {
    PoisonCause::Panicked { pid: std::process::id() }
}

/// A mutex that says 1 and was poisoned by a panic.
fn poisoned() -> Mutex<u32> {
    let mutex = Mutex::new(0u32).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        *mutex.lock().unwrap() = 1;
        let _guard = mutex.lock().unwrap();
        panic_quietly();
    }));
    assert!(panic.is_err());
    mutex
}

#[test]
fn a_panicking_holder_poisons() {
    let _watchdog = watchdog();
    let mutex = poisoned();
    assert!(!mutex.is_locked());
    assert!(mutex.is_poisoned());
    assert_eq!(mutex.poison_cause(), Some(here()));
    let mut error = mutex.lock().unwrap_err();
    assert_eq!(error.cause(), here());
    assert!(mutex.is_locked());
    assert_eq!(**error.get_ref(), 1);
    **error.get_mut() = 2;
    drop(error);
    // The error was the guard.
    assert!(!mutex.is_locked());
    // Still poisoned, whichever way it is locked.
    assert!(matches!(mutex.try_lock(), Err(TryLockError::Poisoned(error)) if error.cause() == here()));
    let timed = mutex.lock_timeout(Duration::from_secs(1));
    assert!(matches!(timed, Err(LockTimeoutError::Poisoned(error)) if **error.get_ref() == 2));
}

#[test]
fn what_was_repaired_is_not_poisoned() {
    let mutex = poisoned();
    let mut guard = mutex.lock().unwrap_err().into_inner();
    *guard = 5;
    mutex.clear_poison();
    drop(guard);
    assert!(!mutex.is_poisoned());
    assert_eq!(*mutex.lock().unwrap(), 5);
    assert_eq!(*mutex.try_lock().unwrap(), 5);
}

#[test]
fn a_panicking_process_says_which_it_was() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let child = Child::run(|| {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            panic_quietly();
        }));
        assert!(panic.is_err());
    });
    let pid = child.pid();
    child.join();
    assert_eq!(mutex.lock().unwrap_err().cause(), PoisonCause::Panicked { pid });
}

#[test]
fn a_guard_of_a_panicking_thread_that_began_later_does_not_poison() {
    struct LocksWhenDropped<'a>(&'a Mutex<u32>, &'a RLock<u32>);
    impl Drop for LocksWhenDropped<'_> {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            *self.0.lock().unwrap() += 1;
            assert_eq!(*self.1.lock().unwrap(), 0);
        }
    }
    let (mutex, rlock) = (Mutex::new(0u32).unwrap(), RLock::new(0u32).unwrap());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _locks = LocksWhenDropped(&mutex, &rlock);
        panic_quietly();
    }));
    assert!(panic.is_err());
    assert_eq!(*mutex.lock().unwrap(), 1);
    assert_eq!(*rlock.lock().unwrap(), 0);
}

#[test]
fn a_panic_before_the_lock_or_after_it_does_not_poison() {
    let mutex = Mutex::new(0u32).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        drop(mutex.lock().unwrap());
        panic_quietly();
    }));
    assert!(panic.is_err());
    assert_eq!(*mutex.lock().unwrap(), 0);
}

#[test]
fn poison_says_what_happened() {
    let mutex = poisoned();
    let pid = std::process::id();
    let error = mutex.lock().unwrap_err();
    assert_eq!(error.to_string(), format!("poisoned lock: process {pid} panicked while it held the lock"));
    assert_eq!(format!("{error:?}"), format!("PoisonError {{ cause: Panicked {{ pid: {pid} }}, .. }}"));
    drop(error);
    let error = mutex.try_lock().unwrap_err();
    assert_eq!(error.to_string(), format!("poisoned lock: process {pid} panicked while it held the lock"));
    assert_eq!(
        format!("{error:?}"),
        format!("Poisoned(PoisonError {{ cause: Panicked {{ pid: {pid} }}, .. }})")
    );
    drop(error);
    assert_eq!(
        format!("{mutex:?}"),
        format!("Mutex {{ data: 1, poison: Some(Panicked {{ pid: {pid} }}), .. }}")
    );
}
