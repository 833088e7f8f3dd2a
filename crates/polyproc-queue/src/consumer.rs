//! [`Consumer`]: the holder of the consumers' lock, at work. The table of what counts is in
//! [`ring`](crate::ring).

mod claims;

use crate::layout::{HEADER, Header, OPEN};
use crate::raw::RawQueue;
use crate::record::Record;
use crate::ring::{segment_size, word};
use crate::run::Run;
use crate::waitroom::{Herald, Sleeper};
use core::ptr::NonNull;
use polyproc_sys::atomic::Ordering;

/// The message that comes next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) place: NonNull<u8>,
    pub(crate) length: usize,
    /// Its claimer died.
    pub(crate) again: bool,
    /// The dead claim, if so.
    claim: Option<usize>,
    /// What it is the first message of, and whether that is a header, or the rest of one.
    record: Record,
    has_header: bool,
    position: u64,
    segment: u32,
}

impl Front {
    /// Its bytes.
    ///
    /// # Safety
    ///
    /// The message is still in front, or claimed: nobody frees its place while the slice is in use.
    #[inline(always)]
    pub(crate) unsafe fn message<'a>(&self) -> &'a [u8] {
        // SAFETY: the place lies in mapped memory and holds so many bytes; they were written before the
        // message was published, and are not written again before it is freed.
        unsafe { core::slice::from_raw_parts(self.place.as_ptr(), self.length) }
    }
}

/// The holder of the consumers' lock, at work. Dropped, it unlocks; what was not committed was not taken.
pub(crate) struct Consumer<'a> {
    queue: &'a RawQueue,
    header: &'a Header,
    /// The next record.
    head: u64,
    /// How many messages were taken.
    number: u64,
    /// What is left of the next record, if it was taken in part.
    rest: Record,
    fresh: u32,
    /// Raised, if somebody sleeps for room.
    herald: Option<Herald<'a>>,
    /// So many are to be woken when the lock is released.
    due: u32,
    /// Its place, if it has slept: a wake may have been spent on it, until its work is done.
    sleeper: Option<Sleeper<'a>>,
}

