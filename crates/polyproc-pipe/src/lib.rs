//! Typed duplex connections between processes that survive their peer and do not trust it.
//!
//! [`pipe`] makes two ends. What one sends, the other receives, whole and in order; each can be given to
//! another process. It is `socketpair` with types and without system calls, and Python's
//! `multiprocessing.Pipe`.
//!
//! ```
//! use polyproc_pipe::pipe;
//!
//! let (here, there) = pipe::<String, u64>()?;
//! std::thread::spawn(move || {
//!     for text in there.iter() {
//!         there.send(text.unwrap().len() as u64).unwrap();
//!     }
//! });
//! here.send("hello".to_owned())?;
//! assert_eq!(here.recv()?, 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What there is
//!
//! | | |
//! |---|---|
//! | [`pipe`], [`Connection`] | sends one type, receives another |
//! | [`simplex`], [`Sender`], [`Receiver`] | one direction |
//! | [`wait`] | for several connections and processes at once |
//! | [`Postcard`], [`Raw`], [`Bytes`] | how messages become bytes: serde's types, plain data as it is, byte vectors |
//!
//! Besides, [`send_bytes`](Connection::send_bytes) and [`recv_bytes`](Connection::recv_bytes) pass bytes as
//! they are, whatever the types: `recv_bytes(max)` leaves a longer message where it is.
//!
//! [`close_send`](Connection::close_send) ends one direction, while the other goes on.
//!
//! Handles of shared memory may be in messages, other connections too: their descriptors travel beside the
//! bytes.
//!
//! # How it works
//!
//! Two rings in shared memory, one for each direction, each with one sender and one receiver, without locks.
//! A socket pair beside them wakes who sleeps, brings descriptors, and says when the last copy of the other
//! end is gone, however that came about. As long as both sides are awake messages pass without a system call,
//! but for a look now and then whether the other end is still there, and without an instruction that locks
//! the memory bus.
//!
//! A message says itself that it is there, so that one cache line passes for it and not two; short ones of
//! the same length that follow each other closely share a line. `benches/README.md` has what that costs
//! beside others.
//!
//! # With a runtime
//!
//! With the feature `tokio`, `recv_async` and `send_async` wait as tasks of that runtime. For others, and for
//! `poll` and `epoll`, a connection has a [descriptor](std::os::fd::AsFd) that is readable when there is
//! something to look at:
//!
//! ```
//! use polyproc_pipe::{Connection, RecvError};
//! use std::os::fd::{AsFd, BorrowedFd};
//!
//! fn next<S>(
//!     connection: &Connection<S, u32>,
//!     sleep_until_readable: impl Fn(BorrowedFd<'_>),
//! ) -> Result<u32, RecvError> {
//!     loop {
//!         match connection.try_recv() {
//!             Err(RecvError::Empty) => {}
//!             received => return received,
//!         }
//!         // Asks for the bell, and looks once more: what came meanwhile did not ring.
//!         if !connection.prepare_wait().map_err(RecvError::Io)? {
//!             sleep_until_readable(connection.as_fd());
//!         }
//!     }
//! }
//! # let (here, there) = polyproc_pipe::pipe::<u32, u32>().unwrap();
//! # let sender = std::thread::spawn(move || {
//! #     std::thread::sleep(std::time::Duration::from_millis(20));
//! #     there.send(7).unwrap();
//! # });
//! # let poll = |_: std::os::fd::BorrowedFd<'_>| assert!(here.poll(std::time::Duration::from_secs(10)).unwrap());
//! # assert_eq!(next(&here, poll).unwrap(), 7);
//! # sender.join().unwrap();
//! ```
//!
//! # What it blocks
//!
//! `recv` waits for a message, and `send` for room: 128 KiB a direction, which become up to 1 MiB where a
//! sender finds none, or sends parts of long messages faster than they are received, unless
//! [`pipe_with_capacity`] says otherwise. Both look for a few microseconds before they sleep. Each has a
//! `try_` form that does not wait, and forms that wait until a time. A message that is larger than half the
//! ring passes in parts, while the other side takes them.
//!
//! # What a death does
//!
//! - A process that is killed while it sends has sent the message, whole, or nothing.
//! - When the last process that has an end is gone, the other end receives what was sent, and then
//!   [`Disconnected`](RecvError::Disconnected), at once. Sending to it fails, and gives the message back.
//! - A process that is stopped costs the others only what they are willing to wait.
//!
//! An end that is given away is to be dropped by who gives it, which Rust does with what is moved into the
//! arguments of a process. As long as a clone is kept there, the other side sees no end.
//!
//! # The other side is not trusted
//!
//! It maps the same rings and may write anything there, at any time. Every position and length is copied out
//! and compared with what can be; payloads are copied before they are decoded; a message takes memory only as
//! its bytes arrive, and at most 1 GiB; a ring that is said to have grown is not read before this side has
//! seen to its memory. The worst that comes of it is [`Corrupt`](RecvError::Corrupt), and messages whose
//! contents are the other side's to choose anyway. A peer can keep a receiver busy, but not past its
//! deadline.
//!
//! # Limits
//!
//! - One process at a time uses an end. Threads of one process take turns; two processes that use the same
//!   end, after a `fork` or by a kept clone, make it [`Corrupt`](RecvError::Corrupt) at the latest when the
//!   second one sends or receives much. A forked child cannot send at an end where another thread of its
//!   parent was sending in that moment, nor receive where one was receiving: that is
//!   [`Corrupt`](RecvError::Corrupt) at once, and in its parent nothing. An end that is handed over as an
//!   argument or in a message is another one.
//! - Descriptors for which a process has no room (`EMFILE`) stay where they are, and so does their message,
//!   until others are closed. Nobody can look behind them: meanwhile `wait` says that the connection is
//!   ready, what it receives is the message in front or that error, and who waits for room looks every
//!   millisecond.
//! - Descriptors may come long before their message is received: this process keeps them meanwhile, up to
//!   131,072. So a peer that is not trusted can use up those that the process may have (`RLIMIT_NOFILE`).
//! - A send that comes within some thirty microseconds after the other end was killed may succeed, and after
//!   a burst of messages the next thirty, after a long one two hundred, however slowly those follow: as with
//!   any pipe, that it was sent does not mean that it was received.
//! - Each sleep in `recv` interrupts all CPUs that run a process which has connections, for some microseconds
//!   (membarrier(2)): where hundreds of processes work and sleep by turns, that adds up.
//! - Where membarrier(2) is missing (Linux before 4.16, some sandboxes), a send costs a memory barrier more,
//!   and who sleeps looks every millisecond.
//! - A task that sends a long message in parts keeps others from sending meanwhile. If it is neither polled
//!   nor dropped, it does so for ever.
//! - A process that is killed between publishing a message and ringing the bell, while another process keeps
//!   a clone of the same end, leaves a sleeping receiver asleep until the next message, or until it looks by
//!   itself after a quarter of a second.

