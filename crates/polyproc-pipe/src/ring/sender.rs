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
    next: Next,
    /// The length of the last message.
    last_length: usize,
    /// It found no room: more memory would help.
    wants_to_grow: bool,
}

/// Where the next message of a run goes, or that it begins a line.
///
/// One word, from which all follows that a message needs: to load and store costs more than to calculate. A run that is open
/// begins with its line, so that the place says how many messages it has. The lowest bits say what they are like.
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

    /// Whatever message of this length comes, it begins a line.
    fn at_line(length: usize) -> Next {
        let likeness = Next::likeness(length);
        Next(Spot(NonNull::<Line>::dangling().cast().map_addr(|address| address | Next::end(likeness) | likeness)))
    }

    /// What messages of this length are like, if they go into runs.
    #[inline(always)]
    pub(crate) fn likeness(length: usize) -> usize {
        match length {
            8 | 16 | 24 => length / 8,
            1..8 => ODD | 1,
            9..16 => ODD | 2,
            17..24 => ODD | 3,
            _ => usize::MAX,
        }
    }

    /// Where in a line a full run ends, whose messages are like this: at the end of it, or a word before.
    #[inline(always)]
    fn end(likeness: usize) -> usize {
        if likeness & WORDS == 1 { 0 } else { OFFSET }
    }

    /// What addresses have in their lowest bits, as a set, at which messages of this length go on with a run.
    #[inline(always)]
    fn places(length: usize) -> u64 {
        let words = length.div_ceil(8);
        if !matches!(words, 1..=WORDS) {
            return 0;
        }
        let offsets = [0x0101_0101_0101_0100, 1 << 8 | 1 << 24 | 1 << 40, 1 << 8 | 1 << 32][words - 1];
        offsets << Next::likeness(length)
    }

    #[inline(always)]
    fn address(self) -> usize {
        self.0.0.addr().get()
    }

    #[inline(always)]
    fn offset(self) -> usize {
        self.address() & OFFSET
    }

    /// If a run is open: how many messages it has, and how many it has room for.
    fn in_run(self) -> Option<(u64, u64)> {
        let (likeness, offset) = (self.address() & (WORDS | ODD), self.offset());
        let is_open = likeness != 0 && offset != Next::end(likeness);
        is_open.then(|| (count(offset, likeness & WORDS), slots(0, 8 * (likeness & WORDS) as u64)))
    }
}

/// How many messages of so many words are before that place in their line.
#[inline(always)]
fn count(offset: usize, words: usize) -> u64 {
    let before = offset - HEADER as usize;
    // Each by itself: a division would take as long as all the rest.
    (match words {
        1 => before / 8,
        2 => before / 16,
        _ => before / 24,
    }) as u64
}

/// What the header of a run says that has so many messages of this length.
#[inline(always)]
fn run_header(count: u64, length: usize) -> u64 {
    WRITTEN | RUN | (count << COUNT_SHIFT) | length as u64
}

/// The other side, as far as the sender listens to it.
#[derive(Clone, Copy)]
pub(crate) struct Receiver {
    place: Place,
}

impl Receiver {
    /// Whether it sleeps, or a process has let go of its end. After something was sent, a barrier is between.
    #[inline(always)]
    pub(crate) fn has_notice(&self) -> bool {
        self.place.control().receiver.has_notice()
    }

    /// Whether a process has let go of its end. It is told once.
    #[inline(always)]
    pub(crate) fn hears_farewell(&self) -> bool {
        self.place.control().receiver.hears_farewell()
    }
}

