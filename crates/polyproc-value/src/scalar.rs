//! [`Scalar`]: the ten types that have a code, and how they are accessed atomically.

use crate::code::TypeCode;
use crate::number::Number;
use bytemuck::Pod;
use core::fmt::{Debug, Display};
use polyproc_sys::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering,
};

/// A number that has a type code: `i8`, `u8`, `i16`, `u16`, `i32`, `u32`, `i64`, `u64`, `f32` or `f64`.
///
/// What [`RawValue`](crate::RawValue) and [`RawArray`](crate::RawArray) are made of. Nobody else can
/// implement it.
pub trait Scalar: Atomic + Pod + PartialOrd + Default + Debug + Display + Send + Sync + Into<Number> {
    /// Its code.
    const CODE: TypeCode;
}

/// A [`Scalar`] that is an integer, and so has bits to work on.
pub trait Integer: Scalar + AtomicBits {}

/// The atomic operations of a scalar, all sequentially consistent. Out of the user's sight.
pub trait Atomic: Sized {
    /// The atomic of the same size and alignment.
    type Cell: Send + Sync + 'static;
    const LOWEST: Self;
    const HIGHEST: Self;
    /// The number, if there is room for it.
    fn from_number(number: Number) -> Option<Self>;
    fn load(cell: &Self::Cell) -> Self;
    fn store(cell: &Self::Cell, new: Self);
    /// A store with `Release`: pairs with the `load` that sees it.
    fn store_release(cell: &Self::Cell, new: Self);
    fn swap(cell: &Self::Cell, new: Self) -> Self;
    fn compare_exchange(cell: &Self::Cell, current: Self, new: Self) -> Result<Self, Self>;
    fn fetch_add(cell: &Self::Cell, operand: Self) -> Self;
    fn fetch_sub(cell: &Self::Cell, operand: Self) -> Self;
    fn fetch_max(cell: &Self::Cell, operand: Self) -> Self;
    fn fetch_min(cell: &Self::Cell, operand: Self) -> Self;
    fn fetch_update(cell: &Self::Cell, f: impl FnMut(Self) -> Option<Self>) -> Result<Self, Self>;
}

/// What integers have beyond that.
pub trait AtomicBits: Atomic {
    fn fetch_and(cell: &Self::Cell, operand: Self) -> Self;
    fn fetch_or(cell: &Self::Cell, operand: Self) -> Self;
    fn fetch_xor(cell: &Self::Cell, operand: Self) -> Self;
}

