//! [`NumberPipe`]: what pipe(2) does with numbers.

use std::io::{PipeReader, PipeWriter, Read, Write};

/// A pipe of numbers. Both its ends are here, for a process that forks.
#[derive(Debug)]
pub struct NumberPipe(PipeReader, PipeWriter);

impl NumberPipe {
    /// An empty pipe.
    ///
    /// # Panics
    ///
    /// If there is no descriptor left.
    #[expect(clippy::new_without_default, reason = "it takes descriptors")]
    pub fn new() -> NumberPipe {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        NumberPipe(reader, writer)
    }

    /// Another handle of the same pipe.
    ///
    /// # Panics
    ///
    /// If there is no descriptor left.
    pub fn twin(&self) -> NumberPipe {
        NumberPipe(self.0.try_clone().expect("a descriptor"), self.1.try_clone().expect("a descriptor"))
    }

    /// Writes a number. Blocks while the pipe is full.
    ///
    /// # Panics
    ///
    /// If nobody has the other end.
    pub fn put(&self, number: u64) {
        (&self.1).write_all(&number.to_le_bytes()).expect("a write");
    }

    /// Reads a number. Blocks while the pipe is empty.
    ///
    /// # Panics
    ///
    /// If nobody has the other end.
    pub fn get(&self) -> u64 {
        let mut bytes = [0; 8];
        (&self.0).read_exact(&mut bytes).expect("a read");
        u64::from_le_bytes(bytes)
    }
}
