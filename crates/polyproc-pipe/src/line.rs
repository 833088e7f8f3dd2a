//! [`Line`]: what one side of a ring says to the other.
//!
//! # Sleep and wake
//!
//! Whoever goes to sleep says so in its notice, makes a [`heavy`](crate::barrier::heavy) barrier, and looks
//! once more; who publishes looks at that notice afterwards ([`hears_of_sleep`](Line::hears_of_sleep)), takes
//! it back and rings the bell. So either the sleeper sees what was published, or the other one sees the
//! sleeper. If that one dies before it has rung, the socket's end-of-file wakes the sleeper, which finds what
//! was published.

use crate::barrier;
use polyproc_sys::atomic::{AtomicU64, Ordering};

/// The peer, or another user of this end, has written what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// What one side says, alone on its cache lines. Only that side writes to it, but for the notice, which the
/// other takes back.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct Line {
    /// How far it is. Of the sender nobody reads that but the sender itself: what it has sent says so.
    position: AtomicU64,
    /// [`ASLEEP`] and [`FAREWELL`].
    notice: AtomicU64,
}

/// In a notice: this side sleeps and wants to hear the bell.
const ASLEEP: u64 = 1;
/// In a notice: a process has let go of this end, which is a reason to look whether anybody is left.
const FAREWELL: u64 = 2;

impl Line {
    /// How far it is, with what it has read until there.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        // Acquire: pairs with the Release in `publish`.
        self.position.load(Ordering::Acquire)
    }

    /// Before anybody else knows of it.
    pub(crate) fn begin_at(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Whether this is what this side said last.
    #[inline(always)]
    pub(crate) fn is_at(&self, last: u64) -> bool {
        // Relaxed: nothing rides on it.
        self.position.load(Ordering::Relaxed) == last
    }

    /// Says how far this side is, for itself, after it was seen that it [is](Line::is_at) where it was.
    #[inline(always)]
    pub(crate) fn goes_to(&self, now: u64) {
        // Relaxed: what is published is so by something else.
        self.position.store(now, Ordering::Relaxed);
    }

    /// Says how far this side is. It must say what this side said last.
    #[inline(always)]
    pub(crate) fn publish(&self, last: u64, now: u64) -> Result<(), Broken> {
        if !self.is_at(last) {
            return Err(Broken);
        }
        // Release: what was read before the position that gives it free.
        self.position.store(now, Ordering::Release);
        Ok(())
    }

    /// By the other side: whether this one says anything beside its position, as far as is known without a
    /// barrier.
    #[inline(always)]
    pub(crate) fn has_notice(&self) -> bool {
        self.notice() != 0
    }

    #[inline(always)]
    fn notice(&self) -> u64 {
        self.notice.load(Ordering::Relaxed)
    }

    /// By the other side: whether this one sleeps, as far as is known without a barrier.
    #[inline(always)]
    pub(crate) fn seems_asleep(&self) -> bool {
        self.notice() & ASLEEP != 0
    }

    /// By the other side, after it has published: whether this one sleeps and has to hear the bell. It is
    /// told once.
    #[inline(always)]
    pub(crate) fn hears_of_sleep(&self) -> bool {
        barrier::light();
        self.notice() & ASLEEP != 0 && self.notice.fetch_and(!ASLEEP, Ordering::SeqCst) & ASLEEP != 0
    }

    /// Before a sleep: says that this side wants to hear of news. The barrier is the caller's.
    pub(crate) fn falls_asleep(&self) {
        self.notice.fetch_or(ASLEEP, Ordering::SeqCst);
    }

    pub(crate) fn is_awake(&self) {
        self.notice.fetch_and(!ASLEEP, Ordering::Relaxed);
    }

    /// Whether the bell has not been rung since.
    pub(crate) fn is_asleep(&self) -> bool {
        self.notice.load(Ordering::SeqCst) & ASLEEP != 0
    }

    /// As one who lets go of this end.
    pub(crate) fn say_farewell(&self) {
        self.notice.fetch_or(FAREWELL, Ordering::SeqCst);
    }

    /// By the other side: whether a process has let go of this end. It is told once.
    #[inline(always)]
    pub(crate) fn hears_farewell(&self) -> bool {
        self.notice() & FAREWELL != 0 && self.notice.fetch_and(!FAREWELL, Ordering::SeqCst) & FAREWELL != 0
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;

    /// Once only: the bell may be taken by another thread, and then what says so is that this side is awake.
    #[test]
    fn who_sleeps_is_awake_when_the_other_side_has_heard_of_it() {
        let line = Line::default();
        assert!(!line.hears_of_sleep());
        line.falls_asleep();
        assert!(line.is_asleep() && line.seems_asleep());
        assert!(line.hears_of_sleep());
        assert!(!line.is_asleep() && !line.hears_of_sleep());
        line.falls_asleep();
        line.is_awake();
        assert!(!line.is_asleep() && !line.hears_of_sleep());
        // Nothing else is lost by it.
        line.say_farewell();
        line.falls_asleep();
        assert!(line.hears_of_sleep());
        assert!(line.has_notice() && line.hears_farewell());
        assert!(!line.has_notice() && !line.hears_farewell());
        line.falls_asleep();
        line.say_farewell();
        assert!(line.hears_farewell() && !line.hears_farewell());
        assert!(line.is_asleep() && line.hears_of_sleep(), "of one of several that have the end");
        line.falls_asleep();
        line.say_farewell();
        line.is_awake();
        assert!(line.hears_farewell());
    }
}
