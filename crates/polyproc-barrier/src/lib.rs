//! A place where processes wait for each other: [`Barrier`].
//!
//! So many parties, threads of any processes, come to it and wait; when the last is there, all go on, and the
//! barrier is ready for the next round. It is used like `std`'s. What it adds is that it works between
//! processes, and that any of them may be killed at any instruction:
//!
//! - **A party dies while the others wait**, by `SIGKILL` or otherwise: the barrier is *broken*. All others
//!   get `Err(WaitError::Broken)` at once, whose [`cause`](WaitError::cause) is [`BrokenCause::PartyDied`]
//!   with the dead process's id. They do not wait for one who will never come.
//! - **A party dies on its way in**: it has come and breaks the round, or it has not, and the others go on
//!   waiting for somebody.
//! - **A party dies when its round is complete**: the others pass, and the next round is not touched.
//! - **The leader dies in the action**: as for one that waits.
//! - **Everybody dies**: the memory is anonymous, and goes with its last user.
//!
//! # Example
//!
//! ```
//! use polyproc_barrier::Barrier;
//!
//! # fn main() -> std::io::Result<()> {
//! let barrier = Barrier::new(2)?;
//! std::thread::scope(|scope| {
//!     let other = scope.spawn(|| barrier.wait().unwrap());
//!     let here = barrier.wait().unwrap();
//!     let there = other.join().unwrap();
//!     assert_eq!(here.index + there.index, 1);
//!     assert!(here.leader != there.leader);
//! });
//! # Ok(())
//! # }
//! ```
//!
//! To share it with another process, give it a clone: as an argument of `polyproc_process::Process::spawn`,
//! through a `fork`, or in anything else that hands over polyproc's handles.
//!
//! # What blocks, and for how long
//!
//! [`Barrier::wait`] waits until all parties are there or the barrier is broken. It looks at the barrier for
//! a moment, if that has lately been worth it, and then sleeps. A wait with a timeout breaks the barrier for
//! everybody when its time is over, on a monotonic clock. There is no `try_wait`. `abort`, `reset` and the
//! queries do not wait.
//!
//! # Broken, and whole again
//!
//! A barrier stays broken until [`Barrier::reset`]: all waits fail at once, with the cause. The causes are in
//! [`BrokenCause`]: a death, a timeout, an `abort`, a `reset` while others waited, a panic of the action. It
//! is the first that counts.
//!
//! # More threads than parties
//!
//! That is allowed: who comes when a round is full is one for the next. A barrier has seats for twice as many
//! threads as it has parties; more wait until one is free. A party that dies just as it comes to a round that
//! others complete may break that round.
//!
//! # What it costs
//!
//! Two processes that run at the same time pass each other without a system call: two atomic instructions a
//! party. If others sleep, the last wakes all with one system call. A waiter that sleeps does so on
//! `2 * parties + 2` words, with one system call (futex_waitv). A barrier takes `128 * parties + 128` bytes;
//! one of its own is rounded up to a page, and has a file descriptor; thousands belong into one [`Arena`].
//!
//! A death is told to the others by the kernel, within a fraction of a millisecond. On kernels before 5.16 a
//! sleeper looks every millisecond instead; with more than 63 parties, every 10 milliseconds.
//!
//! # Differences from `std::sync::Barrier`
//!
//! - `new` can fail: it allocates memory that other processes can map. No parties are an error.
//! - `wait` can fail: the barrier can be broken.
//! - There are timeouts, `abort`, `reset`, an action, and an index for each party.
//!
//! # Limits
//!
//! Every process that a handle was given to can write to the barrier, and is trusted to keep to the rules.
//! Neither waits nor `abort` and `reset` are for signal handlers. A thread that waits holds one of the 2,048
//! locks that it may hold. There are at most [`MAX_PARTIES`] parties. In processes of different PID
//! namespaces, threads can have equal ids; the kernel may then take a seat of one for that of the other if it
//! dies in the instant in which both want the same seat, and break a round without a death.

#![deny(unsafe_code)]

mod ending;
mod error;
mod raw;
mod seat;
#[allow(unsafe_code)]
mod watch;
mod word;

#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub mod model;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod barrier;

pub use error::{BrokenBarrier, BrokenCause, WaitError};
pub use raw::{BarrierWait, RawBarrier};
pub use seat::Seat;
pub use word::MAX_PARTIES;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {barrier::Barrier, polyproc_memory::Arena};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
