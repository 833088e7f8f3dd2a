//! [`Chase`]: how long a consumer leaves the producers alone before it looks for more.
//!
//! A consumer that has taken all it knew of looks where the producers have come to. If it is as fast as they
//! are, it finds one message, takes it, looks again, and finds one message. Then each message moves three
//! cache lines between the two processors, one of them under the producer's hands, and both sides go at the
//! pace of these lines. A pause before the look breaks it: meanwhile the producers write several messages
//! undisturbed, which are then taken in one go.
//!
//! It pays only if they do write more meanwhile. Some do not: they wait for an answer, or the queue is full.
//! So a longer pause has to find more than the one before it. If not, there is none for the next [`REST`]
//! looks. A look that finds nothing halves it: where the queue is empty, whoever waits for news looks by its
//! own rules.
//!
//! Only the holder of the consumers' lock is here. It is a hint: whatever a dead one leaves is good.

use crate::layout::HEADER;
use core::hint::spin_loop;
use polyproc_sys::atomic::{AtomicU32, Ordering};

/// The shortest pause, in spins.
const SHORTEST: u32 = 16;
/// The longest: a microsecond or a few.
const LONGEST: u32 = 128;
/// So many bytes are enough for one look.
const ENOUGH: u64 = 2 << 10;
/// After a pause in vain, for so many looks none.
const REST: u32 = 64;

/// All zero is no pause.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Chase {
    /// The pause; above [`LONGEST`], how many looks without one are left.
    pause: AtomicU32,
    /// What the last look found, in bytes.
    found: AtomicU32,
}

impl Chase {
    /// Before a look.
    #[inline(always)]
    pub(crate) fn pause(&self) {
        let pause = self.pause.load(Ordering::Relaxed);
        if pause <= LONGEST {
            for _ in 0..pause {
                spin_loop();
            }
        }
    }

    /// After a look that found so many bytes, in a queue that holds so many messages at most, zero for any
    /// number.
    #[inline(always)]
    pub(crate) fn learn(&self, found: u64, most: u64) {
        let pause = self.pause.load(Ordering::Relaxed);
        if pause > LONGEST + 1 {
            return self.pause.store(pause - 1, Ordering::Relaxed);
        }
        // A small queue is never far from full.
        let enough = if most == 0 { ENOUGH } else { ENOUGH.min(most * HEADER) };
        if found < enough || pause > LONGEST {
            self.adapt(pause, found as u32);
        }
    }

    #[inline(never)]
    fn adapt(&self, pause: u32, found: u32) {
        let before = self.found.load(Ordering::Relaxed);
        let next = match pause {
            0 if found != 0 => SHORTEST,
            resting if resting > LONGEST => 0,
            _ if found == 0 => pause / 2 / SHORTEST * SHORTEST,
            _ if found > before => (pause * 2).min(LONGEST),
            _ => LONGEST + REST,
        };
        self.pause.store(next, Ordering::Relaxed);
        self.found.store(found, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many looks, of which each finds what `found` says of its pause. Returns the pauses of all.
    fn looks(chase: &Chase, count: u32, most: u64, found: impl Fn(u32) -> u64) -> Vec<u32> {
        let look = |_| {
            let pause =
                Some(chase.pause.load(Ordering::Relaxed)).filter(|pause| *pause <= LONGEST).unwrap_or(0);
            chase.learn(found(pause), most);
            pause
        };
        (0..count).map(look).collect()
    }

    #[test]
    fn pauses_that_pay_become_longer_until_it_is_enough() {
        // 24 bytes a spin, beside what comes by itself.
        let pauses = looks(&Chase::default(), 100, 0, |pause| 72 + 24 * u64::from(pause));
        assert_eq!(pauses[..5], [0, 16, 32, 64, 128]);
        assert!(pauses[5..].iter().all(|pause| *pause == 128), "{pauses:?}");
        let pauses = looks(&Chase::default(), 100, 0, |pause| 72 + 60 * u64::from(pause));
        assert!(pauses[3..].iter().all(|pause| *pause == 64), "{pauses:?}");
    }

    #[test]
    fn pauses_in_vain_are_rare() {
        // Whoever puts waits for an answer to each four.
        let pauses = looks(&Chase::default(), 1_000, 0, |_| 4 * 72);
        let sum: u32 = pauses.iter().sum();
        assert!(sum <= (1_000 / REST + 1) * SHORTEST, "{sum} spins");
        assert!(sum >= SHORTEST, "tried");
    }

    #[test]
    fn a_small_queue_is_not_waited_for() {
        assert_eq!(looks(&Chase::default(), 10, 8, |_| 64), [0; 10]);
        assert_eq!(looks(&Chase::default(), 10, 0, |_| ENOUGH), [0; 10]);
    }

    #[test]
    fn where_nothing_comes_the_pauses_end() {
        let chase = Chase::default();
        looks(&chase, 10, 0, |pause| 72 + 24 * u64::from(pause));
        assert_eq!(looks(&chase, 6, 0, |_| 0), [128, 64, 32, 16, 0, 0]);
    }
}
