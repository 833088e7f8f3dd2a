//! shaq: its queue of one to one, and of many to many. Who has to wait spins, or, among many, lets others have the CPU.

use crate::channel::{Get, Put, slots};
use shaq::{mpmc, spsc};
use std::fs::File;
use std::hint::spin_loop;
use std::os::fd::FromRawFd;

/// A file in memory, without a name.
fn file() -> File {
    // SAFETY: a name that ends with nought.
    let fd = unsafe { libc::memfd_create(c"shaq".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: nobody else knows it.
    unsafe { File::from_raw_fd(fd) }
}

/// Both ends of a queue of one to one.
pub fn one_to_one<const N: usize>() -> (spsc::Producer<[u8; N]>, spsc::Consumer<[u8; N]>) {
    let file = file();
    let size = spsc::minimum_file_size::<[u8; N]>(slots::<N>());
    // SAFETY: the file is fresh, and this the only producer; bytes mean the same in all processes.
    let producer = unsafe { spsc::Producer::create(&file, size) }.expect("a queue");
    // SAFETY: the only consumer.
    let consumer = unsafe { spsc::Consumer::join(&file) }.expect("the queue");
    (producer, consumer)
}

impl<const N: usize> Put<N> for spsc::Producer<[u8; N]> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        loop {
            // SAFETY: written below before it is committed.
            if let Some(place) = unsafe { self.reserve() } {
                // SAFETY: a place for a message, reserved.
                unsafe { place.as_ptr().copy_from_nonoverlapping(message, 1) };
                return self.commit();
            }
            spin_loop();
            self.sync();
        }
    }
}

impl<const N: usize> Get<N> for spsc::Consumer<[u8; N]> {
    #[inline(always)]
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        loop {
            if let Some(message) = self.try_read_ptr() {
                // SAFETY: a message that was committed, and is this side's until it is finalized.
                unsafe { message.as_ptr().copy_to_nonoverlapping(buffer, 1) };
                self.finalize();
                return read(buffer);
            }
            spin_loop();
            self.sync();
        }
    }
}

/// Both ends of a queue of many to many, of which there can be copies.
pub fn many_to_many<const N: usize>(slots: usize) -> (mpmc::Producer<[u8; N]>, mpmc::Consumer<[u8; N]>) {
    let size = mpmc::minimum_file_size::<[u8; N]>(slots);
    // SAFETY: the file is fresh; bytes mean the same in all processes.
    let producer = unsafe { mpmc::Producer::create(&file(), size) }.expect("a queue");
    let consumer = producer.join_as_consumer();
    (producer, consumer)
}

/// How long somebody has waited already, in looks.
struct Wait(u32);

impl Wait {
    /// A moment, or, after a hundred of them, the next time slice: with more processes than CPUs, the other may need it.
    fn once(&mut self) {
        self.0 += 1;
        if self.0 < 100 { spin_loop() } else { std::thread::yield_now() }
    }
}

impl<const N: usize> Put<N> for mpmc::Producer<[u8; N]> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        let mut message = *message;
        let mut wait = Wait(0);
        while let Err(back) = self.try_write(message) {
            message = back;
            wait.once();
        }
    }
}

impl<const N: usize> Get<N> for mpmc::Consumer<[u8; N]> {
    #[inline(always)]
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        let mut wait = Wait(0);
        loop {
            if let Some(message) = self.try_read() {
                return read(&message);
            }
            wait.once();
        }
    }
}
