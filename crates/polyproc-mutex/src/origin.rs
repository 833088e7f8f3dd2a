//! Where and how a guard came to be.

use crate::raw::{PoisonCause, RawMutex};
use polyproc_sys::thread;

/// Which process a guard was made in, and whether its thread was panicking then: one word, because every guard has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u32);

/// The bit of the panic. The others count forks.
const PANICKING: u32 = 1;

impl Origin {
    /// This process, this moment.
    #[inline(always)]
    pub fn here() -> Origin {
        Origin((thread::forks() << 1) | u32::from(std::thread::panicking()))
    }

    /// Whether the guard was made before the `fork` that made this process: then it is the parent's.
    #[inline(always)]
    pub fn is_inherited(self) -> bool {
        (self.0 ^ Origin::here().0) & !PANICKING != 0
    }

    /// At the end of a guard, whether its lock is to be released by this process. Poisons the lock if the thread has begun
    /// to panic since the guard was made.
    #[inline(always)]
    pub fn ends_here(self, raw: &RawMutex) -> bool {
        self == Origin::here() || self.ends_otherwise(raw)
    }

    #[cold]
    #[inline(never)]
    fn ends_otherwise(self, raw: &RawMutex) -> bool {
        if self.is_inherited() {
            return false;
        }
        if self.0 & PANICKING == 0 {
            raw.set_poison(PoisonCause::Panicked { pid: thread::pid() });
        }
        true
    }
}
