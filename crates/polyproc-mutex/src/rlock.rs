//! [`RLock`]: a lock that its holder can take again.

use crate::error::{LockTimeoutError, PoisonError, TryLockError};
use crate::poison::PoisonCause;
use crate::raw::{RawMutex, Refusal};
use crate::section::Origin;
use bytemuck::Pod;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::{robust, thread};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

/// [`RawMutex`], taken again by its holder at will: the protocol of [`RLock`].
///
/// | `token` | `depth` | meaning |
/// |---|---|---|
/// | 0, or a dead thread's | any | nobody is inside |
/// | a living thread's | n | that thread holds it, n times |
///
/// The token is a random number of the thread's own. So the owner is known beyond doubt, whatever PID
/// namespace it lives in, and a forked child is not its parent.
#[derive(Debug, Default)]
#[repr(C)]
pub struct RawRLock {
    mutex: RawMutex,
    token: AtomicU64,
    depth: AtomicU32,
    padding: u32,
}

const _: () = assert!(size_of::<RawRLock>() == 56 && align_of::<RawRLock>() == 8);

impl RawRLock {
    /// An unlocked lock.
    pub const fn new() -> RawRLock {
        RawRLock { mutex: RawMutex::new(), token: AtomicU64::new(0), depth: AtomicU32::new(0), padding: 0 }
    }

    /// The lock below: who holds it, and its poison.
    pub fn mutex(&self) -> &RawMutex {
        &self.mutex
    }

    /// How many times the calling thread holds it.
    pub fn depth(&self) -> u32 {
        // Relaxed: only the holder reads its own token here.
        let mine = self.token.load(Ordering::Relaxed) == thread::current().token();
        if mine { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    /// Takes the lock, at once if the calling thread holds it, else waiting for it until the deadline.
    ///
    /// # Errors
    ///
    /// [`Refusal::TimedOut`] or [`Refusal::TooManyLocks`].
    ///
    /// # Panics
    ///
    /// If the thread has taken it 2³² - 1 times.
    ///
    /// # Safety
    ///
    /// As for [`RawMutex::try_lock`].
    #[inline]
    pub unsafe fn lock_until(&self, deadline: Deadline) -> Result<(), Refusal> {
        let token = thread::current().token();
        if self.token.load(Ordering::Relaxed) == token {
            let depth = self.depth.load(Ordering::Relaxed);
            self.depth.store(depth.checked_add(1).expect("locked 2^32 - 1 times"), Ordering::Relaxed);
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.mutex.lock_until(deadline)? };
        self.depth.store(1, Ordering::Relaxed);
        self.token.store(token, Ordering::Relaxed);
        self.mutex.enter();
        Ok(())
    }

    /// Releases the lock, however often the calling thread holds it, and returns how often. Never blocks.
    ///
    /// For [`lock_again`](RawRLock::lock_again).
    ///
    /// # Safety
    ///
    /// The calling thread holds it, in this process.
    pub unsafe fn unlock_all(&self) -> u32 {
        let depth = self.depth.swap(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { self.unlock() };
        depth
    }

    /// Takes the lock as often as [`unlock_all`](RawRLock::unlock_all) released it, waiting for it as long as
    /// it takes.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyLocks`].
    ///
    /// # Safety
    ///
    /// As for [`RawMutex::try_lock`]. The calling thread does not hold it.
    pub unsafe fn lock_again(&self, depth: u32) -> Result<(), Refusal> {
        // SAFETY: the caller's.
        unsafe { self.lock_until(Deadline::NEVER)? };
        self.depth.store(depth, Ordering::Relaxed);
        Ok(())
    }

    /// Releases the lock once. Never blocks.
    ///
    /// # Safety
    ///
    /// The calling thread holds it, in this process.
    #[inline]
    pub unsafe fn unlock(&self) {
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            self.mutex.leave();
            self.token.store(0, Ordering::Relaxed);
            // SAFETY: the caller's; it was the last of its locks.
            unsafe { self.mutex.unlock() };
        }
    }
}

/// A lock that its holder can take again, and data that it protects.
///
/// The thread that holds it gets it again at once, as often as it likes; the others get it when the thread
/// has dropped as many guards as it took. Since a thread can have several guards, they give only `&T`.
/// [`set`](RLockGuard::set) replaces the data when there is only one. To protect something elsewhere, use
/// `RLock<()>`.
///
/// A handle, like [`Mutex`](crate::Mutex), with the same treatment of deaths and panics. A child made by
/// `fork` does not own what its parent holds.
///
/// # Example
///
/// ```
/// use polyproc_mutex::RLock;
///
/// let lock = RLock::new(7)?;
/// let outer = lock.lock().unwrap();
/// let inner = lock.lock().unwrap(); // A Mutex would panic here.
/// assert_eq!((*outer, *inner, lock.depth()), (7, 7, 2));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RLock<T> {
    object: Object,
    raw: NonNull<RawRLock>,
    data: NonNull<T>,
}

// SAFETY: the lock orders all access to the data, from threads as from processes; the pointers are into the
// mapping that `object` keeps.
unsafe impl<T: Send> Send for RLock<T> {}
// SAFETY: as above. The guards of one thread at a time give out `&T`.
unsafe impl<T: Send> Sync for RLock<T> {}

/// What an RLock is, for whoever attaches to one, and where its data lies.
fn shape<T: Pod>() -> Option<(Shape, usize)> {
    let (payload, data) = Layout::new::<RawRLock>().extend(Layout::new::<T>()).ok()?;
    let shape = Shape {
        kind: Kind::new("rlock"),
        code: 0,
        element: Layout::new::<T>(),
        count: 1,
        payload: payload.pad_to_align(),
        lock: true,
    };
    Some((shape, data))
}

impl<T: Pod> RLock<T> {
    /// Makes an unlocked lock with this data, in memory of its own.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new(value: T) -> io::Result<RLock<T>> {
        RLock::create(None, value)
    }

