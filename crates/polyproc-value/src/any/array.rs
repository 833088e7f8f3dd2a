//! [`AnyArray`].

use super::value::replace;
use super::{from_typed, of_code, ten_types, with_typed};
use crate::array::Array;
use crate::code::TypeCode;
use crate::error::{ArrayError, Poisoned};
use crate::number::{Number, NumberError, fit};
use crate::scalar::Scalar;
use core::any::Any;
use core::fmt;
use core::ops::RangeBounds;
use polyproc_memory::Arena;
use polyproc_mutex::PoisonCause;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::error::Error;
use std::io;

ten_types! { Inner, Array }
from_typed! { AnyArray, Inner, Array }

/// An [`Array`] whose type is known at run time only, by its [`TypeCode`].
///
/// In memory it is the [`Array`] of that type, with all that is said there about waiting and dying; [`typed`]
/// gives it out. A number that does not fit the code is an error, and nothing wraps. Floats are rounded to
/// `f32` by code `f`.
///
/// [`typed`]: AnyArray::typed
///
/// # Examples
///
/// ```
/// use polyproc_value::{AnyArray, TypeCode};
///
/// let array = AnyArray::new(TypeCode::try_from('h')?, 0..5)?;
/// array.set(4, -40)?;
/// array.update(1, |n| n.as_f64() as i16 * 10)?;
/// assert_eq!(array.to_vec()?, [0, 10, 2, 3, -40]);
/// assert_eq!(
///     array.set(0, 0.5).unwrap_err().to_string(),
///     "0.5 is a float, and type code 'h' (short, i16) is one of integers",
/// );
/// assert_eq!(array.typed::<i16>().unwrap().get(1)?, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AnyArray(Inner);

impl AnyArray {
    /// An array of this type with these elements, in memory of its own.
    ///
    /// # Errors
    ///
    /// A number that does not fit the code, as `InvalidInput` with the [`NumberError`] as its source; else as
    /// [`Array::new`].
    pub fn new<N: Into<Number>>(
        code: TypeCode,
        numbers: impl IntoIterator<Item = N>,
    ) -> io::Result<AnyArray> {
        Ok(AnyArray(of_code!(Inner, code, T => Array::new(&fit_all::<T, N>(numbers)?)?)))
    }

    /// An array of this type with these elements, in an arena.
    ///
    /// # Errors
    ///
    /// As [`new`](AnyArray::new), or the arena is full.
    pub fn new_in<N: Into<Number>>(
        arena: &Arena,
        code: TypeCode,
        numbers: impl IntoIterator<Item = N>,
    ) -> io::Result<AnyArray> {
        Ok(AnyArray(of_code!(Inner, code, T => Array::new_in(arena, &fit_all::<T, N>(numbers)?)?)))
    }

    /// An array of so many zeros of this type, in memory of its own.
    ///
    /// # Errors
    ///
    /// As [`Array::zeroed`].
    pub fn zeroed(code: TypeCode, len: usize) -> io::Result<AnyArray> {
        Ok(AnyArray(of_code!(Inner, code, T => Array::<T>::zeroed(len)?)))
    }

    /// Makes an array of `len` zeros of this type, in an arena.
    ///
    /// # Errors
    ///
    /// As [`Array::zeroed_in`].
    pub fn zeroed_in(arena: &Arena, code: TypeCode, len: usize) -> io::Result<AnyArray> {
        Ok(AnyArray(of_code!(Inner, code, T => Array::<T>::zeroed_in(arena, len)?)))
    }

    /// The type of its elements.
    pub fn code(&self) -> TypeCode {
        fn code<T: Scalar>(_: &Array<T>) -> TypeCode {
            T::CODE
        }
        with_typed!(Inner, &self.0, array => code(array))
    }

    /// How many elements it has. Takes no lock.
    pub fn len(&self) -> usize {
        with_typed!(Inner, &self.0, array => array.len())
    }

    /// Whether it has none. Takes no lock.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element.
    ///
    /// # Errors
    ///
    /// As [`Array::get`].
    ///
    /// # Panics
    ///
    /// As [`Array::get`].
    #[track_caller]
    pub fn get(&self, index: usize) -> Result<Number, ArrayError> {
        Ok(with_typed!(Inner, &self.0, array => array.get(index)?.into()))
    }

    /// Replaces an element.
    ///
    /// # Errors
    ///
    /// The number does not fit the code, or as [`Array::set`]; nothing changes.
    ///
    /// # Panics
    ///
    /// As [`Array::get`].
    #[track_caller]
    pub fn set(&self, index: usize, number: impl Into<Number>) -> Result<(), AnyArrayError> {
        let number = number.into();
        with_typed!(Inner, &self.0, array => array.set(index, fit(number)?)?);
        Ok(())
    }

