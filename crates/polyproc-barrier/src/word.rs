//! The bits of the two words that the protocol turns on: the barrier's state, and what a seat says of its
//! party.

use crate::error::BrokenCause;

/// In the state: how many parties have come; while the action runs, all. Of a broken barrier, the seat of who
/// broke it.
pub(crate) const COUNT: u32 = (1 << 12) - 1;
/// In the state: somebody may be asleep on it.
pub(crate) const SLEEPERS: u32 = 1 << 12;
/// In the state: this round will not be completed.
pub(crate) const BROKEN: u32 = 1 << 13;

/// Where the state's number of the round begins.
const ROUND: u32 = 14;

/// The most parties: with twice as many seats and one more, each of which has a number of 12 bits.
pub const MAX_PARTIES: usize = 2047;

/// The number of the round that the state is of.
#[inline(always)]
pub(crate) fn round_of(state: u32) -> u32 {
    state >> ROUND
}

/// The state that the next round begins with.
#[inline(always)]
pub(crate) fn next_round(state: u32) -> u32 {
    (round_of(state).wrapping_add(1)) << ROUND
}

/// In a seat: its party has come to the round in the lowest bits, or is about to.
const ARRIVED: u64 = 1 << 20;
/// Where the kind of a cause begins. No kind is no cause.
const KIND: u32 = 24;
const KINDS: u64 = 0xff;
/// Where the process of a cause begins.
const PID: u32 = 32;
/// The bits of a round's number.
const NUMBER: u64 = (1 << (32 - ROUND)) - 1;

/// What a seat says while its party has come to this round, and nobody has passed a verdict on it.
#[inline(always)]
pub(crate) fn arrived(round: u32) -> u64 {
    ARRIVED | u64::from(round)
}

/// The round that a party without a verdict had come to.
pub(crate) fn round_arrived_at(note: u64) -> Option<u32> {
    (note & ARRIVED != 0 && note >> KIND & KINDS == 0).then_some((note & NUMBER) as u32)
}

/// Why this round was broken, as one word.
pub(crate) fn verdict(round: u32, cause: BrokenCause) -> u64 {
    let kind: u64 = match cause {
        BrokenCause::PartyDied { .. } => 1,
        BrokenCause::TimedOut { .. } => 2,
        BrokenCause::Aborted { .. } => 3,
        BrokenCause::Reset { .. } => 4,
        BrokenCause::ActionPanicked { .. } => 5,
    };
    arrived(round) | kind << KIND | u64::from(cause.pid()) << PID
}

/// Why the round was broken, if the word is a verdict on it.
pub(crate) fn cause_in(note: u64, round: u32) -> Option<BrokenCause> {
    let pid = (note >> PID) as u32;
    if note & NUMBER != u64::from(round) {
        return None;
    }
    match note >> KIND & KINDS {
        1 => Some(BrokenCause::PartyDied { pid }),
        2 => Some(BrokenCause::TimedOut { pid }),
        3 => Some(BrokenCause::Aborted { pid }),
        4 => Some(BrokenCause::Reset { pid }),
        5 => Some(BrokenCause::ActionPanicked { pid }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_numbered_around() {
        assert_eq!(round_of(next_round(3 | SLEEPERS)), 1);
        assert_eq!(next_round(u32::MAX), 0);
        assert_eq!(round_of(u32::MAX), NUMBER as u32);
        assert!(2 * MAX_PARTIES <= COUNT as usize);
    }

    #[test]
    fn a_verdict_says_what_it_was_given() {
        let pid = u32::MAX;
        for cause in [
            BrokenCause::PartyDied { pid },
            BrokenCause::TimedOut { pid },
            BrokenCause::Aborted { pid },
            BrokenCause::Reset { pid },
            BrokenCause::ActionPanicked { pid },
        ] {
            for round in [0, 1, NUMBER as u32] {
                let note = verdict(round, cause);
                assert_eq!(cause_in(note, round), Some(cause));
                assert_eq!(cause_in(note, round ^ 1), None);
                assert_eq!(round_arrived_at(note), None, "the verdict has been passed");
                assert_eq!(cause_in(arrived(round), round), None);
                assert_eq!(round_arrived_at(arrived(round)), Some(round));
            }
        }
        assert_eq!((cause_in(0, 0), round_arrived_at(0)), (None, None));
    }
}
