//! [`Pulse`]: when a sender asks whether anybody is left to receive.
//!
//! Only the kernel knows, and asking it costs more than a message. So a sender that has asked does not ask again for some
//! thirty microseconds, and one that sends in a burst does not even look at the clock for each message.

/// Some thirty microseconds, in ticks of 0.3 to 1 ns.
const FRESH: u64 = 100_000;
/// Messages between two looks at the clock, in a burst.
const BURST: u32 = 7;
/// Sends that are less than so many ticks apart are a burst.
const CLOSE: u64 = 100 * (BURST as u64 + 1);

/// Remembers when it was asked last.
pub(crate) struct Pulse {
    asked: u64,
    looked: u64,
    credit: u32,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse { asked: 0, looked: 0, credit: 0 }
    }

    /// Whether it is time to ask.
    #[inline(always)]
    pub(crate) fn is_due(&mut self) -> bool {
        if self.credit > 0 {
            self.credit -= 1;
            return false;
        }
        let now = ticks();
        if now.wrapping_sub(self.looked) < CLOSE {
            self.credit = BURST;
        }
        self.looked = now;
        now.wrapping_sub(self.asked) > FRESH
    }

    /// It was asked, and somebody is there.
    pub(crate) fn is_alive(&mut self) {
        self.asked = ticks();
    }
}

/// A clock that is cheap to read and goes on at a constant rate.
#[inline(always)]
fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every processor of this architecture has it.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::LazyLock;
        use std::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64 + FRESH + 1
    }
}
