//! [`Semaphore`] and [`BoundedSemaphore`]: the handles.

use crate::error::{AcquireTimeoutError, TryAcquireError};
use crate::handle::{CELLS_IN_ARENA, CELLS_OF_A_PAGE, Handle, MOST_CELLS};
use crate::permit::Permit;
use crate::supply::{MAX_PERMITS, ReleaseError};
use core::fmt;
use polyproc_memory::{Arena, Kind};
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// A number of permits that the threads of all processes acquire and give back.
///
/// This is a handle: clones are the same semaphore, and so is a clone that is given to another process. See
/// the [crate](crate) for what blocks, what a death does, and what it costs.
///
/// The number may grow beyond the initial one: see [`release`](Semaphore::release).
///
/// # Example
///
/// ```
/// use polyproc_semaphore::Semaphore;
///
/// let licences = Semaphore::new(2)?;
/// let first = licences.acquire();
/// let second = licences.acquire();
/// assert!(licences.try_acquire().is_err());
/// drop(first);
/// assert_eq!(licences.available(), 1);
/// # drop(second);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Semaphore {
    handle: Handle,
}

/// A [`Semaphore`] that never has more permits than it began with: one too many released is an error.
///
/// A permit that is dropped is never too many. [`release`](BoundedSemaphore::release) can only make up for
/// permits that were [forgotten](Permit::forget), and that is counted exactly: of two processes that release
/// the last one at the same moment, one succeeds and the other gets the error.
///
/// # Example
///
/// ```
/// use polyproc_semaphore::BoundedSemaphore;
///
/// let semaphore = BoundedSemaphore::new(2)?;
/// semaphore.acquire().forget();
/// assert_eq!(semaphore.available(), 1);
/// assert!(semaphore.release(2).is_err());
/// semaphore.release(1)?;
/// assert_eq!(semaphore.available(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct BoundedSemaphore {
    handle: Handle,
}

impl Semaphore {
    const KIND: Kind = Kind::new("semaphor");

    fn most(_: u32) -> u32 {
        MAX_PERMITS
    }
}

impl BoundedSemaphore {
    const KIND: Kind = Kind::new("bounded");

    fn most(permits: u32) -> u32 {
        permits
    }
}

