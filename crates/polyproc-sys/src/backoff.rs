//! How long to spin before sleeping.
//!
//! A sleeping thread costs some 20 µs to wake on another CPU; a cache line passes in a tenth of one. So whoever finds a
//! lock taken spins first, but leaves the holder alone meanwhile: each look at the lock takes its cache line away from
//! the one CPU that could release it. The pauses double from look to look, and then the thread offers its CPU to
//! others, because the holder may be waiting for just that.

use core::hint::spin_loop;
use std::time::{Duration, Instant};

/// Pauses that get longer, up to a bound.
#[derive(Debug)]
pub struct Backoff {
    step: u32,
    /// When the first yield was.
    yielding: Option<Instant>,
}

/// Up to this step, a pause is `2^step` spin hints; beyond, it is one yield of the CPU.
const SPINS: u32 = 3;
/// Beyond this step there are no more pauses: time to sleep.
const STEPS: u32 = 10;
/// Nor if the yields have taken longer than this: then more threads want the CPU than there are CPUs, each yield costs
/// the others' turns, and a sleeper is woken before its turn would come again.
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
            if self.yielding.get_or_insert_with(Instant::now).elapsed() > YIELDING {
                return false;
            }
            std::thread::yield_now();
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
