//! One ring: what lies in it, and what each side believes of the other.
//!
//! # The memory
//!
//! A line of control words for each side, and `capacity` bytes, a power of two. Positions are places in an
//! endless stream of which the ring shows the last `capacity` bytes.
//!
//! The stream consists of records: a header word, then the payload, padded to a multiple of 8. The word
//! behind the last record is zero. A record is published by its own header, so that what passes from one side
//! to the other is the line with the message and no other: there is no word that says how far the sender is.
//!
//! | header bits | |
//! |---|---|
//! | 0 to 15 | descriptors that come along, by the socket; in a run, where its last message ends: bytes from the header on |
//! | 17 | `FINAL`: nothing more comes, ever; the receiver stays there |
//! | 18 | `CLOSED`: no more messages come to the run |
//! | 19 | `GROWN`: the ring has twice the bytes from here on |
//! | 20 | `MORE`: the message goes on in the next record. The first of several begins with the total length |
//! | 21 | `ABORT`: forget what came so far of the message; the sender ran out of time |
//! | 22 | `RUN`: a run of short messages of one length |
//! | 23 | `WRITTEN`, always |
//! | 24 to 63 | length of the payload in bytes; in a run, of each message |
//!
//! # Runs
//!
//! A message of at most [`RUN_MOST`] bytes that is as long as the one before it begins a run. Later ones are
//! put behind it, each by one more store to the same header. The run is over when the line is full, or when
//! its header says so, because something else follows; the next record is at the beginning of the next line
//! either way. A sender begins one in the middle of a line for that alone: it says at once that no more
//! comes. To a receiver a run is as good anywhere.
//!
//! # The steps, and where one can die
//!
//! A sender writes the payload behind the last record, and zero behind that, and then publishes the record
//! with one store to its header; or it writes the payload behind a run, and publishes it with one store to
//! the run's header. Killed before, it has sent nothing; after, the message is there. A message in several
//! records counts with its last one; a sender that dies before that leaves a torso, which its receiver never
//! shows to anybody. A receiver copies a record out, moves its own position, and publishes `head` when a
//! quarter of the ring has come together, or less and the sender is awake, when it goes to sleep, and when an
//! end is given away: so a line that the other side works with changes hands rarely. The sender therefore
//! relies on three quarters of the ring, and waits for no more room than [`Sender::most`].
//!
//! A stream of short messages of one length goes from line to line. The sender begins a run as it began the
//! one before, without a look at anything but what it keeps in private ([`open_line`](Sender::open_line)):
//! whether there is room, and somebody to receive, it asks for many lines at once
//! ([`allows_lines`](Sender::allows_lines)). The receiver compares the header of a full line with the one
//! before ([`begin_line`](Receiver::begin_line)); a full run of which all is taken stays in front until it
//! looks for something else. Both fetch the lines that they will need soon: the sender some lines that it
//! knows to be free, to be its own by then; the receiver a line behind one that it found full, which the
//! sender is likely to have left. A hint that is wrong costs time and nothing else, and is for an address in
//! private geometry. A receiver publishes what it has taken so when it looks for the next record that is not
//! ready, so that a quarter of the ring and two lines, or a record of 256 bytes, may be free unsaid.
//!
//! Longer messages of one length follow one another in the same way, each in a record of its own
//! ([`follow`](Sender::follow)): the sender asks for many at once
//! ([`allows_records`](Sender::allows_records)), and the receiver compares the header with the one before
//! ([`begin_record`](Receiver::begin_record)).
//!
//! A stream of records has another trap. A receiver that is faster than the sender and right behind it takes
//! each line while it is being written; the sender takes it back; and both then go at the pace of lines that
//! cross, several times for each message, without the receiver ever finding nothing. So a sender in a stream
//! fetches the lines ahead of it ([`fetch_ahead`](Sender::fetch_ahead)), and needs fewer of the places in
//! which a CPU keeps what it has yet to store, which else fill up with two messages that wait for a line; a
//! receiver fetches ahead once it has come as far without a wait, and so reaches the end; and there it leaves
//! the sender alone, for longer the more had come. Where lines cross slowly, a stream of 64 bytes took 78 ns
//! a message without any of this, 72 without what the receiver fetches, 44 without the longer pauses, and 24
//! with all.
//!
//! Without the zero, the word behind a record would be whatever was there when the ring came round the last
//! time: bytes of a message, that may look like a header.
//!
//! # Long messages
//!
//! What does not fit into half of the ring goes in parts. Each is published when it is written, so that both
//! sides work at the same time; but then the receiver is right behind the sender, takes each line out of the
//! cache of the sender's CPU, where it was just changed, and the sender takes back the lines that the
//! receiver has just read. Half a mebibyte apart, they are in neither CPU's own cache any more: where that
//! has 512 KiB, a mebibyte passes in four fifths of the time. So where the receiver is behind already when
//! such a message begins, in a ring of 1 MiB, the sender [holds back](sender::HELD) the headers of up to
//! seven parts. The first of them is zero, so nobody sees those behind it, whatever they are. It lets them go
//! one by one as it writes others; one for two that it writes, where it finds that the receiver waits for
//! one; all of them when the receiver sleeps, before it waits itself, and at the end of the message. So a
//! receiver waits for a part no longer than it takes to write two. To a receiver that is not behind, each
//! part goes at once: a single message arrives as soon as it can.
//!
//! Killed with parts held back, a sender leaves a torso as otherwise.
//!
//! Who sleeps and who wakes: see [`line`](crate::line). Both can be asleep only if the ring is empty and
//! nobody has to say anything: a receiver publishes `head` before it sleeps.
//!
//! # Growth
//!
//! A ring may have addresses for more bytes than it uses. A sender that found no room, or a receiver that is
//! behind with a message in parts in front of it, has memory put behind as many more, and says `GROWN`, in a
//! record of its own. That changes no place of what is in the ring only if all of it lies in one lap, and
//! that lap is an even one: position `p` is at `p % capacity`, and `p % capacity == p % (2 * capacity)`
//! there. So the sender waits for such a moment. The receiver has memory put there too, which costs little
//! where there is some, rather than believe it.
//!
//! # The trust
//!
//! None. Each side keeps its own position in private memory and only ever writes it to the ring. What it
//! reads there is copied out first and then compared with what can be: a `head` further than the sender is,
//! or one that moves backwards; a record longer than there is room for after what this side has published; a
//! run that leaves its line, or has fewer messages than it had; a message longer than [`MESSAGE_MAX`]; growth
//! beyond what there are addresses for. Each of these is [`Broken`], for good. So is another value of one's
//! own position than the one that was written: a peer has scribbled, or another process uses this end. A
//! sender's position is in the memory for that alone, and is compared before each record is written, not
//! before each message of a run: what another one has sent there is not overwritten. It does not look at its
//! records instead: that would have the line cross once more, which the receiver polls.

