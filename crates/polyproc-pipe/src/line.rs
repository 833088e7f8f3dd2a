//! [`Line`]: what one side of a ring says to the other.
//!
//! # Sleep and wake
//!
//! Whoever goes to sleep says so in `asleep`, makes a [`heavy`](crate::barrier::heavy) barrier, and looks once more; who
//! publishes looks at `asleep` afterwards ([`hears_of_sleep`](Line::hears_of_sleep)), takes it back and rings the bell. So
//! either the sleeper sees what was published, or the other one sees the sleeper. If that one dies before it has rung, the
//! socket's end-of-file wakes the sleeper, which finds what was published.

use crate::barrier;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};

/// The peer, or another user of this end, has written what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// What one side says, alone on its cache lines. Only that side writes to it, but for `asleep`, which the other takes back.
#[derive(Default)]
#[repr(C, align(128))]
pub(crate) struct Line {
    /// How far it is.
    position: AtomicU64,
    /// 1 while it sleeps and wants to hear the bell.
    asleep: AtomicU32,
    /// Grows when a process lets go of this end: a reason to look whether anybody is left.
    farewells: AtomicU32,
}

impl Line {
    /// How far it is, with what it has written or read until there.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        // Acquire: pairs with the Release in `publish`.
        self.position.load(Ordering::Acquire)
    }

    /// Before anybody else knows of it.
    pub(crate) fn begin_at(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Says how far this side is. It must say what this side said last.
    #[inline(always)]
    pub(crate) fn publish(&self, last: u64, now: u64) -> Result<(), Broken> {
        if self.position.load(Ordering::Relaxed) != last {
            return Err(Broken);
        }
        // Release: what was written before the position that says so, or read before the position that gives it free.
        self.position.store(now, Ordering::Release);
        Ok(())
    }

    /// By the other side, after it has published: whether this one sleeps and has to hear the bell. It is told once.
    #[inline(always)]
    pub(crate) fn hears_of_sleep(&self) -> bool {
        barrier::light();
        self.wants_news() && self.asleep.swap(0, Ordering::SeqCst) != 0
    }

    /// By the other side: whether this one has said that it sleeps, as far as is known without a barrier.
    #[inline(always)]
    pub(crate) fn wants_news(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) != 0
    }

    /// Before a sleep: says that this side wants to hear of news. The barrier is the caller's.
    pub(crate) fn falls_asleep(&self) {
        self.set_asleep(1, Ordering::SeqCst);
    }

    pub(crate) fn is_awake(&self) {
        self.set_asleep(0, Ordering::Relaxed);
    }

    /// A plain store. (loom takes one and another thread's swap for unordered, and may lose it: there it is a swap.)
    fn set_asleep(&self, value: u32, order: Ordering) {
        if cfg!(polyproc_loom) {
            self.asleep.swap(value, order);
        } else {
            self.asleep.store(value, order);
        }
    }

    /// Whether the bell has not been rung since.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst) != 0
    }

    /// As one who lets go of this end.
    pub(crate) fn say_farewell(&self) {
        self.farewells.fetch_add(1, Ordering::SeqCst);
    }

    /// How often that was said.
    #[inline(always)]
    pub(crate) fn farewells(&self) -> u32 {
        self.farewells.load(Ordering::Relaxed)
    }
}
