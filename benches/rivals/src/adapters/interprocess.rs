//! interprocess: a local socket, read through a buffer as in its examples, and its unnamed pipe.

use crate::channel::{Get, Put};
use interprocess::local_socket::{GenericNamespaced, ListenerOptions, Stream, prelude::*};
use interprocess::unnamed_pipe::{Recver, Sender};
use std::io::{BufReader, Read, Write};

/// An end of a local socket.
pub struct Socket(BufReader<Stream>);

impl Socket {
    /// Both ends.
    pub fn pair() -> (Socket, Socket) {
        let name = format!("polyproc-rivals-{}", std::process::id());
        let name = name.to_ns_name::<GenericNamespaced>().expect("a name");
        let listener = ListenerOptions::new().name(name.clone()).create_sync().expect("a listener");
        let here = Stream::connect(name).expect("a connection");
        let there = listener.accept().expect("its other end");
        (Socket(BufReader::new(here)), Socket(BufReader::new(there)))
    }
}

impl<const N: usize> Put<N> for Socket {
    fn put(&mut self, message: &[u8; N]) {
        self.0.get_mut().write_all(message).expect("a write");
    }
}

impl<const N: usize> Get<N> for Socket {
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        self.0.read_exact(buffer).expect("a read");
        read(buffer)
    }
}

/// Both ends of an unnamed pipe.
pub fn pipe() -> (Sender, Recver) {
    interprocess::unnamed_pipe::pipe().expect("a pipe")
}

impl<const N: usize> Put<N> for Sender {
    fn put(&mut self, message: &[u8; N]) {
        self.write_all(message).expect("a write");
    }
}

impl<const N: usize> Get<N> for Recver {
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        self.read_exact(buffer).expect("a read");
        read(buffer)
    }
}
