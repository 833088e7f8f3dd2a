//! What polyproc's primitives need from the system, and nothing else: futexes that work between processes,
//! the thread's robust list, monotonic deadlines, back-off, the thread's identity, locks that no forked child
//! inherits in the locked state, and long copies.
//!
//! This is the bottom of polyproc. Users of a primitive rarely meet it; it is public for those who build
//! primitives of their own.
//!
//! | module | what it gives | what it costs |
//! |---|---|---|
//! | [`atomic`] | the atomics of shared memory, and the seam for the model checkers | nothing |
//! | [`futex`] | sleep on a 32-bit word, wake whoever sleeps there, in any process | a system call |
//! | [`robust`] | tell the kernel which locks a thread holds, so that it can release them for the dead | a few plain stores |
//! | [`thread`] | who the calling thread is, right after a `fork` too | a thread-local load |
//! | [`membarrier`] | barriers that only the rare side pays for | a system call, for that side |
//! | [`deadline`] | a point in monotonic time | a vDSO call when made |
//! | [`backoff`] | how long to spin before sleeping | nothing |
//! | [`fork`] | a lock among threads that no forked child inherits locked | two locks of `std`'s |
//! | [`copy`](mod@copy) | long copies between two CPUs | no more than the lines between them |
//! | [`prefetch`] | hints that a cache line is going to be used | an instruction |
//!
//! # Models
//!
//! Built with `--cfg polyproc_loom` (or `--cfg polyproc_shuttle`) the same names are the model checker's:
//! atomics, futexes with the kernel's rules, a robust list that a simulated kernel walks when a simulated
//! thread vanishes. A core that imports its atomics, futexes and robust list from here runs in both worlds
//! unchanged.
//!
//! # Example
//!
//! ```
//! use polyproc_sys::{deadline::Deadline, futex::{Futex, Wait}};
//! use std::time::{Duration, Instant};
//!
//! let word = Futex::new(7);
//! let start = Instant::now();
//! // The word is 7, and nobody wakes us: the wait ends with the deadline, not before it.
//! let end = word.wait(7, Deadline::after(Duration::from_millis(20)));
//! assert_eq!(end, Wait::TimedOut);
//! assert!(start.elapsed() >= Duration::from_millis(20));
//! // The word is not 8: no wait at all.
//! assert_eq!(word.wait(8, Deadline::NEVER), Wait::Changed);
//! ```

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!(
    "polyproc needs Linux with glibc on a 64-bit machine: its locks live in the robust list that glibc \
     registers with the kernel, and share its layout"
);

pub mod atomic;
pub mod backoff;
pub mod copy;
pub mod deadline;
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub mod model;
pub mod prefetch;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub mod fork;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub mod futex;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub mod membarrier;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub mod robust;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub mod thread;

#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub use model::{futex, membarrier, robust, thread};
