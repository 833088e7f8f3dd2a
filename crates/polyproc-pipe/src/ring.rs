//! One ring: the sender's side and the receiver's, and what they believe of each other.
//!
//! # The memory
//!
//! Two lines of control words and `capacity` bytes, a power of two. `tail` is the sender's, `head` the receiver's; both
//! are positions in an endless stream of which the ring shows the last `capacity` bytes.
//!
//! The stream consists of records: a header word, then the payload, padded to a multiple of 8.
//!
//! | header bits | |
//! |---|---|
//! | 0 to 39 | length of the payload in bytes |
//! | 40 to 55 | descriptors that come along, by the socket |
//! | 60 | `MORE`: the message goes on in the next record. The first of several begins with the total length |
//! | 61 | `ABORT`: forget what came so far of the message; the sender ran out of time |
//!
//! # The steps, and where one can die
//!
//! A sender writes a record behind `tail` and publishes it with one store. Killed before, it has sent nothing; after, the
//! record is there. A message in several records counts with its last one; a sender that dies before that leaves a
//! torso, which its receiver never shows to anybody. A receiver copies a record out, moves its own position, and
//! publishes `head` when a quarter of the ring has come together, when it goes to sleep, and when the sender waits for
//! room: so a line that the other side works with changes hands rarely. The sender therefore relies on three quarters of
//! the ring, and waits for no more room than [`Sender::most`].
//!
//! Who sleeps and who wakes: see [`line`](crate::line). Both can be asleep only if the ring is empty and nobody has to say
//! anything: a receiver publishes `head` before it sleeps.
//!
//! # The trust
//!
//! None. Each side keeps its own position in private memory and only ever writes it to the ring. What it reads there is
//! copied out first and then compared with what can be: a `tail` further ahead of `head` than there is room, one that
//! moves backwards, a record longer than what was published, a message longer than [`MESSAGE_MAX`]. Each of these is
//! [`Broken`], for good. So is another value of one's own position than the one that was written: a peer has scribbled,
//! or another process uses this end.

use crate::copy;
use crate::line::Line;
use core::ptr::NonNull;
use polyproc_sys::atomic::{AtomicU64, Ordering};

pub(crate) use crate::line::Broken;

/// The longest message: 1 GiB.
pub(crate) const MESSAGE_MAX: usize = 1 << 30;
const LENGTH: u64 = (1 << 40) - 1;
const DESCRIPTORS_SHIFT: u32 = 40;
/// The most descriptors with a message.
pub(crate) const DESCRIPTORS_MAX: usize = 0xffff;
const MORE: u64 = 1 << 60;
const ABORT: u64 = 1 << 61;
const HEADER: u64 = 8;

/// The control words of a ring.
#[repr(C)]
pub(crate) struct Control {
    sender: Line,
    receiver: Line,
}

const _: () = assert!(size_of::<Control>() == 256 && align_of::<Control>() == 128);

/// Where a ring lies, in mapped memory that outlives whoever has this.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    control: NonNull<Control>,
    bytes: NonNull<u8>,
    capacity: u64,
}

