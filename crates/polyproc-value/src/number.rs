//! [`Number`]: a number whose type is known at run time only.

use crate::code::TypeCode;
use crate::scalar::Scalar;
use core::fmt;
use std::error::Error;
use std::io;

/// A number for [`AnyValue`](crate::AnyValue) and [`AnyArray`](crate::AnyArray), or from them: wide enough for all types
/// that have a code.
///
/// Made from any of Rust's numbers, `u128` excepted. An integer compares equal to the same integer, a float to the same
/// float; the two kinds never are.
///
/// # Examples
///
/// ```
/// use polyproc_value::Number;
///
/// let number = Number::from(-3i8);
/// assert_eq!(number, -3);
/// assert_eq!(number.as_i128(), Some(-3));
/// assert_eq!(number.as_f64(), -3.0);
/// assert_eq!(Number::from(0.5f32), 0.5);
/// assert_eq!(Number::Float(2.0).to_string(), "2.0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Number {
    /// Of the codes `b B h H i I l L`.
    Int(i128),
    /// Of the codes `f d`.
    Float(f64),
}

impl Number {
    /// The number if it is an integer.
    pub fn as_i128(self) -> Option<i128> {
        match self {
            Number::Int(int) => Some(int),
            Number::Float(_) => None,
        }
    }

    /// The nearest `f64`: the number itself if it is a float, or an integer of at most 53 bits.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(int) => int as f64,
            Number::Float(float) => float,
        }
    }
}

/// Floats always have a point or an exponent.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Int(int) => int.fmt(f),
            Number::Float(float) => fmt::Debug::fmt(float, f),
        }
    }
}

macro_rules! from_int {
    ($($int:ty)*) => {$(
        impl From<$int> for Number {
            fn from(int: $int) -> Number {
                // No type here is wider than an i128, or as wide and unsigned.
                Number::Int(int as i128)
            }
        }

        impl PartialEq<$int> for Number {
            fn eq(&self, int: &$int) -> bool {
                *self == Number::from(*int)
            }
        }
    )*};
}

macro_rules! from_float {
    ($($float:ty)*) => {$(
        impl From<$float> for Number {
            fn from(float: $float) -> Number {
                Number::Float(float.into())
            }
        }

        impl PartialEq<$float> for Number {
            fn eq(&self, float: &$float) -> bool {
                *self == Number::from(*float)
            }
        }
    )*};
}

from_int! { i8 u8 i16 u16 i32 u32 i64 u64 isize usize i128 }
from_float! { f32 f64 }

/// A number that its type code has no room for. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum NumberError {
    /// It is too small or too large.
    OutOfRange {
        /// The code.
        code: TypeCode,
        /// The number.
        number: Number,
        /// The smallest number of that code.
        min: Number,
        /// The largest.
        max: Number,
    },
    /// It is a float, and the code is one of integers.
    NotAnInteger {
        /// The code.
        code: TypeCode,
        /// The number.
        number: Number,
    },
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { code, number, min, max } => {
                write!(f, "{number} is out of the range of type code '{code}' ({code:#}), {min} to {max}")
            }
            Self::NotAnInteger { code, number } => {
                write!(f, "{number} is a float, and type code '{code}' ({code:#}) is one of integers")
            }
        }
    }
}

impl Error for NumberError {}

/// As `InvalidInput`, with this as its source.
impl From<NumberError> for io::Error {
    fn from(error: NumberError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The number as a `T`.
pub(crate) fn fit<T: Scalar>(number: Number) -> Result<T, NumberError> {
    T::from_number(number).ok_or_else(|| {
        let code = T::CODE;
        if matches!(number, Number::Float(_)) && !code.is_float() {
            return NumberError::NotAnInteger { code, number };
        }
        NumberError::OutOfRange { code, number, min: T::LOWEST.into(), max: T::HIGHEST.into() }
    })
}
