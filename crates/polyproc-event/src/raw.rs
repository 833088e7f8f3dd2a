//! The event's protocol.
//!
//! # The word
//!
//! | bits | name | meaning |
//! |---|---|---|
//! | 0 | `SET` | the event is set |
//! | 1 | `WAITERS` | somebody may be asleep, or was before the event was set |
//! | 2 | `SPLIT` | a setter has had to set and wake in two steps; never taken away |
//! | 3 to 31 | generation | how many times it was cleared, wrapping |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | unset | set | `set` | compare-and-swap |
//! | unset + `WAITERS` | set + `WAITERS`, and everybody woken | `set` | one system call, FUTEX_WAKE_OP |
//! | set | set, unchanged | `set` | compare-and-swap |
//! | set, with or without `WAITERS` | unset, next generation | `clear` | compare-and-swap |
//! | unset | unset + `WAITERS` | who is about to sleep | compare-and-swap |
//! | any | with `SPLIT` | `set` in a sandbox, see below | or |
//!
//! A wait is over when the event is set, or when the generation is not the one that the wait began in: then
//! the event was set in between, and cleared again. So whoever waited before a set and clear in quick
//! succession goes on, however late it looks. A sleep is conditional on the word as it was with `WAITERS`, so
//! whoever changes the word first keeps the waiter awake.
//!
//! # Why nobody sleeps for ever
//!
//! Somebody sleeps on the word only while it is unset with `WAITERS`, in the generation that it waits in.
//! From there only `set` leads anywhere, and it goes that way by one system call, in which the kernel sets
//! the bit and wakes all sleepers: a thread that is killed has either not begun it, or ends only after it.
//! There is no state in which the event is set and the sleepers are still to be woken, and so nothing that a
//! death could leave undone, of whomever, and of however many. Nobody has to be found dead, and nothing in
//! here needs the kernel's robust list; nor does a sleep need a backstop, which would cost a timer.
//!
//! - **A setter dies**: it has set the event and woken everybody, or it has done neither.
//! - **A waiter dies**: it leaves `WAITERS` behind, at the most. The next `set` makes a system call that
//!   wakes nobody, and the `clear` after it takes the mark away.
//! - **A process of another PID namespace** takes part like any other: the word has no thread ids.
//!
//! In a *sandbox* that forbids FUTEX_WAKE_OP, set and wake are two steps, and a setter that is killed between
//! them leaves the sleepers to the backstop ([`polyproc_sys::deadline::BACKSTOP`]). For this they have to
//! have one. So such a setter first sets `SPLIT` and wakes everybody, who look again and go back to sleep,
//! from now on with a backstop; whoever is about to sleep without one finds the word changed. Only then it
//! sets the event. If it is killed before that, it has not set it, and the next one begins anew.
//!
//! What nothing is done about: an event that is set and cleared 2^29 times while one waiter is between its
//! look at the word and its sleep, so that the generation is the same again.
//!
//! # Order
//!
//! What was done before `set` is visible after a wait that it ended. A `set` of an event that is set already
//! is a read-modify-write for the same reason: the `clear` after it, another read-modify-write, acquires it,
//! so that a thread that clears the event and then looks for work finds what was announced before. All
//! changes of the word are read-modify-writes, so one that comes in between does not break the chain.

use core::fmt;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, Wait};

/// The event is set.
const SET: u32 = 1;
/// Somebody may be asleep.
const WAITERS: u32 = 2;
/// A setter has had to set and wake in two steps, so sleeps need a backstop.
const SPLIT: u32 = 4;
/// One more generation; the bits from here up count them.
const GENERATION: u32 = 8;

/// An event in shared memory: eight bytes, in which no death leaves anything undone.
///
/// This is the protocol alone, without a handle. [`Event`](crate::Event) is what most programs want. Put a
/// `RawEvent` into memory of your own, shared or not, to build something else on it. All zero is an event
/// that is not set.
///
/// `set`, `clear` and `is_set` are for signal handlers too.
///
/// # Example
///
/// ```
/// use polyproc_event::RawEvent;
/// use polyproc_sys::deadline::Deadline;
///
/// static READY: RawEvent = RawEvent::new();
///
/// assert!(!READY.wait_until(Deadline::PAST));
/// READY.set();
/// assert!(READY.wait_until(Deadline::NEVER));
/// ```
#[derive(Default)]
#[repr(C)]
pub struct RawEvent {
    /// See the tables above.
    word: Futex,
    /// How long it pays to look before sleeping.
    patience: Patience,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = assert!(size_of::<RawEvent>() == 8 && align_of::<RawEvent>() == 4);

impl RawEvent {
    /// An event that is not set.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> RawEvent {
        RawEvent { word: Futex::new(0), patience: Patience::new() }
    }

    /// An event that is not set.
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub fn new() -> RawEvent {
        RawEvent::default()
    }

