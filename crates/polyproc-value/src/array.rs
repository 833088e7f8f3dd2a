//! [`Array`]: many numbers, or any other plain data, behind one lock.

use crate::error::{ArrayError, OutOfRange, Poisoned};
use crate::hold::Hold;
use crate::loan::Lending;
use crate::span::{same_length, span};
use crate::table::Table;
use bytemuck::Pod;
use core::fmt;
use core::ops::{Deref, DerefMut, RangeBounds};
use polyproc_memory::{Arena, Object};
use polyproc_mutex::{CriticalSection, LockTimeoutError, PoisonCause, PoisonError, TryLockError};
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// An array that all processes share. Its length is fixed when it is made; 0 is legal.
///
/// This is a handle: clones are the same array, and so is a clone that is given to another process. `T` is
/// plain old data ([`bytemuck::Pod`]): a number, or a struct of your own that derives it.
///
/// Each operation is one critical section. Of [`set`](Array::set) and [`update`](Array::update), which
/// replace one element, a process that is killed in the middle leaves the element as it was before or as it
/// is after. [`write`](Array::write) and a guard ([`lock`](Array::lock)) work in place: a death in the middle
/// of those poisons.
///
/// All of them wait for whoever holds the lock; and if its holder died while parts of the elements were lent
/// to others, for those who are still at work on them. See the [crate](crate) for costs.
///
/// # Examples
///
/// ```
/// use polyproc_value::Array;
///
/// let array = Array::new(&[1i32, 2, 3, 4, 5])?;
/// array.update(0, |x| *x += 10)?;
/// array.write(3.., &[40, 50])?;
/// assert_eq!(array.read(1..=3)?, [2, 3, 40]);
/// for x in array.lock().unwrap().iter_mut() {
///     *x *= 2;
/// }
/// assert_eq!(array.to_vec()?, [22, 4, 6, 80, 100]);
/// assert_eq!(array.get(5).unwrap_err().to_string(), "index 5 is out of range of an array of 5");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Array<T> {
    table: Table<T>,
}

