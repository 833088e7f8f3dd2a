//! What producers and consumers do while they hold their lock: all of it plain code, with one store each that counts.
//!
//! | step | what counts | killed before it | killed after it |
//! |---|---|---|---|
//! | put, of one message or many | the store of `put`'s position | nothing happened; the bytes are overwritten | the messages are there |
//! | get, of one message, or many of one segment | the store of `taken`'s position | the messages are still there | they are gone |
//! | on to another segment | the store of the producers' `segment` | the new segment is not in use | it is |
//! | leaving a segment | the store of the consumers' `oldest` | its memory is given back once more | it is given back |
//! | claim | the store of `taken`'s position | the message is still there | it is the claimer's, as long as it lives |
//! | acknowledge | the store to the claim's word | the message is delivered again | it is gone |
//!
//! What a death leaves beside that:
//!
//! - `free` follows `taken` a store later. Whoever takes the next message sets it too, and so does a producer that finds
//!   no room because of it ([`Consumer::settle`]).
//! - A segment's `end` and `next` are set before the producers go on. So the segment that they write to has no end, whatever
//!   is written there.
//! - A claim whose message was not taken: it is none, and is cleared before anything else is taken, because it would look
//!   like one afterwards. To be found, claims are counted before they are made, and after they are gone.

use crate::layout::{AGAIN, ClaimSlot, HEADER, Header, LENGTH, OPEN, PADDING, SMALLEST, Segment};
use crate::raw::RawQueue;
use crate::waitroom::Sleeper;
use core::ptr::NonNull;
use polyproc_sys::atomic::{AtomicU64, Ordering, compiler_fence, fence};
use polyproc_sys::futex::OWNER;
use polyproc_sys::thread;
use std::io;

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

/// Where segment `index` begins in the reserve.
#[inline(always)]
pub(crate) fn segment_offset(index: u32) -> u64 {
    (SMALLEST << index) - SMALLEST
}

/// How long segment `index` is.
#[inline(always)]
pub(crate) fn segment_size(index: u32) -> u64 {
    SMALLEST << index
}

/// Whether position `a` comes before `b`. They are never 2^63 apart.
#[inline(always)]
pub(crate) fn is_before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
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
    /// Somebody sleeps, and the herald is raised.
    raised: bool,
}

impl<'a> Producer<'a> {
    /// # Safety
    ///
    /// The calling thread has just taken the producers' lock, and leaves it to the `Producer` to release it.
    #[inline(always)]
    pub(crate) unsafe fn new(queue: &'a RawQueue) -> Producer<'a> {
        let header = queue.header();
        let (tail, number) = header.put.0.get();
        let raised = header.news.is_occupied();
        if raised {
            header.news.raise();
        }
        Producer { queue, header, tail, number, fresh: 0, raised }
    }

    /// A place for a message of this length, not yet a part of the queue.
    #[inline(always)]
    pub(crate) fn reserve(&mut self, length: usize) -> Result<NonNull<u8>, NoRoom> {
        if length > self.queue.largest {
            return Err(NoRoom::TooLarge(self.queue.largest));
        }
        let need = HEADER + (length as u64).next_multiple_of(HEADER);
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
        unsafe { word(record) }.store(length as u64, Ordering::Relaxed);
        // SAFETY: the record's room was checked to reach beyond its header.
        unsafe { record.add(HEADER as usize) }
    }

    /// It does not simply fit.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, length: usize) -> Result<NonNull<u8>, NoRoom> {
        let need = HEADER + (length as u64).next_multiple_of(HEADER);
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
                // SAFETY: within the segment, which is memory up to here, and between the tail and the consumers.
                let record = unsafe { self.queue.at_offset(index, offset) };
                // SAFETY: a word in the ring, aligned as all records are.
                unsafe { word(record) }.store(PADDING | (padding - HEADER), Ordering::Relaxed);
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

    /// A larger segment that nobody uses.
    fn next_segment(&self, index: u32, need: u64) -> Option<u32> {
        // Acquire: pairs with the Release of `leave_segment`, whose segment is empty then.
        let oldest = self.header.consumers.oldest.load(Ordering::Acquire);
        let in_use = |candidate: u32| {
            let mut used = oldest;
            while used != index && used != candidate {
                used = self.header.segment(used).next.load(Ordering::Relaxed);
            }
            used == candidate
        };
        (index + 1..self.queue.segments).find(|next| segment_size(*next) >= need && !in_use(*next))
    }

    /// Goes on in another segment, with everything published that is in this one.
    fn enter_segment(&mut self, from: u32, to: u32) {
        let next = self.header.segment(to);
        next.base.store(self.tail, Ordering::Relaxed);
        next.end.store(OPEN, Ordering::Relaxed);
        let old = self.header.segment(from);
        old.next.store(to, Ordering::Relaxed);
        old.end.store(self.tail, Ordering::Relaxed);
        self.note_growth();
        // Release: consumers that see a message in the new segment see the words above; for them the position counts,
        // and for the next producer this word.
        self.header.producers.segment.store(to, Ordering::Release);
    }

    /// Growing again soon after it shrank, after few messages, was in vain: next time it waits longer.
    fn note_growth(&self) {
        let settings = &self.header.settings.0;
        let soon = self.queue.now().saturating_sub(settings.shrank_at.load(Ordering::Relaxed)) < 100;
        let few = self.number.wrapping_sub(settings.shrank_after.load(Ordering::Relaxed)) < 1024;
        let after = settings.shrink_after.load(Ordering::Relaxed);
        let after = if soon && few { (after * 4).clamp(16, 1 << 20) } else { 1 };
        settings.shrink_after.store(after, Ordering::Relaxed);
    }

    /// The message at the place last reserved is complete.
    #[inline(always)]
    pub(crate) fn add(&mut self, length: usize) {
        let need = HEADER + (length as u64).next_multiple_of(HEADER);
        self.tail = self.tail.wrapping_add(need);
        self.number = self.number.wrapping_add(1);
        self.fresh += 1;
    }

    /// What was added so far is a part of the queue from here on.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        if self.fresh == 0 {
            return;
        }
        self.header.put.0.set(self.tail, self.number);
        if self.raised {
            self.header.news.ring(self.fresh);
            // For what is published next.
            self.raised = self.header.news.is_occupied();
            if self.raised {
                self.header.news.raise();
            }
        }
        self.fresh = 0;
    }
}

