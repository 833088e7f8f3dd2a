//! [`TypeCode`]: the C types by their one-character names.

use core::any::TypeId;
use core::ffi::{c_int, c_long, c_schar, c_short, c_uchar, c_uint, c_ulong, c_ushort};
use core::fmt;
use core::str::FromStr;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::error::Error;

// The targets that polyproc-sys admits have a 64-bit `long`, which is what makes `q` and `l` one type.
const _: () = assert!(size_of::<c_long>() == 8 && size_of::<c_ulong>() == 8);

/// A C type by the character that Python's `array` and `multiprocessing` modules name it by.
///
/// | code | C | Rust | bytes |
/// |---|---|---|---|
/// | `b` | `signed char` | `i8` | 1 |
/// | `B` | `unsigned char` | `u8` | 1 |
/// | `h` | `short` | `i16` | 2 |
/// | `H` | `unsigned short` | `u16` | 2 |
/// | `i` | `int` | `i32` | 4 |
/// | `I` | `unsigned int` | `u32` | 4 |
/// | `l` | `long` | `i64` | 8 |
/// | `L` | `unsigned long` | `u64` | 8 |
/// | `f` | `float` | `f32` | 4 |
/// | `d` | `double` | `f64` | 8 |
///
/// `l` and `L` are as wide as C's `long` on the platform: 64 bits on all that polyproc runs on. `q` and `Q`,
/// C's `long long`, are accepted as other names of the 64-bit types.
///
/// # Examples
///
/// ```
/// use polyproc_value::TypeCode;
///
/// let code = TypeCode::try_from('i')?;
/// assert_eq!(code, TypeCode::Int);
/// assert_eq!((code.size(), code.c_name(), code.rust_type()), (4, "int", "i32"));
/// assert_eq!(char::from(code), 'i');
/// assert_eq!("q".parse::<TypeCode>()?, TypeCode::Long);
/// assert_eq!(TypeCode::of::<f64>(), Some(TypeCode::Double));
/// assert!(TypeCode::try_from('x').unwrap_err().to_string().contains("known are b B h H"));
/// # Ok::<(), polyproc_value::UnknownTypeCode>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TypeCode {
    /// `b`: `i8`.
    SignedChar,
    /// `B`: `u8`.
    UnsignedChar,
    /// `h`: `i16`.
    Short,
    /// `H`: `u16`.
    UnsignedShort,
    /// `i`: `i32`.
    Int,
    /// `I`: `u32`.
    UnsignedInt,
    /// `l`: `i64`.
    Long,
    /// `L`: `u64`.
    UnsignedLong,
    /// `f`: `f32`.
    Float,
    /// `d`: `f64`.
    Double,
}

impl TypeCode {
    /// All of them.
    pub const ALL: [TypeCode; 10] = [
        TypeCode::SignedChar,
        TypeCode::UnsignedChar,
        TypeCode::Short,
        TypeCode::UnsignedShort,
        TypeCode::Int,
        TypeCode::UnsignedInt,
        TypeCode::Long,
        TypeCode::UnsignedLong,
        TypeCode::Float,
        TypeCode::Double,
    ];

