//! [`Number`]: a number whose type is known at run time only.

use crate::code::TypeCode;
use crate::scalar::Scalar;
use core::cmp::Ordering;
use core::fmt;
use std::error::Error;
use std::io;

/// A number for [`AnyValue`](crate::AnyValue) and [`AnyArray`](crate::AnyArray), or from them: wide enough
/// for all types that have a code.
///
/// Made from any of Rust's numbers, `u128` excepted. Comparisons go by the number, exactly: the integer 2
/// equals the float 2.0, and no rounding makes others equal.
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
/// assert_eq!(Number::from(2.0), 2);
/// assert!(Number::from(2) < Number::from(2.5));
/// assert_eq!(Number::Float(2.0).to_string(), "2.0");
/// ```
#[derive(Clone, Copy, Debug)]
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

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

/// By the number. A NaN is neither less than, nor equal to, nor greater than any.
impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        match (*self, *other) {
            (Number::Int(one), Number::Int(other)) => Some(one.cmp(&other)),
            (Number::Float(one), Number::Float(other)) => one.partial_cmp(&other),
            (Number::Int(int), Number::Float(float)) => compare(int, float),
            (Number::Float(float), Number::Int(int)) => compare(int, float).map(Ordering::reverse),
        }
    }
}

/// Exactly: neither is rounded to the type of the other.
fn compare(int: i128, float: f64) -> Option<Ordering> {
    /// 2^127, one more than the largest `i128`.
    const END: f64 = -(i128::MIN as f64);
    if float >= END {
        return Some(Ordering::Less);
    }
    if float < -END {
        return Some(Ordering::Greater);
    }
    match int.cmp(&(float.trunc() as i128)) {
        // The whole parts are the same. A NaN, whose whole part is cast to 0, has none.
        Ordering::Equal => 0.0.partial_cmp(&float.fract()),
        _ if float.is_nan() => None,
        unequal => Some(unequal),
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

        impl From<&$int> for Number {
            fn from(int: &$int) -> Number {
                Number::from(*int)
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

        impl From<&$float> for Number {
            fn from(float: &$float) -> Number {
                Number::from(*float)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_compare_exactly() {
        let ascending = [
            Number::Float(f64::NEG_INFINITY),
            Number::Int(i128::MIN),
            Number::Int(i128::MIN + 1),
            Number::Float(-1.5),
            Number::Int(-1),
            Number::Float(-0.5),
            Number::Int(0),
            Number::Float(0.5),
            Number::Int(1),
            // As an f64, both are the same.
            Number::Float(9_007_199_254_740_992.0),
            Number::Int(9_007_199_254_740_993),
            Number::Int(i128::MAX),
            Number::Float(i128::MAX as f64),
            Number::Float(f64::INFINITY),
        ];
        for (at, one) in ascending.iter().enumerate() {
            for (other_at, other) in ascending.iter().enumerate() {
                assert_eq!(one.partial_cmp(other), Some(at.cmp(&other_at)), "{one} and {other}");
            }
        }
        assert_eq!(Number::Int(i128::MIN), Number::Float(i128::MIN as f64));
        assert_eq!(Number::Float(-0.0), 0);
        for number in [Number::Int(0), Number::Int(7), Number::Float(0.0), Number::Float(f64::NAN)] {
            assert_eq!(number.partial_cmp(&Number::Float(f64::NAN)), None);
            assert_eq!(Number::Float(f64::NAN).partial_cmp(&number), None);
        }
    }
}
