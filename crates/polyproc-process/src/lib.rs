//! Processes that run a function of this program: spawned safely, joined with its result, and named when they die.

#![deny(unsafe_code)]

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
