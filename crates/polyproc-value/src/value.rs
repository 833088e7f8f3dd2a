//! [`Value`]: one number, or any other plain data, behind a lock.

use crate::code::header_code;
use crate::error::Poisoned;
use crate::hold::Hold;
use crate::slot;
use bytemuck::Pod;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_mutex::{CriticalSection, LockTimeoutError, PoisonCause, PoisonError, RawMutex, TryLockError};
use polyproc_sys::atomic::{AtomicU32, Ordering, compiler_fence};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// A value that all processes share, and that each operation reads or replaces as a whole.
///
/// This is a handle: clones are the same value, and so is a clone that is given to another process. `T` is
/// plain old data ([`bytemuck::Pod`]): a number, an array of numbers, a struct of your own that derives it.
///
/// [`get`](Value::get), [`set`](Value::set) and [`update`](Value::update) are one critical section each. A
/// process that is killed in one of them, at any instruction, leaves the value as it was before or as it is
/// after, and the lock free. For more than that there is [`lock`](Value::lock), whose guard works in place: a
/// death while it is held poisons.
///
/// All four wait for whoever holds the lock. See the [crate](crate) for costs.
///
/// # Examples
///
/// ```
/// use polyproc_value::Value;
///
/// let counter = Value::new(0i32)?;
/// let before = counter.update(|n| {
///     *n += 1;
///     *n - 1
/// })?;
/// assert_eq!((before, counter.get()?), (0, 1));
///
/// counter.set(40)?;
/// *counter.lock().unwrap() += 2;
/// assert_eq!(counter.get()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Value<T> {
    object: Object,
    raw: NonNull<RawMutex>,
    /// The only slot of a single type, else the first of two.
    slots: NonNull<T>,
}

// SAFETY: the lock orders all access to the data, from threads as from processes; the pointers are into the
// mapping that `object` keeps.
unsafe impl<T: Send> Send for Value<T> {}
// SAFETY: as above. A guard gives out `&mut T` to one thread at a time.
unsafe impl<T: Send> Sync for Value<T> {}

/// Where a value has the index of its current slot, if it has two: right behind the lock.
const INDEX: usize = size_of::<RawMutex>();

/// What a value is, for whoever attaches to one, and where its slots lie.
///
/// | single `T` | other `T` |
/// |---|---|
/// | lock, slot | lock, index (`u32`) of the current slot, two slots |
fn shape<T: Pod>() -> Option<(Shape, usize)> {
    let lock = Layout::new::<RawMutex>();
    let (payload, slots) = if slot::is_single::<T>() {
        lock.extend(slot::layout::<T>()).ok()?
    } else {
        lock.extend(Layout::new::<AtomicU32>()).ok()?.0.extend(Layout::array::<T>(2).ok()?).ok()?
    };
    let shape = Shape {
        kind: Kind::new("value"),
        code: header_code::<T>(),
        element: Layout::new::<T>(),
        count: 1,
        payload: payload.pad_to_align(),
        lock: true,
    };
    Some((shape, slots))
}

