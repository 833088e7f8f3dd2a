//! [`Producer`]: the holder of the producers' lock, at work. The table of what counts is in
//! [`ring`](crate::ring).

use crate::fast::Place;
use crate::layout::{HEADER, Header, OPEN, SMALLEST};
use crate::raw::RawQueue;
use crate::record::Record;
use crate::ring::{is_before, segment_offset, segment_size, word};
use crate::waitroom::Herald;
use core::ptr::NonNull;
use polyproc_sys::atomic::Ordering;
use std::io;

/// If fewer messages came since it shrank, it shrank in vain; and then it has to be drained as often before
/// it does again.
const FEW: u64 = 1024;

/// Why there is no place for a message.
#[derive(Debug)]
pub(crate) enum NoRoom {
    /// For now.
    Full,
    /// For ever: so many bytes are the most.
    TooLarge(usize),
    /// The system has no memory.
    OutOfMemory(io::Error),
}

/// The holder of the producers' lock, at work. Dropped, it unlocks; what was not published never was.
pub(crate) struct Producer<'a> {
    queue: &'a RawQueue,
    header: &'a Header,
    /// Behind the last record.
    tail: u64,
    /// How many messages there are up to it.
    number: u64,
    /// How many of them are not published.
    fresh: u32,
    /// Raised, if somebody sleeps.
    herald: Option<Herald<'a>>,
    /// So many are to be woken when the lock is released.
    due: u32,
}

impl<'a> Producer<'a> {
    /// # Safety
    ///
    /// The calling thread has just taken the producers' lock, and leaves it to the `Producer` to release it.
    #[inline(always)]
    pub(crate) unsafe fn new(queue: &'a RawQueue) -> Producer<'a> {
        let news = &queue.header().news;
        let herald = if news.is_occupied() { Some(news.raise()) } else { None };
        // SAFETY: the caller's.
        unsafe { Producer::with(queue, herald) }
    }

    /// The same, with a herald raised if somebody sleeps.
    ///
    /// # Safety
    ///
    /// As for [`new`](Producer::new).
    #[inline(always)]
    pub(crate) unsafe fn with(queue: &'a RawQueue, herald: Option<Herald<'a>>) -> Producer<'a> {
        let header = queue.header();
        let (tail, number) = header.put.0.get();
        Producer { queue, header, tail, number, fresh: 0, herald, due: 0 }
    }

