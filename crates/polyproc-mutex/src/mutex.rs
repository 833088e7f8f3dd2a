//! [`Mutex`]: the lock with its data, its handle and its guard.

use crate::error::{LockTimeoutError, PoisonError, TryLockError};
use crate::poison::PoisonCause;
use crate::raw::RawMutex;
use crate::section::CriticalSection;
use bytemuck::Pod;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// Data that one thread of all processes works on at a time.
///
/// This is a handle: clones are the same mutex, and so is a clone that is given to another process. See the
/// [crate](crate) for what blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_mutex::Mutex;
///
/// let position = Mutex::new([0.0f64; 3])?;
/// {
///     let mut position = position.lock().unwrap();
///     position[0] += 1.5;
/// } // Unlocked here.
/// assert_eq!(*position.lock().unwrap(), [1.5, 0.0, 0.0]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Mutex<T> {
    object: Object,
    raw: NonNull<RawMutex>,
    data: NonNull<T>,
}

// SAFETY: the lock orders all access to the data, from threads as from processes; the pointers are into the
// mapping that `object` keeps.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above. A guard gives out `&mut T` to one thread at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// What a mutex is, for whoever attaches to one, and where its data lies.
fn shape<T: Pod>() -> Option<(Shape, usize)> {
    let (payload, data) = Layout::new::<RawMutex>().extend(Layout::new::<T>()).ok()?;
    let shape = Shape {
        kind: Kind::new("mutex"),
        code: 0,
        element: Layout::new::<T>(),
        count: 1,
        payload: payload.pad_to_align(),
        lock: true,
    };
    Some((shape, data))
}

impl<T: Pod> Mutex<T> {
    /// Makes an unlocked mutex with this data, in memory of its own.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new(value: T) -> io::Result<Mutex<T>> {
        Mutex::create(None, value)
    }

    /// Makes an unlocked mutex with this data, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](Mutex::new).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_mutex::{Arena, Mutex};
    ///
    /// let arena = Arena::new(1000 * 128)?; // 128 bytes for each, header included.
    /// let mutexes = (0..1000).map(|n| Mutex::new_in(&arena, n)).collect::<Result<Vec<Mutex<u64>>, _>>()?;
    /// assert_eq!(*mutexes[7].lock().unwrap(), 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new_in(arena: &Arena, value: T) -> io::Result<Mutex<T>> {
        Mutex::create(Some(arena), value)
    }

    fn create(arena: Option<&Arena>, value: T) -> io::Result<Mutex<T>> {
        robust::check()?;
        let (shape, data) = shape::<T>().ok_or(io::ErrorKind::OutOfMemory)?;
        let mutex = Mutex::at(Object::create(arena, &shape)?, data);
        // SAFETY: the data is mapped, aligned, and nobody else knows of it yet.
        unsafe { mutex.data.write(value) };
        Ok(mutex)
    }

    /// The mutex that is this object, whose payload has been checked to have the shape.
    fn at(object: Object, data: usize) -> Mutex<T> {
        let payload = object.payload();
        // SAFETY: the shape's payload reaches beyond its data.
        let data = unsafe { payload.add(data) };
        Mutex { raw: payload.cast(), data: data.cast(), object }
    }
}

