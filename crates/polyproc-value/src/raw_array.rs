//! [`RawArray`]: many numbers without a lock.

use crate::error::OutOfRange;
use crate::scalar::{Integer, Scalar};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::slice;
use polyproc_memory::{Arena, CreateError, Kind, Object, Shape};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;

/// An array of numbers that all processes share without a lock: each operation is one atomic access to one
/// element, sequentially consistent. Its length is fixed when it is made; 0 is legal.
///
/// This is a handle: clones are the same array, and so is a clone that is given to another process. Nothing
/// here waits, and a process that is killed leaves each element as it was before or as it is after. What
/// concerns more than one element is not atomic as a whole. For the rest see [`RawValue`](crate::RawValue).
///
/// # Examples
///
/// ```
/// use polyproc_value::RawArray;
///
/// let histogram = RawArray::<u32>::zeroed(10)?;
/// histogram.fetch_add(3, 1)?;
/// assert_eq!(histogram.load(3)?, 1);
/// assert_eq!(histogram.load(10).unwrap_err().to_string(), "index 10 is out of range of an array of 10");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RawArray<T> {
    object: Object,
    len: usize,
    /// They are atomics in memory, whatever `T` is.
    numbers: PhantomData<fn(T) -> T>,
}

fn shape<T: Scalar>(count: u64) -> Option<Shape> {
    Some(Shape {
        kind: Kind::new("rarray"),
        code: T::CODE.to_char() as u8,
        element: Layout::new::<T>(),
        count,
        payload: Layout::array::<T>(usize::try_from(count).ok()?).ok()?,
        lock: false,
    })
}

impl<T: Scalar> RawArray<T> {
    /// Makes an array with these elements, in memory of its own.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left.
    pub fn new(elements: &[T]) -> io::Result<RawArray<T>> {
        RawArray::create(None, elements)
    }

    /// Makes an array with these elements, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`] if it has no room.
    pub fn new_in(arena: &Arena, elements: &[T]) -> io::Result<RawArray<T>> {
        RawArray::create(Some(arena), elements)
    }

    /// Makes an array of `len` zeros, in memory of its own.
    ///
    /// # Errors
    ///
    /// As [`new`](RawArray::new). A length whose size in bytes overflows is an error too.
    pub fn zeroed(len: usize) -> io::Result<RawArray<T>> {
        RawArray::allocate(None, len)
    }

    /// Makes an array of `len` zeros, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`] if it has no room.
    pub fn zeroed_in(arena: &Arena, len: usize) -> io::Result<RawArray<T>> {
        RawArray::allocate(Some(arena), len)
    }

    fn allocate(arena: Option<&Arena>, len: usize) -> io::Result<RawArray<T>> {
        let shape = shape::<T>(len as u64).ok_or(CreateError::TooLarge)?;
        Ok(RawArray { object: Object::create(arena, &shape)?, len, numbers: PhantomData })
    }

    fn create(arena: Option<&Arena>, elements: &[T]) -> io::Result<RawArray<T>> {
        let array = RawArray::allocate(arena, elements.len())?;
        for (cell, &element) in array.cells().iter().zip(elements) {
            T::store(cell, element);
        }
        Ok(array)
    }

    /// Returns a copy of all elements, each read by itself: others may change some of them meanwhile.
    pub fn to_vec(&self) -> Vec<T> {
        self.cells().iter().map(T::load).collect()
    }