    /// Makes an unlocked lock with this data, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](RLock::new).
    pub fn new_in(arena: &Arena, value: T) -> io::Result<RLock<T>> {
        RLock::create(Some(arena), value)
    }

    fn create(arena: Option<&Arena>, value: T) -> io::Result<RLock<T>> {
        robust::check()?;
        let (shape, data) = shape::<T>().ok_or(io::ErrorKind::OutOfMemory)?;
        let lock = RLock::at(Object::create(arena, &shape)?, data);
        // SAFETY: the data is mapped, aligned, and nobody else knows of it yet.
        unsafe { lock.data.write(value) };
        Ok(lock)
    }

    /// The lock that is this object, whose payload has been checked to have the shape.
    fn at(object: Object, data: usize) -> RLock<T> {
        let payload = object.payload();
        // SAFETY: the shape's payload reaches beyond its data.
        let data = unsafe { payload.add(data) };
        RLock { raw: payload.cast(), data: data.cast(), object }
    }
}

impl<T> RLock<T> {
    /// Takes the lock: at once if the calling thread holds it, otherwise waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// If a holder died or panicked in the middle of its work. The lock is taken all the same: the error has
    /// the guard, and [`cause`](PoisonError::cause) says who it was.
    ///
    /// # Panics
    ///
    /// If the calling thread holds 2,048 other locks.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Result<RLockGuard<'_, T>, PoisonError<RLockGuard<'_, T>>> {
        // SAFETY: the guard borrows the handle, whose object keeps the lock mapped.
        match unsafe { self.raw().lock_until(Deadline::NEVER) } {
            Ok(()) => RLockGuard::new(self),
            Err(refusal) => refusal.panic(),
        }
    }

    /// Takes the lock if nobody else holds it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another thread holds it; `Poisoned` with the guard as for [`lock`](RLock::lock);
    /// `TooManyLocks` if the calling thread holds 2,048 others.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_mutex::{RLock, TryLockError};
    ///
    /// let lock = RLock::new(1)?;
    /// let guard = lock.lock().unwrap();
    /// assert_eq!(*lock.try_lock().unwrap(), 1); // This thread has it.
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    ///     assert!(other.join().unwrap());
    /// });
    /// # drop(guard);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<RLockGuard<'_, T>, TryLockError<RLockGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        unsafe { self.raw().lock_until(Deadline::PAST) }?;
        Ok(RLockGuard::new(self)?)
    }

    /// Takes the lock, waiting at most `timeout` for it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// `TimedOut` if another thread still holds it then; `Poisoned` with the guard as for
    /// [`lock`](RLock::lock); `TooManyLocks` if the calling thread holds 2,048 others.
    #[inline]
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<RLockGuard<'_, T>, LockTimeoutError<RLockGuard<'_, T>>> {
        self.lock_deadline(Deadline::after(timeout))
    }

    /// Takes the lock, waiting for it until `deadline` at the latest. A deadline that has passed looks once.
    ///
    /// # Errors
    ///
    /// As for [`lock_timeout`](RLock::lock_timeout).
    #[inline]
    pub fn lock_until(
        &self,
        deadline: Instant,
    ) -> Result<RLockGuard<'_, T>, LockTimeoutError<RLockGuard<'_, T>>> {
        self.lock_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn lock_deadline(
        &self,
        deadline: Deadline,
    ) -> Result<RLockGuard<'_, T>, LockTimeoutError<RLockGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        unsafe { self.raw().lock_until(deadline) }?;
        Ok(RLockGuard::new(self)?)
    }

    /// Whether any thread holds the lock, the calling one included.
    pub fn is_locked(&self) -> bool {
        self.raw().mutex().is_locked()
    }

    /// How many times the calling thread holds the lock.
    pub fn depth(&self) -> u32 {
        self.raw().depth()
    }

    /// The id of the process that holds the lock; `None` if nobody does.
    pub fn holder(&self) -> Option<u32> {
        self.raw().mutex().holder()
    }

    /// Why the lock is poisoned, which means that the data may be half changed; `None` if it is not.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        self.raw().mutex().poison_cause()
    }

    /// Whether the lock is poisoned, which means that the data may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the data repaired: the next [`lock`](RLock::lock) is `Ok`.
    pub fn clear_poison(&self) {
        self.raw().mutex().clear_poison();
    }

    #[inline]
    fn raw(&self) -> &RawRLock {
        // SAFETY: points into the mapping that `object` keeps, to a lock that was checked to be one when
        // attached; it is made of atomics and padding only.
        unsafe { self.raw.as_ref() }
    }
}