impl<T> Mutex<T> {
    /// Takes the lock, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// If a holder died or panicked in the middle of its work. The lock is taken all the same: the error has
    /// the guard, and [`cause`](PoisonError::cause) says who it was.
    ///
    /// # Panics
    ///
    /// If the calling thread holds this mutex already, or 2,048 others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_mutex::Mutex;
    ///
    /// let total = Mutex::new(0u64)?;
    /// let mut guard = total.lock().unwrap_or_else(|error| {
    ///     eprintln!("{}", error.cause()); // Who died or panicked. Here the data can be repaired.
    ///     total.clear_poison();
    ///     error.into_inner()
    /// });
    /// *guard += 1;
    /// # drop(guard);
    /// # assert_eq!(*total.lock().unwrap(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, PoisonError<MutexGuard<'_, T>>> {
        // SAFETY: the guard borrows the handle, whose object keeps the mutex mapped.
        match unsafe { self.raw().lock_until(Deadline::NEVER) } {
            Ok(()) => MutexGuard::new(self),
            Err(refusal) => refusal.panic(),
        }
    }

    /// Takes the lock if nobody holds it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the lock is held, also by the calling thread; `Poisoned` with the guard as for
    /// [`lock`](Mutex::lock); `TooManyLocks` if the calling thread holds 2,048 others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_mutex::{Mutex, TryLockError};
    ///
    /// let mutex = Mutex::new(1)?;
    /// let guard = mutex.lock().unwrap();
    /// assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
    /// drop(guard);
    /// assert_eq!(*mutex.try_lock().unwrap(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError<MutexGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        unsafe { self.raw().try_lock() }?;
        Ok(MutexGuard::new(self)?)
    }

    /// Takes the lock, waiting at most `timeout` for it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// `TimedOut` if the lock is still held then; `Poisoned` with the guard as for [`lock`](Mutex::lock);
    /// `TooManyLocks` if the calling thread holds 2,048 others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_mutex::{LockTimeoutError, Mutex};
    /// use std::time::Duration;
    ///
    /// let mutex = Mutex::new(1)?;
    /// let guard = mutex.lock().unwrap();
    /// let waited = mutex.lock_timeout(Duration::from_millis(10));
    /// assert!(matches!(waited, Err(LockTimeoutError::TimedOut)));
    /// assert_eq!(mutex.holder(), Some(std::process::id())); // Who keeps it.
    /// # drop(guard);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<MutexGuard<'_, T>, LockTimeoutError<MutexGuard<'_, T>>> {
        self.lock_deadline(Deadline::after(timeout))
    }

    /// Takes the lock, waiting for it until `deadline` at the latest. A deadline that has passed looks once.
    ///
    /// # Errors
    ///
    /// As for [`lock_timeout`](Mutex::lock_timeout).
    #[inline]
    pub fn lock_until(
        &self,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, T>, LockTimeoutError<MutexGuard<'_, T>>> {
        self.lock_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn lock_deadline(
        &self,
        deadline: Deadline,
    ) -> Result<MutexGuard<'_, T>, LockTimeoutError<MutexGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        unsafe { self.raw().lock_until(deadline) }?;
        Ok(MutexGuard::new(self)?)
    }

    /// Whether anybody holds the lock. The answer may be out of date by the time the caller looks at it.
    pub fn is_locked(&self) -> bool {
        self.raw().is_locked()
    }

    /// The id of the process that holds the lock; `None` if nobody does.
    pub fn holder(&self) -> Option<u32> {
        self.raw().holder()
    }

    /// Why the lock is poisoned, which means that the data may be half changed; `None` if it is not.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        self.raw().poison_cause()
    }

    /// Whether the lock is poisoned, which means that the data may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the data repaired: the next [`lock`](Mutex::lock) is `Ok`.
    pub fn clear_poison(&self) {
        self.raw().clear_poison();
    }

    #[inline]
    fn raw(&self) -> &RawMutex {
        // SAFETY: points into the mapping that `object` keeps, to a lock that was checked to be one when
        // attached; it is made of atomics only.
        unsafe { self.raw.as_ref() }
    }
}

impl<T> Clone for Mutex<T> {
    fn clone(&self) -> Mutex<T> {
        Mutex { object: self.object.clone(), ..*self }
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => debug.field("data", &*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &**error.get_ref()),
            Err(_) => debug.field("data", &format_args!("<locked>")).field("holder", &self.holder()),
        };
        debug.field("poison", &self.poison_cause()).finish_non_exhaustive()
    }
}

impl<T> Serialize for Mutex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Mutex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mutex<T>, D::Error> {
        let object = Object::deserialize(deserializer, |_| Some(shape::<T>()?.0))?;
        let (_, data) = shape::<T>().ok_or_else(|| serde::de::Error::custom("the mutex is too large"))?;
        Ok(Mutex::at(object, data))
    }
}

/// A lock that is held. It gives access to the data, until it is dropped.
///
/// If it is dropped while its thread panics, it poisons the mutex. It stays with its thread (it is not
/// `Send`). In a child made by `fork` it does nothing: the lock is the parent's.
#[must_use = "the mutex is unlocked as soon as the guard is dropped"]
pub struct MutexGuard<'a, T> {
    data: NonNull<T>,
    section: CriticalSection<'a>,
    /// Gives out `&mut T`.
    data_type: PhantomData<&'a mut T>,
}

// SAFETY: a shared guard gives out `&T`, and nothing else that depends on the thread.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<'a, T> MutexGuard<'a, T> {
    /// The guard of a mutex that this thread has just locked.
    #[inline(always)]
    fn new(mutex: &'a Mutex<T>) -> Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>> {
        // SAFETY: just locked; whoever has the guard has the section.
        let section = unsafe { CriticalSection::enter(mutex.raw()) };
        let guard = MutexGuard { data: mutex.data, section, data_type: PhantomData };
        match guard.section.raw().poison_cause() {
            None => Ok(guard),
            Some(cause) => Err(PoisonError::new(guard, cause)),
        }
    }

    /// The critical section that the guard is: for building a condition variable on it.
    pub fn section<'g>(guard: &'g MutexGuard<'a, T>) -> &'g CriticalSection<'a> {
        &guard.section
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the data is mapped while the handle lives, any bit pattern is a T, and the lock is held.
        unsafe { self.data.as_ref() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the guard is borrowed exclusively, and it is the only one.
        unsafe { self.data.as_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
