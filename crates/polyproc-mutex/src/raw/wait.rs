//! How a thread comes by a lock that somebody holds: it looks, it pauses, it sleeps. And how others sleep
//! beside the lock, who want to hear of its holders and not to have it.
//!
//! | a thread | sees the word | is in the census | who takes it off |
//! |---|---|---|---|
//! | looks, or pauses | free, or held | no | |
//! | sleeps | tid + `WAITERS`, which the kernel compares once more | yes | who wakes it |
//! | goes on, not having been woken | anything | still | itself |
//!
//! All the while the lock is pending, unless the word bears this thread's own id: if it dies with a wake-up
//! in its hands, the kernel passes that on. What [`raw`](super) says of deaths rests on this.

use super::{RawMutex, Refusal};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::backoff::Backoff;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, OWNER, OWNER_DIED, WAITERS, Wait, Waiter};
use polyproc_sys::thread::{self, Current};

impl RawMutex {
    /// Takes the word, sooner or later. Returns whether it was a dead thread's.
    pub(super) fn wait_for_it(&self, current: Current, deadline: Deadline) -> Result<bool, Refusal> {
        let mut backoff = Backoff::new();
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        // Whether others may sleep that the word says nothing of: to be set in the same step that takes it.
        let mut others = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let mine = word & OWNER == current.tid();
            if mine {
                // By the id alone. If it is another thread's, of another PID namespace, then the kernel would
                // take its lock for this thread's, and release it, if this thread died with the lock pending.
                current.end();
            } else {
                // While asleep too: see `raw` on who dies with a wake in its hands.
                current.begin(&self.word, &self.node);
            }
            if word & OWNER == 0 {
                if rescued {
                    futex::count_backstop_rescue();
                    rescued = false;
                }
                let taken = current.tid() | (word & WAITERS) | others;
                // SeqCst: as in `lock_until`.
                if self.word.compare_exchange(word, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                    return Ok(word & OWNER_DIED != 0);
                }
                continue;
            }
            if expired {
                return Err(Refusal::TimedOut);
            }
            if mine && deadline == Deadline::NEVER && current.holds(&self.word, &self.node) {
                return Err(Refusal::OwnedByCaller);
            }
            // Whoever finds that others sleep already does not try to be cleverer than they.
            if word & WAITERS == 0 && backoff.pause() {
                continue;
            }
            // Only a backstop that ended to find the lock free is a rescue; not one after which it slept on.
            rescued = false;
            match self.sleep(word, deadline) {
                Wait::Woken => others = WAITERS,
                Wait::TimedOut => {
                    expired = deadline.has_passed();
                    rescued = !expired;
                }
                Wait::Changed | Wait::Interrupted => {}
            }
            backoff.reset();
        }
    }

    /// Sleeps while `word`, which shows an owner, stays as it is.
    fn sleep(&self, word: u32, deadline: Deadline) -> Wait {
        // SeqCst: before the comparison, see `look_at_census`. The count must stand before the mark: a holder
        // that sees the mark and wakes takes one off.
        let census = self.census.fetch_add(1, Ordering::SeqCst);
        let marked = word | WAITERS;
        let wait = if word == marked
            || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        {
            self.word.wait(marked, deadline.or_backstop())
        } else {
            Wait::Changed
        };
        if wait != Wait::Woken {
            self.take_off(census);
        }
        wait
    }

    /// Sleeps until a holder has released the lock, dies with it, or one of `others` is woken, unless there
    /// is `news` already: for those who are not after the lock but after what its holders do. If nobody holds
    /// the lock, only `others` wake.
    ///
    /// Whoever takes the lock after this thread has looked, and so does not see that it sleeps, has to be
    /// told of it by one of `others`.
    #[doc(hidden)]
    pub fn listen(&self, others: &[Waiter<'_>], deadline: Deadline, news: impl FnOnce() -> bool) -> Wait {
        let deadline = deadline.or_backstop();
        // SeqCst: after whatever `others` say of this thread, and before the look at the news.
        let word = self.word.load(Ordering::SeqCst);
        if word & OWNER == 0 {
            return if news() { Wait::Changed } else { futex::wait_any(others, deadline) };
        }
        let current = thread::current();
        // As in `wait_for_it`: pending while asleep, but not on a namesake's lock.
        let mine = word & OWNER == current.tid();
        let outer = if mine { None } else { current.begin_inside(&self.word, &self.node) };
        // In the census, as anybody who sleeps on the word, so that who wakes it may take it off.
        let census = self.census.fetch_add(1, Ordering::SeqCst);
        let marked = word | WAITERS;
        let is_marked = word == marked
            || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        let (wait, woken_here) = if is_marked && !news() {
            let mut words = others.to_vec();
            words.push((&self.word, marked));
            futex::wait_any_and_last(&words, deadline)
        } else {
            (Wait::Changed, false)
        };
        if woken_here {
            self.pass_on();
        } else {
            self.take_off(census);
        }
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
        wait
    }

    /// As one who was woken here and does not want the lock: the wake may have been meant for one who does.
    /// The census cannot be relied upon for it: a new one may have begun since that one was counted.
    fn pass_on(&self) {
        loop {
            let word = self.word.load(Ordering::SeqCst);
            if word & OWNER == 0 {
                let census = self.census.load(Ordering::Relaxed);
                if self.word.wake(1) == 1 {
                    self.take_off(census);
                }
                return;
            }
            // The holder's release wakes.
            let marked = word | WAITERS;
            if word == marked
                || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
    }
}
