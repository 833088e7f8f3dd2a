//! The receiving half of a [`Connection`].

use super::{Connection, is_plain};
use crate::error::RecvError;
use crate::receiving::Receiving;
use crate::ring::{BUFFER, Ready};
use polyproc_memory::codec::Codec;
use polyproc_memory::handover;
use polyproc_sys::deadline::Deadline;
use std::ops::DerefMut;
use std::time::{Duration, Instant};

impl<S, R, C: Codec<R>> Connection<S, R, C> {
    /// Receives a message, waiting for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] when everything is drained and nobody is left at the other end, at once if
    /// that one was killed; else [`RecvError`].
    #[inline]
    pub fn recv(&self) -> Result<R, RecvError> {
        self.recv_by(Deadline::NEVER)
    }

    /// Receives a message that is there.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    #[inline]
    pub fn try_recv(&self) -> Result<R, RecvError> {
        self.recv_by(Deadline::PAST)
    }

    /// Receives a message, waiting no longer than this. Zero does not wait.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<R, RecvError> {
        self.recv_by(Deadline::after(timeout))
    }

    /// Receives a message, waiting until then.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    pub fn recv_until(&self, deadline: Instant) -> Result<R, RecvError> {
        self.recv_by(Deadline::at(deadline))
    }

    #[inline]
    fn recv_by(&self, deadline: Deadline) -> Result<R, RecvError> {
        let (end, size) = (&*self.end, C::element().size());
        if !C::IS_PLAIN || size > BUFFER {
            return self.recv_copied(deadline);
        }
        // Each way by itself: what is known of one is not asked at its end.
        if let Some(receiving) = end.receiving.enter_owned() {
            if let Some((receiving, ready)) = end.find_ready(receiving, size, deadline) {
                return take::<R, C>(receiving, ready, size);
            }
        } else if let Some((receiving, ready)) = end.enter_to_ready(size, deadline) {
            return take::<R, C>(receiving, ready, size);
        }
        self.recv_copied(deadline)
    }

    fn recv_copied(&self, deadline: Deadline) -> Result<R, RecvError> {
        let mut bytes = Vec::new();
        let received = self.end.recv(&mut bytes, usize::MAX, deadline);
        let descriptors = received.map_err(|refusal| RecvError::new(refusal, usize::MAX))?;
        let decoded = if is_plain::<R, C>() {
            C::decode(C::own(bytes))
        } else {
            handover::receive(descriptors, || C::decode(C::own(bytes)))
        };
        decoded.map_err(RecvError::Decode)
    }

    /// The messages, until the other end is gone and all are drained, or this one is closed. A message that
    /// cannot be decoded is one `Err`, and the next one follows; any other error is the last item.
    pub fn iter(&self) -> impl Iterator<Item = Result<R, RecvError>> {
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            match self.recv() {
                Err(RecvError::Disconnected | RecvError::Closed) => None,
                Err(error) => {
                    is_over = !matches!(error, RecvError::Decode(_));
                    Some(Err(error))
                }
                message => Some(message),
            }
        })
    }
}

/// Takes the message that is ready.
#[inline(always)]
fn take<R, C: Codec<R>>(
    mut receiving: impl DerefMut<Target = Receiving>,
    ready: Ready,
    size: usize,
) -> Result<R, RecvError> {
    let copied = receiving.ring.take_ready(ready, size, C::copy);
    drop(receiving);
    C::decode(copied).map_err(RecvError::Decode)
}
