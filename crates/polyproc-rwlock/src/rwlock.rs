//! [`RwLock`]: the lock with its data, and its handle.

use crate::guard::{RwLockReadGuard, RwLockWriteGuard};
use crate::raw::{RawRwLock, ReaderSlot};
use bytemuck::Pod;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_mutex::{LockTimeoutError, PoisonCause, PoisonError, RawMutex, TryLockError};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many reads can be under way at once, if [`RwLock::with_readers`] does not say otherwise. With as many,
/// the lock of a number fits into one page.
pub const READERS: u32 = 60;

/// Data that many threads of all processes read at a time, or one writes.
///
/// This is a handle: clones are the same lock, and so is a clone that is given to another process. See the
/// [crate](crate) for what blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_rwlock::RwLock;
///
/// let limits = RwLock::new([10u32, 20])?;
/// {
///     let (one, other) = (limits.read().unwrap(), limits.read().unwrap());
///     assert_eq!(one[0] + other[1], 30);
/// } // Both readers are gone here.
/// limits.write().unwrap()[0] += 1;
/// assert_eq!(*limits.read().unwrap(), [11, 20]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RwLock<T> {
    mapped: Arc<Mapped>,
    writer: NonNull<RawMutex>,
    slots: NonNull<[ReaderSlot]>,
    data: NonNull<T>,
}

// SAFETY: the lock orders all access to the data, from threads as from processes; the pointers are into the
// mapping that `mapped` keeps. Guards give out `&T` to several threads at a time, also from a clone in each
// of them, or `&mut T` to one.
unsafe impl<T: Send + Sync> Send for RwLock<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

/// What keeps the lock mapped, for all clones of a handle.
struct Mapped {
    object: Object,
    slots: NonNull<[ReaderSlot]>,
}

// SAFETY: the pointer is into the mapping that `object` keeps, to atomics only.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped as long as the object is there; the slots were checked to be some when attached.
        let slots = unsafe { self.slots.as_ref() };
        // No guard is left, but one may have been forgotten: its slot is a node in its thread's robust list,
        // and must stay where it is, for the life of the process.
        if slots.iter().any(ReaderSlot::is_of_this_process) {
            core::mem::forget(self.object.clone());
        }
    }
}

/// What a lock with so many reader slots is, for whoever attaches to one, and where its data and its slots
/// lie. The writer lock is at the beginning, and small data in the same cache line.
fn shape<T: Pod>(readers: u64) -> Option<(Shape, usize, usize)> {
    let count = usize::try_from(readers).ok().filter(|count| *count != 0)?;
    let (payload, data) = Layout::new::<RawMutex>().extend(Layout::new::<T>()).ok()?;
    let (payload, slots) = payload.extend(Layout::array::<ReaderSlot>(count).ok()?).ok()?;
    let shape = Shape {
        kind: Kind::new("rwlock"),
        code: 0,
        element: Layout::new::<T>(),
        count: readers,
        payload: payload.pad_to_align(),
        lock: true,
    };
    Some((shape, data, slots))
}