impl<T: Pod> Value<T> {
    /// Makes a value in memory of its own: a page and a file descriptor.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new(value: T) -> io::Result<Value<T>> {
        Value::create(None, value)
    }

    /// Makes a value in an arena, where a number takes 128 bytes, header included.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](Value::new).
    pub fn new_in(arena: &Arena, value: T) -> io::Result<Value<T>> {
        Value::create(Some(arena), value)
    }

    fn create(arena: Option<&Arena>, value: T) -> io::Result<Value<T>> {
        robust::check()?;
        let (shape, slots) = shape::<T>().ok_or(io::ErrorKind::OutOfMemory)?;
        let created = Value::at(Object::create(arena, &shape)?, slots);
        // SAFETY: the slot is mapped, aligned, and nobody else knows of it yet.
        unsafe { created.slots.write(value) };
        Ok(created)
    }

    /// The value that is this object, whose payload has been checked to have the shape.
    fn at(object: Object, slots: usize) -> Value<T> {
        let payload = object.payload();
        // SAFETY: the shape's payload reaches to the end of the slots at least.
        let slots = unsafe { payload.add(slots) };
        Value { raw: payload.cast(), slots: slots.cast(), object }
    }

    /// Returns a copy of the value.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: a process died or panicked while it held a guard.
    ///
    /// # Panics
    ///
    /// If the calling thread holds the value's lock already, or 2,048 others.
    #[inline]
    #[track_caller]
    pub fn get(&self) -> Result<T, Poisoned> {
        let hold = self.hold()?;
        // SAFETY: the current slot is mapped while the handle lives, and nobody writes to it while the lock
        // is held.
        let value = unsafe { self.current().read() };
        drop(hold);
        Ok(value)
    }

    /// Replaces the value. A process that is killed in the middle of it has replaced it or not, and poisons
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: a process died or panicked while it held a guard. The value stays.
    ///
    /// # Panics
    ///
    /// As [`get`](Value::get).
    #[inline]
    #[track_caller]
    pub fn set(&self, value: T) -> Result<(), Poisoned> {
        let hold = self.hold()?;
        if slot::is_single::<T>() {
            // SAFETY: the slot is mapped, aligned to the size, and the lock is held.
            hold.commit(|| unsafe { slot::store(self.slots.as_ptr(), value) });
        } else {
            let next = self.next_index();
            // SAFETY: the slot is mapped and aligned; it is not the current one, and the lock is held: nobody
            // looks.
            unsafe { self.slot(next).write(value) };
            hold.commit(|| self.index().store(next, Ordering::Relaxed));
        }
        Ok(())
    }

    /// Changes the value in one critical section, and returns what `f` returns.
    ///
    /// `f` works on a copy, which replaces the value when it returns. If it panics, or the process is killed
    /// in the middle of it, the value stays as it was, and nothing is poisoned. In a child that `f` forks,
    /// the call changes nothing: the lock is the parent's.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: a process died or panicked while it held a guard. `f` was not called.
    ///
    /// # Panics
    ///
    /// As [`get`](Value::get), so in particular if `f` uses the same value again: then the outer call changes
    /// nothing, unless `f` catches the panic.
    ///
    /// # Examples
    ///
    /// ```
    /// use polyproc_value::Value;
    ///
    /// let position = Value::new([0.0f32; 3])?;
    /// position.update(|[x, y, _]| (*x, *y) = (1.0, 2.0))?;
    /// assert_eq!(position.get()?, [1.0, 2.0, 0.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn update<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R, Poisoned> {
        let hold = self.hold()?;
        // SAFETY: as in `get`. A copy of this process's own, so that what a child forked by `f` does to it
        // stays there.
        let mut value = unsafe { self.current().read() };
        let result = f(&mut value);
        if slot::is_single::<T>() {
            // SAFETY: as in `set`.
            hold.commit(|| unsafe { slot::store(self.slots.as_ptr(), value) });
        } else {
            hold.commit(|| {
                let next = self.next_index();
                // SAFETY: as in `set`.
                unsafe { self.slot(next).write(value) };
                compiler_fence(Ordering::SeqCst);
                self.index().store(next, Ordering::Relaxed);
            });
        }
        Ok(result)
    }

    /// Takes the lock of a value that is whole.
    #[inline(always)]
    #[track_caller]
    fn hold(&self) -> Result<Hold<'_>, Poisoned> {
        // SAFETY: borrows the handle, whose object keeps the lock mapped. Who calls this does not forget it.
        let hold = unsafe { Hold::lock(self.raw()) };
        match hold.raw().poison_cause() {
            None => Ok(hold),
            Some(cause) => Err(Poisoned::new(cause)),
        }
    }
}

