//! [`AnyValue`].

use super::{from_typed, of_code, ten_types, with_typed};
use crate::code::TypeCode;
use crate::error::Poisoned;
use crate::number::{Number, NumberError, fit};
use crate::scalar::Scalar;
use crate::value::Value;
use core::any::Any;
use core::fmt;
use polyproc_memory::Arena;
use polyproc_mutex::PoisonCause;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::error::Error;
use std::io;

ten_types! { Inner, Value }
from_typed! { AnyValue, Inner, Value }

/// A [`Value`] whose type is known at run time only, by its [`TypeCode`].
///
/// In memory it is the [`Value`] of that type, with all that is said there about waiting and dying; [`typed`]
/// gives it out. A number that does not fit the code is an error, and nothing wraps. Floats are rounded to
/// `f32` by code `f`.
///
/// [`typed`]: AnyValue::typed
///
/// # Examples
///
/// ```
/// use polyproc_value::{AnyValue, TypeCode};
///
/// let value = AnyValue::new(TypeCode::try_from('b')?, 100)?;
/// value.update(|n| n.as_f64() as i128 + 27)?;
/// assert_eq!(value.get()?, 127);
/// assert_eq!(
///     value.set(128).unwrap_err().to_string(),
///     "128 is out of the range of type code 'b' (signed char, i8), -128 to 127",
/// );
/// assert_eq!(value.typed::<i8>().unwrap().get()?, 127);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AnyValue(Inner);

impl AnyValue {
    /// A value of this type, in memory of its own.
    ///
    /// # Errors
    ///
    /// A number that does not fit the code, as `InvalidInput` with the [`NumberError`] as its source; else as
    /// [`Value::new`].
    pub fn new(code: TypeCode, number: impl Into<Number>) -> io::Result<AnyValue> {
        let number = number.into();
        Ok(AnyValue(of_code!(Inner, code, T => Value::new(fit::<T>(number)?)?)))
    }

    /// A value of this type, in an arena.
    ///
    /// # Errors
    ///
    /// As [`new`](AnyValue::new), or the arena is full.
    pub fn new_in(arena: &Arena, code: TypeCode, number: impl Into<Number>) -> io::Result<AnyValue> {
        let number = number.into();
        Ok(AnyValue(of_code!(Inner, code, T => Value::new_in(arena, fit::<T>(number)?)?)))
    }

    /// Its type.
    pub fn code(&self) -> TypeCode {
        fn code<T: Scalar>(_: &Value<T>) -> TypeCode {
            T::CODE
        }
        with_typed!(Inner, &self.0, value => code(value))
    }

    /// The number.
    ///
    /// # Errors
    ///
    /// [`Poisoned`], as [`Value::get`].
    ///
    /// # Panics
    ///
    /// As [`Value::get`].
    #[track_caller]
    pub fn get(&self) -> Result<Number, Poisoned> {
        Ok(with_typed!(Inner, &self.0, value => value.get()?.into()))
    }

    /// Replaces the number.
    ///
    /// # Errors
    ///
    /// The number does not fit the code, or the value is poisoned; nothing changes.
    ///
    /// # Panics
    ///
    /// As [`Value::get`].
    #[track_caller]
    pub fn set(&self, number: impl Into<Number>) -> Result<(), AnyValueError> {
        let number = number.into();
        with_typed!(Inner, &self.0, value => value.set(fit(number)?)?);
        Ok(())
    }

    /// Replaces the number by what `f` makes of it, in one critical section, and returns what it was.
    ///
    /// As for [`Value::update`], a panic or a death in `f` leaves the number as it was.
    ///
    /// # Errors
    ///
    /// The new number does not fit the code, or the value is poisoned; nothing changes.
    ///
    /// # Panics
    ///
    /// As [`Value::update`].
    #[track_caller]
    pub fn update<N: Into<Number>>(&self, f: impl FnOnce(Number) -> N) -> Result<Number, AnyValueError> {
        Ok(with_typed!(Inner, &self.0, value => value.update(|now| replace(now, f))??))
    }

    /// The value as one of its Rust type, if it is of that type.
    pub fn typed<T: Scalar>(&self) -> Option<&Value<T>> {
        with_typed!(Inner, &self.0, value => (value as &dyn Any).downcast_ref())
    }

    /// Whether anybody holds the lock. The answer may be out of date by the time the caller looks at it.
    pub fn is_locked(&self) -> bool {
        with_typed!(Inner, &self.0, value => value.is_locked())
    }

    /// Why the value may be half changed, if so: a process died or panicked while it held a guard.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        with_typed!(Inner, &self.0, value => value.poison_cause())
    }

    /// Whether it is poisoned, which means that the value may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the value repaired: operations succeed again.
    pub fn clear_poison(&self) {
        with_typed!(Inner, &self.0, value => value.clear_poison());
    }
}

/// Replaces a number by what `f` makes of it, if that fits.
pub(super) fn replace<T: Scalar, N: Into<Number>>(
    now: &mut T,
    f: impl FnOnce(Number) -> N,
) -> Result<Number, NumberError> {
    let before = (*now).into();
    *now = fit(f(before).into())?;
    Ok(before)
}

impl fmt::Debug for AnyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyValue({:?}, ", self.code().to_char())?;
        with_typed!(Inner, &self.0, value => value.fmt(f))?;
        f.write_str(")")
    }
}

/// As the code and the value. Works inside a hand-over only: as an argument for another process, or in a
/// message that can carry descriptors.
impl Serialize for AnyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_typed!(Inner, &self.0, value => (self.code(), value).serialize(serializer))
    }
}

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyValue, D::Error> {
        struct Pair;

        impl<'de> Visitor<'de> for Pair {
            type Value = AnyValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a type code and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<AnyValue, A::Error> {
                let missing = |at| A::Error::invalid_length(at, &"a type code and a value");
                let code: TypeCode = pair.next_element()?.ok_or_else(|| missing(0))?;
                let inner = of_code!(Inner, code, T => {
                    pair.next_element::<Value<T>>()?.ok_or_else(|| missing(1))?
                });
                Ok(AnyValue(inner))
            }
        }

        deserializer.deserialize_tuple(2, Pair)
    }
}

/// Why a value was not changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyValueError {
    /// The number does not fit the code.
    Number(NumberError),
    /// The value may be half changed.
    Poisoned(Poisoned),
}

impl fmt::Display for AnyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(error) => error.fmt(f),
            Self::Poisoned(error) => error.fmt(f),
        }
    }
}

impl Error for AnyValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Number(error) => Some(error),
            Self::Poisoned(error) => Some(error),
        }
    }
}

impl From<NumberError> for AnyValueError {
    fn from(error: NumberError) -> AnyValueError {
        AnyValueError::Number(error)
    }
}

impl From<Poisoned> for AnyValueError {
    fn from(error: Poisoned) -> AnyValueError {
        AnyValueError::Poisoned(error)
    }
}
