//! Children that are really forked and really killed, and what it takes to follow them.

#![allow(unused_imports, dead_code, reason = "each test binary uses its part of this")]

use polyproc_memory::handover::{self, Descriptor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

pub(crate) use polyproc_testing::*;

/// How much longer than it should something may take on a busy machine.
const MARGIN: Duration = Duration::from_secs(5);

/// How long it took, which was at least so long, and not much longer.
#[track_caller]
pub(crate) fn takes<R>(least: Duration, f: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = f();
    let elapsed = start.elapsed();
    assert!(elapsed >= least, "{elapsed:?} is less than {least:?}");
    assert!(elapsed < least + MARGIN, "{elapsed:?} is much more than {least:?}");
    result
}

/// The handle's bytes, and the descriptors that go with them.
pub(crate) fn send(handle: &impl Serialize) -> (Vec<u8>, Vec<Descriptor>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_allocvec(handle));
    (bytes.unwrap(), descriptors)
}

/// Another handle made of them, or why not.
pub(crate) fn receive<B: DeserializeOwned>(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<B, String> {
    handover::receive(descriptors, || match postcard::from_bytes(bytes) {
        Ok(handle) => Ok(handle),
        Err(error) => Err(handover::take_failure().map_or(error.to_string(), |failure| failure.to_string())),
    })
}

/// The handle, as another process gets it.
pub(crate) fn hand_over<B: DeserializeOwned>(handle: &impl Serialize) -> Result<B, String> {
    let (bytes, descriptors) = send(handle);
    let descriptors = descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned().unwrap());
    receive(&bytes, descriptors.collect())
}

/// The bytes of memory that the queue takes, whoever uses them.
pub(crate) fn memory_of(queue: &impl Serialize) -> u64 {
    let (_, descriptors) = send(queue);
    let file = File::from(descriptors[0].as_fd().try_clone_to_owned().unwrap());
    file.metadata().unwrap().blocks() * 512
}
