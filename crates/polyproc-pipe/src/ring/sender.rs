//! The sender's side of a [ring](super).

mod parts;

#[cfg(test)]
pub(super) use parts::{HELD, WIDE};

use super::run::{Kind, Run};
use super::{
    ABORT, Broken, CLOSED, FINAL, GROWN, HEADER, LENGTH_SHIFT, LINE, Place, RUN_MOST, WRITTEN, line_end,
    padded, slots,
};
use crate::copy;
use crate::line::Line;
use parts::{Held, NONE_HELD};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::prefetch::prefetch_write;

/// So many lines ahead of the one that a run begins in, a line is fetched for the run that will begin there.
const AHEAD: u64 = 4;

/// So many bytes ahead of a record in a stream of them, the lines are fetched that begin there.
const RECORD_AHEAD: u64 = 8 * LINE;

/// What takes some time to be written.
const LONG: usize = 256;

/// Of a record of so many bytes, with so many descriptors.
#[inline(always)]
fn header(length: usize, descriptors: usize) -> u64 {
    (length as u64) << LENGTH_SHIFT | descriptors as u64
}

/// Behind every record: an abort, the record that nothing more comes, and the zero.
const REST: u64 = 3 * HEADER;

/// No message is so long.
const NONE: usize = usize::MAX;

/// The sender's side of a ring. First what every message needs.
#[repr(C)]
pub(crate) struct Sender {
    run: Run,
    place: Place,
    /// Where the next record begins, and zero is until then.
    tail: u64,
    /// Up to there lines and records may follow without a look. The tail, unless what comes before is such a
    /// one.
    leave_until: u64,
    head_seen: u64,
    /// The length of the last message, and so of all that are in the open run.
    last_length: usize,
    /// It found no room, or the receiver behind with a long message to send: more memory would help.
    wants_to_grow: bool,
    held: Held,
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
            run: Run::NONE,
            leave_until: tail,
            last_length: NONE,
            wants_to_grow: false,
            held: NONE_HELD,
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

    /// Whether a record of so many bytes fits, as far as is known. Leaves room for an abort behind it, and
    /// for the end behind that.
    #[inline(always)]
    pub(crate) fn has_room(&self, length: usize) -> bool {
        self.has_room_for(HEADER + padded(length as u64))
    }

    #[inline(always)]
    fn has_room_for(&self, record: u64) -> bool {
        self.tail.wrapping_sub(self.head_seen) + record + REST <= self.place.capacity
    }

    /// Whether it fits now.
    #[inline(always)]
    pub(crate) fn finds_room(&mut self, length: usize) -> Result<bool, Broken> {
        if self.has_room(length) { Ok(true) } else { self.look_for_room(length) }
    }

    #[cold]
    #[inline(never)]
    fn look_for_room(&mut self, length: usize) -> Result<bool, Broken> {
        self.look_for_head()?;
        let has_room = self.has_room(length);
        self.wants_to_grow |= !has_room;
        Ok(has_room)
    }

    fn look_for_head(&mut self) -> Result<(), Broken> {
        let head = self.place.control().receiver.position();
        let gone_on = head.wrapping_sub(self.head_seen);
        if gone_on > self.tail.wrapping_sub(self.head_seen) || !head.is_multiple_of(8) {
            return Err(Broken);
        }
        self.head_seen = head;
        Ok(())
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
        debug_assert!(self.can_grow() && self.held.count == 0);
        self.is_alone()?;
        self.close_run();
        self.wants_to_grow = false;
        let at = self.tail;
        // Its own place is the same before and after; that of the zero behind it may not be.
        self.place.capacity *= 2;
        self.publish_record(at, at.wrapping_add(HEADER), GROWN);
        Ok(())
    }

    /// The run that a message of its length may go on with: then there is room.
    #[inline(always)]
    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Whether no message goes on with anything, whatever its length.
    #[inline(always)]
    pub(crate) fn has_no_run(&self) -> bool {
        self.run.is_none()
    }

    /// How many more messages the open run has room for.
    #[inline(always)]
    pub(crate) fn room_in_run(&self) -> u64 {
        self.run.room().unwrap_or(0)
    }