// SAFETY: all access is by atomics or by `copy`, which any thread may do.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    /// # Safety
    ///
    /// Control words and `capacity` bytes, a power of two and a multiple of 64, are mapped there, aligned, as long as the
    /// place or a copy of it is used.
    pub(crate) unsafe fn new(control: NonNull<Control>, bytes: NonNull<u8>, capacity: u64) -> Place {
        debug_assert!(capacity.is_power_of_two());
        Place { control, bytes, capacity }
    }

    #[inline(always)]
    fn control(&self) -> &Control {
        // SAFETY: mapped as long as this is, and nothing but atomics.
        unsafe { self.control.as_ref() }
    }

    #[inline(always)]
    fn at(&self, position: u64) -> NonNull<u8> {
        // SAFETY: within the bytes.
        unsafe { self.bytes.add((position & (self.capacity - 1)) as usize) }
    }

    #[inline(always)]
    fn header(&self, position: u64) -> &AtomicU64 {
        // SAFETY: positions are multiples of 8, so a whole word is there, mapped as long as `self`.
        unsafe { self.at(position).cast::<AtomicU64>().as_ref() }
    }

    #[inline(always)]
    fn write(&self, position: u64, bytes: &[u8]) {
        let room = (self.capacity - (position & (self.capacity - 1))) as usize;
        let (first, second) = bytes.split_at(bytes.len().min(room));
        // SAFETY: up to the end of the ring, which is a multiple of 8.
        unsafe { copy::to_shared(first, self.at(position)) };
        if !second.is_empty() {
            // SAFETY: no more than the capacity, from the beginning.
            unsafe { copy::to_shared(second, self.bytes) };
        }
    }

    /// Copies `length` bytes, at most the capacity, to `to`.
    ///
    /// # Safety
    ///
    /// There is room for them.
    #[inline(always)]
    unsafe fn read(&self, position: u64, to: *mut u8, length: usize) {
        let room = (self.capacity - (position & (self.capacity - 1))) as usize;
        let first = length.min(room);
        // SAFETY: up to the end of the ring; the caller's room.
        unsafe { copy::from_shared(self.at(position), to, first) };
        if first < length {
            // SAFETY: within the caller's room.
            let rest = unsafe { to.add(first) };
            // SAFETY: no more than the capacity, from the beginning.
            unsafe { copy::from_shared(self.bytes, rest, length - first) };
        }
    }
}

#[inline(always)]
fn padded(length: u64) -> u64 {
    (length + 7) & !7
}

/// Positions begin here, so that the tests see them wrap. A multiple of every capacity.
pub(crate) const START: u64 = u64::MAX - ((1 << 20) - 1);

/// The sender's side of a ring.
pub(crate) struct Sender {
    place: Place,
    tail: u64,
    head_seen: u64,
    farewells_seen: u32,
    /// What was published, and what the control word must say.
    published: u64,
}

impl Sender {
    pub(crate) fn new(place: Place, tail: u64, head: u64) -> Sender {
        Sender { place, tail, head_seen: head, farewells_seen: 0, published: tail }
    }

    /// Writes the first position into a new ring.
    pub(crate) fn initialise(&self) {
        self.place.control().sender.begin_at(self.published);
        self.place.control().receiver.begin_at(self.published);
    }

    pub(crate) fn positions(&self) -> (u64, u64) {
        (self.tail, self.head_seen)
    }

    /// The most bytes in one record.
    pub(crate) fn most(&self) -> usize {
        (self.place.capacity / 2 - HEADER) as usize
    }

    /// Whether a process has let go of the other end since the last call.
    #[inline(always)]
    pub(crate) fn hears_farewell(&mut self) -> bool {
        let farewells = self.place.control().receiver.farewells();
        core::mem::replace(&mut self.farewells_seen, farewells) != farewells
    }

    /// Whether a record of so many bytes fits now. Leaves room for an abort behind it.
    #[inline(always)]
    pub(crate) fn has_room(&mut self, length: usize) -> Result<bool, Broken> {
        let need = HEADER + padded(length as u64) + HEADER;
        if self.tail.wrapping_sub(self.head_seen) + need <= self.place.capacity {
            return Ok(true);
        }
        self.look_for_room(need)
    }

    #[cold]
    fn look_for_room(&mut self, need: u64) -> Result<bool, Broken> {
        let head = self.place.control().receiver.position();
        let gone_on = head.wrapping_sub(self.head_seen);
        if gone_on > self.tail.wrapping_sub(self.head_seen) || !head.is_multiple_of(8) {
            return Err(Broken);
        }
        self.head_seen = head;
        Ok(self.tail.wrapping_sub(head) + need <= self.place.capacity)
    }

    /// Writes a record for which there is room. Nobody sees it yet.
    #[inline(always)]
    pub(crate) fn write(&mut self, bytes: &[u8], descriptors: usize) {
        self.write_header(bytes.len() as u64 | ((descriptors as u64) << DESCRIPTORS_SHIFT));
        self.place.write(self.tail, bytes);
        self.tail = self.tail.wrapping_add(padded(bytes.len() as u64));
    }

    /// The first record of a message in several: as long as there is more to come.
    pub(crate) fn write_first(&mut self, total: usize, bytes: &[u8], descriptors: usize) {
        let length = bytes.len() as u64 + HEADER;
        self.write_header(length | ((descriptors as u64) << DESCRIPTORS_SHIFT) | MORE);
        self.write_header(total as u64);
        self.place.write(self.tail, bytes);
        self.tail = self.tail.wrapping_add(padded(bytes.len() as u64));
    }

