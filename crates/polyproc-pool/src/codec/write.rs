//! From a value to bytes.

use super::{Cause, Error, SHORT, WIDE};
use serde::Serialize;
use serde::ser::{self, Serializer};

/// Where bytes go.
pub(crate) trait Sink {
    /// Appends these.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error>;
    /// How many there are.
    fn reached(&self) -> usize;
    /// Replaces some that are there.
    fn replace(&mut self, at: usize, bytes: [u8; 8]);
}

/// Grows as it has to.
impl Sink for Vec<u8> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn reached(&self) -> usize {
        self.len()
    }

    fn replace(&mut self, at: usize, bytes: [u8; 8]) {
        self[at..at + 8].copy_from_slice(&bytes);
    }
}

/// Memory that is lent, and does not grow.
pub(crate) struct Room<'a> {
    place: &'a mut [u8],
    used: usize,
}

impl<'a> Room<'a> {
    pub(crate) fn new(place: &'a mut [u8]) -> Room<'a> {
        Room { place, used: 0 }
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

impl Sink for Room<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let place = self.place.get_mut(self.used..).and_then(|place| place.get_mut(..bytes.len()));
        place.ok_or_else(|| Error::of(Cause::Full))?.copy_from_slice(bytes);
        self.used += bytes.len();
        Ok(())
    }

    fn reached(&self) -> usize {
        self.used
    }

    fn replace(&mut self, at: usize, bytes: [u8; 8]) {
        self.place[at..at + 8].copy_from_slice(&bytes);
    }
}

/// Writes how many, or which.
#[inline(always)]
pub(super) fn count(sink: &mut impl Sink, count: u64) -> Result<(), Error> {
    if count <= u64::from(SHORT) {
        return sink.put(&[count as u8]);
    }
    sink.put(&[WIDE])?;
    sink.put(&count.to_ne_bytes())
}

/// Writes one value.
pub(crate) struct Writer<'a, S>(pub(crate) &'a mut S);

/// Writes the elements of something.
pub(crate) struct Series<'a, S> {
    sink: &'a mut S,
    /// Where their number belongs, and how many there were, if it was not known before.
    counted: Option<(usize, u64)>,
}

impl<'a, S: Sink> Series<'a, S> {
    #[inline]
    fn begin(sink: &'a mut S, length: Option<usize>) -> Result<Series<'a, S>, Error> {
        let counted = match length {
            Some(length) => {
                count(sink, length as u64)?;
                None
            }
            None => {
                sink.put(&[WIDE; 9])?;
                Some((sink.reached() - 8, 0))
            }
        };
        Ok(Series { sink, counted })
    }

    #[inline(always)]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if let Some((_, count)) = &mut self.counted {
            *count += 1;
        }
        value.serialize(Writer(&mut *self.sink))
    }

    #[inline(always)]
    fn finish(self) -> Result<(), Error> {
        if let Some((at, count)) = self.counted {
            self.sink.replace(at, count.to_ne_bytes());
        }
        Ok(())
    }
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        $(#[inline(always)]
        fn $name(self, value: $type) -> Result<(), Error> {
            self.0.put(&value.to_ne_bytes())
        })*
    };
}

impl<'a, S: Sink> Serializer for Writer<'a, S> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Series<'a, S>;
    type SerializeTuple = Series<'a, S>;
    type SerializeTupleStruct = Series<'a, S>;
    type SerializeTupleVariant = Series<'a, S>;
    type SerializeMap = Series<'a, S>;
    type SerializeStruct = Series<'a, S>;
    type SerializeStructVariant = Series<'a, S>;

    numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64
    );

    #[inline(always)]
    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.put(&[u8::from(value)])
    }

    #[inline(always)]
    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_u32(u32::from(value))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        count(self.0, value.len() as u64)?;
        self.0.put(value)
    }

    #[inline(always)]
    fn serialize_none(self) -> Result<(), Error> {
        self.0.put(&[0])
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.0.put(&[1])?;
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline(always)]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, variant: u32, _: &'static str) -> Result<(), Error> {
        count(self.0, variant.into())
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        count(self.0, variant.into())?;
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_seq(self, length: Option<usize>) -> Result<Series<'a, S>, Error> {
        Series::begin(self.0, length)
    }

    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Series<'a, S>, Error> {
        Ok(Series { sink: self.0, counted: None })
    }

    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Series<'a, S>, Error> {
        Ok(Series { sink: self.0, counted: None })
    }

    #[inline(always)]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Series<'a, S>, Error> {
        count(self.0, variant.into())?;
        Ok(Series { sink: self.0, counted: None })
    }

    #[inline(always)]
    fn serialize_map(self, length: Option<usize>) -> Result<Series<'a, S>, Error> {
        Series::begin(self.0, length)
    }

    #[inline(always)]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Series<'a, S>, Error> {
        Ok(Series { sink: self.0, counted: None })
    }

    #[inline(always)]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Series<'a, S>, Error> {
        count(self.0, variant.into())?;
        Ok(Series { sink: self.0, counted: None })
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! series {
    ($($kind:ident :: $add:ident),*) => {
        $(impl<S: Sink> ser::$kind for Series<'_, S> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn $add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.add(value)
            }

            #[inline(always)]
            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        })*
    };
}

series!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! named {
    ($($kind:ident),*) => {
        $(impl<S: Sink> ser::$kind for Series<'_, S> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Error> {
                self.add(value)
            }

            /// What is behind it would be read in its place.
            #[cold]
            fn skip_field(&mut self, field: &'static str) -> Result<(), Error> {
                Err(ser::Error::custom(format_args!("a type that leaves out `{field}` now and then cannot be sent")))
            }

            #[inline(always)]
            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        })*
    };
}

named!(SerializeStruct, SerializeStructVariant);

impl<S: Sink> ser::SerializeMap for Series<'_, S> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.add(key)
    }

    /// Belongs to its key, and is not counted.
    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer(&mut *self.sink))
    }

    #[inline(always)]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}
