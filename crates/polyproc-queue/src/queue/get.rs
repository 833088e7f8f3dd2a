//! Getting a message.

use super::Queue;
use crate::error::GetError;
use crate::fast::Unusual;
use core::fmt;
use polyproc_memory::codec::Codec;
use polyproc_sys::copy;
use polyproc_sys::deadline::Deadline;
use std::time::{Duration, Instant};

impl<T, C: Codec<T>> Queue<T, C> {
    /// Gets the next message, waiting for it as long as it takes.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Empty`.
    #[inline]
    pub fn get(&self) -> Result<T, GetError> {
        self.get_deadline(Deadline::NEVER)
    }

    /// Gets the next message, if there is one. Waits for nothing but another process that is getting one just now, and
    /// for that a millisecond at most.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    #[inline]
    pub fn try_get(&self) -> Result<T, GetError> {
        self.get_deadline(Deadline::PAST)
    }

    /// Gets the next message, waiting for it at most so long.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    #[inline]
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_deadline(Deadline::after(timeout))
    }

    /// Gets the next message, waiting for it at most until then.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    #[inline]
    pub fn get_until(&self, deadline: Instant) -> Result<T, GetError> {
        self.get_deadline(Deadline::at(deadline))
    }

    // Not a part of the caller: there, what an error is made of and the message would share their bytes, and the compiler
    // would move the message in pieces.
    #[inline(never)]
    fn get_deadline(&self, deadline: Deadline) -> Result<T, GetError> {
        match self.raw.owned_front() {
            Some(Ok(front)) => Ok(C::decode(self.raw.take_usual(front, C::copy))?),
            Some(Err(unusual)) => self.get_otherwise(deadline, unusual),
            None => self.get_locked(deadline),
        }
    }

    #[inline(never)]
    fn get_locked(&self, deadline: Deadline) -> Result<T, GetError> {
        match self.raw.locked_front() {
            Ok(front) => Ok(C::decode(self.raw.take_usual(front, C::copy))?),
            Err(unusual) => self.get_otherwise(deadline, unusual),
        }
    }

    #[cold]
    #[inline(never)]
    fn get_otherwise(&self, deadline: Deadline, unusual: Unusual) -> Result<T, GetError> {
        Ok(C::decode(self.raw.take_otherwise(deadline, unusual, C::copy)?)?)
    }

    /// Gets the next message's bytes, as they travel, into `buffer`, whose memory is used again: what was in it is gone.
    /// Waits as [`get`](Queue::get) does. Returns how many they are.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Empty` and `Decode`.
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

    /// The messages, as they come, until the queue is closed and drained. Waits for each.
    pub fn iter(&self) -> Iter<'_, T, C> {
        Iter { queue: self }
    }
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

    fn next(&mut self) -> Option<Result<T, GetError>> {
        match self.queue.get() {
            Err(GetError::Closed) => None,
            other => Some(other),
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