impl<T: Pod> Array<T> {
    /// Makes an array with these elements, in memory of its own.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new(elements: &[T]) -> io::Result<Array<T>> {
        Ok(Array { table: Table::create(None, elements)? })
    }

    /// Makes an array with these elements, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](Array::new).
    pub fn new_in(arena: &Arena, elements: &[T]) -> io::Result<Array<T>> {
        Ok(Array { table: Table::create(Some(arena), elements)? })
    }

    /// Makes an array of this many elements, all of whose bytes are zero, in memory of its own.
    ///
    /// # Errors
    ///
    /// As [`new`](Array::new). A length whose size in bytes overflows is an error too.
    pub fn zeroed(len: usize) -> io::Result<Array<T>> {
        Ok(Array { table: Table::zeroed(None, len)? })
    }

    /// Makes an array of this many elements, all of whose bytes are zero, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](Array::new).
    pub fn zeroed_in(arena: &Arena, len: usize) -> io::Result<Array<T>> {
        Ok(Array { table: Table::zeroed(Some(arena), len)? })
    }

    /// Returns a copy of one element.
    ///
    /// # Errors
    ///
    /// `OutOfRange`, or `Poisoned`: a process died or panicked while it held a guard, or died in `write`.
    ///
    /// # Panics
    ///
    /// If the calling thread holds the array's lock already, or 2,048 others.
    #[inline]
    #[track_caller]
    pub fn get(&self, index: usize) -> Result<T, ArrayError> {
        self.check(index)?;
        let hold = self.hold()?;
        // SAFETY: the lock is held, and nobody else has a reference.
        let elements = unsafe { self.table.elements() };
        let element = elements[index];
        drop(hold);
        Ok(element)
    }

    /// Replaces one element. A process that is killed in the middle of it has replaced it or not, and poisons
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`get`](Array::get); nothing changes.
    ///
    /// # Panics
    ///
    /// As [`get`](Array::get).
    #[inline]
    #[track_caller]
    pub fn set(&self, index: usize, element: T) -> Result<(), ArrayError> {
        self.check(index)?;
        let hold = self.hold()?;
        // SAFETY: the lock is held, the index was checked, and there are no references.
        unsafe { self.table.replace(hold, index, element) };
        Ok(())
    }

    /// Changes one element in one critical section, and returns what `f` returns.
    ///
    /// `f` works on a copy, which replaces the element when it returns. If it panics, or the process is
    /// killed in the middle of it, the element stays as it was, and nothing is poisoned. In a child that `f`
    /// forks, the call changes nothing: the lock is the parent's.
    ///
    /// # Errors
    ///
    /// As [`get`](Array::get); `f` was not called.
    ///
    /// # Panics
    ///
    /// As [`get`](Array::get), so in particular if `f` uses the same array again.
    #[inline]
    #[track_caller]
    pub fn update<R>(&self, index: usize, f: impl FnOnce(&mut T) -> R) -> Result<R, ArrayError> {
        self.check(index)?;
        let hold = self.hold()?;
        // SAFETY: the lock is held, the index was checked, and there are no references.
        Ok(unsafe { self.table.update(hold, index, f) })
    }

    /// Returns a copy of all elements, as they were at one moment.
    ///
    /// # Errors
    ///
    /// [`Poisoned`], as for [`get`](Array::get).
    ///
    /// # Panics
    ///
    /// As [`get`](Array::get).
    #[track_caller]
    pub fn to_vec(&self) -> Result<Vec<T>, Poisoned> {
        self.copy_out(0, self.len())
    }

    /// Returns a copy of a range of elements, as they were at one moment.
    ///
    /// # Errors
    ///
    /// `RangeOutOfRange`, or `Poisoned` as for [`get`](Array::get).
    ///
    /// # Panics
    ///
    /// As [`get`](Array::get).
    #[track_caller]
    pub fn read(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>, ArrayError> {
        let range = span(range, self.len())?;
        Ok(self.copy_out(range.start, range.len())?)
    }

    /// Copies a range of elements into a slice of the same length, without allocating.
    ///
    /// # Errors
    ///
    /// As [`read`](Array::read), or `LengthMismatch`.
    ///
    /// # Panics
    ///
    /// As [`get`](Array::get).
    #[track_caller]
    pub fn read_into(&self, range: impl RangeBounds<usize>, buffer: &mut [T]) -> Result<(), ArrayError> {
        let range = span(range, self.len())?;
        same_length(&range, buffer.len())?;
        let hold = self.hold()?;
        // SAFETY: the lock is held, and nobody else has a reference.
        let elements = unsafe { self.table.elements() };
        buffer.copy_from_slice(&elements[range]);
        drop(hold);
        Ok(())
    }

    /// Replaces a range of elements by a slice of the same length. A process that is killed in the middle of
    /// it poisons the array.
    ///
    /// # Errors
    ///
    /// `RangeOutOfRange`, `LengthMismatch`, or `Poisoned` as for [`get`](Array::get); nothing changes.
    ///
    /// # Panics
    ///
    /// As [`get`](Array::get).
    #[track_caller]
    pub fn write(&self, range: impl RangeBounds<usize>, elements: &[T]) -> Result<(), ArrayError> {
        let range = span(range, self.len())?;
        same_length(&range, elements.len())?;
        let hold = self.hold()?;
        hold.raw().enter();
        // SAFETY: the lock is held, and nobody else has a reference.
        let place = unsafe { self.table.elements_mut() };
        place[range].copy_from_slice(elements);
        hold.raw().leave();
        Ok(())
    }

    /// Takes the lock of an array that is whole.
    #[inline(always)]
    #[track_caller]
    fn hold(&self) -> Result<Hold<'_>, Poisoned> {
        // SAFETY: borrows the handle, whose object keeps the lock mapped. Who calls this does not forget it.
        let hold = unsafe { Hold::lock(self.table.raw()) };
        match hold.raw().poison_cause() {
            None => {
                self.table.await_return(Deadline::NEVER);
                self.table.recover(&hold);
                Ok(hold)
            }
            Some(cause) => Err(Poisoned::new(cause)),
        }
    }

    /// A copy of so many elements that are there.
    #[track_caller]
    fn copy_out(&self, start: usize, count: usize) -> Result<Vec<T>, Poisoned> {
        // Allocated before the lock is taken: that can take long.
        let mut copy = Vec::with_capacity(count);
        let hold = self.hold()?;
        // SAFETY: the lock is held, and nobody else has a reference.
        let elements = unsafe { self.table.elements() };
        copy.extend_from_slice(&elements[start..][..count]);
        drop(hold);
        Ok(copy)
    }

    /// Takes the lock, waiting for as long as it takes.
    ///
    /// The guard works on the elements in place: if its holder is killed or panics, the array is poisoned.
    ///
    /// # Errors
    ///
    /// If a holder died or panicked in the middle of its work. The lock is taken all the same: the error has
    /// the guard, and [`cause`](PoisonError::cause) says who it was.
    ///
    /// # Panics
    ///
    /// If the calling thread holds the array's lock already, or 2,048 others.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, PoisonError<ArrayGuard<'_, T>>> {
        // SAFETY: the guard borrows the handle, whose object keeps the lock mapped; a region stays mapped
        // while a lock in it is held by a guard that was forgotten.
        let hold = unsafe { Hold::lock(self.table.raw()) };
        self.table.await_return(Deadline::NEVER);
        ArrayGuard::new(self, hold)
    }

    /// Takes the lock if nobody holds it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the lock is held, also by the calling thread; `Poisoned` with the guard as for
    /// [`lock`](Array::lock); `TooManyLocks` if the calling thread holds 2,048 others.
    #[inline]
    pub fn try_lock(&self) -> Result<ArrayGuard<'_, T>, TryLockError<ArrayGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        let hold = unsafe { Hold::try_lock(self.table.raw()) }?;
        if !self.table.await_return(Deadline::PAST) {
            return Err(TryLockError::WouldBlock);
        }
        Ok(ArrayGuard::new(self, hold)?)
    }

    /// Takes the lock, waiting at most `timeout` for it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// `TimedOut` if the lock is still held then; `Poisoned` with the guard as for [`lock`](Array::lock);
    /// `TooManyLocks` if the calling thread holds 2,048 others.
    #[inline]
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ArrayGuard<'_, T>, LockTimeoutError<ArrayGuard<'_, T>>> {
        self.lock_deadline(Deadline::after(timeout))
    }

    /// Takes the lock, waiting for it until `deadline` at the latest. A deadline that has passed looks once.
    ///
    /// # Errors
    ///
    /// As for [`lock_timeout`](Array::lock_timeout).
    #[inline]
    pub fn lock_until(
        &self,
        deadline: Instant,
    ) -> Result<ArrayGuard<'_, T>, LockTimeoutError<ArrayGuard<'_, T>>> {
        self.lock_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn lock_deadline(
        &self,
        deadline: Deadline,
    ) -> Result<ArrayGuard<'_, T>, LockTimeoutError<ArrayGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        let hold = unsafe { Hold::lock_until(self.table.raw(), deadline) }?;
        if !self.table.await_return(deadline) {
            return Err(LockTimeoutError::TimedOut);
        }
        Ok(ArrayGuard::new(self, hold)?)
    }
}

