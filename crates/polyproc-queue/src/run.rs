//! Batches of plain messages, all of which have one length: put and got as runs, where no message has a
//! header of its own.

use crate::biased::{Inside, Side};
use crate::fast::Place;
use crate::layout::{HEADER, OPEN};
use crate::producer::Room;
use crate::raw::RawQueue;
use crate::record::Record;
use crate::ring::{segment_size, word};
use core::marker::PhantomData;
use core::ptr::NonNull;
use polyproc_sys::atomic::Ordering;

/// Leaves, also if a codec panics.
struct Leave<'a>(Side<'a>, Inside<'a>);

impl Drop for Leave<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

impl RawQueue {
    /// Puts messages that all have as many bytes as a `T`, if the lock is granted to the calling thread, and
    /// all is as usual: all of them, or none. Returns how many.
    #[inline(always)]
    pub(crate) fn put_owned<T>(&self, messages: &[T], fill: impl Fn(&T, Place)) -> usize {
        let Some(inside) = self.producing().enter() else { return 0 };
        let leave = Leave(self.producing(), inside);
        let header = self.header();
        if header.news.looks_occupied() || self.is_closed() || size_of::<T>() > self.largest {
            return 0;
        }
        let (tail, number) = header.put.0.get();
        let bytes = bytes_of::<T>(messages.len());
        let has_room = |room: &Room| room.most == messages.len() && room.bytes >= bytes;
        let mut room = self.room(tail, number, messages.len());
        if !has_room(&room) {
            self.look_for_room();
            room = self.room(tail, number, messages.len());
            if !has_room(&room) {
                // With the mutex, as many are put as there can be room for: what is put before that would be
                // apart from them.
                return 0;
            }
        }
        // SAFETY: the lock is held, and nothing was written since.
        let (count, bytes) = unsafe { room.write(messages, fill) };
        if count != 0 {
            header.put.0.set(tail.wrapping_add(bytes), number.wrapping_add(count as u64));
        }
        drop(leave);
        count
    }

    /// As the only producer: looks how far the consumers have come.
    #[inline(always)]
    fn look_for_room(&self) {
        let header = self.header();
        // Acquire: pairs with the Release of the consumers, who do not touch what they have freed any more.
        let free = header.taken.0.free.load(Ordering::Acquire);
        header.producers.free_seen.store(free, Ordering::Relaxed);
        if self.most != 0 {
            header.producers.taken_seen.store(header.taken.0.mark.number(), Ordering::Relaxed);
        }
    }

