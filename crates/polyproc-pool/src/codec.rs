//! The bytes of a value between two processes of one program: numbers as they lie in memory.
//!
//! Both ends are the same program on the same machine, so nothing has to be said of types, widths or byte order, and a
//! number is one store and one load. A compact format takes a loop for each: with postcard that was half of the time of a
//! `map` over numbers.
//!
//! | what | bytes |
//! |---|---|
//! | a number, a `char` | as in memory |
//! | a `bool` | 0 or 1 |
//! | text, bytes, a sequence, a map | how many, then each |
//! | an `Option` | 0; or 1 and the value |
//! | an enum | the variant's number, then what is in it |
//! | a struct, a tuple | its fields |
//! | how many, which variant | a byte; or 255 and eight |
//!
//! As with other formats of this kind, types that want to be asked what comes (`deserialize_any`) cannot be read.

mod read;
mod write;

use std::any::Any;
use std::fmt;

pub(crate) use read::Reader;
pub(crate) use write::{Room, Sink, Writer};

/// Numbers up to here take a byte.
const SHORT: u8 = 254;
/// In front of one that takes eight.
const WIDE: u8 = 255;

/// Why a value cannot be written or read.
#[derive(Debug)]
pub(crate) struct Error(Box<Cause>);

#[derive(Debug)]
enum Cause {
    /// What the value itself said.
    Said(String),
    /// The bytes end too early.
    Short,
    /// There is no room for it.
    Full,
    /// Here is something else than there should be.
    Wrong(&'static str),
}

impl Error {
    #[cold]
    fn of(cause: Cause) -> Error {
        Error(Box::new(cause))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Cause::Said(text) => f.write_str(text),
            Cause::Short => f.write_str("its bytes end too early"),
            Cause::Full => f.write_str("there is no room for it"),
            Cause::Wrong(what) => write!(f, "its bytes have no {what} where one should be"),
        }
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Error {
        Error::of(Cause::Said(text.to_string()))
    }
}

impl serde::de::Error for Error {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Error {
        Error::of(Cause::Said(text.to_string()))
    }
}

/// Calls a macro with each type of which a vector is its bytes, besides bytes.
macro_rules! plain {
    ($call:ident) => {
        $call!(i8, u16, i16, u32, i32, f32, u64, i64, f64, usize, isize);
    };
}

/// Writes a value. serde takes a vector element by element; one of numbers is written at once, as the same bytes.
#[inline(always)]
pub(crate) fn write<T: serde::Serialize + 'static>(value: &T, sink: &mut impl Sink) -> Result<(), Error> {
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Vec<u8>>() {
        return serde::Serializer::serialize_bytes(Writer(sink), bytes);
    }
    macro_rules! vectors {
        ($($number:ty),*) => {
            $(if let Some(numbers) = (value as &dyn Any).downcast_ref::<Vec<$number>>() {
                write::count(sink, numbers.len() as u64)?;
                return sink.put(bytemuck::cast_slice(numbers));
            })*
        };
    }
    plain!(vectors);
    value.serialize(Writer(sink))
}

