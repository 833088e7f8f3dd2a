//! What can go wrong.

use core::fmt;
use polyproc_memory::codec::{DecodeError, EncodeError};
use polyproc_mutex::Refusal;
use std::error::Error;
use std::io;

/// Why nothing was put, with the message.
///
/// # Example
///
/// ```
/// use polyproc_queue::{PutError, Queue};
///
/// let queue = Queue::<String>::bounded(1)?;
/// queue.put("first".into()).unwrap();
/// match queue.try_put("second".into()) {
///     Err(PutError::Full(message)) => assert_eq!(message, "second"), // It is back.
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum PutError<T> {
    /// There was no room, at once or until the deadline.
    Full(T),
    /// The queue is closed.
    Closed(T),
    /// The message will never fit.
    TooLarge {
        /// The message.
        message: T,
        /// Its length, encoded, in bytes.
        length: usize,
        /// The most bytes that a message of this queue can have.
        most: usize,
    },
    /// The message cannot be encoded.
    Encode {
        /// The message.
        message: T,
        /// Why.
        error: EncodeError,
    },
    /// The system has no memory for the queue to grow.
    OutOfMemory {
        /// The message.
        message: T,
        /// What the system said.
        error: io::Error,
    },
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks(T),
}

/// What [`try_put`](crate::Queue::try_put) says: the same as any put.
pub type TryPutError<T> = PutError<T>;

impl<T> PutError<T> {
    /// The message.
    pub fn into_message(self) -> T {
        match self {
            PutError::Full(message) | PutError::Closed(message) | PutError::TooManyLocks(message) => message,
            PutError::TooLarge { message, .. }
            | PutError::Encode { message, .. }
            | PutError::OutOfMemory { message, .. } => message,
        }
    }

    /// The same, with something else in the message's place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> PutError<U> {
        match self {
            PutError::Full(message) => PutError::Full(f(message)),
            PutError::Closed(message) => PutError::Closed(f(message)),
            PutError::TooLarge { message, length, most } => {
                PutError::TooLarge { message: f(message), length, most }
            }
            PutError::Encode { message, error } => PutError::Encode { message: f(message), error },
            PutError::OutOfMemory { message, error } => PutError::OutOfMemory { message: f(message), error },
            PutError::TooManyLocks(message) => PutError::TooManyLocks(f(message)),
        }
    }

    #[cold]
    pub(crate) fn new(message: T, refusal: PutRefusal) -> PutError<T> {
        match refusal {
            PutRefusal::Full => PutError::Full(message),
            PutRefusal::Closed => PutError::Closed(message),
            PutRefusal::TooLarge { length, most } => PutError::TooLarge { message, length, most },
            PutRefusal::OutOfMemory(error) => PutError::OutOfMemory { message, error },
            PutRefusal::TooManyLocks => PutError::TooManyLocks(message),
        }
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::Full(_) => f.write_str("the queue is full"),
            PutError::Closed(_) => f.write_str("the queue is closed"),
            PutError::TooLarge { length, most, .. } => {
                write!(f, "the message has {length} bytes, and the queue takes messages of at most {most}")
            }
            PutError::Encode { .. } => f.write_str("the message cannot be encoded"),
            PutError::OutOfMemory { .. } => f.write_str("there is no memory for the queue to grow"),
            PutError::TooManyLocks(_) => f.write_str("the thread holds as many locks as it can"),
        }
    }
}

impl<T: fmt::Debug> Error for PutError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PutError::Encode { error, .. } => error.source(),
            PutError::OutOfMemory { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why not all messages were put.
#[derive(Debug)]
pub struct PutManyError<T> {
    /// How many were put: the first ones.
    pub put: usize,
    /// Why the next was not, with that message.
    pub error: PutError<T>,
    /// The messages after it.
    pub rest: Vec<T>,
}

impl<T> fmt::Display for PutManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages were put, then: {}", self.put, self.error)
    }
}

impl<T: fmt::Debug> Error for PutManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Why there is no message.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError {
    /// There was none, at once or until the deadline.
    Empty,
    /// There is none, and there will be none: the queue is closed.
    Closed,
    /// There was one, and it is out of the queue, but its bytes are not a message of this type.
    Decode(DecodeError),
    /// As many messages are claimed as can be.
    TooManyClaims,
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks,
}