    /// A further one.
    pub(crate) fn write_next(&mut self, bytes: &[u8], is_last: bool) {
        self.write_header(bytes.len() as u64 | if is_last { 0 } else { MORE });
        self.place.write(self.tail, bytes);
        self.tail = self.tail.wrapping_add(padded(bytes.len() as u64));
    }

    /// Takes back the message of which the last record had more to come. For that there always is room.
    pub(crate) fn write_abort(&mut self) {
        self.write_header(ABORT);
    }

    #[inline(always)]
    fn write_header(&mut self, header: u64) {
        self.place.header(self.tail).store(header, Ordering::Relaxed);
        self.tail = self.tail.wrapping_add(HEADER);
    }

    /// Publishes what was written. From here on it is sent.
    #[inline(always)]
    pub(crate) fn publish(&mut self) -> Result<(), Broken> {
        self.line().publish(self.published, self.tail)?;
        self.published = self.tail;
        Ok(())
    }

    /// After [`publish`](Sender::publish): whether the receiver sleeps and has to hear the bell. It is told once.
    #[inline(always)]
    pub(crate) fn has_to_ring(&self) -> bool {
        self.place.control().receiver.hears_of_sleep()
    }

    /// What this side says.
    #[inline(always)]
    pub(crate) fn line(&self) -> &Line {
        &self.place.control().sender
    }
}

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
}

/// The receiver's side of a ring.
pub(crate) struct Receiver {
    place: Place,
    head: u64,
    tail_seen: u64,
    published: u64,
    /// The header in front, once it was copied out and judged.
    front: Option<u64>,
    /// Bytes that are still to come of the message that has begun; `None` between messages.
    left: Option<usize>,
}

impl Receiver {
    pub(crate) fn new(place: Place, head: u64) -> Receiver {
        Receiver { place, head, tail_seen: head, published: head, front: None, left: None }
    }

    /// How far it is, if that is between two messages.
    pub(crate) fn position(&self) -> Option<u64> {
        self.left.is_none().then_some(self.head)
    }

    /// What comes next. Looks at what the sender says only when all that is known has been taken.
    #[inline(always)]
    pub(crate) fn front(&mut self) -> Result<Front, Broken> {
        if self.head == self.tail_seen && !self.look_for_more()? {
            return Ok(Front::Nothing);
        }
        let known = self.tail_seen.wrapping_sub(self.head);
        let header = match self.front {
            Some(header) => header,
            None => self.place.header(self.head).load(Ordering::Relaxed),
        };
        self.front = Some(header);
        let length = header & LENGTH;
        // At most 2^40 and a little: no overflow. Records are published whole.
        if HEADER + padded(length) > known {
            return Err(Broken);
        }
        if header & (MORE | ABORT) == 0 && self.left.is_none() {
            let descriptors = (header >> DESCRIPTORS_SHIFT) as u16;
            return Ok(Front::Whole(length as usize, descriptors.into()));
        }
        self.front_of_several(header, length)
    }

    #[cold]
    fn front_of_several(&mut self, header: u64, length: u64) -> Result<Front, Broken> {
        let Some(left) = self.left else {
            if header & ABORT != 0 || length < HEADER {
                return Err(Broken);
            }
            let total = self.place.header(self.head.wrapping_add(HEADER)).load(Ordering::Relaxed);
            // More is to come than what came, or it would not be in several records.
            if total > MESSAGE_MAX as u64 || total <= length - HEADER {
                return Err(Broken);
            }
            return Ok(Front::First(total as usize, usize::from((header >> DESCRIPTORS_SHIFT) as u16)));
        };
        let length = length as usize;
        match (header & ABORT != 0, header & MORE != 0) {
            (true, _) => Ok(Front::Abort),
            (false, true) if length < left && length != 0 => Ok(Front::Next(length)),
            (false, false) if length == left => Ok(Front::Last(length)),
            _ => Err(Broken),
        }
    }

