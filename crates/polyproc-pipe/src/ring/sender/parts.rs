//! Messages in several records: the long way of a [sender](super).

use super::super::receiver::SOME;
use super::super::{Broken, HEADER, MORE, Run, WRITTEN, length, padded};
use super::{NONE, Sender, header};
use polyproc_sys::atomic::Ordering;

/// The smallest ring in which parts are held back: there is room for as many as do not fit into the cache of
/// a CPU.
pub(in super::super) const WIDE: u64 = 1 << 20;

/// So many parts are held back at most: not half of such a ring.
pub(in super::super) const HELD: usize = 7;

/// With so many bytes in front of it, a receiver has more to do than to say what it has read.
const BACKLOG: u64 = 2 * SOME;

/// Parts of a long message, one behind the other, that are there but for their headers: see [the
/// ring](super).
pub(super) struct Held {
    /// Whether parts of this message are held back.
    is_on: bool,
    /// How many parts it has had.
    parts: usize,
    /// Where the first of those begins that are held.
    at: u64,
    pub(super) count: usize,
    headers: [u64; HELD],
}

pub(super) const NONE_HELD: Held = Held { is_on: false, parts: 0, at: 0, count: 0, headers: [0; HELD] };

impl Sender {
    /// Sends the first record of a message in several: as long as there is more to come.
    pub(crate) fn write_first(
        &mut self,
        total: usize,
        bytes: &[u8],
        descriptors: usize,
    ) -> Result<(), Broken> {
        self.is_alone()?;
        self.close_run();
        self.last_length = NONE;
        self.begin_long();
        let length = bytes.len() + HEADER as usize;
        // Behind the header, which is zero: nobody sees it before that one is written.
        self.place.header(self.tail.wrapping_add(HEADER)).store(total as u64, Ordering::Relaxed);
        self.place.write(self.tail.wrapping_add(2 * HEADER), bytes);
        let end = self.tail.wrapping_add(HEADER + padded(length as u64));
        self.is_alone()?;
        self.publish_part(end, header(length, descriptors) | MORE);
        Ok(())
    }

    /// A further one.
    pub(crate) fn write_next(&mut self, bytes: &[u8], is_last: bool) -> Result<(), Broken> {
        self.is_alone()?;
        self.place.write(self.tail.wrapping_add(HEADER), bytes);
        let end = self.tail.wrapping_add(HEADER + padded(bytes.len() as u64));
        self.is_alone()?;
        self.publish_part(end, header(bytes.len(), 0) | if is_last { 0 } else { MORE });
        if is_last {
            self.lets_go();
        }
        Ok(())
    }

    /// Before a message in several records: whether to hold some of them back.
    fn begin_long(&mut self) {
        self.lets_go();
        // A hint: what it says is not believed, nor does anything else depend on it.
        let backlog = self.tail.wrapping_sub(self.place.control().receiver.position());
        let is_behind = backlog >= BACKLOG;
        self.wants_to_grow |= is_behind;
        self.held.is_on = is_behind && self.place.capacity >= WIDE;
        self.held.parts = 0;
    }

    /// The record at the tail is written, but for its header: publishes it, or another one that was held
    /// back, or none.
    fn publish_part(&mut self, end: u64, header: u64) {
        let at = self.tail;
        if !self.held.is_on {
            return self.publish_record(at, end, header);
        }
        self.line().goes_to(end);
        self.run = Run::NONE;
        (self.tail, self.leave_until) = (end, end);
        self.place.header(end).store(0, Ordering::Relaxed);
        if self.held.count == HELD {
            self.let_one_go();
        }
        if self.held.count == 0 {
            self.held.at = at;
        }
        self.held.headers[self.held.count] = WRITTEN | header;
        self.held.count += 1;
        self.held.parts += 1;
        let receiver = &self.place.control().receiver;
        if receiver.seems_asleep() {
            self.lets_go();
        } else if receiver.position() == self.held.at && self.held.parts.is_multiple_of(2) {
            self.let_one_go();
        }
    }

    /// Publishes the first part that is held back.
    fn let_one_go(&mut self) {
        let (at, header) = (self.held.at, self.held.headers[0]);
        self.held.headers.copy_within(1.., 0);
        self.held.count -= 1;
        self.held.at = at.wrapping_add(HEADER + padded(length(header)));
        // Release: the payload first, and the zero behind it. Pairs with the Acquire in the receiver's
        // `front`.
        self.place.header(at).store(header, Ordering::Release);
    }

    /// Publishes what is held back. Whether there was anything: then the receiver may have to hear the bell.
    pub(crate) fn lets_go(&mut self) -> bool {
        let has_held = self.held.count != 0;
        while self.held.count != 0 {
            self.let_one_go();
        }
        has_held
    }
}
