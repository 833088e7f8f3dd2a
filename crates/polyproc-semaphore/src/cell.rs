//! What a semaphore has in shared memory: its head, and a cell for each permit that can be held.
//!
//! A cell has a robust lock's word and links, so that the kernel sees to a dead holder.
//!
//! | word | meaning |
//! |---|---|
//! | `FREE` (0) | a permit lies here |
//! | tid | a thread holds it |
//! | tid + `WAITERS` | the same, and somebody may want to hear of its end |
//! | `OWNER_DIED`, with `WAITERS` or not | its holder died: a permit lies here |
//! | `EMPTY` | no permit |
//! | `GONE` | no permit: its holder forgot it, and the room for another has not gone back to `supply` yet |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | `FREE` | tid, tid + `WAITERS` | who acquires | compare-and-swap |
//! | tid | tid + `WAITERS` | who is about to sleep; the holder that finds the door not quiet | compare-and-swap; or |
//! | tid … | `FREE` | who releases | swap |
//! | tid … | `GONE` | who forgets | swap |
//! | tid … | `OWNER_DIED` … | the kernel, `WAITERS` kept | compare-and-swap |
//! | `OWNER_DIED` … | `FREE` | who wants a permit | compare-and-swap |
//! | `EMPTY` | `FREE` | who has the gate | compare-and-swap: a move, see [`supply`](crate::supply) |
//! | `GONE` | `EMPTY` | who has the gate | compare-and-swap: a move, see [`supply`](crate::supply) |

use crate::door::Door;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::futex::{Futex, OWNER, OWNER_DIED, WAITERS};
use polyproc_sys::robust::Node;

/// The word of a cell with a permit that nobody holds.
pub(crate) const FREE: u32 = 0;
/// The word of a cell without a permit. No thread has such an id.
pub(crate) const EMPTY: u32 = 1 << 28;
/// The word of a cell whose permit was forgotten. No thread has such an id.
pub(crate) const GONE: u32 = 1 << 29;

/// What a semaphore has in shared memory beside its cells. All zero has no supply and no room: the permits
/// are those in the cells.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Head {
    /// 0, or who moves. Where one is woken.
    pub(crate) gate: Futex,
    /// Whether anybody sleeps.
    pub(crate) door: Door,
    /// How many permits lie in no cell, and how many more may be released.
    pub(crate) supply: AtomicU64,
    /// The move that is under way.
    pub(crate) journal: AtomicU32,
    /// How many of the last cells have never had a permit.
    pub(crate) unused: AtomicU32,
    pub(crate) node: Node,
}

/// The place of a permit in shared memory. All zero has one that nobody holds.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Cell {
    /// Who holds it, or what lies there; see the table above.
    pub(crate) word: Futex,
    /// The process that holds the permit.
    pub(crate) holder: AtomicU32,
    /// Which of that process's handles gave it out.
    lender: AtomicU32,
    reserved: [AtomicU32; 3],
    pub(crate) node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    use core::mem::offset_of;
    use polyproc_sys::robust::NODE_OFFSET;
    assert!(offset_of!(Head, gate) == 0 && offset_of!(Head, node) == NODE_OFFSET);
    assert!(offset_of!(Cell, word) == 0 && offset_of!(Cell, node) == NODE_OFFSET);
    assert!(size_of::<Head>() == 64 && size_of::<Cell>() == 64 && align_of::<Cell>() == 64);
};

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
impl Head {
    /// All zero.
    pub const fn new() -> Head {
        Head {
            gate: Futex::new(0),
            door: Door::new(),
            supply: AtomicU64::new(0),
            journal: AtomicU32::new(0),
            unused: AtomicU32::new(0),
            node: Node::new(),
        }
    }
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
impl Cell {
    /// All zero: a permit that nobody holds.
    pub const fn new() -> Cell {
        Cell {
            word: Futex::new(FREE),
            holder: AtomicU32::new(0),
            lender: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 3],
            node: Node::new(),
        }
    }
}

impl Cell {
    /// Notes which process has the permit, and by which of its handles.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    #[inline(always)]
    pub(crate) fn lend(&self, process: u32, lender: u32) {
        // Relaxed, also below: for people who look, and for the handle's own end.
        self.lender.store(lender, Ordering::Relaxed);
        self.holder.store(process, Ordering::Relaxed);
    }

    /// The process that holds the permit.
    pub(crate) fn holder(&self) -> Option<u32> {
        let held = is_held(self.word.load(Ordering::Relaxed));
        Some(self.holder.load(Ordering::Relaxed)).filter(|process| held && *process != 0)
    }

    /// Whether the permit is held, through this handle of this process.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub(crate) fn is_lent_by(&self, process: u32, lender: u32) -> bool {
        self.holder() == Some(process) && self.lender.load(Ordering::Relaxed) == lender
    }

    /// What a sleeper sleeps on of a cell: marked if it is held. `None` if a permit lies there.
    pub(crate) fn watched(&self) -> Option<u32> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word == FREE || word & OWNER_DIED != 0 {
                return None;
            }
            if !is_held(word) || word & WAITERS != 0 {
                return Some(word);
            }
            // SeqCst: whoever takes the cell later sees the door that stands behind this mark.
            match self.word.compare_exchange(word, word | WAITERS, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some(word | WAITERS),
                Err(other) => word = other,
            }
        }
    }

    /// As the holder: somebody may be asleep.
    #[cold]
    #[inline(never)]
    pub(crate) fn mark(&self) {
        self.word.fetch_or(WAITERS, Ordering::Relaxed);
    }
}

/// Whether it is the word of a cell that a thread holds.
#[inline(always)]
fn is_held(word: u32) -> bool {
    word & OWNER != 0 && word & (EMPTY | GONE) == 0
}
