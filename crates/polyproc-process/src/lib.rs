//! Processes that run a function of this program: spawned safely, joined with its result, and named when they
//! die.
//!
//! [`Process::spawn`] starts a process and calls a function in it; [`Process::join`] waits for it and returns
//! what the function returned, or says how the process ended instead. It is `std::thread::spawn` for
//! processes, and Python's `multiprocessing.Process`.
//!
//! ```
//! use polyproc_process::Process;
//!
//! fn count_primes(from: u32, to: u32) -> usize {
//!     (from.max(2)..to).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // in a spawned child: run its function and exit
//!     let workers = (0..4)
//!         .map(|n| Process::spawn(count_primes, (2_500 * n, 2_500 * (n + 1))))
//!         .collect::<Result<Vec<_>, _>>()?;
//!     let mut primes = 0;
//!     for worker in workers {
//!         primes += worker.join()?;
//!     }
//!     assert_eq!(primes, 1229);
//!     Ok(())
//! }
//! ```
//!
//! # How a process starts
//!
//! The program starts itself again: `posix_spawn` of `/proc/self/exe`, which works even if the file has been
//! replaced or deleted since. [`init`], at the beginning of `main`, notices that this is a child, finds the
//! function by its place in the program, and never returns. No memory is copied and no lock inherited, so
//! this is safe in a program with threads, and takes the same time however large the program has grown.
//!
//! - The function is a plain `fn`, or a closure that captures nothing. That is checked at compile time.
//! - The arguments are a tuple of types that serde can send. Handles of shared memory may be among them:
//!   their descriptors travel beside the bytes. Large arguments travel in a memfd.
//! - The child has the parent's command line, environment and working directory, reads `/dev/null`, and
//!   writes where the parent writes. It has no other descriptor of the parent's. [`Builder`] changes that.
//! - If the program has not called `init`, `spawn` is an error. It never starts the program over and over.
//! - Under `cargo test`, where `main` is not yours, [`init_for_tests!`] does the same.
//!
//! [`Process::fork`] is there for programs of one thread that want a copy of themselves; it is `unsafe`.
//!
//! # How a process ends
//!
//! | what happens | what `join` returns |
//! |---|---|
//! | the function returns | `Ok(value)`, even if the process is killed afterwards |
//! | it panics | [`JoinError::Panicked`] with message and place; the child prints it too, with its name |
//! | something calls `exit` | [`JoinError::Exited`] with the code |
//! | a signal kills the process | [`JoinError::Signaled`] with the signal |
//! | the value cannot be sent, or read | [`JoinError::Encode`], [`JoinError::Decode`] |
//! | the arguments cannot be read | [`JoinError::Arguments`] |
//!
//! A process is known by its pidfd, so no operation ever reaches another process that was given the same id.
//! A killed process leaves nothing behind: its control socket and its memory files have no names, and the
//! kernel frees them.
//!
//! When a parent exits normally, it ends its [daemons](Builder::daemon) and waits for its other children.
//! When it is killed, its daemons die with it, and the others go on; they can learn of it from
//! [`parent_process`].
//!
//! # What blocks, what it costs
//!
//! `spawn` and `join` of an empty function cost about what `posix_spawn` and `wait` of the same program cost,
//! which is the kernel's work of loading it: together about a millisecond on a virtual machine with two CPUs.
//! A child costs its parent two descriptors until it is joined and dropped, and the first child one more.
//! `join` blocks; `try_join`, `is_alive`, the signals and [`active_children`] do not. No thread works behind
//! the scenes, except one that sleeps in each daemon.
//!
//! # Limits
//!
//! - What `main` does before `init` happens in every child too.
//! - A function of a shared library (`dlopen`, `dylib` crates) cannot be spawned:
//!   [`SpawnError::NotInProgram`].
//! - Programs that run with more privileges than their caller, such as set-user-ID programs, cannot spawn:
//!   [`SpawnError::Privileged`].
//! - With a C library before glibc 2.34, descriptors that another thread opens without `O_CLOEXEC` during a
//!   `spawn` can leak into the child.
//! - If the program ignores `SIGCHLD`, or waits for any child itself, values still arrive, but nobody knows
//!   how a process ended that returned none.
//! - `/proc` has to be mounted, and `/proc/self/exe` has to be this program, which it is not under an
//!   emulator, or if the program was started through an explicit `ld.so`.

#![deny(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod builder;
mod channel;
mod child;
mod entry;
mod error;
mod family;
mod fork;
mod function;
mod image;
mod init;
mod panics;
mod process;
mod raw;
#[doc(hidden)]
pub mod remote;
mod running;
mod start;

pub use builder::{Builder, Stdio};
pub use error::{CodecError, JoinError, SpawnError};
pub use family::{
    Child, CurrentProcess, Parent, active_children, cpu_count, current_process, parent_process,
};
pub use function::Function;
pub use init::init;
#[doc(hidden)]
pub use init::init_before_main;
pub use process::Process;
#[doc(hidden)]
pub use raw::without_close_from;
