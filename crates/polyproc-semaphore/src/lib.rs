//! Semaphores between processes: [`Semaphore`], and [`BoundedSemaphore`], which never has more permits than
//! it began with.
//!
//! A semaphore has permits. Whoever acquires one holds a [`Permit`], which goes back when it is dropped. What
//! these semaphores add to POSIX's is that any process may be killed at any instruction:
//!
//! - **A holder dies**, by `SIGKILL` or otherwise, the whole process or one thread of it: its permits come
//!   back, each exactly once, and whoever waits for one has it at once, without anybody watching. The same
//!   holds if it dies while it acquires or releases.
//! - **A waiter dies**: nobody notices. In particular, nobody waits forever because a wake-up was spent on
//!   the dead.
//! - **Everybody dies**: the memory has no name in any file system, and is freed with its last user.
//!
//! # Example
//!
//! ```
//! use polyproc_semaphore::Semaphore;
//!
//! # fn main() -> std::io::Result<()> {
//! // Three may be at the database at a time, of however many processes.
//! let seats = Semaphore::new(3)?;
//! {
//!     let _seat = seats.acquire();
//!     assert_eq!(seats.available(), 2);
//! } // Given back here.
//! assert_eq!(seats.available(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! A process that dies while it holds a permit, here started by `polyproc_process`:
//!
//! ```
//! use polyproc_process::Process;
//! use polyproc_semaphore::Semaphore;
//!
//! fn worker(seats: Semaphore) {
//!     let _seat = seats.acquire();
//!     std::process::abort(); // Nothing is dropped.
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // In a child: runs its function and exits.
//!     let seats = Semaphore::new(3)?;
//!     assert!(Process::spawn(worker, (seats.clone(),))?.join().is_err());
//!     assert_eq!(seats.available(), 3); // The permit is back.
//!     Ok(())
//! }
//! ```
//!
//! # Sharing it
//!
//! Clones of a handle are the same semaphore. To share it with another process, give that process a clone: as
//! an argument of `polyproc_process::Process::spawn`, in a message through a `polyproc_pipe::Connection`, or
//! by `fork`. If your processes are started in some other way, `polyproc_memory::handover` makes bytes and a
//! file descriptor of a handle, and a handle of these.
//!
//! # Owned and unowned
//!
//! A [`Permit`] has an owner, the thread that acquired it, and comes back when that thread dies. Python's
//! semaphores and POSIX's have no owners: one process acquires, another releases. Here these are two
//! operations of their own. [`Permit::forget`] does away with a permit, and `release` adds one that nobody
//! has held. Between the two nobody owns it, and no death brings it back.
//!
//! # What blocks, and for how long
//!
//! `acquire` waits until there is a permit: it spins for some microseconds and then sleeps on a futex. It is
//! not fair: a thread that comes at the right moment overtakes those that sleep. `try_acquire` never sleeps;
//! `acquire_timeout` and `acquire_until` give up, by the monotonic clock. Giving back, forgetting and
//! releasing never wait for a permit.
//!
//! # What it costs
//!
//! Acquiring a permit and giving it back are one atomic instruction each and a few plain stores, and no
//! system call if nobody waits. A thread that holds other permits or locks takes a longer way, about three
//! times as expensive. A permit that was released and has not been held yet takes the longest way, once: it
//! has to be brought to a cell first.
//!
//! Each permit that can be held at a time has a *cell* of 64 bytes in shared memory. By default there are 60,
//! which fill a page with the rest, or as many as there are permits, up to 4,096. A thread that finds the
//! first cell taken goes through the others, so one that cannot get a permit has looked at all of them, at
//! about a nanosecond a cell. With more than 126 cells it cannot sleep on all of them either: while it waits,
//! it looks through them every millisecond. It still learns of a release at once, and of a death within that
//! millisecond.
//!
//! # Limits
//!
//! - At most 2³¹ - 1 permits, of which 65,536 can be held at a time, and 2,048 by one thread (robust pthread
//!   mutexes and polyproc's locks included): that is how many the kernel brings back for a dead thread. One
//!   more is refused.
//! - Every process that was given a handle can write to the semaphore, and is trusted to keep to the rules.
//! - Not for signal handlers.
//! - `fork` gives the child no permits: those that it inherits do nothing. A child made by `_Fork` or a bare
//!   `clone`, which run no fork handlers, must not use semaphores.
//! - A thread that is not its process's first and calls `exec` while it holds a permit takes that permit with
//!   it for good.
//! - Processes of different PID namespaces can have threads with equal ids, and the kernel brings back by id.
//!   If one of two such threads dies within the few instructions of taking a cell that the other has just
//!   taken, the other's permit comes back while it is held.

#![deny(unsafe_code)]

mod cell;
mod door;
#[allow(unsafe_code)]
mod raw;
mod supply;
mod wait;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod error;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod handle;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod permit;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod semaphore;

/// The most permits that can be held at a time: so many cells a semaphore can have.
pub const MAX_HOLDERS: u32 = 1 << 16;

pub use cell::{Cell, Head};
pub use raw::{RawSemaphore, Refusal};
pub use supply::{MAX_PERMITS, ReleaseError};

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    error::{AcquireTimeoutError, TryAcquireError},
    permit::Permit,
    polyproc_memory::{Arena, CreateError},
    semaphore::{BoundedSemaphore, Semaphore},
};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
