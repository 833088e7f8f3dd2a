//! The guards: the lock, held to read or to write.

use crate::raw::{RawRwLock, ReaderSlot};
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use polyproc_mutex::{CriticalSection, PoisonError};
use polyproc_sys::thread;

/// A lock that is held to read. It gives shared access to the data, until it is dropped.
///
/// A panic of its thread poisons nothing. It stays with its thread (it is not `Send`). In a child made by
/// `fork` it does nothing: the parent goes on reading.
#[must_use = "the read ends as soon as the guard is dropped"]
pub struct RwLockReadGuard<'a, T> {
    data: NonNull<T>,
    slot: &'a ReaderSlot,
    /// As wide as the others: a half word in memory, copied as a whole one, would cost as much as the lock.
    forks: u64,
    /// Gives out `&T`; and the thread that reads is the one to end it.
    data_type: PhantomData<(&'a T, *const ())>,
}

// SAFETY: a shared guard gives out `&T`, and nothing else that depends on the thread.
unsafe impl<T: Sync> Sync for RwLockReadGuard<'_, T> {}

impl<'a, T> RwLockReadGuard<'a, T> {
    /// The guard of a slot.
    ///
    /// # Safety
    ///
    /// The calling thread has just got this slot of the lock, and leaves it to the guard to end the read; the
    /// lock is that of the data, which stays mapped for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn new(
        data: NonNull<T>,
        slot: &'a ReaderSlot,
        lock: RawRwLock<'a>,
    ) -> Result<RwLockReadGuard<'a, T>, PoisonError<RwLockReadGuard<'a, T>>> {
        match lock.writer().poison_cause() {
            None => Ok(RwLockReadGuard::of(data, slot)),
            Some(cause) => Err(PoisonError::new(RwLockReadGuard::of(data, slot), cause)),
        }
    }

    #[inline(always)]
    fn of(data: NonNull<T>, slot: &'a ReaderSlot) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard { data, slot, forks: thread::forks().into(), data_type: PhantomData }
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.forks == u64::from(thread::forks()) {
            // SAFETY: got by this thread, since the guard is not `Send`, in this process; the guard ends
            // once.
            unsafe { self.slot.unlock() };
        }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the data is mapped while the handle lives, any bit pattern is a T, and no writer is there.
        unsafe { self.data.as_ref() }
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A lock that is held to write. It gives access to the data, until it is dropped.
///
/// If it is dropped while its thread panics, it poisons the lock. It stays with its thread (it is not
/// `Send`). In a child made by `fork` it does nothing: the lock is the parent's.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RwLockWriteGuard<'a, T> {
    data: NonNull<T>,
    section: CriticalSection<'a>,
    /// Gives out `&mut T`.
    data_type: PhantomData<&'a mut T>,
}

// SAFETY: a shared guard gives out `&T`, and nothing else that depends on the thread.
unsafe impl<T: Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<'a, T> RwLockWriteGuard<'a, T> {
    /// The guard of a lock.
    ///
    /// # Safety
    ///
    /// The calling thread has just taken the lock to write, and leaves it to the guard to release it; the
    /// lock is that of the data, which stays mapped for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn new(
        data: NonNull<T>,
        lock: RawRwLock<'a>,
    ) -> Result<RwLockWriteGuard<'a, T>, PoisonError<RwLockWriteGuard<'a, T>>> {
        // SAFETY: the caller's.
        let section = unsafe { CriticalSection::enter(lock.writer()) };
        let guard = RwLockWriteGuard { data, section, data_type: PhantomData };
        match guard.section.raw().poison_cause() {
            None => Ok(guard),
            Some(cause) => Err(PoisonError::new(guard, cause)),
        }
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the data is mapped while the handle lives, any bit pattern is a T, and the lock is held.
        unsafe { self.data.as_ref() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the guard is borrowed exclusively, and it is the only one.
        unsafe { self.data.as_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
