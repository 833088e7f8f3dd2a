//! Queues between processes: [`Queue`], and [`JoinableQueue`], which knows when all of its work is done.
//!
//! Any number of processes put messages, and any number get them. Messages come out in the order in which
//! they went in, whoever put them: a put that has returned comes before one that begins later. A message is
//! in the queue when `put` returns: no thread carries it there later, and the process that put it may end at
//! once.
//!
//! # Example
//!
//! ```
//! use polyproc_queue::Queue;
//!
//! # fn main() -> std::io::Result<()> {
//! let words = Queue::<String>::new()?;
//!
//! // Here a thread; a process that was given `words.clone()` does the same.
//! let producer = std::thread::spawn({
//!     let words = words.clone();
//!     move || {
//!         for word in ["one", "two", "three"] {
//!             words.put(word.to_owned()).unwrap();
//!         }
//!         words.close();
//!     }
//! });
//!
//! let received: Vec<String> = words.iter().map(Result::unwrap).collect();
//! assert_eq!(received, ["one", "two", "three"]);
//! # producer.join().unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! Clones of a handle are the same queue. To share it with another process, give that process a clone: as an
//! argument of `polyproc_process::Process::spawn`, in a message through a `polyproc_pipe::Connection`, or by
//! `fork`. If your processes are started in some other way, `polyproc_memory::handover` makes bytes and a
//! file descriptor of a handle, and a handle of these.
//!
//! # Operations
//!
//! | | one | many | where it lies |
//! |---|---|---|---|
//! | in | [`put`](Queue::put) | [`put_many`](Queue::put_many) | [`reserve`](Queue::reserve), then [`commit`](Reservation::commit) |
//! | out | [`get`](Queue::get), [`get_into`](Queue::get_into), [`iter`](Queue::iter) | [`get_many`](Queue::get_many) | [`get_ref`](Queue::get_ref) |
//! | out, and back if its receiver dies | [`claim`](Queue::claim), then [`ack`](Claim::ack) | | |
//! | the end | [`close`](Queue::close), [`is_closed`](Queue::is_closed) | | |
//! | how it stands | [`len`](Queue::len), [`is_empty`](Queue::is_empty), [`is_full`](Queue::is_full), [`capacity`](Queue::capacity) | | |
//! | the work | [`task_done`](JoinableQueue::task_done), [`join`](JoinableQueue::join), [`unfinished`](JoinableQueue::unfinished) | | |
//!
//! Those that wait have a `try_` form, which does not wait for messages or room, and a `_timeout` form;
//! `put`, `get` and `join` have an `_until` form, too. An error of `put` gives the message back, so nothing
//! is lost. `reserve`, and `put_bytes` for bytes that the caller keeps, are for queues of [`Bytes`].
//!
//! # What blocks
//!
//! - `get` and its kin wait for a message, `put` and its kin for room: in a [bounded](Queue::bounded) queue
//!   for the number of messages, in every queue for bytes. They look for a while, and then they sleep. A
//!   timeout is never shorter than it says, and runs by the monotonic clock.
//! - Those who put do so one after the other, and so do those who get; the two sides do not wait for each
//!   other. What has to be done in turn is the copying of the message. A process that is *stopped* in the
//!   middle of it (`SIGSTOP`, a debugger) holds up its side until it goes on or dies. The `try_` forms wait
//!   for that for a millisecond at most, and then say that the queue is full or empty.
//! - A [`Reservation`] is like a long copy: until it is committed or dropped, nobody else can put or close.
//!   The thread that has it must not put or close either: `close` and its blocking `put` panic, because they
//!   would wait for themselves.
//! - `len` and the like never wait. While nobody is at work they are exact, and say what `try_get` and
//!   `try_put` will do.
//!
//! # What a death does
//!
//! Any process may be killed at any instruction. The kernel tells the others, at once and without anybody
//! watching.
//!
//! - **While it puts**: the message is there, whole, or it is not. With [`put_many`](Queue::put_many), the
//!   first so many are there. What `put` has acknowledged is there.
//! - **While it gets**: the message is still there, or it is gone with the process. Between taking a message
//!   and recording it somewhere there is always an instruction at which a death loses it; where that matters,
//!   use [`claim`](Queue::claim).
//! - **With a claim**: the message is delivered again, before all others, and
//!   [`is_redelivered`](Claim::is_redelivered) says so. It may have been worked on. If the process is killed
//!   in the middle of `ack`, the message is either gone or delivered again.
//! - **With a reservation**: nothing was put.
//! - **While it closes**: the queue is closed, or it is not; if it is, everybody hears of it.
//! - **While it sleeps**: nobody notices. A wake that was spent on it goes to another.
//! - **With a task that was got and is not done**: `join` goes on waiting. Get tasks that must survive their
//!   worker by `claim`.
//! - **Everybody**: the memory has no name in any file system, and is freed with its last user.
//!
//! A death is the end of the process, or of the thread.
//!
//! ```
//! use polyproc_process::Process;
//! use polyproc_queue::Queue;
//!
//! fn worker(tasks: Queue<String>) {
//!     let _task = tasks.claim().unwrap();
//!     std::process::abort(); // In the middle of its work.
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // In a child: runs its function and exits.
//!     let tasks = Queue::<String>::new()?;
//!     tasks.put("work".into()).unwrap();
//!     assert!(Process::spawn(worker, (tasks.clone(),))?.join().is_err());
//!
//!     let task = tasks.claim().unwrap();
//!     assert_eq!(*task, "work");
//!     assert!(task.is_redelivered());
//!     task.ack();
//!     Ok(())
//! }
//! ```
//!
//! # Codecs
//!
//! The second parameter says how messages travel: [`Postcard`] for what serde takes (the default:
//! `Queue::<String>::new()`), [`Raw`] for plain data, [`Bytes`] for vectors of bytes, or a [`Codec`] of your
//! own. The process that puts a message encodes it before its turn: if that fails, `put` returns an error
//! with the message. The process that gets it decodes it after its turn: if that fails, the error concerns
//! this one message, and has its bytes.
//!
//! Handles with another codec, or with a `Raw` type of another layout, do not attach to the queue. With
//! `Postcard`, the types are not compared.
//!
//! polyproc's handles (locks, values, other queues) cannot be in a queue's messages, because a descriptor has
//! to go with them: `put` refuses such a message. They travel as arguments of `Process::spawn`, or through a
//! `Connection`.
//!
//! # Memory
//!
//! A queue is made with 64 KiB for messages. When that is full, producers go on in a part that is twice as
//! large, and so on, up to a limit in bytes: a quarter of the system's memory (less if `ulimit` says so), or
//! what [`with_max_bytes`](Queue::with_max_bytes) says. When consumers have emptied a part they give its
//! memory back to the system, and a drained queue is back in its 64 KiB. A queue that grows again and again,
//! soon after it was drained, keeps its memory for some rounds.
//!
//! Until they are needed, the larger parts are addresses, not memory. When they are needed and there is no
//! memory, `put` fails with [`PutError::OutOfMemory`], and the queue is as before. The longest message is as
//! long as the largest part, less 8 bytes; that part is at least half of the limit.
//!
//! A claimed message, or one under a [`MessageRef`], stays where it is, and so does the memory of all that
//! came after it, until it is acknowledged. One that is kept for long fills up the queue.
//!
//! # The end
//!
//! [`close`](Queue::close) closes the queue for everybody. Nothing can be put any more; what is there can be
//! got; then `get` returns [`GetError::Closed`], and an iteration ends. As long as a message is claimed, it
//! may come back, so `get` waits for that too: a thread that holds a claim and gets from a closed queue until
//! the end waits for itself.
//!
//! # What it costs
//!
//! - A put or a get is a copy, and one lock at most. It makes no system call unless somebody sleeps, and
//!   allocates nothing but the message itself. `put_many` and `get_many` take one lock and one wake for as
//!   many messages as they can.
//! - A message takes its own bytes, rounded up to a multiple of 8, and 8 more; messages of plain data of up
//!   to 256 bytes that are put by one `put_many` share these 8. `reserve` and `get_ref` copy nothing.
//! - A queue has one file descriptor and one mapping. An empty one is 80 KiB of memory, and takes about 45 µs
//!   to make.
//!
//! # Limits
//!
//! - Linux 5.4 and later, glibc, 64-bit.
//! - 60 threads can sleep for messages at a time, 60 for room, and 60 in `join`. More are served too, but
//!   have to look every millisecond.
//! - 32 messages can be claimed at a time, by all processes together. One more is
//!   [`GetError::TooManyClaims`].
//! - A thread holds at most 2,048 locks (polyproc's, and robust pthread mutexes), claims included: that is
//!   how many the kernel releases for a dead thread.
//! - A thread that always puts, or always gets, does so with plain stores, as long as nobody else does. That
//!   needs membarrier(2). Processes that may not call it can use the queue too, but are slower, and from then
//!   on so are the others; the first time, they wait 20 ms. On each side, at most 8 living threads can be
//!   this fast, one after the other.
//! - Not for signal handlers. A `fork` gives the child no claims, no messages in place and no reservations:
//!   those that it inherits do nothing.
//! - A queue needs addresses of its own to grow into, so none can be placed in an `Arena`.
//! - Every process that was given a handle is trusted with the memory.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
#[cfg_attr(any(polyproc_loom, polyproc_shuttle), allow(dead_code, reason = "the models use a part of it"))]
mod biased;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod blocking;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod chase;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod consumer;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod error;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod fast;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod layout;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod producer;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod raw;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod record;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod ring;
#[allow(unsafe_code)]
#[cfg_attr(any(polyproc_loom, polyproc_shuttle), allow(dead_code, reason = "the models use a part of it"))]
mod robust;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod run;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod waiting;
#[allow(unsafe_code)]
#[cfg_attr(any(polyproc_loom, polyproc_shuttle), allow(dead_code, reason = "the models use a part of it"))]
mod waitroom;

#[cfg(any(polyproc_loom, polyproc_shuttle))]
#[allow(unsafe_code)]
pub mod model;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod claim;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod joinable;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod queue;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    claim::{Claim, MessageRef, Reservation},
    error::{GetError, GetManyError, PutError, PutManyError, TaskDoneError, TryGetError, TryPutError},
    joinable::JoinableQueue,
    polyproc_memory::{
        CreateError,
        codec::{Bytes, Codec, DecodeError, EncodeError, Postcard, Raw},
    },
    queue::{Iter, Queue},
};

/// The README's example runs.
#[cfg(all(doctest, not(any(polyproc_loom, polyproc_shuttle))))]
#[doc = include_str!("../README.md")]
struct Readme;
