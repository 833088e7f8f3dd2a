//! Arguments and results as bytes, many in a row: each behind a head that says how long it is, and what.
//!
//! So one that cannot be read is the error of that one, and the next is found.
//!
//! | head | |
//! |---|---|
//! | a byte up to 251 | a value of so many bytes |
//! | 252 and a tag; four bytes | what the tag says, of so many bytes |

use crate::codec::{self, Error, Room};
use polyproc_memory::handover::{self, Descriptor};
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

/// The longest value with a head of one byte.
const SHORT: usize = 251;
/// In front of all others, with the tag added.
const LONG: u8 = 252;
/// The size of their heads.
const LONG_HEAD: usize = 5;
/// The longest item: with what is sent in front of it, it is still a message.
const ITEM_MAX: usize = (1 << 30) - 1 - (64 << 10);

/// The longer head.
fn long_head(tag: Tag, length: usize) -> [u8; LONG_HEAD] {
    let [a, b, c, d] = (length as u32).to_le_bytes();
    [LONG + tag as u8, a, b, c, d]
}

#[inline(always)]
fn append_plain<T: Serialize + 'static>(buffer: &mut Vec<u8>, tag: Tag, value: &T) -> Result<(), Error> {
    let start = buffer.len();
    buffer.push(0);
    let result = codec::write(value, buffer);
    let length = buffer.len() - start - 1;
    if result.is_ok() && length <= SHORT && tag == Tag::Value {
        buffer[start] = length as u8;
        return Ok(());
    }
    lengthen(buffer, start, tag, result)
}

/// Puts the longer head in place of the byte that is there; after an error the buffer is as it was.
#[cold]
#[inline(never)]
fn lengthen(buffer: &mut Vec<u8>, start: usize, tag: Tag, result: Result<(), Error>) -> Result<(), Error> {
    let length = buffer.len() - start - 1;
    if let Err(error) = result.and_then(|()| check_length(length)) {
        buffer.truncate(start);
        return Err(error);
    }
    buffer.splice(start..=start, long_head(tag, length));
    Ok(())
}

fn check_length(length: usize) -> Result<(), Error> {
    match length {
        0..=ITEM_MAX => Ok(()),
        _ => Err(serde::ser::Error::custom(format_args!("it is longer than {ITEM_MAX} bytes"))),
    }
}

/// Puts a value into memory that is there: how many bytes it takes. `None` if it does not fit, has handles in
/// it, or cannot be written: then it is to be [appended](append) elsewhere, which says why.
#[inline(always)]
pub(crate) fn put<T: Serialize + 'static>(place: &mut [u8], value: &T) -> Option<usize> {
    let (head, body) = place.split_first_mut()?;
    let mut room = Room::new(body);
    let result = codec::write(value, &mut room);
    let length = room.used();
    if result.is_ok() && length <= SHORT {
        *head = length as u8;
        return Some(1 + length);
    }
    put_otherwise(place, length, result)
}

/// Puts the longer head in front of a value, if there is room.
#[cold]
#[inline(never)]
fn put_otherwise(place: &mut [u8], length: usize, result: Result<(), Error>) -> Option<usize> {
    if result.and_then(|()| check_length(length)).is_err() {
        // Whoever appends it hears of it again.
        let _ = handover::take_failure();
        return None;
    }
    let end = LONG_HEAD + length;
    place.get_mut(..end)?.copy_within(1..=length, LONG_HEAD);
    place[..LONG_HEAD].copy_from_slice(&long_head(Tag::Value, length));
    Some(end)
}

/// [`put`], of a value that is likely to be long: if so, it is not moved.
#[inline(never)]
pub(crate) fn put_long<T: Serialize + 'static>(place: &mut [u8], value: &T) -> Option<usize> {
    let (head, body) = place.split_first_chunk_mut::<LONG_HEAD>()?;
    let mut room = Room::new(body);
    let result = codec::write(value, &mut room);
    let length = room.used();
    if result.and_then(|()| check_length(length)).is_err() {
        let _ = handover::take_failure();
        return None;
    }
    *head = long_head(Tag::Value, length);
    Some(LONG_HEAD + length)
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
#[inline(always)]
pub(crate) fn append<T: Serialize + 'static>(buffer: &mut Vec<u8>, tag: Tag, value: &T) -> Appended {
    match append_plain(buffer, tag, value) {
        Ok(()) => Appended::Plain,
        Err(error) => append_handles(buffer, tag, value, error),
    }
}