/// Reads a value, and nothing but that may be there.
#[inline(always)]
pub(crate) fn read<T: serde::de::DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = Reader(bytes);
    let mut value: Option<T> = None;
    if let Some(bytes) = (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>() {
        *bytes = Some(reader.counted()?.to_vec());
    }
    macro_rules! vectors {
        ($($number:ty),*) => {
            $(if let Some(numbers) = (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<$number>>>() {
                *numbers = Some(reader.numbers()?);
            })*
        };
    }
    plain!(vectors);
    let value = match value {
        Some(value) => value,
        None => T::deserialize(&mut reader)?,
    };
    match reader.0.len() {
        0 => Ok(value),
        left => Err(left_over(left)),
    }
}

#[cold]
fn left_over(left: usize) -> Error {
    serde::de::Error::custom(format_args!("{left} bytes are left over"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize, Serializer};
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    fn bytes_of<T: Serialize + 'static>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(value, &mut bytes).unwrap();
        bytes
    }

    /// Is the same after the way there and back, and is refused when any byte is missing or there is one more.
    fn passes<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: T) {
        let mut bytes = bytes_of(&value);
        assert_eq!(read::<T>(&bytes).unwrap(), value);
        let mut place = vec![9; bytes.len()];
        let mut room = Room::new(&mut place);
        write(&value, &mut room).unwrap();
        assert_eq!(room.used(), bytes.len());
        assert_eq!(place, bytes, "in lent memory");
        for length in 0..bytes.len() {
            assert!(read::<T>(&bytes[..length]).is_err(), "{value:?} of {length} bytes");
            assert!(write(&value, &mut Room::new(&mut place[..length])).is_err());
        }
        bytes.push(0);
        assert!(read::<T>(&bytes).is_err(), "{value:?} and a byte more");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(f64),
        Box(u8, i16),
        Named { name: String, tags: Vec<Option<char>> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(u128);

    #[test]
    fn values_of_all_kinds_pass() {
        passes(());
        passes(Unit);
        passes(Wrapped(u128::MAX - 5));
        passes((true, false, i8::MIN, u16::MAX, -7i32, u64::MAX, i128::MIN));
        passes((1.5f32, f64::MIN_POSITIVE, 'ß', '\u{10ffff}'));
        passes((usize::MAX, isize::MIN));
        passes("text, über".to_owned());
        passes("long".repeat(100));
        passes(vec![Shape::Point, Shape::Circle(2.5), Shape::Box(1, -2)]);
        passes(Shape::Named { name: "x".into(), tags: vec![None, Some('y')] });
        passes(BTreeMap::from([("a".to_owned(), vec![1u8]), ("b".to_owned(), vec![])]));
        passes(Some(Some(Vec::<Unit>::new())));
        passes([Some(3u8), None, Some(4)]);
        passes(Ok::<u8, String>(3));
    }

    /// By itself at once, inside of something one by one.
    #[test]
    fn vectors_of_numbers_are_the_same_bytes_either_way() {
        for length in [0usize, 1, 253, 254, 255, 256, 1000] {
            let numbers: Vec<u32> = (0..length as u32).map(|n| n * 77_777).collect();
            let bytes: Vec<u8> = numbers.iter().map(|n| *n as u8).collect();
            assert_eq!(bytes_of(&numbers), bytes_of(&(numbers.clone(),)));
            assert_eq!(bytes_of(&bytes), bytes_of(&(bytes.clone(),)));
            assert_eq!(read::<(Vec<u32>,)>(&bytes_of(&numbers)).unwrap().0, numbers);
            assert_eq!(read::<Vec<u32>>(&bytes_of(&(numbers.clone(),))).unwrap(), numbers);
            if length < 300 {
                passes(numbers);
                passes(bytes.clone());
                passes((7u8, bytes));
            }
        }
        assert_eq!(bytes_of(&vec![1u8; 254]).len(), 255);
        assert_eq!(bytes_of(&vec![1u8; 255]).len(), 264);
    }

    #[test]
    fn a_sequence_need_not_know_its_length() {
        struct Unknown(u64);
        impl Serialize for Unknown {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq;
                let mut sequence = serializer.serialize_seq(None)?;
                (0..self.0).try_for_each(|n| sequence.serialize_element(&n))?;
                sequence.end()
            }
        }
        for length in [0, 1, 500] {
            assert_eq!(read::<Vec<u64>>(&bytes_of(&Unknown(length))).unwrap(), Vec::from_iter(0..length));
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert!(read::<bool>(&[2]).is_err());
        assert!(read::<Option<()>>(&[2]).is_err());
        assert!(read::<char>(&0xd800u32.to_ne_bytes()).is_err());
        assert!(read::<String>(&[1, 0xff]).is_err());
        assert!(read::<Shape>(&[7]).is_err());
        assert!(read::<Vec<u8>>(&[WIDE; 9]).is_err(), "longer than memory");
        assert!(read::<Vec<u64>>(&[[WIDE; 1].as_slice(), &(u64::MAX / 8).to_ne_bytes()].concat()).is_err());
        assert!(read::<(Vec<String>,)>(&[WIDE; 9]).is_err());
        let error = read::<u8>(&[1, 2, 3]).unwrap_err();
        assert_eq!(error.to_string(), "2 bytes are left over");
    }
}
