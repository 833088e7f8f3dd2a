//! Events between processes: [`Event`], a flag that processes wait for. Set it, and everybody who waits goes
//! on, whoever dies meanwhile.
//!
//! It is used like Python's `multiprocessing.Event`, without the ways in which that can hang:
//!
//! - **A pulse reaches everybody.** Whoever waited when the event was set goes on, even if it is cleared at
//!   once, and is told that it was set.
//! - **A signal handler may set it**, whatever it interrupts: there is no lock inside.
//! - **Nobody's death counts.** A waiter that is killed is forgotten. A setter that is killed has set the
//!   event and woken everybody, or has done neither.
//!
//! # Example
//!
//! ```
//! use polyproc_event::Event;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let ready = Event::new()?;
//! assert!(!ready.wait_timeout(Duration::from_millis(10)));
//! ready.set();
//! ready.wait(); // Returns at once, as often as it is called.
//! ready.clear();
//! assert!(!ready.is_set());
//! # Ok(())
//! # }
//! ```
//!
//! # Sharing it
//!
//! Clones of a handle are the same event. To share it with another process, give that process a clone: as an
//! argument of `polyproc_process::Process::spawn`, in a message through a `polyproc_pipe::Connection`, or by
//! `fork`. If your processes are started in some other way, `polyproc_memory::handover` makes bytes and a
//! file descriptor of a handle, and a handle of these.
//!
//! # What blocks, and for how long
//!
//! [`Event::wait`] waits until the event is set. It looks for some microseconds, if that has paid off lately,
//! and then sleeps on a futex. `wait_timeout` and `wait_until` give up, by the monotonic clock and never
//! early. [`Event::set`], [`Event::clear`] and [`Event::is_set`] never wait.
//!
//! # What a death does
//!
//! Nothing. Set and wake are one system call, which the kernel finishes or does not begin. There is no owner,
//! no list of waiters, and no state that somebody would have to repair. The memory has no name in any file
//! system, and is freed with its last user.
//!
//! An event does not tell that whoever was to set it is dead. If you wait for another process's word, wait
//! for that process's end as well, or with a timeout.
//!
//! # What it costs
//!
//! Set and clear are two atomic instructions at most, and a look is a load. Only a `set` that somebody sleeps
//! for makes a system call: one, however many they are. A sleep without a timeout has no timer. An event is 8
//! bytes. One of its own takes a page of memory and a file descriptor; put thousands of them into one
//! [`Arena`].
//!
//! # Order
//!
//! What was done before [`Event::set`] is visible to whoever finds the event set, comes out of a wait that it
//! ended, or clears the event after it. So if you clear the event first and then look for work, you miss
//! none.
//!
//! # Limits
//!
//! - Every process that was given a handle can write to the event, and is trusted to keep to the rules.
//! - Two `set`s without a `clear` between them are one: an event does not count. To count, use a semaphore.
//! - Where a sandbox forbids the operation FUTEX_WAKE_OP of futex(2), set and wake are two steps, and if the
//!   setter is killed between them, the waiters go on only after up to 250 ms. Signal handlers may set it
//!   there too.

#![deny(unsafe_code)]

mod raw;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod event;

pub use raw::RawEvent;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    event::Event,
    polyproc_memory::{Arena, CreateError},
};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
