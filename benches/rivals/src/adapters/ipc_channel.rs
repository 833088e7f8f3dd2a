//! ipc-channel: its channel of bytes, and its typed channel of `Vec<u8>`.

use crate::channel::{Get, Put};
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender};

impl<const N: usize> Put<N> for IpcBytesSender {
    fn put(&mut self, message: &[u8; N]) {
        self.send(message).expect("the other end");
    }
}

impl<const N: usize> Get<N> for IpcBytesReceiver {
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        let message = self.recv().expect("the other end");
        assert_eq!(message.len(), N);
        read(message.first_chunk().unwrap())
    }
}

impl<const N: usize> Put<N> for IpcSender<Vec<u8>> {
    fn put(&mut self, message: &[u8; N]) {
        self.send(message.to_vec()).expect("the other end");
    }
}

impl<const N: usize> Get<N> for IpcReceiver<Vec<u8>> {
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        let message = self.recv().expect("the other end");
        assert_eq!(message.len(), N);
        read(message.first_chunk().unwrap())
    }
}
