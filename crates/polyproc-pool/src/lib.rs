//! A pool of processes: `map`, `imap`, `apply`, with every failure named and every other result right.
//!
//! [`Pool`] is Python's `multiprocessing.Pool`, typed: it keeps some processes of this program at work, and
//! calls functions in them. What goes wrong with a task is that task's result. A worker that is killed takes
//! along only the task that it was at, and another worker takes its place.
//!
//! ```
//! use polyproc_pool::Pool;
//!
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // in a worker: does its work and exits
//!     let pool = Pool::new(4)?;
//!     assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]);
//!     Ok(())
//! }
//! ```
//!
//! # Operations
//!
//! | | |
//! |---|---|
//! | [`map`](Pool::map), [`starmap`](Pool::starmap) | all results, in order |
//! | [`imap`](Pool::imap), [`imap_unordered`](Pool::imap_unordered) | results as they come, of input that may have no end |
//! | [`apply`](Pool::apply) | one call |
//! | [`apply_async`](Pool::apply_async), [`map_async`](Pool::map_async), [`starmap_async`](Pool::starmap_async) | an [`AsyncResult`], to be waited for, [cancelled](AsyncResult::cancel), or [handed on](AsyncResult::then) |
//! | [`for_each_chunk`](Pool::for_each_chunk) | works on a shared `Array`, in place |
//! | [`batch`](Pool::batch) | chunk size, window and progress bar of a single `map` or `imap` |
//! | [`close`](Pool::close), [`terminate`](Pool::terminate), [`join`](Pool::join) | the end |
//! | [`resize`](Pool::resize), [`stats`](Pool::stats) | how many, how busy |
//! | [`Pool::builder`] | initializer, lifetime, retries, timeout, a state of each worker's own ([`StatePool`]) |
//!
//! Functions are plain `fn`s, or closures that capture nothing, which is checked at compile time. Arguments
//! and results are what serde takes; handles of shared memory may be among them. A vector of numbers that is
//! itself the argument or the result is copied at once; one inside something else is sent number by number.
//! Send bytes inside something else as `serde_bytes` types: that is faster.
//!
//! # What a death does
//!
//! | what happens | what comes of it |
//! |---|---|
//! | the function returns an `Err` | that is the task's result |
//! | it panics | [`TaskError::Panicked`] with message, place and calls; the worker goes on |
//! | its worker is killed, crashes, or calls `exit` | [`TaskError::WorkerDied`] with pid and status, for exactly the task that it was at, at once; or another try, see [`Retry`] |
//! | an idle worker is killed | nothing: another has its place |
//! | a worker is stopped (`SIGSTOP`) | what it has not begun goes to others that are idle; the task that it is at waits, or its [timeout](Builder::task_timeout) kills it; with a timeout, a worker that begins nothing for ten times as long, a second at least, is killed, too |
//! | a child returns from the task, the initializer or the maker of a state that has forked it | that child ends there |
//! | arguments or a result cannot be sent or read | that task's error |
//! | the initializer fails or panics | the pool is [broken](PoolError::Initializer), with its message |
//! | workers die before they are ready, three in a row | the pool is [broken](PoolError::WorkersDie) |
//! | workers die before they begin a task, ten of them: they have too little memory for it, perhaps | [`TaskError::Unbegun`] for that task |
//! | the system has no room for another worker | it is asked again, less and less often; if there is no worker at all, what waits for more than half a second [fails](TaskError::Broken), and what comes later may be run |
//! | this process is killed | its workers are killed, too |
//! | Ctrl-C in a terminal | this process is interrupted, and the workers are not |
//!
//! A task is begun once, unless it is to be tried again. Results of a chunk that were ready when its worker
//! died are not lost, and what the worker had not begun goes to others. `map` runs all tasks to their end,
//! whatever becomes of some, and its [error](MapError) has all results.
//!
//! # What blocks
//!
//! `map`, `apply`, `get`, `join` and the iterators wait. A thread that waits attends to the pool's workers
//! itself, for all others too; a thread of the pool does so when nobody waits. Callbacks have a thread of
//! their own. Whatever has a timeout waits no less than it says, by the monotonic clock.
//!
//! Input is pulled in the thread that calls `map`, `next` and so on, only as far ahead as the workers will
//! soon need. The `_async` forms pull all of it at once, and keep it in memory, unless
//! [`max_in_flight`](Builder::max_in_flight) bounds what is under way.
//!
//! # What it costs
//!
//! Ratios of one run on two virtual CPUs with two workers: `benches/README.md` has more, and how they were
//! taken.
//!
//! - A task there and back, hot: about 3 µs; a plain connection does it in 0.8.
//! - A task among many: 16 to 27 ns, most of it for turning a number into bytes and back, twice, and for
//!   fresh memory. Python's `Pool.map` takes seven to nine times as long, and three hundred times as long
//!   with chunks of one. Threads with `rayon` share their memory and take 0.7 to 1.5 ns: a task that takes
//!   less than some hundred nanoseconds is not worth sending to another process.
//! - How many tasks a worker gets at a time depends on how long they were measured to take; what it has not
//!   begun can be taken back, so a slow task holds up no other.
//! - Arguments or results of more than 24 KiB lie in shared memory that is used again, and are copied twice
//!   each way: into it and out of it. Some arguments need a third copy: if many of them wait, or
//!   [`apply`](Pool::apply) submits them.
//! - A worker costs a process, about a millisecond to start, 310 KiB of shared memory, and five descriptors
//!   in this process. For long items there are up to ten more pieces of shared memory for a worker, and eight
//!   for the pool, each with a descriptor; those of up to 16 MiB are kept until it ends.
//! - Each wait looks at every worker that is at work; with hundreds of workers that takes some microseconds.
//!
//! # Limits
//!
//! - A single argument or result is at most 1 GiB, less 64 KiB.
//! - The bytes do not say what they are, so types that want to be told (untagged enums, flattened structs,
//!   `serde_json::Value`) and those that leave out fields now and then (`skip_serializing_if`) cannot be
//!   sent: that is the task's error. A variant that serde is to skip has to be the enum's last.
//! - If this process is killed in [`for_each_chunk`](Pool::for_each_chunk), its workers die a moment after
//!   it, and whoever takes the array's lock waits for that, which may take long if a worker is stopped
//!   (`SIGSTOP`).
//! - That a task has exceeded its `task_timeout` is noticed by looking: at most a tenth of it, or some
//!   milliseconds, too late.
//! - If the program ignores `SIGCHLD`, nobody knows how a worker ended.
//! - Functions of a shared library cannot be called. The other limits of `polyproc-process` hold here too.

#![forbid(unsafe_code)]

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod batch;
mod board;
mod builder;
mod codec;
mod core;
mod crew;
mod error;
mod feed;
mod hub;
mod imap;
mod items;
mod map;
mod owner;
mod pace;
mod pile;
mod pool;
mod progress;
mod result;
mod shelf;
mod spare;
mod state;
mod wire;
mod worker;

pub use crate::core::Retry;
pub use builder::Builder;
pub use error::{MapError, PoolError, TaskError};
pub use imap::{Imap, ImapUnordered};
pub use owner::{Stats, WorkerStats};
pub use pool::{Batch, Pool};
pub use result::AsyncResult;
pub use state::StatePool;
pub use worker::Initialized;