    /// Sets the event and wakes everybody who waits for it. Never waits. Async-signal-safe.
    #[inline]
    pub fn set(&self) {
        // A guess: if it is wrong, the processor has the cache line for itself by now, which a plain look
        // would not give.
        let mut word = 0;
        loop {
            // SeqCst: releases what the caller did before to whoever sees the event set, and acquires nothing
            // that anybody promised; but a caller that looks at other memory next shall see what was there
            // when the event was set. Relaxed on failure: only a value to try again with.
            match self.word.compare_exchange(word, word | SET, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) if now & (SET | WAITERS) == WAITERS => {
                    // The kernel's change of the word is a full barrier, and in the order of the others.
                    if !self.word.set_bit_and_wake_all(SET) {
                        self.set_in_two_steps();
                    }
                    return;
                }
                Err(now) => word = now,
            }
        }
    }

    /// In a sandbox.
    #[cold]
    fn set_in_two_steps(&self) {
        // SeqCst: the order counts, and the last as in `set`.
        self.word.fetch_or(SPLIT, Ordering::SeqCst);
        self.word.wake_all();
        // From here on all who sleep have a backstop.
        self.word.fetch_or(SET, Ordering::SeqCst);
        self.word.wake_all();
    }

    /// Clears the event. Whoever waited while it was set goes on all the same. Never waits.
    /// Async-signal-safe.
    #[inline]
    pub fn clear(&self) {
        let mut word = self.word.load(Ordering::SeqCst);
        while word & SET != 0 {
            // SeqCst: acquires what was done before the `set`s that this takes back.
            match self.word.compare_exchange(word, cleared(word), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Whether the event is set. Async-signal-safe.
    #[inline]
    pub fn is_set(&self) -> bool {
        // SeqCst: acquires what was done before the `set`; and two events are seen in one order by everybody.
        self.word.load(Ordering::SeqCst) & SET != 0
    }

    /// Waits until the event is set, or until the deadline. Whether it was set at any time since the call
    /// began.
    #[inline]
    pub fn wait_until(&self, deadline: Deadline) -> bool {
        // SeqCst: as in `is_set`.
        let word = self.word.load(Ordering::SeqCst);
        word & SET != 0 || self.wait_for(word, deadline)
    }

    /// Waits until the event is set, or was, in the generation of this word.
    #[cold]
    #[inline(never)]
    fn wait_for(&self, mut word: u32, deadline: Deadline) -> bool {
        let unset = word & !(WAITERS | SPLIT);
        let is_over = |word: u32| word & !(WAITERS | SPLIT) != unset;
        // SeqCst: as in `is_set`, for a pulse as well: the `clear` of it is part of the `set`'s release
        // sequence.
        let look = || Some(self.word.load(Ordering::SeqCst)).filter(|word| is_over(*word));
        if deadline == Deadline::PAST {
            return look().is_some();
        }
        if self.patience.look(look).is_some() {
            return true;
        }
        loop {
            let marked = word | WAITERS;
            if word != marked {
                // SeqCst: as above, if it fails because the event was set.
                let result = self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::SeqCst);
                if let Err(now) = result {
                    if is_over(now) {
                        return true;
                    }
                    word = now;
                    continue;
                }
            }
            let wait =
                self.word.wait(marked, if word & SPLIT == 0 { deadline } else { deadline.or_backstop() });
            word = self.word.load(Ordering::SeqCst);
            let expired = wait == Wait::TimedOut && deadline.has_passed();
            if is_over(word) {
                if wait == Wait::TimedOut && !expired {
                    futex::count_backstop_rescue();
                }
                return true;
            }
            if expired {
                return false;
            }
        }
    }

    /// What is to be shown of it.
    pub(crate) fn debug(&self, mut to: fmt::DebugStruct<'_, '_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        to.field("set", &(word & SET != 0))
            .field("awaited", &(word & (SET | WAITERS) == WAITERS))
            .field("cleared", &(word / GENERATION))
            .finish()
    }

    /// Whether somebody may be asleep. For models, which want to know whether a wait has begun.
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub fn is_awaited(&self) -> bool {
        self.word.load(Ordering::SeqCst) & WAITERS != 0
    }
}

/// The word of an event that was set, once cleared.
#[inline(always)]
fn cleared(word: u32) -> u32 {
    (word & !(SET | WAITERS)).wrapping_add(GENERATION)
}

impl fmt::Debug for RawEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.debug(f.debug_struct("RawEvent"))
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_cleared_event_is_in_its_next_generation() {
        assert_eq!(cleared(SET), GENERATION);
        assert_eq!(cleared(GENERATION | SET | WAITERS), 2 * GENERATION);
        assert_eq!(cleared(u32::MAX), SPLIT);
        assert_eq!(cleared(!SPLIT), 0);
    }

    /// As if it had been set and cleared 2^29 times, less a few.
    #[test]
    fn generations_wrap() {
        let raw = RawEvent { word: Futex::new(0u32.wrapping_sub(2 * GENERATION)), patience: Patience::new() };
        for _ in 0..4 {
            assert!(!raw.wait_until(Deadline::after(Duration::from_millis(1))));
            let before = raw.word.load(Ordering::Relaxed) & !WAITERS;
            raw.set();
            assert!(raw.is_set() && raw.wait_until(Deadline::NEVER));
            raw.clear();
            assert!(!raw.is_set());
            // Who has waited since then is not kept waiting by the clear.
            assert!(raw.wait_for(before, Deadline::NEVER));
        }
    }

    #[test]
    fn the_mark_of_a_waiter_goes_with_the_clear() {
        let raw = RawEvent::new();
        assert!(!raw.wait_until(Deadline::after(Duration::from_millis(1))));
        assert_eq!(raw.word.load(Ordering::Relaxed), WAITERS);
        raw.set();
        assert_eq!(raw.word.load(Ordering::Relaxed), SET | WAITERS);
        raw.clear();
        assert_eq!(raw.word.load(Ordering::Relaxed), GENERATION);
    }
}
