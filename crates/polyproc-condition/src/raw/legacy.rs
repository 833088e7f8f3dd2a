//! What the dead have left, which those that are awake see to: before they come into sight, and each time
//! before they sleep.
//!
//! | what is found | what is done |
//! |---|---|
//! | a slot `OWNER_DIED` + `WAITERS`: its waiter died with a notification | the slot is taken as it is, the oldest is notified, the slot is freed |
//! | `rung` behind `all`: the notifier died in `notify_all` | everybody is woken |
//!
//! Whoever dies at it leaves the same, or has done it: a slot that it owns is again one of a waiter that died
//! with a notification.

use super::RawCondition;
use super::place::{LEGACY, Slot};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::futex::WAITERS;
use polyproc_sys::thread::Current;

impl RawCondition<'_> {
    /// Does what dead waiters and dead notifiers left undone.
    pub(super) fn settle(self, current: Current) {
        for slot in self.used() {
            if slot.word.load(Ordering::Acquire) == LEGACY {
                self.pass_on(current, slot);
            }
        }
        // Acquire: pairs with the commit of `notify_all`.
        let all = self.queue.all.load(Ordering::Acquire);
        if self.queue.rung.load(Ordering::Relaxed) != all {
            self.queue.all.wake_all();
            self.queue.rung.store(all, Ordering::Relaxed);
        }
    }

    /// Passes on the notification that a dead waiter left in its slot. Leaves the gate pending.
    #[cold]
    fn pass_on(self, current: Current, slot: &Slot) {
        // For the instruction between the next two, in which a death would go unseen: somebody else knows as
        // well.
        self.queue.gate.wake(1);
        current.begin(&slot.word, &slot.node);
        let own = current.tid() | WAITERS;
        if slot.word.compare_exchange(LEGACY, own, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            // SAFETY: taken just now; the caller of `wait` keeps it mapped.
            unsafe { current.link(&slot.word, &slot.node) };
            // Everybody who waited when it was notified has been notified since, if `all` is another.
            if slot.since.load(Ordering::Relaxed) == self.queue.all.load(Ordering::SeqCst) {
                self.notify_oldest(current, u64::MAX);
            }
            // SAFETY: entered above.
            unsafe { self.vacate(current, slot) };
        }
        current.begin(&self.queue.gate, &self.queue.node);
    }
}
