//! [`Sender`] and [`Receiver`]: a pipe in one direction.

use crate::connection::Connection;
use crate::error::{RecvError, SendError};
use polyproc_memory::codec::{Codec, Postcard};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A pipe in one direction. When the last copy of the sender is gone, the receiver sees the end after the
/// last message; when the receiver is gone, sending fails.
///
/// # Errors
///
/// Out of memory, or of descriptors.
///
/// # Example
///
/// ```
/// let (sender, receiver) = polyproc_pipe::simplex::<u32>()?;
/// sender.send(1)?;
/// drop(sender);
/// assert_eq!(receiver.iter().map(Result::unwrap).collect::<Vec<_>>(), [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn simplex<T>() -> io::Result<(Sender<T>, Receiver<T>)> {
    Sender::pair()
}

/// The end of a [`simplex`] pipe that sends. A handle, as [`Connection`] is.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "C: Codec<T> + Codec<()>", deserialize = "C: Codec<T> + Codec<()>"))]
pub struct Sender<T, C = Postcard>(pub(crate) Connection<T, (), C>);

/// The end of a [`simplex`] pipe that receives. A handle, as [`Connection`] is.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "C: Codec<T> + Codec<()>", deserialize = "C: Codec<T> + Codec<()>"))]
pub struct Receiver<T, C = Postcard>(pub(crate) Connection<(), T, C>);

impl<T, C> Sender<T, C> {
    /// [`simplex`], with this codec.
    ///
    /// # Errors
    ///
    /// As for [`simplex`].
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_pipe::{Raw, Sender};
    ///
    /// let (sender, receiver) = Sender::<u64, Raw>::pair()?;
    /// sender.send(1)?;
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pair() -> io::Result<(Sender<T, C>, Receiver<T, C>)> {
        let (sender, receiver) = Connection::pair()?;
        Ok((Sender(sender), Receiver(receiver)))
    }
}

impl<T, C: Codec<T>> Sender<T, C> {
    /// As [`Connection::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.send(message)
    }

    /// As [`Connection::try_send`].
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        self.0.try_send(message)
    }

    /// As [`Connection::send_timeout`].
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.0.send_timeout(message, timeout)
    }

    /// As [`Connection::send_until`].
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send_until(&self, message: T, deadline: Instant) -> Result<(), SendError<T>> {
        self.0.send_until(message, deadline)
    }

    /// As [`Connection::send_async`].
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    #[cfg(feature = "tokio")]
    pub async fn send_async(&self, message: T) -> Result<(), SendError<T>> {
        self.0.send_async(message).await
    }

    /// As [`Connection::send_bytes`].
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.0.send_bytes(bytes)
    }
}

impl<T, C: Codec<T>> Receiver<T, C> {
    /// As [`Connection::recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv(&self) -> Result<T, RecvError> {
        self.0.recv()
    }

    /// As [`Connection::try_recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn try_recv(&self) -> Result<T, RecvError> {
        self.0.try_recv()
    }

    /// As [`Connection::recv_timeout`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvError> {
        self.0.recv_timeout(timeout)
    }

    /// As [`Connection::recv_until`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_until(&self, deadline: Instant) -> Result<T, RecvError> {
        self.0.recv_until(deadline)
    }

    /// As [`Connection::recv_async`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    ///
    /// # Example
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// let (sender, receiver) = polyproc_pipe::simplex::<u32>()?;
    /// runtime.block_on(async {
    ///     let receiving = async { assert_eq!(receiver.recv_async().await.unwrap(), 7) };
    ///     let sending = async { sender.send_async(7).await.unwrap() };
    ///     tokio::join!(receiving, sending);
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tokio")]
    pub async fn recv_async(&self) -> Result<T, RecvError> {
        self.0.recv_async().await
    }

    /// As [`Connection::poll`].
    ///
    /// # Errors
    ///
    /// What poll(2) says.
    pub fn poll(&self, timeout: impl Into<Option<Duration>>) -> io::Result<bool> {
        self.0.poll(timeout)
    }

    /// As [`Connection::recv_bytes`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_bytes(&self, max: usize) -> Result<Vec<u8>, RecvError> {
        self.0.recv_bytes(max)
    }

    /// As [`Connection::recv_bytes_into`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_bytes_into(&self, to: &mut Vec<u8>, max: usize) -> Result<usize, RecvError> {
        self.0.recv_bytes_into(to, max)
    }

    /// As [`Connection::iter`].
    pub fn iter(&self) -> impl Iterator<Item = Result<T, RecvError>> {
        self.0.iter()
    }
}

impl<T, C> Receiver<T, C> {
    /// As [`Connection::prepare_wait`]: before each wait at the [descriptor](AsFd) in ways of one's own.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) says.
    ///
    /// # Example
    ///
    /// ```
    /// # let (sender, receiver) = polyproc_pipe::simplex::<u32>()?;
    /// assert!(!receiver.prepare_wait()?); // From here on, the descriptor becomes readable with the next message.
    /// sender.send(1)?;
    /// assert!(receiver.prepare_wait()?); // No need to wait.
    /// assert_eq!(receiver.try_recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prepare_wait(&self) -> io::Result<bool> {
        self.0.prepare_wait()
    }

    /// As [`Connection::has_news`].
    pub fn has_news(&self) -> bool {
        self.0.has_news()
    }
}

macro_rules! both {
    ($($name:ident)*) => {$(
        impl<T, C> $name<T, C> {
            /// As [`Connection::close`].
            ///
            /// # Errors
            ///
            /// Out of descriptors.
            pub fn close(&self) -> io::Result<()> {
                self.0.close()
            }

            /// As [`Connection::is_closed`].
            pub fn is_closed(&self) -> bool {
                self.0.is_closed()
            }
        }

        impl<T, C> Clone for $name<T, C> {
            fn clone(&self) -> $name<T, C> {
                $name(self.0.clone())
            }
        }

        impl<T, C> core::fmt::Debug for $name<T, C> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
            }
        }

        impl<T, C> AsFd for $name<T, C> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    )*};
}

both!(Sender Receiver);
