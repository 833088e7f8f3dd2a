//! A waiter: it comes into sight, sleeps, and goes.
//!
//! | it | its slot's word | its slot's age | pending |
//! |---|---|---|---|
//! | takes a slot | free, then its tid | 0 | the slot |
//! | is in sight, and releases its lock | tid | its place in the queue | the slot, then its lock |
//! | looks, settles what the dead left, sleeps | tid, with `WAITERS` once it is notified | the same | the gate |
//! | takes its lock again | tid + `WAITERS`, or after a `notify_all` its tid | the same | its lock |
//! | gives the slot back, with its lock; or out of time, without | `FREE` | 0 | the slot |
//!
//! # What it sleeps on
//!
//! - its own *bell*, always 0, on which it is the only sleeper, and its own word, so that it does not fall
//!   asleep notified;
//! - `all`;
//! - the word of every other slot that is taken: there the kernel wakes one if a notified waiter dies;
//! - the *gate*, always 0.
//!
//! While it sleeps, and until it has looked after the dead, the gate is what the waiter has pending
//! ([`Current::begin`]). If it dies with a wake-up in its hands, the kernel therefore wakes another at the
//! gate. Whoever is woken, by whatever, looks for slots of dead waiters with a notification and passes them
//! on.

use super::place::{AGELESS, FREE, LEGACY, SILENT, Slot, USED, USED_BITS};
use super::{Ended, RawCondition, SLICE};
use polyproc_sys::atomic::{Ordering, fence};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, OWNER, OWNER_DIED, WAIT_ANY_MAX, WAITERS, Wait, Waiter, wait_any};
use polyproc_sys::thread::Current;

/// How a sleep ended.
pub(super) enum Awake {
    /// Notified, and still with its slot.
    WithSlot,
    /// Out of time when it gave its slot back.
    Without(Ended),
}

