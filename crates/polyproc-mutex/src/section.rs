//! The critical section of a guard: what every lock built on [`RawMutex`] does at a guard's beginning and at
//! its end.

use crate::poison::PoisonCause;
use crate::raw::RawMutex;
use core::fmt;
use core::marker::PhantomData;
use polyproc_sys::thread;

/// A lock that is held, by a thread that is at work on its data.
///
/// For building a guard of your own on a [`RawMutex`]; [`MutexGuard`](crate::MutexGuard) is made of one. Its
/// beginning says who is inside, so that a death poisons the lock. Its end unlocks: having poisoned the lock
/// if the thread has begun to panic meanwhile, and not in a child that a `fork` has made meanwhile, because
/// there the lock is the parent's.
pub struct CriticalSection<'a> {
    raw: &'a RawMutex,
    origin: Origin,
    /// The thread that locked is the one to unlock.
    not_send: PhantomData<*const ()>,
}

// SAFETY: shared, it gives out the lock, which is `Sync`, and nothing that depends on the thread.
unsafe impl Sync for CriticalSection<'_> {}

impl<'a> CriticalSection<'a> {
    /// Begins.
    ///
    /// # Safety
    ///
    /// The calling thread has just locked `raw`, and leaves it to the section to unlock it.
    #[inline(always)]
    pub unsafe fn enter(raw: &'a RawMutex) -> CriticalSection<'a> {
        raw.enter();
        CriticalSection { raw, origin: Origin::here(), not_send: PhantomData }
    }

    /// The lock.
    #[inline(always)]
    pub fn raw(&self) -> &'a RawMutex {
        self.raw
    }

    /// Whether it was entered before the `fork` that made this process: then it is the parent's.
    #[inline(always)]
    pub fn is_inherited(&self) -> bool {
        self.origin.is_inherited()
    }
}

impl Drop for CriticalSection<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // One way out for all that is unusual: this is to be inlined wherever a guard ends.
        let usual = !self.origin.is_inherited() && !std::thread::panicking();
        // SAFETY: locked when the section began, by this thread since it is not `Send`, in this process.
        if !(usual && unsafe { self.raw.leave_and_unlock_only() }) {
            end_otherwise(self.raw, self.origin);
        }
    }
}

/// In a forked child, while panicking, or among other locks.
#[cold]
#[inline(never)]
fn end_otherwise(raw: &RawMutex, origin: Origin) {
    if origin.is_inherited() {
        return;
    }
    if origin.panics_since() {
        raw.set_poison(PoisonCause::Panicked { pid: thread::pid() });
    }
    raw.leave();
    // SAFETY: as in `drop`.
    unsafe { raw.unlock() };
}

impl fmt::Debug for CriticalSection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CriticalSection").field("raw", &self.raw).finish_non_exhaustive()
    }
}

/// Which process a section began in, and whether its thread was panicking then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(u32);

/// The bit of the panic. The others count forks.
const PANICKING: u32 = 1;

impl Origin {
    /// This process, this moment.
    #[inline(always)]
    pub(crate) fn here() -> Origin {
        Origin((thread::forks() << 1) | u32::from(std::thread::panicking()))
    }

    /// Whether it was before the `fork` that made this process.
    #[inline(always)]
    pub(crate) fn is_inherited(self) -> bool {
        (self.0 & !PANICKING) != thread::forks() << 1
    }

    /// Whether the thread has begun to panic since.
    pub(crate) fn panics_since(self) -> bool {
        self.0 & PANICKING == 0 && std::thread::panicking()
    }
}
