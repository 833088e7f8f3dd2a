//! [`Event`]: the handle.

use crate::raw::RawEvent;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// A flag that processes wait for: set it, and all of them go on.
///
/// This is a handle: clones are the same event, and so is a clone that is given to another process. See the
/// [crate](crate) for what blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_event::Event;
/// use std::time::Duration;
///
/// let ready = Event::new()?;
/// assert!(!ready.wait_timeout(Duration::from_millis(1)));
/// let setter = std::thread::spawn({
///     let ready = ready.clone();
///     move || ready.set()
/// });
/// ready.wait();
/// assert!(ready.is_set());
/// # setter.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Event {
    object: Object,
    raw: NonNull<RawEvent>,
}

// SAFETY: an event is made of atomics, for threads as for processes; the pointer is into the mapping that
// `object` keeps.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

/// What an event is, for whoever attaches to one.
fn shape() -> Shape {
    let layout = Layout::new::<RawEvent>();
    Shape { kind: Kind::new("event"), code: 0, element: layout, count: 1, payload: layout, lock: false }
}

impl Event {
    /// Makes an event that is not set, in memory of its own.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left.
    pub fn new() -> io::Result<Event> {
        Ok(Event::at(Object::create(None, &shape())?))
    }

    /// Makes an event that is not set, in an arena.
    ///
    /// # Errors
    ///
    /// [`CreateError::ArenaFull`](crate::CreateError::ArenaFull) in an [`io::Error`] if it has no room.
    pub fn new_in(arena: &Arena) -> io::Result<Event> {
        Ok(Event::at(Object::create(Some(arena), &shape())?))
    }

    /// The event that is this object, whose payload has been checked to have the shape.
    fn at(object: Object) -> Event {
        Event { raw: object.payload().cast(), object }
    }

    /// Sets the event and wakes everybody who waits for it. If it is set already, it stays so. Never waits.
    ///
    /// What was done before it is visible to whoever finds the event set, or comes out of a wait for it. If
    /// this process is killed meanwhile, it has set the event and woken everybody, or has done neither.
    ///
    /// Async-signal-safe: a signal handler may call it, whatever it interrupted. It takes no lock, allocates
    /// nothing, and leaves `errno` alone. It makes at most one system call, and none if nobody waits.
    ///
    /// # Example
    ///
    /// A handler has the event in a static, made before the handler is installed.
    ///
    /// ```
    /// use polyproc_event::Event;
    /// use std::sync::OnceLock;
    ///
    /// static STOP: OnceLock<Event> = OnceLock::new();
    ///
    /// extern "C" fn on_signal(_: libc::c_int) {
    ///     if let Some(stop) = STOP.get() {
    ///         stop.set();
    ///     }
    /// }
    ///
    /// let stop = STOP.get_or_init(|| Event::new().expect("memory"));
    /// let handler: extern "C" fn(libc::c_int) = on_signal;
    /// // SAFETY: the handler calls nothing but functions that are async-signal-safe.
    /// unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    /// // SAFETY: sends a signal to this thread, which handles it.
    /// unsafe { libc::raise(libc::SIGTERM) };
    /// stop.wait();
    /// ```
    #[inline]
    pub fn set(&self) {
        self.raw().set();
    }

    /// Clears the event: whoever comes from now on waits until it is set again. Whoever waited while it was
    /// set, or when it was set and cleared in quick succession, goes on. Never waits. Async-signal-safe.
    ///
    /// # Example
    ///
    /// Clear first, then look: what is announced after the look sets the event again.
    ///
    /// ```
    /// # use polyproc_event::Event;
    /// # let (event, mut work) = (Event::new()?, vec![1, 2, 3]);
    /// # event.set();
    /// event.wait();
    /// event.clear();
    /// while let Some(item) = work.pop() {
    ///     # let _: i32 = item;
    ///     // …
    /// }
    /// assert!(!event.is_set());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn clear(&self) {
        self.raw().clear();
    }

    /// Whether the event is set. The answer may be out of date by the time the caller looks at it.
    /// Async-signal-safe.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.raw().is_set()
    }

    /// Waits until the event is set, for as long as it takes. Returns at once if it is.
    ///
    /// It need not be set any more when this returns: somebody may have cleared it since. If whoever was to
    /// set it dies, this goes on waiting.
    #[inline]
    pub fn wait(&self) {
        let set = self.raw().wait_until(Deadline::NEVER);
        debug_assert!(set);
    }

    /// Waits until the event is set, at most `timeout`. A timeout of zero looks once.
    ///
    /// `true` if the event was set at any time since the call began, even if it has been cleared since.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_event::Event;
    /// use std::time::Duration;
    ///
    /// let event = Event::new()?;
    /// assert!(!event.wait_timeout(Duration::from_millis(1)));
    /// event.set();
    /// assert!(event.wait_timeout(Duration::ZERO));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    #[must_use = "it says whether the event was set"]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.raw().wait_until(Deadline::after(timeout))
    }

    /// Waits until the event is set, or until `deadline`. A deadline that has passed looks once.
    ///
    /// `true` if the event was set at any time since the call began, even if it has been cleared since.
    #[inline]
    #[must_use = "it says whether the event was set"]
    pub fn wait_until(&self, deadline: Instant) -> bool {
        self.raw().wait_until(Deadline::at(deadline))
    }

    #[inline]
    fn raw(&self) -> &RawEvent {
        // SAFETY: points into the mapping that `object` keeps, to an event that was checked to be one when
        // attached; it is made of atomics only.
        unsafe { self.raw.as_ref() }
    }
}

/// Shows whether it is set, whether anybody may be waiting, and how many times it was cleared.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw().debug(f.debug_struct("Event"))
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Event, D::Error> {
        Ok(Event::at(Object::deserialize(deserializer, |_| Some(shape()))?))
    }
}