    /// Sends a message with the run that is this side's, and [open](Run::is_open) for it.
    #[inline(always)]
    pub(crate) fn go_on(&mut self, run: Run, bytes: &[u8]) {
        let kind = Kind::of(bytes.len());
        debug_assert!(run.is_open(kind) && run == self.run);
        // SAFETY: it is open.
        let slot = unsafe { run.slot(kind) };
        // SAFETY: so much room is there.
        unsafe { copy::to_shared(bytes, slot.0) };
        // Of `run`, which the caller has looked at: to load again what was stored a moment ago takes time.
        let header = run.header_after(kind);
        self.run.set_header(header);
        // SAFETY: it is in the ring.
        unsafe { run.publish(header) };
    }

    /// Sends a message for which there is room. In a burst, another one of this length is expected soon.
    #[inline(always)]
    pub(crate) fn write(&mut self, bytes: &[u8], descriptors: usize, is_burst: bool) -> Result<(), Broken> {
        self.is_alone()?;
        if is_burst && bytes.len() <= RUN_MOST && bytes.len() == self.last_length && descriptors == 0 {
            return self.write_run(bytes);
        }
        self.close_run();
        self.last_length = bytes.len();
        self.write_record(header(bytes.len(), descriptors), bytes)
    }

    /// Before a [`write`](Sender::write) of so many bytes, one of many: fetches lines for one that is to
    /// come, as many as begin in this one, if they are known to be free.
    #[inline(always)]
    pub(crate) fn fetch_ahead(&self, length: usize) {
        let record = HEADER + padded(length as u64);
        if length <= LONG && self.has_room_for(RECORD_AHEAD + record) {
            self.fetch_lines_ahead(record);
        }
    }

    #[inline(always)]
    fn fetch_lines_ahead(&self, record: u64) {
        let first = self.tail.wrapping_add(LINE - 1) & !(LINE - 1);
        let lines = line_end(self.tail.wrapping_add(record - 1)).wrapping_sub(first) / LINE;
        for line in 0..lines {
            prefetch_write(self.place.at(first.wrapping_add(RECORD_AHEAD + line * LINE)).as_ptr());
        }
    }

    /// Whether a line may be opened: there is room, and it was allowed.
    #[inline(always)]
    pub(crate) fn may_open_line(&self) -> bool {
        self.has_leave(LINE)
    }

    /// Whether so many bytes may follow without a look.
    #[inline(always)]
    fn has_leave(&self, bytes: u64) -> bool {
        self.leave_until.wrapping_sub(self.tail) >= bytes
    }

    /// Allows that so many lines are opened, or for how many there is room now, one right behind the other.
    /// Whether there is any.
    pub(crate) fn allows_lines(&mut self, lines: u64) -> Result<bool, Broken> {
        if !self.has_room_for(AHEAD * LINE) {
            self.look_for_head()?;
        }
        let used = self.tail.wrapping_sub(self.head_seen) + AHEAD * LINE + REST;
        let room = self.place.capacity.checked_sub(used).map_or(0, |room| 1 + room / LINE);
        self.leave_until = self.tail.wrapping_add(lines.min(room) * LINE);
        Ok(self.may_open_line())
    }

    /// Allows that so many records as the last one [follow](Sender::follow), or for how many there is room as
    /// far as is known. How many.
    pub(crate) fn allows_records(&mut self, records: u64) -> u64 {
        let used = self.tail.wrapping_sub(self.head_seen) + RECORD_AHEAD + LONG as u64 + REST;
        let room = self.place.capacity.saturating_sub(used);
        let record = HEADER + padded(self.last_length as u64);
        let records = records.min(room / record);
        self.leave_until = self.tail.wrapping_add(records * record);
        records
    }

    /// Whether a message of so many bytes is as long as the last one.
    #[inline(always)]
    pub(crate) fn is_like_the_last(&self, length: usize) -> bool {
        length == self.last_length
    }

    /// Takes back what was [allowed](Sender::allows_records) to records that did not follow. How many.
    #[inline(always)]
    pub(crate) fn takes_leave_of_records(&mut self) -> u64 {
        let left = self.leave_until.wrapping_sub(self.tail);
        if left == 0 || self.last_length <= RUN_MOST {
            return 0;
        }
        self.leave_until = self.tail;
        left / (HEADER + padded(self.last_length as u64))
    }

    /// Whether a record of so many bytes may [follow](Sender::follow) without a look.
    #[inline(always)]
    pub(crate) fn may_follow(&self, length: usize) -> bool {
        self.is_like_the_last(length) && self.has_leave(HEADER + padded(length as u64))
    }