impl<'a> RawCondition<'a> {
    /// Takes a slot and comes into sight. `None` if all are taken.
    ///
    /// # Safety
    ///
    /// As for [`wait`](RawCondition::wait).
    pub(super) unsafe fn appear(self, current: Current, all: u32) -> Option<&'a Slot> {
        // Out of sight still: what the dead left is for those who waited then, or for nobody.
        self.settle(current);
        // SAFETY: the caller's.
        let (index, slot) = unsafe { self.claim(current) }?;
        // Relaxed, both: the Release of the age below publishes them.
        slot.pid.store(current.pid(), Ordering::Relaxed);
        slot.since.store(all, Ordering::Relaxed);
        // SeqCst: after the slot was taken, before it is in sight. Pairs with the load in `look_for_oldest`,
        // whose attempt to note fewer fails then, and with the Acquire in `used`. Relaxed: what is read
        // first, the compare-and-swap checks.
        let mut places = self.queue.places.load(Ordering::Relaxed);
        loop {
            let used = (places & USED).max(index as u64 + 1);
            let next = ((places & !USED) + USED + 1) | used;
            match self.queue.places.compare_exchange(places, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => places = other,
            }
        }
        // Release: pairs with the Acquire in `waits`.
        slot.age.store((places >> USED_BITS) + 1, Ordering::Release);
        Some(slot)
    }

    /// Takes a free slot, and enters it in the thread's list. Its age is 0.
    ///
    /// # Safety
    ///
    /// As for [`wait`](RawCondition::wait).
    unsafe fn claim(self, current: Current) -> Option<(usize, &'a Slot)> {
        for (index, slot) in self.slots.iter().enumerate() {
            // Relaxed: the compare-and-swap checks it.
            let word = slot.word.load(Ordering::Relaxed);
            if !matches!(word, FREE | OWNER_DIED) {
                continue;
            }
            current.begin(&slot.word, &slot.node);
            // The age of the dead is still there. A slot that seems to be notified is let alone by notifiers.
            let taken = if word == FREE { current.tid() } else { current.tid() | WAITERS };
            // SeqCst: pairs with the swap in `vacate`, so that this is after all that the one before it did
            // in the slot; and before the change of `places` in `appear`.
            if slot.word.compare_exchange(word, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                // SAFETY: taken just now; the caller keeps it mapped.
                unsafe { current.link(&slot.word, &slot.node) };
                if word != FREE {
                    // SeqCst, both: who reads this word, by the Acquire in `waits`, does not read the age of
                    // the dead after it.
                    slot.age.store(AGELESS, Ordering::SeqCst);
                    slot.word.store(current.tid(), Ordering::SeqCst);
                }
                return Some((index, slot));
            }
        }
        None
    }

    /// Sleeps until `own` is notified, or the deadline.
    ///
    /// # Safety
    ///
    /// The slot is this thread's.
    pub(super) unsafe fn sleep(self, current: Current, own: &Slot, all: u32, deadline: Deadline) -> Awake {
        // Acquire, both: pair with the compare-and-swap in `notify_oldest` and the commit of `notify_all`.
        let is_notified = || {
            own.word.load(Ordering::Acquire) != current.tid() || self.queue.all.load(Ordering::Acquire) != all
        };
        let mut expired = deadline == Deadline::PAST;
        if !expired {
            self.queue.patience.look(|| is_notified().then_some(()));
        }
        let mut rescued = false;
        loop {
            // From here on another is woken if this thread dies with what it may have been woken for.
            current.begin(&self.queue.gate, &self.queue.node);
            self.settle(current);
            if is_notified() {
                if rescued {
                    futex::count_backstop_rescue();
                }
                current.end();
                return Awake::WithSlot;
            }
            if expired {
                // SAFETY: the caller's.
                return unsafe { self.give_up(current, own, all) };
            }
            rescued = false;
            if self.doze(current, own, all, deadline) == Wait::TimedOut {
                expired = deadline.has_passed();
                rescued = !expired;
            }
        }
    }

    /// Sleeps until something happens that a waiter has to look at.
    fn doze(self, current: Current, own: &Slot, all: u32, deadline: Deadline) -> Wait {
        let mut words: [Waiter<'_>; WAIT_ANY_MAX] = [(&own.bell, SILENT); WAIT_ANY_MAX];
        words[1] = (&own.word, current.tid());
        words[2] = (&self.queue.all, all);
        words[3] = (&self.queue.gate, SILENT);
        let mut count = 4;
        let mut deadline = deadline.or_backstop();
        let mut crowded = false;
        // Pairs with the fence in `oldest`: either the notifier sees that this thread waits, or this thread
        // sees every slot that the notifier saw.
        fence(Ordering::SeqCst);
        for slot in self.used().iter().filter(|slot| !core::ptr::eq(*slot, own)) {
            // Acquire: pairs with the compare-and-swap of who takes the slot. The fence decides what is seen.
            let word = slot.word.load(Ordering::Acquire);
            if word == LEGACY {
                return Wait::Changed;
            }
            if word & OWNER == 0 {
                continue;
            }
            if count == WAIT_ANY_MAX {
                crowded = true;
                deadline = deadline.min(Deadline::after(SLICE));
                break;
            }
            words[count] = (&slot.word, word);
            count += 1;
        }
        match wait_any(&words[..count], deadline) {
            Wait::TimedOut if crowded => Wait::Changed,
            wait => wait,
        }
    }

    /// Out of time: gives the slot back, unless it has been notified.
    ///
    /// # Safety
    ///
    /// The slot is this thread's.
    #[cold]
    unsafe fn give_up(self, current: Current, own: &Slot, all: u32) -> Awake {
        current.begin(&own.word, &own.node);
        // SAFETY: `claim` entered it.
        unsafe { current.unlink(&own.word, &own.node) };
        // SeqCst, both: whoever reads the free word, by the Acquire in `waits` or when it takes the slot,
        // does not read this age after it. If the word is another, it is the compare-and-swap in
        // `notify_oldest` that came before.
        own.age.store(AGELESS, Ordering::SeqCst);
        let free = own.word.compare_exchange(current.tid(), FREE, Ordering::SeqCst, Ordering::Relaxed);
        if free.is_err() {
            // SAFETY: still this thread's; taken out of the list above.
            unsafe { current.link(&own.word, &own.node) };
            current.end();
            return Awake::WithSlot;
        }
        current.end();
        // Whoever saw it wait has committed before it was free. SeqCst: after that, and pairs with the commit
        // of `notify_all`.
        let notified = self.queue.all.load(Ordering::SeqCst) != all;
        Awake::Without(if notified { Ended::Notified } else { Ended::TimedOut })
    }

    /// Frees a slot that this thread owns.
    ///
    /// # Safety
    ///
    /// It is in the thread's list.
    pub(super) unsafe fn vacate(self, current: Current, slot: &Slot) {
        current.begin(&slot.word, &slot.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&slot.word, &slot.node) };
        // SeqCst, both: as in `give_up`; the next one in this slot is after it.
        slot.age.store(AGELESS, Ordering::SeqCst);
        slot.word.swap(FREE, Ordering::SeqCst);
        current.end();
    }
}
