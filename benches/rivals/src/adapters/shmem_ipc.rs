//! shmem-ipc: its ring of bytes, with its event descriptors to wait on.

use crate::channel::{Get, Put, slots};
use shmem_ipc::sharedring::{Receiver, Sender};

/// Both ends of a ring with room for [`slots`] messages.
pub fn ends<const N: usize>() -> (Sender<u8>, Receiver<u8>) {
    let capacity = slots::<N>() * N;
    let sender = Sender::new(capacity).expect("a ring");
    let memory = sender.memfd().as_file().try_clone().expect("a descriptor");
    let empty = sender.empty_signal().try_clone().expect("a descriptor");
    let full = sender.full_signal().try_clone().expect("a descriptor");
    let receiver = Receiver::open(capacity, memory, empty, full).expect("the ring");
    (sender, receiver)
}

impl<const N: usize> Put<N> for Sender<u8> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        let mut rest = &message[..];
        while !rest.is_empty() {
            let mut count = 0;
            self.send_raw(|place, room| {
                count = room.min(rest.len());
                // SAFETY: the ring has so much room there.
                unsafe { place.copy_from_nonoverlapping(rest.as_ptr(), count) };
                count
            })
            .expect("a sound ring");
            rest = &rest[count..];
            if count == 0 {
                self.block_until_writable().expect("a sound ring");
            }
        }
    }
}

impl<const N: usize> Get<N> for Receiver<u8> {
    #[inline(always)]
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        let mut rest = &mut buffer[..];
        while !rest.is_empty() {
            let mut count = 0;
            self.receive_raw(|place, available| {
                count = available.min(rest.len());
                // SAFETY: the ring has so much there.
                unsafe { place.copy_to_nonoverlapping(rest.as_mut_ptr(), count) };
                count
            })
            .expect("a sound ring");
            rest = &mut rest[count..];
            if count == 0 {
                self.block_until_readable().expect("a sound ring");
            }
        }
        read(buffer)
    }
}
