//! [`Condition`]: the condition variable, its handle and its waits.

use crate::guard::Guard;
use crate::raw::{Ended, MOST_SLOTS, Queue, RawCondition, Slot};
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_mutex::PoisonError;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// How many can wait for a condition at the same time without polling, unless its maker says otherwise. Two
/// pages full.
const SLOTS: usize = 96;

/// Where processes wait until another tells them that something has changed.
///
/// This is a handle: clones are the same condition, and so is a clone that is given to another process. It
/// goes with a [`Mutex`](polyproc_mutex::Mutex) or an [`RLock`](polyproc_mutex::RLock), the same one for
/// everybody who waits. See the [crate](crate) for what blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_condition::Condition;
/// use polyproc_mutex::Mutex;
///
/// let (ready, changed) = (Mutex::new(0u32)?, Condition::new()?);
/// let (their_ready, their_changed) = (ready.clone(), changed.clone());
/// let other = std::thread::spawn(move || {
///     *their_ready.lock().unwrap() = 1;
///     their_changed.notify_one();
/// });
/// let guard = changed.wait_while(ready.lock().unwrap(), |ready| *ready == 0).unwrap();
/// assert_eq!(*guard, 1);
/// # other.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Condition {
    object: Object,
    queue: NonNull<Queue>,
    slots: NonNull<[Slot]>,
}

// SAFETY: the queue and the slots are made of atomics; the pointers are into the mapping that `object` keeps.
unsafe impl Send for Condition {}
// SAFETY: as above.
unsafe impl Sync for Condition {}

/// What a condition with so many slots is, for whoever attaches to one, and where its slots lie.
fn shape(count: u64) -> Option<(Shape, usize)> {
    let slots = usize::try_from(count).ok().filter(|slots| (1..=MOST_SLOTS).contains(slots))?;
    let (payload, offset) = Layout::new::<Queue>().extend(Layout::array::<Slot>(slots).ok()?).ok()?;
    let shape = Shape {
        kind: Kind::new("conditio"),
        code: 0,
        element: Layout::new::<Slot>(),
        count,
        payload: payload.pad_to_align(),
        lock: false,
    };
    Some((shape, offset))
}

/// Whether a wait with a deadline ended because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was over before a notification came.
    pub fn timed_out(self) -> bool {
        self.0
    }
}

/// What a wait without a deadline returns: the lock again, or the lock and why its data may be half changed.
pub type WaitResult<G> = Result<G, PoisonError<G>>;

/// What a wait with a deadline returns: the lock again, in any case, and whether the time was over.
pub type WaitDeadlineResult<G> = Result<(G, WaitTimeoutResult), PoisonError<(G, WaitTimeoutResult)>>;