    #[inline(always)]
    fn look_for_more(&mut self) -> Result<bool, Broken> {
        let tail = self.place.control().sender.position();
        if tail == self.tail_seen {
            return Ok(false);
        }
        // Forwards, and no further than there is room after what this side has published.
        let ahead = tail.wrapping_sub(self.published);
        if ahead > self.place.capacity
            || ahead < self.head.wrapping_sub(self.published)
            || !tail.is_multiple_of(8)
        {
            return Err(Broken);
        }
        self.tail_seen = tail;
        Ok(true)
    }

    /// Copies the whole message in front, which is as long as `to`, and takes it.
    #[inline(always)]
    pub(crate) fn take_exactly(&mut self, to: &mut [u8]) {
        debug_assert!(self.front.is_some_and(|front| front & LENGTH == to.len() as u64));
        // SAFETY: so much room, and no more than the ring has.
        unsafe { self.place.read(self.head.wrapping_add(HEADER), to.as_mut_ptr(), to.len()) };
        self.take(to.len());
    }

    /// Appends the payload in front to `to`, and takes it. The part of a message begins or goes on with it.
    pub(crate) fn take_into(&mut self, front: Front, to: &mut Vec<u8>) {
        let (skip, length) = match front {
            Front::Nothing => return,
            Front::Whole(length, _) => (0, length),
            Front::First(total, _) => {
                let first = (self.front.unwrap_or(0) & LENGTH) - HEADER;
                // A peer may claim what it never sends: what is reserved for that is bounded.
                to.reserve(total.min(4 << 20));
                self.left = Some(total);
                (HEADER, first as usize)
            }
            Front::Next(length) | Front::Last(length) => (0, length),
            Front::Abort => (0, 0),
        };
        to.reserve(length);
        let begin = self.head.wrapping_add(HEADER + skip);
        let end = to.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: room for so many was reserved, and so many were published.
        unsafe { self.place.read(begin, end, length) };
        // SAFETY: initialised by the copy.
        unsafe { to.set_len(to.len() + length) };
        match (front, &mut self.left) {
            (Front::First(..) | Front::Next(_), Some(left)) => *left -= length,
            (Front::Last(_) | Front::Abort, _) => self.left = None,
            _ => {}
        }
        self.take((skip as usize) + length);
    }

    /// The record in front, of so many bytes, is received.
    #[inline(always)]
    fn take(&mut self, length: usize) {
        self.front = None;
        self.head = self.head.wrapping_add(HEADER + padded(length as u64));
    }

    /// Whether it is time to say how far it is: a quarter of the ring is free, or the sender waits for room.
    #[inline(always)]
    pub(crate) fn has_to_publish(&self) -> bool {
        self.head.wrapping_sub(self.published) >= self.place.capacity / 4
            || (self.head == self.tail_seen && self.place.control().sender.wants_news())
    }

    /// Says how far it is. `true` if the sender sleeps and has to hear the bell; it is told once.
    #[cold]
    #[inline(never)]
    pub(crate) fn publish(&mut self) -> Result<bool, Broken> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 4096;

    /// A ring in private memory, and both sides of it.
    struct Rig {
        place: Place,
        sender: Sender,
        receiver: Receiver,
    }

    fn rig() -> Rig {
        let words = vec![0u128; (256 + CAPACITY as usize + 128) / 16].leak();
        let start = words.as_mut_ptr().cast::<u8>();
        // SAFETY: within the words, which are 128 bytes more than is needed.
        let start = NonNull::new(unsafe { start.add(start.align_offset(128)) }).unwrap();
        // SAFETY: behind the control words.
        let bytes = unsafe { start.add(256) };
        // SAFETY: zeroed, aligned, large enough, and never freed.
        let place = unsafe { Place::new(start.cast(), bytes, CAPACITY) };
        let sender = Sender::new(place, START, START);
        sender.initialise();
        Rig { place, sender, receiver: Receiver::new(place, START) }
    }

    impl Rig {
        fn send(&mut self, bytes: &[u8]) {
            assert_eq!(self.sender.has_room(bytes.len()), Ok(true));
            self.sender.write(bytes, 0);
            self.sender.publish().unwrap();
        }

        fn tail(&self) -> &Line {
            &self.place.control().sender
        }
    }