    /// Replaces an element by what `f` makes of it, in one critical section, and returns what it was.
    ///
    /// As for [`Array::update`], a panic or a death in `f` leaves the element as it was.
    ///
    /// # Errors
    ///
    /// The new number does not fit the code, or as [`Array::update`]; nothing changes.
    ///
    /// # Panics
    ///
    /// As [`Array::update`].
    #[track_caller]
    pub fn update<N: Into<Number>>(
        &self,
        index: usize,
        f: impl FnOnce(Number) -> N,
    ) -> Result<Number, AnyArrayError> {
        Ok(with_typed!(Inner, &self.0, array => array.update(index, |now| replace(now, f))??))
    }

    /// A copy of all elements.
    ///
    /// # Errors
    ///
    /// As [`Array::to_vec`].
    ///
    /// # Panics
    ///
    /// As [`Array::get`].
    #[track_caller]
    pub fn to_vec(&self) -> Result<Vec<Number>, Poisoned> {
        with_typed!(Inner, &self.0, array => Ok(array.to_vec()?.into_iter().map(Number::from).collect()))
    }

    /// A copy of a range of elements.
    ///
    /// # Errors
    ///
    /// As [`Array::read`].
    ///
    /// # Panics
    ///
    /// As [`Array::get`].
    #[track_caller]
    pub fn read(&self, range: impl RangeBounds<usize>) -> Result<Vec<Number>, ArrayError> {
        with_typed!(Inner, &self.0, array => Ok(array.read(range)?.into_iter().map(Number::from).collect()))
    }

    /// Replaces a range of elements by as many numbers. A process that is killed in the middle of it poisons
    /// the array.
    ///
    /// # Errors
    ///
    /// A number does not fit the code, or as [`Array::write`]; nothing changes.
    ///
    /// # Panics
    ///
    /// As [`Array::get`].
    #[track_caller]
    pub fn write<N: Into<Number>>(
        &self,
        range: impl RangeBounds<usize>,
        numbers: impl IntoIterator<Item = N>,
    ) -> Result<(), AnyArrayError> {
        with_typed!(Inner, &self.0, array => array.write(range, &fit_all(numbers)?)?);
        Ok(())
    }

    /// The array as one of its Rust type, if it is of that type.
    pub fn typed<T: Scalar>(&self) -> Option<&Array<T>> {
        with_typed!(Inner, &self.0, array => (array as &dyn Any).downcast_ref())
    }

    /// Whether anybody holds the lock. The answer may be out of date by the time the caller looks at it.
    pub fn is_locked(&self) -> bool {
        with_typed!(Inner, &self.0, array => array.is_locked())
    }

    /// Why the array is poisoned, which means that elements may be half changed; `None` if it is not.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        with_typed!(Inner, &self.0, array => array.poison_cause())
    }

    /// Whether the array is poisoned, which means that elements may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the elements repaired: operations succeed again.
    pub fn clear_poison(&self) {
        with_typed!(Inner, &self.0, array => array.clear_poison());
    }
}

/// The numbers as elements.
fn fit_all<T: Scalar, N: Into<Number>>(numbers: impl IntoIterator<Item = N>) -> Result<Vec<T>, NumberError> {
    numbers.into_iter().map(|number| fit(number.into())).collect()
}

impl fmt::Debug for AnyArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyArray({:?}, ", self.code().to_char())?;
        with_typed!(Inner, &self.0, array => array.fmt(f))?;
        f.write_str(")")
    }
}

/// As the code and the array. Works inside a hand-over only: as an argument for another process, or in a
/// message that can carry descriptors.
impl Serialize for AnyArray {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_typed!(Inner, &self.0, array => (self.code(), array).serialize(serializer))
    }
}

impl<'de> Deserialize<'de> for AnyArray {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyArray, D::Error> {
        struct Pair;

        impl<'de> Visitor<'de> for Pair {
            type Value = AnyArray;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type code and an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<AnyArray, A::Error> {
                let missing = |at| A::Error::invalid_length(at, &"a type code and an array");
                let code: TypeCode = pair.next_element()?.ok_or_else(|| missing(0))?;
                let inner = of_code!(Inner, code, T => {
                    pair.next_element::<Array<T>>()?.ok_or_else(|| missing(1))?
                });
                Ok(AnyArray(inner))
            }
        }

        deserializer.deserialize_tuple(2, Pair)
    }
}

/// Why an array was not changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyArrayError {
    /// A number does not fit the code.
    Number(NumberError),
    /// There are no such elements, or they may be half changed.
    Array(ArrayError),
}

impl fmt::Display for AnyArrayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(error) => error.fmt(f),
            Self::Array(error) => error.fmt(f),
        }
    }
}

impl Error for AnyArrayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Number(error) => Some(error),
            Self::Array(error) => Some(error),
        }
    }
}

impl From<NumberError> for AnyArrayError {
    fn from(error: NumberError) -> AnyArrayError {
        AnyArrayError::Number(error)
    }
}

impl From<ArrayError> for AnyArrayError {
    fn from(error: ArrayError) -> AnyArrayError {
        AnyArrayError::Array(error)
    }
}
