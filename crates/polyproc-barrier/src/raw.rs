//! The barrier's protocol.
//!
//! | page | has |
//! |---|---|
//! | here | the state, arriving, waiting, leading |
//! | [`ending`](crate::ending) | how a round ends, is broken and begun anew |
//! | [`seat`](crate::seat) | a party's seat |
//! | [`watch`](crate::watch) | how the parties watch over each other |
//! | [`word`](crate::word) | the bits of the state and of a seat's note |
//!
//! # The state
//!
//! One word: the number of the round (18 bits), whether it is `BROKEN`, whether there are `SLEEPERS`, and a
//! count.
//!
//! | round, count | meaning | next |
//! |---|---|---|
//! | g, k < n | open: k parties wait for the others | k + 1 by who arrives; `BROKEN`; without action, the last goes to g + 1, 0 in one step |
//! | g, n | the last to come, the *leader*, runs the action | g + 1, 0 by the leader; `BROKEN` |
//! | g, `BROKEN` | no more arrivals; the count is the number of the seat of who broke it | g + 1, 0 by a reset |
//!
//! All changes are compare-and-swaps from exactly the state that was seen. A wait is over when the round's
//! number differs from its own, or `BROKEN` is set. A waiter sets `SLEEPERS` before it sleeps; whoever ends a
//! round that has it set wakes all, and so does whoever breaks one.
//!
//! # Seats
//!
//! There are 2n + 1 seats. Before a party counts itself it takes a free one, announced as a lock under way
//! ([`begin`](Current::begin)) as long as it sits there: while it waits it does nothing else. If it dies, the
//! kernel marks the seat's word `OWNER_DIED` and wakes one who sleeps on it. While the leader runs the
//! action, which may take locks, its seat is in the list of the locks that it holds. The last seat is for
//! `abort` and `reset` alone, so that a full barrier can be broken.
//!
//! A seat has a *note*: the round that its party has come to, stored before the party counts itself.
//!
//! **A death breaks the round** if the note of the dead seat is of the round that the state is in. Before a
//! waiter sleeps, and when it has slept, it looks at all seats; so does the last to come, before it completes
//! the round. One who died after its round was complete has a note of an older round, and breaks nobody's.
//!
//! Whoever finds a dead seat *tidies up*: takes the seat over, so that it is its alone; breaks the round of
//! the note, if that is still open; wakes all; and only then frees the seat. Meanwhile its own seat is in the
//! list of its locks, and the dead one's is announced. If it dies on the way, both seats are dead, with their
//! notes. To free a dead seat without taking it over would be a race with one that sits down and dies there
//! in the same moment.
//!
//! # Why nobody sleeps for ever
//!
//! A waiter sleeps on the state *and* on the words of all seats at once (of those that are free as well:
//! whoever sits down there later will have it as its sleeper). It looks for dead seats first; if one dies
//! later, the sleep does not begin. What if a thread dies that others depend on?
//!
//! - **A party that waits**: the kernel wakes one sleeper. It finds the dead seat, breaks the round, and
//!   wakes all.
//! - **Whoever has completed or broken a round and not woken the sleepers yet**: it sits on a seat, so the
//!   kernel wakes one sleeper. It finds a dead seat, whatever its note, and wakes all.
//! - **The sleeper that was woken**: it sits on a seat; the kernel wakes the next.
//! - **Whoever tidies up**: both its seats are dead, with a sleeper woken for each.
//! - **The leader in its action**: its seat is in the list of its locks; as for a party that waits.
//!
//! So whoever has slept looks for dead seats before it goes on, even if its round is complete. A seat that it
//! finds taken over is in the hands of one who wakes all, or dies.
//!
//! # Left to the backstop
//!
//! - A thread that is *stopped* between ending a round and waking its sleepers keeps them asleep until
//!   their backstop ends.
//! - More than [`MAX_SLEEP`] words cannot be slept on at once. With more than 63 parties, a waiter looks at
//!   the seats beyond them every [`SLICE`](crate::watch::SLICE). Kernels before 5.16 sleep on one word only;
//!   there all waiters look every millisecond.
//! - More threads than there are seats wait for a free one by looking every millisecond.
//! - The round's number has 18 bits: a waiter that is stopped while exactly 262,144 rounds are completed
//!   without it, or a multiple, waits for one more.

