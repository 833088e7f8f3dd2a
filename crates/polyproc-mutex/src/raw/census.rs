//! The census: how many threads sleep on the lock, or are about to. It tells a holder of sleepers that no
//! mark in the word tells of, because who should have marked it has died.
//!
//! | census | means | to | by |
//! |---|---|---|---|
//! | number, 0 | nobody sleeps | number, 1 | who is about to sleep |
//! | number, n | n sleep, or were killed asleep | n + 1; n - 1 | the same; who wakes one, or one that wakes by itself |
//! | number, n | n were counted, and 16 wakes in a row found nobody | number + 1, 0 | the holder, which then wakes everybody |
//!
//! A waiter counts itself before it sleeps. The thread that wakes it takes it off, one that wakes for another
//! reason takes itself off. A killed waiter stays counted: then `WAITERS` is set although nobody sleeps,
//! which costs each unlock a system call and loses nothing. It heals by the last row: the living count
//! themselves again.

use super::RawMutex;
#[cfg(any(polyproc_loom, polyproc_shuttle))]
use crate::model::patience;
use polyproc_sys::atomic::{Ordering, fence_after_rmw};
use polyproc_sys::futex::WAITERS;
use polyproc_sys::thread::Current;

/// The bits of `census` that count. The others number it.
const COUNT: u32 = (1 << 22) - 1;
/// The next census.
const NEXT: u32 = COUNT + 1;

/// After so many wakes in a row that found nobody although the census is not empty, it is taken anew.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const fn patience() -> u32 {
    16
}

impl RawMutex {
    /// Right after the word was taken: do others sleep that it says nothing of?
    #[inline(always)]
    pub(super) fn look_at_census(&self) {
        // Pairs with the barrier between a waiter's entry in the census and its comparison of the word:
        // either it sees this thread's id there, or this thread sees its entry.
        fence_after_rmw();
        if self.has_waiters() {
            self.mark();
        }
    }

    #[inline(always)]
    fn has_waiters(&self) -> bool {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_blind() {
            return false;
        }
        self.census.load(Ordering::Relaxed) & COUNT != 0
    }

    /// Takes one off the census, if it is still the same.
    pub(super) fn take_off(&self, census: u32) {
        let mut now = self.census.load(Ordering::Relaxed);
        // Relaxed: the number is a hint on the way down; on the way up it is ordered, see `sleep`.
        while (now ^ census) & !COUNT == 0 && now & COUNT != 0 {
            match self.census.compare_exchange(now, now - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// After a release: wakes one sleeper and takes it off the census.
    #[cold]
    #[inline(never)]
    pub(super) fn wake_one(&self, current: Current) {
        let census = self.census.load(Ordering::Relaxed);
        if self.word.wake(1) == 1 {
            self.take_off(census);
            self.useless.store(0, Ordering::Relaxed);
        } else if census & COUNT != 0 {
            self.useless.fetch_add(1, Ordering::Relaxed);
        }
        current.end();
    }

    /// As the holder: others may be asleep that no mark in the word tells of.
    #[cold]
    #[inline(never)]
    fn mark(&self) {
        self.word.fetch_or(WAITERS, Ordering::Relaxed);
        if self.useless.load(Ordering::Relaxed) >= patience() {
            self.begin_census();
        }
    }

    /// As the holder, with the mark set: forgets who is counted and wakes whoever lives, to count themselves
    /// again.
    fn begin_census(&self) {
        self.useless.store(0, Ordering::Relaxed);
        let census = self.census.load(Ordering::Relaxed);
        let next = (census & !COUNT).wrapping_add(NEXT);
        if self.census.compare_exchange(census, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.word.wake_all();
        }
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use polyproc_sys::deadline::Deadline;
    use polyproc_testing::{wait_until, watchdog};

    fn lock(mutex: &RawMutex) {
        // SAFETY: the mutex of a test stays where it is to its end.
        unsafe { mutex.lock_until(Deadline::NEVER) }.unwrap();
    }

    fn unlock(mutex: &RawMutex) {
        // SAFETY: each caller has locked.
        unsafe { mutex.unlock() };
    }

    /// As if a thousand waiters had been killed, each after the lock had been released in vain often enough.
    #[test]
    fn the_numbers_of_censuses_wrap() {
        let _watchdog = watchdog();
        let mutex = RawMutex::new();
        let last = !COUNT;
        mutex.census.store(last, Ordering::Relaxed);
        for number in [last, 0, NEXT] {
            assert_eq!(mutex.census.load(Ordering::Relaxed), number);
            // Three have died, and nobody is left to take them off.
            mutex.census.store(number | 3, Ordering::Relaxed);
            mutex.useless.store(patience(), Ordering::Relaxed);
            lock(&mutex);
            let next = number.wrapping_add(NEXT);
            assert_eq!(mutex.census.load(Ordering::Relaxed), next);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    lock(&mutex);
                    unlock(&mutex);
                });
                wait_until("one is counted", || mutex.census.load(Ordering::Relaxed) == next + 1);
                // Who was counted in the one before takes nobody off.
                mutex.take_off(number | 3);
                assert_eq!(mutex.census.load(Ordering::Relaxed), next + 1);
                unlock(&mutex);
            });
            assert_eq!(mutex.census.load(Ordering::Relaxed), next, "nobody sleeps");
        }
    }
}
