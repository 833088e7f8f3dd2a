//! How a message becomes bytes, and bytes a message: for queues and pipes.

use crate::handover;
use bytemuck::Pod;
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::mem::MaybeUninit;
use polyproc_sys::copy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::thread::LocalKey;

#[allow(unsafe_code, reason = "copies to memory that is not initialised")]
mod plain;

/// How a `T` travels through a queue or a pipe.
///
/// | codec | for | how | allocates |
/// |---|---|---|---|
/// | [`Postcard`] | whatever serde takes | serialised by `postcard` | what the message itself needs |
/// | [`Raw`] | `T: Pod` | copied as it is | never |
/// | [`Bytes`] | `Vec<u8>` | copied as it is | the vector |
///
/// All of it happens in the process that puts or gets, outside of the channel's locks, except for
/// [`copy`](Codec::copy).
///
/// # Example
///
/// A codec of your own: text, as it is.
///
/// ```
/// use polyproc_memory::codec::{Codec, DecodeError, EncodeError};
///
/// struct Text;
///
/// impl Codec<String> for Text {
///     const CODE: u8 = b't';
///     type Copied = Vec<u8>;
///
///     fn encode<R>(message: &String, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
///         Ok(put(message.as_bytes()))
///     }
///     fn copy(bytes: &[u8]) -> Vec<u8> {
///         bytes.to_vec()
///     }
///     fn decode(bytes: Vec<u8>) -> Result<String, DecodeError> {
///         String::from_utf8(bytes).map_err(|error| {
///             let source = error.utf8_error();
///             DecodeError::new(error.into_bytes(), source)
///         })
///     }
/// }
///
/// let bytes = Text::encode(&"grüezi".to_owned(), Text::copy).unwrap();
/// assert_eq!(Text::decode(bytes).unwrap(), "grüezi");
/// assert!(Text::decode(vec![0xff]).is_err());
/// ```
pub trait Codec<T> {
    /// Tells the codecs apart: a handle whose codec has another code does not attach.
    const CODE: u8;

    /// Whether a message *is* its bytes: each has as many as a `T`, none fails to be encoded, and neither
    /// direction is more than a copy. Then a channel does with many messages at once what it does with others
    /// one by one.
    const IS_PLAIN: bool = false;

    /// What leaves the channel's memory, before it is decoded.
    type Copied;

    /// The layout of what travels, for codecs whose messages all have one: handles whose layouts differ do
    /// not fit. One byte, if nothing else is said.
    fn element() -> Layout {
        Layout::new::<u8>()
    }

    /// Calls `put` with the message's bytes, and returns what it returns.
    ///
    /// # Errors
    ///
    /// The message has no bytes. Then `put` was not called.
    fn encode<R>(message: &T, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError>;

    /// Copies the bytes out of the channel's memory. A queue is locked meanwhile, and the message is taken
    /// when this has returned: it does that, and nothing else.
    fn copy(bytes: &[u8]) -> Self::Copied;

    /// What [`copy`](Codec::copy) makes of bytes that have been copied already.
    fn own(bytes: Vec<u8>) -> Self::Copied {
        Self::copy(&bytes)
    }

    /// Makes a message of the bytes.
    ///
    /// # Errors
    ///
    /// They are none, and the error has them.
    fn decode(copied: Self::Copied) -> Result<T, DecodeError>;

    /// [`copy`](Codec::copy) and [`decode`](Codec::decode) in one step, for codecs that are
    /// [plain](Codec::IS_PLAIN).
    ///
    /// # Errors
    ///
    /// As for [`decode`](Codec::decode).
    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<T, DecodeError> {
        Self::decode(Self::copy(bytes))
    }

    /// The same, to a place that the caller has for it. Returns what is there now.
    ///
    /// # Errors
    ///
    /// As for [`decode`](Codec::decode).
    #[doc(hidden)]
    #[inline(always)]
    fn read_to<'a>(bytes: &[u8], place: &'a mut MaybeUninit<T>) -> Result<&'a mut T, DecodeError> {
        Ok(place.write(Self::read(bytes)?))
    }

    /// The same, to the end of a vector.
    ///
    /// # Errors
    ///
    /// As for [`decode`](Codec::decode).
    #[inline(always)]
    fn append(bytes: &[u8], messages: &mut Vec<T>) -> Result<(), DecodeError> {
        messages.push(Self::read(bytes)?);
        Ok(())
    }
}

/// Serialised by `postcard`: for every type that serde takes.
///
/// It writes values only, in order, and no names. A type that leaves fields out where it is written but not
/// where it is read (`skip_serializing_if` without `default` on both sides, `skip_serializing` alone, a
/// skipped variant before others) is read as other values; one that has to see what comes next (`untagged`,
/// `flatten`, tags inside) is an error.
#[derive(Clone, Copy, Debug)]
pub enum Postcard {}

/// Copied as it is: for plain data.
#[derive(Clone, Copy, Debug)]
pub enum Raw {}

/// Copied as it is: for vectors of bytes.
#[derive(Clone, Copy, Debug)]
pub enum Bytes {}

thread_local! {
    /// The memory in which messages are serialised, kept from one to the next.
    static ENCODING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The memory to which they are copied before they are deserialised.
    static DECODING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// So much of it is kept.
const KEPT: usize = 1 << 20;

/// Puts memory back, for the next message.
fn keep(place: &'static LocalKey<Cell<Vec<u8>>>, mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT {
        buffer.clear();
        // A thread that ends has no place any more.
        let _ = place.try_with(|place| place.set(buffer));
    }
}

/// The memory that was kept. One who comes while it is in use gets some of its own.
fn kept(place: &'static LocalKey<Cell<Vec<u8>>>) -> Vec<u8> {
    place.try_with(Cell::take).unwrap_or_default()
}