impl Sender {
    pub(crate) fn new(place: Place, tail: u64, head: u64) -> Sender {
        Sender {
            place,
            tail,
            head_seen: head,
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

    /// Whether a message of this length goes on with the open run: then there is room.
    #[inline(always)]
    pub(crate) fn goes_on(&self, length: usize) -> bool {
        Next::places(length) >> (self.next.address() % LINE as usize) & 1 != 0 && self.is_usual(length)
    }

    /// Whether a message of this length goes on with a full run, at the beginning of a line.
    #[inline(always)]
    pub(crate) fn is_at_line(&self, length: usize) -> bool {
        let likeness = Next::likeness(length);
        self.next.address() % LINE as usize == Next::end(likeness) | likeness && self.is_usual(length)
    }

    #[inline(always)]
    fn is_usual(&self, length: usize) -> bool {
        length.is_multiple_of(8) || length == self.last_length
    }

    /// How many more messages the open run has room for.
    #[inline(always)]
    pub(crate) fn room_in_run(&self) -> u64 {
        self.next.in_run().map_or(0, |(count, slots)| slots - count)
    }

    /// Where the next message goes.
    #[inline(always)]
    pub(crate) fn next(&self) -> Next {
        self.next
    }

    /// Sends a message with the open run, with which it [goes on](Sender::goes_on) there.
    #[inline(always)]
    pub(crate) fn go_on(&mut self, next: Next, bytes: &[u8]) {
        let (length, likeness) = (bytes.len(), Next::likeness(bytes.len()));
        let (offset, words) = (next.offset(), likeness & WORDS);
        debug_assert!(offset != Next::end(likeness));
        // SAFETY: without what is in the lowest bits, it is in the line.
        let slot = unsafe { next.0.0.byte_sub(likeness) };
        // SAFETY: there the line begins.
        let line = Spot(unsafe { slot.byte_sub(offset) });
        // SAFETY: the run is not full, so its next message ends in the same line.
        unsafe { copy::to_shared(bytes, slot) };
        // SAFETY: the run is in the ring.
        let shared = unsafe { line.header() };
        // Release: the message first. Pairs with the Acquire in the receiver's `front`.
        shared.store(run_header(count(offset, words) + 1, length), Ordering::Release);
        // SAFETY: in the same line, or at its end.
        self.next = Next(unsafe { next.0.add(8 * words as u64) });
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

    /// Whether there is room for a line, and those that it is worth to fetch ahead of it.
    #[inline(always)]
    pub(crate) fn has_room_for_line(&self) -> bool {
        self.has_room_for(AHEAD * LINE)
    }

    /// How many messages of this length a line has room for.
    #[inline(always)]
    pub(crate) fn messages_in_line(likeness: usize) -> u64 {
        slots(0, 8 * (likeness & WORDS) as u64)
    }

    /// Opens a line for which there is [room](Sender::has_room_for_line), for a message of this length that
    /// [begins it](Sender::is_at_line), and is to be sent next. Nobody sees it before that.
    #[inline(always)]
    pub(crate) fn open_line(&mut self, likeness: usize) -> Result<Next, Broken> {
        let (at, end) = (self.tail, self.tail.wrapping_add(LINE));
        debug_assert!(at.is_multiple_of(LINE));
        self.line().publish(at, end)?;
        prefetch_write(self.place.at(at.wrapping_add(AHEAD * LINE)).as_ptr());
        self.tail = end;
        self.place.header(end).store(0, Ordering::Relaxed);
        // SAFETY: in the line.
        let slot = unsafe { self.place.spot(at).add(HEADER) };
        Ok(Next(Spot(slot.0.map_addr(|address| address | likeness))))
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
        self.next = if is_line {
            // SAFETY: in the same line.
            let slot = unsafe { self.place.spot(at).add(HEADER + padded(length)) };
            Next(Spot(slot.0.map_addr(|address| address | Next::likeness(bytes.len()))))
        } else {
            Next::at_line(bytes.len())
        };
        Ok(())
    }

    /// Says that no more comes to the open run, if there is one.
    #[inline(always)]
    pub(crate) fn close_run(&mut self) {
        let next = core::mem::replace(&mut self.next, Next::NOWHERE);
        if let Some((count, _)) = next.in_run() {
            let header = run_header(count, self.last_length);
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

    /// The receiver, to listen to before and after something is sent.
    #[inline(always)]
    pub(crate) fn receiver(&self) -> Receiver {
        Receiver { place: self.place }
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
