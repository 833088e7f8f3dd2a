//! [`Connection`]s of bytes: borrowed ones, bounded ones, and descriptors beside them.

use super::Connection;
use crate::error::{RecvError, SendError};
use polyproc_memory::codec::Bytes;
use polyproc_sys::deadline::Deadline;
use std::os::fd::{BorrowedFd, OwnedFd};

impl<R> Connection<Vec<u8>, R, Bytes> {
    /// Sends bytes, and descriptors beside them, if there is room for them now. The other end gets
    /// duplicates.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_pipe::{Bytes, Connection};
    /// use std::os::fd::AsFd;
    ///
    /// let (here, there) = Connection::<Vec<u8>, Vec<u8>, Bytes>::pair()?;
    /// let null = std::fs::File::open("/dev/null")?;
    /// here.try_send_with(b"read this", &[null.as_fd()])?;
    /// let mut message = Vec::new();
    /// let descriptors = there.recv_with(&mut message)?;
    /// assert_eq!((&message[..], descriptors.len()), (&b"read this"[..], 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError<()>> {
        self.send_raw(bytes, descriptors, Deadline::PAST)
    }

    /// [`try_send_with`](Connection::try_send_with), waiting for room.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError<()>> {
        self.send_raw(bytes, descriptors, Deadline::NEVER)
    }

    fn send_raw(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendError<()>> {
        let sent = if descriptors.is_empty() {
            self.end.send(bytes, deadline, false)
        } else {
            self.end.send_with(bytes, descriptors, deadline)
        };
        sent.map_err(|refusal| SendError::new((), refusal))
    }
}

impl<S> Connection<S, Vec<u8>, Bytes> {
    /// Receives a message, waiting for one: appends its bytes to `to`, and returns the descriptors that came
    /// with it.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Connection::recv).
    pub fn recv_with(&self, to: &mut Vec<u8>) -> Result<Vec<OwnedFd>, RecvError> {
        self.recv_raw(to, Deadline::NEVER)
    }

    /// [`recv_with`](Connection::recv_with) of a message that is there.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    pub fn try_recv_with(&self, to: &mut Vec<u8>) -> Result<Vec<OwnedFd>, RecvError> {
        self.recv_raw(to, Deadline::PAST)
    }

    fn recv_raw(&self, to: &mut Vec<u8>, deadline: Deadline) -> Result<Vec<OwnedFd>, RecvError> {
        self.end.recv(to, usize::MAX, deadline).map_err(|refusal| RecvError::new(refusal, usize::MAX))
    }
}

/// Messages as bytes, whatever the connection's types: each is one message, as long as it is.
///
/// Where the other side receives by [`recv`](Connection::recv), these are the bytes that its codec decodes;
/// where it sends by [`send`](Connection::send), those that its codec made.
impl<S, R, C> Connection<S, R, C> {
    /// Sends these bytes as one message, waiting for room. None are a message, too.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    ///
    /// # Example
    ///
    /// ```
    /// let (here, there) = polyproc_pipe::pipe::<(), ()>()?;
    /// here.send_bytes(b"as it is")?;
    /// assert!(there.recv_bytes(4).is_err()); // Too long for that; it is still there.
    /// assert_eq!(there.recv_bytes(64)?, b"as it is");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.end.send(bytes, Deadline::NEVER, false).map_err(|refusal| SendError::new((), refusal))
    }

    /// Receives a message of at most so many bytes, waiting for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooLong`] if it is longer: it stays in front, and the connection goes on. Else as for
    /// [`recv`](Connection::recv).
    pub fn recv_bytes(&self, max: usize) -> Result<Vec<u8>, RecvError> {
        let mut bytes = Vec::new();
        self.recv_bytes_into(&mut bytes, max)?;
        Ok(bytes)
    }

    /// Appends a message of at most so many bytes to `to`, whose memory is used again, and returns its
    /// length.
    ///
    /// # Errors
    ///
    /// As for [`recv_bytes`](Connection::recv_bytes).
    pub fn recv_bytes_into(&self, to: &mut Vec<u8>, max: usize) -> Result<usize, RecvError> {
        let before = to.len();
        let received = self.end.recv(to, max, Deadline::NEVER);
        received.map_err(|refusal| RecvError::new(refusal, max))?;
        Ok(to.len() - before)
    }
}
