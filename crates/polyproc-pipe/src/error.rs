//! What can go wrong.

use crate::receiving::RecvRefusal;
use crate::ring::DESCRIPTORS_MAX;
use crate::sending::SendRefusal;
use core::fmt;
use polyproc_memory::Said;
use polyproc_memory::codec::{DecodeError, EncodeError};
use std::error::Error;
use std::io;

/// Nothing was sent; here is the message.
///
/// # Example
///
/// ```
/// use polyproc_pipe::{SendError, simplex};
///
/// let (sender, receiver) = simplex::<String>()?;
/// drop(receiver);
/// match sender.send("hello".to_owned()) {
///     Err(SendError::Disconnected(message)) => assert_eq!(message, "hello"), // It is back.
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[non_exhaustive]
pub enum SendError<T> {
    /// There was no room, at once or until the deadline.
    Full(T),
    /// The last copy of the other end is gone: closed, dropped, or its process dead.
    Disconnected(T),
    /// This end is closed, or was [closed for sending](crate::Connection::close_send).
    Closed(T),
    /// It will never fit.
    TooLarge {
        /// The message.
        message: T,
        /// The most bytes that a message can have, or the most descriptors.
        most: usize,
    },
    /// The message cannot be encoded.
    Encode {
        /// The message.
        message: T,
        /// Why.
        error: EncodeError,
    },
    /// The other side has written what cannot be, or two processes have used this end. For good.
    Corrupt(T),
    /// The system refused: no room for descriptors on their way, for instance.
    Io {
        /// The message.
        message: T,
        /// What it said.
        error: io::Error,
    },
}

impl<T> SendError<T> {
    pub(crate) fn new(message: T, refusal: SendRefusal) -> SendError<T> {
        match refusal {
            SendRefusal::Full => SendError::Full(message),
            SendRefusal::Disconnected => SendError::Disconnected(message),
            SendRefusal::Closed => SendError::Closed(message),
            SendRefusal::TooLarge(most) => SendError::TooLarge { message, most },
            SendRefusal::Corrupt => SendError::Corrupt(message),
            SendRefusal::Io(error) => SendError::Io { message, error },
        }
    }

    /// The message.
    pub fn into_message(self) -> T {
        match self {
            SendError::Full(message)
            | SendError::Disconnected(message)
            | SendError::Closed(message)
            | SendError::TooLarge { message, .. }
            | SendError::Encode { message, .. }
            | SendError::Corrupt(message)
            | SendError::Io { message, .. } => message,
        }
    }

    /// The same error of another message, such as `()`.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            SendError::Full(message) => SendError::Full(f(message)),
            SendError::Disconnected(message) => SendError::Disconnected(f(message)),
            SendError::Closed(message) => SendError::Closed(f(message)),
            SendError::TooLarge { message, most } => SendError::TooLarge { message: f(message), most },
            SendError::Encode { message, error } => SendError::Encode { message: f(message), error },
            SendError::Corrupt(message) => SendError::Corrupt(f(message)),
            SendError::Io { message, error } => SendError::Io { message: f(message), error },
        }
    }
}

/// Without the message: it need not be `Debug`.
impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("Full(..)"),
            SendError::Disconnected(_) => f.write_str("Disconnected(..)"),
            SendError::Closed(_) => f.write_str("Closed(..)"),
            SendError::TooLarge { most, .. } => {
                f.debug_struct("TooLarge").field("most", most).finish_non_exhaustive()
            }
            SendError::Encode { error, .. } => {
                f.debug_struct("Encode").field("error", error).finish_non_exhaustive()
            }
            SendError::Corrupt(_) => f.write_str("Corrupt(..)"),
            SendError::Io { error, .. } => f.debug_struct("Io").field("error", error).finish_non_exhaustive(),
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Full(_) => f.write_str("the connection is full"),
            SendError::Disconnected(_) => f.write_str("the other end of the connection is gone"),
            SendError::Closed(_) => f.write_str("this end of the connection is closed"),
            SendError::TooLarge { most: DESCRIPTORS_MAX, .. } => {
                write!(f, "the message has more descriptors than any can have, at most {DESCRIPTORS_MAX}")
            }
            SendError::TooLarge { most, .. } => {
                write!(f, "the message is larger than any can be, at most {most} bytes")
            }
            SendError::Encode { error, .. } => error.fmt(f),
            SendError::Corrupt(_) => f.write_str(CORRUPT),
            SendError::Io { error, .. } => write!(f, "the message could not be sent: {}", Said(error)),
        }
    }
}

const CORRUPT: &str =
    "the connection is corrupt: the other side has written what cannot be, or two processes use this end";

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SendError::Encode { error, .. } => error.source(),
            SendError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Nothing was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing is there, at once or until the deadline.
    Empty,
    /// Everything is drained, and nothing more comes: the last copy of the other end is gone, closed,
    /// dropped, or its process dead; or it was [closed for sending](crate::Connection::close_send).
    Disconnected,
    /// This end is closed.
    Closed,
    /// The message is longer than was allowed. It still is in front, and a call that allows more receives it.
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// What was allowed.
        max: usize,
    },
    /// The message is none of this type. It is out of the connection, which goes on; its bytes are in the
    /// error.
    Decode(DecodeError),
    /// The other side has written what cannot be, or two processes have used this end. For good.
    Corrupt,
    /// The system refused. `EMFILE`: descriptors have come for which this process has no room. They and their
    /// message stay, and a call after some others were closed receives them. `OutOfMemory`: there is no
    /// memory for the message, which stays, too.
    Io(io::Error),
}

impl RecvError {
    pub(crate) fn new(refusal: RecvRefusal, max: usize) -> RecvError {
        match refusal {
            RecvRefusal::Empty => RecvError::Empty,
            RecvRefusal::Disconnected => RecvError::Disconnected,
            RecvRefusal::Closed => RecvError::Closed,
            RecvRefusal::TooLong(length) => RecvError::TooLong { length, max },
            RecvRefusal::Corrupt => RecvError::Corrupt,
            RecvRefusal::NoRoom => RecvError::Io(io::Error::from_raw_os_error(libc::EMFILE)),
            RecvRefusal::Io(error) => RecvError::Io(error),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Empty => f.write_str("no message is there"),
            RecvError::Disconnected => {
                f.write_str("the other end of the connection is gone, or sends no more")
            }
            RecvError::Closed => f.write_str("this end of the connection is closed"),
            RecvError::TooLong { length, max } => {
                write!(f, "the message has {length} bytes, and {max} were allowed")
            }
            RecvError::Decode(error) => error.fmt(f),
            RecvError::Corrupt => f.write_str(CORRUPT),
            RecvError::Io(error) => write!(f, "nothing could be received: {}", Said(error)),
        }
    }
}

impl Error for RecvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RecvError::Decode(error) => error.source(),
            RecvError::Io(error) => Some(error),
            _ => None,
        }
    }
}
