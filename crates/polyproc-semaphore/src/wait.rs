//! How a thread comes by a permit when the first cell that it looked at had none.
//!
//! | it | pending | what ends it |
//! |---|---|---|
//! | looks at all cells | the gate; at a cell, that cell | a permit |
//! | brings permits into cells, see [`supply`](crate::supply) | the gate | another look |
//! | pauses, if nobody sleeps | the gate | another look |
//! | sleeps, having announced itself at the door and marked the cells | the gate | a wake, of whichever word; its deadline |

use crate::cell::{Cell, FREE};
use crate::raw::RawSemaphore;
use crate::supply::Refilled;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::backoff::Backoff;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, OWNER_DIED, WAIT_ANY_MAX, WAITERS, Wait};
use polyproc_sys::thread::Current;

/// How a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There may be news.
    News,
    /// The deadline has passed.
    Expired,
    /// The backstop ended it.
    Backstop,
}

impl RawSemaphore<'_> {
    /// Takes a permit, sooner or later, and returns its index; not linked yet. `None` when the deadline has
    /// passed.
    pub(crate) fn wait_for_one(self, current: Current, start: usize, deadline: Deadline) -> Option<usize> {
        let mut backoff = Backoff::new();
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        loop {
            // While asleep too: see `raw` on who dies with a wake in its hands.
            current.begin(&self.head.gate, &self.head.node);
            if let Some(index) = self.take_one(current, start) {
                if rescued {
                    futex::count_backstop_rescue();
                }
                return Some(index);
            }
            let refilled = self.refill(current);
            if refilled == Refilled::Yes {
                continue;
            }
            // Somebody at the gate is gone in a moment; who does not want to wait waits that long, if not for
            // ever.
            if expired && !(refilled == Refilled::Busy && backoff.pause()) {
                return None;
            }
            // Whoever finds that others sleep already does not try to be cleverer than they.
            if expired || (self.head.door.is_quiet() && backoff.pause()) {
                continue;
            }
            let rest = self.sleep(deadline);
            expired = rest == Rest::Expired;
            rescued = rest == Rest::Backstop;
            backoff.reset();
        }
    }

    /// Takes a permit out of a cell, if one lies there.
    fn take_one(self, current: Current, start: usize) -> Option<usize> {
        let known = self.known();
        let start = if start < known { start } else { 0 };
        (start..known).chain(0..start).find(|index| self.take(current, &self.cells[*index]))
    }

    /// Takes the permit out of a cell, if one lies there. Pending then is the cell; if not, the gate, as
    /// before.
    fn take(self, current: Current, cell: &Cell) -> bool {
        loop {
            let word = cell.word.load(Ordering::Relaxed);
            if word & OWNER_DIED != 0 {
                // `FREE` first: if this thread died with a word pending that is neither that nor its own, a
                // wake that was spent on it would be lost. SeqCst: acquires what the dead released, for who
                // takes it next.
                let _ = cell.word.compare_exchange(word, FREE, Ordering::SeqCst, Ordering::Relaxed);
                continue;
            }
            if word != FREE {
                return false;
            }
            // If others sleep, the kernel is to wake one from the step on that takes it.
            let others = if self.head.door.is_quiet() { 0 } else { WAITERS };
            current.begin(&cell.word, &cell.node);
            // SeqCst: as in `acquire_until`.
            let taken = current.tid() | others;
            if cell.word.compare_exchange(FREE, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return true;
            }
            current.begin(&self.head.gate, &self.head.node);
        }
    }

    /// Sleeps until there may be news.
    fn sleep(self, deadline: Deadline) -> Rest {
        let door = self.head.door.announce();
        let gate = self.head.gate.load(Ordering::Relaxed);
        let mut words = [(&self.head.gate, gate); WAIT_ANY_MAX];
        words[1] = door;
        let mut count = 2;
        let known = self.known();
        for cell in &self.cells[..known] {
            let Some(word) = cell.watched() else { return Rest::News };
            if let Some(entry) = words.get_mut(count) {
                *entry = (&cell.word, word);
                count += 1;
            }
        }
        // A dead thread at the gate is for who is awake, and so is a permit in no cell; but if somebody is
        // moving it just now, that one tells.
        if gate & OWNER_DIED != 0 || (gate == 0 && self.can_refill()) {
            return Rest::News;
        }
        let all = known + 2 == count && !self.is_stuck();
        match futex::wait_any(&words[..count], if all { deadline.or_backstop() } else { slice(deadline) }) {
            Wait::TimedOut if deadline.has_passed() => Rest::Expired,
            Wait::TimedOut if all => Rest::Backstop,
            _ => Rest::News,
        }
    }
}

/// Where not everything that counts can be slept on.
fn slice(deadline: Deadline) -> Deadline {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    return deadline;
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    deadline.min(Deadline::after(futex::WAIT_ANY_SLICE))
}
