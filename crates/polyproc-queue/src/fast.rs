//! The usual case of a put and a get: the lock is the caller's or free, nobody sleeps, there is room or a
//! message, and it lies in one piece.
//!
//! The same steps as in [`ring`](crate::ring), without anything that is not needed for them. Whatever is not
//! usual is left to it, with the mutex held: an [owner](crate::biased) leaves before.

use crate::biased::Inside;
use crate::error::{GetRefusal, PutRefusal};
use crate::layout::HEADER;
use crate::producer::Producer;
use crate::raw::RawQueue;
use crate::record::Record;
use crate::ring::{is_before, segment_size, word};
use core::ptr::NonNull;
use polyproc_mutex::Refusal;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::copy::copy_away;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::prefetch::prefetch_write;

impl RawQueue {
    /// Puts one message.
    #[inline(always)]
    pub(crate) fn put(&self, message: &[u8], deadline: Deadline) -> Result<(), PutRefusal> {
        let side = self.producing();
        let Some(inside) = side.enter() else { return self.put_locked(message, deadline) };
        let put = self.put_usual(message, self.header().news.looks_occupied());
        side.leave(inside);
        if put { Ok(()) } else { self.put_later(message, deadline, Refusal::TimedOut) }
    }

    /// The same by one to whom the lock is not granted.
    #[inline(never)]
    fn put_locked(&self, message: &[u8], deadline: Deadline) -> Result<(), PutRefusal> {
        let side = self.producing();
        // SAFETY: unlocked below, or by the `Producer`; the queue keeps it mapped.
        if let Err(refusal) = unsafe { side.lock_until(Deadline::PAST) } {
            return self.put_later(message, deadline, refusal);
        }
        let news = &self.header().news;
        let mut herald = if news.is_occupied() { Some(news.raise()) } else { None };
        if self.put_usual(message, false) {
            if let Some(herald) = &mut herald {
                herald.announce();
            }
            // SAFETY: locked above.
            unsafe { side.unlock() };
            if let Some(herald) = herald {
                herald.wake(1);
            }
            return Ok(());
        }
        // SAFETY: locked above, and left to it.
        self.put_otherwise(message, deadline, unsafe { Producer::with(self, herald) })
    }

    /// As the only producer. `false`, and nothing was done, if anything is not as usual.
    #[inline(always)]
    fn put_usual(&self, message: &[u8], asleep: bool) -> bool {
        let header = self.header();
        let producers = &header.producers;
        let length = message.len();
        let need = HEADER + Record::stride(length);
        let (tail, number) = header.put.0.get();
        let index = producers.segment.load(Ordering::Relaxed);
        let segment = header.segment(index);
        let base = segment.base.load(Ordering::Relaxed);
        let size = segment_size(index);
        let offset = tail.wrapping_sub(base) & (size - 1);
        let free = producers.free_seen.load(Ordering::Relaxed);
        let from = if is_before(free, base) { base } else { free };
        let used = tail.wrapping_sub(from);
        let usual = !asleep
            && !self.is_closed()
            && length <= self.largest
            && offset + need <= segment.backed.load(Ordering::Relaxed)
            && used + need <= size
            && tail.wrapping_sub(free) + need <= self.max_bytes
            && (self.most == 0
                || number.wrapping_sub(producers.taken_seen.load(Ordering::Relaxed)) < self.most);
        if !usual {
            return false;
        }
        // SAFETY: within the segment, which is memory up to here, and between the tail and the consumers.
        let record = unsafe { self.at_offset(index, offset) };
        if length <= SMALL && used + need + AHEAD <= size {
            // The next ones are put there; at the end of the segment, nothing is. One line for each that is
            // begun: a header more and there is one to wait for now and then.
            for byte in (0..length.max(1)).step_by(LINE) {
                prefetch_write(record.as_ptr().wrapping_add(AHEAD as usize + byte));
            }
        }
        // SAFETY: a word in the ring, aligned as all records are.
        unsafe { word(record) }.store(Record::message(length).0, Ordering::Relaxed);
        // SAFETY: the record's room reaches beyond its header.
        let place = unsafe { record.add(HEADER as usize) };
        // SAFETY: the place has room for the message, and is the caller's alone as long as it is the only
        // producer.
        unsafe { write(message, place) };
        header.put.0.set(tail.wrapping_add(need), number.wrapping_add(1));
        true
    }

