//! An array's memory: lock, elements, and what it takes to replace one of them in one store.
//!
//! | bytes | single `T` | other `T` |
//! |---|---|---|
//! | 0 to 39 | lock | lock |
//! | 40 to 47 | `loan` (`u64`): see [`loan`](crate::loan) | the same |
//! | then | elements | `redo` (`u64`), the scratch element, elements |
//!
//! `redo` is 0, or one more than the index of the element that the scratch element is to replace. Storing it
//! commits the replacement; then the element is copied, and `redo` is cleared. Whoever takes the lock and
//! finds it set, because the one before died in between, copies again.

use crate::code::header_code;
use crate::hold::Hold;
use crate::slot;
use bytemuck::Pod;
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_mutex::RawMutex;
use polyproc_sys::atomic::{AtomicU64, Ordering, compiler_fence};
use polyproc_sys::robust;
use std::io;

/// A handle to the memory.
pub(crate) struct Table<T> {
    object: Object,
    raw: NonNull<RawMutex>,
    elements: NonNull<T>,
    len: usize,
}

// SAFETY: the lock orders all access to the elements, from threads as from processes; the pointers are into
// the mapping that `object` keeps.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above. A guard gives out `&mut [T]` to one thread at a time.
unsafe impl<T: Send> Sync for Table<T> {}

/// Where the payload has `loan`.
const LOAN: usize = size_of::<RawMutex>();

/// Where that of a type that is not single has `redo`.
const REDO: usize = LOAN + size_of::<AtomicU64>();

/// Where it has the scratch element.
const fn scratch_offset<T>() -> usize {
    (REDO + size_of::<AtomicU64>()).next_multiple_of(align_of::<T>())
}

/// The whole payload's layout, and where its elements lie.
fn layout<T>(len: usize) -> Option<(Layout, usize)> {
    let element = slot::layout::<T>();
    let elements = Layout::from_size_align(element.size().checked_mul(len)?, element.align()).ok()?;
    let head = Layout::new::<RawMutex>().extend(Layout::new::<AtomicU64>()).ok()?.0;
    let head = if slot::is_single::<T>() {
        head
    } else {
        let (head, scratch) = head.extend(Layout::new::<AtomicU64>()).ok()?.0.extend(element).ok()?;
        debug_assert_eq!(scratch, scratch_offset::<T>());
        head
    };
    let (payload, offset) = head.extend(elements).ok()?;
    Some((payload.pad_to_align(), offset))
}

impl<T: Pod> Table<T> {
    /// What an array of so many elements is, for whoever attaches to one.
    pub(crate) fn shape(count: u64) -> Option<Shape> {
        let (payload, _) = layout::<T>(usize::try_from(count).ok()?)?;
        Some(Shape {
            kind: Kind::new("array"),
            code: header_code::<T>(),
            element: Layout::new::<T>(),
            count,
            payload,
            lock: true,
        })
    }

    pub(crate) fn zeroed(arena: Option<&Arena>, len: usize) -> io::Result<Table<T>> {
        robust::check()?;
        let too_large = || io::Error::from(polyproc_memory::CreateError::TooLarge);
        let shape = Self::shape(len as u64).ok_or_else(too_large)?;
        Table::at(Object::create(arena, &shape)?).ok_or_else(too_large)
    }

    pub(crate) fn create(arena: Option<&Arena>, elements: &[T]) -> io::Result<Table<T>> {
        let table = Self::zeroed(arena, elements.len())?;
        // SAFETY: nobody else knows of it yet.
        unsafe { table.elements_mut() }.copy_from_slice(elements);
        Ok(table)
    }

    /// The array that is this object, whose payload has been checked to have the shape.
    pub(crate) fn at(object: Object) -> Option<Table<T>> {
        let len = usize::try_from(object.count()).ok()?;
        let (_, offset) = layout::<T>(len)?;
        let payload = object.payload();
        // SAFETY: the shape's payload reaches to the end of the elements.
        let elements = unsafe { payload.add(offset) };
        Some(Table { raw: payload.cast(), elements: elements.cast(), len, object })
    }