impl<'a> Consumer<'a> {
    /// # Safety
    ///
    /// The calling thread has just taken the consumers' lock, and leaves it to the `Consumer` to release it.
    #[inline(always)]
    pub(crate) unsafe fn new(queue: &'a RawQueue) -> Consumer<'a> {
        let header = queue.header();
        let (head, number, rest) = header.taken.0.get();
        let herald = if header.room.is_occupied() { Some(header.room.raise()) } else { None };
        Consumer { queue, header, head, number, rest, fresh: 0, herald, due: 0, sleeper: None }
    }

    /// It has slept to come here.
    #[cold]
    pub(crate) fn has_slept(&mut self, sleeper: Option<Sleeper<'a>>) {
        self.sleeper = sleeper;
    }

    /// The next message, if there is one.
    #[inline(always)]
    pub(crate) fn front(&mut self) -> Option<Front> {
        let consumers = &self.header.consumers;
        if consumers.claims.load(Ordering::Relaxed) != 0
            && let Some(front) = self.dead_claim()
        {
            return Some(front);
        }
        if consumers.tail_seen.load(Ordering::Relaxed) == self.head {
            // Acquire: pairs with the Release of `publish`.
            let tail = self.header.put.0.position.load(Ordering::Acquire);
            consumers.tail_seen.store(tail, Ordering::Relaxed);
            if tail == self.head {
                return None;
            }
        }
        loop {
            let index = consumers.segment.load(Ordering::Relaxed);
            let segment = self.header.segment(index);
            // There is a message beyond the head, so if the segment ends here, it is in the next.
            if self.is_left_at_head(index) {
                // Not with something taken that is not committed: if this thread died, the next one would
                // look for it in the wrong segment.
                self.commit_in_between();
                self.leave_segment(index);
                continue;
            }
            let base = segment.base.load(Ordering::Relaxed);
            let offset = self.head.wrapping_sub(base) & (segment_size(index) - 1);
            // SAFETY: a record begins here, and the segment is memory at least up to the end of it.
            let record = unsafe { self.queue.at_offset(index, offset) };
            // SAFETY: a word in the ring, aligned as all records are.
            let header = Record(unsafe { word(record) }.load(Ordering::Relaxed));
            let has_header = self.rest == Record::NONE;
            if has_header && header.is_padding() {
                self.head = self.head.wrapping_add(HEADER + header.length() as u64);
                continue;
            }
            // SAFETY: the record reaches beyond its header.
            let place = unsafe { record.add(HEADER as usize) };
            let record = if has_header { header } else { self.rest };
            return Some(Front {
                place,
                length: record.length(),
                again: false,
                claim: None,
                record,
                has_header,
                position: self.head,
                segment: index,
            });
        }
    }

    /// Takes what comes next, at most so many messages, as long as they are nothing special. Returns how
    /// many. Where it ends, [`front`](Consumer::front) says why.
    #[inline(always)]
    pub(crate) fn take_run(&mut self, most: usize, mut copy: impl FnMut(&[u8])) -> usize {
        let consumers = &self.header.consumers;
        if consumers.claims.load(Ordering::Relaxed) != 0 {
            return 0;
        }
        let index = consumers.segment.load(Ordering::Relaxed);
        let segment = self.header.segment(index);
        let (base, end) = (segment.base.load(Ordering::Relaxed), segment.end.load(Ordering::Relaxed));
        let tail = consumers.tail_seen.load(Ordering::Relaxed);
        let (mut head, mut rest, mut taken) = (self.head, self.rest, 0);
        while taken != most && head != tail && head != end {
            let offset = head.wrapping_sub(base) & (segment_size(index) - 1);
            // SAFETY: a record begins here, and the segment is memory at least up to the end of it.
            let record = unsafe { self.queue.at_offset(index, offset) };
            // SAFETY: a word in the ring, aligned as all records are.
            let header = Record(unsafe { word(record) }.load(Ordering::Relaxed));
            let next = if rest == Record::NONE { header } else { rest };
            if next.is_padding() {
                break;
            }
            // SAFETY: the record reaches beyond its header.
            let place = unsafe { record.add(HEADER as usize) };
            // SAFETY: so many bytes were written there before the message was published, and nobody writes
            // them before it is freed.
            copy(unsafe { core::slice::from_raw_parts(place.as_ptr(), next.length()) });
            let way;
            (way, rest) = next.after(1);
            head = head.wrapping_add(way);
            taken += 1;
        }
        self.has_taken(head, rest, taken);
        taken
    }

    /// The same for those that have as many bytes as a `T`, as long as they do.
    #[inline(always)]
    pub(crate) fn take_plain<T>(&mut self, most: usize, take: impl FnMut(Run<'_, T>)) -> usize {
        let consumers = &self.header.consumers;
        if consumers.claims.load(Ordering::Relaxed) != 0 {
            return 0;
        }
        let tail = consumers.tail_seen.load(Ordering::Relaxed);
        // SAFETY: the lock is held, and it is there.
        let (taken, head, rest) = unsafe { self.queue.take_runs((self.head, self.rest), tail, most, take) };
        self.has_taken(head, rest, taken);
        taken
    }

    #[inline(always)]
    fn has_taken(&mut self, head: u64, rest: Record, taken: usize) {
        self.head = head;
        self.rest = rest;
        self.number = self.number.wrapping_add(taken as u64);
        self.fresh += taken as u32;
    }

    /// The message in front is out of the queue, as soon as that is [committed](Consumer::commit).
    #[inline(always)]
    pub(crate) fn take(&mut self, front: &Front) {
        if front.claim.is_some() {
            return self.take_dead(front);
        }
        let (way, rest) = front.record.after(1);
        self.has_taken(self.head.wrapping_add(way), rest, 1);
    }

    /// What was taken is gone from here on.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        if self.fresh == 0 {
            return;
        }
        self.header.taken.0.set(self.head, self.number, self.rest);
        if self.header.consumers.claims.load(Ordering::Relaxed) == 0 {
            // Release: pairs with the Acquire in `make_room`.
            self.header.taken.0.free.store(self.head, Ordering::Release);
        }
        self.announce(self.fresh);
        self.fresh = 0;
        self.may_be_drained();
    }

    /// If everything is taken, and the segment is not the smallest, it may be time to go back to that.
    #[inline(always)]
    pub(crate) fn may_be_drained(&mut self) {
        let consumers = &self.header.consumers;
        if consumers.tail_seen.load(Ordering::Relaxed) == self.head
            && consumers.segment.load(Ordering::Relaxed) != 0
            && self.queue.is_time_to_shrink(self.head)
        {
            self.shrink();
        }
    }

    /// How many messages were taken, and are not gone yet: the last ones.
    pub(crate) fn uncommitted(&self) -> usize {
        self.fresh as usize
    }

