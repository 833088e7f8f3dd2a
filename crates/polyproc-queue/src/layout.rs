//! What a queue is in shared memory.
//!
//! Behind the header lies a reserve of address space, cut into *segments*, each twice as large as the one
//! before it. Every segment is a ring, and in use only while it has to be: producers write into one, and when
//! that is full, they go on in a larger one; consumers follow when they have emptied it, and give its memory
//! back. A drained queue is back in its smallest segment.
//!
//! Positions count the bytes of all messages that ever were, through all segments. A segment in use begins at
//! the position `base`, and position `p` lies at `(p - base) % size` in it.
//!
//! A [record](crate::record) is a word, its header, and the message, rounded up to words; or as many messages
//! of one length as it says. It never wraps: where it would, a record that is padding fills the segment up to
//! its end.

use crate::biased::{Biased, SLOTS, Slot};
use crate::chase::Chase;
use crate::record::Record;
use crate::robust::Robust;
use crate::waitroom::Waitroom;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::backoff::Patience;

/// The size of the smallest segment.
pub(crate) const SMALLEST: u64 = 64 << 10;
/// The most segments a queue can have.
pub(crate) const SEGMENTS: usize = 32;
/// A record's header.
pub(crate) const HEADER: u64 = 8;
/// How many messages can be claimed at a time.
pub(crate) const CLAIMS: usize = 32;

/// Of a segment: still written to.
pub(crate) const OPEN: u64 = u64::MAX;

/// A position, and the number of messages up to it, that change in one step.
///
/// The numbers have two places. The next pair is written to the one that is not in use, and then the position
/// changes, which says which place counts.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Mark {
    pub(crate) position: AtomicU64,
    places: [Numbered; 2],
}

#[derive(Debug, Default)]
#[repr(C)]
struct Numbered {
    position: AtomicU64,
    number: AtomicU64,
}

impl Mark {
    /// Sets it, before anybody else sees it.
    pub(crate) fn init(&self, position: u64) {
        self.places[0].position.store(position, Ordering::Relaxed);
        self.places[1].position.store(OPEN, Ordering::Relaxed);
        self.position.store(position, Ordering::Relaxed);
    }

    /// As the one who may change it: where it is, and the number.
    #[inline(always)]
    pub(crate) fn get(&self) -> (u64, u64) {
        let position = self.position.load(Ordering::Relaxed);
        (position, self.places[self.current(position)].number.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn current(&self, position: u64) -> usize {
        usize::from(self.places[0].position.load(Ordering::Relaxed) != position)
    }

    /// As the one who may change it: both at once. Whoever sees the position sees all that was written
    /// before.
    #[inline(always)]
    pub(crate) fn set(&self, position: u64, number: u64) {
        self.set_at(self.unused(), position, number);
    }

    /// The place that is not in use.
    #[inline(always)]
    fn unused(&self) -> usize {
        1 - self.current(self.position.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn set_at(&self, unused: usize, position: u64, number: u64) {
        let next = &self.places[unused];
        next.position.store(position, Ordering::Relaxed);
        // Release: `number` reads them in the opposite order.
        next.number.store(number, Ordering::Release);
        // Release: pairs with the Acquire of whoever goes by the position.
        self.position.store(position, Ordering::Release);
    }

    /// As anybody: the number, now or a moment ago.
    pub(crate) fn number(&self) -> u64 {
        loop {
            let position = self.position.load(Ordering::Acquire);
            for place in &self.places {
                // Acquire: if the number is a newer one, so is the position.
                let number = place.number.load(Ordering::Acquire);
                if place.position.load(Ordering::Acquire) == position {
                    return number;
                }
            }
            core::hint::spin_loop();
        }
    }
}

/// One ring.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Segment {
    /// The position at which it begins, in its present use.
    pub(crate) base: AtomicU64,
    /// The position at which it ends, or [`OPEN`].
    pub(crate) end: AtomicU64,
    /// How many bytes of it are memory.
    pub(crate) backed: AtomicU64,
    /// The segment that goes on where it ends.
    pub(crate) next: AtomicU32,
    reserved: AtomicU32,
}

/// A message that somebody works on and has not acknowledged.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct ClaimSlot {
    pub(crate) robust: Robust,
    pub(crate) position: AtomicU64,
    /// The segment it lies in.
    pub(crate) segment: AtomicU32,
    /// How many bytes it has, if no header is at the position; else zero.
    pub(crate) length: AtomicU32,
}

/// What the producers' lock guards.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Producers {
    pub(crate) lock: Biased,
    /// What they last saw of the consumers' `free`.
    pub(crate) free_seen: AtomicU64,
    /// And of the number of messages taken.
    pub(crate) taken_seen: AtomicU64,
    /// The segment that they write to.
    pub(crate) segment: AtomicU32,
    reserved: AtomicU32,
}

/// What the consumers' lock guards.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Consumers {
    pub(crate) lock: Biased,
    /// What they last saw of the producers' tail.
    pub(crate) tail_seen: AtomicU64,
    /// The segment that they read from.
    pub(crate) segment: AtomicU32,
    /// The oldest segment in use: of `free`.
    pub(crate) oldest: AtomicU32,
    /// How many claims there are, dead ones included.
    pub(crate) claims: AtomicU32,
    /// How often the queue was drained since it last grew or shrank.
    pub(crate) drains: AtomicU32,
    pub(crate) chase: Chase,
}

