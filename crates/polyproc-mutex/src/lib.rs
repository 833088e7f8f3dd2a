//! Locks between processes: [`Mutex`], with its data, and [`RLock`], which its holder can take again.
//!
//! They are used like `std`'s: `lock()` returns a guard, or a [`PoisonError`] that has one. What they add is
//! that they work between processes, and that any process may be killed at any instruction:
//!
//! - **A holder dies**, by `SIGKILL` or otherwise, in whole or one thread of it: the kernel releases the
//!   lock, at once and without anybody watching. Whoever takes it next gets `Err(PoisonError)` whose
//!   [`cause`](PoisonError::cause) is [`PoisonCause::OwnerDied`] with the dead process's id. The data is
//!   there, as the dead left it: repair it, call `clear_poison()`, go on.
//! - **A waiter dies**: nobody notices. In particular, nobody waits for ever because a wake-up was spent on
//!   the dead.
//! - **Everybody dies**: the memory is anonymous, and goes with its last user.
//!
//! # Example
//!
//! ```
//! use polyproc_mutex::Mutex;
//!
//! # fn main() -> std::io::Result<()> {
//! let total = Mutex::new(0u64)?;
//! *total.lock().unwrap() += 1;
//! assert_eq!(*total.lock().unwrap(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! To share it with another process, give it a clone: as an argument of `polyproc_process::Process::spawn`,
//! through a `fork`, or in anything else that hands over polyproc's handles.
//!
//! # What blocks, and for how long
//!
//! [`Mutex::lock`] waits until the lock is free. It spins for a moment, politely, and then sleeps on a futex.
//! It is not fair: a thread that comes at the right moment overtakes those who sleep. `try_lock` never waits,
//! `lock_timeout` and `lock_until` give up on a monotonic clock. `unlock`, which is the guard's end, never
//! waits.
//!
//! A thread that locks a [`Mutex`] which it holds already would wait for itself: `lock` panics and says so,
//! `try_lock` returns `WouldBlock`, and a timeout times out. An [`RLock`] lets it in.
//!
//! # What it costs
//!
//! Uncontended, lock and unlock are one atomic instruction each and some plain stores, as for
//! `std::sync::Mutex`; the benches in the repository compare them. A lock is 40 bytes. A mutex of its own
//! takes a page of memory and a file descriptor; thousands of them belong into one [`Arena`].
//!
//! # Differences from `std::sync::Mutex`
//!
//! - `new` can fail: it allocates memory that other processes can map.
//! - The data is plain old data ([`bytemuck::Pod`]): no pointers, no padding, every bit pattern valid.
//! - Handles are `Clone`, and all clones are the same lock.
//! - A thread can hold at most 2,048 of them (and of robust pthread mutexes) at a time: that is how many the
//!   kernel releases for a dead thread. One more is refused.
//!
//! # Limits
//!
//! Every process that a handle was given to can write to the lock and its data, and is trusted to keep to the
//! rules, as with robust pthread mutexes. Lock operations are not for signal handlers. `fork` gives the child
//! no guards: what it inherits of them is inert. A child made by `_Fork` or a bare `clone`, which run no fork
//! handlers, must not use locks.
//!
//! Two things are the kernel's, and true of pthread's robust mutexes too:
//!
//! - A thread that is not its process's first and holds a lock while it calls `exec` leaves that lock locked
//!   for ever: it takes the first thread's id before the kernel looks for its locks.
//! - Processes of *different PID namespaces* can have threads with equal ids, and the kernel releases by id.
//!   A waiter does not announce itself while it sees its own id in the lock, so that its death leaves a
//!   namesake's lock alone. But if a namesake takes the lock while the waiter sleeps for another holder, and
//!   the waiter is killed then, the namesake's lock is released under it. Share locks between containers only
//!   if their threads' ids cannot meet, or if nobody is killed.

#![deny(unsafe_code)]

mod poison;
#[allow(unsafe_code)]
mod raw;

#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub mod model;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod error;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod mutex;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod rlock;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod section;

pub use poison::PoisonCause;
pub use raw::{RawMutex, Refusal};

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    error::{LockTimeoutError, PoisonError, TryLockError},
    mutex::{Mutex, MutexGuard},
    polyproc_memory::Arena,
    rlock::{NestedError, RLock, RLockGuard, RawRLock},
    section::CriticalSection,
};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
