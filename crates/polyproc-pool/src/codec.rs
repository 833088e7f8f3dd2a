//! The bytes of a value between two processes of one program: numbers as they lie in memory.
//!
//! Both ends are the same program on the same machine, so nothing has to be said of types, widths or byte
//! order, and a number is one store and one load. A compact format takes a loop for each: with postcard that
//! was half of the time of a `map` over numbers.
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
//! As with other formats of this kind, types that want to be told what comes (`deserialize_any`) cannot be
//! read, and those that leave out a field now and then (`skip_serializing_if`) cannot be written. Both are
//! told so. A variant that serde is to skip has to be the last: serde counts it on one way, and not on the
//! other, which cannot be seen here.

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

/// Writes a value. serde takes a vector element by element; one of numbers is written at once, as the same
/// bytes.
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
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize, Serializer};
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    fn bytes_of<T: Serialize + 'static>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(value, &mut bytes).unwrap();
        bytes
    }

    /// Is the same after the way there and back, and is refused when any byte is missing or there is one
    /// more.
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

    /// Who leaves something out, or wants to be told what comes, hears of it: nothing else is read in its
    /// place.
    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        fn refused<T: Serialize + DeserializeOwned + Debug + 'static>(value: T, why: &str) {
            let mut bytes = Vec::new();
            let error = match write(&value, &mut bytes) {
                Ok(()) => read::<(T, u64)>(&[&bytes[..], &[0; 8]].concat()).unwrap_err(),
                Err(error) => error,
            };
            assert!(error.to_string().contains(why), "{value:?}: {error}");
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Sparse {
            #[serde(skip_serializing_if = "Option::is_none")]
            first: Option<u8>,
            second: u8,
        }
        #[derive(Debug, Serialize, Deserialize)]
        enum SparseToo {
            One {
                #[serde(skip_serializing_if = "Option::is_none", default)]
                first: Option<u8>,
            },
        }
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Number(u8),
        }
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            Number { n: u8 },
        }
        #[derive(Debug, Serialize, Deserialize)]
        struct Flat {
            #[serde(flatten)]
            map: BTreeMap<String, u8>,
        }
        refused(Sparse { first: None, second: 1 }, "leaves out `first`");
        refused(SparseToo::One { first: None }, "leaves out `first`");
        refused(Untagged::Number(1), "told what comes");
        refused(Tagged::Number { n: 1 }, "told what comes");
        refused(Flat { map: BTreeMap::from([("a".into(), 1)]) }, "told what comes");
        let there = bytes_of(&Sparse { first: Some(2), second: 1 });
        assert!(matches!(read(&there), Ok(Sparse { first: Some(2), second: 1 })));
    }

    #[test]
    fn elements_that_nobody_wants_are_refused() {
        /// The first two of a sequence, or of a map.
        #[derive(Debug)]
        struct Two<const IS_MAP: bool>;
        impl<'de, const IS_MAP: bool> Deserialize<'de> for Two<IS_MAP> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = ();
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("two")
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut two: A) -> Result<(), A::Error> {
                        (0..2).try_for_each(|_| two.next_element::<u8>().map(drop))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut two: A) -> Result<(), A::Error> {
                        (0..2).try_for_each(|_| two.next_entry::<u8, u8>().map(drop))
                    }
                }
                match IS_MAP {
                    true => deserializer.deserialize_map(Visitor)?,
                    false => deserializer.deserialize_seq(Visitor)?,
                }
                Ok(Two)
            }
        }
        for (count, is_right) in [(1, true), (2, true), (3, false)] {
            let elements: Vec<u8> = (0..count).collect();
            let map: BTreeMap<u8, u8> = (0..count).map(|n| (n, n)).collect();
            let (elements, map) = (bytes_of(&(elements, 7u8)), bytes_of(&(map, 7u8)));
            assert_eq!(read::<(Two<false>, u8)>(&elements).is_ok(), is_right);
            assert_eq!(read::<(Two<true>, u8)>(&map).is_ok(), is_right);
            // What is behind them is all that is there otherwise, and would be read as them.
            let error = |error: Error| error.to_string().contains("nobody wants");
            assert!(read::<(Two<false>, [u8; 2])>(&elements).is_err_and(error) != is_right);
        }
    }

    /// A value of any shape. What its name says lies in it, and more of them.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Any {
        Nothing,
        Numbers(i8, u16, i64, u128, bool),
        Floats {
            short: [u8; 4],
            long: u64,
        },
        Text(String, char),
        Bytes(Vec<u8>),
        Wide(Vec<i128>),
        Perhaps(Option<Option<Box<Any>>>),
        Units(Vec<()>, Option<()>),
        Row(Vec<Any>),
        Map(BTreeMap<String, Any>),
        Nested(Vec<Vec<u8>>, Vec<Vec<f64>>),
        Result(Result<Box<Any>, String>),
        Twelve((u8, u16, u32, u64, i8, i16, i32, i64, bool, char, (), String)),
        Skipping {
            before: u8,
            #[serde(skip)]
            skipped: u64,
            #[serde(alias = "behind", alias = "later")]
            after: u16,
        },
    }

    fn any_value() -> impl Strategy<Value = Any> {
        let text = || any::<String>();
        let leaf = prop_oneof![
            Just(Any::Nothing),
            any::<(i8, u16, i64, u128, bool)>().prop_map(|(a, b, c, d, e)| Any::Numbers(a, b, c, d, e)),
            any::<([u8; 4], u64)>().prop_map(|(short, long)| Any::Floats { short, long }),
            (text(), any::<char>()).prop_map(|(text, char)| Any::Text(text, char)),
            vec(any::<u8>(), 0..600).prop_map(Any::Bytes),
            vec(any::<i128>(), 0..4).prop_map(Any::Wide),
            (0..300usize, any::<bool>()).prop_map(|(n, is)| Any::Units(vec![(); n], is.then_some(()))),
            (vec(vec(any::<u8>(), 0..9), 0..9), vec(vec(-1e300..1e300f64, 0..9), 0..9))
                .prop_map(|(bytes, floats)| Any::Nested(bytes, floats)),
            (any::<(u8, u16, u32, u64, i8, i16, i32, i64, bool, char)>(), text()).prop_map(|(n, text)| {
                Any::Twelve((n.0, n.1, n.2, n.3, n.4, n.5, n.6, n.7, n.8, n.9, (), text))
            }),
            any::<(u8, u16)>().prop_map(|(before, after)| Any::Skipping { before, skipped: 0, after }),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Any::Row),
                btree_map(text(), inner.clone(), 0..6).prop_map(Any::Map),
                option::of(option::of(inner.clone().prop_map(Box::new))).prop_map(Any::Perhaps),
                inner.prop_map(|any| Any::Result(Ok(Box::new(any)))),
                text().prop_map(|text| Any::Result(Err(text))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_written_is_read(values in (any_value(), any_value(), vec(any_value(), 0..3))) {
            let bytes = bytes_of(&values);
            prop_assert_eq!(&read::<(Any, Any, Vec<Any>)>(&bytes).unwrap(), &values);
            let mut place = vec![9; bytes.len() + 3];
            let mut room = Room::new(&mut place);
            write(&values, &mut room).unwrap();
            prop_assert_eq!(room.used(), bytes.len());
            prop_assert_eq!(&place[..bytes.len()], &bytes[..]);
            prop_assert_eq!(&place[bytes.len()..], &[9; 3]);
            for length in [bytes.len() - 1, bytes.len() / 2, 0] {
                prop_assert!(read::<(Any, Any, Vec<Any>)>(&bytes[..length]).is_err());
                prop_assert!(write(&values, &mut Room::new(&mut place[..length])).is_err());
            }
        }

        /// No bytes make it panic, and it sets aside no more memory than they could fill.
        #[test]
        fn whatever_is_read_is_a_value_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(value) = read::<(String, Vec<(u8, String)>, Option<i128>)>(&bytes) {
                prop_assert_eq!(read::<(String, Vec<(u8, String)>, Option<i128>)>(&bytes_of(&value)).unwrap(), value);
            }
            let _ = read::<BTreeMap<u16, Vec<u32>>>(&bytes);
            let _ = read::<(Vec<f64>, Vec<char>)>(&bytes);
            let _ = read::<Vec<Shape>>(&bytes);
            let _ = read::<Vec<u64>>(&bytes);
        }

        #[test]
        fn floats_keep_their_bits(bits in any::<(u32, u64)>(), nan in any::<u32>()) {
            for short in [bits.0, nan | 0x7f80_0000] {
                let floats = (f32::from_bits(short), f64::from_bits(bits.1));
                let (a, b) = read::<(f32, f64)>(&bytes_of(&floats)).unwrap();
                prop_assert_eq!((a.to_bits(), b.to_bits()), (short, bits.1));
                let row = read::<Vec<f32>>(&bytes_of(&vec![floats.0])).unwrap();
                prop_assert_eq!(row[0].to_bits(), short);
            }
        }
    }
}
