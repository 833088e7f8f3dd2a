//! What taking a lock can end with, beside the lock.

use crate::poison::PoisonCause;
use crate::raw::Refusal;
use core::fmt;
use std::error::Error;

/// The lock was taken, but an earlier holder died or panicked in the middle of its work on the data.
///
/// It carries the guard, as `std`'s error does: look at the data with
/// [`into_inner`](PoisonError::into_inner), repair it, and declare it repaired with `clear_poison()` of the
/// lock.
///
/// # Example
///
/// ```
/// use polyproc_mutex::{Mutex, PoisonCause};
///
/// let mutex = Mutex::new(1)?;
/// let inside = mutex.clone();
/// let _ = std::thread::spawn(move || {
///     let _guard = inside.lock().unwrap();
///     panic!("in the critical section");
/// })
/// .join();
///
/// let error = mutex.lock().unwrap_err();
/// assert_eq!(error.cause(), PoisonCause::Panicked { pid: std::process::id() });
/// *error.into_inner() = 0;
/// mutex.clear_poison();
/// assert_eq!(*mutex.lock().unwrap(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct PoisonError<G> {
    guard: G,
    cause: PoisonCause,
}

impl<G> PoisonError<G> {
    /// For building a lock of your own on [`RawMutex`](crate::RawMutex).
    pub fn new(guard: G, cause: PoisonCause) -> PoisonError<G> {
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

/// Why `try_lock` did not return a guard, or not one of a sound lock.
pub enum TryLockError<G> {
    /// The lock was taken, but its data may be half changed: the guard is in the error.
    Poisoned(PoisonError<G>),
    /// Somebody holds the lock, perhaps the calling thread.
    WouldBlock,
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks,
}

/// Why `lock_timeout` or `lock_until` did not return a guard, or not one of a sound lock.
pub enum LockTimeoutError<G> {
    /// The lock was taken, but its data may be half changed: the guard is in the error.
    Poisoned(PoisonError<G>),
    /// The time is over, and somebody still holds the lock, perhaps the calling thread.
    TimedOut,
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks,
}

/// What `lock` panics with where it must not go on.
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

/// What a refused [`RawMutex::try_lock`](crate::RawMutex::try_lock) means.
impl<G> From<Refusal> for TryLockError<G> {
    fn from(refusal: Refusal) -> TryLockError<G> {
        match refusal {
            Refusal::TooManyLocks => TryLockError::TooManyLocks,
            Refusal::WouldBlock | Refusal::TimedOut | Refusal::OwnedByCaller => TryLockError::WouldBlock,
        }
    }
}

/// What a refused [`RawMutex::lock_until`](crate::RawMutex::lock_until) means.
impl<G> From<Refusal> for LockTimeoutError<G> {
    fn from(refusal: Refusal) -> LockTimeoutError<G> {
        match refusal {
            Refusal::TooManyLocks => LockTimeoutError::TooManyLocks,
            Refusal::WouldBlock | Refusal::TimedOut | Refusal::OwnedByCaller => LockTimeoutError::TimedOut,
        }
    }
}

impl Refusal {
    /// What a `lock` does if it cannot wait: it has no error to say so, because its only error has a guard.
    ///
    /// # Panics
    ///
    /// Always, with the reason.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub fn panic(self) -> ! {
        match self {
            Refusal::TooManyLocks => panic!("{TOO_MANY}"),
            _ => panic!("deadlock: this thread takes a lock that it holds already"),
        }
    }
}
