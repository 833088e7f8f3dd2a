//! Typed duplex connections between processes.

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "membarrier(2)")]
mod barrier;
mod connection;
#[allow(unsafe_code, reason = "copies to and from memory that others write")]
mod copy;
mod door;
#[allow(unsafe_code, reason = "places in the mapping")]
mod end;
mod error;
#[allow(unsafe_code, reason = "one thread at a time")]
mod gate;
#[allow(unsafe_code, reason = "the clock")]
mod pulse;
#[allow(unsafe_code, reason = "the ring in the mapping")]
mod ring;
#[allow(unsafe_code, reason = "system calls")]
mod socket;

#[doc(hidden)]
pub use barrier::without_membarrier;
pub use connection::{Connection, pipe, pipe_with_capacity};
pub use error::{RecvError, SendError};
pub use polyproc_memory::codec::{Bytes, Codec, DecodeError, EncodeError, Postcard, Raw};
