//! Why there is no permit.

use crate::raw::Refusal;
use core::fmt;
use std::error::Error;

/// Why `try_acquire` returned no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryAcquireError {
    /// There is none to be had.
    WouldBlock,
    /// The calling thread already holds 2,048 permits and locks, as many as the kernel releases for a dead
    /// thread.
    TooManyLocks,
}

/// Why `acquire_timeout` or `acquire_until` returned no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireTimeoutError {
    /// The time is over, and there is still none to be had.
    TimedOut,
    /// The calling thread already holds 2,048 permits and locks, as many as the kernel releases for a dead
    /// thread.
    TooManyLocks,
}

/// What `acquire` panics with: it has no error to say so.
const TOO_MANY: &str =
    "this thread holds 2048 permits and locks, as many as the kernel releases when a thread dies";

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryAcquireError::WouldBlock => "no permit is available",
            TryAcquireError::TooManyLocks => TOO_MANY,
        })
    }
}

impl fmt::Display for AcquireTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AcquireTimeoutError::TimedOut => "no permit was available when the time was over",
            AcquireTimeoutError::TooManyLocks => TOO_MANY,
        })
    }
}

impl Error for TryAcquireError {}
impl Error for AcquireTimeoutError {}

/// What a refused poll of [`RawSemaphore::acquire_until`](crate::RawSemaphore::acquire_until) means.
impl From<Refusal> for TryAcquireError {
    fn from(refusal: Refusal) -> TryAcquireError {
        match refusal {
            Refusal::TimedOut => TryAcquireError::WouldBlock,
            Refusal::TooManyLocks => TryAcquireError::TooManyLocks,
        }
    }
}

/// What a refused [`RawSemaphore::acquire_until`](crate::RawSemaphore::acquire_until) means.
impl From<Refusal> for AcquireTimeoutError {
    fn from(refusal: Refusal) -> AcquireTimeoutError {
        match refusal {
            Refusal::TimedOut => AcquireTimeoutError::TimedOut,
            Refusal::TooManyLocks => AcquireTimeoutError::TooManyLocks,
        }
    }
}

impl Refusal {
    /// Of an acquisition that waits for as long as it takes.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(crate) fn panic(self) -> ! {
        panic!("{TOO_MANY}")
    }
}