use crate::error::{BrokenCause, WaitError};
use crate::seat::Seat;
use crate::watch::MAX_SLEEP;
use crate::word::{BROKEN, COUNT, MAX_PARTIES, SLEEPERS, arrived, next_round, round_of};
use core::any::Any;
use core::fmt;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, OWNER, Wait};
use polyproc_sys::thread::{self, Current};
use std::panic::resume_unwind;

/// A barrier in shared memory that the death of a party breaks.
///
/// This is the protocol alone: [`Barrier`](crate::Barrier) is what most programs want. Put a
/// `RawBarrier<[Seat; N]>` into memory of your own, with `2 * parties + 1` seats, and use it as a
/// `&RawBarrier`. All zero is a barrier that nobody waits at.
///
/// # Example
///
/// ```
/// use polyproc_barrier::{RawBarrier, Seat};
/// use polyproc_sys::deadline::Deadline;
///
/// static TWO: RawBarrier<[Seat; RawBarrier::seats(2)]> = RawBarrier::new();
/// let barrier: &RawBarrier = &TWO;
/// assert_eq!(barrier.parties(), 2);
///
/// let other = std::thread::spawn(|| barrier.wait_until(Deadline::NEVER, None).unwrap());
/// let (here, there) = (barrier.wait_until(Deadline::NEVER, None).unwrap(), other.join().unwrap());
/// assert_eq!(here.index + there.index, 1);
/// assert!(here.leader != there.leader);
/// ```
#[derive(Default)]
#[repr(C, align(64))]
pub struct RawBarrier<S: ?Sized = [Seat]> {
    pub(crate) state: Futex,
    /// How long it pays to look at the state before sleeping.
    hint: Patience,
    /// There is an action to be run: 0 or 1. Written before the barrier is shared.
    action: AtomicU32,
    pub(crate) seats: S,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(core::mem::offset_of!(RawBarrier<[Seat; 3]>, seats) == 64);
    assert!(size_of::<RawBarrier<[Seat; 3]>>() == 4 * 64);
};

/// A completed round, as one of its parties sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BarrierWait {
    /// When this party came: 0 is the first, `parties - 1` the last. No two of a round have the same.
    pub index: usize,
    /// Whether this is the last to come, which has run the action. One of each round is.
    pub leader: bool,
}

impl BarrierWait {
    /// Whether this is the leader, as `std::sync::BarrierWaitResult` says it.
    pub fn is_leader(&self) -> bool {
        self.leader
    }
}

/// Why a party does not get through.
enum Failure {
    Broken(BrokenCause),
    /// Its action panicked, with this.
    Panicked(Box<dyn Any + Send>),
}

impl From<BrokenCause> for Failure {
    fn from(cause: BrokenCause) -> Failure {
        Failure::Broken(cause)
    }
}

impl RawBarrier {
    /// How many seats a barrier for so many parties has.
    ///
    /// # Panics
    ///
    /// If there are no parties, or more than [`MAX_PARTIES`].
    pub const fn seats(parties: usize) -> usize {
        assert!(parties > 0 && parties <= MAX_PARTIES, "a barrier has 1 to 2047 parties");
        2 * parties + 1
    }

    /// How many parties complete a round.
    #[inline(always)]
    pub fn parties(&self) -> usize {
        // A model has one seat to spare, for a thread that takes the place of a dead one: each is a word more
        // to explore.
        if cfg!(any(polyproc_loom, polyproc_shuttle)) { self.seats.len() - 2 } else { self.seats.len() / 2 }
    }

    /// How many parties wait; 0 if the barrier is broken. The answer may be out of date by the time the
    /// caller looks at it.
    pub fn n_waiting(&self) -> usize {
        let state = self.state.load(Ordering::Relaxed);
        if state & BROKEN == 0 { (state & COUNT) as usize } else { 0 }
    }

    /// The processes of those who sit here: those that wait, and those that are just coming or going.
    pub fn pids(&self) -> Vec<u32> {
        let taken = |seat: &&Seat| seat.word.load(Ordering::Relaxed) & OWNER != 0;
        self.seats.iter().filter(taken).map(|seat| seat.pid.load(Ordering::Relaxed)).collect()
    }

    /// Why the barrier is broken, if it is.
    pub fn broken_cause(&self) -> Option<BrokenCause> {
        let state = self.state.load(Ordering::Acquire);
        if state & BROKEN == 0 { None } else { self.cause_of(state) }
    }