mod receiver;
mod run;
mod sender;
#[cfg(test)]
mod tests;

pub(crate) use crate::line::Broken;
pub(crate) use receiver::{BUFFER, Front, News, Ready, Receiver, TRUSTED};
pub(crate) use run::{Kind, Run};
pub(crate) use sender::Sender;

use crate::copy;
use crate::line::Line;
use core::ptr::NonNull;
use polyproc_sys::atomic::AtomicU64;

/// The longest message: 1 GiB.
pub(crate) const MESSAGE_MAX: usize = 1 << 30;
/// The most descriptors with a message.
pub(crate) const DESCRIPTORS_MAX: usize = 0xffff;
/// In a run: where its last message ends.
const END: u64 = 0xffff;
pub(crate) const FINAL: u64 = 1 << 17;
pub(crate) const CLOSED: u64 = 1 << 18;
pub(crate) const GROWN: u64 = 1 << 19;
const MORE: u64 = 1 << 20;
const ABORT: u64 = 1 << 21;
pub(crate) const RUN: u64 = 1 << 22;
pub(crate) const WRITTEN: u64 = 1 << 23;
/// These bits say what kind of record it is.
const KIND: u64 = 0xff << 16;
pub(crate) const LENGTH_SHIFT: u32 = 24;
const HEADER: u64 = 8;
const LINE: u64 = 64;
/// The longest message in a run.
pub(crate) const RUN_MOST: usize = 24;

/// The control words of a ring.
#[repr(C)]
pub(crate) struct Control {
    sender: Line,
    receiver: Line,
}

impl Control {
    /// How far the sender is, as it says itself.
    pub(crate) fn sent(&self) -> u64 {
        self.sender.position()
    }
}

const _: () = assert!(size_of::<Control>() == 256 && align_of::<Control>() == 128);

/// A place in a ring at which a word begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spot(NonNull<u8>);

// SAFETY: all access is by atomics or by `copy`, which any thread may do.
unsafe impl Send for Spot {}

impl Spot {
    const NOWHERE: Spot = Spot(NonNull::<u64>::dangling().cast());

    /// # Safety
    ///
    /// Still in the same cache line of the ring, or at its end; a multiple of 8.
    #[inline(always)]
    unsafe fn add(self, bytes: u64) -> Spot {
        // SAFETY: the ring consists of whole lines.
        Spot(unsafe { self.0.add(bytes as usize) })
    }

