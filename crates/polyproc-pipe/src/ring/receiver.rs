//! The receiver's side of a [ring](super).

mod ready;

pub(crate) use ready::{BUFFER, Ready};

use super::{
    ABORT, Broken, CLOSED, END, FINAL, GROWN, HEADER, KIND, MESSAGE_MAX, MORE, Place, RUN, Spot, WRITTEN,
    descriptors, line_end, padded, slots,
};
use crate::copy;
use crate::line::Line;
use polyproc_sys::atomic::Ordering;

/// So much room is worth a word to a sender that is awake, at most.
pub(super) const SOME: u64 = 16 << 10;

/// A peer may claim what it never sends: no more is reserved for that.
pub(crate) const TRUSTED: usize = 4 << 20;

/// No message is so long.
const NONE: usize = usize::MAX;

/// What comes next in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Nothing yet.
    Nothing,
    /// A whole message, in one record, with so many bytes and descriptors.
    Whole(usize, usize),
    /// The first record of a message with so many bytes in all, and descriptors.
    First(usize, usize),
    /// A part of the message that has begun, of so many bytes.
    Next(usize),
    /// The last part of it.
    Last(usize),
    /// The message that has begun does not go on.
    Abort,
    /// Nothing more comes, ever. It is not taken.
    Final,
    /// The ring grows, when memory was put behind it: as much as it uses.
    Grown,
}

impl Front {
    /// How many bytes of the ring it takes, at least.
    pub(crate) fn length(self) -> u64 {
        match self {
            Front::Nothing | Front::Final => 0,
            Front::Whole(length, _) | Front::Next(length) | Front::Last(length) => HEADER + length as u64,
            Front::First(..) | Front::Abort | Front::Grown => HEADER,
        }
    }
}

/// What has come where nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A message of a run.
    One,
    /// Several of them.
    Several,
    /// Something else: perhaps there is more behind it.
    Record,
}

/// The receiver's side of a ring. First what every message needs.
#[repr(C)]
pub(crate) struct Receiver {
    /// The length of the message in front, if that is in a run.
    ready_length: usize,
    /// The length of the record that was taken last, if it was a whole message and nothing was looked at
    /// since.
    last_record: usize,
    run: Run,
    place: Place,
    /// Where the record in front begins.
    head: u64,
    published: u64,
    /// So much free room is worth a word to a sender that is awake.
    some: u64,
    /// Where it was when no record was in front the last time, and how many bytes had come then since the
    /// time before.
    waited_at: u64,
    had_come: u64,
    /// The header in front, once it was copied out and judged; else 0.
    front: u64,
    /// Bytes that are still to come of the message that has begun; `None` between messages.
    left: Option<usize>,
    /// So many messages of the run in front were received by who had this end before.
    skipped: u64,
}

fn some(capacity: u64) -> u64 {
    (capacity / 4).min(SOME)
}

/// The run in front, which stays there when all of it is taken until something else is looked for.
#[repr(C)]
struct Run {
    /// Where the next message is, or will be.
    slot: Spot,
    /// Where the last one that is known ends: the slot, if none is ready.
    known: Spot,
    /// What its header said; 0 if it was not read yet, or something else is in front. Then the rest means
    /// nothing.
    header: u64,
    /// So much larger its header is when it is full.
    room: u64,
}

const NO_RUN: Run = Run { header: 0, room: 0, slot: Spot::NOWHERE, known: Spot::NOWHERE };

impl Run {
    /// How long each message is.
    #[inline(always)]
    fn length(&self) -> u64 {
        super::length(self.header)
    }

    #[inline(always)]
    fn is_drained(&self) -> bool {
        self.slot == self.known
    }

    /// Whether so many more bytes of it are whole messages for which there is room.
    #[inline(always)]
    fn has_room(&self, more: u64) -> bool {
        more <= self.room && is_whole(more, self.length())
    }
}

