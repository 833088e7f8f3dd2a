//! What an access can end with.

use core::fmt;
use core::ops::Range;
use polyproc_mutex::{PoisonCause, PoisonError};
use std::error::Error;

/// The data may be half changed: a process died or panicked while it held a guard.
///
/// Nothing was read or written. Look at the data through `lock()`, whose error has the guard, repair it, and
/// call `clear_poison()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poisoned {
    cause: PoisonCause,
}

impl Poisoned {
    pub(crate) fn new(cause: PoisonCause) -> Poisoned {
        Poisoned { cause }
    }

    /// What happened, and to which process.
    pub fn cause(self) -> PoisonCause {
        self.cause
    }
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "poisoned: {}", self.cause)
    }
}

impl Error for Poisoned {}

/// Drops the guard, and with it the lock.
impl<G> From<PoisonError<G>> for Poisoned {
    fn from(error: PoisonError<G>) -> Poisoned {
        Poisoned::new(error.cause())
    }
}

/// An index that an array does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// What was asked for.
    pub index: usize,
    /// How many elements there are.
    pub len: usize,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} is out of range of an array of {}", self.index, self.len)
    }
}

impl Error for OutOfRange {}

/// Why elements of an array were not read or written. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArrayError {
    /// There is no such element.
    OutOfRange(OutOfRange),
    /// There are no such elements.
    RangeOutOfRange {
        /// The first that was asked for.
        start: usize,
        /// Where the range ends, exclusively.
        end: usize,
        /// How many elements there are.
        len: usize,
    },
    /// The slice is not as long as the range.
    LengthMismatch {
        /// How many elements the range has.
        range: usize,
        /// How many the slice has.
        slice: usize,
    },
    /// The elements may be half changed.
    Poisoned(Poisoned),
}

impl ArrayError {
    pub(crate) fn range(range: Range<usize>, len: usize) -> ArrayError {
        ArrayError::RangeOutOfRange { start: range.start, end: range.end, len }
    }
}

impl fmt::Display for ArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(error) => error.fmt(f),
            Self::RangeOutOfRange { start, end, .. } if start > end => {
                write!(f, "range {start}..{end} ends before it begins")
            }
            Self::RangeOutOfRange { start, end, len } => {
                write!(f, "range {start}..{end} is out of range of an array of {len}")
            }
            Self::LengthMismatch { range, slice } => {
                write!(f, "a range of {range} elements, and a slice of {slice}")
            }
            Self::Poisoned(error) => error.fmt(f),
        }
    }
}

impl Error for ArrayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::OutOfRange(error) => Some(error),
            Self::Poisoned(error) => Some(error),
            _ => None,
        }
    }
}

impl From<OutOfRange> for ArrayError {
    fn from(error: OutOfRange) -> ArrayError {
        ArrayError::OutOfRange(error)
    }
}

impl From<Poisoned> for ArrayError {
    fn from(error: Poisoned) -> ArrayError {
        ArrayError::Poisoned(error)
    }
}
