//! How the parties watch over each other: to take a seat, to sleep, and to tidy up after the dead. Why it is
//! done so is said in [`raw`](crate::raw).

use crate::error::BrokenCause;
use crate::raw::RawBarrier;
use crate::seat::{FREE, Seat};
use crate::word::{SLEEPERS, round_arrived_at};
use core::time::Duration;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, WAIT_ANY_MAX, Wait, Waiter};
use polyproc_sys::thread::{self, Current};

/// The most words that a waiter sleeps on.
pub(crate) const MAX_SLEEP: usize = WAIT_ANY_MAX;
/// How often it looks at the others.
pub(crate) const SLICE: Duration = Duration::from_millis(10);
/// How often one that has found no free seat looks for one.
const NO_SEAT: Duration = Duration::from_millis(1);

impl RawBarrier {
    /// Sleeps while the state and all seats stay as they are.
    pub(crate) fn sleep(&self, current: Current, mine: &Seat, state: u32, deadline: Deadline) -> Wait {
        let marked = state | SLEEPERS;
        // Relaxed: nothing rides on the mark. Who ends the round sees it, or this fails.
        if state != marked
            && self.state.compare_exchange(state, marked, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Wait::Changed;
        }
        let mut words: [Waiter<'_>; MAX_SLEEP] = [(&self.state, marked); MAX_SLEEP];
        let mut deaths = false;
        for (index, seat) in self.seats.iter().enumerate() {
            let word = seat.word.load(Ordering::Relaxed);
            deaths |= Seat::is_dead(word);
            if let Some(entry) = words.get_mut(index + 1) {
                *entry = (&seat.word, word);
            }
        }
        if deaths {
            self.tidy_up_beside(current, mine);
            return Wait::Changed;
        }
        let deadline = if self.seats.len() < MAX_SLEEP {
            deadline.or_backstop()
        } else {
            deadline.min(Deadline::after(SLICE))
        };
        let wait = futex::wait_any(&words[..MAX_SLEEP.min(self.seats.len() + 1)], deadline);
        // The wake may have been for a death, and meant for all.
        self.tidy_up_beside(current, mine);
        wait
    }

    /// [`tidy_up`](RawBarrier::tidy_up), by one that sits here itself. Returns whether there was anything to
    /// tidy up.
    #[inline]
    pub(crate) fn tidy_up_beside(&self, current: Current, mine: &Seat) -> bool {
        // Relaxed: who tidies up looks again. What the kernel wrote before it woke a sleeper is seen by that.
        if !self.seats.iter().any(|seat| Seat::is_dead(seat.word.load(Ordering::Relaxed))) {
            return false;
        }
        self.stay_listed(current, mine, || _ = self.tidy_up(current));
        true
    }

    /// Does something for which other seats or locks are announced, with this thread's own seat in the list
    /// of its locks. `false` in a child that it has forked, which does not sit here.
    #[cold]
    #[inline(never)]
    pub(crate) fn stay_listed(&self, current: Current, mine: &Seat, f: impl FnOnce()) -> bool {
        // SAFETY: the seat's word bears this thread's id, the seat is in no list, and it stays mapped while
        // `self` is borrowed, which is until it is taken out below.
        unsafe { current.link(&mine.word, &mine.node) };
        let forks = thread::forks();
        f();
        if thread::forks() != forks {
            return false;
        }
        current.begin(&mine.word, &mine.node);
        // SAFETY: linked above by this thread, in this process.
        unsafe { current.unlink(&mine.word, &mine.node) };
        true
    }

    /// A seat for a party. `None` if none has become free by the deadline.
    #[inline]
    pub(crate) fn take_party_seat(&self, current: Current, deadline: Deadline) -> Option<&Seat> {
        let (_, seats) = self.seats.split_last()?;
        self.take_seat(current, seats, deadline)
    }

    /// A seat for one who is not a party: nearly always the last, if need be any.
    pub(crate) fn take_outsider_seat(&self, current: Current) -> &Seat {
        loop {
            let last = self.seats.len().saturating_sub(1);
            let (parties, outsiders) = self.seats.split_at(last);
            for seats in [outsiders, parties] {
                if let Some(seat) = self.take_seat(current, seats, Deadline::PAST) {
                    return seat;
                }
            }
            #[cfg(any(polyproc_loom, polyproc_shuttle))]
            polyproc_sys::model::yield_now();
            #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
            std::thread::sleep(NO_SEAT);
        }
    }

    /// Sits down on the first of these that is free: so the seats that are used are few, and near.
    #[inline]
    fn take_seat<'a>(&'a self, current: Current, seats: &'a [Seat], deadline: Deadline) -> Option<&'a Seat> {
        loop {
            for seat in seats {
                // Relaxed: only worth a try.
                if seat.word.load(Ordering::Relaxed) == FREE && seat.take(current, FREE) {
                    seat.sign(current);
                    return Some(seat);
                }
            }
            if !self.tidy_up(current) {
                if deadline.has_passed() {
                    current.end();
                    return None;
                }
                let state = self.state.load(Ordering::Relaxed);
                self.state.wait(state, deadline.min(Deadline::after(NO_SEAT)));
                #[cfg(any(polyproc_loom, polyproc_shuttle))]
                polyproc_sys::model::yield_now();
            }
        }
    }

    /// Takes over the seats of the dead, does what is left to do for them, and frees them. Whether there were
    /// any.
    #[cold]
    #[inline(never)]
    fn tidy_up(&self, current: Current) -> bool {
        let mut found = false;
        for seat in &self.seats {
            let word = seat.word.load(Ordering::Relaxed);
            if !Seat::is_dead(word) || !seat.take(current, word) {
                continue;
            }
            found = true;
            // This thread's alone now, with the note of the dead. If it dies here, the next finds the same.
            if let Some(round) = round_arrived_at(seat.note.load(Ordering::Relaxed)) {
                let pid = seat.pid.load(Ordering::Relaxed);
                self.break_round(seat, round, BrokenCause::PartyDied { pid });
            }
            self.state.wake_all();
            seat.leave(current);
        }
        found
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use polyproc_sys::futex::{OWNER_DIED, WAITERS};
    use std::time::Instant;

    /// How often this process's threads have gone to sleep.
    fn sleeps() -> u64 {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let status = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
        let count = |status: String| {
            let line =
                status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned();
            line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()
        };
        status.map(count).sum()
    }

    /// One who died when its round was complete does not keep those awake who wait in the next.
    #[test]
    fn the_dead_of_an_older_round_let_the_others_sleep() {
        static BARRIER: RawBarrier<[Seat; RawBarrier::seats(3)]> = RawBarrier::new();
        let barrier: &RawBarrier = &BARRIER;
        std::thread::scope(|scope| {
            let wait = || barrier.wait_until(Deadline::NEVER, None);
            let waiters = [scope.spawn(wait), scope.spawn(wait)];
            let start = Instant::now();
            while barrier.n_waiting() < 2 {
                assert!(start.elapsed() < Duration::from_secs(10));
                std::thread::yield_now();
            }
            // The kernel's part, for a seat that nobody sits on.
            let dead = barrier.seats.iter().find(|seat| seat.word.load(Ordering::Relaxed) == FREE).unwrap();
            dead.word.store(OWNER_DIED | WAITERS, Ordering::SeqCst);
            dead.word.wake(1);
            while dead.word.load(Ordering::SeqCst) != FREE {
                assert!(start.elapsed() < Duration::from_secs(10), "nobody has tidied up");
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            let before = sleeps();
            std::thread::sleep(Duration::from_millis(100));
            assert!(sleeps() - before < 50, "they keep each other awake");
            assert_eq!((barrier.n_waiting(), barrier.broken_cause()), (2, None));
            assert_eq!(wait().map(|wait| wait.index), Ok(2));
            waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap().is_ok()));
        });
    }
}