    /// What was taken so far is gone from here on, and there is more to take.
    #[cold]
    fn commit_in_between(&mut self) {
        if self.fresh == 0 {
            return;
        }
        self.header.taken.0.set(self.head, self.number, self.rest);
        if self.header.consumers.claims.load(Ordering::Relaxed) == 0 {
            // Release: pairs with the Acquire in `make_room`.
            self.header.taken.0.free.store(self.head, Ordering::Release);
        }
        self.announce(self.fresh);
        self.fresh = 0;
    }

    /// So many messages have gone, or something else has made room: whoever sleeps for it is woken when the
    /// lock is released.
    #[inline(always)]
    fn announce(&mut self, fresh: u32) {
        if let Some(herald) = &mut self.herald {
            herald.announce();
            // Where bytes are what there is too little of, one message may make room for several, or for
            // none.
            self.due = if self.queue.most == 0 { u32::MAX } else { self.due.saturating_add(fresh) };
        }
    }

    /// On to the next segment. The old one's memory is given back, unless there are claims in it.
    #[cold]
    #[inline(never)]
    fn leave_segment(&mut self, index: u32) {
        let next = self.header.segment(index).next.load(Ordering::Relaxed);
        let consumers = &self.header.consumers;
        if consumers.claims.load(Ordering::Relaxed) == 0 {
            self.give_back_up_to(next);
        }
        // Release: pairs with the Acquire in `next_segment`.
        consumers.segment.store(next, Ordering::Release);
    }

    /// Gives back the memory of all segments before this one.
    fn give_back_up_to(&self, end: u32) {
        let consumers = &self.header.consumers;
        let mut index = consumers.oldest.load(Ordering::Relaxed);
        while index != end {
            let segment = self.header.segment(index);
            let next = segment.next.load(Ordering::Relaxed);
            if index != 0 {
                self.queue.give_back(index);
                segment.backed.store(0, Ordering::Relaxed);
            }
            // Relaxed: only consumers read it.
            consumers.oldest.store(next, Ordering::Relaxed);
            index = next;
        }
    }

    /// [`shrink`](Consumer::shrink), if everything is taken that is known of.
    #[cold]
    pub(crate) fn shrink_if_drained(&mut self) {
        let consumers = &self.header.consumers;
        if consumers.tail_seen.load(Ordering::Relaxed) == self.head
            && consumers.segment.load(Ordering::Relaxed) != 0
            && consumers.claims.load(Ordering::Relaxed) == 0
        {
            self.shrink();
        }
    }

    /// Back to the smallest segment, if everything is taken and nobody is putting something.
    #[cold]
    #[inline(never)]
    fn shrink(&mut self) {
        let header = self.header;
        let (consumers, producers) = (&header.consumers, &header.producers);
        #[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
        tests::BEFORE_THE_LOCK.take().inspect(|happens| happens());
        // SAFETY: unlocked below; the queue's handle keeps it mapped.
        if unsafe { self.queue.producing().visit() }.is_err() {
            return;
        }
        let mut index = consumers.segment.load(Ordering::Relaxed);
        while header.segment(index).end.load(Ordering::Relaxed) == self.head
            && producers.segment.load(Ordering::Relaxed) != index
        {
            self.leave_segment(index);
            index = consumers.segment.load(Ordering::Relaxed);
        }
        let (tail, _) = header.put.0.get();
        if tail == self.head && producers.segment.load(Ordering::Relaxed) == index {
            consumers.drains.store(0, Ordering::Relaxed);
            header.settings.0.shrank_at.store(self.queue.now(), Ordering::Relaxed);
            header.settings.0.shrank_after.store(self.number, Ordering::Relaxed);
            let smallest = header.segment(0);
            smallest.base.store(tail, Ordering::Relaxed);
            smallest.end.store(OPEN, Ordering::Relaxed);
            let segment = header.segment(index);
            segment.next.store(0, Ordering::Relaxed);
            segment.end.store(tail, Ordering::Relaxed);
            producers.segment.store(0, Ordering::Release);
            self.give_back_up_to(0);
            // Release: pairs with the Acquire in `next_segment`.
            consumers.segment.store(0, Ordering::Release);
        }
        // SAFETY: locked above.
        unsafe { self.queue.producing().unlock() };
    }
}

