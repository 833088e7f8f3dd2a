//! [`Barrier`]: the handle.

use crate::error::{BrokenCause, WaitError};
use crate::raw::{BarrierWait, RawBarrier};
use crate::seat::Seat;
use crate::word::MAX_PARTIES;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the last to come runs.
type Action = Arc<dyn Fn() + Send + Sync>;

/// A place where a number of parties, threads of any processes, wait for each other, again and again.
///
/// This is a handle: clones are the same barrier, and so is a clone that is given to another process. See the
/// [crate](crate) for what blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_barrier::Barrier;
///
/// let barrier = Barrier::new(3)?;
/// let leaders = std::thread::scope(|scope| {
///     let parties: Vec<_> = (0..3).map(|_| scope.spawn(|| barrier.wait().unwrap())).collect();
///     parties.into_iter().map(|party| party.join().unwrap()).filter(|wait| wait.leader).count()
/// });
/// assert_eq!(leaders, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    object: Object,
    raw: NonNull<RawBarrier>,
    action: Option<Action>,
}

// SAFETY: the barrier is made of atomics, in the mapping that `object` keeps; the action is `Send` and
// `Sync`.
unsafe impl Send for Barrier {}
// SAFETY: as above.
unsafe impl Sync for Barrier {}

/// What a barrier for so many parties is, for whoever attaches to one.
fn shape(parties: u64) -> Option<Shape> {
    let parties = usize::try_from(parties).ok().filter(|parties| (1..=MAX_PARTIES).contains(parties))?;
    let seats = Layout::array::<Seat>(RawBarrier::seats(parties)).ok()?;
    // The barrier without seats is its first line; the seats come after it.
    let (payload, _) = Layout::new::<RawBarrier<[Seat; 0]>>().extend(seats).ok()?;
    Some(Shape {
        kind: Kind::new("barrier"),
        code: 0,
        element: Layout::new::<Seat>(),
        count: parties as u64,
        payload,
        lock: false,
    })
}

