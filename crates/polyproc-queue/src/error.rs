//! What can go wrong.

use polyproc_mutex::Refusal;
use std::io;

/// Why nothing was put.
#[derive(Debug)]
pub(crate) enum PutRefusal {
    Full,
    Closed,
    TooLarge { length: usize, most: usize },
    OutOfMemory(io::Error),
    TooManyLocks,
}

/// Why nothing was got.
#[derive(Debug)]
pub(crate) enum GetRefusal {
    Empty,
    Closed,
    TooManyLocks,
}

impl From<Refusal> for PutRefusal {
    #[cold]
    fn from(refusal: Refusal) -> PutRefusal {
        match refusal {
            Refusal::TooManyLocks => PutRefusal::TooManyLocks,
            Refusal::OwnedByCaller => refusal.panic(),
            Refusal::WouldBlock | Refusal::TimedOut => PutRefusal::Full,
        }
    }
}

impl From<Refusal> for GetRefusal {
    #[cold]
    fn from(refusal: Refusal) -> GetRefusal {
        match refusal {
            Refusal::TooManyLocks => GetRefusal::TooManyLocks,
            Refusal::OwnedByCaller => refusal.panic(),
            Refusal::WouldBlock | Refusal::TimedOut => GetRefusal::Empty,
        }
    }
}
