//! Short messages, one like the other: the fast way of a [receiver](super).

use super::super::{END, HEADER, Kind, LENGTH_SHIFT, LINE, RUN_MOST, Spot, WRITTEN, padded};
use super::{NONE, Receiver, Run};
use crate::copy;
use core::mem::MaybeUninit;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::prefetch::prefetch_read;

/// So many lines ahead of a full one, a line is fetched: the sender is likely to be done with it, too.
const AHEAD: u64 = 2;

/// So many bytes behind a record a line is fetched, by a receiver that has come as far without a wait.
const RECORD_AHEAD: usize = 3 * LINE as usize;

/// The longest message that [`take_ready`](Receiver::take_ready) takes.
pub(crate) const BUFFER: usize = 256;

/// A message that can be taken. What says where it is comes from hand to hand: to load again what was stored
/// a moment ago takes time.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Ready {
    pub(super) slot: Spot,
    /// Where the last message ends that is known behind it.
    pub(super) known: Spot,
}

/// Room for a short message.
struct Buffer(MaybeUninit<[u64; BUFFER / 8]>);

impl Buffer {
    #[inline(always)]
    fn new() -> Buffer {
        Buffer(MaybeUninit::uninit())
    }

    #[inline(always)]
    fn room(&mut self, length: usize) -> *mut u8 {
        assert!(length <= BUFFER);
        self.0.as_mut_ptr().cast()
    }

    /// # Safety
    ///
    /// So many bytes, at most [`BUFFER`], are initialised.
    #[inline(always)]
    unsafe fn filled(&self, length: usize) -> &[u8] {
        // SAFETY: within the buffer, and initialised.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), length) }
    }
}

impl Receiver {
    /// The message in front, if it is of so many bytes, and in a run that was read.
    #[inline(always)]
    pub(crate) fn ready(&self, length: usize) -> Option<Ready> {
        (length == self.ready_length).then_some(Ready { slot: self.run.slot, known: self.run.known })
    }

    /// While no message of so many bytes is [ready](Receiver::ready): if one is after all, as the one before
    /// it was.
    #[inline(always)]
    pub(crate) fn begin_next(&mut self, length: usize) -> Option<Ready> {
        if length > RUN_MOST { self.begin_record(length) } else { self.begin_line(length) }
    }

    /// While no message of so many bytes is [ready](Receiver::ready): if the first of a full line is, behind
    /// another one.
    #[inline(always)]
    pub(crate) fn begin_line(&mut self, length: usize) -> Option<Ready> {
        let full = Kind::of(length).full_header();
        // A run with this header had a line for itself, and all of it is taken. One of a peer that lies may
        // have begun a word later: so does the next one then, and has room for as much there. No further than
        // there is room after what this side has published: it would have been time to publish.
        let head = self.head.wrapping_add(LINE);
        if self.run.header != full || head.wrapping_sub(self.published) >= self.some {
            return None;
        }
        let spot = self.place.spot(head);
        // SAFETY: in the ring.
        let header = unsafe { spot.header() };
        // Acquire: pairs with the Release of who publishes it.
        if header.load(Ordering::Acquire) != full {
            return None;
        }
        prefetch_read(self.place.at(head.wrapping_add(AHEAD * LINE)).as_ptr());
        self.head = head;
        // SAFETY: in the same line.
        let slot = unsafe { spot.add(HEADER) };
        // SAFETY: as above, or at its end.
        let known = unsafe { spot.add(full & END) };
        (self.run.slot, self.run.known) = (slot, known);
        self.ready_length = length;
        Some(Ready { slot, known })
    }

    /// While no message of so many bytes is [ready](Receiver::ready): if one is in front that has a record
    /// for itself, as the one before it.
    #[inline(always)]
    pub(crate) fn begin_record(&mut self, length: usize) -> Option<Ready> {
        // Between two messages, both in records. No further than there is room after what this side has
        // published: it would have been time to publish.
        if self.last_record != length || self.head.wrapping_sub(self.published) >= self.some {
            return None;
        }
        // Acquire: pairs with the Release of who publishes it.
        if self.place.header(self.head).load(Ordering::Acquire) != WRITTEN | (length as u64) << LENGTH_SHIFT {
            return None;
        }
        self.make_record_ready(length)
    }

    /// The whole message in front, of so many bytes and at most [`BUFFER`], which is to be
    /// [taken](Receiver::take_ready). `None` if it lies around the end of the ring.
    #[inline(always)]
    pub(crate) fn make_ready(&mut self, length: usize) -> Option<Ready> {
        if self.run.header == 0 {
            return self.make_record_ready(length);
        }
        self.ready(length)
    }

    #[inline(always)]
    fn make_record_ready(&mut self, length: usize) -> Option<Ready> {
        let slot = self.place.spot(self.head.wrapping_add(HEADER));
        if self.place.room_behind(self.head.wrapping_add(HEADER)) < length {
            return None;
        }
        // SAFETY: up to the end of the ring.
        let end = unsafe { slot.add(padded(length as u64)) };
        if self.has_come() >= RECORD_AHEAD as u64 {
            // Around the end of the ring it is another line, and no harm.
            prefetch_read(end.0.as_ptr().wrapping_add(RECORD_AHEAD));
        }
        // As if it were a run of one.
        self.run = Run { header: 0, room: 0, slot, known: end };
        self.ready_length = length;
        self.front = 0;
        Some(Ready { slot, known: end })
    }

    /// Takes the message of so many bytes that is [ready](Receiver::ready), as `copy` copies it.
    #[inline(always)]
    pub(crate) fn take_ready<T>(&mut self, ready: Ready, length: usize, copy: impl FnOnce(&[u8]) -> T) -> T {
        debug_assert!(self.ready(length) == Some(ready));
        let mut buffer = Buffer::new();
        // SAFETY: so much room, and it lies in one piece, in a line or before the end of the ring.
        unsafe { copy::from_shared(ready.slot.0, buffer.room(length), length) };
        self.take_from_run(ready, length);
        // SAFETY: initialised by the copy.
        copy(unsafe { buffer.filled(length) })
    }

    #[inline(always)]
    pub(super) fn take_from_run(&mut self, Ready { slot, known }: Ready, length: usize) {
        // SAFETY: one of those that are known to be there is in front.
        let slot = unsafe { slot.add(padded(length as u64)) };
        self.run.slot = slot;
        if slot == known {
            self.ready_length = NONE;
            if self.run.header == 0 {
                self.take(length);
                self.last_record = length;
            }
        }
    }
}