    /// Becomes the one who gets, with the message that comes next, if the lock is granted to the calling
    /// thread, and all is as usual.
    #[inline(always)]
    pub(crate) fn owned_front(&self) -> Option<Result<Usual<'_>, Unusual>> {
        let inside = self.consuming().enter()?;
        Some(match self.usual_front(self.header().room.looks_occupied(), Some(inside)) {
            Some(front) => Ok(front),
            None => {
                self.consuming().leave(inside);
                Err(Unusual::Refused(Refusal::TimedOut))
            }
        })
    }

    /// The same if it is not.
    #[inline(always)]
    pub(crate) fn locked_front(&self) -> Result<Usual<'_>, Unusual> {
        // SAFETY: `take_usual` unlocks it, or the `Consumer` of who is told that it is locked; the queue
        // keeps it mapped.
        if let Err(refusal) = unsafe { self.consuming().lock_until(Deadline::PAST) } {
            return Err(Unusual::Refused(refusal));
        }
        self.usual_front(self.header().room.is_occupied(), None).ok_or(Unusual::Locked)
    }

    /// Gets a message, waiting for it as long as it takes, by one to whom the lock is not granted.
    #[inline(never)]
    pub(crate) fn get_locked<R>(&self, copy: impl FnOnce(&[u8]) -> R) -> Result<R, GetRefusal> {
        match self.locked_front() {
            Ok(front) => Ok(self.take_usual(front, copy)),
            Err(unusual) => self.take_otherwise(Deadline::NEVER, unusual, copy),
        }
    }

    /// As the only consumer: the message that comes next, if all is as usual.
    #[inline(always)]
    fn usual_front<'a>(&'a self, asleep: bool, inside: Option<Inside<'a>>) -> Option<Usual<'a>> {
        let header = self.header();
        let consumers = &header.consumers;
        let (head, number, rest) = header.taken.0.get();
        let mut tail = consumers.tail_seen.load(Ordering::Relaxed);
        if tail == head {
            consumers.chase.pause();
            // Acquire: pairs with the Release of `publish`.
            tail = header.put.0.position.load(Ordering::Acquire);
            consumers.tail_seen.store(tail, Ordering::Relaxed);
            consumers.chase.learn(tail.wrapping_sub(head), self.most);
        }
        let index = consumers.segment.load(Ordering::Relaxed);
        let segment = header.segment(index);
        let usual = tail != head
            && !asleep
            && consumers.claims.load(Ordering::Relaxed) == 0
            && segment.end.load(Ordering::Relaxed) != head;
        if !usual {
            return None;
        }
        let offset = head.wrapping_sub(segment.base.load(Ordering::Relaxed)) & (segment_size(index) - 1);
        // SAFETY: a record begins here, and the segment is memory at least up to the end of it.
        let record = unsafe { self.at_offset(index, offset) };
        // SAFETY: a word in the ring, aligned as all records are.
        let record_header = Record(unsafe { word(record) }.load(Ordering::Relaxed));
        let next = if rest == Record::NONE { record_header } else { rest };
        if next.is_padding() {
            return None;
        }
        let length = next.length();
        let (way, rest) = next.after(1);
        // SAFETY: the record reaches beyond its header.
        let place = unsafe { record.add(HEADER as usize) };
        let next = head.wrapping_add(way);
        let is_last = tail == next && index != 0;
        Some(Usual { inside, place, length, next, number: number.wrapping_add(1), rest, is_last })
    }

    /// Gets the message in front, which `copy` copies out of its place, and releases the lock.
    #[inline(always)]
    pub(crate) fn take_usual<R>(&self, front: Usual<'_>, copy: impl FnOnce(&[u8]) -> R) -> R {
        let unlock = Unlock(self, front.inside);
        // SAFETY: so many bytes were written there before the message was published, and nobody writes them
        // before it is freed.
        let copied = copy(unsafe { core::slice::from_raw_parts(front.place.as_ptr(), front.length) });
        core::mem::forget(unlock);
        let taken = &self.header().taken.0;
        taken.set(front.next, front.number, front.rest);
        // Release: pairs with the Acquire in `make_room`.
        taken.free.store(front.next, Ordering::Release);
        let shrink = front.is_last && self.is_time_to_shrink(front.next);
        match front.inside {
            Some(inside) => self.consuming().leave(inside),
            // SAFETY: locked by `usual_front`.
            None => unsafe { self.consuming().unlock() },
        }
        if shrink {
            self.shrink();
        }
        copied
    }

    /// Back to the smallest segment, if nobody has anything to do with the others meanwhile.
    #[cold]
    #[inline(never)]
    pub(crate) fn shrink(&self) {
        if let Ok(mut consumer) = self.consume(Deadline::PAST) {
            consumer.shrink_if_drained();
        }
    }
}