    /// Gets messages of as many bytes as a `T`, at most so many, if the lock is granted to the calling
    /// thread, and as long as all is as usual: `take` takes them. Returns how many, and whether more is known
    /// to be there.
    #[inline(always)]
    pub(crate) fn get_owned<T>(&self, most: usize, mut take: impl FnMut(Run<'_, T>)) -> (usize, bool) {
        let Some(inside) = self.consuming().enter() else { return (0, false) };
        let leave = Leave(self.consuming(), inside);
        let header = self.header();
        let consumers = &header.consumers;
        if header.room.looks_occupied() || consumers.claims.load(Ordering::Relaxed) != 0 {
            return (0, false);
        }
        let taken = &header.taken.0;
        let (mut next, number, mut rest) = taken.get();
        let mut tail = consumers.tail_seen.load(Ordering::Relaxed);
        let mut count = 0;
        let mut looked = tail == next;
        if looked {
            consumers.chase.pause();
            tail = self.look_for_news();
            consumers.chase.learn(tail.wrapping_sub(next), self.most);
        }
        loop {
            let more;
            // SAFETY: the lock is held, and nobody has claimed anything.
            (more, next, rest) = unsafe { self.take_runs((next, rest), tail, most - count, &mut take) };
            count += more;
            if looked || count == most || next != tail {
                break;
            }
            looked = true;
            tail = self.look_for_news();
        }
        if count == 0 {
            return (0, false);
        }
        taken.set(next, number.wrapping_add(count as u64), rest);
        // Release: pairs with the Acquire in `make_room`.
        taken.free.store(next, Ordering::Release);
        let is_last = tail == next && consumers.segment.load(Ordering::Relaxed) != 0;
        let shrink = is_last && self.is_time_to_shrink(next);
        drop(leave);
        if shrink {
            self.shrink();
        }
        (count, tail != next)
    }

    /// As the only consumer: looks how far the producers have come.
    #[inline(always)]
    fn look_for_news(&self) -> u64 {
        // Acquire: pairs with the Release of `publish`.
        let tail = self.header().put.0.position.load(Ordering::Acquire);
        self.header().consumers.tail_seen.store(tail, Ordering::Relaxed);
        tail
    }

    /// As the only consumer, who has come to this position and rest, and knows of messages up to `tail`:
    /// `take` takes those that come next, at most so many, as long as each has as many bytes as a `T`.
    /// Returns how many, and how far that is; nothing is committed.
    ///
    /// # Safety
    ///
    /// The caller holds the consumers' lock, and what it says is so.
    #[inline(always)]
    pub(crate) unsafe fn take_runs<T>(
        &self,
        (mut head, mut rest): (u64, Record),
        tail: u64,
        most: usize,
        mut take: impl FnMut(Run<'_, T>),
    ) -> (usize, u64, Record) {
        let index = self.header().consumers.segment.load(Ordering::Relaxed);
        let segment = self.header().segment(index);
        let offset = head.wrapping_sub(segment.base.load(Ordering::Relaxed)) & (segment_size(index) - 1);
        // So many bytes are there in one piece. One that is left behind, if a dead thread has left its plans
        // for an end, is taken by itself.
        let end = segment.end.load(Ordering::Relaxed);
        // One that has no end is no number to reckon with: where positions wrap, a run may lie across it.
        let end = if end == OPEN { tail } else { end };
        let there = tail.wrapping_sub(head).min(end.wrapping_sub(head));
        let mut there = there.min(segment_size(index) - offset);
        // SAFETY: within the segment, or at its end.
        let mut place = unsafe { self.at_offset(index, offset) };
        let mut count = 0;
        while count != most && there >= HEADER {
            let next = if rest == Record::NONE {
                // SAFETY: a word in the ring, aligned as all records are, and one begins here.
                Record(unsafe { word(place) }.load(Ordering::Relaxed))
            } else {
                rest
            };
            if next.is_padding() || next.length() != size_of::<T>() {
                break;
            }
            let wanted = most - count;
            let (way, run);
            if rest == Record::NONE && next.count() == 1 {
                // SAFETY: a record begins here, and so much is there.
                run = unsafe { Run::<T>::of_records(place, wanted.min((there / Run::<T>::NEED) as usize)) };
                way = Run::<T>::NEED * run.count as u64;
            } else {
                // SAFETY: the messages of a run begin behind its header.
                let first = unsafe { place.add(HEADER as usize) };
                let stride = Record::stride(size_of::<T>()) as usize;
                run = Run { first, stride, count: wanted.min(next.count()), messages: PhantomData };
                (way, rest) = next.after(run.count);
            }
            if run.count == 0 {
                break;
            }
            count += run.count;
            take(run);
            head = head.wrapping_add(way);
            there -= way;
            // SAFETY: within the segment, or at its end.
            place = unsafe { place.add(way as usize) };
        }
        (count, head, rest)
    }
}

/// As many bytes as so many messages take.
#[inline(always)]
fn bytes_of<T>(count: usize) -> u64 {
    // Any number of messages without bytes has room in a vector.
    let headers = count.div_ceil(Record::most(size_of::<T>())) as u64;
    HEADER.saturating_mul(headers).saturating_add(Record::stride(size_of::<T>()).saturating_mul(count as u64))
}

impl Room {
    /// Writes messages that all have as many bytes as a `T`, from the first on, as long as there is room.
    /// Returns how many, and how many bytes they take.
    ///
    /// # Safety
    ///
    /// The caller holds the producers' lock, and the room begins at its tail.
    #[inline(always)]
    pub(crate) unsafe fn write<T>(&self, messages: &[T], fill: impl Fn(&T, Place)) -> (usize, u64) {
        let (length, stride) = (size_of::<T>(), Record::stride(size_of::<T>()));
        let (mut done, mut bytes) = (0, 0);
        loop {
            let left = self.bytes - bytes;
            // One without bytes is its header.
            let fit = left.saturating_sub(HEADER).checked_div(stride).unwrap_or(left / HEADER);
            let count = Record::most(length).min(self.most - done).min(fit as usize);
            if count == 0 {
                return (done, bytes);
            }
            // SAFETY: there is room for so many; the rest is the caller's.
            let first = unsafe { self.begin(bytes, Record::messages(count, length)) };
            for (nth, message) in messages[done..].iter().take(count).enumerate() {
                // SAFETY: one of so many.
                let place = unsafe { first.add(nth * stride as usize) };
                // SAFETY: as above.
                fill(message, unsafe { Place::new(place, length) });
            }
            done += count;
            bytes += HEADER + stride * count as u64;
        }
    }
}

/// Messages of as many bytes as a `T`, one behind the other.
pub(crate) struct Run<'a, T> {
    first: NonNull<u8>,
    /// From one to the next.
    stride: usize,
    count: usize,
    messages: PhantomData<(&'a [u8], T)>,
}

impl<'a, T> Run<'a, T> {
    /// What a record of one takes.
    const NEED: u64 = HEADER + (size_of::<T>() as u64).next_multiple_of(HEADER);
    /// So many headers are looked at before it is asked what was found.
    const STEP: usize = 8;

    /// As many records of one message as there are, at most so many.
    ///
    /// # Safety
    ///
    /// The caller is the only consumer, a record begins at `start`, and so much is published as so many of
    /// them need.
    #[inline(always)]
    unsafe fn of_records(start: NonNull<u8>, most: usize) -> Run<'a, T> {
        let other = |nth: usize| {
            // SAFETY: within what is published.
            let record = unsafe { start.add(nth * Self::NEED as usize) };
            // SAFETY: a word in the ring, aligned as all records are. If those before it were as long as this
            // takes them to be, it is a header; if not, it is a part of a message, and is not relied on.
            let found = unsafe { word(record) }.load(Ordering::Relaxed);
            found ^ Record::message(size_of::<T>()).0
        };
        let mut count = 0;
        while count + Self::STEP <= most
            && (count..count + Self::STEP).fold(0, |any, nth| any | other(nth)) == 0
        {
            count += Self::STEP;
        }
        while count != most && other(count) == 0 {
            count += 1;
        }
        // SAFETY: behind the header, or at the end of what is published.
        let first = unsafe { start.add(HEADER as usize) };
        Run { first, stride: Self::NEED as usize, count, messages: PhantomData }
    }

    #[inline(always)]
    pub(crate) fn messages(self) -> impl Iterator<Item = &'a [u8]> {
        let Run { first, stride, count, .. } = self;
        (0..count).map(move |nth| {
            // SAFETY: one of so many.
            let place = unsafe { first.add(nth * stride) };
            // SAFETY: so many bytes were written there before it was published, and nobody writes them before
            // it is freed.
            unsafe { core::slice::from_raw_parts(place.as_ptr(), size_of::<T>()) }
        })
    }
}
