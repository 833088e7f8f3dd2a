//! How a round ends: that it is over, why it was broken, and how one breaks it or begins anew.
//!
//! | round in the state | `BROKEN` | a party of round g reads its end from |
//! |---|---|---|
//! | g | no | nothing: it goes on |
//! | g | yes | the verdict in the seat that the state names |
//! | another | either | its own note: a verdict there, or none, and then the round was completed |
//!
//! # Reset
//!
//! A slow waiter may look at the state only when a reset has made it g + 1, and must not take that for
//! completion. So a reset breaks the round first, if it is not broken; then no more parties can count
//! themselves. Then it writes the verdict into the notes of all parties of the round, and only then begins
//! the next. Whoever finds another round looks into its own note. A reset that is killed on the way leaves
//! the barrier broken.

use crate::error::BrokenCause;
use crate::raw::RawBarrier;
use crate::seat::Seat;
use crate::word::{BROKEN, COUNT, SLEEPERS, arrived, cause_in, next_round, round_of, verdict};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::thread;

impl RawBarrier {
    /// How this party's round ended, if it has.
    #[inline(always)]
    pub(crate) fn end_of(&self, round: u32, seat: &Seat, state: u32) -> Option<Result<(), BrokenCause>> {
        let same = round_of(state) == round;
        if same && state & BROKEN == 0 {
            return None;
        }
        if same && let Some(cause) = self.cause_of(state) {
            return Some(Err(cause));
        }
        // Relaxed: who began another round passed the verdicts before.
        match cause_in(seat.note.load(Ordering::Relaxed), round) {
            Some(cause) => Some(Err(cause)),
            None => (!same).then_some(Ok(())),
        }
    }

    /// Why the round of this state was broken. `None` if it has been reset since.
    #[cold]
    pub(crate) fn cause_of(&self, state: u32) -> Option<BrokenCause> {
        let seat = self.seats.get((state & COUNT) as usize)?;
        // Acquire: if this is of a later round, the verdicts of this one are there.
        cause_in(seat.cause.load(Ordering::Acquire), round_of(state))
    }

    /// Breaks the round, if it is neither over nor broken.
    #[cold]
    pub(crate) fn break_round(&self, mine: &Seat, round: u32, cause: BrokenCause) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            if round_of(state) != round || state & BROKEN != 0 {
                return;
            }
            // Release: pairs with the Acquire in `cause_of`. Nobody looks at it before the state points here.
            mine.cause.store(verdict(round, cause), Ordering::Release);
            let number = self.seats.iter().position(|seat| core::ptr::eq(seat, mine)).unwrap_or(0) as u32;
            let broken = (state & !(COUNT | SLEEPERS)) | BROKEN | number;
            if self.state.compare_exchange(state, broken, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.state.wake_all();
                return;
            }
        }
    }

    /// Breaks the round that there is. Returns why it is broken.
    #[cold]
    pub(crate) fn break_as_outsider(&self, cause: BrokenCause) -> Option<BrokenCause> {
        let current = thread::current();
        let seat = self.take_outsider_seat(current);
        let cause = loop {
            let state = self.state.load(Ordering::Acquire);
            if state & BROKEN != 0 {
                break self.cause_of(state);
            }
            self.break_round(seat, round_of(state), cause);
        };
        seat.leave(current);
        cause
    }

    /// Ends the round for all who wait, and begins the next.
    pub(crate) fn begin_anew(&self, seat: &Seat, cause: BrokenCause) {
        let state = self.state.load(Ordering::Acquire);
        if state & (COUNT | BROKEN) == 0 {
            return;
        }
        let round = round_of(state);
        self.break_round(seat, round, cause);
        loop {
            let state = self.state.load(Ordering::Acquire);
            // Completed in this moment, or reset by another.
            if round_of(state) != round {
                return;
            }
            let Some(cause) = self.cause_of(state) else { continue };
            for party in &self.seats {
                // Relaxed: all who were counted were acquired with the state, and the next round releases the
                // verdicts.
                let _ = party.note.compare_exchange(
                    arrived(round),
                    verdict(round, cause),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            let next = next_round(state);
            if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // Who broke it may have died before it could.
                self.state.wake_all();
                return;
            }
        }
    }
}
