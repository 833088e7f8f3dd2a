//! What a condition has in shared memory: its queue, and a slot for each waiter.
//!
//! A waiter takes a *slot* before it releases its lock, and has it in its thread's robust list until it has
//! the lock back. So the kernel knows at any time what a dying waiter had in its hands.
//!
//! | word of a slot | meaning | a death makes it |
//! |---|---|---|
//! | `FREE` (0) | nobody's; its age is 0 | |
//! | tid, age 0 | taken, its waiter not yet in sight, or giving up | `OWNER_DIED` |
//! | tid | waits; the age is its place in the queue | `OWNER_DIED` |
//! | tid + `WAITERS` | notified, and not yet back in the lock | `OWNER_DIED` + `WAITERS`, and one is woken |
//! | `OWNER_DIED` | died without a notification: free | |
//! | `OWNER_DIED` + `WAITERS` | died with a notification: to be passed on | |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | `FREE` | tid | who begins to wait | compare-and-swap |
//! | `OWNER_DIED` | tid + `WAITERS`, age 0, tid | who begins to wait | compare-and-swap, stores |
//! | tid | tid + `WAITERS` | a notifier | compare-and-swap |
//! | tid | `FREE` | its waiter, out of time | compare-and-swap |
//! | tid + `WAITERS` | `FREE` | its waiter, with the lock | swap |
//! | `OWNER_DIED` + `WAITERS` | tid + `WAITERS`, then `FREE` | another waiter, which notifies the oldest in between | compare-and-swap, swap |
//!
//! The `WAITERS` bit *is* the notification, and it is the very bit that has the kernel wake somebody when the
//! slot's waiter dies. `notify` sets it in the oldest slot that waits. `notify_all` sets none: it adds one to
//! the word `all`, in one step, and whoever began to wait at another value has been notified.

use core::fmt;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::backoff::Patience;
use polyproc_sys::futex::{Futex, OWNER, OWNER_DIED, WAITERS};
use polyproc_sys::robust::Node;

/// The word of a slot that nobody has.
pub(super) const FREE: u32 = 0;
/// The word of a slot whose waiter died with a notification.
pub(super) const LEGACY: u32 = OWNER_DIED | WAITERS;
/// The age of a slot that does not wait.
pub(super) const AGELESS: u64 = 0;
/// What a bell and the gate always show.
pub(super) const SILENT: u32 = 0;

/// The bits of `places` that say how many slots are in use. The others count those who ever waited.
pub(super) const USED: u64 = (1 << USED_BITS) - 1;
pub(super) const USED_BITS: u32 = 12;

/// The most slots that a condition can have.
pub const MOST_SLOTS: usize = USED as usize;

/// What all waiters of a condition share. All zero is a condition that nobody waits for.
#[derive(Default)]
#[repr(C)]
pub struct Queue {
    /// Where the kernel wakes one if a waiter dies that may have been woken for another.
    pub(super) gate: Futex,
    /// How many `notify_all` there were.
    pub(super) all: Futex,
    /// How many began to wait so far, above [`USED`]; and up to which one, slots are in use.
    pub(super) places: AtomicU64,
    /// The last value of `all` for which everybody has been woken.
    pub(super) rung: AtomicU32,
    pub(super) patience: Patience,
    /// What the gate is announced by. Never in a list.
    pub(super) node: Node,
}

/// The place of one waiter. All zero is free.
#[derive(Default)]
#[repr(C)]
pub struct Slot {
    /// Whose it is; see the table above.
    pub(super) word: Futex,
    /// The waiter's process.
    pub(super) pid: AtomicU32,
    /// Which in the queue it is, counted from 1; or [`AGELESS`].
    pub(super) age: AtomicU64,
    /// The value of `all` when it began to wait.
    pub(super) since: AtomicU32,
    padding: u32,
    pub(super) node: Node,
    /// Where its waiter sleeps, alone.
    pub(super) bell: Futex,
    more_padding: [u32; 5],
    /// What the bell is announced by. Never in a list.
    pub(super) bell_node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    use core::mem::offset_of;
    use polyproc_sys::robust::NODE_OFFSET;
    assert!(size_of::<Queue>() == 40 && align_of::<Queue>() == 8);
    assert!(offset_of!(Queue, node) - offset_of!(Queue, gate) == NODE_OFFSET);
    assert!(size_of::<Slot>() == 80 && align_of::<Slot>() == 8);
    assert!(offset_of!(Slot, node) - offset_of!(Slot, word) == NODE_OFFSET);
    assert!(offset_of!(Slot, bell_node) - offset_of!(Slot, bell) == NODE_OFFSET);
};

impl Queue {
    /// A queue with nobody in it.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> Queue {
        Queue {
            gate: Futex::new(SILENT),
            all: Futex::new(0),
            places: AtomicU64::new(0),
            rung: AtomicU32::new(0),
            patience: Patience::new(),
            node: Node::new(),
        }
    }
}

impl Slot {
    /// A slot that is free.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> Slot {
        Slot {
            word: Futex::new(FREE),
            pid: AtomicU32::new(0),
            age: AtomicU64::new(AGELESS),
            since: AtomicU32::new(0),
            padding: 0,
            node: Node::new(),
            bell: Futex::new(SILENT),
            more_padding: [0; 5],
            bell_node: Node::new(),
        }
    }

    /// Whether somebody has it, or left a notification in it.
    pub(super) fn is_used(&self) -> bool {
        // Acquire: pairs with the compare-and-swap of who takes the slot, and the swap of who gives it back.
        !matches!(self.word.load(Ordering::Acquire), FREE | OWNER_DIED)
    }

    /// The word and the age, if its waiter is in sight and has no notification.
    pub(super) fn waits(&self, all: u32) -> Option<(u32, u64)> {
        // Acquire: pairs with who takes the slot, which is after the age of the one before it was cleared.
        let word = self.word.load(Ordering::Acquire);
        // Acquire: pairs with the Release in `appear` of [`waiter`](super::waiter); what stands before it
        // there is of the same waiter. That is why `since` may be Relaxed.
        let age = self.age.load(Ordering::Acquire);
        let waits = word & OWNER == word && word != FREE && age != AGELESS;
        (waits && self.since.load(Ordering::Relaxed) == all).then_some((word, age))
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("all", &self.all.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Slot")
            .field("waiter", &Some(word & OWNER).filter(|tid| *tid != 0))
            .field("notified", &(word & WAITERS != 0))
            .field("died", &(word & OWNER_DIED != 0))
            .finish_non_exhaustive()
    }
}
