//! Claims, as the holder of the consumers' lock sees them: what is taken stays in the queue until it is
//! acknowledged.

use super::{Consumer, Front};
use crate::layout::{ClaimSlot, HEADER};
use crate::record::Record;
use crate::ring::{is_before, segment_size, word};
use polyproc_sys::atomic::{Ordering, compiler_fence, fence};
use polyproc_sys::futex::OWNER;
use polyproc_sys::thread;

impl Consumer<'_> {
    /// A message whose claimer died, if there is one: the oldest.
    #[cold]
    #[inline(never)]
    pub(super) fn dead_claim(&mut self) -> Option<Front> {
        // What is claimed from here on was taken.
        self.settle();
        let taken = self.header.taken.0.mark.position.load(Ordering::Relaxed);
        let dead = self.header.claims.iter().enumerate().filter_map(|(claim, slot)| {
            let dead = slot.robust.is_taken() && slot.robust.word.load(Ordering::Acquire) & OWNER == 0;
            dead.then(|| (claim, slot, slot.position.load(Ordering::Relaxed)))
        });
        dead.max_by_key(|(.., position)| taken.wrapping_sub(*position)).map(|(claim, slot, position)| {
            let segment = slot.segment.load(Ordering::Relaxed);
            let base = self.header.segment(segment).base.load(Ordering::Relaxed);
            let offset = position.wrapping_sub(base) & (segment_size(segment) - 1);
            // SAFETY: a record begins here; `free` does not go beyond a claim, dead or alive.
            let record = unsafe { self.queue.at_offset(segment, offset) };
            // SAFETY: a word in the ring, aligned as all records are.
            let header = Record(unsafe { word(record) }.load(Ordering::Relaxed));
            // SAFETY: the record reaches beyond its header.
            let place = unsafe { record.add(HEADER as usize) };
            let length = match slot.length.load(Ordering::Relaxed) {
                0 => header.length(),
                length => length as usize,
            };
            let record = Record::message(length);
            Front {
                place,
                length,
                again: true,
                claim: Some(claim),
                record,
                has_header: false,
                position,
                segment,
            }
        })
    }

    #[cold]
    pub(super) fn take_dead(&mut self, front: &Front) {
        let Some(claim) = front.claim else { return };
        // It is gone at once, and what was taken before it is not to stay behind.
        self.commit_in_between();
        // Release: whoever claims the slot next overwrites what was read.
        self.header.claims[claim].robust.word.store(0, Ordering::Release);
        self.settle_claims();
        self.announce(1);
    }

    /// Finishes what dead threads have left of their claims, and of what they had taken. What is taken by
    /// this one, and not committed, is still there.
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
            self.announce(1);
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

    /// Takes the message in front, and keeps it in the queue's memory until it is acknowledged. `None` if
    /// there are too many claims.
    pub(crate) fn claim(&mut self, front: &Front) -> Option<usize> {
        let current = thread::current();
        self.announce_claims();
        if let Some(claim) = front.claim {
            return self.header.claims[claim].robust.claim(current).then_some(claim);
        }
        let unused = |slot: &ClaimSlot| !slot.robust.is_taken();
        let claim = self.header.claims.iter().position(unused)?;
        let slot = &self.header.claims[claim];
        slot.position.store(front.position, Ordering::Relaxed);
        slot.segment.store(front.segment, Ordering::Relaxed);
        // Nothing is changed in the ring: what would be the header is the end of another message, which may
        // be claimed, too.
        let length = if front.has_header { 0 } else { front.length as u32 };
        slot.length.store(length, Ordering::Relaxed);
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
        // Who waits at a closed queue waits for the claims: with the last of them, there is nothing left to
        // come.
        let wake = self.queue.is_closed();
        // SAFETY: the caller's.
        unsafe { self.header.claims[claim].robust.give_back(thread::current(), wake) };
        self.settle_claims();
        self.announce(1);
    }
}
