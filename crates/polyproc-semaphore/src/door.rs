//! The door: whether somebody may be asleep, and news for whoever is about to be.
//!
//! It is a number and a state.
//!
//! | door | to | by |
//! |---|---|---|
//! | quiet, told | asleep, next number | who is about to sleep; it looks at all cells after that, and marks those that are held |
//! | asleep, told | told, next number | who has news; it wakes one at the gate after that |
//! | told | quiet, same number | the same, if it woke nobody and nobody has come |
//!
//! News is: a release of a cell with `WAITERS`, more permits (`release`), the end of a turn at the gate while
//! a permit is there, and a permit left by one who has waited and got another.

use polyproc_sys::atomic::{Ordering, fence};
use polyproc_sys::futex::{Futex, Waiter};

/// What the lowest bits say; the others are a number that never comes twice.
const STATE: u32 = 3;
/// Nobody sleeps.
const NOBODY: u32 = 0;
/// Somebody may sleep: the last to change the door was on its way to bed.
const ASLEEP: u32 = 1;
/// Somebody may sleep: the last to change the door had news.
const TOLD: u32 = 2;
/// The next number.
const NEXT: u32 = 4;

/// A word to sleep on; see the table above.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Door(Futex);

impl Door {
    /// Quiet.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub(crate) const fn new() -> Door {
        Door(Futex::new(NOBODY))
    }

    /// Whether nobody sleeps. Relaxed: callers have a fence before it where it matters.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATE == NOBODY
    }

    /// Says that the caller is about to sleep. What it sees of the semaphore from here on is news to it; what
    /// it returns is to be slept on.
    pub(crate) fn announce(&self) -> Waiter<'_> {
        let mut now = self.0.load(Ordering::Relaxed);
        // Several who go to sleep together share a number: they do not keep each other awake.
        while now & STATE != ASLEEP {
            let next = numbered(now, ASLEEP);
            match self.0.compare_exchange(now, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => now = next,
                Err(other) => now = other,
            }
        }
        // Pairs with the fences of `tell` and of whoever takes a permit: either they see the door, or the
        // caller's look at the permits, which comes now, sees what they did.
        fence(Ordering::SeqCst);
        (&self.0, now)
    }

    /// There is news: wakes up to `count` of those who sleep, if any do, and has all of those look again who
    /// are about to.
    pub(crate) fn tell(&self, gate: &Futex, count: u32) {
        // Pairs with the fence of `announce`.
        fence(Ordering::SeqCst);
        let mut now = self.0.load(Ordering::Relaxed);
        let told = loop {
            if now & STATE == NOBODY {
                return;
            }
            // First the number, then the wake: else one who is not asleep yet learns of nothing, and sleeps
            // on if the one who was woken dies.
            let told = numbered(now, TOLD);
            match self.0.compare_exchange(now, told, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break told,
                Err(other) => now = other,
            }
        };
        if gate.wake(count) == 0 {
            // Nobody slept then, and nobody has come since if the door is as it was. Relaxed: nothing rides
            // on it; who comes next sees it or changes it.
            let _ = self.0.compare_exchange(told, told & !STATE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn numbered(now: u32, state: u32) -> u32 {
    (now & !STATE).wrapping_add(NEXT) | state
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
#[allow(unsafe_code, reason = "for the protocol as it is, without handles")]
mod tests {
    use super::*;
    use crate::{Cell, Head, RawSemaphore};
    use polyproc_sys::deadline::Deadline;
    use polyproc_testing::{wait_until, watchdog};

    /// As if there had been news 2^30 times, less a few: which takes no more than an hour.
    #[test]
    fn numbers_wrap() {
        let _watchdog = watchdog();
        let (head, cells) = (Head::new(), [Cell::new()]);
        let before = !STATE - 3 * NEXT;
        head.door.0.store(before, Ordering::Relaxed);
        let semaphore = RawSemaphore::new(&head, &cells);
        // SAFETY: head and cells stay where they are to the end of the test.
        let acquire = || unsafe { semaphore.acquire_until(0, Deadline::NEVER) }.unwrap();
        // SAFETY: each caller has acquired it.
        let put_back = |permit| unsafe { semaphore.put_back(permit) };
        for _ in 0..5 {
            let permit = acquire();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| put_back(acquire()));
                wait_until("it is about to sleep", || !head.door.is_quiet());
                put_back(permit);
                waiter.join().unwrap();
            });
        }
        assert!(head.door.0.load(Ordering::Relaxed) < before, "they did not wrap");
        // Both steps, each by itself.
        let (door, gate) = (Door(Futex::new(!STATE)), Futex::new(0));
        assert_eq!(door.announce().1, ASLEEP);
        door.0.store(!STATE | ASLEEP, Ordering::Relaxed);
        door.tell(&gate, 1);
        assert_eq!(door.0.load(Ordering::Relaxed), NOBODY, "nobody slept");
    }
}