    /// Whether it was said that there is an action.
    #[inline]
    pub fn has_action(&self) -> bool {
        self.action.load(Ordering::Relaxed) != 0
    }

    /// Says that there is an action, before anybody else knows of the barrier. Each party has to know what it
    /// is.
    pub fn announce_action(&self) {
        self.action.store(1, Ordering::Relaxed);
    }

    /// Waits for the others, until the deadline, which breaks the barrier for all. A deadline that has passed
    /// breaks it unless this party is the last to come. The last to come runs the action first.
    ///
    /// If the action panics, the barrier is broken, and the panic goes on here.
    ///
    /// # Errors
    ///
    /// [`WaitError::Broken`] and [`WaitError::TooManyLocks`].
    #[inline]
    pub fn wait_until(
        &self,
        deadline: Deadline,
        action: Option<&dyn Fn()>,
    ) -> Result<BarrierWait, WaitError> {
        let current = thread::current();
        // The seat may come into the list of its locks: in the action, and while it tidies up.
        if !current.has_room() {
            return Err(WaitError::TooManyLocks);
        }
        let forks = thread::forks();
        let Some(seat) = self.take_party_seat(current, deadline) else {
            let cause = BrokenCause::TimedOut { pid: current.pid() };
            return Err(self.break_as_outsider(cause).unwrap_or(cause).into());
        };
        let result = self.arrive(current, seat, deadline, action);
        // A child that the action has forked is nobody at the barrier.
        if thread::forks() == forks {
            seat.leave(current);
        }
        match result {
            Ok(wait) => Ok(wait),
            Err(Failure::Broken(cause)) => Err(cause.into()),
            Err(Failure::Panicked(payload)) => resume_unwind(payload),
        }
    }

    /// Breaks the barrier for all who wait and all who will come, until a reset. A barrier that is already
    /// broken stays as it is.
    pub fn abort(&self) {
        self.break_as_outsider(BrokenCause::Aborted { pid: thread::current().pid() });
    }

    /// Makes the barrier as new. Whoever waits is told that the barrier is broken. A barrier that is not
    /// broken and at which nobody waits stays as it is.
    pub fn reset(&self) {
        let current = thread::current();
        let seat = self.take_outsider_seat(current);
        // A party that died before it was counted has left its note.
        if current.has_room() {
            self.tidy_up_beside(current, seat);
        }
        self.begin_anew(seat, BrokenCause::Reset { pid: current.pid() });
        seat.leave(current);
    }

    /// Counts this party, and sees its round to the end.
    #[inline]
    fn arrive(
        &self,
        current: Current,
        seat: &Seat,
        deadline: Deadline,
        action: Option<&dyn Fn()>,
    ) -> Result<BarrierWait, Failure> {
        let parties = self.parties();
        let mut expired = deadline == Deadline::PAST;
        loop {
            // Acquire: pairs with the changes of the state, in `cause_of` too.
            let state = self.state.load(Ordering::Acquire);
            let (round, index) = (round_of(state), (state & COUNT) as usize);
            if state & BROKEN != 0 {
                match self.cause_of(state) {
                    Some(cause) => return Err(cause.into()),
                    None => continue, // It is reset by now.
                }
            }
            if index >= parties {
                // All are there, and the leader runs the action: this party is one for the next round.
                seat.note.store(0, Ordering::Relaxed);
                if expired {
                    self.break_round(seat, round, BrokenCause::TimedOut { pid: current.pid() });
                } else {
                    self.sleep(current, seat, state, deadline);
                    expired = deadline.has_passed();
                }
                continue;
            }
            // Before the count, so that who is counted has a note. Relaxed: the count releases it to a reset;
            // and to who tidies up, the death does.
            seat.note.store(arrived(round), Ordering::Relaxed);
            let leader = index + 1 == parties;
            // Who is known to be dead completes no round.
            if leader && self.tidy_up_beside(current, seat) {
                continue;
            }
            let next = if leader && action.is_none() { next_round(state) } else { state + 1 };
            // AcqRel: each party hands on what those before it did, and the last takes it all. The waiters
            // take it by their Acquire of the next round.
            if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            match action {
                _ if !leader => self.wait_for_the_others(current, seat, round, deadline)?,
                Some(action) => self.lead(current, seat, round, action)?,
                None if state & SLEEPERS != 0 => _ = self.state.wake_all(),
                None => {}
            }
            return Ok(BarrierWait { index, leader });
        }
    }

