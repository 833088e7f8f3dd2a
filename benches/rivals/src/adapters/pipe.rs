//! `pipe(2)`: a write and a read a message.

use crate::channel::{Get, Put};
use std::io::{PipeReader, PipeWriter, Read, Write};

/// Both ends of a fresh one.
pub fn ends() -> (PipeWriter, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (writer, reader)
}

impl<const N: usize> Put<N> for PipeWriter {
    fn put(&mut self, message: &[u8; N]) {
        self.write_all(message).expect("a write");
    }
}

impl<const N: usize> Get<N> for PipeReader {
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        self.read_exact(buffer).expect("a read");
        read(buffer)
    }
}
