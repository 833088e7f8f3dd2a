//! [`RwLock`] between processes: many read its data at a time, or one writes.
//!
//! It is used like `std`'s: `read()` and `write()` return a guard, or a [`PoisonError`] that has one. What it
//! adds is that it works between processes, and that any process may be killed at any instruction:
//!
//! - **A reader dies**, by `SIGKILL` or otherwise, the whole process or one thread of it: the kernel ends its
//!   read, at once and without anybody watching. A writer that waits for it goes on. Nothing is poisoned.
//! - **A writer dies**: the kernel releases the lock. Whoever takes it next, to read or to write, gets
//!   `Err(PoisonError)`, whose [`cause`](PoisonError::cause) is [`PoisonCause::OwnerDied`] with the dead
//!   process's id. The data is there, as the dead left it: repair it, call
//!   [`clear_poison`](RwLock::clear_poison), go on.
//! - **A waiter dies**: nobody notices. In particular, a writer that was only waiting for readers poisons
//!   nothing.
//! - **Everybody dies**: the memory has no name in any file system, and is freed with its last user.
//!
//! # Example
//!
//! ```
//! use polyproc_rwlock::RwLock;
//!
//! # fn main() -> std::io::Result<()> {
//! let prices = RwLock::new([100u64, 250])?;
//! prices.write().unwrap()[1] = 240;
//! let (one, another) = (prices.read().unwrap(), prices.read().unwrap());
//! assert_eq!(one[0] + another[1], 340);
//! # Ok(())
//! # }
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
//! [`RwLock::read`] waits while a writer has the lock or waits for it, and while there is no place for one
//! more reader. [`RwLock::write`] waits until nobody has it. Both spin for some microseconds and then sleep
//! on a futex. `try_read` and `try_write` never wait; `_timeout` and `_until` give up, by the monotonic
//! clock. Dropping a guard never waits.
//!
//! Writers do not starve: a writer waits for the readers that are there, and no new reader comes in
//! meanwhile. Nor do readers starve: they queue with the writers, in one lock. Like a [`RawMutex`] it is not
//! fair: whoever comes at the right moment overtakes those that sleep.
//!
//! A thread that reads may read again, even if a writer waits. A thread that holds the lock to write and
//! takes it again, or holds it to read and wants to write, would wait for itself: `read` and `write` panic
//! and say so, `try_` returns `WouldBlock`, and a timeout times out. There is no upgrade from reading to
//! writing: two that upgrade would wait for each other.
//!
//! # What it costs
//!
//! A reader owns a cache line of the lock while it reads: one atomic instruction to take it and one to give
//! it back, on no line that another reader writes to. So readers do not slow each other down, as they do in a
//! lock that counts them. A writer pays for that: it looks at every place for a reader. The benches in the
//! repository measure both.
//!
//! A lock of its own takes a page of memory and a file descriptor, and has [`READERS`] places for readers.
//! [`RwLock::with_readers`] makes one with more or fewer, 64 bytes each. Put thousands of locks into one
//! [`Arena`].
//!
//! # Differences from `std::sync::RwLock`
//!
//! - `new` can fail: it allocates memory that other processes can map. [`CreateError`] says why.
//! - The data is plain old data ([`bytemuck::Pod`]): no pointers, no padding, every bit pattern valid.
//! - Handles are `Clone`, and all clones are the same lock.
//! - The number of simultaneous reads is limited: one more waits until another ends. Reading within a read
//!   needs no place.
//! - A thread can hold at most 2,048 locks (these, mutexes, and robust pthread mutexes) at a time: that is
//!   how many the kernel releases for a dead thread. One more is refused; a read that has to queue behind a
//!   writer needs room for two.
//!
//! Poisoning is as in `std`: a writer that panics poisons the lock, and readers are told too.
//!
//! # Limits
//!
//! Every process that was given a handle can write to the lock and its data, even while it only reads, and is
//! trusted to keep to the rules. Lock operations are not for signal handlers. `fork` gives the child no
//! guards: those that it inherits do nothing. What `polyproc-mutex` says of `exec` and of PID namespaces
//! holds here too.
//!
//! A read guard that is forgotten ([`core::mem::forget`]) goes on reading until its thread ends, and keeps
//! the memory mapped.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod raw;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod guard;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod rwlock;

pub use polyproc_mutex::{PoisonCause, RawMutex, Refusal};
pub use raw::{RawRwLock, ReaderSlot};

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    guard::{RwLockReadGuard, RwLockWriteGuard},
    polyproc_memory::{Arena, CreateError},
    polyproc_mutex::{LockTimeoutError, PoisonError, TryLockError},
    rwlock::{READERS, RwLock},
};

/// The README's example runs.
#[cfg(all(doctest, not(any(polyproc_loom, polyproc_shuttle))))]
#[doc = include_str!("../README.md")]
struct Readme;
