//! What threads have: mutexes, and channels. Small messages pass by value, larger ones as `Vec<u8>`.

use crate::channel::{Get, Put};
use crate::lock::Counter;

impl Counter for std::sync::Mutex<u64> {
    #[inline(always)]
    fn increment(&self) {
        *self.lock().unwrap() += 1;
    }

    fn total(&self) -> u64 {
        *self.lock().unwrap()
    }
}

impl Counter for parking_lot::Mutex<u64> {
    #[inline(always)]
    fn increment(&self) {
        *self.lock() += 1;
    }

    fn total(&self) -> u64 {
        *self.lock()
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