    /// An element.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn load(&self, index: usize) -> Result<T, OutOfRange> {
        Ok(T::load(self.cell(index)?))
    }

    /// Replaces an element.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn store(&self, index: usize, new: T) -> Result<(), OutOfRange> {
        T::store(self.cell(index)?, new);
        Ok(())
    }

    /// Replaces elements from `start` on, each by itself and one after the other: whoever sees a later one
    /// sees the earlier ones too, and what this thread stored before. It costs what plain stores cost; unlike
    /// the other operations it can be overtaken by a later `load` of another element.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`], with the first index that the array does not have; nothing changes.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_value::RawArray;
    ///
    /// let journal = RawArray::<u64>::zeroed(4)?;
    /// journal.store_all(1, &[7, 8])?;
    /// assert_eq!(journal.to_vec(), [0, 7, 8, 0]);
    /// assert!(journal.store_all(3, &[1, 2]).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn store_all(&self, start: usize, elements: &[T]) -> Result<(), OutOfRange> {
        let cells = self.cells().get(start..).and_then(|cells| cells.get(..elements.len()));
        let cells = cells.ok_or(OutOfRange { index: start.max(self.len), len: self.len })?;
        for (cell, &element) in cells.iter().zip(elements) {
            T::store_release(cell, element);
        }
        Ok(())
    }

    /// Replaces an element, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn swap(&self, index: usize, new: T) -> Result<T, OutOfRange> {
        Ok(T::swap(self.cell(index)?, new))
    }

    /// Replaces an element by `new` if it is `current`. `Ok(Err(…))` has what it is, if it is another.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn compare_exchange(&self, index: usize, current: T, new: T) -> Result<Result<T, T>, OutOfRange> {
        Ok(T::compare_exchange(self.cell(index)?, current, new))
    }

    /// Adds to an element, and returns what it was. Integers wrap.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_add(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_add(self.cell(index)?, operand))
    }

    /// Subtracts from an element, and returns what it was. Integers wrap.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_sub(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_sub(self.cell(index)?, operand))
    }

    /// Replaces an element by the larger of the two, and returns what it was. A NaN loses against any other
    /// float.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_max(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_max(self.cell(index)?, operand))
    }

    /// Replaces an element by the smaller of the two, and returns what it was. A NaN loses against any other
    /// float.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_min(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_min(self.cell(index)?, operand))
    }

    /// Replaces an element by what `f` makes of it. `f` is called again if another access came between.
    /// `Ok(Ok(…))` has what the element was; `Ok(Err(…))` what it is, because `f` returned `None`.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_update(
        &self,
        index: usize,
        f: impl FnMut(T) -> Option<T>,
    ) -> Result<Result<T, T>, OutOfRange> {
        Ok(T::fetch_update(self.cell(index)?, f))
    }

    #[inline(always)]
    fn cells(&self) -> &[T::Cell] {
        let cells = self.object.payload().cast::<T::Cell>();
        // SAFETY: the payload is mapped while the handle lives, aligned to 64, and was checked to have the
        // size of so many T, which is the atomics'; all accesses to it are atomic.
        unsafe { slice::from_raw_parts(cells.as_ptr(), self.len) }
    }

    #[inline(always)]
    fn cell(&self, index: usize) -> Result<&T::Cell, OutOfRange> {
        self.cells().get(index).ok_or(OutOfRange { index, len: self.len })
    }
}

impl<T: Integer> RawArray<T> {
    /// Keeps the bits of an element that the operand has too, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_and(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_and(self.cell(index)?, operand))
    }

    /// Sets the operand's bits in an element, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_or(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_or(self.cell(index)?, operand))
    }

    /// Flips the operand's bits in an element, and returns what it was.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    #[inline]
    pub fn fetch_xor(&self, index: usize, operand: T) -> Result<T, OutOfRange> {
        Ok(T::fetch_xor(self.cell(index)?, operand))
    }
}

impl<T> RawArray<T> {
    /// How many elements it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Clone for RawArray<T> {
    fn clone(&self) -> RawArray<T> {
        RawArray { object: self.object.clone(), ..*self }
    }
}

impl<T: Scalar> fmt::Debug for RawArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawArray").field(&self.to_vec()).finish()
    }
}

/// Works inside a hand-over only: as an argument for another process, or in a message that can carry
/// descriptors.
impl<T> Serialize for RawArray<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de, T: Scalar> Deserialize<'de> for RawArray<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawArray<T>, D::Error> {
        let object = Object::deserialize(deserializer, shape::<T>)?;
        let len = usize::try_from(object.count()).map_err(serde::de::Error::custom)?;
        Ok(RawArray { object, len, numbers: PhantomData })
    }
}
