//! Why a lock is poisoned.

use core::fmt;

/// Why the data behind a lock may be half changed.
///
/// Process ids are those that the processes have in their own PID namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonCause {
    /// The process, or the thread in it, died in the critical section.
    OwnerDied {
        /// Its process id.
        pid: u32,
    },
    /// The process panicked in the critical section.
    Panicked {
        /// Its process id.
        pid: u32,
    },
}

impl PoisonCause {
    /// The process in which it happened.
    pub fn pid(self) -> u32 {
        match self {
            PoisonCause::OwnerDied { pid } | PoisonCause::Panicked { pid } => pid,
        }
    }
}

impl fmt::Display for PoisonCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoisonCause::OwnerDied { pid } => write!(f, "process {pid} died while it held the lock"),
            PoisonCause::Panicked { pid } => write!(f, "process {pid} panicked while it held the lock"),
        }
    }
}