/// What [`try_get`](crate::Queue::try_get) says: the same as any get.
pub type TryGetError = GetError;

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::Empty => f.write_str("the queue is empty"),
            GetError::Closed => f.write_str("the queue is closed"),
            GetError::Decode(error) => error.fmt(f),
            GetError::TooManyClaims => f.write_str("as many messages are claimed as can be"),
            GetError::TooManyLocks => f.write_str("the thread holds as many locks as it can"),
        }
    }
}

impl Error for GetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            GetError::Decode(error) => error.source(),
            _ => None,
        }
    }
}

impl From<DecodeError> for GetError {
    fn from(error: DecodeError) -> GetError {
        GetError::Decode(error)
    }
}

impl From<GetRefusal> for GetError {
    #[cold]
    fn from(refusal: GetRefusal) -> GetError {
        match refusal {
            GetRefusal::Empty => GetError::Empty,
            GetRefusal::Closed => GetError::Closed,
            GetRefusal::TooManyLocks => GetError::TooManyLocks,
        }
    }
}

/// Why there are no messages, or not only messages.
///
/// # Example
///
/// ```
/// use polyproc_queue::{GetManyError, Queue};
///
/// let queue = Queue::<String>::new()?;
/// queue.put_many(["a".to_owned(), "b".to_owned()]).unwrap();
/// let messages: Vec<String> = match queue.get_many(10) {
///     Ok(messages) => messages,
///     // Leave out those that are none.
///     Err(GetManyError::Decode(messages)) => messages.into_iter().flatten().collect(),
///     Err(error) => panic!("{error}"),
/// };
/// assert_eq!(messages, ["a", "b"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum GetManyError<T> {
    /// There were none, at once or until the deadline.
    Empty,
    /// There are none, and there will be none: the queue is closed.
    Closed,
    /// There were some, and they are out of the queue, but the bytes of at least one are not a message of
    /// this type. Here they all are, in their order.
    Decode(Vec<Result<T, DecodeError>>),
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks,
}

impl<T> fmt::Display for GetManyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetManyError::Empty => GetError::Empty.fmt(f),
            GetManyError::Closed => GetError::Closed.fmt(f),
            GetManyError::Decode(messages) => {
                let undecoded = messages.iter().filter(|message| message.is_err()).count();
                write!(f, "{undecoded} of {} messages cannot be decoded", messages.len())
            }
            GetManyError::TooManyLocks => GetError::TooManyLocks.fmt(f),
        }
    }
}

impl<T: fmt::Debug> Error for GetManyError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            GetManyError::Decode(messages) => {
                let error = messages.iter().find_map(|message| message.as_ref().err())?;
                Some(error)
            }
            _ => None,
        }
    }
}

impl<T> From<GetRefusal> for GetManyError<T> {
    #[cold]
    fn from(refusal: GetRefusal) -> GetManyError<T> {
        match refusal {
            GetRefusal::Empty => GetManyError::Empty,
            GetRefusal::Closed => GetManyError::Closed,
            GetRefusal::TooManyLocks => GetManyError::TooManyLocks,
        }
    }
}

/// More tasks were said to be done than had been put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskDoneError;

impl fmt::Display for TaskDoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("task_done was called more often than messages were put")
    }
}

impl Error for TaskDoneError {}

/// Why nothing was put.
#[derive(Debug)]
pub(crate) enum PutRefusal {
    Full,
    Closed,
    TooLarge { length: usize, most: usize },
    OutOfMemory(io::Error),
    TooManyLocks,
}

/// Why nothing was got.
#[derive(Debug)]
pub(crate) enum GetRefusal {
    Empty,
    Closed,
    TooManyLocks,
}

impl From<Refusal> for PutRefusal {
    #[cold]
    fn from(refusal: Refusal) -> PutRefusal {
        match refusal {
            Refusal::TooManyLocks => PutRefusal::TooManyLocks,
            Refusal::OwnedByCaller => refusal.panic(),
            Refusal::WouldBlock | Refusal::TimedOut => PutRefusal::Full,
        }
    }
}

impl From<Refusal> for GetRefusal {
    #[cold]
    fn from(refusal: Refusal) -> GetRefusal {
        match refusal {
            Refusal::TooManyLocks => GetRefusal::TooManyLocks,
            Refusal::OwnedByCaller => refusal.panic(),
            Refusal::WouldBlock | Refusal::TimedOut => GetRefusal::Empty,
        }
    }
}