    /// A place for a message of this length, not yet a part of the queue.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, length: usize) -> Result<NonNull<u8>, NoRoom> {
        if length > self.queue.largest {
            return Err(NoRoom::TooLarge(self.queue.largest));
        }
        let need = HEADER + Record::stride(length);
        let producers = &self.header.producers;
        let index = producers.segment.load(Ordering::Relaxed);
        let segment = self.header.segment(index);
        let base = segment.base.load(Ordering::Relaxed);
        let size = segment_size(index);
        let offset = self.tail.wrapping_sub(base) & (size - 1);
        let free = producers.free_seen.load(Ordering::Relaxed);
        // What is in use of this segment: from where the consumers are, or from its beginning.
        let from = if is_before(free, base) { base } else { free };
        let used = self.tail.wrapping_sub(from);
        let fits = offset + need <= segment.backed.load(Ordering::Relaxed)
            && used + need <= size
            && self.tail.wrapping_sub(free) + need <= self.queue.max_bytes
            && (self.queue.most == 0
                || self.number.wrapping_sub(producers.taken_seen.load(Ordering::Relaxed)) < self.queue.most);
        if !fits {
            return self.make_room(length);
        }
        Ok(self.write_header(index, offset, length))
    }

    #[inline(always)]
    fn write_header(&mut self, index: u32, offset: u64, length: usize) -> NonNull<u8> {
        // SAFETY: within the segment, which is memory up to here, and between the tail and the consumers.
        let record = unsafe { self.queue.at_offset(index, offset) };
        // SAFETY: a word in the ring, aligned as all records are.
        unsafe { word(record) }.store(Record::message(length).0, Ordering::Relaxed);
        // SAFETY: the record's room was checked to reach beyond its header.
        unsafe { record.add(HEADER as usize) }
    }

    /// It does not simply fit.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, length: usize) -> Result<NonNull<u8>, NoRoom> {
        let need = HEADER + Record::stride(length);
        let producers = &self.header.producers;
        // Acquire: pairs with the Release of the consumers, who do not touch what they have freed any more.
        let free = self.header.taken.0.free.load(Ordering::Acquire);
        producers.free_seen.store(free, Ordering::Relaxed);
        if self.queue.most != 0 {
            let taken = self.header.taken.0.mark.number();
            producers.taken_seen.store(taken, Ordering::Relaxed);
            if self.number.wrapping_sub(taken) >= self.queue.most {
                return Err(NoRoom::Full);
            }
        }
        let in_use = self.tail.wrapping_sub(free);
        // One message may always be as large as the queue.
        if in_use != 0 && in_use + need > self.queue.max_bytes {
            return Err(NoRoom::Full);
        }
        let index = producers.segment.load(Ordering::Relaxed);
        let segment = self.header.segment(index);
        let size = segment_size(index);
        if in_use == 0 && need <= size {
            // Nothing is in it: it begins anew, here.
            segment.base.store(self.tail, Ordering::Relaxed);
        }
        let base = segment.base.load(Ordering::Relaxed);
        let offset = self.tail.wrapping_sub(base) & (size - 1);
        let padding = if offset + need > size { size - offset } else { 0 };
        let from = if is_before(free, base) { base } else { free };
        if self.tail.wrapping_sub(from) + padding + need <= size {
            if padding != 0 {
                self.back(index, offset + HEADER)?;
                // SAFETY: within the segment, which is memory up to here, and between the tail and the
                // consumers.
                let record = unsafe { self.queue.at_offset(index, offset) };
                // SAFETY: a word in the ring, aligned as all records are.
                unsafe { word(record) }.store(Record::padding(padding - HEADER).0, Ordering::Relaxed);
                self.back(index, need)?;
                self.tail = self.tail.wrapping_add(padding);
                return Ok(self.write_header(index, 0, length));
            }
            self.back(index, offset + need)?;
            return Ok(self.write_header(index, offset, length));
        }
        let next = self.next_segment(index, need).ok_or(NoRoom::Full)?;
        self.back(next, need)?;
        // The new segment begins where the queue ends for everybody.
        self.publish();
        self.enter_segment(index, next);
        Ok(self.write_header(next, 0, length))
    }

    /// Sees to it that the segment is memory up to there.
    fn back(&self, index: u32, up_to: u64) -> Result<(), NoRoom> {
        let segment = self.header.segment(index);
        let backed = segment.backed.load(Ordering::Relaxed);
        if up_to <= backed {
            return Ok(());
        }
        // In steps, so that a large segment does not take all its memory for one message.
        let size = segment_size(index);
        let step = (size / 16).max(SMALLEST);
        let target = up_to.next_multiple_of(step).min(size);
        self.queue.allocate(segment_offset(index) + backed, target - backed).map_err(NoRoom::OutOfMemory)?;
        segment.backed.store(target, Ordering::Relaxed);
        Ok(())
    }

    /// A larger segment that nobody uses. Those in use are smaller, but for the one that consumers read, if
    /// one has died on the way from there to the smallest.
    fn next_segment(&self, index: u32, need: u64) -> Option<u32> {
        // Acquire: pairs with the Release of `leave_segment` and `shrink`, which have given back its memory
        // before.
        let left = self.header.consumers.segment.load(Ordering::Acquire);
        (index + 1..self.queue.segments).find(|next| segment_size(*next) >= need && *next != left)
    }

    /// Goes on in another segment, with everything published that is in this one.
    fn enter_segment(&mut self, from: u32, to: u32) {
        let next = self.header.segment(to);
        next.base.store(self.tail, Ordering::Relaxed);
        next.end.store(OPEN, Ordering::Relaxed);
        let old = self.header.segment(from);
        old.next.store(to, Ordering::Relaxed);
        old.end.store(self.tail, Ordering::Relaxed);
        if from == 0 {
            self.note_growth();
        }
        // Release: consumers that see a message in the new segment see the words above; for them the position
        // counts, and for the next producer this word.
        self.header.producers.segment.store(to, Ordering::Release);
    }

    /// It leaves the smallest segment. If that is soon after it shrank, and after few messages, it shrank in
    /// vain: next time it waits longer. Memory that is given back and got again takes as long as thirty
    /// copies to it: 3 ms for 4 MiB.
    fn note_growth(&self) {
        let settings = &self.header.settings.0;
        let soon = self.queue.now().saturating_sub(settings.shrank_at.load(Ordering::Relaxed)) < 100;
        let few = self.number.wrapping_sub(settings.shrank_after.load(Ordering::Relaxed)) < FEW;
        let after = settings.shrink_after.load(Ordering::Relaxed);
        let after = if soon && few { (after * 4).clamp(FEW as u32, 1 << 20) } else { 1 };
        settings.shrink_after.store(after, Ordering::Relaxed);
    }

    /// Adds messages, at most so many, as long as they simply fit. Returns how many. Where it ends,
    /// [`reserve`](Producer::reserve) says why.
    #[inline(always)]
    pub(crate) fn add_run(
        &mut self,
        most: usize,
        length: impl Fn(usize) -> usize,
        fill: impl Fn(usize, Place),
    ) -> usize {
        let room = self.queue.room(self.tail, self.number, most);
        let (mut done, mut added) = (0, 0);
        while added < room.most {
            let length = length(added);
            let need = HEADER + Record::stride(length);
            if length > self.queue.largest || need > room.bytes - done {
                break;
            }
            // SAFETY: there is room for it, between the tail and the consumers.
            let place = unsafe { room.begin(done, Record::message(length)) };
            // SAFETY: as above.
            fill(added, unsafe { Place::new(place, length) });
            done += need;
            added += 1;
        }
        self.has_added(added, done)
    }

    /// The same for messages that all have as many bytes as a `T`, from the first on.
    #[inline(always)]
    pub(crate) fn add_plain<T>(&mut self, messages: &[T], fill: impl Fn(&T, Place)) -> usize {
        let room = self.queue.room(self.tail, self.number, messages.len());
        // SAFETY: the lock is held, and what was written last is behind the tail.
        let (added, bytes) = unsafe { room.write(messages, fill) };
        self.has_added(added, bytes)
    }

    #[inline(always)]
    fn has_added(&mut self, added: usize, bytes: u64) -> usize {
        self.tail = self.tail.wrapping_add(bytes);
        self.number = self.number.wrapping_add(added as u64);
        self.fresh += added as u32;
        added
    }

    /// The message at the place last reserved is complete.
    #[inline(always)]
    pub(crate) fn add(&mut self, length: usize) {
        self.has_added(1, HEADER + Record::stride(length));
    }

    /// What was added so far is a part of the queue from here on.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        if self.fresh == 0 {
            return;
        }
        self.header.put.0.set(self.tail, self.number);
        if let Some(herald) = &mut self.herald {
            herald.announce();
            self.due = self.due.saturating_add(self.fresh);
        }
        self.fresh = 0;
    }
}

