//! What [`array!`](crate::array) takes.

use crate::array::Array;
use crate::raw_array::RawArray;
use crate::scalar::Scalar;
use core::ops::{Range, RangeInclusive};
use std::io;
use std::sync::Arc;

/// What becomes an array of `T`: a list, or how many zeros.
pub trait Elements<T> {
    /// Calls `list` with the elements, or `zeros` with how many.
    fn give<R>(&self, list: impl FnOnce(&[T]) -> R, zeros: impl FnOnce(usize) -> R) -> R;
}

/// An array of these.
///
/// # Errors
///
/// As [`Array::new`].
pub fn array<T: Scalar>(elements: &(impl Elements<T> + ?Sized)) -> io::Result<Array<T>> {
    elements.give(Array::new, Array::zeroed)
}

/// A raw array of these.
///
/// # Errors
///
/// As [`RawArray::new`].
pub fn raw_array<T: Scalar>(elements: &(impl Elements<T> + ?Sized)) -> io::Result<RawArray<T>> {
    elements.give(RawArray::new, RawArray::zeroed)
}

/// The number that a literal means: an integer is one of the float types' numbers, too.
pub trait Literal<T> {
    /// It.
    fn number(self) -> T;
}

impl<T: Scalar> Elements<T> for usize {
    fn give<R>(&self, _: impl FnOnce(&[T]) -> R, zeros: impl FnOnce(usize) -> R) -> R {
        zeros(*self)
    }
}

impl<T, E: Elements<T> + ?Sized> Elements<T> for &E {
    fn give<R>(&self, list: impl FnOnce(&[T]) -> R, zeros: impl FnOnce(usize) -> R) -> R {
        (**self).give(list, zeros)
    }
}

macro_rules! lists {
    ($([$($parameters:tt)*] $list:ty;)*) => {$(
        impl<T: Scalar, $($parameters)*> Elements<T> for $list {
            fn give<R>(&self, list: impl FnOnce(&[T]) -> R, _: impl FnOnce(usize) -> R) -> R {
                list(self)
            }
        }
    )*};
}

lists! { [] [T]; [const N: usize] [T; N]; [] Vec<T>; [] Box<[T]>; [] Arc<[T]>; }

macro_rules! counted {
    ($($int:ty)*) => {$(
        impl Elements<$int> for Range<$int> {
            fn give<R>(&self, list: impl FnOnce(&[$int]) -> R, _: impl FnOnce(usize) -> R) -> R {
                list(&self.clone().collect::<Vec<_>>())
            }
        }

        impl Elements<$int> for RangeInclusive<$int> {
            fn give<R>(&self, list: impl FnOnce(&[$int]) -> R, _: impl FnOnce(usize) -> R) -> R {
                list(&self.clone().collect::<Vec<_>>())
            }
        }

        impl Literal<$int> for $int {
            fn number(self) -> $int {
                self
            }
        }
    )*};
}

counted! { i8 u8 i16 u16 i32 u32 i64 u64 }

macro_rules! floats {
    ($($float:ty)*) => {$(
        impl Elements<$float> for Range<i32> {
            fn give<R>(&self, list: impl FnOnce(&[$float]) -> R, _: impl FnOnce(usize) -> R) -> R {
                list(&self.clone().map(|int| int as $float).collect::<Vec<_>>())
            }
        }

        impl<const N: usize> Elements<$float> for [i32; N] {
            fn give<R>(&self, list: impl FnOnce(&[$float]) -> R, _: impl FnOnce(usize) -> R) -> R {
                list(&self.map(|int| int as $float))
            }
        }

        impl Literal<$float> for $float {
            fn number(self) -> $float {
                self
            }
        }

        impl Literal<$float> for i32 {
            fn number(self) -> $float {
                self as $float
            }
        }
    )*};
}

floats! { f32 f64 }
