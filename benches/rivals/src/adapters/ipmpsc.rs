//! ipmpsc: bytes, read where they lie, as its documentation advises.

use crate::channel::{Get, Put, slots};
use ipmpsc::{Receiver, Sender, SharedRingBuffer};
use serde::{Serialize, Serializer};

/// Bytes, and not numbers in a row.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// A ring in a temporary file, which goes with this.
pub struct Ring {
    path: String,
    _file: SharedRingBuffer,
}

impl Ring {
    /// One with room for [`slots`] messages.
    pub fn new<const N: usize>() -> Ring {
        Ring::with_slots::<N>(slots::<N>())
    }

    /// One with room for so many messages, each with its two lengths.
    pub fn with_slots<const N: usize>(slots: usize) -> Ring {
        let (path, file) = SharedRingBuffer::create_temp((slots * (N + 16)) as u32).expect("a ring");
        Ring { path, _file: file }
    }

    fn open(&self) -> SharedRingBuffer {
        SharedRingBuffer::open(&self.path).expect("the ring")
    }

    /// An end of it, opened in the process that uses it.
    pub fn sender(&self) -> Sender {
        Sender::new(self.open())
    }

    /// The other.
    pub fn receiver(&self) -> Receiver {
        Receiver::new(self.open())
    }
}

impl<const N: usize> Put<N> for Sender {
    fn put(&mut self, message: &[u8; N]) {
        self.send(&Bytes(message)).expect("room");
    }
}

impl<const N: usize> Get<N> for Receiver {
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        let mut context = self.zero_copy_context();
        buffer.copy_from_slice(context.recv::<&[u8]>().expect("a message"));
        read(buffer)
    }
}