    /// As a party that has been counted, and was not the last.
    #[inline]
    fn wait_for_the_others(
        &self,
        current: Current,
        seat: &Seat,
        round: u32,
        deadline: Deadline,
    ) -> Result<(), BrokenCause> {
        let look = || self.end_of(round, seat, self.state.load(Ordering::Acquire));
        let early = if deadline == Deadline::PAST { None } else { self.hint.look(look) };
        match early {
            Some(end) => end,
            None => self.sleep_until_the_end(current, seat, round, deadline),
        }
    }

    #[cold]
    #[inline(never)]
    fn sleep_until_the_end(
        &self,
        current: Current,
        seat: &Seat,
        round: u32,
        deadline: Deadline,
    ) -> Result<(), BrokenCause> {
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if let Some(end) = self.end_of(round, seat, state) {
                if rescued {
                    futex::count_backstop_rescue();
                }
                return end;
            }
            if expired {
                self.break_round(seat, round, BrokenCause::TimedOut { pid: current.pid() });
                continue;
            }
            let wait = self.sleep(current, seat, state, deadline);
            expired = deadline.has_passed();
            rescued = wait == Wait::TimedOut && !expired && self.seats.len() < MAX_SLEEP;
        }
    }

    /// As the last to come: runs the action, and lets the others go.
    #[cold]
    #[inline(never)]
    fn lead(&self, current: Current, seat: &Seat, round: u32, action: &dyn Fn()) -> Result<(), Failure> {
        let mut result = Ok(());
        if !self.stay_listed(current, seat, || result = call(action)) {
            // In a child that the action has forked: its parent is the leader.
            return result.map_err(Failure::Panicked);
        }
        if let Err(payload) = result {
            self.break_round(seat, round, BrokenCause::ActionPanicked { pid: current.pid() });
            return Err(Failure::Panicked(payload));
        }
        loop {
            let state = self.state.load(Ordering::Acquire);
            if let Some(end) = self.end_of(round, seat, state) {
                return end.map_err(Failure::Broken);
            }
            // AcqRel: what the action did is there for those who see the next round.
            let next = next_round(state);
            if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                if state & SLEEPERS != 0 {
                    self.state.wake_all();
                }
                return Ok(());
            }
        }
    }
}

/// Runs the action, and catches its panic.
fn call(action: &dyn Fn()) -> Result<(), Box<dyn Any + Send>> {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    {
        action(); // A thread of a model vanishes by unwinding, which is not to be caught.
        Ok(())
    }
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(action))
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
impl<const N: usize> RawBarrier<[Seat; N]> {
    /// A barrier that nobody waits at. For how many seats it takes, see [`seats`](RawBarrier::seats).
    pub const fn new() -> RawBarrier<[Seat; N]> {
        const { assert!(N >= 3 && N <= 2 * MAX_PARTIES + 1 && N % 2 == 1, "2 * parties + 1 seats") };
        RawBarrier {
            state: Futex::new(0),
            hint: Patience::new(),
            action: AtomicU32::new(0),
            seats: [const { Seat::new() }; N],
        }
    }
}

impl fmt::Debug for RawBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawBarrier")
            .field("parties", &self.parties())
            .field("n_waiting", &self.n_waiting())
            .field("broken", &self.broken_cause())
            .finish_non_exhaustive()
    }
}

#[cfg(any(polyproc_loom, polyproc_shuttle))]
impl RawBarrier {
    /// Whether the first round is open, and this process, which is dead, had not come to it: then nobody but
    /// the test ends it.
    pub(crate) fn is_untouched_by(&self, dead: u32) -> bool {
        // The seat of a dead party keeps its pid and its note until its round is broken.
        let came = |seat: &Seat| {
            seat.pid.load(Ordering::SeqCst) == dead
                && crate::word::round_arrived_at(seat.note.load(Ordering::SeqCst)).is_some()
        };
        let came = self.seats.iter().any(came);
        let state = self.state.fetch_add(0, Ordering::SeqCst);
        round_of(state) == 0 && state & BROKEN == 0 && !came
    }

    /// The round's number.
    pub(crate) fn round(&self) -> u32 {
        round_of(self.state.fetch_add(0, Ordering::SeqCst))
    }
}