impl<T> Clone for RLock<T> {
    fn clone(&self) -> RLock<T> {
        RLock { object: self.object.clone(), ..*self }
    }
}

impl<T: fmt::Debug> fmt::Debug for RLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RLock");
        match self.try_lock() {
            Ok(guard) => debug.field("data", &*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &**error.get_ref()),
            Err(_) => debug.field("data", &format_args!("<locked>")).field("holder", &self.holder()),
        };
        debug.field("poison", &self.poison_cause()).finish_non_exhaustive()
    }
}

impl<T> Serialize for RLock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for RLock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RLock<T>, D::Error> {
        let object = Object::deserialize(deserializer, |_| Some(shape::<T>()?.0))?;
        let (_, data) = shape::<T>().ok_or_else(|| serde::de::Error::custom("the lock is too large"))?;
        Ok(RLock::at(object, data))
    }
}

/// A lock that is held, perhaps not for the first time. It lets its thread look at the data, until it is
/// dropped.
///
/// If it is dropped while its thread panics, it poisons the lock. It stays with its thread (it is not
/// `Send`); in a child made by `fork` it does nothing.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct RLockGuard<'a, T> {
    lock: &'a RLock<T>,
    origin: Origin,
    /// The thread that locked is the one to unlock.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out `&T`, and nothing else that depends on the thread.
unsafe impl<T: Sync> Sync for RLockGuard<'_, T> {}

/// The thread has another guard of the lock, through which it may be looking at the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedError;

impl fmt::Display for NestedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this thread holds the lock more than once")
    }
}

impl Error for NestedError {}

impl<'a, T> RLockGuard<'a, T> {
    /// The guard of a lock that this thread has just taken, or taken again.
    #[inline(always)]
    fn new(lock: &'a RLock<T>) -> Result<RLockGuard<'a, T>, PoisonError<RLockGuard<'a, T>>> {
        let guard = RLockGuard { lock, origin: Origin::here(), not_send: PhantomData };
        match lock.poison_cause() {
            None => Ok(guard),
            Some(cause) => Err(PoisonError::new(guard, cause)),
        }
    }

    /// The lock below: for building a condition variable on it.
    pub fn raw(guard: &RLockGuard<'a, T>) -> &'a RawRLock {
        guard.lock.raw()
    }

    /// Whether the guard was taken before the `fork` that made this process: then it is the parent's.
    pub fn is_inherited(guard: &RLockGuard<'a, T>) -> bool {
        guard.origin.is_inherited()
    }

    /// Replaces the data.
    ///
    /// # Errors
    ///
    /// The thread has another guard of this lock; nothing was changed.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_mutex::RLock;
    ///
    /// let lock = RLock::new(1)?;
    /// let mut outer = lock.lock().unwrap();
    /// let inner = lock.lock().unwrap();
    /// assert!(outer.set(2).is_err()); // `inner` may be looking.
    /// drop(inner);
    /// outer.set(2).unwrap();
    /// assert_eq!(*outer, 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set(&mut self, value: T) -> Result<(), NestedError> {
        if self.origin.is_inherited() || self.lock.depth() != 1 {
            return Err(NestedError);
        }
        // SAFETY: the lock is held, and this, borrowed exclusively, is the only guard: nobody has a reference
        // to the data.
        unsafe { self.lock.data.write(value) };
        Ok(())
    }
}

impl<T> Deref for RLockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the data is mapped while the handle lives, any bit pattern is a T, the lock is held, and
        // nobody changes the data while the thread has a guard that is not borrowed exclusively.
        unsafe { self.lock.data.as_ref() }
    }
}

impl<T> Drop for RLockGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        let raw = self.lock.raw();
        if self.origin.is_inherited() {
            return;
        }
        if self.origin.panics_since() {
            raw.mutex().set_poison(PoisonCause::Panicked { pid: thread::pid() });
        }
        // SAFETY: taken when the guard was made, by this thread since guards are not `Send`, in this process.
        unsafe { raw.unlock() };
    }
}

impl<T: fmt::Debug> fmt::Debug for RLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
