//! Arguments and results as bytes, many in a row: each behind a word that says how long it is, and what.
//!
//! So one that cannot be read is the error of that one, and the next is found.

use polyproc_memory::handover::{self, Descriptor};
use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// An argument, or what the function returned.
    Value = 0,
    /// The function panicked: a `Panic`.
    Panicked = 1,
    /// The worker could not read the argument: why.
    Unreadable = 2,
    /// The worker could not send what the function returned: why.
    Unsendable = 3,
}

const LENGTH_BITS: u32 = 30;
const LENGTH_MAX: usize = (1 << LENGTH_BITS) - 1;
/// The longest item: with what is sent in front of it, it is still a message.
const ITEM_MAX: usize = LENGTH_MAX - (64 << 10);
/// The size of the word.
const WORD: usize = 4;

/// Appends to a vector, which stays whose it is, also after an error.
struct Tail<'a>(&'a mut Vec<u8>);

impl Flavor for Tail<'_> {
    type Output = ();

    #[inline(always)]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline(always)]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Most are the few bytes of a number, for which a call of `memcpy` costs more than the copy.
        match bytes.len() {
            0..4 => bytes.iter().for_each(|byte| self.0.push(*byte)),
            4..=8 => self.extend_short::<4, 8>(bytes),
            9..=16 => self.extend_short::<8, 16>(bytes),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Tail<'_> {
    /// Appends from `N` to twice as many bytes, `TWICE`: the first so many, and the last, which may be the same.
    #[inline(always)]
    fn extend_short<const N: usize, const TWICE: usize>(&mut self, bytes: &[u8]) {
        if let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) {
            let (start, end) = (self.0.len(), self.0.len() + bytes.len());
            self.0.extend_from_slice(&[0; TWICE]);
            self.0[start..start + N].copy_from_slice(first);
            self.0[end - N..end].copy_from_slice(last);
            self.0.truncate(end);
        }
    }
}

#[inline]
fn append_plain<T: Serialize>(buffer: &mut Vec<u8>, tag: Tag, value: &T) -> postcard::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; WORD]);
    let result = postcard::serialize_with_flavor(value, Tail(buffer));
    let length = buffer.len() - start - WORD;
    if result.is_err() || length > ITEM_MAX {
        buffer.truncate(start);
        return result.and(Err(postcard::Error::SerializeBufferFull));
    }
    let word = length as u32 | (tag as u32) << LENGTH_BITS;
    buffer[start..start + WORD].copy_from_slice(&word.to_le_bytes());
    Ok(())
}

/// What became of a value that was to be appended.
#[must_use]
pub(crate) enum Appended {
    /// It is there, and has no handles in it.
    Plain,
    /// It is there, and these descriptors belong to it.
    Handles(Vec<Descriptor>),
    /// It is not, for this reason, and the buffer is as it was.
    Not(String),
}

/// Appends a value.
#[inline]
pub(crate) fn append<T: Serialize>(buffer: &mut Vec<u8>, tag: Tag, value: &T) -> Appended {
    match append_plain(buffer, tag, value) {
        Ok(()) => Appended::Plain,
        Err(error) => append_handles(buffer, tag, value, error),
    }
}

/// Most values have no handles in them, and need no hand-over. This one has, or cannot be serialised at all.
#[cold]
fn append_handles<T: Serialize>(
    buffer: &mut Vec<u8>,
    tag: Tag,
    value: &T,
    error: postcard::Error,
) -> Appended {
    if handover::take_failure().is_none() {
        return Appended::Not(explain(error));
    }
    match handover::send(|| append_plain(buffer, tag, value)) {
        (Ok(()), descriptors) => Appended::Handles(descriptors),
        (Err(error), _) => Appended::Not(explain(error)),
    }
}

/// Appends a text, which can always be done.
#[cold]
pub(crate) fn append_text(buffer: &mut Vec<u8>, tag: Tag, text: &str) {
    let _ = append_plain(buffer, tag, &text);
}

/// What the last handle said, or the format.
#[cold]
fn explain(error: postcard::Error) -> String {
    match error {
        postcard::Error::SerializeBufferFull => format!("it is longer than {ITEM_MAX} bytes"),
        error => handover::take_failure().map_or_else(|| error.to_string(), |failure| failure.to_string()),
    }
}

/// Splits off the next item.
#[inline]
pub(crate) fn next<'a>(bytes: &mut &'a [u8]) -> Option<(Tag, &'a [u8])> {
    let (word, rest) = bytes.split_first_chunk::<WORD>()?;
    let word = u32::from_le_bytes(*word);
    let (item, rest) = rest.split_at_checked(word as usize & LENGTH_MAX)?;
    *bytes = rest;
    let tag = match word >> LENGTH_BITS {
        0 => Tag::Value,
        1 => Tag::Panicked,
        2 => Tag::Unreadable,
        _ => Tag::Unsendable,
    };
    Some((tag, item))
}

