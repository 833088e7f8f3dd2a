//! [`RawValue`]: one number without a lock.

use crate::scalar::{Integer, Scalar};
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use polyproc_memory::{Arena, Kind, Object, Shape};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;

/// A number that all processes share without a lock: each operation is one atomic access, sequentially
/// consistent.
///
/// This is a handle: clones are the same number, and so is a clone that is given to another process. Nothing
/// here waits, and a process that is killed leaves the number as it was before or as it is after. Only for
/// the types that have a code. Integers wrap.
///
/// Operations on floats other than load, store and swap are repeated until nobody comes between;
/// `compare_exchange` of floats compares bits, so that `0.0` is not `-0.0`, and a NaN equals itself.
///
/// # Examples
///
/// ```
/// use polyproc_value::RawValue;
///
/// let counter = RawValue::new(0u64)?;
/// assert_eq!(counter.fetch_add(5), 0);
/// assert_eq!(counter.load(), 5);
///
/// let largest = RawValue::new(0.0f64)?;
/// largest.fetch_max(1.5);
/// assert_eq!(largest.load(), 1.5);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RawValue<T> {
    object: Object,
    /// It is an atomic in memory, whatever `T` is.
    number: PhantomData<fn(T) -> T>,
}

fn shape<T: Scalar>() -> Shape {
    let layout = Layout::new::<T>();
    Shape {
        kind: Kind::new("rvalue"),
        code: T::CODE.to_char() as u8,
        element: layout,
        count: 1,
        payload: layout,
        lock: false,
    }
}

impl<T: Scalar> RawValue<T> {
    /// Makes a number in memory of its own: a page and a file descriptor.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left.
    pub fn new(number: T) -> io::Result<RawValue<T>> {
        RawValue::create(None, number)
    }

    /// Makes a number in an arena, where it takes 128 bytes, header included.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`] if it has no room.
    pub fn new_in(arena: &Arena, number: T) -> io::Result<RawValue<T>> {
        RawValue::create(Some(arena), number)
    }

    fn create(arena: Option<&Arena>, number: T) -> io::Result<RawValue<T>> {
        let value = RawValue { object: Object::create(arena, &shape::<T>())?, number: PhantomData };
        value.store(number);
        Ok(value)
    }

    /// The number.
    #[inline]
    pub fn load(&self) -> T {
        T::load(self.cell())
    }

    /// Replaces the number.
    #[inline]
    pub fn store(&self, new: T) {
        T::store(self.cell(), new);
    }

    /// Replaces the number, and returns what it was.
    #[inline]
    pub fn swap(&self, new: T) -> T {
        T::swap(self.cell(), new)
    }

    /// Replaces the number by `new` if it is `current`.
    ///
    /// # Errors
    ///
    /// The number that was found, if it is not `current`. Nothing was replaced.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        T::compare_exchange(self.cell(), current, new)
    }

    /// Adds to the number, and returns what it was. Integers wrap.
    #[inline]
    pub fn fetch_add(&self, operand: T) -> T {
        T::fetch_add(self.cell(), operand)
    }

    /// Subtracts from the number, and returns what it was. Integers wrap.
    #[inline]
    pub fn fetch_sub(&self, operand: T) -> T {
        T::fetch_sub(self.cell(), operand)
    }

    /// Replaces the number by the larger of the two, and returns what it was. A NaN loses against any other
    /// float.
    #[inline]
    pub fn fetch_max(&self, operand: T) -> T {
        T::fetch_max(self.cell(), operand)
    }

    /// Replaces the number by the smaller of the two, and returns what it was. A NaN loses against any other
    /// float.
    #[inline]
    pub fn fetch_min(&self, operand: T) -> T {
        T::fetch_min(self.cell(), operand)
    }

    /// Replaces the number by what `f` makes of it, and returns what it was. `f` is called again if another
    /// access came between.
    ///
    /// # Errors
    ///
    /// The number, unchanged, if `f` returns `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use polyproc_value::RawValue;
    ///
    /// let seats = RawValue::new(1u16)?;
    /// assert_eq!(seats.fetch_update(|free| free.checked_sub(1)), Ok(1));
    /// assert_eq!(seats.fetch_update(|free| free.checked_sub(1)), Err(0));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn fetch_update(&self, f: impl FnMut(T) -> Option<T>) -> Result<T, T> {
        T::fetch_update(self.cell(), f)
    }

    #[inline(always)]
    fn cell(&self) -> &T::Cell {
        let cell = self.object.payload().cast::<T::Cell>();
        // SAFETY: the payload is mapped while the handle lives, aligned to 64, and was checked to have the
        // size of a T, which is the atomic's; all accesses to it are atomic.
        unsafe { cell.as_ref() }
    }
}

impl<T: Integer> RawValue<T> {
    /// Keeps the bits that the operand has too, and returns what the number was.
    #[inline]
    pub fn fetch_and(&self, operand: T) -> T {
        T::fetch_and(self.cell(), operand)
    }

    /// Sets the operand's bits, and returns what the number was.
    #[inline]
    pub fn fetch_or(&self, operand: T) -> T {
        T::fetch_or(self.cell(), operand)
    }

    /// Flips the operand's bits, and returns what the number was.
    #[inline]
    pub fn fetch_xor(&self, operand: T) -> T {
        T::fetch_xor(self.cell(), operand)
    }
}

impl<T> Clone for RawValue<T> {
    fn clone(&self) -> RawValue<T> {
        RawValue { object: self.object.clone(), number: PhantomData }
    }
}

impl<T: Scalar> fmt::Debug for RawValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawValue").field(&self.load()).finish()
    }
}

/// Works inside a hand-over only: as an argument for another process, or in a message that can carry
/// descriptors.
impl<T> Serialize for RawValue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de, T: Scalar> Deserialize<'de> for RawValue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawValue<T>, D::Error> {
        let object = Object::deserialize(deserializer, |_| Some(shape::<T>()))?;
        Ok(RawValue { object, number: PhantomData })
    }
}
