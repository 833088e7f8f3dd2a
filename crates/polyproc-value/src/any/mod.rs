//! [`AnyValue`] and [`AnyArray`]: their type is known at run time only.

mod array;
mod value;

pub use array::{AnyArray, AnyArrayError};
pub use value::{AnyValue, AnyValueError};

/// Something typed by any of the ten types: ten variants of an enum that is named like the codes.
macro_rules! ten_types {
    ($name:ident, $typed:ident) => {
        #[derive(Clone)]
        enum $name {
            SignedChar($typed<i8>),
            UnsignedChar($typed<u8>),
            Short($typed<i16>),
            UnsignedShort($typed<u16>),
            Int($typed<i32>),
            UnsignedInt($typed<u32>),
            Long($typed<i64>),
            UnsignedLong($typed<u64>),
            Float($typed<f32>),
            Double($typed<f64>),
        }
    };
}

/// Does the same with the typed one, whichever it is.
macro_rules! with_typed {
    ($name:ident, $any:expr, $typed:ident => $do:expr) => {
        match $any {
            $name::SignedChar($typed) => $do,
            $name::UnsignedChar($typed) => $do,
            $name::Short($typed) => $do,
            $name::UnsignedShort($typed) => $do,
            $name::Int($typed) => $do,
            $name::UnsignedInt($typed) => $do,
            $name::Long($typed) => $do,
            $name::UnsignedLong($typed) => $do,
            $name::Float($typed) => $do,
            $name::Double($typed) => $do,
        }
    };
}

/// Makes the typed one of a code.
macro_rules! of_code {
    ($name:ident, $code:expr, $T:ident => $make:expr) => {
        $crate::any::of_code! { @match $name, $code, ($T => $make);
            SignedChar i8, UnsignedChar u8, Short i16, UnsignedShort u16, Int i32, UnsignedInt u32,
            Long i64, UnsignedLong u64, Float f32, Double f64
        }
    };
    (@match $name:ident, $code:expr, $how:tt; $($variant:ident $type:ty),*) => {
        match $code {
            $(TypeCode::$variant => $name::$variant($crate::any::of_code! { @make $how $type }),)*
        }
    };
    (@make ($T:ident => $make:expr) $type:ty) => {{
        type $T = $type;
        $make
    }};
}

/// From the typed ones.
macro_rules! from_typed {
    ($any:ident, $inner:ident, $typed:ident) => {
        $crate::any::from_typed! { @each $any, $inner, $typed;
            SignedChar i8, UnsignedChar u8, Short i16, UnsignedShort u16, Int i32, UnsignedInt u32,
            Long i64, UnsignedLong u64, Float f32, Double f64
        }
    };
    (@each $any:ident, $inner:ident, $typed:ident; $($variant:ident $type:ty),*) => {$(
        impl From<$typed<$type>> for $any {
            fn from(typed: $typed<$type>) -> $any {
                $any($inner::$variant(typed))
            }
        }
    )*};
}

use {from_typed, of_code, ten_types, with_typed};
