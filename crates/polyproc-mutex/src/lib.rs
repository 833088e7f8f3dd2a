//! Locks between processes: [`Mutex`], with its data, and [`RLock`], which its holder can take again.
//!
//! They are used like `std`'s: `lock()` returns a guard, or a [`PoisonError`] that has one. What they add is
//! that they work between processes, and that any process may be killed at any instruction:
//!
//! - **A holder dies**, by `SIGKILL` or otherwise, the whole process or one thread of it: the kernel releases
//!   the lock, at once and without anybody watching. Whoever takes it next gets `Err(PoisonError)`, whose
//!   [`cause`](PoisonError::cause) is [`PoisonCause::OwnerDied`] with the dead process's id. The data is
//!   there, as the dead left it: repair it, call `clear_poison()`, go on.
//! - **A waiter dies**: nobody notices. In particular, nobody waits forever because a wake-up was spent on
//!   the dead.
//! - **Everybody dies**: the memory has no name in any file system, and is freed with its last user.
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
//! A process that dies while it holds the lock, here started by `polyproc_process`:
//!
//! ```
//! use polyproc_mutex::{Mutex, PoisonCause};
//! use polyproc_process::Process;
//!
//! fn worker(total: Mutex<u64>) {
//!     let mut total = total.lock().unwrap();
//!     *total += 1;
//!     std::process::abort(); // In the middle of its work.
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // In a child: runs its function and exits.
//!     let total = Mutex::new(0u64)?;
//!     let child = Process::spawn(worker, (total.clone(),))?;
//!     assert!(child.join().is_err());
//!
//!     let error = total.lock().unwrap_err();
//!     assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: child.pid() });
//!     let mut guard = error.into_inner();
//!     assert_eq!(*guard, 1); // As the child left it.
//!     *guard = 0;
//!     total.clear_poison(); // The data is repaired.
//!     drop(guard);
//!     assert_eq!(*total.lock().unwrap(), 0);
//!     Ok(())
//! }
//! ```
//!
//! # Sharing it
//!
//! Clones of a handle are the same lock. To share it with another process, give that process a clone: as an
//! argument of `polyproc_process::Process::spawn`, in a message through a `polyproc_pipe::Connection`, or by
//! `fork`. If your processes are started in some other way, `polyproc_memory::handover` makes bytes and a
//! file descriptor of a handle, and a handle of these.
//!
//! # What blocks, and for how long
//!
//! [`Mutex::lock`] waits until the lock is free. It spins for some microseconds and then sleeps on a futex.
//! It is not fair: a thread that comes at the right moment overtakes those that sleep. `try_lock` never
//! waits; `lock_timeout` and `lock_until` give up, by the monotonic clock. Dropping a guard never waits.
//!
//! A thread that locks a [`Mutex`] which it already holds would wait for itself: `lock` panics and says so,
//! `try_lock` returns `WouldBlock`, and a timeout times out. An [`RLock`] lets it in.
//!
//! # What it costs
//!
//! Uncontended, lock and unlock are one atomic instruction each and a few plain stores, as for
//! `std::sync::Mutex`; the benches in the repository compare them. A lock is 40 bytes. A mutex of its own
//! takes a page of memory and a file descriptor; put thousands of them into one [`Arena`].
//!
//! # Differences from `std::sync::Mutex`
//!
//! - `new` can fail: it allocates memory that other processes can map. [`CreateError`] says why.
//! - The data is plain old data ([`bytemuck::Pod`]): no pointers, no padding, every bit pattern valid.
//! - Handles are `Clone`, and all clones are the same lock.
//! - A thread can hold at most 2,048 of them (and of robust pthread mutexes) at a time: that is how many the
//!   kernel releases for a dead thread. One more is refused.
//!
//! # Limits
//!
//! Every process that was given a handle can write to the lock and its data, and is trusted to keep to the
//! rules, as with robust pthread mutexes. Lock operations are not for signal handlers. `fork` gives the child
//! no guards: those that it inherits do nothing. A child made by `_Fork` or a bare `clone`, which run no fork
//! handlers, must not use locks.
//!
//! Two limits are the kernel's, and hold for pthread's robust mutexes too:
//!
//! - A thread that is not its process's first and calls `exec` while it holds a lock leaves that lock locked
//!   forever: it takes the first thread's id before the kernel looks for its locks.
//! - Processes of *different PID namespaces* can have threads with equal ids, and the kernel releases by id.
//!   A waiter does not announce itself while it sees its own id in the lock, so its death leaves a namesake's
//!   lock alone. But if a namesake takes the lock while the waiter sleeps for another holder, and the waiter
//!   is then killed, the namesake's lock is released under it. Share locks between containers only if their
//!   threads' ids cannot meet, or if nobody is killed.

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
    polyproc_memory::{Arena, CreateError},
    rlock::{NestedError, RLock, RLockGuard, RawRLock},
    section::CriticalSection,
};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
