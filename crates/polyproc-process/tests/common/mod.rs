//! What the tests share.

#![allow(dead_code, unused_imports, reason = "each test binary uses some of it")]

use polyproc_memory::handover;
pub(crate) use polyproc_testing::watchdog;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A descriptor as an argument or a return value.
#[derive(Debug)]
pub(crate) struct Fd(pub(crate) OwnedFd);

impl Fd {
    pub(crate) fn of(descriptor: impl AsFd) -> Fd {
        Fd(descriptor.as_fd().try_clone_to_owned().unwrap())
    }

    pub(crate) fn file(self) -> File {
        self.0.into()
    }
}

impl From<PipeWriter> for Fd {
    fn from(writer: PipeWriter) -> Fd {
        Fd(writer.into())
    }
}

impl From<PipeReader> for Fd {
    fn from(reader: PipeReader) -> Fd {
        Fd(reader.into())
    }
}

impl Serialize for Fd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = self.0.try_clone().map_err(ser::Error::custom)?;
        let index = handover::attach(copy.into());
        index.ok_or_else(|| ser::Error::custom(handover::NOT_IN_HANDOVER))?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fd, D::Error> {
        let index = u32::deserialize(deserializer)?;
        handover::descriptor(index).map(Fd).map_err(de::Error::custom)
    }
}

/// The open descriptors of this process, and what they are.
pub(crate) fn open_descriptors() -> Vec<(i32, String)> {
    let mut open: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            // The directory itself is gone again by the time it is asked for.
            let what = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
            Some((path.file_name()?.to_str()?.parse().ok()?, what))
        })
        .filter(|(_, what): &(i32, String)| !what.ends_with("/fd"))
        .collect();
    open.sort();
    open
}

/// Sleeps for ever, in a process that somebody else ends.
pub(crate) fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