macro_rules! integers {
    ($($int:ty, $cell:ty, $code:ident;)*) => {$(
        const _: () = assert!(size_of::<$int>() == size_of::<$cell>() && align_of::<$int>() == align_of::<$cell>());

        impl Scalar for $int {
            const CODE: TypeCode = TypeCode::$code;
        }

        impl Integer for $int {}

        impl Atomic for $int {
            type Cell = $cell;
            const LOWEST: $int = <$int>::MIN;
            const HIGHEST: $int = <$int>::MAX;

            fn from_number(number: Number) -> Option<$int> {
                <$int>::try_from(number.as_i128()?).ok()
            }

            #[inline]
            fn load(cell: &$cell) -> $int {
                cell.load(Ordering::SeqCst)
            }

            #[inline]
            fn store(cell: &$cell, new: $int) {
                cell.store(new, Ordering::SeqCst);
            }

            #[inline]
            fn store_release(cell: &$cell, new: $int) {
                cell.store(new, Ordering::Release);
            }

            #[inline]
            fn swap(cell: &$cell, new: $int) -> $int {
                cell.swap(new, Ordering::SeqCst)
            }

            #[inline]
            fn compare_exchange(cell: &$cell, current: $int, new: $int) -> Result<$int, $int> {
                cell.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_add(cell: &$cell, operand: $int) -> $int {
                cell.fetch_add(operand, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_sub(cell: &$cell, operand: $int) -> $int {
                cell.fetch_sub(operand, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_max(cell: &$cell, operand: $int) -> $int {
                cell.fetch_max(operand, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_min(cell: &$cell, operand: $int) -> $int {
                cell.fetch_min(operand, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_update(cell: &$cell, mut f: impl FnMut($int) -> Option<$int>) -> Result<$int, $int> {
                let mut now = cell.load(Ordering::SeqCst);
                while let Some(next) = f(now) {
                    match cell.compare_exchange_weak(now, next, Ordering::SeqCst, Ordering::SeqCst) {
                        Ok(before) => return Ok(before),
                        Err(other) => now = other,
                    }
                }
                Err(now)
            }
        }

        impl AtomicBits for $int {
            #[inline]
            fn fetch_and(cell: &$cell, operand: $int) -> $int {
                cell.fetch_and(operand, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_or(cell: &$cell, operand: $int) -> $int {
                cell.fetch_or(operand, Ordering::SeqCst)
            }

            #[inline]
            fn fetch_xor(cell: &$cell, operand: $int) -> $int {
                cell.fetch_xor(operand, Ordering::SeqCst)
            }
        }
    )*};
}

/// Floats live in the unsigned atomic of their size, as their bits.
macro_rules! floats {
    ($($float:ty, $bits:ty, $code:ident;)*) => {$(
        const _: () = assert!(size_of::<$float>() == size_of::<$bits>() && align_of::<$float>() == align_of::<$bits>());

        impl Scalar for $float {
            const CODE: TypeCode = TypeCode::$code;
        }

        impl Atomic for $float {
            type Cell = <$bits as Atomic>::Cell;
            const LOWEST: $float = <$float>::MIN;
            const HIGHEST: $float = <$float>::MAX;

            fn from_number(number: Number) -> Option<$float> {
                let wide = number.as_f64();
                let float = wide as $float;
                // What was finite must not become infinite; rounding is what floats do.
                (float.is_finite() || !wide.is_finite()).then_some(float)
            }

            #[inline]
            fn load(cell: &Self::Cell) -> $float {
                <$float>::from_bits(<$bits>::load(cell))
            }

            #[inline]
            fn store(cell: &Self::Cell, new: $float) {
                <$bits>::store(cell, new.to_bits());
            }

            #[inline]
            fn store_release(cell: &Self::Cell, new: $float) {
                <$bits>::store_release(cell, new.to_bits());
            }

            #[inline]
            fn swap(cell: &Self::Cell, new: $float) -> $float {
                <$float>::from_bits(<$bits>::swap(cell, new.to_bits()))
            }

            #[inline]
            fn compare_exchange(cell: &Self::Cell, current: $float, new: $float) -> Result<$float, $float> {
                <$bits>::compare_exchange(cell, current.to_bits(), new.to_bits())
                    .map(<$float>::from_bits)
                    .map_err(<$float>::from_bits)
            }

            #[inline]
            fn fetch_add(cell: &Self::Cell, operand: $float) -> $float {
                Self::always(cell, |now| now + operand)
            }

            #[inline]
            fn fetch_sub(cell: &Self::Cell, operand: $float) -> $float {
                Self::always(cell, |now| now - operand)
            }

            #[inline]
            fn fetch_max(cell: &Self::Cell, operand: $float) -> $float {
                Self::always(cell, |now| now.max(operand))
            }

            #[inline]
            fn fetch_min(cell: &Self::Cell, operand: $float) -> $float {
                Self::always(cell, |now| now.min(operand))
            }

            #[inline]
            fn fetch_update(
                cell: &Self::Cell,
                mut f: impl FnMut($float) -> Option<$float>,
            ) -> Result<$float, $float> {
                <$bits>::fetch_update(cell, |now| f(<$float>::from_bits(now)).map(<$float>::to_bits))
                    .map(<$float>::from_bits)
                    .map_err(<$float>::from_bits)
            }
        }

        impl Always for $float {}
    )*};
}

/// An update that is never refused.
trait Always: Atomic {
    #[inline]
    fn always(cell: &Self::Cell, mut f: impl FnMut(Self) -> Self) -> Self {
        let (Ok(before) | Err(before)) = Self::fetch_update(cell, |now| Some(f(now)));
        before
    }
}

integers! {
    i8, AtomicI8, SignedChar;
    u8, AtomicU8, UnsignedChar;
    i16, AtomicI16, Short;
    u16, AtomicU16, UnsignedShort;
    i32, AtomicI32, Int;
    u32, AtomicU32, UnsignedInt;
    i64, AtomicI64, Long;
    u64, AtomicU64, UnsignedLong;
}

floats! {
    f32, u32, Float;
    f64, u64, Double;
}