impl Barrier {
    /// Makes a barrier for this many parties, in memory of its own.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no parties, or more than [`MAX_PARTIES`]. [`CreateError`](crate::CreateError) in an
    /// [`io::Error`] if no memory, address space or file descriptor is left; `Unsupported` where the threads'
    /// robust lists are not glibc's (another C library, some sandboxes).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_barrier::Barrier;
    ///
    /// let error = Barrier::new(0).unwrap_err();
    /// assert_eq!(error.to_string(), "a barrier has 1 to 2047 parties, not 0");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(parties: usize) -> io::Result<Barrier> {
        Barrier::create(None, parties, None)
    }

    /// Makes a barrier for this many parties, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`]; `InvalidInput` and
    /// `Unsupported` as for [`new`](Barrier::new).
    pub fn new_in(arena: &Arena, parties: usize) -> io::Result<Barrier> {
        Barrier::create(Some(arena), parties, None)
    }

    /// Makes a barrier whose rounds end with an action: the last party to come runs it, while all others
    /// still wait.
    ///
    /// It runs once a round. If it panics, the barrier is broken for everybody, and the panic goes on in the
    /// party that ran it. If that party dies in it, the barrier is broken too. It may take locks; it must not
    /// wait at this barrier, because it would wait for itself. While it runs, a thread holds one more of the
    /// 2,048 locks that it may hold.
    ///
    /// A child made by `fork` inherits the action. A handle that arrives in another process in any other way
    /// has none: see [`attach_action`](Barrier::attach_action).
    ///
    /// # Errors
    ///
    /// As for [`new`](Barrier::new).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_barrier::Barrier;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// let rounds = Arc::new(AtomicU32::new(0));
    /// let counter = rounds.clone();
    /// let barrier = Barrier::with_action(2, move || _ = counter.fetch_add(1, Ordering::Relaxed))?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| barrier.wait().unwrap());
    ///     barrier.wait().unwrap();
    ///     assert_eq!(rounds.load(Ordering::Relaxed), 1);
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_action(parties: usize, action: impl Fn() + Send + Sync + 'static) -> io::Result<Barrier> {
        Barrier::create(None, parties, Some(Arc::new(action)))
    }

    /// [`with_action`](Barrier::with_action), in an arena.
    ///
    /// # Errors
    ///
    /// As for [`new_in`](Barrier::new_in).
    pub fn with_action_in(
        arena: &Arena,
        parties: usize,
        action: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Barrier> {
        Barrier::create(Some(arena), parties, Some(Arc::new(action)))
    }

    fn create(arena: Option<&Arena>, parties: usize, action: Option<Action>) -> io::Result<Barrier> {
        robust::check()?;
        let Some(shape) = shape(parties as u64) else {
            let message = format!("a barrier has 1 to {MAX_PARTIES} parties, not {parties}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let barrier = Barrier { action, ..Barrier::at(Object::create(arena, &shape)?) };
        if barrier.action.is_some() {
            barrier.raw().announce_action();
        }
        Ok(barrier)
    }

    /// The barrier that is this object, whose payload has been checked to have the shape.
    fn at(object: Object) -> Barrier {
        let seats = RawBarrier::seats(object.count() as usize);
        let raw = NonNull::slice_from_raw_parts(object.payload().cast::<Seat>(), seats).as_ptr();
        // The same address and number: those of a slice of seats become those of the barrier that ends in
        // them.
        let raw =
            NonNull::new(raw as *mut RawBarrier).unwrap_or_else(|| unreachable!("a payload is not null"));
        Barrier { object, raw, action: None }
    }

    /// Gives the action to a handle that came from another process: code does not travel.
    ///
    /// Clones made of it from now on have it too. It should be the same for all parties. If the barrier was
    /// made without an action, it is not run.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_barrier::Barrier;
    ///
    /// fn worker(mut barrier: Barrier) {
    ///     barrier.attach_action(|| println!("all there"));
    ///     barrier.wait().unwrap();
    /// }
    /// worker(Barrier::with_action(1, || println!("all there"))?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn attach_action(&mut self, action: impl Fn() + Send + Sync + 'static) {
        self.action = Some(Arc::new(action));
    }

    /// Waits until all parties are there, for as long as it takes.
    ///
    /// # Errors
    ///
    /// [`WaitError::Broken`], with the cause: at once if the barrier is broken already, or as soon as it is.
    /// [`WaitError::NoAction`], from barriers with an action only. [`WaitError::TooManyLocks`] if the calling
    /// thread holds 2,048 locks.
    ///
    /// # Panics
    ///
    /// If the action does, in the party that runs it.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_barrier::{Barrier, WaitError};
    ///
    /// let barrier = Barrier::new(1)?;
    /// match barrier.wait() {
    ///     Ok(wait) => assert_eq!((wait.index, wait.leader), (0, true)),
    ///     Err(WaitError::Broken(broken)) => eprintln!("{}", broken.cause()),
    ///     Err(error) => panic!("{error}"),
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn wait(&self) -> Result<BarrierWait, WaitError> {
        self.wait_deadline(Deadline::NEVER)
    }

    /// Waits until all parties are there, at most `timeout`. When that is over, the barrier is broken for
    /// everybody.
    ///
    /// With a timeout of zero, only the last to come passes; any other party breaks the barrier. There is no
    /// `try_wait`: to come and not to wait is to break it.
    ///
    /// # Errors
    ///
    /// As for [`wait`](Barrier::wait); if this is the party that broke it, the cause is
    /// [`BrokenCause::TimedOut`] with its own process.
    ///
    /// # Panics
    ///
    /// As for [`wait`](Barrier::wait).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_barrier::{Barrier, BrokenCause};
    /// use std::time::Duration;
    ///
    /// let barrier = Barrier::new(2)?;
    /// assert!(barrier.wait_timeout(Duration::ZERO).is_err());
    /// // Now it is broken, for whoever comes.
    /// let cause = BrokenCause::TimedOut { pid: std::process::id() };
    /// assert_eq!(barrier.wait().unwrap_err().cause(), Some(cause));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWait, WaitError> {
        self.wait_deadline(Deadline::after(timeout))
    }

    /// Waits until all parties are there, or until `deadline`: see [`wait_timeout`](Barrier::wait_timeout).
    ///
    /// # Errors
    ///
    /// As for [`wait_timeout`](Barrier::wait_timeout).
    ///
    /// # Panics
    ///
    /// As for [`wait`](Barrier::wait).
    #[inline]
    pub fn wait_until(&self, deadline: Instant) -> Result<BarrierWait, WaitError> {
        self.wait_deadline(Deadline::at(deadline))
    }

    #[inline]
    fn wait_deadline(&self, deadline: Deadline) -> Result<BarrierWait, WaitError> {
        let raw = self.raw();
        if !raw.has_action() {
            return raw.wait_until(deadline, None);
        }
        match &self.action {
            Some(action) => raw.wait_until(deadline, Some(&**action)),
            None => Err(WaitError::NoAction),
        }
    }

    /// Breaks the barrier: all who wait, and all who will come, get [`BrokenCause::Aborted`], until a
    /// [`reset`](Barrier::reset). One that is broken already keeps its cause. Does not wait.
    pub fn abort(&self) {
        self.raw().abort();
    }

    /// Makes the barrier as new. Whoever waits gets an error, with the cause for which it was broken, or
    /// [`BrokenCause::Reset`] if it was not. A barrier that is not broken and at which nobody waits stays as
    /// it is. Does not wait.
    ///
    /// The old round and the new one are never mixed: a party that is slow to look still gets the error of
    /// its own round.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_barrier::Barrier;
    ///
    /// let barrier = Barrier::new(1)?;
    /// barrier.abort();
    /// assert!(barrier.wait().is_err());
    /// barrier.reset();
    /// assert!(barrier.wait().is_ok());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reset(&self) {
        self.raw().reset();
    }

    /// How many parties wait. While the action runs, all do; at a broken barrier, none. The answer may be out
    /// of date by the time the caller looks at it.
    pub fn n_waiting(&self) -> usize {
        self.raw().n_waiting()
    }

    /// How many parties complete a round.
    pub fn parties(&self) -> usize {
        self.object.count() as usize
    }

    /// Whether the barrier is broken.
    pub fn is_broken(&self) -> bool {
        self.broken_cause().is_some()
    }

    /// Why the barrier is broken, if it is.
    pub fn broken_cause(&self) -> Option<BrokenCause> {
        self.raw().broken_cause()
    }

    #[inline]
    fn raw(&self) -> &RawBarrier {
        // SAFETY: points into the mapping that `object` keeps, to a barrier with as many seats as the object
        // was checked to have room for; it is made of atomics only.
        unsafe { self.raw.as_ref() }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties())
            .field("n_waiting", &self.n_waiting())
            .field("waiting", &self.raw().pids())
            .field("broken", &self.broken_cause())
            .finish_non_exhaustive()
    }
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

/// Without the action: see [`attach_action`](Barrier::attach_action).
impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Barrier, D::Error> {
        Ok(Barrier::at(Object::deserialize(deserializer, shape)?))
    }
}
