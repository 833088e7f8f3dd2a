//! The limit for a queue: the best ring that can be written by hand for one producer and one consumer.
//!
//! Messages of one size, cached indices, no locks, spinning, safe against nothing. Long messages are copied as ours are: with
//! `memcpy`, which has slow cases, it would be no limit.

use polyproc_memory::{Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::copy;
use std::alloc::Layout;
use std::hint::spin_loop;
use std::ptr::NonNull;

/// An index with a line of its own.
#[repr(C, align(64))]
struct Line(AtomicU64);

/// A ring of messages of `N` bytes.
#[derive(Debug)]
pub struct Ring<const N: usize> {
    object: Object,
    slots: u64,
    /// This side's own index, and what it last saw of the other's.
    own: u64,
    seen: u64,
}

impl<const N: usize> Ring<N> {
    /// An empty one with so many slots, a power of two.
    ///
    /// # Panics
    ///
    /// Without memory.
    pub fn new(slots: u64) -> Ring<N> {
        assert!(slots.is_power_of_two());
        let payload = Layout::from_size_align(128 + N * slots as usize, 64).expect("a small ring");
        let kind = Kind::new("ring");
        let shape = Shape { kind, code: 0, element: payload, count: 1, payload, lock: false };
        let object = Object::create(None, &shape).expect("memory for the ring");
        Ring { object, slots, own: 0, seen: 0 }
    }

    fn index(&self, which: usize) -> &AtomicU64 {
        // SAFETY: the payload begins with two lines.
        let line = unsafe { self.object.payload().cast::<Line>().add(which) };
        // SAFETY: mapped as long as the object lives, and only accessed as atomics.
        let line = unsafe { line.as_ref() };
        &line.0
    }

    fn slot(&self, index: u64) -> NonNull<u8> {
        // SAFETY: within the payload.
        unsafe { self.object.payload().add(128 + (index & (self.slots - 1)) as usize * N) }
    }

    /// As the producer: puts a message, spinning for room.
    #[inline]
    pub fn put(&mut self, message: &[u8; N]) {
        while self.own - self.seen == self.slots {
            self.seen = self.index(1).load(Ordering::Acquire);
            if self.own - self.seen == self.slots {
                spin_loop();
            }
        }
        // SAFETY: the slot is the producer's until the index says otherwise.
        unsafe { copy::copy_away(message.as_ptr(), self.slot(self.own).as_ptr(), N) };
        self.own += 1;
        self.index(0).store(self.own, Ordering::Release);
    }

    /// As the consumer: gets a message, spinning for it.
    #[inline]
    pub fn get(&mut self, message: &mut [u8; N]) {
        while self.own == self.seen {
            self.seen = self.index(0).load(Ordering::Acquire);
            if self.own == self.seen {
                spin_loop();
            }
        }
        // SAFETY: the slot is the consumer's until the index says otherwise.
        unsafe { copy::copy(self.slot(self.own).as_ptr(), message.as_mut_ptr(), N) };
        self.own += 1;
        self.index(1).store(self.own, Ordering::Release);
    }
}

impl<const N: usize> Clone for Ring<N> {
    fn clone(&self) -> Ring<N> {
        Ring { object: self.object.clone(), ..*self }
    }
}
