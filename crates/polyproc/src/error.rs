//! One error for programs that use several of the crates.

use std::fmt;
use std::io;

/// A result whose error all of the crates' errors convert into.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of any of the crates, for `?` in programs that use several.
///
/// It prints what the error inside prints. An error that carries a guard, such as
/// [`PoisonError`](crate::PoisonError), leaves the guard behind, which unlocks.
///
/// # Example
///
/// ```
/// use polyproc::{Array, Error};
///
/// fn first(values: &Array<i32>) -> polyproc::Result<i32> {
///     Ok(values.get(0)?)
/// }
///
/// assert_eq!(first(&Array::new(&[7])?)?, 7);
/// let error = first(&Array::new(&[])?).unwrap_err();
/// assert!(matches!(error, Error::Array(_)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Memory, descriptors or another system call: making or receiving an object failed.
    Io(io::Error),
    /// A process was not started.
    #[cfg(feature = "process")]
    Spawn(crate::SpawnError),
    /// There is no value to be had from a process, or not yet.
    #[cfg(feature = "process")]
    Join(crate::JoinError),
    /// A process died or panicked in a critical section.
    #[cfg(feature = "mutex")]
    Poisoned(crate::PoisonCause),
    /// A lock was held, and the call was not to wait.
    #[cfg(feature = "mutex")]
    WouldBlock,
    /// The time was over first.
    #[cfg(feature = "mutex")]
    TimedOut,
    /// The thread holds as many locks as the kernel releases for a dead thread.
    #[cfg(any(feature = "mutex", feature = "semaphore"))]
    TooManyLocks,
    /// Data was to be changed through one of several guards of an [`RLock`](crate::RLock).
    #[cfg(feature = "mutex")]
    Nested(crate::NestedError),
    /// No permit of a semaphore was to be had, at once or until the time was over.
    #[cfg(feature = "semaphore")]
    NoPermit,
    /// More permits were released than there can be.
    #[cfg(feature = "semaphore")]
    Release(crate::ReleaseError),
    /// A wait at a barrier that is broken, or has an action that this handle does not know.
    #[cfg(feature = "barrier")]
    Barrier(crate::WaitError),
    /// Nothing was put into a queue. The message is left behind.
    #[cfg(feature = "queue")]
    Put(crate::PutError<()>),
    /// Nothing was got from a queue.
    #[cfg(feature = "queue")]
    Get(crate::GetError),
    /// More tasks were said to be done than had been put.
    #[cfg(feature = "queue")]
    TaskDone(crate::TaskDoneError),
    /// Nothing was sent through a connection. The message is left behind.
    #[cfg(feature = "pipe")]
    Send(crate::SendError<()>),
    /// Nothing was received from a connection.
    #[cfg(feature = "pipe")]
    Recv(crate::RecvError),
    /// A task of a pool has no result.
    #[cfg(feature = "pool")]
    Task(crate::TaskError),
    /// A pool could not be made, or has come to an end.
    #[cfg(feature = "pool")]
    Pool(crate::PoolError),
    /// An index or a range outside an array, or a wrong length.
    #[cfg(feature = "value")]
    Array(crate::ArrayError),
    /// A character that is no type code.
    #[cfg(feature = "value")]
    TypeCode(crate::UnknownTypeCode),
    /// A number that its type code has no room for.
    #[cfg(feature = "value")]
    Number(crate::NumberError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => error.fmt(f),
            #[cfg(feature = "process")]
            Error::Spawn(error) => error.fmt(f),
            #[cfg(feature = "process")]
            Error::Join(error) => error.fmt(f),
            #[cfg(feature = "mutex")]
            Error::Poisoned(cause) => write!(f, "poisoned lock: {cause}"),
            #[cfg(feature = "mutex")]
            Error::WouldBlock => f.write_str("the lock is held"),
            #[cfg(feature = "mutex")]
            Error::TimedOut => f.write_str("the lock was still held when the time was over"),
            #[cfg(any(feature = "mutex", feature = "semaphore"))]
            Error::TooManyLocks => {
                f.write_str("this thread holds as many locks as the kernel releases when a thread dies")
            }
            #[cfg(feature = "mutex")]
            Error::Nested(error) => error.fmt(f),
            #[cfg(feature = "semaphore")]
            Error::NoPermit => f.write_str("no permit is available"),
            #[cfg(feature = "semaphore")]
            Error::Release(error) => error.fmt(f),
            #[cfg(feature = "barrier")]
            Error::Barrier(error) => error.fmt(f),
            #[cfg(feature = "queue")]
            Error::Put(error) => error.fmt(f),
            #[cfg(feature = "queue")]
            Error::Get(error) => error.fmt(f),
            #[cfg(feature = "queue")]
            Error::TaskDone(error) => error.fmt(f),
            #[cfg(feature = "pipe")]
            Error::Send(error) => error.fmt(f),
            #[cfg(feature = "pipe")]
            Error::Recv(error) => error.fmt(f),
            #[cfg(feature = "pool")]
            Error::Task(error) => error.fmt(f),
            #[cfg(feature = "pool")]
            Error::Pool(error) => error.fmt(f),
            #[cfg(feature = "value")]
            Error::Array(error) => error.fmt(f),
            #[cfg(feature = "value")]
            Error::TypeCode(error) => error.fmt(f),
            #[cfg(feature = "value")]
            Error::Number(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => error.source(),
            #[cfg(feature = "process")]
            Error::Spawn(error) => error.source(),
            #[cfg(feature = "process")]
            Error::Join(error) => error.source(),
            #[cfg(feature = "pool")]
            Error::Task(error) => error.source(),
            #[cfg(feature = "pool")]
            Error::Pool(error) => error.source(),
            #[cfg(feature = "value")]
            Error::Array(error) => error.source(),
            #[cfg(feature = "queue")]
            Error::Put(error) => error.source(),
            #[cfg(feature = "queue")]
            Error::Get(error) => error.source(),
            #[cfg(feature = "pipe")]
            Error::Send(error) => error.source(),
            #[cfg(feature = "pipe")]
            Error::Recv(error) => error.source(),
            #[allow(unreachable_patterns, reason = "without features there are no others")]
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

#[cfg(feature = "process")]
mod process {
    use super::Error;
    use crate::{JoinError, SpawnError};

    impl From<SpawnError> for Error {
        fn from(error: SpawnError) -> Error {
            Error::Spawn(error)
        }
    }

    impl From<JoinError> for Error {
        fn from(error: JoinError) -> Error {
            Error::Join(error)
        }
    }
}

#[cfg(feature = "pool")]
mod pool {
    use super::Error;
    use crate::{MapError, PoolError, TaskError};

    impl From<TaskError> for Error {
        fn from(error: TaskError) -> Error {
            Error::Task(error)
        }
    }

    /// The first task's error; the others' results are left behind.
    impl<R> From<MapError<R>> for Error {
        fn from(error: MapError<R>) -> Error {
            Error::Task(error.into_error())
        }
    }

    impl From<PoolError> for Error {
        fn from(error: PoolError) -> Error {
            Error::Pool(error)
        }
    }
}

#[cfg(feature = "mutex")]
mod lock {
    use super::Error;
    use crate::{LockTimeoutError, NestedError, PoisonError, TryLockError};

    impl From<NestedError> for Error {
        fn from(error: NestedError) -> Error {
            Error::Nested(error)
        }
    }

    impl<G> From<PoisonError<G>> for Error {
        fn from(error: PoisonError<G>) -> Error {
            Error::Poisoned(error.cause())
        }
    }

    impl<G> From<TryLockError<G>> for Error {
        fn from(error: TryLockError<G>) -> Error {
            match error {
                TryLockError::Poisoned(error) => error.into(),
                TryLockError::WouldBlock => Error::WouldBlock,
                TryLockError::TooManyLocks => Error::TooManyLocks,
            }
        }
    }

    impl<G> From<LockTimeoutError<G>> for Error {
        fn from(error: LockTimeoutError<G>) -> Error {
            match error {
                LockTimeoutError::Poisoned(error) => error.into(),
                LockTimeoutError::TimedOut => Error::TimedOut,
                LockTimeoutError::TooManyLocks => Error::TooManyLocks,
            }
        }
    }
}

#[cfg(feature = "semaphore")]
mod semaphore {
    use super::Error;
    use crate::{AcquireTimeoutError, ReleaseError, TryAcquireError};

    impl From<TryAcquireError> for Error {
        fn from(error: TryAcquireError) -> Error {
            match error {
                TryAcquireError::WouldBlock => Error::NoPermit,
                TryAcquireError::TooManyLocks => Error::TooManyLocks,
            }
        }
    }

    impl From<AcquireTimeoutError> for Error {
        fn from(error: AcquireTimeoutError) -> Error {
            match error {
                AcquireTimeoutError::TimedOut => Error::NoPermit,
                AcquireTimeoutError::TooManyLocks => Error::TooManyLocks,
            }
        }
    }

    impl From<ReleaseError> for Error {
        fn from(error: ReleaseError) -> Error {
            Error::Release(error)
        }
    }
}

#[cfg(feature = "barrier")]
mod barrier {
    use super::Error;
    use crate::{BrokenBarrier, WaitError};

    impl From<WaitError> for Error {
        fn from(error: WaitError) -> Error {
            Error::Barrier(error)
        }
    }

    impl From<BrokenBarrier> for Error {
        fn from(error: BrokenBarrier) -> Error {
            Error::Barrier(WaitError::Broken(error))
        }
    }
}

#[cfg(feature = "pipe")]
mod pipe {
    use super::Error;
    use crate::{RecvError, SendError};

    impl<T> From<SendError<T>> for Error {
        fn from(error: SendError<T>) -> Error {
            Error::Send(error.map(drop))
        }
    }

    impl From<RecvError> for Error {
        fn from(error: RecvError) -> Error {
            Error::Recv(error)
        }
    }
}

#[cfg(feature = "queue")]
mod queue {
    use super::Error;
    use crate::{DecodeError, GetError, GetManyError, PutError, PutManyError, TaskDoneError};

    impl<T> From<PutError<T>> for Error {
        fn from(error: PutError<T>) -> Error {
            Error::Put(error.map(drop))
        }
    }

    impl<T> From<PutManyError<T>> for Error {
        fn from(error: PutManyError<T>) -> Error {
            error.error.into()
        }
    }

    impl From<GetError> for Error {
        fn from(error: GetError) -> Error {
            Error::Get(error)
        }
    }

    impl<T> From<GetManyError<T>> for Error {
        fn from(error: GetManyError<T>) -> Error {
            Error::Get(match error {
                GetManyError::Empty => GetError::Empty,
                GetManyError::Closed => GetError::Closed,
                GetManyError::TooManyLocks => GetError::TooManyLocks,
                GetManyError::Decode(messages) => match messages.into_iter().find_map(Result::err) {
                    Some(error) => GetError::Decode(error),
                    None => GetError::Empty,
                },
                _ => GetError::Empty,
            })
        }
    }

    impl From<DecodeError> for Error {
        fn from(error: DecodeError) -> Error {
            Error::Get(GetError::Decode(error))
        }
    }

    impl From<TaskDoneError> for Error {
        fn from(error: TaskDoneError) -> Error {
            Error::TaskDone(error)
        }
    }
}

#[cfg(feature = "value")]
mod value {
    use super::Error;
    use crate::{
        AnyArrayError, AnyValueError, ArrayError, NumberError, OutOfRange, Poisoned, UnknownTypeCode,
    };

    impl From<Poisoned> for Error {
        fn from(error: Poisoned) -> Error {
            Error::Poisoned(error.cause())
        }
    }

    impl From<OutOfRange> for Error {
        fn from(error: OutOfRange) -> Error {
            Error::Array(error.into())
        }
    }

    impl From<ArrayError> for Error {
        fn from(error: ArrayError) -> Error {
            match error {
                ArrayError::Poisoned(poisoned) => poisoned.into(),
                other => Error::Array(other),
            }
        }
    }

    impl From<UnknownTypeCode> for Error {
        fn from(error: UnknownTypeCode) -> Error {
            Error::TypeCode(error)
        }
    }

    impl From<NumberError> for Error {
        fn from(error: NumberError) -> Error {
            Error::Number(error)
        }
    }

    impl From<AnyValueError> for Error {
        fn from(error: AnyValueError) -> Error {
            match error {
                AnyValueError::Number(error) => error.into(),
                AnyValueError::Poisoned(error) => error.into(),
            }
        }
    }

    impl From<AnyArrayError> for Error {
        fn from(error: AnyArrayError) -> Error {
            match error {
                AnyArrayError::Number(error) => error.into(),
                AnyArrayError::Array(error) => error.into(),
            }
        }
    }
}
