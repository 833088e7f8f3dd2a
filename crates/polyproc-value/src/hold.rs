//! A lock that this thread holds, for as long as it takes to read, or to change with one store.

use core::marker::PhantomData;
use core::mem;
use polyproc_mutex::{CriticalSection, RawMutex, Refusal};
use polyproc_sys::atomic::{Ordering, compiler_fence};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::thread;

/// The lock, held. Dropped, it is released: unless a `fork` lies between, which leaves the lock to the
/// parent.
///
/// It says nothing about the data: whoever changes that other than by one store calls [`RawMutex::enter`].
pub(crate) struct Hold<'a> {
    raw: &'a RawMutex,
    /// Tells an inherited one from one's own.
    forks: u32,
    /// The thread that locked is the one to unlock.
    not_send: PhantomData<*const ()>,
}

impl<'a> Hold<'a> {
    /// Takes the lock, waiting for as long as it takes.
    ///
    /// # Panics
    ///
    /// If the thread holds it already, or 2,048 others.
    ///
    /// # Safety
    ///
    /// The mutex stays mapped until this is dropped or the thread has ended, even if it is forgotten.
    #[inline(always)]
    #[track_caller]
    pub(crate) unsafe fn lock(raw: &'a RawMutex) -> Hold<'a> {
        // SAFETY: the caller's.
        match unsafe { raw.lock_until(Deadline::NEVER) } {
            Ok(()) => Hold::new(raw),
            Err(refusal) => refusal.panic(),
        }
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Safety
    ///
    /// As for [`lock`](Hold::lock).
    #[inline]
    pub(crate) unsafe fn try_lock(raw: &'a RawMutex) -> Result<Hold<'a>, Refusal> {
        // SAFETY: the caller's.
        unsafe { raw.try_lock() }?;
        Ok(Hold::new(raw))
    }

    /// Takes the lock, waiting for it until the deadline.
    ///
    /// # Safety
    ///
    /// As for [`lock`](Hold::lock).
    #[inline]
    pub(crate) unsafe fn lock_until(raw: &'a RawMutex, deadline: Deadline) -> Result<Hold<'a>, Refusal> {
        // SAFETY: the caller's.
        unsafe { raw.lock_until(deadline) }?;
        Ok(Hold::new(raw))
    }

    /// Of a mutex that this thread has just locked.
    #[inline(always)]
    fn new(raw: &'a RawMutex) -> Hold<'a> {
        Hold { raw, forks: thread::forks(), not_send: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> &'a RawMutex {
        self.raw
    }

    /// Goes on as the critical section of a guard, whose death or panic poisons.
    #[inline(always)]
    pub(crate) fn into_section(self) -> CriticalSection<'a> {
        let raw = self.raw;
        mem::forget(self);
        // SAFETY: this thread has locked it, in this process: no code of a user's lies between.
        unsafe { CriticalSection::enter(raw) }
    }

    /// Whether it was locked in this process, and not in a parent before a `fork`.
    #[inline(always)]
    fn is_own(&self) -> bool {
        self.forks == thread::forks()
    }

    /// Runs `store` and releases the lock. In a child that was forked meanwhile, neither.
    ///
    /// `store` must not panic.
    #[inline(always)]
    pub(crate) fn commit(self, store: impl FnOnce()) {
        if self.is_own() {
            // What counts is the order in which this thread executes: all that prepared the commit, the
            // commit, the rest.
            compiler_fence(Ordering::SeqCst);
            store();
            compiler_fence(Ordering::SeqCst);
            // SAFETY: locked when this was made, by this thread since it is not `Send`, in this process.
            unsafe { self.raw.unlock() };
        }
        mem::forget(self);
    }
}

impl Drop for Hold<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_own() {
            // SAFETY: as in `commit`.
            unsafe { self.raw.unlock() };
        }
    }
}