/// Why a message could not be serialised. If it has a handle to shared memory in it, which travels in other
/// ways, that is why, but postcard does not pass it on.
#[cold]
fn why_not<T: Serialize>(message: &T, error: postcard::Error) -> EncodeError {
    // What is noted may be of something before this message. So once more.
    handover::take_failure();
    let _ = postcard::to_allocvec(message);
    match handover::take_failure() {
        Some(failure) => EncodeError::new(failure),
        None => EncodeError::new(error),
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    const CODE: u8 = b'p';
    type Copied = Vec<u8>;

    #[inline]
    fn encode<R>(message: &T, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        let encoded =
            postcard::to_extend(message, kept(&ENCODING)).map_err(|error| why_not(message, error))?;
        let result = put(&encoded);
        keep(&ENCODING, encoded);
        Ok(result)
    }

    #[inline]
    fn copy(bytes: &[u8]) -> Vec<u8> {
        let mut copied = kept(&DECODING);
        copy::append(&mut copied, bytes);
        copied
    }

    #[inline]
    fn own(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    #[inline]
    fn decode(copied: Vec<u8>) -> Result<T, DecodeError> {
        match postcard::take_from_bytes(&copied) {
            Ok((message, [])) => {
                keep(&DECODING, copied);
                Ok(message)
            }
            Ok((_, rest)) => {
                let left = rest.len();
                Err(DecodeError::new(copied, format!("{left} bytes are left over")))
            }
            Err(error) => Err(DecodeError::new(copied, error)),
        }
    }
}

/// A copied message of plain data, or other bytes.
///
/// Beside each other, and not one or the other: where the two share their bytes, the compiler moves the
/// message in pieces as they suit the other, and a load that needs two pieces waits for both to be stored.
#[derive(Debug)]
pub struct RawCopied<T> {
    message: T,
    wrong: Option<Vec<u8>>,
}

#[cold]
#[inline(never)]
fn not_of_size(bytes: &[u8], size: usize) -> DecodeError {
    wrong_size(bytes.to_vec(), size)
}

#[cold]
fn wrong_size(bytes: Vec<u8>, size: usize) -> DecodeError {
    let length = bytes.len();
    DecodeError::new(bytes, format!("{length} bytes where {size} make a message"))
}

impl<T: Pod> Codec<T> for Raw {
    const CODE: u8 = b'r';
    const IS_PLAIN: bool = true;
    type Copied = RawCopied<T>;

    fn element() -> Layout {
        Layout::new::<T>()
    }

    #[inline(always)]
    fn encode<R>(message: &T, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(bytemuck::bytes_of(message)))
    }

    #[inline(always)]
    fn copy(bytes: &[u8]) -> RawCopied<T> {
        let mut copied = RawCopied { message: T::zeroed(), wrong: None };
        if bytes.len() == size_of::<T>() {
            bytemuck::bytes_of_mut(&mut copied.message).copy_from_slice(bytes);
        } else {
            copied.wrong = Some(bytes.to_vec());
        }
        copied
    }

    #[inline(always)]
    fn decode(copied: RawCopied<T>) -> Result<T, DecodeError> {
        match copied.wrong {
            None => Ok(copied.message),
            Some(bytes) => Err(wrong_size(bytes, size_of::<T>())),
        }
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<T, DecodeError> {
        if bytes.len() == size_of::<T>() {
            return Ok(bytemuck::pod_read_unaligned(bytes));
        }
        Err(not_of_size(bytes, size_of::<T>()))
    }

    #[inline(always)]
    fn read_to<'a>(bytes: &[u8], place: &'a mut MaybeUninit<T>) -> Result<&'a mut T, DecodeError> {
        plain::copy_to(bytes, place).ok_or_else(|| not_of_size(bytes, size_of::<T>()))
    }

    #[inline(always)]
    fn append(bytes: &[u8], messages: &mut Vec<T>) -> Result<(), DecodeError> {
        // Straight to its place, if it lies where a `T` may lie.
        match bytemuck::try_cast_slice(bytes) {
            Ok(message) if bytes.len() == size_of::<T>() && size_of::<T>() != 0 => {
                messages.extend_from_slice(message)
            }
            _ => messages.push(Self::read(bytes)?),
        }
        Ok(())
    }
}

impl Codec<Vec<u8>> for Bytes {
    const CODE: u8 = b'b';
    type Copied = Vec<u8>;

    #[inline(always)]
    fn encode<R>(message: &Vec<u8>, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(message))
    }

    #[inline(always)]
    fn copy(bytes: &[u8]) -> Vec<u8> {
        let mut copied = Vec::new();
        copy::append(&mut copied, bytes);
        copied
    }

    #[inline(always)]
    fn own(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    #[inline(always)]
    fn decode(copied: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
        Ok(copied)
    }
}

type Cause = Box<dyn Error + Send + Sync>;

/// A message could not be made into bytes. Nothing was sent.
#[derive(Debug)]
pub struct EncodeError(Cause);

impl EncodeError {
    /// For this reason.
    pub fn new(cause: impl Into<Cause>) -> EncodeError {
        EncodeError(cause.into())
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message cannot be encoded")
    }
}

impl Error for EncodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// A message's bytes are not those of the type. It is out of the channel; here are its bytes.
#[derive(Debug)]
pub struct DecodeError {
    bytes: Vec<u8>,
    cause: Cause,
}

impl DecodeError {
    /// For this reason.
    pub fn new(bytes: Vec<u8>, cause: impl Into<Cause>) -> DecodeError {
        DecodeError { bytes, cause: cause.into() }
    }

    /// The message, as it travelled.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message, as it travelled.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message of {} bytes cannot be decoded", self.bytes.len())
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}