/// How many bytes the first so many items take.
pub(crate) fn length_of(bytes: &[u8], count: usize) -> Option<usize> {
    let mut rest = bytes;
    for _ in 0..count {
        next(&mut rest)?;
    }
    Some(bytes.len() - rest.len())
}

/// How many items, at least one and at most `most` of the `count` that there are, take no more than `limit` bytes, and how
/// many bytes they take.
pub(crate) fn fit(bytes: &[u8], count: usize, most: usize, limit: usize) -> (usize, usize) {
    if count <= most && bytes.len() <= limit {
        return (count, bytes.len());
    }
    let (mut fitting, mut length, mut rest) = (0, 0, bytes);
    while fitting < most.min(count) && next(&mut rest).is_some() {
        let reached = bytes.len() - rest.len();
        if fitting > 0 && reached > limit {
            break;
        }
        (fitting, length) = (fitting + 1, reached);
    }
    (fitting, length)
}

/// Reads a value. The error says why there is none.
#[inline]
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(left_over(rest)),
        Err(error) => Err(explain(error)),
    }
}

/// [`read`], of a value with these descriptors.
pub(crate) fn read_with<T: DeserializeOwned>(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<T, String> {
    handover::receive(descriptors, || read(bytes))
}

#[cold]
fn left_over(rest: &[u8]) -> String {
    format!("{} bytes are left over", rest.len())
}

/// A value that was serialised once, for any number of processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<Descriptor>,
}

impl Parcel {
    pub(crate) fn new<T: Serialize>(value: &T) -> Result<Parcel, String> {
        let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(value));
        Ok(Parcel { bytes: bytes.map_err(explain)?, descriptors })
    }
}

/// As it lies in a message: the descriptors' numbers there.
#[derive(Serialize, Deserialize)]
struct Packed(Vec<u8>, Vec<u32>);

impl Serialize for Parcel {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attach = |descriptor: &Descriptor| handover::attach(descriptor.clone());
        let numbers: Option<Vec<u32>> = self.descriptors.iter().map(attach).collect();
        let numbers = numbers.ok_or_else(|| serde::ser::Error::custom(handover::NOT_IN_HANDOVER))?;
        Packed(self.bytes.clone(), numbers).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Parcel {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Parcel, D::Error> {
        let Packed(bytes, numbers) = Packed::deserialize(deserializer)?;
        let fetch = |number| handover::descriptor(number).map(Descriptor::from);
        let descriptors: Result<Vec<_>, _> = numbers.into_iter().map(fetch).collect();
        Ok(Parcel { bytes, descriptors: descriptors.map_err(serde::de::Error::custom)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_found_one_by_one() {
        let mut bytes = Vec::new();
        assert!(matches!(append(&mut bytes, Tag::Value, &7u32), Appended::Plain));
        append_text(&mut bytes, Tag::Unreadable, "no");
        assert!(matches!(append(&mut bytes, Tag::Value, &()), Appended::Plain));
        let mut rest = &bytes[..];
        let (tag, item) = next(&mut rest).unwrap();
        assert_eq!((tag, read::<u32>(item)), (Tag::Value, Ok(7)));
        let (tag, item) = next(&mut rest).unwrap();
        assert_eq!((tag, read::<String>(item)), (Tag::Unreadable, Ok("no".into())));
        assert_eq!(next(&mut rest).unwrap(), (Tag::Value, &[][..]));
        assert_eq!(next(&mut rest), None);
        assert_eq!(length_of(&bytes, 2), Some(bytes.len() - WORD));
        assert_eq!(length_of(&bytes, 4), None);
    }

    #[test]
    fn bytes_of_all_lengths_are_appended_whole() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).collect();
            let mut buffer = vec![99];
            Tail(&mut buffer).try_extend(&bytes).unwrap();
            assert_eq!((buffer[0], &buffer[1..]), (99, &bytes[..]));
        }
    }

    #[test]
    fn what_fits_is_at_least_one() {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            assert!(matches!(append(&mut bytes, Tag::Value, &[1u8; 6]), Appended::Plain));
        }
        assert_eq!(fit(&bytes, 3, 3, 0), (1, 10));
        assert_eq!(fit(&bytes, 3, 3, 20), (2, 20));
        assert_eq!(fit(&bytes, 3, 2, 1000), (2, 20));
        assert_eq!(fit(&bytes, 3, 9, 1000), (3, 30));
    }

    #[test]
    fn what_cannot_be_serialised_leaves_no_trace() {
        struct Half;
        impl Serialize for Half {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeTuple;
                let mut tuple = serializer.serialize_tuple(2)?;
                tuple.serialize_element(&1u8)?;
                Err(serde::ser::Error::custom("only half"))
            }
        }
        let mut bytes = vec![9];
        assert!(matches!(append(&mut bytes, Tag::Value, &Half), Appended::Not(_)));
        assert_eq!(bytes, [9]);
    }

    #[test]
    fn what_is_no_value_says_why() {
        assert!(read::<u8>(&[]).is_err());
        assert_eq!(read::<u8>(&[1, 2, 3]).unwrap_err(), "2 bytes are left over");
    }
}
