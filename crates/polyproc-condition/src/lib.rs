//! Condition variable between processes: no handshake, and no death keeps a notifier waiting.
//!
//! A [`Condition`] is used like `std`'s: `wait` with the guard of a lock, look, wait again; `notify_one` or
//! `notify_all` after a change. What it adds is that it works between processes, with a
//! [`Mutex`](polyproc_mutex::Mutex) and with an [`RLock`](polyproc_mutex::RLock), and that any of them may be
//! killed at any instruction.
//!
//! # Example
//!
//! A buffer of four, by hand:
//!
//! ```
//! use polyproc_condition::Condition;
//! use polyproc_mutex::Mutex;
//! use std::io;
//!
//! #[derive(Clone)]
//! struct Buffer {
//!     /// How many are in it, and what they are.
//!     items: Mutex<[u64; 5]>,
//!     not_full: Condition,
//!     not_empty: Condition,
//! }
//!
//! impl Buffer {
//!     fn put(&self, item: u64) {
//!         let items = self.items.lock().unwrap();
//!         let mut items = self.not_full.wait_while(items, |items| items[0] == 4).unwrap();
//!         items[0] += 1;
//!         let last = items[0] as usize;
//!         items[last] = item;
//!         self.not_empty.notify_one();
//!     }
//!
//!     fn get(&self) -> u64 {
//!         let items = self.items.lock().unwrap();
//!         let mut items = self.not_empty.wait_while(items, |items| items[0] == 0).unwrap();
//!         let first = items[1];
//!         items.copy_within(2.., 1);
//!         items[0] -= 1;
//!         self.not_full.notify_one();
//!         first
//!     }
//! }
//!
//! let buffer = Buffer {
//!     items: Mutex::new([0; 5])?,
//!     not_full: Condition::new()?,
//!     not_empty: Condition::new()?,
//! };
//! let theirs = buffer.clone();
//! let producer = std::thread::spawn(move || (0..100).for_each(|item| theirs.put(item)));
//! assert!((0..100).all(|item| buffer.get() == item));
//! producer.join().unwrap();
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # Sharing it
//!
//! Clones of a handle are the same condition. To share it with another process, give that process a clone,
//! and one of the lock: as arguments of `polyproc_process::Process::spawn`, in a message through a
//! `polyproc_pipe::Connection`, or by `fork`. If your processes are started in some other way,
//! `polyproc_memory::handover` makes bytes and a file descriptor of a handle, and a handle of these.
//!
//! # What blocks, and for how long
//!
//! Only the waits do: until a notification, and then until the lock is free again. With a time limit they
//! give up, by the monotonic clock, but they too wait for the lock before they return. The `notify`s never
//! block: they wait for nobody's answer.
//!
//! Whoever has waited longest is notified first. That does not mean that it gets the lock first.
//!
//! # What a death does
//!
//! - **A waiter dies**: nobody notices. `notify(n)` passes over the dead, so that n of the living are
//!   notified.
//! - **A waiter dies after it was notified, before it has its lock back**: the kernel wakes another waiter,
//!   and the notification goes to the one that has waited longest. If nobody is waiting then, it is spent.
//! - **A waiter dies when it has its lock back**: it is a holder like any other. The lock is poisoned, and
//!   the next that takes it is told.
//! - **A notifier dies**: `notify_all` has notified all or none, the others one by one as far as they got.
//!   Whoever has been notified comes back.
//!
//! # What it costs
//!
//! A notification that nobody waits for is one load. Otherwise it looks at the slots in use, and makes one
//! system call for each waiter that it notifies; `notify_all` makes one for all of them. A wait looks for a
//! while whether it is notified, and then sleeps, with about two system calls. A condition is 7,720 bytes, 80
//! for each thread that can wait at the same time: two pages and a descriptor, or a place in an [`Arena`].
//!
//! # Limits
//!
//! - All who wait on a condition do so with the same lock. Nobody checks that.
//! - Waits can end without a notification: ask again, or use the methods that end in `_while`.
//! - 96 can wait at the same time, or as many as [`with_slots`](Condition::with_slots) says. Others poll,
//!   once a millisecond: they return as if notified, and miss nothing.
//! - On kernels before 5.16, `notify_all` and passing on what the dead had can take a millisecond, and
//!   everybody who waits looks around once a millisecond.
//! - A waiter that is stopped (`SIGSTOP`) after it was notified keeps the notification: it is alive.
//! - With an `RLock` that has data, a thread can wait only with its only guard: other guards give `&T`, and
//!   others could change the data meanwhile. With an `RLock<()>`, any guard will do.
//! - Not for signal handlers.
//! - Every process that was given a handle can write to the condition, and is trusted to keep to the rules.
//! - Threads of different PID namespaces can have equal ids, and the kernel releases by id: see
//!   [`polyproc_mutex`], for locks.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod raw;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod condition;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod guard;

pub use raw::{Ended, MOST_SLOTS, Queue, RawCondition, Slot};

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    condition::{Condition, WaitDeadlineResult, WaitResult, WaitTimeoutResult},
    guard::Guard,
    polyproc_memory::{Arena, CreateError},
};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