    /// # Safety
    ///
    /// In the ring, which is mapped.
    #[inline(always)]
    unsafe fn header<'a>(self) -> &'a AtomicU64 {
        // SAFETY: a whole word is there.
        unsafe { self.0.cast::<AtomicU64>().as_ref() }
    }
}

/// Where a ring lies, in mapped memory that outlives whoever has this.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    control: NonNull<Control>,
    bytes: NonNull<u8>,
    capacity: u64,
    /// So many it may have.
    most: u64,
}

// SAFETY: all access is by atomics or by `copy`, which any thread may do.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    /// # Safety
    ///
    /// Control words and `most` bytes are mapped there, aligned to a line, as long as the place or a copy of
    /// it is used; `capacity` of them are memory. Both are powers of two and at least 4096, and the first is
    /// not the smaller one.
    pub(crate) unsafe fn new(
        control: NonNull<Control>,
        bytes: NonNull<u8>,
        capacity: u64,
        most: u64,
    ) -> Place {
        debug_assert!(capacity.is_power_of_two() && most.is_power_of_two() && capacity <= most);
        Place { control, bytes, capacity, most }
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
    fn spot(&self, position: u64) -> Spot {
        Spot(self.at(position))
    }

    /// How many bytes are between there and the end of the ring.
    #[inline(always)]
    fn room_behind(&self, position: u64) -> usize {
        (self.capacity - (position & (self.capacity - 1))) as usize
    }

    #[inline(always)]
    fn write(&self, position: u64, bytes: &[u8]) {
        let room = self.room_behind(position);
        if bytes.len() <= room {
            // SAFETY: up to the end of the ring, which is a multiple of 8.
            unsafe { copy::to_shared(bytes, self.at(position)) };
        } else {
            self.write_around(position, bytes.split_at(room));
        }
    }

    #[cold]
    fn write_around(&self, position: u64, (first, second): (&[u8], &[u8])) {
        // SAFETY: up to the end of the ring, which is a multiple of 8.
        unsafe { copy::to_shared(first, self.at(position)) };
        // SAFETY: no more than the capacity, from the beginning.
        unsafe { copy::to_shared(second, self.bytes) };
    }

    /// Copies `length` bytes, at most the capacity, to `to`.
    ///
    /// # Safety
    ///
    /// There is room for them.
    #[inline(always)]
    unsafe fn read(&self, position: u64, to: *mut u8, length: usize) {
        let room = self.room_behind(position);
        if length <= room {
            // SAFETY: up to the end of the ring; the caller's room.
            unsafe { copy::from_shared(self.at(position), to, length) };
        } else {
            // SAFETY: the caller's.
            unsafe { self.read_around(position, to, room, length - room) };
        }
    }

    /// # Safety
    ///
    /// There is room for both at `to`: the first up to the end of the ring, the second from its beginning.
    #[cold]
    unsafe fn read_around(&self, position: u64, to: *mut u8, first: usize, second: usize) {
        // SAFETY: up to the end of the ring, which is a multiple of 8; the caller's room.
        unsafe { copy::from_shared(self.at(position), to, first) };
        // SAFETY: within the caller's room.
        let rest = unsafe { to.add(first) };
        // SAFETY: no more than the capacity, from the beginning.
        unsafe { copy::from_shared(self.bytes, rest, second) };
    }

    /// Whether nothing changes its place between these positions, in this order, if the capacity doubles.
    fn is_in_one_even_lap(&self, from: u64, to: u64) -> bool {
        from / self.capacity == to / self.capacity && (to / self.capacity).is_multiple_of(2)
    }

    /// How many bytes it uses, and how many it may use.
    pub(crate) fn capacities(&self) -> (u64, u64) {
        (self.capacity, self.most)
    }
}

/// The length that a header says.
#[inline(always)]
fn length(header: u64) -> u64 {
    header >> LENGTH_SHIFT
}

/// How many descriptors the header of a record says.
#[inline(always)]
fn descriptors(header: u64) -> usize {
    usize::from(header as u16)
}

#[inline(always)]
fn padded(length: u64) -> u64 {
    (length + 7) & !7
}

/// Where the cache line ends that this position lies in.
#[inline(always)]
fn line_end(position: u64) -> u64 {
    (position & !(LINE - 1)).wrapping_add(LINE)
}

/// How many messages of this length a run has room for that begins there.
#[inline(always)]
fn slots(position: u64, length: u64) -> u64 {
    let words = (LINE - (position & (LINE - 1)) - HEADER) / 8;
    // Without a division, which would take as long as all the rest.
    match length {
        0..=8 => words,
        9..=16 => words / 2,
        17..=24 => words / 3,
        _ => 0,
    }
}

/// Positions begin here, so that the tests see them wrap. A multiple of every capacity, and of twice that.
pub(crate) const START: u64 = u64::MAX - ((1 << 21) - 1);
