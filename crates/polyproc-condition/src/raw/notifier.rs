//! A notifier. It never waits for a waiter.
//!
//! | it | what is pending | if it dies then |
//! |---|---|---|
//! | has not committed | the bell of whom it notifies; or the gate, in `notify_all` | one waiter looks in vain |
//! | has committed, `WAITERS` in the oldest slot's word, and not rung | that bell | the kernel rings it |
//! | has committed, one more in `all`, and not woken everybody | the gate | the kernel wakes one there, which wakes everybody |
//!
//! Oldest first, so that all who wait hear of the death of one that was notified before them: see
//! [`raw`](super).

use super::RawCondition;
use super::place::{Slot, USED, USED_BITS};
use polyproc_sys::atomic::{Ordering, fence};
use polyproc_sys::futex::WAITERS;
use polyproc_sys::thread::{self, Current};

impl<'a> RawCondition<'a> {
    /// Notifies the `count` threads that have waited longest, or as many as wait, and returns how many it
    /// notified. Never blocks.
    ///
    /// Who begins to wait after the call has begun is not among them.
    pub fn notify(self, count: u32) -> u32 {
        // Relaxed: whoever waits has been seen with the lock, or came at the same time.
        let places = self.queue.places.load(Ordering::Relaxed);
        if places & USED == 0 {
            return 0;
        }
        let current = thread::current();
        // Who is notified and waits again meanwhile is not one of those who waited: else this might never
        // end.
        let last = places >> USED_BITS;
        (0..count).take_while(|_| self.notify_oldest(current, last)).count() as u32
    }

    /// Notifies all who wait. Returns how many those were. Never blocks.
    pub fn notify_all(self) -> u32 {
        let waiting = self.waiting();
        if waiting == 0 {
            return 0;
        }
        let current = thread::current();
        let outer = current.begin_inside(&self.queue.gate, &self.queue.node);
        // The commit. SeqCst: before the wake.
        let all = self.queue.all.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.queue.all.wake_all();
        self.queue.rung.store(all, Ordering::Relaxed);
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
        waiting
    }

    /// Notifies the one that has waited longest, if its age is not beyond `last`.
    pub(super) fn notify_oldest(self, current: Current, last: u64) -> bool {
        loop {
            let Some((slot, word, age)) = self.oldest().filter(|(_, _, age)| *age <= last) else {
                return false;
            };
            // From here on the kernel rings if this thread dies.
            let outer = current.begin_inside(&slot.bell, &slot.bell_node);
            let notified =
                slot.word.compare_exchange(word, word | WAITERS, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            if notified {
                // The same thread waits again, in the same slot: somebody may not have looked at it since.
                if slot.age.load(Ordering::SeqCst) != age {
                    self.queue.gate.wake_all();
                }
                slot.bell.wake(1);
            }
            if let Some(outer) = outer {
                current.end_inside(outer);
            }
            if notified {
                return true;
            }
        }
    }

    /// The slot that has waited longest, its word and its age.
    fn oldest(self) -> Option<(&'a Slot, u32, u64)> {
        let mut chosen = None;
        loop {
            let (slot, word, age) = self.look_for_oldest()?;
            if chosen == Some(age) {
                return Some((slot, word, age));
            }
            chosen = Some(age);
            // Pairs with the fence in `doze`, see there: the second look is the one that counts.
            fence(Ordering::SeqCst);
        }
    }

    /// One look at all slots. Notes how many are in use, if those are fewer than it seemed.
    fn look_for_oldest(self) -> Option<(&'a Slot, u32, u64)> {
        let places = self.queue.places.load(Ordering::SeqCst);
        let all = self.queue.all.load(Ordering::SeqCst);
        let mut oldest: Option<(&Slot, u32, u64)> = None;
        let mut used = 0;
        let slots = &self.slots[..((places & USED) as usize).min(self.slots.len())];
        for (index, slot) in slots.iter().enumerate() {
            if slot.is_used() {
                used = index as u64 + 1;
            }
            if let Some((word, age)) = slot.waits(all)
                && oldest.is_none_or(|(_, _, oldest)| age < oldest)
            {
                oldest = Some((slot, word, age));
            }
        }
        if used < places & USED {
            // Fails if anybody has come into sight since.
            let fewer = (places & !USED) | used;
            let _ = self.queue.places.compare_exchange(places, fewer, Ordering::SeqCst, Ordering::Relaxed);
        }
        oldest
    }
}
