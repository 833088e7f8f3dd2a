//! The condition's protocol.
//!
//! | page | has |
//! |---|---|
//! | [`place`] | what is in memory: a queue, a slot for each waiter, and the table of a slot's states |
//! | [`waiter`] | coming into sight, sleeping, going |
//! | [`notifier`] | finding the oldest and notifying it; notifying all |
//! | [`legacy`] | what dead waiters and dead notifiers have left |
//!
//! # Why no notification is lost
//!
//! - **The notifier dies.** It has the bell of whom it notifies pending, which is 0: the kernel rings it in
//!   its place, and its waiter looks whether it has been notified. In `notify_all` it has the gate pending;
//!   the waiter that the kernel wakes there sees that `rung` is behind `all` and wakes everybody.
//! - **A notified waiter dies**, awake or not, before it is back in the lock. All who wait sleep on its slot,
//!   or will look at it before they sleep: the kernel wakes one of them, which passes it on. That all do is
//!   because notifications go oldest first. A waiter takes its slot before its age, and looks at the other
//!   slots after it is in sight. A notifier looks twice before it decides, and so whoever waits is either
//!   preferred to the chosen one or looks after it was there.
//! - **Who passes it on dies**: if it owned the slot, the same again. Before that, it has woken another at
//!   the gate, to look as well.
//! - **Nobody else waits**: the notification is spent. The slot is freed by the next that begins to wait,
//!   before it is in sight itself.
//! - **A waiter that has the lock back and still its slot**: both are released. The next holder finds the
//!   lock poisoned, and the notification goes to another. After that it is a holder like any other.
//!
//! A slot is free for those who begin to wait as soon as it can be. If all are taken, one more waiter sleeps
//! for a millisecond at most and returns as if notified: it never misses anything, and it polls.
//!
//! # What is left
//!
//! To the backstop ([`polyproc_sys::deadline::BACKSTOP`]), nothing that is known. But if *two* die, a
//! notified waiter and the one that passes its notification on or takes its slot, there may be one wake-up
//! too many, never one too few: if the second dies between notifying the oldest and giving up the slot, or
//! between taking a slot and clearing its age.

mod legacy;
mod notifier;
mod place;
mod waiter;

pub use place::{MOST_SLOTS, Queue, Slot};

use core::fmt;
use place::USED;
use polyproc_mutex::Refusal;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{OWNER, WAITERS};
use polyproc_sys::thread;
use std::time::Duration;
use waiter::Awake;

/// How long one sleeps that got no slot, or has too many others to watch.
const SLICE: Duration = Duration::from_millis(1);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a notification; or for no reason, which happens if all slots were taken.
    Notified,
    /// With its deadline.
    TimedOut,
}

/// A condition variable in shared memory: the protocol alone, for any lock.
///
/// [`Condition`](crate::Condition) is what most programs want. To build something else, put a [`Queue`] and
/// some [`Slot`]s, one for each that waits at the same time, into memory of your own, all zero at first.
///
/// # Example
///
/// ```
/// use polyproc_condition::{Ended, Queue, RawCondition, Slot};
/// use polyproc_mutex::RawMutex;
/// use polyproc_sys::deadline::Deadline;
/// use std::time::Duration;
///
/// let (queue, slots) = (Queue::new(), [Slot::new(), Slot::new()]);
/// let condition = RawCondition::new(&queue, &slots);
/// let mutex = RawMutex::new();
/// let lock = || {
///     // SAFETY: the mutex stays where it is, to the end of this example.
///     unsafe { mutex.lock_until(Deadline::NEVER) }.unwrap();
/// };
/// lock();
/// // SAFETY: the slots stay where they are, this thread holds the lock, and nothing here panics.
/// let waited = unsafe {
///     condition.wait(Deadline::after(Duration::from_millis(1)), || mutex.unlock(), lock)
/// };
/// assert_eq!(waited, Ok(((), Ended::TimedOut))); // Nobody notified.
/// // SAFETY: locked again by `wait`.
/// unsafe { mutex.unlock() };
/// ```
#[derive(Clone, Copy)]
pub struct RawCondition<'a> {
    queue: &'a Queue,
    slots: &'a [Slot],
}

