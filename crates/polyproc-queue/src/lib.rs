//! Queue and JoinableQueue between processes.

#![deny(unsafe_code)]

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod error;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod fast;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod layout;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod raw;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod ring;
#[allow(unsafe_code)]
mod waitroom;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#[allow(unsafe_code)]
mod claim;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod codec;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod joinable;
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
mod queue;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use {
    claim::{Claim, MessageRef, Reservation},
    codec::{Bytes, Codec, Postcard, Raw},
    error::{
        DecodeError, EncodeError, GetError, GetManyError, PutError, PutManyError, TaskDoneError, TryGetError,
        TryPutError,
    },
    joinable::JoinableQueue,
    queue::{Iter, Queue},
};