impl Drop for Producer<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.raised {
            self.header.news.lower();
        }
        // SAFETY: locked when it was made, by this thread: it is not `Send`.
        unsafe { self.header.producers.lock.unlock() };
    }
}

/// The message that comes next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) place: NonNull<u8>,
    pub(crate) length: usize,
    /// Its claimer died.
    pub(crate) again: bool,
    /// The dead claim, if so.
    claim: Option<usize>,
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
        // SAFETY: the place lies in mapped memory and holds so many bytes; they were written before the message was
        // published, and are not written again before it is freed.
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
    fresh: u32,
    /// Somebody sleeps for room, and the herald is raised.
    raised: bool,
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
        let (head, number) = header.taken.0.mark.get();
        let raised = header.room.is_occupied();
        if raised {
            header.room.raise();
        }
        Consumer { queue, header, head, number, fresh: 0, raised, sleeper: None }
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
            // There is a message beyond the head, so if the segment ends here, it is in the next; unless this is the one
            // that is written to, where a dead thread has left its plans.
            if segment.end.load(Ordering::Relaxed) == self.head
                && self.header.producers.segment.load(Ordering::Relaxed) != index
            {
                // Not with something taken that is not committed: if this thread died, the next one would look for it in the
                // wrong segment.
                self.commit_in_between();
                self.leave_segment(index);
                continue;
            }
            let base = segment.base.load(Ordering::Relaxed);
            let offset = self.head.wrapping_sub(base) & (segment_size(index) - 1);
            // SAFETY: a record begins here, and the segment is memory at least up to the end of it.
            let record = unsafe { self.queue.at_offset(index, offset) };
            // SAFETY: a word in the ring, aligned as all records are.
            let header = unsafe { word(record) }.load(Ordering::Relaxed);
            let length = header & LENGTH;
            if header & PADDING != 0 {
                self.head = self.head.wrapping_add(HEADER + length);
                continue;
            }
            // SAFETY: the record reaches beyond its header.
            let place = unsafe { record.add(HEADER as usize) };
            return Some(Front {
                place,
                length: length as usize,
                again: false,
                claim: None,
                position: self.head,
                segment: index,
            });
        }
    }

    /// The message in front is out of the queue, as soon as that is [committed](Consumer::commit).
    #[inline(always)]
    pub(crate) fn take(&mut self, front: &Front) {
        if front.claim.is_some() {
            return self.take_dead(front);
        }
        let need = HEADER + (front.length as u64).next_multiple_of(HEADER);
        self.head = self.head.wrapping_add(need);
        self.number = self.number.wrapping_add(1);
        self.fresh += 1;
    }

    /// What was taken is gone from here on.
    #[inline(always)]
    pub(crate) fn commit(&mut self) {
        if self.fresh == 0 {
            return;
        }
        self.header.taken.0.mark.set(self.head, self.number);
        if self.header.consumers.claims.load(Ordering::Relaxed) == 0 {
            // Release: pairs with the Acquire in `make_room`.
            self.header.taken.0.free.store(self.head, Ordering::Release);
        }
        if self.raised {
            self.ring();
        }
        self.fresh = 0;
        self.may_be_drained();
    }

    /// If everything is taken, and the segment is not the smallest, it may be time to go back to that.
    #[inline(always)]
    pub(crate) fn may_be_drained(&mut self) {
        let consumers = &self.header.consumers;
        if consumers.tail_seen.load(Ordering::Relaxed) == self.head
            && consumers.segment.load(Ordering::Relaxed) != 0
        {
            self.drained();
        }
    }

    /// What was taken so far is gone from here on, and there is more to take.
    #[cold]
    fn commit_in_between(&mut self) {
        if self.fresh == 0 {
            return;
        }
        self.header.taken.0.mark.set(self.head, self.number);
        if self.header.consumers.claims.load(Ordering::Relaxed) == 0 {
            // Release: pairs with the Acquire in `make_room`.
            self.header.taken.0.free.store(self.head, Ordering::Release);
        }
        let fresh = core::mem::take(&mut self.fresh);
        self.ring_and_go_on(fresh);
    }

    /// After a change that is not the last one.
    #[cold]
    fn ring_and_go_on(&mut self, fresh: u32) {
        if self.raised {
            let before = core::mem::replace(&mut self.fresh, fresh);
            self.ring();
            self.fresh = before;
            self.raised = self.header.room.is_occupied();
            if self.raised {
                self.header.room.raise();
            }
        }
    }

    #[cold]
    fn ring(&mut self) {
        // Where bytes are what there is too little of, one message may make room for several, or for none.
        let count = if self.queue.most == 0 { u32::MAX } else { self.fresh };
        self.header.room.ring(count);
        self.raised = false;
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
        consumers.segment.store(next, Ordering::Relaxed);
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
            // Release: pairs with the Acquire in `next_segment`.
            consumers.oldest.store(next, Ordering::Release);
            index = next;
        }
    }

    /// Everything is taken, and the segment is not the smallest.
    #[cold]
    #[inline(never)]
    fn drained(&mut self) {
        let header = self.header;
        let consumers = &header.consumers;
        let drains = consumers.drains.load(Ordering::Relaxed).wrapping_add(1);
        consumers.drains.store(drains, Ordering::Relaxed);
        if drains < header.settings.0.shrink_after.load(Ordering::Relaxed)
            || consumers.claims.load(Ordering::Relaxed) != 0
        {
            return;
        }
        let producers = &header.producers;
        // SAFETY: unlocked below; the queue's handle keeps it mapped.
        if unsafe { producers.lock.try_lock() }.is_err() {
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
            consumers.segment.store(0, Ordering::Relaxed);
        }
        // SAFETY: locked above.
        unsafe { producers.lock.unlock() };
    }

    /// A message whose claimer died, if there is one: the oldest.
    #[cold]
    #[inline(never)]
    fn dead_claim(&mut self) -> Option<Front> {
        self.settle();
        let taken = self.header.taken.0.mark.position.load(Ordering::Relaxed);
        let dead = self.header.claims.iter().enumerate().filter_map(|(claim, slot)| {
            let dead = slot.robust.is_taken() && slot.robust.word.load(Ordering::Acquire) & OWNER == 0;
            let position = slot.position.load(Ordering::Relaxed);
            (dead && is_before(position, taken)).then_some((claim, slot, position))
        });
        dead.max_by_key(|(.., position)| taken.wrapping_sub(*position)).map(|(claim, slot, position)| {
            let segment = slot.segment.load(Ordering::Relaxed);
            let base = self.header.segment(segment).base.load(Ordering::Relaxed);
            let offset = position.wrapping_sub(base) & (segment_size(segment) - 1);
            // SAFETY: a record begins here; `free` does not go beyond a claim, dead or alive.
            let record = unsafe { self.queue.at_offset(segment, offset) };
            // SAFETY: a word in the ring, aligned as all records are.
            let header = unsafe { word(record) }.load(Ordering::Relaxed);
            // SAFETY: the record reaches beyond its header.
            let place = unsafe { record.add(HEADER as usize) };
            let length = (header & LENGTH) as usize;
            Front { place, length, again: true, claim: Some(claim), position, segment }
        })
    }

    #[cold]
    fn take_dead(&mut self, front: &Front) {
        let Some(claim) = front.claim else { return };
        // Release: whoever claims the slot next overwrites what was read.
        self.header.claims[claim].robust.word.store(0, Ordering::Release);
        self.settle_claims();
        self.ring_and_go_on(1);
    }

    /// Finishes what dead threads have left of their claims, and of what they had taken. What is taken by this one, and not
    /// committed, is still there.
    #[cold]
    pub(crate) fn settle(&mut self) {
        let header = self.header;
        let taken = header.taken.0.mark.position.load(Ordering::Relaxed);
        let mut count = 0;
        for slot in header.claims.iter().filter(|slot| slot.robust.is_taken()) {
            if is_before(slot.position.load(Ordering::Relaxed), taken) {
                count += 1;
            } else {
                // Whoever lives commits its claims before it releases the lock.
                slot.robust.word.store(0, Ordering::Relaxed);
            }
        }
        let is_behind = count == 0 && header.taken.0.free.load(Ordering::Relaxed) != taken;
        if is_behind || count != header.consumers.claims.load(Ordering::Relaxed) {
            self.settle_claims();
            self.ring_and_go_on(1);
        }
    }

    /// After a change of the claims: how many there are, and what the producers may write to.
    fn settle_claims(&self) {
        let header = self.header;
        let taken = header.taken.0.mark.position.load(Ordering::Relaxed);
        let (mut count, mut free) = (0, taken);
        let mut oldest = header.consumers.segment.load(Ordering::Relaxed);
        for slot in header.claims.iter().filter(|slot| slot.robust.is_taken()) {
            count += 1;
            let position = slot.position.load(Ordering::Relaxed);
            if is_before(position, free) {
                free = position;
                oldest = slot.segment.load(Ordering::Relaxed);
            }
        }
        header.taken.0.free.store(free, Ordering::Release);
        self.give_back_up_to(oldest);
        // Last: until it is right, it shows that the others may not be.
        compiler_fence(Ordering::SeqCst);
        header.consumers.claims.store(count, Ordering::Relaxed);
    }

    /// Takes the message in front, and keeps it in the queue's memory until it is acknowledged. `None` if there are too
    /// many claims.
    pub(crate) fn claim(&mut self, front: &Front) -> Option<usize> {
        let current = thread::current();
        self.announce_claims();
        if let Some(claim) = front.claim {
            let slot = &self.header.claims[claim];
            // SAFETY: the record's header is right before its message.
            let record = unsafe { front.place.sub(HEADER as usize) };
            // SAFETY: a word in the ring, aligned as all records are.
            unsafe { word(record) }.fetch_or(AGAIN, Ordering::Relaxed);
            return slot.robust.claim(current).then_some(claim);
        }
        let unused = |slot: &ClaimSlot| !slot.robust.is_taken();
        let claim = self.header.claims.iter().position(unused)?;
        let slot = &self.header.claims[claim];
        slot.position.store(front.position, Ordering::Relaxed);
        slot.segment.store(front.segment, Ordering::Relaxed);
        let claims = &self.header.consumers.claims;
        let count = claims.load(Ordering::Relaxed);
        claims.store(count + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if !slot.robust.claim(current) {
            claims.store(count, Ordering::Relaxed);
            return None;
        }
        // The claim must stand before the message is out of the queue.
        fence(Ordering::SeqCst);
        self.take(front);
        self.commit();
        Some(claim)
    }

    /// Before the first claim ever: those who sleep have to sleep on claims too, from here on.
    fn announce_claims(&self) {
        const ANNOUNCED: u32 = 2;
        let has_claims = &self.header.settings.0.has_claims;
        if has_claims.load(Ordering::Relaxed) != ANNOUNCED {
            // SeqCst: before the new number of the door, see `wait_for_news`.
            has_claims.store(1, Ordering::SeqCst);
            self.header.news.call_all();
            has_claims.store(ANNOUNCED, Ordering::Relaxed);
        }
    }

    /// The message is done with.
    ///
    /// # Safety
    ///
    /// The calling thread has claimed it, in this process, and not acknowledged it yet.
    pub(crate) unsafe fn acknowledge(&mut self, claim: usize) {
        // Who waits at a closed queue waits for the claims: with the last of them, there is nothing left to come.
        let wake = self.queue.is_closed();
        // SAFETY: the caller's.
        unsafe { self.header.claims[claim].robust.give_back(thread::current(), wake) };
        self.settle_claims();
        self.ring_and_go_on(1);
    }
}

impl Drop for Consumer<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.raised {
            self.header.room.lower();
        }
        if self.sleeper.is_some() {
            self.queue.pass_on_news();
        }
        // SAFETY: locked when it was made, by this thread: it is not `Send`.
        unsafe { self.header.consumers.lock.unlock() };
    }
}

impl Header {
    #[inline(always)]
    pub(crate) fn segment(&self, index: u32) -> &Segment {
        // The mask keeps the compiler from checking what the trusted memory says.
        &self.segments.0[index as usize % crate::layout::SEGMENTS]
    }
}

/// The word at a place in the ring.
///
/// # Safety
///
/// The place is eight bytes of mapped memory, aligned to as many.
#[inline(always)]
pub(crate) unsafe fn word<'a>(place: NonNull<u8>) -> &'a AtomicU64 {
    // SAFETY: the caller's; headers are only accessed as atomics while a record is there.
    unsafe { AtomicU64::from_ptr(place.as_ptr().cast()) }
}

impl RawQueue {
    /// Milliseconds, on a monotonic clock that all processes share.
    fn now(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a valid timespec to write to.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
    }
}
