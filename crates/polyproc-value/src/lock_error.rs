//! What `lock` and its kin can end with, beside a guard.

use core::fmt;
use polyproc_mutex::{PoisonCause, Refusal};
use std::error::Error;

/// The lock is held now, but a holder before died or panicked in the middle of its work on the data.
///
/// It carries the guard, as `std`'s does: look at the data with [`into_inner`](PoisonError::into_inner), repair it, and
/// declare it repaired with `clear_poison()`.
///
/// # Examples
///
/// ```
/// use polyproc_value::{PoisonCause, Value};
///
/// let value = Value::new(1i32)?;
/// let inside = value.clone();
/// let _ = std::thread::spawn(move || {
///     let _guard = inside.lock().unwrap();
///     panic!("in the critical section");
/// })
/// .join();
///
/// let error = value.lock().unwrap_err();
/// assert_eq!(error.cause(), PoisonCause::Panicked { pid: std::process::id() });
/// *error.into_inner() = 0;
/// value.clear_poison();
/// assert_eq!(value.get()?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PoisonError<G> {
    guard: G,
    cause: PoisonCause,
}

impl<G> PoisonError<G> {
    pub(crate) fn new(guard: G, cause: PoisonCause) -> PoisonError<G> {
        PoisonError { guard, cause }
    }

    /// What happened, and to which process.
    pub fn cause(&self) -> PoisonCause {
        self.cause
    }

    /// The guard: access to the data in spite of the poison.
    pub fn into_inner(self) -> G {
        self.guard
    }

    /// The guard, by reference.
    pub fn get_ref(&self) -> &G {
        &self.guard
    }

    /// The guard, by mutable reference.
    pub fn get_mut(&mut self) -> &mut G {
        &mut self.guard
    }
}

impl<G> fmt::Debug for PoisonError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoisonError").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<G> fmt::Display for PoisonError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "poisoned lock: {}", self.cause)
    }
}

impl<G> Error for PoisonError<G> {}

/// Why `try_lock` did not return a guard as it should be.
pub enum TryLockError<G> {
    /// The lock is held now, but its data may be half changed.
    Poisoned(PoisonError<G>),
    /// Somebody holds the lock; perhaps the calling thread.
    WouldBlock,
    /// The calling thread holds as many locks as the kernel releases for a dead thread, 2,048.
    TooManyLocks,
}

/// Why `lock_timeout` or `lock_until` did not return a guard as it should be.
pub enum LockTimeoutError<G> {
    /// The lock is held now, but its data may be half changed.
    Poisoned(PoisonError<G>),
    /// The time is over, and somebody still holds the lock; perhaps the calling thread.
    TimedOut,
    /// The calling thread holds as many locks as the kernel releases for a dead thread, 2,048.
    TooManyLocks,
}

const TOO_MANY: &str = "this thread holds 2048 locks, as many as the kernel releases when a thread dies";

impl<G> From<PoisonError<G>> for TryLockError<G> {
    fn from(error: PoisonError<G>) -> TryLockError<G> {
        TryLockError::Poisoned(error)
    }
}

impl<G> From<PoisonError<G>> for LockTimeoutError<G> {
    fn from(error: PoisonError<G>) -> LockTimeoutError<G> {
        LockTimeoutError::Poisoned(error)
    }
}

impl<G> fmt::Debug for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Poisoned(error) => f.debug_tuple("Poisoned").field(error).finish(),
            TryLockError::WouldBlock => f.write_str("WouldBlock"),
            TryLockError::TooManyLocks => f.write_str("TooManyLocks"),
        }
    }
}

impl<G> fmt::Debug for LockTimeoutError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockTimeoutError::Poisoned(error) => f.debug_tuple("Poisoned").field(error).finish(),
            LockTimeoutError::TimedOut => f.write_str("TimedOut"),
            LockTimeoutError::TooManyLocks => f.write_str("TooManyLocks"),
        }
    }
}

impl<G> fmt::Display for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Poisoned(error) => error.fmt(f),
            TryLockError::WouldBlock => f.write_str("the lock is held"),
            TryLockError::TooManyLocks => f.write_str(TOO_MANY),
        }
    }
}

impl<G> fmt::Display for LockTimeoutError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockTimeoutError::Poisoned(error) => error.fmt(f),
            LockTimeoutError::TimedOut => f.write_str("the lock was still held when the time was over"),
            LockTimeoutError::TooManyLocks => f.write_str(TOO_MANY),
        }
    }
}

impl<G> Error for TryLockError<G> {}
impl<G> Error for LockTimeoutError<G> {}

/// `try_lock`'s part of the refusals.
pub(crate) fn would_block<G>(refusal: Refusal) -> TryLockError<G> {
    match refusal {
        Refusal::TooManyLocks => TryLockError::TooManyLocks,
        _ => TryLockError::WouldBlock,
    }
}

/// `lock_until`'s part of the refusals.
pub(crate) fn timed_out<G>(refusal: Refusal) -> LockTimeoutError<G> {
    match refusal {
        Refusal::TooManyLocks => LockTimeoutError::TooManyLocks,
        _ => LockTimeoutError::TimedOut,
    }
}

/// `lock`, `get`, `set` and `update` have no way to say it.
#[cold]
#[track_caller]
pub(crate) fn refuse(refusal: Refusal) -> ! {
    match refusal {
        Refusal::TooManyLocks => panic!("{TOO_MANY}"),
        _ => panic!("deadlock: this thread locks a value or an array that it holds already"),
    }
}