    /// The code of a Rust type, if it has one.
    #[inline]
    pub fn of<T: 'static>() -> Option<TypeCode> {
        let id = TypeId::of::<T>();
        TypeCode::ALL.into_iter().find(|code| code.id() == id)
    }

    fn id(self) -> TypeId {
        match self {
            TypeCode::SignedChar => TypeId::of::<c_schar>(),
            TypeCode::UnsignedChar => TypeId::of::<c_uchar>(),
            TypeCode::Short => TypeId::of::<c_short>(),
            TypeCode::UnsignedShort => TypeId::of::<c_ushort>(),
            TypeCode::Int => TypeId::of::<c_int>(),
            TypeCode::UnsignedInt => TypeId::of::<c_uint>(),
            TypeCode::Long => TypeId::of::<c_long>(),
            TypeCode::UnsignedLong => TypeId::of::<c_ulong>(),
            TypeCode::Float => TypeId::of::<f32>(),
            TypeCode::Double => TypeId::of::<f64>(),
        }
    }

    /// The bytes that one number takes.
    pub const fn size(self) -> usize {
        match self {
            TypeCode::SignedChar | TypeCode::UnsignedChar => 1,
            TypeCode::Short | TypeCode::UnsignedShort => 2,
            TypeCode::Int | TypeCode::UnsignedInt | TypeCode::Float => 4,
            TypeCode::Long | TypeCode::UnsignedLong | TypeCode::Double => 8,
        }
    }

    /// Its name in C.
    pub const fn c_name(self) -> &'static str {
        match self {
            TypeCode::SignedChar => "signed char",
            TypeCode::UnsignedChar => "unsigned char",
            TypeCode::Short => "short",
            TypeCode::UnsignedShort => "unsigned short",
            TypeCode::Int => "int",
            TypeCode::UnsignedInt => "unsigned int",
            TypeCode::Long => "long",
            TypeCode::UnsignedLong => "unsigned long",
            TypeCode::Float => "float",
            TypeCode::Double => "double",
        }
    }

    /// Its name in Rust.
    pub const fn rust_type(self) -> &'static str {
        match self {
            TypeCode::SignedChar => "i8",
            TypeCode::UnsignedChar => "u8",
            TypeCode::Short => "i16",
            TypeCode::UnsignedShort => "u16",
            TypeCode::Int => "i32",
            TypeCode::UnsignedInt => "u32",
            TypeCode::Long => "i64",
            TypeCode::UnsignedLong => "u64",
            TypeCode::Float => "f32",
            TypeCode::Double => "f64",
        }
    }

    /// The character.
    pub const fn to_char(self) -> char {
        match self {
            TypeCode::SignedChar => 'b',
            TypeCode::UnsignedChar => 'B',
            TypeCode::Short => 'h',
            TypeCode::UnsignedShort => 'H',
            TypeCode::Int => 'i',
            TypeCode::UnsignedInt => 'I',
            TypeCode::Long => 'l',
            TypeCode::UnsignedLong => 'L',
            TypeCode::Float => 'f',
            TypeCode::Double => 'd',
        }
    }

    /// Whether it is a type of floating point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, TypeCode::Float | TypeCode::Double)
    }
}

/// The code in the header of an object with elements of type `T`: 0 for none.
pub(crate) fn header_code<T: 'static>() -> u8 {
    TypeCode::of::<T>().map_or(0, |code| code.to_char() as u8)
}

impl From<TypeCode> for char {
    fn from(code: TypeCode) -> char {
        code.to_char()
    }
}

impl TryFrom<char> for TypeCode {
    type Error = UnknownTypeCode;

    fn try_from(code: char) -> Result<TypeCode, UnknownTypeCode> {
        let short = match code {
            'q' => 'l',
            'Q' => 'L',
            other => other,
        };
        let known = TypeCode::ALL.into_iter().find(|known| known.to_char() == short);
        known.ok_or(UnknownTypeCode(code.to_string()))
    }
}

impl FromStr for TypeCode {
    type Err = UnknownTypeCode;

    fn from_str(code: &str) -> Result<TypeCode, UnknownTypeCode> {
        let mut characters = code.chars();
        match (characters.next(), characters.next()) {
            (Some(only), None) => TypeCode::try_from(only),
            _ => Err(UnknownTypeCode(code.to_owned())),
        }
    }
}

/// The character; with `{:#}`, what it stands for: `int, i32`.
impl fmt::Display for TypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return write!(f, "{}, {}", self.c_name(), self.rust_type());
        }
        self.to_char().fmt(f)
    }
}

/// As the character.
impl Serialize for TypeCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_char(self.to_char())
    }
}

impl<'de> Deserialize<'de> for TypeCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TypeCode, D::Error> {
        TypeCode::try_from(char::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A character, or a string, that is no type code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTypeCode(pub String);

impl fmt::Display for UnknownTypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown type code '{}': known are", self.0.escape_debug())?;
        TypeCode::ALL.iter().try_for_each(|code| write!(f, " {code}"))?;
        f.write_str(", and q Q for the 64-bit types")
    }
}

impl Error for UnknownTypeCode {}