/// Most values have no handles in them, and need no hand-over. This one has, or cannot be serialised at all.
#[cold]
fn append_handles<T: Serialize + 'static>(
    buffer: &mut Vec<u8>,
    tag: Tag,
    value: &T,
    error: Error,
) -> Appended {
    if handover::take_failure().is_none() {
        return Appended::Not(error.to_string());
    }
    match handover::send(|| append_plain(buffer, tag, value)) {
        (Ok(()), descriptors) => Appended::Handles(descriptors),
        (Err(error), _) => Appended::Not(explain(error)),
    }
}

/// Appends a text, which can always be done.
#[cold]
pub(crate) fn append_text(buffer: &mut Vec<u8>, tag: Tag, text: &str) {
    let _ = append_plain(buffer, tag, &text.to_owned());
}

/// What the last handle said, or the format.
#[cold]
fn explain(error: Error) -> String {
    handover::take_failure().map_or_else(|| error.to_string(), |failure| failure.to_string())
}

/// Splits off the next item.
#[inline(always)]
pub(crate) fn next<'a>(bytes: &mut &'a [u8]) -> Option<(Tag, &'a [u8])> {
    let (&head, rest) = bytes.split_first()?;
    if head >= LONG {
        return next_long(bytes);
    }
    let (item, rest) = rest.split_at_checked(head.into())?;
    *bytes = rest;
    Some((Tag::Value, item))
}

#[inline(never)]
fn next_long<'a>(bytes: &mut &'a [u8]) -> Option<(Tag, &'a [u8])> {
    let ([head, length @ ..], rest) = bytes.split_first_chunk::<LONG_HEAD>()?;
    let (item, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    let tag = match head - LONG {
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

/// How many items, at least one and at most `most` of the `count` that there are, take no more than `limit`
/// bytes, and how many bytes they take.
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
#[inline(always)]
pub(crate) fn read<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
    codec::read(bytes).map_err(explain)
}

/// [`read`], of a value with these descriptors.
pub(crate) fn read_with<T: DeserializeOwned + 'static>(
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<T, String> {
    handover::receive(descriptors, || read(bytes))
}

/// A value that was serialised once, for any number of processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<Descriptor>,
}

impl Parcel {
    pub(crate) fn new<T: Serialize + 'static>(value: &T) -> Result<Parcel, String> {
        let mut bytes = Vec::new();
        let (written, descriptors) = handover::send(|| codec::write(value, &mut bytes));
        written.map_err(explain)?;
        Ok(Parcel { bytes, descriptors })
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
        assert_eq!(length_of(&bytes, 2), Some(bytes.len() - 1));
        assert_eq!(length_of(&bytes, 4), None);
    }

    #[test]
    fn items_of_all_lengths_pass() {
        for length in (0..600).chain([65_535, 65_536]) {
            let value: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut bytes = vec![99];
            assert!(matches!(append(&mut bytes, Tag::Value, &value), Appended::Plain));
            assert!(matches!(append(&mut bytes, Tag::Value, &7u32), Appended::Plain));
            let mut rest = &bytes[1..];
            let (tag, item) = next(&mut rest).unwrap();
            assert_eq!((tag, read(item)), (Tag::Value, Ok(value.clone())));
            assert_eq!(read::<u32>(next(&mut rest).unwrap().1), Ok(7));
            assert_eq!((bytes[0], next(&mut rest)), (99, None));
            assert_eq!(next(&mut &bytes[1..bytes.len() - 6]), None, "cut off");

            let mut place = vec![0; length + 20];
            for put in [put, put_long] {
                let used = put(&mut place, &value).unwrap();
                let mut rest = &place[..used];
                assert_eq!(read(next(&mut rest).unwrap().1), Ok(value.clone()));
                assert!(rest.is_empty());
                assert_eq!(put(&mut place[..used - 1], &value), None);
            }
        }
    }

    #[test]
    fn what_fits_is_at_least_one() {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            assert!(matches!(append(&mut bytes, Tag::Value, &[1u8; 9]), Appended::Plain));
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