impl<T> Value<T> {
    /// Takes the lock, waiting for as long as it takes.
    ///
    /// The guard works on the value in place: if its holder is killed or panics, the value is poisoned.
    ///
    /// # Errors
    ///
    /// If a holder died or panicked in the middle of its work. The lock is taken all the same: the error has
    /// the guard, and [`cause`](PoisonError::cause) says who it was.
    ///
    /// # Panics
    ///
    /// If the calling thread holds the value's lock already, or 2,048 others.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> Result<ValueGuard<'_, T>, PoisonError<ValueGuard<'_, T>>> {
        // SAFETY: the guard borrows the handle, whose object keeps the lock mapped; a region stays mapped
        // while a lock in it is held by a guard that was forgotten.
        ValueGuard::new(self, unsafe { Hold::lock(self.raw()) })
    }

    /// Takes the lock if nobody holds it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the lock is held, also by the calling thread; `Poisoned` with the guard as for
    /// [`lock`](Value::lock); `TooManyLocks` if the calling thread holds 2,048 others.
    #[inline]
    pub fn try_lock(&self) -> Result<ValueGuard<'_, T>, TryLockError<ValueGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        let hold = unsafe { Hold::try_lock(self.raw()) }?;
        Ok(ValueGuard::new(self, hold)?)
    }

    /// Takes the lock, waiting at most `timeout` for it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// `TimedOut` if the lock is still held then; `Poisoned` with the guard as for [`lock`](Value::lock);
    /// `TooManyLocks` if the calling thread holds 2,048 others.
    #[inline]
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<ValueGuard<'_, T>, LockTimeoutError<ValueGuard<'_, T>>> {
        self.lock_deadline(Deadline::after(timeout))
    }

    /// Takes the lock, waiting for it until `deadline` at the latest. A deadline that has passed looks once.
    ///
    /// # Errors
    ///
    /// As for [`lock_timeout`](Value::lock_timeout).
    #[inline]
    pub fn lock_until(
        &self,
        deadline: Instant,
    ) -> Result<ValueGuard<'_, T>, LockTimeoutError<ValueGuard<'_, T>>> {
        self.lock_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn lock_deadline(
        &self,
        deadline: Deadline,
    ) -> Result<ValueGuard<'_, T>, LockTimeoutError<ValueGuard<'_, T>>> {
        // SAFETY: as in `lock`.
        let hold = unsafe { Hold::lock_until(self.raw(), deadline) }?;
        Ok(ValueGuard::new(self, hold)?)
    }

    /// Whether anybody holds the lock. The answer may be out of date by the time the caller looks at it.
    pub fn is_locked(&self) -> bool {
        self.raw().is_locked()
    }

    /// The id of the process that holds a guard; `None` if nobody does.
    pub fn holder(&self) -> Option<u32> {
        self.raw().holder()
    }

    /// Why it is poisoned, which means that the value may be half changed; `None` if it is not.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        self.raw().poison_cause()
    }

    /// Whether it is poisoned, which means that the value may be half changed.
    pub fn is_poisoned(&self) -> bool {
        self.poison_cause().is_some()
    }

    /// Declares the value repaired: operations succeed again.
    pub fn clear_poison(&self) {
        self.raw().clear_poison();
    }

    #[inline(always)]
    fn raw(&self) -> &RawMutex {
        // SAFETY: points into the mapping that `object` keeps, to a lock that was checked to be one when
        // attached; it is made of atomics only.
        unsafe { self.raw.as_ref() }
    }

    /// Which slot is current. Only of a type that is not single.
    #[inline(always)]
    fn index(&self) -> &AtomicU32 {
        // SAFETY: the payload of a type that is not single reaches to the end of two slots behind the index.
        let index = unsafe { self.raw.byte_add(INDEX) }.cast::<AtomicU32>();
        // SAFETY: as above; 40 is a multiple of its alignment, as the payload's is.
        unsafe { index.as_ref() }
    }

    #[inline(always)]
    fn next_index(&self) -> u32 {
        self.index().load(Ordering::Relaxed) & 1 ^ 1
    }

    /// The first or the second slot.
    #[inline(always)]
    fn slot(&self, index: u32) -> NonNull<T> {
        // Whatever a peer writes there, one of two.
        let index = (index & 1) as usize;
        // SAFETY: there are two.
        unsafe { self.slots.add(index) }
    }

    /// The slot with the value.
    #[inline(always)]
    fn current(&self) -> NonNull<T> {
        if slot::is_single::<T>() { self.slots } else { self.slot(self.index().load(Ordering::Relaxed)) }
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Value<T> {
        Value { object: self.object.clone(), ..*self }
    }
}

impl<T: fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Value");
        match self.try_lock() {
            Ok(guard) => debug.field("value", &*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("value", &**error.get_ref()),
            Err(_) => debug.field("value", &format_args!("<locked>")).field("holder", &self.holder()),
        };
        debug.field("poison", &self.poison_cause()).finish_non_exhaustive()
    }
}

/// Works inside a hand-over only: as an argument for another process, or in a message that can carry
/// descriptors.
impl<T> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value<T>, D::Error> {
        let object = Object::deserialize(deserializer, |_| Some(shape::<T>()?.0))?;
        let (_, slots) = shape::<T>().ok_or_else(|| serde::de::Error::custom("the value is too large"))?;
        Ok(Value::at(object, slots))
    }
}

/// A lock that is held. It gives access to the value, in place, until it is dropped.
///
/// If it is dropped while its thread panics, it poisons the value. In a child made by `fork` it does nothing:
/// the lock is the parent's.
///
/// It stays with its thread:
///
/// ```compile_fail,E0277
/// fn send(_: impl Send) {}
/// send(polyproc_value::Value::new(0i32).unwrap().lock().unwrap());
/// ```
#[must_use = "the value is unlocked as soon as the guard is dropped"]
pub struct ValueGuard<'a, T> {
    slot: NonNull<T>,
    section: CriticalSection<'a>,
    /// Gives out `&mut T`.
    value: PhantomData<&'a mut T>,
}

// SAFETY: a shared guard gives out `&T`, and nothing else that depends on the thread.
unsafe impl<T: Sync> Sync for ValueGuard<'_, T> {}

impl<'a, T> ValueGuard<'a, T> {
    #[inline(always)]
    fn new(value: &'a Value<T>, hold: Hold<'a>) -> Result<ValueGuard<'a, T>, PoisonError<ValueGuard<'a, T>>> {
        let guard = ValueGuard { slot: value.current(), section: hold.into_section(), value: PhantomData };
        match guard.section.raw().poison_cause() {
            None => Ok(guard),
            Some(cause) => Err(PoisonError::new(guard, cause)),
        }
    }
}

impl<T> Deref for ValueGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the slot is mapped while the handle lives, any bit pattern is a T, and the lock is held.
        unsafe { self.slot.as_ref() }
    }
}

impl<T> DerefMut for ValueGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the guard is borrowed exclusively, and it is the only one.
        unsafe { self.slot.as_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
