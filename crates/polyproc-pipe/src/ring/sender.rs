//! The sender's side of a [ring](super).

use super::{
    ABORT, Broken, CLOSED, COUNT_SHIFT, DESCRIPTORS_SHIFT, FINAL, GROWN, HEADER, LINE, MORE, Place, RUN,
    RUN_MOST, Spot, WRITTEN, line_end, padded, slots,
};
use crate::copy;
use crate::line::Line;
use core::ptr::NonNull;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::prefetch::prefetch_write;

/// So many lines ahead of the one that a run begins in, a line is fetched for the run that will begin there.
const AHEAD: u64 = 4;

/// No message is so long.
const NONE: usize = usize::MAX;

/// The sender's side of a ring.
pub(crate) struct Sender {
    place: Place,
    /// Where the next record begins, and zero is until then.
    tail: u64,
    head_seen: u64,
    /// What the receiver's notice is if there is nothing new.
    notice: u64,
    next: Next,
    /// The length of the last message.
    last_length: usize,
    /// It found no room: more memory would help.
    wants_to_grow: bool,
}

/// Where the next message of a run goes: in the run that is open, or, at the beginning of a line, in one that it begins.
///
/// One word, from which all follows that a message needs: to load and store costs more than to calculate. A run that is open
/// begins with its line, so that the place says how many messages it has, and the lowest bits say what they are like.
#[derive(Clone, Copy)]
pub(crate) struct Next(Spot);

/// In a [`Next`]: how many words each message has.
const WORDS: usize = 3;
/// In a [`Next`]: messages are shorter than their words.
const ODD: usize = 4;
/// In a [`Next`]: how far it is from the beginning of its line.
const OFFSET: usize = LINE as usize - 8;

impl Next {
    /// No run is open, and none follows another.
    const NOWHERE: Next = Next(Spot::NOWHERE);

    /// No run is open; the next one begins a line.
    const LINE_AHEAD: Next = Next(Spot(NonNull::<Line>::dangling().cast()));

    #[inline(always)]
    fn with(self, likeness: usize) -> Next {
        Next(Spot(self.0.0.map_addr(|address| address | likeness)))
    }

    /// What messages of this length are like, if they go into runs.
    #[inline(always)]
    fn likeness(length: usize) -> usize {
        match length {
            8 | 16 | 24 => length / 8,
            1..8 => ODD | 1,
            9..16 => ODD | 2,
            17..24 => ODD | 3,
            _ => usize::MAX,
        }
    }

    #[inline(always)]
    fn address(self) -> usize {
        self.0.0.addr().get()
    }

    #[inline(always)]
    fn offset(self) -> usize {
        self.address() & OFFSET
    }

    /// How many words its messages have; 0 if it is nowhere.
    #[inline(always)]
    fn words(self) -> usize {
        self.address() & WORDS
    }

    #[inline(always)]
    fn is_in_run(self) -> bool {
        self.words() != 0 && self.offset() != 0
    }

    /// How many messages the open run has, each of so many words.
    #[inline(always)]
    fn count(self, words: usize) -> u64 {
        let before = self.offset() - HEADER as usize;
        // Without a division by a number that only a constant can be known to be.
        (match words {
            1 => before / 8,
            2 => before / 16,
            _ => before / 24,
        }) as u64
    }
}

/// What the header of a run says that has so many messages of this length.
#[inline(always)]
fn run_header(count: u64, length: usize) -> u64 {
    WRITTEN | RUN | (count << COUNT_SHIFT) | length as u64
}

/// What the receiver's side says, and what it said when nothing was new.
#[derive(Clone, Copy)]
pub(crate) struct News {
    place: Place,
    usual: u64,
}

impl News {
    /// Whether the receiver sleeps, or a process has let go of the other end, since the last time. After something was sent, a
    /// barrier is between.
    #[inline(always)]
    pub(crate) fn have_come(&self) -> bool {
        self.place.control().receiver.notice() != self.usual
    }
}

impl Sender {
    pub(crate) fn new(place: Place, tail: u64, head: u64) -> Sender {
        Sender {
            place,
            tail,
            head_seen: head,
            notice: 0,
            next: Next::NOWHERE,
            last_length: NONE,
            wants_to_grow: false,
        }
    }