/// A line of its own.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// What the consumers tell the producers.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Taken {
    /// Up to where messages were taken, and how many.
    pub(crate) mark: Mark,
    /// Up to where the producers may write again. Below the mark, if a claim stands.
    pub(crate) free: AtomicU64,
    /// What is left of the record that was taken in part, if one was: as the mark's two places.
    rests: [AtomicU64; 2],
}

impl Taken {
    /// As the consumer: where it is, the number, and the rest.
    #[inline(always)]
    pub(crate) fn get(&self) -> (u64, u64, Record) {
        let (position, number) = self.mark.get();
        (position, number, Record(self.rests[self.mark.current(position)].load(Ordering::Relaxed)))
    }

    /// As the consumer: all three at once.
    #[inline(always)]
    pub(crate) fn set(&self, position: u64, number: u64, rest: Record) {
        let unused = self.mark.unused();
        // Relaxed: only consumers read it, and the position, which says that it counts, comes after it.
        self.rests[unused].store(rest.0, Ordering::Relaxed);
        self.mark.set_at(unused, position, number);
    }
}

/// Rarely written.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Settings {
    /// The most messages, zero for any number.
    pub(crate) most: AtomicU64,
    /// The most bytes.
    pub(crate) max_bytes: AtomicU64,
    /// Whether it is closed: 0 or 1.
    pub(crate) closed: AtomicU32,
    /// Whether anybody ever claimed a message: 0 or not; 2 when all who slept at that time know.
    pub(crate) has_claims: AtomicU32,
    /// How often it has to be drained before it shrinks.
    pub(crate) shrink_after: AtomicU32,
    /// Whether anybody joins: see `JoinableQueue`.
    pub(crate) joinable: AtomicU32,
    /// When it last shrank, in milliseconds of the monotonic clock, and how many messages had been taken by
    /// then.
    pub(crate) shrank_at: AtomicU64,
    pub(crate) shrank_after: AtomicU64,
}

/// How those look who wait, learnt from what they found.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Look {
    /// How long, before they sleep.
    pub(crate) patience: Patience,
    /// For how many pauses they leave the other side alone before their first look.
    pub(crate) first: AtomicU32,
}

/// The whole header.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Header {
    pub(crate) producers: Producers,
    /// Up to where there are messages, and how many were put.
    pub(crate) put: Line<Mark>,
    pub(crate) consumers: Consumers,
    pub(crate) taken: Line<Taken>,
    pub(crate) settings: Line<Settings>,
    /// Of those to whom a side's lock was granted.
    pub(crate) producer_slots: [Slot; SLOTS],
    pub(crate) consumer_slots: [Slot; SLOTS],
    pub(crate) segments: Line<[Segment; SEGMENTS]>,
    /// How many tasks are done, of a `JoinableQueue`.
    pub(crate) done: Line<AtomicU64>,
    /// How long consumers, producers and joiners look before they sleep.
    pub(crate) looks: Line<[Look; 3]>,
    /// For those who wait for messages; rung by producers.
    pub(crate) news: Waitroom,
    /// For those who wait for room; rung by consumers.
    pub(crate) room: Waitroom,
    /// For those who wait for the end of all tasks; rung by consumers.
    pub(crate) rest: Waitroom,
    pub(crate) claims: [ClaimSlot; CLAIMS],
}

const _: () = {
    assert!(size_of::<Mark>() == 40);
    assert!(size_of::<Segment>() == 32);
    assert!(size_of::<Producers>() == 128 && size_of::<Consumers>() == 128);
    assert!(size_of::<Line<Taken>>() == 128 && size_of::<Line<Settings>>() == 128);
};
