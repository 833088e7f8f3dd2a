//! How long to spin before sleeping.
//!
//! A sleeping thread costs some 20 µs to wake on another CPU; a cache line passes in a tenth of one. So
//! whoever finds a lock taken spins first, but leaves the holder alone meanwhile: each look at the lock takes
//! its cache line away from the one CPU that could release it. The pauses double from look to look, and in
//! the longer ones the thread offers its CPU to others, because the holder may be waiting for just that.

use crate::atomic::{AtomicU32, Ordering};
use core::hint::spin_loop;
use std::time::{Duration, Instant};

/// Pauses that get longer, up to a bound.
#[derive(Debug)]
pub struct Backoff {
    step: u32,
    /// When the first yield was.
    yielding: Option<Instant>,
}

/// Up to this step, a pause is `2^step` spin hints; beyond, it is a yield of the CPU, then two, then four,
/// and so on.
const SPINS: u32 = 3;
/// Beyond this step there are no more pauses: time to sleep. By then they have taken some 20 µs, as long as a
/// sleep and a wake would. Whoever sleeps sooner costs the holder of a lock more than it gains: the holder
/// wakes it, has taken the lock again long before it is awake, and is soon to wake it once more.
const STEPS: u32 = 9;
/// Nor if the yields have taken longer than this: then more threads want the CPU than there are CPUs, each
/// yield costs the others' turns, and a sleeper is woken before its turn would come again.
const YIELDING: Duration = Duration::from_millis(1);

impl Backoff {
    /// At the beginning.
    #[inline]
    pub fn new() -> Backoff {
        Backoff { step: 0, yielding: None }
    }

    /// Pauses, a little longer than the last time. `false`, without a pause, when it is time to sleep.
    #[inline]
    pub fn pause(&mut self) -> bool {
        // A model explores what happens after the spinning; the spinning itself is only its loops.
        if cfg!(any(polyproc_loom, polyproc_shuttle)) || self.step >= STEPS {
            return false;
        }
        self.step += 1;
        if self.step <= SPINS {
            for _ in 0..1 << self.step {
                spin_loop();
            }
        } else {
            let begun = *self.yielding.get_or_insert_with(Instant::now);
            for _ in 0..1 << (self.step - SPINS - 1) {
                if begun.elapsed() > YIELDING {
                    return false;
                }
                std::thread::yield_now();
            }
        }
        true
    }

    /// Back to the beginning.
    #[inline]
    pub fn reset(&mut self) {
        *self = Backoff::new();
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::new()
    }
}

/// How long it pays to look for news before sleeping, learnt from how the last waits ended.
///
/// For waits on something that another process does in its own time: an event that it sets, a message that it
/// sends. If both sides run, the news is there in less than the microseconds that a sleep and a wake cost; if
/// not, to look for it takes the CPU from the one that would bring it. Each wait that looked in vain halves
/// the next look, eight in a row end it, and every 1,024th tries again. A hint, shared by whoever waits on
/// the same object; all zero is full of hope.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Patience(AtomicU32);

/// The longest look: so many pauses, together some ten to forty microseconds.
const LOOKS: u32 = 1_000;
/// After so many looks in vain in a row, only a sleep.
const HOPELESS: u32 = 8;
/// Every so many waits, one looks again.
const PROBE: u32 = 1_024;

impl Patience {
    /// Full of hope.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> Patience {
        Patience(AtomicU32::new(0))
    }

    /// Asks `ready` again and again, until it has something or it is time to sleep.
    #[inline]
    pub fn look<T>(&self, ready: impl FnMut() -> Option<T>) -> Option<T> {
        Some(self.look_sparsely(0, 1, ready)?.0)
    }

    /// [`look`](Patience::look), with `first` pauses before the first question, and twice as many before each
    /// next one, up to `most`. Each question may take a cache line away from who works on the answer. Returns
    /// how many questions it took, too.
    #[inline]
    pub fn look_sparsely<T>(
        &self,
        first: u32,
        most: u32,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<(T, u32)> {
        if cfg!(any(polyproc_loom, polyproc_shuttle)) {
            return Some((ready()?, 1)); // A model explores what happens after the spinning.
        }
        // Relaxed, here and below: nothing rides on a hint, and an update that gets lost does no harm.
        let failures = self.0.load(Ordering::Relaxed);
        let pauses = match failures % PROBE {
            0 => LOOKS,
            few if failures < HOPELESS => LOOKS >> few,
            _ => 1,
        };
        let (mut paused, mut gap, mut questions) = (0, first, 0);
        while paused < pauses {
            for _ in 0..gap {
                spin_loop();
            }
            paused += gap.max(1);
            questions += 1;
            if let Some(news) = ready() {
                if failures != 0 && pauses > 1 {
                    self.0.store(0, Ordering::Relaxed);
                }
                return Some((news, questions));
            }
            gap = (gap * 2).clamp(1, most);
        }
        self.0.store(failures.wrapping_add(1), Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_lost_by_waiting_in_vain_and_comes_back() {
        let patience = Patience::new();
        let looks = |news_after: u32| {
            let mut looks = 0;
            let found = patience.look(|| {
                looks += 1;
                (looks > news_after).then_some(())
            });
            (looks, found.is_some())
        };
        assert_eq!(looks(LOOKS - 1), (LOOKS, true));
        for failures in 0..HOPELESS {
            assert_eq!(looks(u32::MAX), (LOOKS >> failures, false));
        }
        for _ in HOPELESS..PROBE {
            assert_eq!(looks(u32::MAX), (1, false));
        }
        assert_eq!(looks(10), (11, true), "the probe looks long enough to find it");
        assert_eq!(looks(u32::MAX), (LOOKS, false));
    }
}