    /// Writes the first position into a new ring.
    pub(crate) fn initialise(&self) {
        self.place.control().sender.begin_at(self.tail);
        self.place.control().receiver.begin_at(self.head_seen);
    }

    pub(crate) fn positions(&self) -> (u64, u64) {
        (self.tail, self.head_seen)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The most bytes in one record.
    pub(crate) fn most(&self) -> usize {
        (self.place.capacity / 2 - HEADER) as usize
    }

    /// Whether a record of so many bytes fits, as far as is known. Leaves room for an abort behind it, and for the end behind that.
    #[inline(always)]
    pub(crate) fn has_room(&self, length: usize) -> bool {
        self.has_room_for(HEADER + padded(length as u64))
    }

    #[inline(always)]
    fn has_room_for(&self, record: u64) -> bool {
        // Behind it an abort, the record that nothing more comes, and the zero.
        self.tail.wrapping_sub(self.head_seen) + record + 3 * HEADER <= self.place.capacity
    }

    /// Whether it fits now.
    #[inline(always)]
    pub(crate) fn finds_room(&mut self, length: usize) -> Result<bool, Broken> {
        if self.has_room(length) { Ok(true) } else { self.look_for_room(length) }
    }

    #[cold]
    #[inline(never)]
    fn look_for_room(&mut self, length: usize) -> Result<bool, Broken> {
        let head = self.place.control().receiver.position();
        let gone_on = head.wrapping_sub(self.head_seen);
        if gone_on > self.tail.wrapping_sub(self.head_seen) || !head.is_multiple_of(8) {
            return Err(Broken);
        }
        self.head_seen = head;
        let has_room = self.has_room(length);
        self.wants_to_grow |= !has_room;
        Ok(has_room)
    }

    /// Whether to have memory put behind the ring, as much as it uses now, and then to [grow](Sender::grow).
    #[inline(always)]
    pub(crate) fn is_about_to_grow(&self) -> bool {
        self.wants_to_grow && self.can_grow()
    }

    #[cold]
    fn can_grow(&self) -> bool {
        self.place.capacity < self.place.most
            && self.place.is_in_one_even_lap(self.head_seen, self.tail)
            && self.has_room_for(HEADER)
    }

    /// There is no memory: it stays as it is.
    pub(crate) fn gives_up_growing(&mut self) {
        self.place.most = self.place.capacity;
    }

    /// Uses the memory that was put there.
    pub(crate) fn grow(&mut self) -> Result<(), Broken> {
        debug_assert!(self.can_grow());
        self.close_run();
        self.wants_to_grow = false;
        let at = self.tail;
        // Its own place is the same before and after; that of the zero behind it may not be.
        self.place.capacity *= 2;
        self.publish_record(at, at.wrapping_add(HEADER), GROWN)
    }

    /// Whether the next message of this length belongs to a run that is open, or follows one at the beginning of a line.
    #[inline(always)]
    fn is_like_the_last(&self, length: usize) -> bool {
        let likeness = Next::likeness(length);
        self.next.address() & (WORDS | ODD) == likeness && (likeness & ODD == 0 || length == self.last_length)
    }

    /// Whether a message of this length goes on with the open run: then there is room.
    #[inline(always)]
    pub(crate) fn goes_on(&self, length: usize) -> bool {
        self.is_like_the_last(length) && self.next.offset() != 0
    }

    /// How many more messages the open run has room for.
    #[inline(always)]
    pub(crate) fn room_in_run(&self) -> u64 {
        self.room_of(self.next)
    }

    #[inline(always)]
    pub(crate) fn room_of(&self, next: Next) -> u64 {
        let words = next.words();
        if next.is_in_run() { slots(0, 8 * words as u64) - next.count(words) } else { 0 }
    }

    /// Sends a message with the open run, with which it [goes on](Sender::goes_on).
    #[inline(always)]
    pub(crate) fn go_on(&mut self, bytes: &[u8]) -> Next {
        debug_assert!(self.goes_on(bytes.len()));
        let (next, likeness) = (self.next, Next::likeness(bytes.len()));
        let words = likeness & WORDS;
        let (offset, count) = (next.offset(), next.count(words) + 1);
        // SAFETY: without what is in the lowest bits, it is in the line.
        let slot = unsafe { next.0.0.byte_sub(likeness) };
        // SAFETY: there the line begins.
        let line = Spot(unsafe { slot.byte_sub(offset) });
        // SAFETY: the run is not full, so its next message ends in the same line.
        unsafe { copy::to_shared(bytes, slot) };
        // SAFETY: the run is in the ring.
        let shared = unsafe { line.header() };
        // Release: the message first. Pairs with the Acquire in the receiver's `front`.
        shared.store(run_header(count, bytes.len()), Ordering::Release);
        let is_full = offset + 2 * 8 * words > LINE as usize;
        if is_full {
            Next::LINE_AHEAD.with(likeness)
        } else {
            // SAFETY: in the same line.
            Next(unsafe { next.0.add(8 * words as u64) })
        }
    }

    #[inline(always)]
    pub(crate) fn goes_next(&mut self, next: Next) {
        self.next = next;
    }

    /// Sends a message for which there is room. In a burst, another one of this length is expected soon.
    #[inline(always)]
    pub(crate) fn write(&mut self, bytes: &[u8], descriptors: usize, is_burst: bool) -> Result<(), Broken> {
        if is_burst && bytes.len() <= RUN_MOST && bytes.len() == self.last_length && descriptors == 0 {
            return self.write_run(bytes);
        }
        self.last_length = bytes.len();
        self.close_run();
        self.write_record(((descriptors as u64) << DESCRIPTORS_SHIFT) | bytes.len() as u64, bytes)
    }

    /// Whether a message of this length follows a full run at the beginning of a line.
    #[inline(always)]
    pub(crate) fn is_at_line(&self, length: usize) -> bool {
        self.is_like_the_last(length) && self.next.offset() == 0
    }

    /// Whether it begins a run there.
    #[inline(always)]
    pub(crate) fn begins_line(&self, length: usize) -> bool {
        self.is_at_line(length) && self.has_room_for(AHEAD * LINE)
    }

    /// Sends a message that [begins a line](Sender::begins_line).
    #[inline(always)]
    pub(crate) fn begin_line(&mut self, bytes: &[u8]) -> Result<Next, Broken> {
        let (at, length) = (self.tail, bytes.len());
        debug_assert!(self.begins_line(length) && at.is_multiple_of(LINE));
        self.line().publish(at, at.wrapping_add(LINE))?;
        prefetch_write(self.place.at(at.wrapping_add(AHEAD * LINE)).as_ptr());
        // SAFETY: in the same line.
        let slot = unsafe { self.place.spot(at).add(HEADER) };
        // Each by itself, for the compiler to know how long it is.
        match length {
            // SAFETY: so many bytes are behind the header, as above.
            8 => unsafe { copy::to_shared(&bytes[..8], slot.0) },
            // SAFETY: as above.
            16 => unsafe { copy::to_shared(&bytes[..16], slot.0) },
            // SAFETY: as above.
            _ => unsafe { copy::to_shared(bytes, slot.0) },
        }
        self.publish_header(at, at.wrapping_add(LINE), run_header(1, length));
        // SAFETY: in the same line.
        let next = Next(unsafe { slot.add(padded(length as u64)) });
        Ok(next.with(Next::likeness(length)))
    }

    /// Begins a run, if there is room for one. If not at the beginning of a line, it has this message only, and the next one begins
    /// a line.
    #[inline(never)]
    fn write_run(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.close_run();
        let (at, length) = (self.tail, bytes.len() as u64);
        if length == 0 || !self.has_room_for(LINE) || slots(at, length) == 0 {
            return self.write_record(length, bytes);
        }
        let is_line = at.is_multiple_of(LINE);
        self.place.write(at.wrapping_add(HEADER), bytes);
        let header = run_header(1, bytes.len()) | if is_line { 0 } else { CLOSED };
        self.publish_record(at, line_end(at), header)?;
        let next = if is_line {
            // SAFETY: in the same line.
            Next(unsafe { self.place.spot(at).add(HEADER + padded(length)) })
        } else {
            Next::LINE_AHEAD
        };
        self.next = next.with(Next::likeness(bytes.len()));
        Ok(())
    }

    /// Says that no more comes to the open run, if there is one.
    #[inline(always)]
    pub(crate) fn close_run(&mut self) {
        let next = core::mem::replace(&mut self.next, Next::NOWHERE);
        if next.is_in_run() {
            let header = run_header(next.count(next.words()), self.last_length);
            // Relaxed: who sees it knows all that the run has. What comes next is published by its own header.
            self.place.header(self.tail.wrapping_sub(LINE)).store(header | CLOSED, Ordering::Relaxed);
        }
    }

    /// Sends the first record of a message in several: as long as there is more to come.
    pub(crate) fn write_first(
        &mut self,
        total: usize,
        bytes: &[u8],
        descriptors: usize,
    ) -> Result<(), Broken> {
        self.last_length = NONE;
        self.close_run();
        let length = bytes.len() as u64 + HEADER;
        // Behind the header, which is zero: nobody sees it before that one is written.
        self.place.header(self.tail.wrapping_add(HEADER)).store(total as u64, Ordering::Relaxed);
        self.place.write(self.tail.wrapping_add(2 * HEADER), bytes);
        let end = self.tail.wrapping_add(HEADER + padded(length));
        self.publish_record(self.tail, end, ((descriptors as u64) << DESCRIPTORS_SHIFT) | MORE | length)
    }

    /// A further one.
    pub(crate) fn write_next(&mut self, bytes: &[u8], is_last: bool) -> Result<(), Broken> {
        self.write_record(bytes.len() as u64 | if is_last { 0 } else { MORE }, bytes)
    }

    /// Takes back the message of which the last record had more to come. For that there always is room.
    pub(crate) fn write_abort(&mut self) -> Result<(), Broken> {
        self.write_record(ABORT, &[])
    }

    /// Says that nothing more comes. For that there always is room, and after it nothing is sent.
    pub(crate) fn write_final(&mut self) -> Result<(), Broken> {
        self.close_run();
        self.write_record(FINAL, &[])
    }

    #[inline(always)]
    fn write_record(&mut self, header: u64, bytes: &[u8]) -> Result<(), Broken> {
        self.place.write(self.tail.wrapping_add(HEADER), bytes);
        let end = self.tail.wrapping_add(HEADER + padded(bytes.len() as u64));
        self.publish_record(self.tail, end, header)
    }

    /// The record is written, but for its header. From here on it is sent.
    #[inline(always)]
    fn publish_record(&mut self, at: u64, end: u64, header: u64) -> Result<(), Broken> {
        // For nobody but this side itself: another one that sends here is found out by it. To look at the ring for that would
        // have its line cross once more.
        self.line().publish(at, end)?;
        self.next = Next::NOWHERE;
        self.publish_header(at, end, header);
        Ok(())
    }

    #[inline(always)]
    fn publish_header(&mut self, at: u64, end: u64, header: u64) {
        self.tail = end;
        self.place.header(end).store(0, Ordering::Relaxed);
        // Release: the payload first, and the zero behind it. Pairs with the Acquire in the receiver's `front`.
        self.place.header(at).store(WRITTEN | header, Ordering::Release);
    }

    /// What there is to hear before and after something is sent.
    #[inline(always)]
    pub(crate) fn news(&self) -> News {
        News { place: self.place, usual: self.notice }
    }

    /// Whether a process has let go of the other end since the last time.
    pub(crate) fn hears_farewell(&mut self) -> bool {
        let farewells = self.place.control().receiver.farewells();
        core::mem::replace(&mut self.notice, farewells) != farewells
    }

    /// Whether the receiver sleeps and has to hear the bell. It is told once.
    pub(crate) fn has_to_ring(&self) -> bool {
        self.place.control().receiver.hears_of_sleep()
    }

    /// What this side says.
    #[inline(always)]
    pub(crate) fn line(&self) -> &Line {
        &self.place.control().sender
    }
}
