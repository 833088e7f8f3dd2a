//! [`Permit`]: the guard of a semaphore.

use crate::raw::RawSemaphore;
use core::fmt;
use core::marker::PhantomData;
use polyproc_sys::thread;

/// A permit that is held. It goes back when it is dropped, or when its thread dies in whatever way.
///
/// It stays with the thread that acquired it. In a child made by `fork` it is inert: it does not give back
/// what the parent holds. One that is leaked with `mem::forget` is held until its thread ends.
#[must_use = "the permit goes back as soon as it is dropped"]
pub struct Permit<'a> {
    raw: RawSemaphore<'a>,
    index: u32,
    /// How many forks there were when it was acquired.
    forks: u32,
    /// The thread that acquired is the one to release.
    not_send: PhantomData<*const ()>,
}

// SAFETY: shared, it gives out nothing that depends on the thread.
unsafe impl Sync for Permit<'_> {}

impl<'a> Permit<'a> {
    /// The permit that this thread has just acquired.
    #[inline(always)]
    pub(crate) fn new(raw: RawSemaphore<'a>, index: u32, lender: u32) -> Permit<'a> {
        raw.cells[index as usize].lend(thread::pid(), lender);
        Permit { raw, index, forks: thread::forks(), not_send: PhantomData }
    }

    /// Does away with the permit: it does not go back. Never blocks.
    ///
    /// The semaphore has one permit less from now on, until somebody calls `release`. So a permit can be
    /// handed to another process in two steps: one forgets it, and the other releases one in its place.
    ///
    /// If the process dies in the middle of it, the permit has been forgotten, or it goes back.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_semaphore::Semaphore;
    ///
    /// let semaphore = Semaphore::new(1)?;
    /// semaphore.acquire().forget();
    /// assert_eq!(semaphore.available(), 0);
    /// semaphore.release(1)?;
    /// assert_eq!(semaphore.available(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forget(self) {
        let permit = core::mem::ManuallyDrop::new(self);
        if !permit.is_inherited() {
            // SAFETY: acquired when the permit was made, by this thread since it is not `Send`, in this
            // process.
            unsafe { permit.raw.forget(permit.index) };
        }
    }

    /// Whether it was acquired before the `fork` that made this process: then it is the parent's.
    #[inline(always)]
    fn is_inherited(&self) -> bool {
        self.forks != thread::forks()
    }
}

impl Drop for Permit<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_inherited() {
            // SAFETY: as in `forget`.
            unsafe { self.raw.put_back(self.index) };
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("cell", &self.index).finish_non_exhaustive()
    }
}
