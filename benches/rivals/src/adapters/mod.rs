//! Who is measured: a file a family. What needs a crate of its own is built with the feature of its name.

pub mod boost;
#[cfg(feature = "iceoryx2")]
pub mod iceoryx2;
#[cfg(feature = "interprocess")]
pub mod interprocess;
#[cfg(feature = "ipc-channel")]
pub mod ipc_channel;
#[cfg(feature = "ipmpsc")]
pub mod ipmpsc;
mod our_pool;
pub mod ours;
pub mod pipe;
pub mod posix;
#[cfg(feature = "procspawn")]
pub mod procspawn;
mod program;
pub mod python;
#[cfg(feature = "raw_sync")]
pub mod raw_sync;
#[cfg(feature = "rayon")]
pub mod rayon;
#[cfg(feature = "shaq")]
pub mod shaq;
#[cfg(feature = "shmem-ipc")]
pub mod shmem_ipc;
pub mod threads;
