//! A pool of processes: `map`, `imap`, `apply`, with every failure named and every other result right.

#![forbid(unsafe_code)]

mod batch;
mod board;
mod builder;
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
mod pool;
mod progress;
mod result;
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