    /// Sends a message in a record like the last one, which [may follow](Sender::may_follow).
    #[inline(always)]
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        debug_assert!(self.may_follow(bytes.len()) && self.run.is_none() && self.has_room(bytes.len()));
        self.is_alone()?;
        self.fetch_lines_ahead(HEADER + padded(bytes.len() as u64));
        self.place.write(self.tail.wrapping_add(HEADER), bytes);
        let (at, end) = (self.tail, self.tail.wrapping_add(HEADER + padded(bytes.len() as u64)));
        self.say(at, end, header(bytes.len(), 0));
        Ok(())
    }

    /// Opens a line, which is [allowed](Sender::allows_lines), for a message like those of the run that is
    /// [full](Run::is_full) and that is to [go on](Sender::go_on) with it at once. Nobody sees anything of it
    /// before that.
    #[inline(always)]
    pub(crate) fn open_line(&mut self, kind: Kind) -> Result<Run, Broken> {
        let (at, end) = (self.tail, self.tail.wrapping_add(LINE));
        debug_assert!(at.is_multiple_of(LINE) && self.may_open_line() && self.has_room_for(LINE));
        self.line().publish(at, end)?;
        prefetch_write(self.place.at(at.wrapping_add(AHEAD * LINE)).as_ptr());
        self.tail = end;
        self.place.header(end).store(0, Ordering::Relaxed);
        let run = Run::new(self.place.spot(at), kind, 0);
        self.run = run;
        Ok(run)
    }

    /// Before anything is written, which would be over what another one has sent: whether none has. Asked
    /// again where that takes long.
    ///
    /// It is for nobody but this side itself. To look at the ring for that would have its line cross once
    /// more.
    #[inline(always)]
    fn is_alone(&self) -> Result<(), Broken> {
        if self.line().is_at(self.tail) { Ok(()) } else { Err(Broken) }
    }

    /// Begins a run, if there is room for one. If not at the beginning of a line, it has this message only,
    /// and the next one begins a line.
    #[inline(never)]
    fn write_run(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.close_run();
        let (at, length, kind) = (self.tail, bytes.len(), Kind::of(bytes.len()));
        if length == 0 || !self.has_room_for(LINE) || slots(at, length as u64) == 0 {
            return self.write_record(header(length, 0), bytes);
        }
        self.place.write(at.wrapping_add(HEADER), bytes);
        let run = Run::new(self.place.spot(at), kind, 1);
        if at.is_multiple_of(LINE) {
            self.publish_record(at, line_end(at), run.header());
            self.run = run;
        } else {
            self.publish_record(at, line_end(at), run.header() | CLOSED);
            self.run = Run::full(kind);
        }
        Ok(())
    }

    /// Says that no more comes to the open run, if there is one.
    #[inline(always)]
    pub(crate) fn close_run(&mut self) {
        let run = core::mem::replace(&mut self.run, Run::NONE);
        if run.room().is_some() {
            // Messages of the run, too, may be seen by this first.
            // SAFETY: it is open.
            unsafe { run.publish(run.header() | CLOSED) };
        }
    }

    /// Takes back the message of which the last record had more to come. For that there always is room.
    pub(crate) fn write_abort(&mut self) -> Result<(), Broken> {
        self.is_alone()?;
        self.lets_go();
        self.write_record(ABORT, &[])
    }

    /// Says that nothing more comes. For that there always is room, and after it nothing is sent.
    pub(crate) fn write_final(&mut self) -> Result<(), Broken> {
        self.is_alone()?;
        self.close_run();
        self.write_record(FINAL, &[])
    }

    #[inline(always)]
    fn write_record(&mut self, header: u64, bytes: &[u8]) -> Result<(), Broken> {
        self.place.write(self.tail.wrapping_add(HEADER), bytes);
        if bytes.len() > LONG {
            self.is_alone()?;
        }
        let end = self.tail.wrapping_add(HEADER + padded(bytes.len() as u64));
        self.publish_record(self.tail, end, header);
        Ok(())
    }

    /// The record is written, but for its header. From here on it is sent.
    #[inline(always)]
    fn publish_record(&mut self, at: u64, end: u64, header: u64) {
        (self.run, self.leave_until) = (Run::NONE, end);
        self.say(at, end, header);
    }

    /// Writes what makes it a record, between these positions. Here it is sent.
    #[inline(always)]
    fn say(&mut self, at: u64, end: u64, header: u64) {
        self.line().goes_to(end);
        self.tail = end;
        self.place.header(end).store(0, Ordering::Relaxed);
        // Release: the payload first, and the zero behind it. Pairs with the Acquire in the receiver's
        // `front`.
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
