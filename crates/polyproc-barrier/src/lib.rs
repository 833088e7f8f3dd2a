//! A place where processes wait for each other: [`Barrier`].
//!
//! A fixed number of parties, which are threads of any processes, come to it and wait. When the last is
//! there, all go on, and the barrier is ready for the next round. It is used like `std`'s. What it adds is
//! that it works between processes, and that any of them may be killed at any instruction:
//!
//! - **A party dies while the others wait**, by `SIGKILL` or otherwise: the barrier is *broken*. All others
//!   get `Err(WaitError::Broken)` at once, whose [`cause`](WaitError::cause) is [`BrokenCause::PartyDied`]
//!   with the dead process's id. They do not wait for one that will never come.
//! - **A party dies on its way in**: it has come, and breaks the round; or it has not, and the others go on
//!   waiting for somebody.
//! - **A party dies when its round is complete**: the others pass, and the next round is not touched.
//! - **The leader dies in the action**: as for one that waits.
//! - **Everybody dies**: the memory has no name in any file system, and is freed with its last user.
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
//! A process that is killed while it waits, here started by `polyproc_process`:
//!
//! ```
//! use polyproc_barrier::{Barrier, BrokenCause};
//! use polyproc_process::Process;
//!
//! fn worker(barrier: Barrier) {
//!     let _ = barrier.wait();
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // In a child: runs its function and exits.
//!     let barrier = Barrier::new(3)?;
//!     let child = Process::spawn(worker, (barrier.clone(),))?;
//!     while barrier.n_waiting() == 0 {
//!         std::thread::yield_now();
//!     }
//!     child.kill()?;
//!     // A third party has not come, and need not.
//!     let error = barrier.wait().unwrap_err();
//!     assert_eq!(error.cause(), Some(BrokenCause::PartyDied { pid: child.pid() }));
//!     # assert!(child.join().is_err());
//!     Ok(())
//! }
//! ```
//!
//! # Sharing it
//!
//! Clones of a handle are the same barrier. To share it with another process, give that process a clone: as
//! an argument of `polyproc_process::Process::spawn`, in a message through a `polyproc_pipe::Connection`, or
//! by `fork`. If your processes are started in some other way, `polyproc_memory::handover` makes bytes and a
//! file descriptor of a handle, and a handle of these.
//!
//! # What blocks, and for how long
//!
//! [`Barrier::wait`] waits until all parties are there or the barrier is broken. It looks for some
//! microseconds, if that has paid off lately, and then sleeps. A wait with a timeout breaks the barrier for
//! everybody when its time is over, by the monotonic clock. There is no `try_wait`. `abort`, `reset` and the
//! queries do not wait.
//!
//! # Broken, and whole again
//!
//! A barrier stays broken until [`Barrier::reset`]: all waits fail at once, with the cause. The causes are in
//! [`BrokenCause`]: a death, a timeout, an `abort`, a `reset` while others waited, a panic in the action. The
//! first one counts.
//!
//! # More threads than parties
//!
//! That is allowed: whoever comes when a round is full is one for the next. A barrier has seats for twice as
//! many threads as it has parties; more wait until one is free. A party that dies just as it comes to a round
//! that others complete may break that round.
//!
//! # What it costs
//!
//! Two processes that run at the same time pass each other without a system call, with two atomic
//! instructions a party. If others sleep, the last wakes all of them with one system call. A waiter that
//! sleeps does so on `2 * parties + 2` words, with one system call (futex_waitv). A barrier takes
//! `128 * parties + 128` bytes; one of its own is rounded up to a page, and has a file descriptor; put
//! thousands of them into one [`Arena`].
//!
//! The kernel tells the others of a death, within a fraction of a millisecond. On kernels before 5.16 a
//! sleeper looks every millisecond instead; with more than 63 parties, every 10 milliseconds.
//!
//! # Differences from `std::sync::Barrier`
//!
//! - `new` can fail: it allocates memory that other processes can map. [`CreateError`] says why. A barrier
//!   without parties is an error.
//! - `wait` can fail: the barrier can be broken.
//! - There are timeouts, `abort`, `reset`, an action, and an index for each party.
//!
//! # Limits
//!
//! Every process that was given a handle can write to the barrier, and is trusted to keep to the rules.
//! Neither waits nor `abort` and `reset` are for signal handlers. A thread that waits holds one of the 2,048
//! locks that it may hold. There are at most [`MAX_PARTIES`] parties. In processes of different PID
//! namespaces, threads can have equal ids; if one of two such threads dies in the instant in which both want
//! the same seat, the kernel may take the other's seat for its own, and break a round without a death.

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
pub use {
    barrier::Barrier,
    polyproc_memory::{Arena, CreateError},
};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