    /// Replaces an element, and releases the lock.
    ///
    /// # Safety
    ///
    /// It is this table's lock that is held, the index is less than the length, and there is no reference to
    /// elements.
    #[inline(always)]
    pub(crate) unsafe fn replace(&self, hold: Hold<'_>, index: usize, element: T) {
        if slot::is_single::<T>() {
            // SAFETY: there is an element of this index.
            let place = unsafe { self.elements.add(index) };
            // SAFETY: mapped, aligned to its size, and the lock is held.
            hold.commit(|| unsafe { slot::store(place.as_ptr(), element) });
        } else {
            hold.commit(|| {
                // SAFETY: mapped and aligned; the lock is held.
                unsafe { self.scratch().write(element) };
                compiler_fence(Ordering::SeqCst);
                self.redo().store(index as u64 + 1, Ordering::Relaxed);
                // SAFETY: the caller's; the index is in range.
                unsafe { self.copy_scratch(index) };
            });
        }
    }

    /// Changes a copy of an element, replaces the element by it, and releases the lock.
    ///
    /// # Safety
    ///
    /// As for [`replace`](Table::replace).
    #[inline(always)]
    pub(crate) unsafe fn update<R>(&self, hold: Hold<'_>, index: usize, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: there is an element of this index.
        let place = unsafe { self.elements.add(index) };
        // SAFETY: mapped and aligned; the lock is held. A copy of this process's own, so that what a child
        // forked by `f` does to it stays there.
        let mut element = unsafe { place.read() };
        let result = f(&mut element);
        // SAFETY: the caller's.
        unsafe { self.replace(hold, index, element) };
        result
    }

    /// Finishes what the one who held the lock before did not live to finish.
    #[inline(always)]
    pub(crate) fn recover(&self, hold: &Hold<'_>) {
        debug_assert!(core::ptr::eq(hold.raw(), self.raw()));
        if !slot::is_single::<T>() && self.redo().load(Ordering::Relaxed) != 0 {
            self.redo_last();
        }
    }

    #[cold]
    fn redo_last(&self) {
        let index = usize::try_from(self.redo().load(Ordering::Relaxed) - 1).unwrap_or(usize::MAX);
        // What a peer wrote there that is no index is ignored.
        if index < self.len {
            // SAFETY: the caller has just taken the lock; the index is in range.
            unsafe { self.copy_scratch(index) };
        } else {
            self.redo().store(0, Ordering::Relaxed);
        }
    }

    /// Copies the scratch element to its place and says that this is done. May be repeated.
    ///
    /// # Safety
    ///
    /// As for [`replace`](Table::replace).
    unsafe fn copy_scratch(&self, index: usize) {
        // SAFETY: there is an element of this index.
        let place = unsafe { self.elements.add(index) };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: both are mapped and aligned, and differ; the lock is held.
        unsafe { place.copy_from_nonoverlapping(self.scratch(), 1) };
        compiler_fence(Ordering::SeqCst);
        self.redo().store(0, Ordering::Relaxed);
    }

    #[inline(always)]
    fn redo(&self) -> &AtomicU64 {
        debug_assert!(!slot::is_single::<T>());
        // SAFETY: the payload of a type that is not single goes on behind the lock.
        let redo = unsafe { self.raw.byte_add(REDO) }.cast::<AtomicU64>();
        // SAFETY: as above; 48 is a multiple of its alignment, as the payload's is.
        unsafe { redo.as_ref() }
    }

    #[inline(always)]
    fn scratch(&self) -> NonNull<T> {
        debug_assert!(!slot::is_single::<T>());
        // SAFETY: the payload of a type that is not single has its scratch element there.
        unsafe { self.raw.byte_add(scratch_offset::<T>()) }.cast()
    }
}

impl<T> Table<T> {
    #[inline(always)]
    pub(crate) fn raw(&self) -> &RawMutex {
        // SAFETY: points into the mapping that `object` keeps, to a lock that was checked to be one when
        // attached; it is made of atomics only.
        unsafe { self.raw.as_ref() }
    }