impl Drop for Producer<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: locked when it was made, by this thread: it is not `Send`.
        unsafe { self.queue.producing().unlock() };
        if let Some(herald) = self.herald.take()
            && self.due != 0
        {
            herald.wake(self.due);
        }
    }
}

/// Room in one piece for messages that come next.
pub(crate) struct Room {
    start: NonNull<u8>,
    pub(crate) bytes: u64,
    /// And for so many at most.
    pub(crate) most: usize,
}

impl Room {
    /// Begins a record so many bytes behind the start. Returns where its first message is going to be.
    ///
    /// # Safety
    ///
    /// There is room for it, and the caller is the only producer.
    #[inline(always)]
    pub(crate) unsafe fn begin(&self, offset: u64, header: Record) -> NonNull<u8> {
        // SAFETY: the caller's: within the segment, which is memory up to there.
        let record = unsafe { self.start.add(offset as usize) };
        // SAFETY: a word in the ring, aligned as all records are.
        unsafe { word(record) }.store(header.0, Ordering::Relaxed);
        // SAFETY: the record's room reaches beyond its header.
        unsafe { record.add(HEADER as usize) }
    }
}

impl RawQueue {
    /// As the only producer, who has come to this tail and number: what is there for so many messages, as far
    /// as is known.
    #[inline(always)]
    pub(crate) fn room(&self, tail: u64, number: u64, most: usize) -> Room {
        let header = self.header();
        let producers = &header.producers;
        let index = producers.segment.load(Ordering::Relaxed);
        let segment = header.segment(index);
        let size = segment_size(index);
        let base = segment.base.load(Ordering::Relaxed);
        let free = producers.free_seen.load(Ordering::Relaxed);
        let from = if is_before(free, base) { base } else { free };
        let offset = tail.wrapping_sub(base) & (size - 1);
        let bytes = segment.backed.load(Ordering::Relaxed).saturating_sub(offset);
        let bytes = bytes.min(size.saturating_sub(tail.wrapping_sub(from)));
        let bytes = bytes.min(self.max_bytes.saturating_sub(tail.wrapping_sub(free)));
        let most = match self.most {
            0 => most,
            bound => {
                let taken = producers.taken_seen.load(Ordering::Relaxed);
                most.min(bound.saturating_sub(number.wrapping_sub(taken)) as usize)
            }
        };
        // SAFETY: within the segment, or at its end.
        Room { start: unsafe { self.at_offset(index, offset) }, bytes, most }
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use crate::{Bytes, Queue};

    struct Scene(Queue<Vec<u8>, Bytes>);

    impl Scene {
        fn header(&self) -> &Header {
            self.0.raw().header()
        }

        /// It leaves the smallest segment, and goes on through so many; soon after it shrank, or not. Returns how often it has to be
        /// drained from here on.
        fn grow(&self, is_soon: bool, parts: u32) -> u32 {
            let settings = &self.header().settings.0;
            settings.shrank_at.store(if is_soon { u64::MAX } else { 0 }, Ordering::Relaxed);
            for part in 0..parts {
                self.0.put(vec![1; (SMALLEST as usize) << part]).unwrap();
            }
            assert_eq!(self.header().producers.segment.load(Ordering::Relaxed), parts);
            settings.shrink_after.load(Ordering::Relaxed)
        }

        /// How many drains it takes until it is in the smallest segment again.
        fn drains(&self) -> u32 {
            while self.0.len() > 1 {
                self.0.get().unwrap();
            }
            let mut count = 0;
            loop {
                self.0.get().unwrap();
                count += 1;
                if self.header().producers.segment.load(Ordering::Relaxed) == 0 {
                    return count;
                }
                self.0.put(vec![1; 8]).unwrap();
            }
        }

        /// So many messages pass.
        fn pass(&self, count: u64) {
            for _ in 0..count {
                self.0.put(vec![1; 8]).unwrap();
                self.0.get().unwrap();
            }
        }
    }

    #[test]
    fn what_shrinks_in_vain_waits_four_times_as_long_the_next_time() {
        let scene = Scene(Queue::new().unwrap());
        let few = FEW as u32;
        // However many have passed before.
        scene.pass(3 * FEW);
        let grow = |is_soon| (scene.grow(is_soon, 1), scene.drains());
        assert_eq!(grow(false), (1, 1), "the first time");
        assert_eq!(
            [grow(true), grow(true), grow(true)],
            [few, 4 * few, 16 * few].map(|after| (after, after))
        );
        assert_eq!(grow(false), (1, 1), "later");
        assert_eq!(grow(true), (few, few));
        scene.pass(FEW - 1);
        assert_eq!(grow(true), (4 * few, 4 * few), "a little work");
        scene.pass(FEW);
        assert_eq!(grow(true), (1, 1), "some work");
    }

    #[test]
    fn it_is_one_growth_through_however_many_segments() {
        let scene = Scene(Queue::new().unwrap());
        assert_eq!((scene.grow(false, 1), scene.drains()), (1, 1));
        assert_eq!(scene.grow(true, 4), FEW as u32);
    }

    #[test]
    fn it_shrinks_some_day() {
        let scene = Scene(Queue::new().unwrap());
        let after = &scene.header().settings.0.shrink_after;
        for _ in 0..3 {
            after.store(1 << 19, Ordering::Relaxed);
            assert_eq!(scene.grow(true, 1), 1 << 20);
            after.store(1, Ordering::Relaxed);
            assert_eq!(scene.drains(), 1);
            after.store(1 << 20, Ordering::Relaxed);
            assert_eq!(scene.grow(true, 1), 1 << 20);
            after.store(1, Ordering::Relaxed);
            assert_eq!(scene.drains(), 1);
        }
    }
}
