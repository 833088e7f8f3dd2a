//! Queues between processes: [`Queue`], and [`JoinableQueue`], which knows when all of its work is done.
//!
//! Any number of processes put, any number get. Messages come out in the order in which they went in, whoever
//! put them: a put that has returned comes before one that begins. A message is in the queue when `put`
//! returns: no thread carries it there later, and the process that put it may end at once.
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
//! To share it with another process, give it a clone: as an argument of `polyproc_process::Process::spawn`,
//! through a `fork`, or in anything else that hands over polyproc's handles.
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
//! `put`, `get` and `join` have an `_until` form. An error of `put` has the message, so nothing is lost.
//! `reserve`, and `put_bytes` of bytes that the caller keeps, are for queues of [`Bytes`].
//!
//! # What blocks
//!
//! - `get` and its kin wait for a message, `put` and its kin for room: in a [bounded](Queue::bounded) queue
//!   for the number of messages, in every queue for bytes. They look for a while, then they sleep. A timeout
//!   is never shorter than it says, and runs on a monotonic clock.
//! - Those who put do so one after the other, and so do those who get; the two sides do not wait for each
//!   other. What is done in turn is a copy of the message. A process that is *stopped* in the middle of it
//!   (`SIGSTOP`, a debugger) holds up its side until it goes on or dies. The `try_` forms wait for that for a
//!   millisecond at most, and then say that the queue is full or empty.
//! - A [`Reservation`] is a long copy: until it is committed or dropped, nobody else puts, and nobody can
//!   close. The thread that has it must not put or close: `close` and its blocking `put` panic, because they
//!   would wait for themselves.
//! - `len` and the like never wait. Where nobody is at work they are exact, and say what `try_get` and
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
//!   [`is_redelivered`](Claim::is_redelivered) says so. It was perhaps worked on. Killed in the middle of
//!   `ack`, it is either gone or delivered again.
//! - **With a reservation**: nothing was put.
//! - **While it closes**: the queue is closed, or it is not; if it is, everybody hears of it.
//! - **While it sleeps**: nobody notices. A wake that was spent on it goes to another.
//! - **With a task that was got and is not done**: `join` waits. Get tasks that must survive their worker by
//!   `claim`.
//! - **Everybody**: the memory is anonymous, and goes with its last user.
//!
//! A death is the end of the process, or of the thread.
//!
//! # Codecs
//!
//! The second parameter says how messages travel: [`Postcard`] (if nothing is said but the message's type,
//! `Queue::<String>::new()`) for what serde takes, [`Raw`] for plain data, [`Bytes`] for vectors of bytes, or
//! a [`Codec`] of one's own. Encoding is done by the process that puts, before it has a turn: a message that
//! cannot be encoded is `put`'s error, and comes back. Decoding is done by the process that gets, after its
//! turn: a message that cannot be decoded is the error of that one message, and has its bytes.
//!
//! Handles with another codec, or with a `Raw` type of another layout, do not attach to the queue. With
//! `Postcard`, the types are not compared.
//!
//! polyproc's handles (locks, values, other queues) cannot be sent in messages, since a descriptor has to go
//! with them: `put` refuses such a message. They travel as arguments of `Process::spawn`, or through a
//! `Connection`.
//!
//! # Memory
//!
//! A queue is made with 64 KiB for messages. When that is full, producers go on in a part that is twice as
//! large, and so on, up to a limit in bytes: a quarter of the system's memory (less where `ulimit` has it
//! so), or what [`with_max_bytes`](Queue::with_max_bytes) says. When consumers have emptied a part they give
//! its memory back to the system, and a drained queue is back in its 64 KiB. A queue that grows again each
//! time, soon after it was drained, waits with that for some rounds.
//!
//! Until they are needed, the larger parts are addresses, not memory. When they are needed and there is no
//! memory, `put` fails with [`PutError::OutOfMemory`], and the queue is as before. A message can be as large
//! as the limit, less 8 bytes, rounded down to the largest part, which is at least half of it.
//!
//! A claimed message, or one under a [`MessageRef`], stays where it is, and so does the memory of all that
//! came after it, until it is acknowledged. One that is kept for long fills up the queue.
//!
//! # The end
//!
//! [`close`](Queue::close) is for everybody. Nothing can be put any more; what is there can be got; then
//! `get` is [`GetError::Closed`], and an iteration ends. As long as a message is claimed, it may come back,
//! so `get` waits for that too: a thread that has a claim, and gets from a closed queue until the end, waits
//! for itself.
//!
//! # What it costs
//!
//! - A put or a get is a copy, and one lock at most. It makes no system call unless somebody sleeps, and
//!   allocates nothing but what the message itself has. `put_many` and `get_many` take one lock and one wake
//!   for as many as they can.
//! - A message takes 8 bytes beside its own, rounded up to 8; messages of plain data up to 256 bytes that are
//!   put by one `put_many` take them once. `reserve` and `get_ref` copy nothing.
//! - A queue has one file descriptor and one mapping. An empty one is 80 KiB of memory, and takes about 45 µs
//!   to make.
//!
//! # Limits
//!
//! - Linux 5.4 and later, glibc, 64-bit.
//! - 60 threads sleep at a time for messages, 60 for room, and 60 in `join`. More are served too, but look by
//!   themselves every millisecond.
//! - 32 messages are claimed at a time, in all processes. One more is [`GetError::TooManyClaims`].
//! - A thread holds at most 2,048 locks (polyproc's, and robust pthread mutexes), claims included: that is
//!   how many the kernel releases for a dead thread.
//! - Whoever always puts, or always gets, does so with plain stores, as long as nobody else comes. That needs
//!   membarrier(2). Processes that may not call it use the queue too, but are not so fast, and nor are the
//!   others from then on; the first time, they wait 20 ms. On each side, 8 living threads can be so fast, one
//!   after the other.
//! - Not for signal handlers. A `fork` gives the child no claims, no messages in place and no reservations:
//!   what it inherits of them does nothing.
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