    /// What of it is lent.
    #[inline(always)]
    pub(crate) fn loan(&self) -> &AtomicU64 {
        // SAFETY: the payload goes on behind the lock.
        let loan = unsafe { self.raw.byte_add(LOAN) }.cast::<AtomicU64>();
        // SAFETY: as above; 40 is a multiple of its alignment, as the payload's is.
        unsafe { loan.as_ref() }
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements.
    ///
    /// # Safety
    ///
    /// The lock is held as long as the reference lives, and nobody changes them.
    #[inline(always)]
    pub(crate) unsafe fn elements(&self) -> &[T] {
        // SAFETY: mapped while the handle lives, aligned, and `len` of them, of any bit pattern; the rest is
        // the caller's.
        unsafe { slice::from_raw_parts(self.elements.as_ptr(), self.len) }
    }

    /// The elements, to change them.
    ///
    /// # Safety
    ///
    /// The lock is held as long as the reference lives, and this is the only one.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the lock makes it exclusive")]
    pub(crate) unsafe fn elements_mut(&self) -> &mut [T] {
        // SAFETY: as in `elements`.
        unsafe { slice::from_raw_parts_mut(self.elements.as_ptr(), self.len) }
    }

    /// Elements of a range that there is, to change them, while others work on other ranges.
    ///
    /// # Safety
    ///
    /// The lock is held as long as the reference lives, and no other reference to these elements does.
    #[allow(clippy::mut_from_ref, reason = "the caller makes it exclusive")]
    pub(crate) unsafe fn part_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the elements, as just checked.
        let start = unsafe { self.elements.add(range.start) };
        // SAFETY: as in `elements`, for a part of them.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), range.len()) }
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Table<T> {
        Table { object: self.object.clone(), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyproc_sys::deadline::Deadline;

    type Wide = [u8; 3];

    /// A table whose last holder died right after it committed `[9; 3]` for the element of this index.
    fn committed(index: u64) -> Table<Wide> {
        let table = Table::create(None, &[[1; 3], [2; 3]]).unwrap();
        // SAFETY: nobody else knows of it.
        unsafe { table.scratch().write([9; 3]) };
        table.redo().store(index + 1, Ordering::Relaxed);
        table
    }

    fn recovered(table: &Table<Wide>) -> [Wide; 2] {
        // SAFETY: the table is borrowed longer than the hold lives.
        let hold = unsafe { Hold::lock_until(table.raw(), Deadline::PAST) }.ok().unwrap();
        table.recover(&hold);
        assert_eq!(table.redo().load(Ordering::Relaxed), 0);
        // SAFETY: the lock is held.
        unsafe { table.elements() }.try_into().unwrap()
    }

    #[test]
    fn who_locks_next_finishes_a_committed_replacement() {
        assert_eq!(recovered(&committed(0)), [[9; 3], [2; 3]]);
        assert_eq!(recovered(&committed(1)), [[1; 3], [9; 3]]);
    }

    #[test]
    fn recovery_can_be_repeated() {
        let table = committed(1);
        recovered(&table);
        table.redo().store(2, Ordering::Relaxed);
        assert_eq!(recovered(&table), [[1; 3], [9; 3]]);
    }

    #[test]
    fn an_index_that_is_none_is_ignored() {
        for index in [2, u64::MAX - 1] {
            assert_eq!(recovered(&committed(index)), [[1; 3], [2; 3]]);
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        assert_eq!(layout::<i32>(4).unwrap(), (Layout::from_size_align(64, 8).unwrap(), 48));
        assert_eq!(layout::<[u8; 8]>(1).unwrap(), (Layout::from_size_align(56, 8).unwrap(), 48));
        // Lock, loan, redo, one element of scratch, two elements.
        assert_eq!(layout::<Wide>(2).unwrap(), (Layout::from_size_align(72, 8).unwrap(), 59));
        assert_eq!(layout::<u128>(1).unwrap(), (Layout::from_size_align(96, 16).unwrap(), 80));
        assert_eq!(layout::<u64>(usize::MAX / 8), None);
    }
}
