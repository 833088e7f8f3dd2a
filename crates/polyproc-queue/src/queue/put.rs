//! Putting a message.

use super::Queue;
use crate::error::PutError;
use polyproc_memory::codec::{Bytes, Codec};
use polyproc_sys::deadline::Deadline;
use std::time::{Duration, Instant};

impl<T, C: Codec<T>> Queue<T, C> {
    /// Puts a message, waiting for room for as long as it takes. When this returns `Ok`, the message is in
    /// the queue, and this process may end at once.
    ///
    /// # Errors
    ///
    /// Any [`PutError`] but `Full`. It gives the message back.
    ///
    /// # Panics
    ///
    /// If the calling thread has a [`Reservation`](crate::Reservation): it would wait for itself.
    #[inline]
    pub fn put(&self, message: T) -> Result<(), PutError<T>> {
        self.put_deadline(message, Deadline::NEVER)
    }

    /// Puts a message if there is room. Waits only for another process that is just putting one, and for that
    /// a millisecond at most.
    ///
    /// # Errors
    ///
    /// Any [`PutError`]. It gives the message back.
    #[inline]
    pub fn try_put(&self, message: T) -> Result<(), PutError<T>> {
        self.put_deadline(message, Deadline::PAST)
    }

    /// Puts a message, waiting at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// Any [`PutError`]. It gives the message back.
    #[inline]
    pub fn put_timeout(&self, message: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_deadline(message, Deadline::after(timeout))
    }

    /// Puts a message, waiting for room until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// Any [`PutError`]. It gives the message back.
    #[inline]
    pub fn put_until(&self, message: T, deadline: Instant) -> Result<(), PutError<T>> {
        self.put_deadline(message, Deadline::at(deadline))
    }

    #[inline(always)]
    fn put_deadline(&self, message: T, deadline: Deadline) -> Result<(), PutError<T>> {
        match C::encode(&message, |bytes| self.raw.put(bytes, deadline)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(PutError::new(message, refusal)),
            Err(error) => Err(PutError::Encode { message, error }),
        }
    }
}

impl Queue<Vec<u8>, Bytes> {
    /// [`put`](Queue::put) of bytes that the caller keeps.
    ///
    /// # Errors
    ///
    /// As for [`put`](Queue::put), with nothing to give back.
    #[inline]
    pub fn put_bytes(&self, message: &[u8]) -> Result<(), PutError<()>> {
        self.raw.put(message, Deadline::NEVER).map_err(|refusal| PutError::new((), refusal))
    }
}