impl<T> Array<T> {
    /// How many elements it has. Takes no lock.
    #[inline]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it has none. Takes no lock.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anybody holds the lock. The answer may be out of date by the time the caller looks at it.
    pub fn is_locked(&self) -> bool {
        self.table.raw().is_locked()
    }

    /// The id of the process that holds a guard or is in [`write`](Array::write); `None` if there is none.
    pub fn holder(&self) -> Option<u32> {
        self.table.raw().holder()
    }

    /// Why the array is poisoned, which means that elements may be half changed; `None` if it is not.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        self.table.raw().poison_cause()
    }

    /// Whether the array is poisoned, which means that elements may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the elements repaired: operations succeed again.
    pub fn clear_poison(&self) {
        self.table.raw().clear_poison();
    }

    #[inline(always)]
    fn check(&self, index: usize) -> Result<(), OutOfRange> {
        if index < self.len() { Ok(()) } else { Err(OutOfRange { index, len: self.len() }) }
    }
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Array<T> {
        Array { table: self.table.clone() }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Array");
        match self.try_lock() {
            Ok(guard) => debug.field("elements", &&*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("elements", &&**error.get_ref()),
            Err(_) => {
                debug.field("elements", &format_args!("<locked>"));
                debug.field("len", &self.len()).field("holder", &self.holder())
            }
        };
        debug.field("poison", &self.poison_cause()).finish_non_exhaustive()
    }
}

/// Works inside a hand-over only: as an argument for another process, or in a message that can carry
/// descriptors.
impl<T> Serialize for Array<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.table.object().serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Array<T>, D::Error> {
        let object = Object::deserialize(deserializer, Table::<T>::shape)?;
        let table = Table::at(object).ok_or_else(|| serde::de::Error::custom("the array is too large"))?;
        Ok(Array { table })
    }
}

/// A lock that is held. It gives access to the elements, in place, until it is dropped.
///
/// If it is dropped while its thread panics, it poisons the array. In a child made by `fork` it does nothing:
/// the lock is the parent's.
///
/// It stays with its thread:
///
/// ```compile_fail,E0277
/// fn send(_: impl Send) {}
/// send(polyproc_value::Array::new(&[0i32]).unwrap().lock().unwrap());
/// ```
#[must_use = "the array is unlocked as soon as the guard is dropped"]
pub struct ArrayGuard<'a, T> {
    table: &'a Table<T>,
    section: CriticalSection<'a>,
}

// SAFETY: a shared guard gives out `&[T]`, and nothing else that depends on the thread.
unsafe impl<T: Sync> Sync for ArrayGuard<'_, T> {}

impl<'a, T: Pod> ArrayGuard<'a, T> {
    #[inline]
    fn new(array: &'a Array<T>, hold: Hold<'a>) -> Result<ArrayGuard<'a, T>, PoisonError<ArrayGuard<'a, T>>> {
        let table = &array.table;
        // First: an element's replacement that was committed is no reason for poison.
        table.recover(&hold);
        let guard = ArrayGuard { table, section: hold.into_section() };
        match guard.section.raw().poison_cause() {
            None => Ok(guard),
            Some(cause) => Err(PoisonError::new(guard, cause)),
        }
    }
}

impl<T> ArrayGuard<'_, T> {
    /// The elements, for others to work on as long as this guard is borrowed. For polyproc's own pool, which
    /// keeps the [`Loan`](crate::Loan)'s promise: see there.
    #[doc(hidden)]
    pub fn lend(&mut self) -> Lending<'_, T> {
        Lending::new(self)
    }

    pub(crate) fn table(&self) -> &Table<T> {
        self.table
    }

    /// Whether it is a forked child's copy.
    pub(crate) fn is_inherited(&self) -> bool {
        self.section.is_inherited()
    }
}

impl<T> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the lock is held, and this is the only guard.
        unsafe { self.table.elements() }
    }
}

impl<T> DerefMut for ArrayGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the guard is borrowed exclusively.
        unsafe { self.table.elements_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
