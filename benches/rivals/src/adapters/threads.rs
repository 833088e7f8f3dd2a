//! What threads have: locks, and channels. Small messages pass by value, larger ones as `Vec<u8>`.

use crate::channel::{Get, Put};
use crate::lock::Counter;
use crate::rwlock::{ReadWrite, add_one};

impl Counter for std::sync::Mutex<u64> {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        let mut number = self.lock().unwrap();
        work();
        *number += 1;
    }

    fn total(&self) -> u64 {
        *self.lock().unwrap()
    }
}

impl Counter for parking_lot::Mutex<u64> {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        let mut number = self.lock();
        work();
        *number += 1;
    }

    fn total(&self) -> u64 {
        *self.lock()
    }
}

impl ReadWrite for std::sync::RwLock<[u64; 2]> {
    #[inline(always)]
    fn read(&self) -> [u64; 2] {
        *std::sync::RwLock::read(self).unwrap()
    }

    #[inline(always)]
    fn write(&self) {
        add_one(&mut std::sync::RwLock::write(self).unwrap());
    }
}

impl ReadWrite for parking_lot::RwLock<[u64; 2]> {
    #[inline(always)]
    fn read(&self) -> [u64; 2] {
        *parking_lot::RwLock::read(self)
    }

    #[inline(always)]
    fn write(&self) {
        add_one(&mut parking_lot::RwLock::write(self));
    }
}

macro_rules! channel {
    ($sender:path, $receiver:path) => {
        impl<const N: usize> Put<N> for $sender {
            #[inline(always)]
            fn put(&mut self, message: &[u8; N]) {
                self.send(message.into()).expect("the other end");
            }
        }

        impl<const N: usize> Get<N> for $receiver {
            #[inline(always)]
            fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
                read(self.recv().expect("the other end").first_chunk().expect("a whole message"))
            }
        }
    };
}
channel!(crossbeam_channel::Sender<Vec<u8>>, crossbeam_channel::Receiver<Vec<u8>>);
channel!(std::sync::mpsc::SyncSender<Vec<u8>>, std::sync::mpsc::Receiver<Vec<u8>>);
#[cfg(feature = "kanal")]
channel!(kanal::Sender<Vec<u8>>, kanal::Receiver<Vec<u8>>);

macro_rules! small {
    ($sender:path, $receiver:path) => {
        impl<const N: usize> Put<N> for $sender {
            #[inline(always)]
            fn put(&mut self, message: &[u8; N]) {
                self.send(*message).expect("the other end");
            }
        }

        impl<const N: usize> Get<N> for $receiver {
            #[inline(always)]
            fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
                read(&self.recv().expect("the other end"))
            }
        }
    };
}
small!(crossbeam_channel::Sender<[u8; N]>, crossbeam_channel::Receiver<[u8; N]>);
small!(std::sync::mpsc::SyncSender<[u8; N]>, std::sync::mpsc::Receiver<[u8; N]>);
#[cfg(feature = "kanal")]
small!(kanal::Sender<[u8; N]>, kanal::Receiver<[u8; N]>);