impl<T: Pod> RwLock<T> {
    /// Makes an unlocked lock with this data, in memory of its own, for [`READERS`] reads at once.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new(value: T) -> io::Result<RwLock<T>> {
        RwLock::create(None, value, READERS)
    }

    /// [`new`](RwLock::new), in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](RwLock::new).
    pub fn new_in(arena: &Arena, value: T) -> io::Result<RwLock<T>> {
        RwLock::create(Some(arena), value, READERS)
    }

    /// [`new`](RwLock::new), for `readers` reads at once. Each costs 64 bytes, and a look in every write.
    ///
    /// # Errors
    ///
    /// As for [`new`](RwLock::new); `InvalidInput` for none.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_rwlock::{RwLock, TryLockError};
    ///
    /// let lock = RwLock::with_readers(1, 1)?;
    /// let read = lock.read().unwrap();
    /// std::thread::scope(|scope| {
    ///     // Its only place for a reader is taken.
    ///     let other = scope.spawn(|| matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
    ///     assert!(other.join().unwrap());
    /// });
    /// # drop(read);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_readers(value: T, readers: u32) -> io::Result<RwLock<T>> {
        RwLock::create(None, value, readers)
    }

    /// [`with_readers`](RwLock::with_readers), in an arena.
    ///
    /// # Errors
    ///
    /// As for [`with_readers`](RwLock::with_readers), and
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`].
    pub fn with_readers_in(arena: &Arena, value: T, readers: u32) -> io::Result<RwLock<T>> {
        RwLock::create(Some(arena), value, readers)
    }

    fn create(arena: Option<&Arena>, value: T, readers: u32) -> io::Result<RwLock<T>> {
        robust::check()?;
        if readers == 0 {
            let message = "a readers-writer lock needs a place for one reader at least";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let (shape, data, slots) = shape::<T>(readers.into()).ok_or(io::ErrorKind::OutOfMemory)?;
        let lock = RwLock::at(Object::create(arena, &shape)?, data, slots);
        // SAFETY: the data is mapped, aligned, and nobody else knows of it yet.
        unsafe { lock.data.write(value) };
        Ok(lock)
    }

    /// The lock that is this object, whose payload has been checked to have the shape.
    fn at(object: Object, data: usize, slots: usize) -> RwLock<T> {
        let payload = object.payload();
        // SAFETY: the shape's payload reaches beyond its data.
        let data = unsafe { payload.add(data) };
        // SAFETY: the shape's payload reaches beyond the beginning of its slots.
        let slots = unsafe { payload.add(slots) };
        let slots = NonNull::slice_from_raw_parts(slots.cast(), object.count() as usize);
        RwLock {
            writer: payload.cast(),
            slots,
            data: data.cast(),
            mapped: Arc::new(Mapped { object, slots }),
        }
    }
}

impl<T> RwLock<T> {
    /// Takes the lock to read, waiting for as long as it takes: while a writer has it, or waits for it.
    ///
    /// A thread that already reads gets it at once.
    ///
    /// # Errors
    ///
    /// If a writer died or panicked in the middle of its work. The lock is taken all the same: the error has
    /// the guard, and [`cause`](PoisonError::cause) says who it was.
    ///
    /// # Panics
    ///
    /// If the calling thread holds this lock to write, or 2,048 other locks.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_rwlock::RwLock;
    ///
    /// let lock = RwLock::new(1)?;
    /// let (one, another) = (lock.read().unwrap(), lock.read().unwrap());
    /// assert_eq!(*one + *another, 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn read(&self) -> Result<RwLockReadGuard<'_, T>, PoisonError<RwLockReadGuard<'_, T>>> {
        let raw = self.raw();
        // SAFETY: the guard borrows the handle, which keeps the lock mapped; if it is forgotten, `Mapped`
        // does.
        match unsafe { raw.read_until(Deadline::NEVER) } {
            // SAFETY: got just now.
            Ok(slot) => unsafe { RwLockReadGuard::new(self.data, slot, raw) },
            Err(refusal) => refusal.panic(),
        }
    }

    /// Takes the lock to read if no writer has it or waits for it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if a writer, perhaps the calling thread, has it or waits for it, if there is no place for
    /// one more reader, or if another reader is just coming in after a writer; `Poisoned` with the guard as
    /// for [`read`](RwLock::read); `TooManyLocks` if the calling thread holds 2,048 others.
    #[inline]
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError<RwLockReadGuard<'_, T>>> {
        let raw = self.raw();
        // SAFETY: as in `read`.
        let slot = unsafe { raw.read_until(Deadline::PAST) }?;
        // SAFETY: got just now.
        Ok(unsafe { RwLockReadGuard::new(self.data, slot, raw) }?)
    }

    /// Takes the lock to read, waiting at most `timeout` for it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// `TimedOut` if it could not be had in time, for the reasons that [`try_read`](RwLock::try_read) has;
    /// `Poisoned` with the guard as for [`read`](RwLock::read); `TooManyLocks` if the calling thread holds
    /// 2,048 others.
    #[inline]
    pub fn read_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RwLockReadGuard<'_, T>, LockTimeoutError<RwLockReadGuard<'_, T>>> {
        self.read_deadline(Deadline::after(timeout))
    }

    /// Takes the lock to read, waiting for it until `deadline` at the latest. A deadline that has passed
    /// looks once.
    ///
    /// # Errors
    ///
    /// As for [`read_timeout`](RwLock::read_timeout).
    #[inline]
    pub fn read_until(
        &self,
        deadline: Instant,
    ) -> Result<RwLockReadGuard<'_, T>, LockTimeoutError<RwLockReadGuard<'_, T>>> {
        self.read_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn read_deadline(
        &self,
        deadline: Deadline,
    ) -> Result<RwLockReadGuard<'_, T>, LockTimeoutError<RwLockReadGuard<'_, T>>> {
        let raw = self.raw();
        // SAFETY: as in `read`.
        let slot = unsafe { raw.read_until(deadline) }?;
        // SAFETY: got just now.
        Ok(unsafe { RwLockReadGuard::new(self.data, slot, raw) }?)
    }

    /// Takes the lock to write, waiting for as long as it takes. While it waits, new readers wait behind it.
    ///
    /// # Errors
    ///
    /// If a writer died or panicked in the middle of its work. The lock is taken all the same: the error has
    /// the guard, and [`cause`](PoisonError::cause) says who it was.
    ///
    /// # Panics
    ///
    /// If the calling thread holds this lock already, to write or to read, or 2,048 others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_rwlock::RwLock;
    ///
    /// let lock = RwLock::new(1)?;
    /// *lock.write().unwrap() += 1;
    /// assert_eq!(*lock.read().unwrap(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline(always)]
    #[track_caller]
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, T>, PoisonError<RwLockWriteGuard<'_, T>>> {
        let raw = self.raw();
        // SAFETY: the guard borrows the handle, which keeps the lock mapped; if it is forgotten, its region
        // does.
        match unsafe { raw.write_until(Deadline::NEVER) } {
            // SAFETY: locked just now.
            Ok(()) => unsafe { RwLockWriteGuard::new(self.data, raw) },
            Err(refusal) => refusal.panic(),
        }
    }

    /// Takes the lock to write if nobody has it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if anybody has it, perhaps the calling thread, or is just about to take it; `Poisoned`
    /// with the guard as for [`write`](RwLock::write); `TooManyLocks` if the calling thread holds 2,048
    /// others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_rwlock::{RwLock, TryLockError};
    ///
    /// let lock = RwLock::new(1)?;
    /// let read = lock.read().unwrap();
    /// assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
    /// drop(read);
    /// *lock.try_write().unwrap() += 1;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, TryLockError<RwLockWriteGuard<'_, T>>> {
        let raw = self.raw();
        // SAFETY: as in `write`.
        unsafe { raw.write_until(Deadline::PAST) }?;
        // SAFETY: locked just now.
        Ok(unsafe { RwLockWriteGuard::new(self.data, raw) }?)
    }

    /// Takes the lock to write, waiting at most `timeout` for it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// `TimedOut` if somebody still has it then; `Poisoned` with the guard as for [`write`](RwLock::write);
    /// `TooManyLocks` if the calling thread holds 2,048 others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_rwlock::{LockTimeoutError, RwLock};
    /// use std::time::Duration;
    ///
    /// let lock = RwLock::new(1)?;
    /// let read = lock.read().unwrap();
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| {
    ///         matches!(lock.write_timeout(Duration::from_millis(10)), Err(LockTimeoutError::TimedOut))
    ///     });
    ///     assert!(other.join().unwrap());
    /// });
    /// # drop(read);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn write_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RwLockWriteGuard<'_, T>, LockTimeoutError<RwLockWriteGuard<'_, T>>> {
        self.write_deadline(Deadline::after(timeout))
    }

    /// Takes the lock to write, waiting for it until `deadline` at the latest. A deadline that has passed
    /// looks once.
    ///
    /// # Errors
    ///
    /// As for [`write_timeout`](RwLock::write_timeout).
    #[inline]
    pub fn write_until(
        &self,
        deadline: Instant,
    ) -> Result<RwLockWriteGuard<'_, T>, LockTimeoutError<RwLockWriteGuard<'_, T>>> {
        self.write_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn write_deadline(
        &self,
        deadline: Deadline,
    ) -> Result<RwLockWriteGuard<'_, T>, LockTimeoutError<RwLockWriteGuard<'_, T>>> {
        let raw = self.raw();
        // SAFETY: as in `write`.
        unsafe { raw.write_until(deadline) }?;
        // SAFETY: locked just now.
        Ok(unsafe { RwLockWriteGuard::new(self.data, raw) }?)
    }

    /// How many reads are under way. The answer may be out of date by the time the caller looks at it.
    pub fn readers(&self) -> usize {
        self.raw().readers()
    }

    /// The id of the process that has the lock to write; `None` if nobody does. A writer that still waits for
    /// readers does not have it yet.
    pub fn writer(&self) -> Option<u32> {
        self.raw().writer().holder()
    }

    /// How many reads can be under way at once.
    pub fn max_readers(&self) -> usize {
        self.slots.len()
    }

    /// Why the lock is poisoned, which means that the data may be half changed; `None` if it is not.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        self.raw().writer().poison_cause()
    }

    /// Whether the lock is poisoned, which means that the data may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the data repaired: the next [`read`](RwLock::read) or [`write`](RwLock::write) is `Ok`.
    pub fn clear_poison(&self) {
        self.raw().writer().clear_poison();
    }

    #[inline(always)]
    fn raw(&self) -> RawRwLock<'_> {
        // SAFETY: points into the mapping that `mapped` keeps, to a lock that was checked to be one when
        // attached; it is made of atomics only.
        let writer = unsafe { self.writer.as_ref() };
        // SAFETY: as above.
        let slots = unsafe { self.slots.as_ref() };
        RawRwLock::new(writer, slots)
    }
}

impl<T> Clone for RwLock<T> {
    fn clone(&self) -> RwLock<T> {
        RwLock { mapped: self.mapped.clone(), ..*self }
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RwLock");
        let reading: Vec<u32> = self.raw().reading().collect();
        match self.try_read() {
            Ok(guard) => debug.field("data", &*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &**error.get_ref()),
            Err(_) => debug.field("data", &format_args!("<locked>")).field("writer", &self.writer()),
        };
        debug.field("readers", &reading).field("poison", &self.poison_cause()).finish_non_exhaustive()
    }
}

/// Works inside a hand-over only: as an argument for another process, or in a message that can carry
/// descriptors.
impl<T> Serialize for RwLock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.mapped.object.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for RwLock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RwLock<T>, D::Error> {
        let object = Object::deserialize(deserializer, |readers| Some(shape::<T>(readers)?.0))?;
        let too_large = || serde::de::Error::custom("the lock is too large");
        let (_, data, slots) = shape::<T>(object.count()).ok_or_else(too_large)?;
        Ok(RwLock::at(object, data, slots))
    }
}
