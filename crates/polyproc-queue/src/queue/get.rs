//! Getting a message.

use super::Queue;
use crate::error::GetError;
use crate::fast::{Unusual, Usual};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;
use polyproc_memory::codec::{Codec, DecodeError};
use polyproc_sys::copy;
use polyproc_sys::deadline::Deadline;
use std::time::{Duration, Instant};

impl<T, C: Codec<T>> Queue<T, C> {
    /// Gets the next message, waiting for it for as long as it takes.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Empty`.
    #[inline]
    pub fn get(&self) -> Result<T, GetError> {
        self.get_deadline(Deadline::NEVER)
    }

    /// Gets the next message, if there is one. Waits only for another process that is just getting one, and
    /// for that a millisecond at most.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    #[inline]
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_deadline(Deadline::PAST)
    }

    /// Gets the next message, waiting at most `timeout` for it.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::{GetError, Queue};
    /// use std::time::Duration;
    ///
    /// let queue = Queue::<u32>::new()?;
    /// assert!(matches!(queue.get_timeout(Duration::from_millis(10)), Err(GetError::Empty)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_deadline(Deadline::after(timeout))
    }

    /// Gets the next message, waiting for it until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    #[inline]
    pub fn get_until(&self, deadline: Instant) -> Result<T, GetError> {
        self.get_deadline(Deadline::at(deadline))
    }

    #[inline(always)]
    fn get_deadline(&self, deadline: Deadline) -> Result<T, GetError> {
        let mut got = Got::<T> { place: MaybeUninit::uninit(), apart: MaybeUninit::uninit() };
        self.get_to(deadline, &mut got.place)?;
        // SAFETY: `get_to` says so.
        Ok(unsafe { got.place.assume_init() })
    }

    /// Gets the next message into `place`, which is initialised if this is `Ok`.
    ///
    /// Not a part of the caller: there, the compiler would see how an error is made, and move the message in
    /// pieces.
    #[inline(never)]
    fn get_to(&self, deadline: Deadline, place: &mut MaybeUninit<T>) -> Result<(), GetError> {
        match self.raw.owned_front() {
            Some(Ok(front)) => self.take_to(front, place),
            Some(Err(unusual)) => self.get_otherwise(deadline, unusual, place),
            None => self.get_locked(deadline, place),
        }
    }

    #[inline(never)]
    fn get_locked(&self, deadline: Deadline, place: &mut MaybeUninit<T>) -> Result<(), GetError> {
        match self.raw.locked_front() {
            Ok(front) => self.take_to(front, place),
            Err(unusual) => self.get_otherwise(deadline, unusual, place),
        }
    }

    #[inline(always)]
    fn take_to(&self, front: Usual<'_>, place: &mut MaybeUninit<T>) -> Result<(), GetError> {
        if C::IS_PLAIN {
            self.raw.take_usual(front, |bytes| read_to::<T, C>(bytes, place))?;
        } else {
            place.write(C::decode(self.raw.take_usual(front, C::copy))?);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn get_otherwise(
        &self,
        deadline: Deadline,
        unusual: Unusual,
        place: &mut MaybeUninit<T>,
    ) -> Result<(), GetError> {
        if C::IS_PLAIN {
            self.raw.take_otherwise(deadline, unusual, |bytes| read_to::<T, C>(bytes, place))??;
        } else {
            place.write(C::decode(self.raw.take_otherwise(deadline, unusual, C::copy)?)?);
        }
        Ok(())
    }

    /// Gets the next message's bytes, as they travel, into `buffer`, and returns how many they are. The
    /// buffer's memory is used again, and what was in it is gone. Waits as [`get`](Queue::get) does.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Empty` and `Decode`.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::{Bytes, Queue};
    ///
    /// let queue = Queue::<Vec<u8>, Bytes>::new()?;
    /// queue.put_bytes(b"hello").unwrap();
    /// let mut buffer = Vec::new();
    /// assert_eq!(queue.get_into(&mut buffer).unwrap(), 5);
    /// assert_eq!(buffer, b"hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn get_into(&self, buffer: &mut Vec<u8>) -> Result<usize, GetError> {
        let copy = |bytes: &[u8]| {
            buffer.clear();
            copy::append(buffer, bytes);
        };
        match self.raw.owned_front() {
            Some(Ok(front)) => self.raw.take_usual(front, copy),
            Some(Err(unusual)) => self.raw.take_otherwise(Deadline::NEVER, unusual, copy)?,
            None => self.raw.get_locked(copy)?,
        }
        Ok(buffer.len())
    }

    /// Iterates over the messages, as they come, until the queue is closed and drained. Waits for each. An
    /// error is one item, and the iteration goes on.
    pub fn iter(&self) -> Iter<'_, T, C> {
        Iter { queue: self }
    }
}

/// Reads a message to its place, which is initialised if this is `Ok`.
#[inline(always)]
fn read_to<T, C: Codec<T>>(bytes: &[u8], place: &mut MaybeUninit<T>) -> Result<(), DecodeError> {
    let here = place.as_ptr();
    let message = C::read_to(bytes, place)?;
    assert!(ptr::eq(message, here), "a codec has read a message to another place");
    Ok(())
}

/// Where a message is, before the caller has it.
///
/// From here to there the compiler moves it: with `memcpy` if it is large, and that is slow where a copy
/// lands 1 to 31 bytes behind its source, as the lower twelve bits have it (see
/// [`copy`](polyproc_sys::copy)). Two places of 4 KiB that lie side by side on the stack often are such a
/// case, and with something between them they are not: 0.15 µs, and not 1.5.
#[repr(C)]
struct Got<T> {
    place: MaybeUninit<T>,
    apart: MaybeUninit<[u8; 64]>,
}

/// The messages of a queue, until it is closed and drained: see [`Queue::iter`].
#[must_use = "an iterator does nothing by itself"]
pub struct Iter<'a, T, C> {
    queue: &'a Queue<T, C>,
}

impl<T, C> fmt::Debug for Iter<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("queue", self.queue).finish()
    }
}

impl<T, C: Codec<T>> Iterator for Iter<'_, T, C> {
    type Item = Result<T, GetError>;

    #[inline]
    fn next(&mut self) -> Option<Result<T, GetError>> {
        // Each by itself: what is not looked into is moved once more.
        match self.queue.get() {
            Ok(message) => Some(Ok(message)),
            Err(GetError::Closed) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl<'a, T, C: Codec<T>> IntoIterator for &'a Queue<T, C> {
    type Item = Result<T, GetError>;
    type IntoIter = Iter<'a, T, C>;

    fn into_iter(self) -> Iter<'a, T, C> {
        self.iter()
    }
}