/// Whether so many bytes are a number of messages of this length, of which runs are.
#[inline(always)]
fn is_whole(bytes: u64, length: u64) -> bool {
    // Each by itself: a division would take as long as all the rest.
    match length {
        0..=8 => bytes.is_multiple_of(8),
        9..=16 => bytes.is_multiple_of(16),
        _ => bytes.is_multiple_of(24),
    }
}

impl Receiver {
    /// One that begins at a record, of which so many messages are taken if it is a run.
    pub(crate) fn new(place: Place, head: u64, taken: u64) -> Receiver {
        Receiver {
            place,
            head,
            published: head,
            some: some(place.capacity),
            waited_at: head,
            had_come: 0,
            front: 0,
            left: None,
            ready_length: NONE,
            last_record: NONE,
            run: NO_RUN,
            skipped: taken,
        }
    }

    /// How far it is, if that is between two messages: where the record in front begins, and how many
    /// messages of it are taken.
    pub(crate) fn position(&self) -> Option<(u64, u64)> {
        let taken = if self.run.header == 0 { self.skipped } else { self.taken() };
        self.left.is_none().then_some((self.head, taken))
    }

    /// How many messages of the run in front are taken.
    fn taken(&self) -> u64 {
        let begin = self.place.spot(self.head).0.addr().get() as u64 + HEADER;
        (self.run.slot.0.addr().get() as u64 - begin) / padded(self.run.length())
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// After there was nothing in front: whether there is something now, and what.
    #[inline(always)]
    pub(crate) fn news(&self) -> Option<News> {
        // Relaxed: what it is is read again.
        let header = self.place.header(self.head).load(Ordering::Relaxed);
        let before = (self.run.header & END).max(HEADER);
        (header != self.run.header).then_some(match header & RUN {
            0 => News::Record,
            _ if header & END > before + padded(super::length(header)) => News::Several,
            _ => News::One,
        })
    }

    /// How many bytes had come one behind the other when no record was in front the last time.
    #[inline(always)]
    pub(crate) fn had_come(&self) -> u64 {
        self.had_come
    }

    /// How many have come since.
    #[inline(always)]
    fn has_come(&self) -> u64 {
        self.head.wrapping_sub(self.waited_at)
    }

    /// What comes next.
    #[inline(always)]
    pub(crate) fn front(&mut self) -> Result<Front, Broken> {
        self.last_record = NONE;
        if self.run.header != 0 {
            return self.front_of_run();
        }
        if self.front != 0 {
            return self.judge(self.front);
        }
        // Acquire: pairs with the Release of who publishes it.
        let header = self.place.header(self.head).load(Ordering::Acquire);
        if header & RUN != 0 {
            self.begin_run(header)
        } else if header == 0 {
            (self.had_come, self.waited_at) = (self.has_come(), self.head);
            Ok(Front::Nothing)
        } else {
            self.judge(header)
        }
    }

    /// What this header, a private copy, says, if it can be.
    #[inline(always)]
    fn judge(&mut self, header: u64) -> Result<Front, Broken> {
        let length = super::length(header);
        // No further than there is room after what this side has published, with the zero behind. At most
        // 2^40 and a little: no overflow.
        if self.head.wrapping_sub(self.published) + padded(length) + 2 * HEADER > self.place.capacity {
            return Err(Broken);
        }
        self.front = header;
        if header & KIND == WRITTEN && self.left.is_none() && self.skipped == 0 {
            return Ok(Front::Whole(length as usize, descriptors(header)));
        }
        self.judge_the_unusual(header, length)
    }

    #[inline(never)]
    fn judge_the_unusual(&mut self, header: u64, length: u64) -> Result<Front, Broken> {
        let kind = header & KIND;
        if kind & WRITTEN == 0 {
            return Err(Broken);
        }
        if self.skipped != 0 {
            return Err(Broken);
        }
        if header == WRITTEN | FINAL && self.left.is_none() {
            return Ok(Front::Final);
        }
        if kind == WRITTEN | GROWN {
            let can_grow = self.place.capacity < self.place.most
                && self.place.is_in_one_even_lap(self.published, self.head)
                && header == kind;
            return if can_grow { Ok(Front::Grown) } else { Err(Broken) };
        }
        let Some(left) = self.left else {
            if kind != WRITTEN | MORE || length < HEADER {
                return Err(Broken);
            }
            let total = self.place.header(self.head.wrapping_add(HEADER)).load(Ordering::Relaxed);
            // More is to come than what came, or it would not be in several records.
            if total > MESSAGE_MAX as u64 || total <= length - HEADER {
                return Err(Broken);
            }
            return Ok(Front::First(total as usize, descriptors(header)));
        };
        let length = length as usize;
        match kind & !WRITTEN {
            ABORT if length == 0 => Ok(Front::Abort),
            MORE if length < left && length != 0 => Ok(Front::Next(length)),
            0 if length == left => Ok(Front::Last(length)),
            _ => Err(Broken),
        }
    }

    /// A run is in front whose header was not read before.
    #[inline(always)]
    fn begin_run(&mut self, header: u64) -> Result<Front, Broken> {
        let length = super::length(header);
        // Of messages alone.
        let (bytes, most) = ((header & END).wrapping_sub(HEADER), slots(self.head, length) * padded(length));
        let is_sane = self.left.is_none()
            && header & KIND & !CLOSED == WRITTEN | RUN
            && length != 0
            && bytes.wrapping_sub(1) < most
            && is_whole(bytes, length)
            && self.skipped <= most
            && self.skipped * padded(length) <= bytes
            && line_end(self.head).wrapping_sub(self.published) + HEADER <= self.place.capacity;
        if !is_sane {
            return Err(Broken);
        }
        let taken = core::mem::take(&mut self.skipped) * padded(length);
        // SAFETY: the line has room for a header and so much, as was checked.
        let behind = |bytes| unsafe { self.place.spot(self.head).add(HEADER + bytes) };
        self.run = Run { header, room: most - bytes, slot: behind(taken), known: behind(bytes) };
        if taken == bytes {
            self.ready_length = NONE;
            return self.front_of_run();
        }
        self.ready_length = length as usize;
        Ok(Front::Whole(self.ready_length, 0))
    }

    /// A run is in front, and its header was read.
    #[inline]
    fn front_of_run(&mut self) -> Result<Front, Broken> {
        if !self.run.is_drained() {
            return Ok(Front::Whole(self.ready_length, 0));
        }
        if self.run.room == 0 {
            self.leave_run();
            return self.front();
        }
        // All that was known of it is taken. Acquire: pairs with the Release of who publishes more.
        let header = self.place.header(self.head).load(Ordering::Acquire);
        // What has come is a number of messages and nothing else, and there is room for them; or that no more
        // comes, or both.
        let more = header.wrapping_sub(self.run.header);
        if self.run.has_room(more) {
            if more != 0 {
                self.run.header = header;
                self.run.room -= more;
                // SAFETY: the line has room for them.
                self.run.known = unsafe { self.run.slot.add(more) };
                self.ready_length = self.run.length() as usize;
                return Ok(Front::Whole(self.ready_length, 0));
            }
            if header & CLOSED == 0 {
                return Ok(Front::Nothing);
            }
        }
        self.judge_end_of_run(header)
    }

    /// A run is in front that is drained, and its header does not say what it said before, or it is closed.
    #[inline(never)]
    fn judge_end_of_run(&mut self, header: u64) -> Result<Front, Broken> {
        if self.run.header & CLOSED == 0 && header & CLOSED != 0 {
            self.run.header |= CLOSED;
            // It may have got more before.
            return self.front_of_run();
        }
        if header != self.run.header {
            return Err(Broken);
        }
        self.leave_run();
        self.front()
    }

    /// Nothing more comes in this run.
    #[inline(always)]
    fn leave_run(&mut self) {
        self.run.header = 0;
        self.head = line_end(self.head);
    }

    /// Whether the message of which a part is in front was taken back. Has memory put behind a ring that has
    /// grown meanwhile, by `allocate`, before it looks there.
    pub(crate) fn is_taken_back(&self, allocate: impl Fn(&Place) -> bool) -> bool {
        let (mut place, mut at) = (self.place, self.head);
        // No further than there is room after what this side has published.
        while at.wrapping_sub(self.published) + HEADER <= place.capacity {
            // Acquire: pairs with the Release of who publishes it.
            let header = place.header(at).load(Ordering::Acquire);
            match header & KIND ^ WRITTEN {
                ABORT => return true,
                MORE => at = at.wrapping_add(HEADER + padded(super::length(header))),
                GROWN
                    if place.capacity < place.most
                        && place.is_in_one_even_lap(self.published, at)
                        && allocate(&place) =>
                {
                    place.capacity *= 2;
                    at = at.wrapping_add(HEADER);
                }
                _ => return false,
            }
        }
        false
    }

    /// Appends the payload in front to `to`, and takes it. The part of a message begins or goes on with it.
    pub(crate) fn take_into(&mut self, front: Front, to: &mut Vec<u8>) {
        let (skip, length) = match front {
            Front::Nothing | Front::Final | Front::Grown => return,
            Front::Whole(length, _) => (0, length),
            Front::First(total, _) => {
                let first = super::length(self.front) - HEADER;
                to.reserve(total.min(TRUSTED));
                self.left = Some(total);
                (HEADER, first as usize)
            }
            Front::Next(length) | Front::Last(length) => (0, length),
            Front::Abort => (0, 0),
        };
        to.reserve(length);
        let is_in_run = self.run.header != 0;
        let end = to.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        if is_in_run {
            // SAFETY: room for so many was reserved, and the run is in one line.
            unsafe { copy::from_shared(self.run.slot.0, end, length) };
        } else {
            // SAFETY: room for so many was reserved, and no more than the ring has.
            unsafe { self.place.read(self.head.wrapping_add(HEADER + skip), end, length) };
        }
        // SAFETY: initialised by the copy.
        unsafe { to.set_len(to.len() + length) };
        match (front, &mut self.left) {
            (Front::First(..) | Front::Next(_), Some(left)) => *left -= length,
            (Front::Last(_) | Front::Abort, _) => self.left = None,
            _ => {}
        }
        if is_in_run {
            self.take_from_run(Ready { slot: self.run.slot, known: self.run.known }, length);
        } else {
            self.take((skip as usize) + length);
        }
    }

    /// The record in front, of so many bytes, is received.
    #[inline(always)]
    fn take(&mut self, length: usize) {
        self.front = 0;
        self.head = self.head.wrapping_add(HEADER + padded(length as u64));
    }

    /// Uses the memory that was put behind the ring, after it said that it has [grown](Front::Grown).
    pub(crate) fn grow(&mut self) {
        debug_assert!(self.place.capacity < self.place.most);
        self.place.capacity *= 2;
        self.some = some(self.place.capacity);
        self.take(0);
    }

    /// Whether it is time to say how far it is: a quarter of the ring is free, or some of it and the sender
    /// is awake, which had better not lose its patience. One that sleeps is not woken for little.
    #[inline(always)]
    pub(crate) fn has_to_publish(&self) -> bool {
        let free = self.head.wrapping_sub(self.published);
        free >= self.some && (free >= self.place.capacity / 4 || !self.place.control().sender.seems_asleep())
    }

    /// Says how far it is. `true` if the sender sleeps and has to hear the bell; it is told once.
    #[cold]
    #[inline(never)]
    pub(crate) fn publish(&mut self) -> Result<bool, Broken> {
        if self.run.header != 0 && self.run.room == 0 && self.run.is_drained() {
            self.leave_run();
        }
        self.line().publish(self.published, self.head)?;
        self.published = self.head;
        Ok(self.place.control().sender.hears_of_sleep())
    }

    /// What this side says.
    #[inline(always)]
    pub(crate) fn line(&self) -> &Line {
        &self.place.control().receiver
    }
}
