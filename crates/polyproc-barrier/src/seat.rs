//! A party's seat: where the kernel writes that it has died.
//!
//! | seat's word | meaning | next |
//! |---|---|---|
//! | `FREE` | nobody sits here | tid by compare-and-swap |
//! | tid + `WAITERS` | somebody does | `FREE` by itself; `OWNER_DIED` + `WAITERS` by the kernel |
//! | `OWNER_DIED` + `WAITERS` | who sat here died | tid by who tidies up |

use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::futex::{Futex, OWNER_DIED, WAITERS};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::Current;

/// The word of a seat that nobody sits in.
pub(crate) const FREE: u32 = 0;

/// A place at a [`RawBarrier`](crate::RawBarrier), for one party or whoever else is at work on it. All zero
/// is free.
///
/// Alone on its cache line: its party writes to it, and the others only look.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Seat {
    /// Who sits here; see the table above.
    pub(crate) word: Futex,
    /// The process of the thread that sits here.
    pub(crate) pid: AtomicU32,
    /// What round the party came to, and the verdict on it; see [`word`](crate::word). Zero if it came to
    /// none.
    pub(crate) note: AtomicU64,
    /// The verdict on the last round that was broken from this seat.
    pub(crate) cause: AtomicU64,
    pub(crate) node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(core::mem::offset_of!(Seat, word) == 0);
    assert!(core::mem::offset_of!(Seat, node) == polyproc_sys::robust::NODE_OFFSET);
    assert!(size_of::<Seat>() == 64 && align_of::<Seat>() == 64);
};

impl Seat {
    /// A free seat.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> Seat {
        Seat {
            word: Futex::new(FREE),
            pid: AtomicU32::new(0),
            note: AtomicU64::new(0),
            cause: AtomicU64::new(0),
            node: Node::new(),
        }
    }

    /// Sits down, if the seat is as expected: free, or left by the dead.
    ///
    /// From here on the kernel watches over the thread, until it [leaves](Seat::leave).
    #[inline(always)]
    pub(crate) fn take(&self, current: Current, expected: u32) -> bool {
        current.begin(&self.word, &self.node);
        let taken = current.tid() | WAITERS;
        // Acquire: pairs with the Release in `leave`, so that whoever sits here sees what came of the one
        // before; and with the kernel's own barriers if that one died.
        self.word.compare_exchange(expected, taken, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Says whose seat it is.
    #[inline(always)]
    pub(crate) fn sign(&self, current: Current) {
        self.pid.store(current.pid(), Ordering::Relaxed);
    }

    /// Gets up.
    #[inline(always)]
    pub(crate) fn leave(&self, current: Current) {
        // Relaxed: whoever sits here next sees it by the word.
        self.note.store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire in `take`.
        if cfg!(polyproc_loom) {
            // It takes a plain store and another thread's atomic addition of nothing for unordered, and may
            // lose the store.
            self.word.swap(FREE, Ordering::Release);
        } else {
            self.word.store(FREE, Ordering::Release);
        }
        current.end();
    }

    /// Whether the thread died that sat here.
    #[inline(always)]
    pub(crate) fn is_dead(word: u32) -> bool {
        word & OWNER_DIED != 0
    }
}