macro_rules! operations {
    ($name:ident) => {
        impl $name {
            /// Makes a semaphore with this many permits, in memory of its own.
            ///
            /// At most 60 permits can be held at a time, or as many as there are, if that is more, up to
            /// 4,096; for another number see [`with_capacity`](Self::with_capacity).
            ///
            /// # Errors
            ///
            /// `InvalidInput` for more than 2³¹ - 1 permits; [`CreateError`](crate::CreateError) in an
            /// [`io::Error`] if no memory, address space or file descriptor is left; `Unsupported` where the
            /// threads' robust lists are not glibc's (another C library, some sandboxes).
            pub fn new(permits: u32) -> io::Result<$name> {
                $name::create(None, permits, permits.clamp(CELLS_OF_A_PAGE, MOST_CELLS))
            }

            /// Makes a semaphore with this many permits, in an arena.
            ///
            /// At most 4 permits can be held at a time, or as many as there are, if that is more, up to
            /// 4,096; for another number see [`with_capacity_in`](Self::with_capacity_in).
            ///
            /// # Errors
            ///
            /// `InvalidInput` for more than 2³¹ - 1 permits;
            /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported`
            /// as for [`new`](Self::new).
            pub fn new_in(arena: &Arena, permits: u32) -> io::Result<$name> {
                $name::create(Some(arena), permits, permits.clamp(CELLS_IN_ARENA, MOST_CELLS))
            }

            /// Makes a semaphore with this many permits, of which at most `holders` can be held at a time, in
            /// memory of its own.
            ///
            /// One more holder waits, as if there were no permit. Each takes 64 bytes of shared memory.
            ///
            /// # Errors
            ///
            /// As [`new`](Self::new), and `InvalidInput` for no holders or more than 65,536.
            ///
            /// # Example
            ///
            /// ```
            /// use polyproc_semaphore::Semaphore;
            ///
            /// // A thousand permits, of which ten can be held at a time.
            /// let semaphore = Semaphore::with_capacity(1000, 10)?;
            /// let permits: Vec<_> = (0..10).map(|_| semaphore.acquire()).collect();
            /// assert_eq!(semaphore.available(), 990);
            /// assert!(semaphore.try_acquire().is_err());
            /// # drop(permits);
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn with_capacity(permits: u32, holders: u32) -> io::Result<$name> {
                $name::create(None, permits, holders)
            }

            /// Makes a semaphore with this many permits, of which at most `holders` can be held at a time, in
            /// an arena.
            ///
            /// # Errors
            ///
            /// As [`new_in`](Self::new_in), and `InvalidInput` for no holders or more than 65,536.
            pub fn with_capacity_in(arena: &Arena, permits: u32, holders: u32) -> io::Result<$name> {
                $name::create(Some(arena), permits, holders)
            }

            fn create(arena: Option<&Arena>, permits: u32, cells: u32) -> io::Result<$name> {
                let handle = Handle::create(arena, Self::KIND, permits, Self::most(permits), cells)?;
                Ok($name { handle })
            }

            /// Acquires a permit, waiting for as long as it takes.
            ///
            /// A thread that holds all the permits waits for itself, for ever.
            ///
            /// # Panics
            ///
            /// If the calling thread holds 2,048 permits and locks.
            #[inline(always)]
            #[track_caller]
            pub fn acquire(&self) -> Permit<'_> {
                match self.handle.acquire(Deadline::NEVER) {
                    Ok(permit) => permit,
                    Err(refusal) => refusal.panic(),
                }
            }

            /// Acquires a permit if there is one. Never sleeps.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is none; also if one was released with [`release`](Self::release), but a
            /// process that was about to make it ready stands still for a millisecond. `TooManyLocks`.
            ///
            /// # Example
            ///
            /// ```
            /// use polyproc_semaphore::{Semaphore, TryAcquireError};
            ///
            /// let semaphore = Semaphore::new(1)?;
            /// let permit = semaphore.try_acquire()?;
            /// assert!(matches!(semaphore.try_acquire(), Err(TryAcquireError::WouldBlock)));
            /// drop(permit);
            /// assert!(semaphore.try_acquire().is_ok());
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            #[inline]
            pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
                Ok(self.handle.acquire(Deadline::PAST)?)
            }

            /// Acquires a permit, waiting at most `timeout` for it. A timeout of zero looks once.
            ///
            /// # Errors
            ///
            /// `TimedOut` if there is none then; `TooManyLocks` if the calling thread holds 2,048 others.
            ///
            /// # Example
            ///
            /// ```
            /// use polyproc_semaphore::{AcquireTimeoutError, Semaphore};
            /// use std::time::Duration;
            ///
            /// let semaphore = Semaphore::new(1)?;
            /// let permit = semaphore.acquire();
            /// let waited = semaphore.acquire_timeout(Duration::from_millis(10));
            /// assert!(matches!(waited, Err(AcquireTimeoutError::TimedOut)));
            /// # drop((waited, permit));
            /// # Ok::<(), std::io::Error>(())
            /// ```
            #[inline]
            pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, AcquireTimeoutError> {
                Ok(self.handle.acquire(Deadline::after(timeout))?)
            }

            /// Acquires a permit, waiting for it until `deadline` at the latest. A deadline that has passed
            /// looks once.
            ///
            /// # Errors
            ///
            /// As [`acquire_timeout`](Self::acquire_timeout).
            #[inline]
            pub fn acquire_until(&self, deadline: Instant) -> Result<Permit<'_>, AcquireTimeoutError> {
                Ok(self.handle.acquire(Deadline::at(deadline))?)
            }

            /// How many permits nobody holds. The answer may be out of date by the time the caller looks at
            /// it.
            pub fn available(&self) -> u32 {
                self.handle.raw().available()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.handle.debug(stringify!($name), f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.handle.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                Ok($name { handle: Handle::deserialize(Self::KIND, deserializer)? })
            }
        }
    };
}

operations!(Semaphore);
operations!(BoundedSemaphore);

impl Semaphore {
    /// Adds `count` permits, which nobody need have held, and wakes as many waiters. Never sleeps.
    ///
    /// All or none: a process that is killed in the middle of it has released all of them, or none. This is
    /// Python's `release`, and `sem_post`. A [`Permit`] goes back by itself when it is dropped.
    ///
    /// Not for signal handlers.
    ///
    /// # Errors
    ///
    /// If there would then be more than 2³¹ - 1 permits, including those that are held. Nothing is released.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_semaphore::Semaphore;
    ///
    /// // Items that are ready: a producer adds them, consumers take them for good.
    /// let ready = Semaphore::new(0)?;
    /// ready.release(3)?;
    /// ready.acquire().forget();
    /// assert_eq!(ready.available(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(&self, count: u32) -> Result<(), ReleaseError> {
        self.handle.raw().release(count)
    }
}

impl BoundedSemaphore {
    /// Adds `count` permits in the place of [forgotten](Permit::forget) ones, and wakes as many waiters.
    ///
    /// All or none: a process that is killed in the middle of it has released all of them, or none. It may
    /// have to wait some hundred instructions for another thread that does the same.
    ///
    /// Not for signal handlers.
    ///
    /// # Errors
    ///
    /// If fewer have been forgotten. This is exact, whatever other processes do at the same time. Nothing is
    /// released.
    pub fn release(&self, count: u32) -> Result<(), ReleaseError> {
        self.handle.raw().release(count)
    }
}