impl Condition {
    /// Makes a condition that nobody waits for, in memory of its own, with room for 96 that wait at the same
    /// time.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new() -> io::Result<Condition> {
        Condition::create(None, SLOTS)
    }

    /// The same, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `Unsupported` as for
    /// [`new`](Condition::new).
    pub fn new_in(arena: &Arena) -> io::Result<Condition> {
        Condition::create(Some(arena), SLOTS)
    }

    /// Makes a condition with room for `slots` that wait at the same time, in memory of its own. Each takes
    /// 80 bytes.
    ///
    /// More may wait, but they poll, and sometimes return without a notification. If more than 124 wait at
    /// the same time, the others wake every millisecond too, but do not return.
    ///
    /// # Errors
    ///
    /// As for [`new`](Condition::new); and `InvalidInput` for 0 slots or more than [`MOST_SLOTS`].
    pub fn with_slots(slots: usize) -> io::Result<Condition> {
        Condition::create(None, slots)
    }

    /// The same, in an arena.
    ///
    /// # Errors
    ///
    /// As for [`with_slots`](Condition::with_slots), and
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`].
    pub fn with_slots_in(arena: &Arena, slots: usize) -> io::Result<Condition> {
        Condition::create(Some(arena), slots)
    }

    fn create(arena: Option<&Arena>, slots: usize) -> io::Result<Condition> {
        robust::check()?;
        let Some((shape, offset)) = shape(slots as u64) else {
            let message = format!("a condition has 1 to {MOST_SLOTS} slots, not {slots}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        Ok(Condition::at(Object::create(arena, &shape)?, offset))
    }

    /// The condition that is this object, whose payload has been checked to have the shape.
    fn at(object: Object, offset: usize) -> Condition {
        let payload = object.payload();
        // SAFETY: the shape's payload reaches beyond its slots.
        let slots = unsafe { payload.add(offset) };
        let slots = NonNull::slice_from_raw_parts(slots.cast(), object.count() as usize);
        Condition { queue: payload.cast(), slots, object }
    }

    /// Releases the lock, waits until it is notified, and takes the lock again.
    ///
    /// It may also return without a notification, so look again whether things are as wanted, or use
    /// [`wait_while`](Condition::wait_while). An `RLock` is released as often as it is held, and taken again
    /// as often.
    ///
    /// # Errors
    ///
    /// If somebody who held the lock meanwhile died or panicked in the middle of its work. The lock is taken
    /// all the same: the error has the guard.
    ///
    /// # Panics
    ///
    /// If the calling thread holds 2,048 locks; if the guard was inherited through a `fork`; or if the guard
    /// is an `RLock`'s with data, and the thread has another: that one's `&T` would not stand still. The lock
    /// is still held then, until the guard is dropped.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_condition::Condition;
    /// use polyproc_mutex::Mutex;
    ///
    /// let (open, changed) = (Mutex::new(0u32)?, Condition::new()?);
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| {
    ///         *open.lock().unwrap() = 1;
    ///         changed.notify_all();
    ///     });
    ///     let mut guard = open.lock().unwrap();
    ///     while *guard == 0 {
    ///         guard = changed.wait(guard).unwrap();
    ///     }
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn wait<G: Guard>(&self, guard: G) -> WaitResult<G> {
        without_result(self.wait_deadline(guard, Deadline::NEVER))
    }

    /// [`wait`](Condition::wait), for at most `timeout`. A timeout of zero releases the lock and takes it
    /// again.
    ///
    /// The time does not bound how long it takes to get the lock back.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Condition::wait).
    ///
    /// # Panics
    ///
    /// As for [`wait`](Condition::wait).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_condition::Condition;
    /// use polyproc_mutex::Mutex;
    /// use std::time::Duration;
    ///
    /// let (mutex, changed) = (Mutex::new(0u32)?, Condition::new()?);
    /// // Nobody notifies.
    /// let (guard, result) = changed.wait_timeout(mutex.lock().unwrap(), Duration::from_millis(10)).unwrap();
    /// assert!(result.timed_out());
    /// assert_eq!(*guard, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn wait_timeout<G: Guard>(&self, guard: G, timeout: Duration) -> WaitDeadlineResult<G> {
        self.wait_deadline(guard, Deadline::after(timeout))
    }

    /// [`wait`](Condition::wait), until `deadline` at the latest. A deadline that has passed releases the
    /// lock and takes it again.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Condition::wait).
    ///
    /// # Panics
    ///
    /// As for [`wait`](Condition::wait).
    #[track_caller]
    pub fn wait_until<G: Guard>(&self, guard: G, deadline: Instant) -> WaitDeadlineResult<G> {
        self.wait_deadline(guard, Deadline::at(deadline))
    }

    /// Waits as long as `condition` returns `true`. It is asked with the lock held, before each wait.
    ///
    /// The predicate of a `Mutex` gets `&mut T`, that of an `RLock` `&T`.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Condition::wait); then the predicate is not asked again.
    ///
    /// # Panics
    ///
    /// As for [`wait`](Condition::wait); and if the predicate does, which poisons the lock.
    #[track_caller]
    pub fn wait_while<G: Guard>(
        &self,
        guard: G,
        condition: impl for<'d> FnMut(G::Data<'d>) -> bool,
    ) -> WaitResult<G> {
        without_result(self.wait_deadline_while(guard, Deadline::NEVER, condition))
    }

    /// [`wait_while`](Condition::wait_while), for at most `timeout`. With a timeout of zero the predicate is
    /// asked, and asked again after the lock was free once.
    ///
    /// [`timed_out`](WaitTimeoutResult::timed_out) is true only if `condition` still said so at the end.
    ///
    /// # Errors
    ///
    /// As for [`wait_while`](Condition::wait_while).
    ///
    /// # Panics
    ///
    /// As for [`wait_while`](Condition::wait_while).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_condition::Condition;
    /// use polyproc_mutex::RLock;
    /// use std::time::{Duration, Instant};
    ///
    /// let (ready, changed) = (RLock::new(0u32)?, Condition::new()?);
    /// let (start, time) = (Instant::now(), Duration::from_millis(10));
    /// let waited = changed.wait_timeout_while(ready.lock().unwrap(), time, |ready| *ready == 0);
    /// let (guard, result) = waited.unwrap();
    /// assert!(result.timed_out() && start.elapsed() >= time);
    /// assert_eq!(*guard, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn wait_timeout_while<G: Guard>(
        &self,
        guard: G,
        timeout: Duration,
        condition: impl for<'d> FnMut(G::Data<'d>) -> bool,
    ) -> WaitDeadlineResult<G> {
        self.wait_deadline_while(guard, Deadline::after(timeout), condition)
    }

    /// [`wait_while`](Condition::wait_while), until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// As for [`wait_while`](Condition::wait_while).
    ///
    /// # Panics
    ///
    /// As for [`wait_while`](Condition::wait_while).
    #[track_caller]
    pub fn wait_until_while<G: Guard>(
        &self,
        guard: G,
        deadline: Instant,
        condition: impl for<'d> FnMut(G::Data<'d>) -> bool,
    ) -> WaitDeadlineResult<G> {
        self.wait_deadline_while(guard, Deadline::at(deadline), condition)
    }

    #[track_caller]
    fn wait_deadline_while<G: Guard>(
        &self,
        mut guard: G,
        deadline: Deadline,
        mut condition: impl for<'d> FnMut(G::Data<'d>) -> bool,
    ) -> WaitDeadlineResult<G> {
        let mut result = WaitTimeoutResult(false);
        loop {
            if !guard.ask(&mut condition) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            if result.timed_out() {
                return Ok((guard, result));
            }
            (guard, result) = self.wait_deadline(guard, deadline)?;
        }
    }

    #[track_caller]
    fn wait_deadline<G: Guard>(&self, guard: G, deadline: Deadline) -> WaitDeadlineResult<G> {
        guard.check();
        let times = Cell::new(0);
        let release = || {
            // SAFETY: checked above; the next thing done with the guard is `retake`.
            times.set(unsafe { guard.release() });
        };
        let retake = || {
            // SAFETY: released by `release`, which `wait` calls before.
            unsafe { guard.retake(times.get()) }
        };
        // SAFETY: this handle's object keeps queue and slots mapped; neither closure panics; together they
        // change nothing.
        match unsafe { self.raw().wait(deadline, release, retake) } {
            Ok((Ok(()), ended)) => {
                let result = WaitTimeoutResult(ended == Ended::TimedOut);
                match guard.poison_cause() {
                    None => Ok((guard, result)),
                    Some(cause) => Err(PoisonError::new((guard, result), cause)),
                }
            }
            Ok((Err(refusal), _)) => {
                core::mem::forget(guard); // Not held any more.
                refusal.panic()
            }
            Err(refusal) => refusal.panic(),
        }
    }

    /// Notifies the thread that has waited longest, and returns whether anybody waited. Never blocks.
    ///
    /// The caller need not hold the lock; but what it has to tell must have been changed with the lock held.
    pub fn notify_one(&self) -> bool {
        self.raw().notify(1) == 1
    }

    /// Notifies the `count` threads that have waited longest, or as many as wait, and returns how many it
    /// notified. Never blocks.
    ///
    /// Each notification gets a living waiter back to its lock: those that were killed before do not count,
    /// and the notification of one that is killed afterwards goes to another.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_condition::Condition;
    ///
    /// let changed = Condition::new()?;
    /// assert_eq!(changed.notify(3), 0); // Nobody waits.
    /// assert!(!changed.notify_one());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn notify(&self, count: u32) -> u32 {
        self.raw().notify(count)
    }

    /// Notifies all who wait, with one system call, and returns how many they were. Never blocks.
    pub fn notify_all(&self) -> u32 {
        self.raw().notify_all()
    }

    /// How many wait and have not been notified. The answer may be out of date by the time the caller looks
    /// at it, unless the caller has the lock; and even then one may run out of time, or die.
    pub fn waiting(&self) -> u32 {
        self.raw().waiting()
    }

    fn raw(&self) -> RawCondition<'_> {
        // SAFETY: points into the mapping that `object` keeps, to a queue that was checked to be one when
        // attached; it is made of atomics only.
        let queue = unsafe { self.queue.as_ref() };
        // SAFETY: as above, for the slots, which are made of atomics and padding only.
        let slots = unsafe { self.slots.as_ref() };
        RawCondition::new(queue, slots)
    }
}

/// Without a deadline, it was not over.
fn without_result<G>(waited: WaitDeadlineResult<G>) -> WaitResult<G> {
    match waited {
        Ok((guard, _)) => Ok(guard),
        Err(error) => {
            let cause = error.cause();
            Err(PoisonError::new(error.into_inner().0, cause))
        }
    }
}

impl Clone for Condition {
    fn clone(&self) -> Condition {
        Condition { object: self.object.clone(), ..*self }
    }
}

/// The processes that wait, and how many have been notified and are not yet back.
impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw();
        f.debug_struct("Condition")
            .field("waiters", &raw.waiters().collect::<Vec<_>>())
            .field("returning", &raw.returning())
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
        let object = Object::deserialize(deserializer, |count| Some(shape(count)?.0))?;
        let (_, offset) = shape(object.count()).expect("the object has been checked to have the shape");
        Ok(Condition::at(object, offset))
    }
}