    #[test]
    fn positions_wrap_and_records_split() {
        let mut rig = rig();
        let mut got = Vec::new();
        for n in 0..2_000u32 {
            let message = vec![n as u8; (n * 7 % 1_900) as usize];
            rig.send(&message);
            let front = rig.receiver.front().unwrap();
            assert_eq!(front, Front::Whole(message.len(), 0));
            got.clear();
            rig.receiver.take_into(front, &mut got);
            assert_eq!(got, message);
            if rig.receiver.has_to_publish() {
                rig.receiver.publish().unwrap();
            }
        }
        assert!(rig.sender.positions().0 < START, "the positions have not wrapped");
    }

    #[test]
    fn a_tail_that_cannot_be_is_refused() {
        for tail in [START - 8, START + CAPACITY + 8, START + 4, START.wrapping_add(1 << 63), 0] {
            let mut rig = rig();
            rig.tail().begin_at(tail);
            assert_eq!(rig.receiver.front(), Err(Broken), "{tail:#x}");
        }
    }

    #[test]
    fn a_tail_that_goes_back_is_refused() {
        let mut rig = rig();
        rig.send(b"12345678");
        let front = rig.receiver.front().unwrap();
        rig.receiver.take_into(front, &mut Vec::new());
        rig.tail().begin_at(START);
        assert_eq!(rig.receiver.front(), Err(Broken));
    }

    #[test]
    fn a_header_that_cannot_be_is_refused() {
        let headers = [
            9, // One more than was published, padded.
            CAPACITY,
            1 << 39,
            LENGTH,
            ABORT,        // Of nothing.
            ABORT | MORE, // As well.
            MORE,         // Without room for its total.
            MORE | 7,
        ];
        for header in headers {
            let mut rig = rig();
            rig.send(b"12345678");
            rig.place.header(START).store(header, Ordering::Relaxed);
            assert_eq!(rig.receiver.front(), Err(Broken), "{header:#x}");
        }
    }

    #[test]
    fn a_total_that_cannot_be_is_refused() {
        for total in [0, 8, MESSAGE_MAX as u64 + 1, 1 << 63, u64::MAX] {
            let mut rig = rig();
            rig.sender.write_first(total as usize, b"12345678", 0);
            rig.sender.publish().unwrap();
            assert_eq!(rig.receiver.front(), Err(Broken), "{total:#x}");
        }
    }

    #[test]
    fn parts_that_do_not_add_up_are_refused() {
        // Too much, too little at the end, nothing at all, and one that is not over.
        for (bytes, is_last) in [(24, true), (8, true), (0, false), (16, false), (4_000, false)] {
            let mut rig = rig();
            rig.sender.write_first(24, b"12345678", 0);
            rig.sender.publish().unwrap();
            let front = rig.receiver.front().unwrap();
            assert_eq!(front, Front::First(24, 0));
            let mut got = Vec::new();
            rig.receiver.take_into(front, &mut got);
            rig.sender.write_next(&vec![1; bytes], is_last);
            rig.sender.publish().unwrap();
            assert_eq!(rig.receiver.front(), Err(Broken), "{bytes} {is_last}");
        }
    }

    #[test]
    fn a_claim_of_a_gigabyte_takes_no_gigabyte() {
        let mut rig = rig();
        rig.sender.write_first(MESSAGE_MAX, b"12345678", 0);
        rig.sender.publish().unwrap();
        let front = rig.receiver.front().unwrap();
        let mut got = Vec::new();
        rig.receiver.take_into(front, &mut got);
        assert!(got.capacity() <= 8 << 20, "{}", got.capacity());
    }

    #[test]
    fn a_head_that_cannot_be_is_refused() {
        for head in [START - 8, START + 512, START + 4, 0] {
            let mut rig = rig();
            for _ in 0..3 {
                rig.send(&[1; 100]);
            }
            rig.place.control().receiver.begin_at(head);
            let most = CAPACITY as usize - 3 * 112 - 8;
            assert_eq!(rig.sender.has_room(most), Err(Broken), "{head:#x}");
        }
    }

    #[test]
    fn a_position_that_somebody_else_moved_is_noticed() {
        let mut rig = rig();
        rig.tail().begin_at(START + 8);
        rig.sender.write(b"1", 0);
        assert_eq!(rig.sender.publish(), Err(Broken));
        rig.place.control().receiver.begin_at(START + 8);
        assert_eq!(rig.receiver.publish(), Err(Broken));
    }
}
