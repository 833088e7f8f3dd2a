//! Shared memory that cannot leak: sealed memfd regions, arenas, and handles that travel between processes.

#![deny(unsafe_code)]

mod arena;
mod available;
mod error;
mod layout;
#[allow(unsafe_code, reason = "dereferences the mapping: the headers in it, and the locks")]
mod mapping;
#[allow(unsafe_code, reason = "system calls")]
mod memfd;
mod object;
mod region;
#[allow(unsafe_code, reason = "registers fork handlers")]
mod registry;
mod shape;

pub mod handover;

pub use arena::Arena;
pub use error::{AttachError, CreateError};
#[doc(hidden)]
pub use memfd::without_noexec_seal;
pub use object::Object;
pub use region::Region;
pub use shape::{Kind, Shape};
