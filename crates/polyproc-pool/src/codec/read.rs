//! From bytes to a value.

use super::{Cause, Error, SHORT};
use bytemuck::Pod;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};

/// Takes values off the front of these bytes.
pub(crate) struct Reader<'de>(pub(crate) &'de [u8]);

impl<'de> Reader<'de> {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((bytes, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(Error::of(Cause::Short));
        };
        self.0 = rest;
        Ok(*bytes)
    }

    /// How many, or which.
    #[inline(always)]
    fn count(&mut self) -> Result<u64, Error> {
        match self.take::<1>()? {
            [short] if short <= SHORT => Ok(u64::from(short)),
            _ => Ok(u64::from_ne_bytes(self.take()?)),
        }
    }

    #[inline(always)]
    fn bytes(&mut self, count: usize) -> Result<&'de [u8], Error> {
        let Some((bytes, rest)) = self.0.split_at_checked(count) else { return Err(Error::of(Cause::Short)) };
        self.0 = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn counted(&mut self) -> Result<&'de [u8], Error> {
        let count = self.count()?;
        self.bytes(usize::try_from(count).map_err(|_| Error::of(Cause::Short))?)
    }

    /// A vector of numbers.
    #[inline]
    pub(super) fn numbers<N: Pod>(&mut self) -> Result<Vec<N>, Error> {
        let count = self.count()?;
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<N>()));
        let bytes = self.bytes(length.ok_or_else(|| Error::of(Cause::Short))?)?;
        Ok(bytes.chunks_exact(size_of::<N>()).map(bytemuck::pod_read_unaligned).collect())
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Error> {
        std::str::from_utf8(self.counted()?).map_err(|_| Error::of(Cause::Wrong("text")))
    }

    #[cold]
    fn ask<T>() -> Result<T, Error> {
        Err(de::Error::custom("a type that wants to be told what comes cannot be sent"))
    }
}

macro_rules! numbers {
    ($($name:ident $visit:ident: $type:ty),*) => {
        $(#[inline(always)]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(<$type>::from_ne_bytes(self.take()?))
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    numbers!(
        deserialize_i8 visit_i8: i8, deserialize_i16 visit_i16: i16, deserialize_i32 visit_i32: i32,
        deserialize_i64 visit_i64: i64, deserialize_i128 visit_i128: i128,
        deserialize_u8 visit_u8: u8, deserialize_u16 visit_u16: u16, deserialize_u32 visit_u32: u32,
        deserialize_u64 visit_u64: u64, deserialize_u128 visit_u128: u128,
        deserialize_f32 visit_f32: f32, deserialize_f64 visit_f64: f64
    );

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Reader::ask()
    }

    #[inline(always)]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            [0] => visitor.visit_bool(false),
            [1] => visitor.visit_bool(true),
            [_] => Err(Error::of(Cause::Wrong("bool"))),
        }
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match char::from_u32(u32::from_ne_bytes(self.take()?)) {
            Some(char) => visitor.visit_char(char),
            None => Err(Error::of(Cause::Wrong("char"))),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.counted()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.counted()?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            [0] => visitor.visit_none(),
            [1] => visitor.visit_some(self),
            [_] => Err(Error::of(Cause::Wrong("option"))),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.count()?;
        let mut elements = Elements { reader: self, left };
        let value = visitor.visit_seq(&mut elements)?;
        elements.end().map(|()| value)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements { reader: self, left: length as u64 })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.count()?;
        let mut elements = Elements { reader: self, left };
        let value = visitor.visit_map(&mut elements)?;
        elements.end().map(|()| value)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Reader::ask()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Reader::ask()
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// So many elements, or pairs of a key and a value.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u64,
}

impl Elements<'_, '_> {
    /// Those that are left would be read as what comes next.
    #[inline(always)]
    fn end(&self) -> Result<(), Error> {
        match self.left {
            0 => Ok(()),
            left => Err(unwanted(left)),
        }
    }

    /// No more than there are bytes, whatever was said.
    fn hint(&self) -> Option<usize> {
        Some(usize::try_from(self.left).map_or(self.reader.0.len(), |left| left.min(self.reader.0.len())))
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    #[inline(always)]
    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    #[inline]
    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::EnumAccess<'de> for &mut Reader<'de> {
    type Error = Error;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: de::DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let variant = u32::try_from(self.count()?).map_err(|_| Error::of(Cause::Wrong("variant")))?;
        let variant: de::value::U32Deserializer<Error> = variant.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Reader<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

#[cold]
fn unwanted(left: u64) -> Error {
    de::Error::custom(format_args!("{left} elements are there that nobody wants"))
}