#![deny(unsafe_code)]

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "system calls")]
mod alarm;
#[cfg_attr(any(polyproc_loom, polyproc_shuttle), path = "model/barrier.rs")]
mod barrier;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod connection;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "copies to and from memory that others write")]
mod copy;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod door;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "places in the mapping")]
mod end;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod error;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(unsafe_code, reason = "places in memory of its own")]
pub mod fuzz;
#[allow(unsafe_code, reason = "one thread at a time")]
mod gate;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "a fork handler")]
mod known;
#[cfg_attr(any(polyproc_loom, polyproc_shuttle), allow(dead_code, reason = "the models use a part of it"))]
mod line;
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub mod model;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "the clock")]
mod pulse;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod receiving;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "the ring in the mapping")]
mod ring;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod sending;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod simplex;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code, reason = "system calls")]
mod socket;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[cfg(feature = "tokio")]
#[allow(unsafe_code, reason = "a descriptor that stays the same")]
mod tasks;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod wait;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[doc(hidden)]
pub use barrier::without_membarrier;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use connection::{Connection, pipe, pipe_with_capacity};
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use error::{RecvError, SendError};
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use polyproc_memory::codec::{Bytes, Codec, DecodeError, EncodeError, Postcard, Raw};
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use simplex::{Receiver, Sender, simplex};
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use wait::{Waitable, wait};

/// The README's example runs.
#[cfg(all(doctest, not(any(polyproc_loom, polyproc_shuttle))))]
#[doc = include_str!("../README.md")]
struct Readme;
