//! [`Pulse`]: when a sender asks whether anybody is left to receive.
//!
//! Only the kernel knows, and asking it costs more than a message. So a sender that has asked does not ask
//! again for some thirty microseconds, and one that sends in a burst does not even look at the clock for each
//! message, and the longer the burst, the more rarely. And who receives what was not there a moment before
//! has heard that the other side is alive: one that it talks with is not asked about.

use polyproc_sys::atomic::{AtomicU32, Ordering};

/// Some thirty microseconds, in ticks of 0.3 to 1 ns.
const FRESH: u64 = 100_000;
/// Messages between the first two looks at the clock in a burst, or a few more. Then twice as many each time:
/// a look takes as long as several messages.
const BURST: u64 = 24;
/// No more than that.
const STREAM: u64 = 8 * BURST;
/// Some microsecond: messages that are no further apart, from one look at the clock to the next, are a burst.
const CLOSE: u64 = 2_500;
/// Some hundred nanoseconds: messages that are no further apart are a stream.
const DENSE: u64 = 300;

/// Remembers when it was asked last.
pub(crate) struct Pulse {
    asked: u64,
    looked: u64,
    credit: u64,
    /// Messages from one look to the next; 1 if that is no burst.
    stride: u64,
    /// If that is a burst: it is a stream.
    is_stream: bool,
    /// It is time to ask, and nobody has, or nobody was there.
    is_due: bool,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse { asked: 0, looked: 0, credit: 0, stride: 1, is_stream: false, is_due: false }
    }

    /// Before a message: whether it is time to ask. `heard` is what is not 0 if the other side was heard of
    /// since the last time.
    #[inline(always)]
    pub(crate) fn is_due(&mut self, heard: &AtomicU32) -> bool {
        if self.credit > 0 {
            self.credit -= 1;
            return false;
        }
        self.is_due || self.looks_at_the_clock(heard)
    }

    /// Whether messages may be sent without a look.
    #[inline(always)]
    pub(crate) fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// How many.
    pub(crate) fn credit(&self) -> u64 {
        self.credit
    }

    /// So many more messages will be sent without a look.
    #[inline(always)]
    pub(crate) fn spend(&mut self, messages: u64) {
        self.credit = self.credit.saturating_sub(messages);
    }

    /// So many of those were not sent after all.
    #[inline(always)]
    pub(crate) fn takes_back(&mut self, messages: u64) {
        if self.is_burst() && !self.is_due {
            self.credit = (self.credit + messages).min(self.stride);
        }
    }

    /// When the clock was looked at the last time.
    #[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
    pub(crate) fn looked(&self) -> u64 {
        self.looked
    }

    #[inline(never)]
    fn looks_at_the_clock(&mut self, heard: &AtomicU32) -> bool {
        let now = ticks();
        // Relaxed: nothing rides on it.
        if heard.load(Ordering::Relaxed) != 0 {
            heard.store(0, Ordering::Relaxed);
            self.asked = self.looked;
        }
        let passed = now.wrapping_sub(self.looked);
        if passed < self.stride * CLOSE {
            self.is_stream = passed < self.stride * DENSE;
            self.stride = (2 * self.stride).clamp(BURST, STREAM);
        } else {
            self.stride = 1;
        }
        self.looked = now;
        self.is_due = now.wrapping_sub(self.asked) > FRESH;
        self.gives_credit();
        self.is_due
    }

    fn gives_credit(&mut self) {
        self.credit = if self.is_burst() && !self.is_due { self.stride } else { 0 };
    }

    /// Whether records follow each other so closely that nobody is asked for each.
    #[inline(always)]
    pub(crate) fn is_burst(&self) -> bool {
        self.stride > 1
    }

    /// Whether they do more closely than if each was waited for, and answered.
    #[inline(always)]
    pub(crate) fn is_stream(&self) -> bool {
        self.is_burst() && self.is_stream
    }

    /// It was asked, and nobody is there: it is time to ask before each message.
    pub(crate) fn is_over(&mut self) {
        self.is_due = true;
        self.credit = 0;
    }

    /// It was asked, and somebody is there.
    pub(crate) fn is_alive(&mut self) {
        self.asked = ticks();
        self.is_due = false;
        self.gives_credit();
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

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;

    /// How many messages are sent without a look at the clock.
    fn stride(pulse: &mut Pulse) -> u64 {
        let heard = AtomicU32::new(0);
        let looked = pulse.looked;
        (0..=2 * STREAM)
            .find(|_| pulse.is_due(&heard) || pulse.looked != looked)
            .expect("a look at the clock")
    }

    #[test]
    fn a_burst_looks_at_the_clock_more_and_more_rarely_and_never_without_end() {
        // Who is interrupted in the middle is in no burst.
        let is_stream = (0..10_000).any(|_| {
            let mut pulse = Pulse::new();
            pulse.is_alive();
            let strides: Vec<_> = (0..7).map(|_| stride(&mut pulse)).collect();
            strides == [0, 0, BURST, 2 * BURST, 4 * BURST, STREAM, STREAM]
        });
        assert!(is_stream, "no burst was seen");
    }

    /// What it says of 100 messages that came in so many ticks each, if this is not interrupted.
    fn after(ticks_each: u64) -> (bool, bool) {
        let mut pulse = Pulse { looked: ticks() - 100 * ticks_each, stride: 100, ..Pulse::new() };
        pulse.looks_at_the_clock(&AtomicU32::new(0));
        (pulse.is_burst(), pulse.is_stream())
    }

    #[test]
    fn messages_of_a_stream_are_closer_to_each_other_than_those_of_a_burst() {
        let is_seen = |ticks_each, what| (0..10_000).any(|_| after(ticks_each) == what);
        assert!(is_seen(DENSE / 2, (true, true)));
        assert!(is_seen(2 * DENSE, (true, false)));
        assert!((0..100).all(|_| !after(2 * DENSE).1 && after(2 * CLOSE) == (false, false)));
        let mut pulse = Pulse { is_stream: true, stride: 1, ..Pulse::new() };
        pulse.looks_at_the_clock(&AtomicU32::new(0));
        assert!(!pulse.is_stream(), "a long time ago");
    }

    #[test]
    fn after_a_pause_it_is_no_burst_any_more() {
        let mut pulse = Pulse::new();
        pulse.is_alive();
        (0..7).for_each(|_| _ = stride(&mut pulse));
        std::thread::sleep(std::time::Duration::from_millis(2));
        let left = stride(&mut pulse);
        assert!(left <= STREAM, "{left}");
        assert!(!pulse.is_burst() && pulse.is_due, "after {left}");
    }

    /// From the last look on, at which it may have been heard of: so that is when it was alive.
    #[test]
    fn who_was_heard_of_is_asked_about_a_moment_later() {
        let heard = AtomicU32::new(1);
        let looks = |looked| {
            let mut pulse = Pulse { looked, ..Pulse::new() };
            let is_due = pulse.is_due(&heard);
            assert_eq!(heard.load(Ordering::Relaxed), 0, "it counts once");
            is_due
        };
        assert!(looks(0), "long ago");
        assert!(looks(ticks()), "not at all");
        // Who is interrupted in between looks too late.
        let is_spared = (0..10_000).any(|_| {
            heard.store(1, Ordering::Relaxed);
            !looks(ticks())
        });
        assert!(is_spared);
    }

    #[test]
    fn where_nobody_is_left_each_message_asks() {
        let heard = AtomicU32::new(0);
        for _ in 0..1_000 {
            let mut pulse = Pulse { stride: STREAM, looked: ticks(), ..Pulse::new() };
            // It was there a moment ago, and there was an answer from it.
            pulse.is_alive();
            assert!(pulse.has_credit());
            heard.store(1, Ordering::Relaxed);
            pulse.is_over();
            assert!((0..3).all(|_| pulse.is_due(&heard)));
            // The same where it is time, and nobody has asked.
            let mut pulse = Pulse { stride: STREAM, looked: ticks(), ..Pulse::new() };
            heard.store(0, Ordering::Relaxed);
            assert!((0..3).all(|_| pulse.is_due(&heard)));
        }
    }

    #[test]
    fn what_is_sent_with_others_is_no_longer_free() {
        let mut pulse = Pulse { stride: BURST, ..Pulse::new() };
        pulse.is_alive();
        pulse.spend(BURST - 1);
        assert!(pulse.has_credit() && !pulse.is_due(&AtomicU32::new(0)) && !pulse.has_credit());
        pulse.spend(7);
        assert!(!pulse.has_credit());
    }

    #[test]
    fn what_was_not_sent_is_free_again_unless_it_is_time_to_ask() {
        let mut pulse = Pulse { stride: BURST, ..Pulse::new() };
        pulse.is_alive();
        pulse.spend(BURST);
        pulse.takes_back(5);
        assert_eq!(pulse.credit(), 5);
        pulse.takes_back(BURST);
        assert_eq!(pulse.credit(), BURST, "no more than between two looks");
        pulse.is_over();
        pulse.takes_back(5);
        assert!(!pulse.has_credit() && pulse.is_due(&AtomicU32::new(0)));
    }
}