/// The message in front, with the consumers' lock held. A handful of numbers: something that is dropped would
/// be moved about in memory.
pub(crate) struct Usual<'a> {
    /// `None` if it is the mutex that is held.
    inside: Option<Inside<'a>>,
    place: NonNull<u8>,
    length: usize,
    /// The position behind it, the number of messages up to there, and the rest.
    next: u64,
    number: u64,
    rest: Record,
    /// There is none behind it, and the segment is not the smallest.
    is_last: bool,
}

/// Why it is not as usual.
pub(crate) enum Unusual {
    /// The lock was not free.
    Refused(Refusal),
    /// It is held, and there is no message, or one that needs more than a copy.
    Locked,
}

/// Unlocks if a codec panics in the middle of a copy. The message is still there.
struct Unlock<'a>(&'a RawQueue, Option<Inside<'a>>);

impl Drop for Unlock<'_> {
    #[cold]
    fn drop(&mut self) {
        match self.1 {
            Some(inside) => self.0.consuming().leave(inside),
            // SAFETY: locked by `usual_front`, by this thread, a moment ago.
            None => unsafe { self.0.consuming().unlock() },
        }
    }
}

/// Room for one message of a known length.
pub(crate) struct Place {
    place: NonNull<u8>,
    length: usize,
}

impl Place {
    /// # Safety
    ///
    /// The place is the caller's alone as long as the `Place` lives, has room for so many bytes, and is
    /// aligned to words.
    #[inline(always)]
    pub(crate) unsafe fn new(place: NonNull<u8>, length: usize) -> Place {
        Place { place, length }
    }

    /// Writes the message to it.
    #[inline(always)]
    pub(crate) fn fill(&mut self, message: &[u8]) {
        assert_eq!(message.len(), self.length, "a codec says that it is plain, and is not");
        // SAFETY: the place is the caller's and has room, see `new`.
        unsafe { write(message, self.place) };
    }
}

/// Messages up to this size are copied word by word.
const SMALL: usize = 256;

/// So far ahead of a put, the lines are fetched that the next ones will be written to: those that the other
/// side has read are far away, and stores, which become visible one after the other, would wait for one line
/// after the other.
const AHEAD: u64 = 512;
/// A cache line.
const LINE: usize = 64;

/// Eight bytes anywhere.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Word(u64);

/// Copies a message to its place.
///
/// A small one word by word. Mostly it was written a moment ago, in pieces: a wider load that needs two of
/// those stores waits until both have left the processor's store buffer, and so for all stores before them;
/// among those is the last message, in lines that the other side has just read. On one thread, a put took 14
/// ns with it and 8 without.
///
/// # Safety
///
/// The place is the caller's alone, has room for it, and is aligned to words.
#[inline(always)]
pub(crate) unsafe fn write(message: &[u8], place: NonNull<u8>) {
    let (from, to, length) = (message.as_ptr(), place.as_ptr(), message.len());
    if length > SMALL {
        // SAFETY: the caller's; a message that is put lies in private memory.
        return unsafe { copy_away(from, to, length) };
    }
    let mut done = 0;
    while done + size_of::<Word>() <= length {
        // SAFETY: so many bytes of the message are left.
        let word = unsafe { from.add(done) }.cast::<Word>();
        // SAFETY: as above, and a `Word` needs no alignment. Volatile, so that the compiler makes nothing
        // wider of it.
        let word = unsafe { word.read_volatile() };
        // SAFETY: the caller's.
        let place = unsafe { to.add(done) }.cast::<Word>();
        // SAFETY: the caller's.
        unsafe { place.write(word) };
        done += size_of::<Word>();
    }
    // SAFETY: within the message, or at its end.
    let from = unsafe { from.add(done) };
    // SAFETY: the caller's.
    let to = unsafe { to.add(done) };
    // SAFETY: the caller's; a message that is put lies in private memory.
    unsafe { core::ptr::copy_nonoverlapping(from, to, length - done) };
}