impl<'a> RawCondition<'a> {
    /// The condition that is made of these.
    ///
    /// # Panics
    ///
    /// If there are more slots than [`MOST_SLOTS`].
    pub fn new(queue: &'a Queue, slots: &'a [Slot]) -> RawCondition<'a> {
        assert!(slots.len() <= MOST_SLOTS, "a condition has at most {MOST_SLOTS} slots");
        RawCondition { queue, slots }
    }

    /// Calls `release`, waits for a notification, and calls `retake`. Returns what that did, and how the wait
    /// ended.
    ///
    /// Whoever notifies after `release` has begun to release the lock, with the lock held or not, notifies
    /// this waiter too.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyLocks`]: nothing was done, the lock is still held.
    ///
    /// # Safety
    ///
    /// The queue and the slots stay mapped, at this address, until the call has returned or the thread has
    /// ended. `release` and `retake` do not panic, and leave the thread with as many locks as it had.
    pub unsafe fn wait<R>(
        self,
        deadline: Deadline,
        release: impl FnOnce(),
        retake: impl FnOnce() -> R,
    ) -> Result<(R, Ended), Refusal> {
        let current = thread::current();
        // The slot takes the place of the lock, which is free again while this thread sleeps, for a dead
        // waiter's slot.
        if !current.has_room() {
            return Err(Refusal::TooManyLocks);
        }
        let all = self.queue.all.load(Ordering::SeqCst);
        // SAFETY: the caller's.
        let Some(own) = (unsafe { self.appear(current, all) }) else {
            current.end();
            release();
            self.queue.all.wait(all, deadline.min(Deadline::after(SLICE)));
            let notified = self.queue.all.load(Ordering::Acquire) != all || !deadline.has_passed();
            return Ok((retake(), if notified { Ended::Notified } else { Ended::TimedOut }));
        };
        release();
        // SAFETY: `appear` took the slot for this thread.
        let awake = unsafe { self.sleep(current, own, all, deadline) };
        let retaken = retake();
        let ended = match awake {
            Awake::Without(ended) => ended,
            Awake::WithSlot => {
                // SAFETY: as above, and `sleep` says that it still has it.
                unsafe { self.vacate(current, own) };
                Ended::Notified
            }
        };
        Ok((retaken, ended))
    }

    /// How many wait and have not been notified. The answer may be out of date by the time the caller looks
    /// at it.
    pub fn waiting(self) -> u32 {
        self.waiters().count() as u32
    }

    /// The processes of those who wait and have not been notified.
    pub fn waiters(self) -> impl Iterator<Item = u32> + use<'a> {
        let all = self.queue.all.load(Ordering::SeqCst);
        let waiting = self.used().iter().filter(move |slot| slot.waits(all).is_some());
        waiting.map(|slot| slot.pid.load(Ordering::Relaxed))
    }

    /// How many have been notified one by one, and are not yet back in their lock.
    pub fn returning(self) -> u32 {
        let notified = |slot: &&Slot| {
            let word = slot.word.load(Ordering::Relaxed);
            word & WAITERS != 0 && word & OWNER != 0
        };
        self.used().iter().filter(notified).count() as u32
    }

    /// The slots that may be in use.
    fn used(self) -> &'a [Slot] {
        let used = (self.queue.places.load(Ordering::Acquire) & USED) as usize;
        &self.slots[..used.min(self.slots.len())]
    }
}

impl fmt::Debug for RawCondition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCondition")
            .field("waiters", &self.waiters().collect::<Vec<_>>())
            .field("returning", &self.returning())
            .field("slots", &self.slots.len())
            .finish()
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use polyproc_mutex::RawMutex;
    use polyproc_testing::{wait_until, watchdog};

    /// As if all had been notified 2^32 times, less a few.
    #[test]
    fn the_number_of_times_that_all_were_notified_wraps() {
        let _watchdog = watchdog();
        let (queue, slots, mutex) = (Queue::new(), [const { Slot::new() }; 3], RawMutex::new());
        let condition = RawCondition::new(&queue, &slots);
        queue.all.store(u32::MAX - 1, Ordering::Relaxed);
        queue.rung.store(u32::MAX - 1, Ordering::Relaxed);
        let lock = || {
            // SAFETY: the mutex stays where it is to the end of the test.
            unsafe { mutex.lock_until(Deadline::NEVER) }.unwrap();
        };
        // SAFETY: each caller has locked.
        let unlock = || unsafe { mutex.unlock() };
        for times in 0..4u32 {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        lock();
                        // SAFETY: queue and slots stay where they are, the lock is held, and nothing here
                        // panics.
                        let waited = unsafe { condition.wait(Deadline::NEVER, unlock, lock) };
                        unlock();
                        assert_eq!(waited, Ok(((), Ended::Notified)));
                    });
                }
                wait_until("both wait", || condition.waiting() == 2);
                assert_eq!(condition.notify_all(), 2);
            });
            assert_eq!(queue.all.load(Ordering::Relaxed), times.wrapping_sub(1));
            assert_eq!(queue.rung.load(Ordering::Relaxed), times.wrapping_sub(1));
        }
    }
}
