//! The sending half of a [`Connection`].

use super::{Connection, is_plain};
use crate::error::SendError;
use crate::sending::SendRefusal;
use polyproc_memory::codec::{Codec, EncodeError};
use polyproc_memory::handover;
use polyproc_sys::deadline::Deadline;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

impl<S, R, C: Codec<S>> Connection<S, R, C> {
    /// Sends a message, waiting for room.
    ///
    /// When it returns, the message is in memory that outlives this process: the other side receives it even
    /// if this one is killed at once.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message. If those at the other end let go of it, the first message after that
    /// is refused. If they were killed, one that is sent more than some thirty microseconds later is; after a
    /// burst of messages it may be the thirty-first more, after a long one the two hundredth, however slowly
    /// those follow.
    #[inline]
    pub fn send(&self, message: S) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::NEVER, false)
    }

    /// Sends a message if there is room for it now.
    ///
    /// A message of more than half the ring is sent only if the other side takes it fast enough:
    /// [`SendError::Full`] otherwise, and the other side never sees a part of it.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    #[inline]
    pub fn try_send(&self, message: S) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::PAST, false)
    }

    /// Sends a message, waiting for room no longer than this. Zero does not wait.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send_timeout(&self, message: S, timeout: Duration) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::after(timeout), false)
    }

    /// Sends a message, waiting for room until then.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send_until(&self, message: S, deadline: Instant) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::at(deadline), false)
    }

    /// Sends a message and does not wake whoever sleeps: [`ring`](Connection::ring) does.
    #[doc(hidden)]
    #[inline]
    pub fn send_quietly(&self, message: S) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::NEVER, true)
    }

    #[inline]
    fn send_by(&self, message: S, deadline: Deadline, quietly: bool) -> Result<(), SendError<S>> {
        let end = &*self.end;
        let encoded = if is_plain::<S, C>() {
            C::encode(&message, |bytes| end.send(bytes, deadline, quietly))
        } else {
            let put = |bytes: &[u8]| bytes.to_vec();
            let (encoded, descriptors) = handover::send(|| C::encode(&message, put));
            encoded.map(|bytes| {
                if descriptors.is_empty() {
                    end.send(&bytes, deadline, quietly)
                } else {
                    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    end.send_with(&bytes, &borrowed, deadline)
                }
            })
        };
        match encoded {
            Ok(Ok(())) => Ok(()),
            refused => Err(why_not(message, refused)),
        }
    }
}

#[cold]
fn why_not<S>(message: S, refused: Result<Result<(), SendRefusal>, EncodeError>) -> SendError<S> {
    match refused {
        Ok(Err(refusal)) => SendError::new(message, refusal),
        Err(error) => SendError::Encode { message, error },
        Ok(Ok(())) => unreachable!("it was sent"),
    }
}