impl Consumer<'_> {
    /// Whether the producers have left this segment, and it ends at the head.
    #[inline(always)]
    fn is_left_at_head(&self, index: u32) -> bool {
        let ends_here = || self.header.segment(index).end.load(Ordering::Relaxed) == self.head;
        if !ends_here() {
            return false;
        }
        #[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
        tests::IN_BETWEEN.take().inspect(|happens| happens());
        // Or a dead thread has left its plans there, and it is written to; or is left just now, and ends
        // farther on than they say: so the end counts that is seen after that. Acquire: pairs with the
        // Release of `enter_segment`.
        self.header.producers.segment.load(Ordering::Acquire) != index && ends_here()
    }
}

impl Drop for Consumer<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: locked when it was made, by this thread: it is not `Send`.
        unsafe { self.queue.consuming().unlock() };
        if let Some(herald) = self.herald.take()
            && self.due != 0
        {
            herald.wake(self.due);
        }
        // It has its place until it is done with this.
        if self.sleeper.is_some() {
            self.queue.pass_on_news();
        }
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use crate::layout::SMALLEST;
    use crate::{Bytes, Queue};
    use std::cell::Cell;

    thread_local! {
        /// Happens in this thread once it has seen that a segment ends at its head.
        pub(super) static IN_BETWEEN: Cell<Option<Box<dyn Fn()>>> = const { Cell::new(None) };
        /// Happens in this thread once it is time to shrink, before it has the producers' lock.
        pub(super) static BEFORE_THE_LOCK: Cell<Option<Box<dyn Fn()>>> = const { Cell::new(None) };
    }

    /// A thread that died on its way to another segment has left its plan for an end. While a consumer is
    /// there, a producer leaves the segment at another place.
    #[test]
    fn what_comes_after_the_plan_of_a_dead_one_is_not_left_behind() {
        let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(1 << 20).unwrap();
        let header = queue.raw().header();
        queue.put(vec![1; 8]).unwrap();
        // As `enter_segment` does it, up to the store that counts.
        header.segment(0).next.store(1, Ordering::Relaxed);
        header.segment(0).end.store(header.put.0.position.load(Ordering::Relaxed), Ordering::Relaxed);
        queue.put(vec![2; SMALLEST as usize / 2]).unwrap();
        assert_eq!(queue.get().unwrap()[0], 1);
        let other = queue.clone();
        IN_BETWEEN.set(Some(Box::new(move || {
            other.put(vec![3; SMALLEST as usize / 2]).unwrap();
            assert_ne!(other.raw().header().producers.segment.load(Ordering::Relaxed), 0, "it was not left");
        })));
        assert_eq!(queue.try_get().unwrap()[0], 2);
        assert!(IN_BETWEEN.take().is_none(), "nothing came in between");
        assert_eq!(queue.try_get().unwrap()[0], 3);
    }

    /// Whether it is drained is asked before the lock, and what counts with it.
    #[test]
    fn what_comes_when_it_is_about_to_shrink_is_not_left_behind() {
        let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
        for round in 0..20 {
            queue.put(vec![1; 2 * SMALLEST as usize - 100]).unwrap();
            let other = queue.clone();
            // In the same segment, or in the next.
            let length = if round % 2 == 0 { 8 } else { 200 };
            BEFORE_THE_LOCK.set(Some(Box::new(move || other.put(vec![2; length]).unwrap())));
            queue.raw().header().settings.0.shrink_after.store(1, Ordering::Relaxed);
            assert_eq!(queue.get().unwrap()[0], 1);
            assert!(BEFORE_THE_LOCK.take().is_none(), "nothing came in between");
            assert_eq!((queue.len(), queue.try_get().unwrap()), (1, vec![2; length]));
            assert!(queue.try_get().is_err());
        }
    }

    /// A segment that was entered for something that never came does not stay.
    #[test]
    fn it_shrinks_also_if_the_producers_went_on_in_vain() {
        let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
        let header = queue.raw().header();
        queue.put(vec![1; SMALLEST as usize]).unwrap();
        drop(queue.reserve(4 * SMALLEST as usize).unwrap());
        assert_eq!(header.producers.segment.load(Ordering::Relaxed), 3);
        assert_eq!(queue.get().unwrap()[0], 1);
        for segment in 1..=3 {
            assert_eq!(header.segment(segment).backed.load(Ordering::Relaxed), 0, "{segment}");
        }
        assert_eq!(header.producers.segment.load(Ordering::Relaxed), 0);
        queue.put(vec![2; 8]).unwrap();
        assert_eq!(queue.get().unwrap()[0], 2);
    }
}
