//! [`Mutex`]: a lock that a forked child never inherits locked.
//!
//! A child has the one thread that forked. A lock that another thread held in this moment stays locked in the
//! child for ever, with what it guards half changed. So whoever forks waits until nobody holds one of these,
//! and whoever wants one meanwhile waits for the fork.
//!
//! That is a `pthread_atfork` handler's work: `fork` calls it, `_Fork` and a bare `clone` do not.

use crate::atomic::{AtomicU32, Ordering};
use core::cell::{Cell, UnsafeCell};
use core::ops::{Deref, DerefMut};
use std::sync::{MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

/// Read by holders of a [`Mutex`], written by those that fork.
static CALM: RwLock<()> = RwLock::new(());

/// A lock among the threads of one process, free in every child that is forked. A panic while it is held does
/// not poison it.
///
/// Blocks while another thread holds it, or forks. Whoever holds one must neither take another one nor fork:
/// that can wait for ever. The thread that forks may take it in fork handlers of its own.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

/// Holds a [`Mutex`].
#[must_use]
#[derive(Debug)]
pub struct Guard<'a, T> {
    // Dropped in this order.
    guard: MutexGuard<'a, T>,
    _calm: Option<RwLockReadGuard<'static, ()>>,
}

impl<T> Mutex<T> {
    /// One that is free.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Waits for it.
    ///
    /// # Panics
    ///
    /// If there is no memory to register the fork handlers, at the first use in a process.
    pub fn lock(&self) -> Guard<'_, T> {
        register();
        // Another fork handler of the thread that forks has the calm already, and nobody else holds the lock.
        let is_forking = FORKING.get() != 0;
        let calm = (!is_forking).then(|| CALM.read().unwrap_or_else(PoisonError::into_inner));
        Guard { guard: self.0.lock().unwrap_or_else(PoisonError::into_inner), _calm: calm }
    }

    /// Takes it, if no thread holds it, or forks. Whoever holds another one may try.
    ///
    /// # Panics
    ///
    /// As [`lock`](Mutex::lock).
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        register();
        let is_forking = FORKING.get() != 0;
        let calm = if is_forking { None } else { Some(not_blocked(CALM.try_read())?) };
        Some(Guard { guard: not_blocked(self.0.try_lock())?, _calm: calm })
    }
}

fn not_blocked<G>(tried: Result<G, TryLockError<G>>) -> Option<G> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Sees to it that whoever forks has the calm.
fn register() {
    // Whether the fork handlers are registered: 0 or 1. No `Once`: a fork while another thread is inside
    // would leave it unfinished in the child for ever. Two threads may register them both, so the handlers
    // count themselves.
    static AT_FORK: AtomicU32 = AtomicU32::new(0);
    // Acquire: pairs with the Release below.
    if AT_FORK.load(Ordering::Acquire) == 0 {
        // SAFETY: the handlers are functions of the program's lifetime; what they do is stated there.
        let result = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
        assert_eq!(result, 0, "no memory to register fork handlers");
        // Release: pairs with the Acquire above: who sees it has the handlers.
        AT_FORK.store(1, Ordering::Release);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// The calm during a fork.
struct Held(UnsafeCell<Option<RwLockWriteGuard<'static, ()>>>);

// SAFETY: the cell is touched only by the thread that forks, and only while it has the guard that is in it.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

thread_local! {
    /// How many pairs of the handlers below are between their two calls.
    static FORKING: Cell<u32> = const { Cell::new(0) };
}

extern "C" fn before_fork() {
    if FORKING.replace(FORKING.get() + 1) != 0 {
        return;
    }
    let guard = CALM.write().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: this thread alone has the calm, so no other is between `before_fork` and `after_fork`.
    unsafe { HELD.0.get().write(Some(guard)) };
}

/// Runs in the parent, and in the child.
extern "C" fn after_fork() {
    if FORKING.replace(FORKING.get() - 1) != 1 {
        return;
    }
    // SAFETY: this thread has the calm since `before_fork`. The child's one thread is a copy of that thread.
    let guard = unsafe { HELD.0.get().replace(None) };
    drop(guard);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    #[test]
    fn who_tries_waits_for_nobody() {
        static NUMBER: Mutex<u32> = Mutex::new(1);
        // Another test may be forking.
        let tried = || loop {
            if let Some(guard) = NUMBER.try_lock() {
                return guard;
            }
            std::thread::yield_now();
        };
        std::thread::scope(|scope| {
            let mut number = tried();
            assert!(scope.spawn(|| NUMBER.try_lock().is_none()).join().unwrap());
            *number += 1;
        });
        // It would have to wait, and a child could have it locked.
        let forking = CALM.write().unwrap();
        assert!(NUMBER.try_lock().is_none());
        drop(forking);
        assert_eq!(*tried(), 2);
    }

    /// A fork while another thread holds it, and half of what it does is done.
    #[test]
    fn a_child_finds_it_free_and_what_it_guards_whole() {
        static PAIR: Mutex<(u32, u32)> = Mutex::new((0, 0));
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for round in 1..=5 {
                let sender = sender.clone();
                scope.spawn(move || {
                    let mut pair = PAIR.lock();
                    pair.0 += 1;
                    sender.send(()).unwrap();
                    std::thread::sleep(Duration::from_millis(30));
                    pair.1 += 1;
                });
                receiver.recv().unwrap();
                let begin = Instant::now();
                // SAFETY: the child takes no lock but this one, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    let is_whole = PAIR.0.try_lock().is_ok() && *PAIR.lock() == (round, round);
                    // SAFETY: ends the child without running the test harness's exit handlers.
                    unsafe { libc::_exit(if is_whole { 0 } else { 1 }) };
                }
                let mut status = 0;
                // SAFETY: waits for the child that was made above.
                let waited = unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!((waited, status), (child, 0));
                assert!(begin.elapsed() >= Duration::from_millis(20));
            }
        });
    }
}
