//! Who was inside when the holder died, and so whether the data may be half changed.
//!
//! | `holder` | the thread with the lock | if it dies |
//! |---|---|---|
//! | 0 | has not begun to change the data, or is done | the next holder finds nothing to complain of |
//! | its process | is at it | the next holder poisons the lock, with this process as the cause |
//!
//! It is set after the lock was taken and cleared before it is released. Poison stays until somebody clears
//! it.

use super::RawMutex;
use crate::poison::PoisonCause;
use polyproc_sys::atomic::{Ordering, compiler_fence};
use polyproc_sys::thread;

// What `poison` says.
pub(super) const UNPOISONED: u32 = 0;
const DIED: u32 = 1;
const PANICKED: u32 = 2;

impl RawMutex {
    /// The process in the critical section, between [`enter`](RawMutex::enter) and
    /// [`leave`](RawMutex::leave).
    pub fn holder(&self) -> Option<u32> {
        Some(self.holder.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Says that the holder begins to change the data: if it dies from here on, the lock is poisoned.
    ///
    /// Without it, a death says nothing about the data: for changes that become visible with one store.
    #[inline(always)]
    pub fn enter(&self) {
        self.holder.store(thread::pid(), Ordering::Relaxed);
        // What counts is the order in which this thread executes; its death is the end of that order.
        compiler_fence(Ordering::SeqCst);
    }

    /// Says that the data is whole again.
    #[inline(always)]
    pub fn leave(&self) {
        compiler_fence(Ordering::SeqCst);
        self.holder.store(0, Ordering::Relaxed);
    }

    /// Why the lock is poisoned, which means that the data may be half changed; `None` if it is not.
    #[inline]
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        match self.poison.load(Ordering::Relaxed) {
            UNPOISONED => None,
            kind => Some(self.cause(kind)),
        }
    }

    #[cold]
    fn cause(&self, kind: u32) -> PoisonCause {
        let pid = self.poisoner.load(Ordering::Relaxed);
        if kind == PANICKED { PoisonCause::Panicked { pid } } else { PoisonCause::OwnerDied { pid } }
    }

    /// Says that the holder may have left the data half changed.
    #[cold]
    pub fn set_poison(&self, cause: PoisonCause) {
        let kind = match cause {
            PoisonCause::OwnerDied { .. } => DIED,
            PoisonCause::Panicked { .. } => PANICKED,
        };
        // The kind last: whoever sees it sees whose it is, unless this process dies in between, and then it
        // is told anew.
        self.poisoner.store(cause.pid(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.poison.store(kind, Ordering::Relaxed);
    }

    /// Says that the data has been looked after.
    pub fn clear_poison(&self) {
        self.poison.store(UNPOISONED, Ordering::Relaxed);
    }

    /// As the new holder of a dead thread's lock: poisons it if that thread was inside. May be repeated if
    /// this thread dies in it too.
    #[cold]
    pub(super) fn take_over(&self) {
        if let Some(pid) = self.holder() {
            self.set_poison(PoisonCause::OwnerDied { pid });
            compiler_fence(Ordering::SeqCst);
            self.holder.store(0, Ordering::Relaxed);
        }
    }
}
