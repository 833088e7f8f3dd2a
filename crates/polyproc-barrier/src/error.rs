//! Why a wait did not end as it should.

use core::fmt;
use std::error::Error;

/// Why a barrier is broken, and by which process.
///
/// Process ids are those that the processes have in their own PID namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokenCause {
    /// The process, or the thread in it, died while it waited, or on its way in, or in the action.
    PartyDied {
        /// Its process id.
        pid: u32,
    },
    /// The process had waited for as long as it wanted to.
    TimedOut {
        /// Its process id.
        pid: u32,
    },
    /// The process called `abort`.
    Aborted {
        /// Its process id.
        pid: u32,
    },
    /// The process called `reset` while others waited. Their round is over; the barrier is as new.
    Reset {
        /// Its process id.
        pid: u32,
    },
    /// The action panicked in the process.
    ActionPanicked {
        /// Its process id.
        pid: u32,
    },
}

impl BrokenCause {
    /// The process that did it, or to which it happened.
    pub fn pid(self) -> u32 {
        match self {
            BrokenCause::PartyDied { pid }
            | BrokenCause::TimedOut { pid }
            | BrokenCause::Aborted { pid }
            | BrokenCause::Reset { pid }
            | BrokenCause::ActionPanicked { pid } => pid,
        }
    }
}

impl fmt::Display for BrokenCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenCause::PartyDied { pid } => write!(f, "process {pid} died at it"),
            BrokenCause::TimedOut { pid } => write!(f, "process {pid} had waited long enough"),
            BrokenCause::Aborted { pid } => write!(f, "process {pid} aborted it"),
            BrokenCause::Reset { pid } => write!(f, "process {pid} reset it"),
            BrokenCause::ActionPanicked { pid } => write!(f, "the action panicked in process {pid}"),
        }
    }
}

/// The round that the caller waited in, or wanted to, will not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenBarrier {
    cause: BrokenCause,
}

impl BrokenBarrier {
    /// For building a barrier of your own.
    pub fn new(cause: BrokenCause) -> BrokenBarrier {
        BrokenBarrier { cause }
    }

    /// What happened, and in which process.
    pub fn cause(&self) -> BrokenCause {
        self.cause
    }
}

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken barrier: {}", self.cause)
    }
}

impl Error for BrokenBarrier {}

/// Why a wait at a barrier failed.
///
/// # Example
///
/// ```
/// use polyproc_barrier::{Barrier, BrokenCause, WaitError};
/// use std::time::Duration;
///
/// let barrier = Barrier::new(2)?;
/// // Nobody else comes.
/// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
/// assert_eq!(error.cause(), Some(BrokenCause::TimedOut { pid: std::process::id() }));
/// assert!(matches!(error, WaitError::Broken(_)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The barrier is broken, for everybody.
    Broken(BrokenBarrier),
    /// The barrier has an action, but this handle came from another process and does not know it: see
    /// [`attach_action`](crate::Barrier::attach_action). The caller has not arrived, and nothing is broken.
    NoAction,
    /// The calling thread holds 2,048 locks, as many as the kernel releases for a dead thread: it could not
    /// be watched over at every moment of the wait. It has not arrived, and nothing is broken.
    TooManyLocks,
}

impl WaitError {
    /// Why the barrier is broken, if it is.
    pub fn cause(&self) -> Option<BrokenCause> {
        match self {
            WaitError::Broken(broken) => Some(broken.cause),
            WaitError::NoAction | WaitError::TooManyLocks => None,
        }
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Broken(broken) => broken.fmt(f),
            WaitError::NoAction => f.write_str(
                "the barrier has an action that this handle does not know: give it one with attach_action",
            ),
            WaitError::TooManyLocks => f.write_str(
                "this thread holds 2048 locks, as many as the kernel releases when a thread dies, and a wait needs one \
                 more",
            ),
        }
    }
}

impl Error for WaitError {}

impl From<BrokenBarrier> for WaitError {
    fn from(broken: BrokenBarrier) -> WaitError {
        WaitError::Broken(broken)
    }
}

impl From<BrokenCause> for WaitError {
    fn from(cause: BrokenCause) -> WaitError {
        WaitError::Broken(BrokenBarrier { cause })
    }
}
