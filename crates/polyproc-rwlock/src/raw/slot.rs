//! A place for one reader.
//!
//! | word | meaning | who sleeps |
//! |---|---|---|
//! | `FREE` (0) | nobody's | nobody, or a wake is under way |
//! | tid | a reader's, or of one who is about to give it back | nobody, or a wake is under way |
//! | tid + `WAITERS` | the same | maybe the holder of the writer lock |
//! | `OWNER_DIED` (+ `WAITERS`) | nobody's: its reader died | nobody, or a wake is under way |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | `FREE` | tid | a reader | compare-and-swap |
//! | `OWNER_DIED` … | tid | a reader that found the slot of its choice taken | compare-and-swap |
//! | tid | tid + `WAITERS` | the holder of the writer lock, about to sleep | compare-and-swap |
//! | tid … | `FREE` | its reader: done, or giving way to a writer | swap |
//! | tid … | `OWNER_DIED` …, `WAITERS` kept | the kernel | compare-and-swap |

use core::fmt;
use polyproc_mutex::Refusal;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::backoff::Backoff;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, OWNER, WAITERS, Wait};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::{self, Current};

/// The word of a slot that nobody has.
pub(super) const FREE: u32 = 0;

/// A place for one reader. All zero is free. A cache line of its own: readers do not disturb each other.
#[derive(Default)]
#[repr(C, align(64))]
pub struct ReaderSlot {
    /// Whose it is; see the table above.
    pub(super) word: Futex,
    /// How many more times its owner reads by it. The owner's own; left as it is by the dead.
    pub(super) depth: AtomicU32,
    /// The owner's process.
    pub(super) pid: AtomicU32,
    reserved: [AtomicU32; 3],
    pub(super) node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(core::mem::offset_of!(ReaderSlot, word) == 0);
    assert!(core::mem::offset_of!(ReaderSlot, node) == polyproc_sys::robust::NODE_OFFSET);
    assert!(size_of::<ReaderSlot>() == 64 && align_of::<ReaderSlot>() == 64);
};

impl ReaderSlot {
    /// A free slot.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> ReaderSlot {
        ReaderSlot {
            word: Futex::new(FREE),
            depth: AtomicU32::new(0),
            pid: AtomicU32::new(0),
            reserved: [const { AtomicU32::new(0) }; 3],
            node: Node::new(),
        }
    }

    /// A free slot.
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub fn new() -> ReaderSlot {
        ReaderSlot::default()
    }

    /// Ends one read. Never blocks.
    ///
    /// # Safety
    ///
    /// The calling thread has got the slot from [`read_until`](crate::RawRwLock::read_until), in this
    /// process, and not ended that read yet.
    #[inline(always)]
    pub unsafe fn unlock(&self) {
        // SAFETY: it has claimed the slot, which registered it.
        let current = unsafe { thread::registered() };
        // Relaxed: the thread's own.
        if self.depth.load(Ordering::Relaxed) == 0 && current.holds_only(&self.word, &self.node) {
            // SAFETY: this thread linked it when it claimed it, and holds no other.
            unsafe { current.unlink_only(&self.word, &self.node) };
            self.release(current);
        } else {
            // SAFETY: the caller's.
            unsafe { self.unlock_among_others(current) };
        }
    }

    /// The thread has other locks too, or reads by this slot more than once.
    ///
    /// # Safety
    ///
    /// As for [`unlock`](ReaderSlot::unlock).
    #[cold]
    #[inline(never)]
    unsafe fn unlock_among_others(&self, current: Current) {
        let depth = self.depth.load(Ordering::Relaxed);
        if depth != 0 {
            return self.depth.store(depth - 1, Ordering::Relaxed);
        }
        current.begin(&self.word, &self.node);
        // SAFETY: this thread linked it when it claimed it.
        unsafe { current.unlink(&self.word, &self.node) };
        self.release(current);
    }

    /// The end of a read.
    #[inline(always)]
    fn release(&self, current: Current) {
        // Release: pairs with the writer's look at the slots, so that what was read is not what the writer
        // then writes.
        let word = self.word.swap(FREE, Ordering::Release);
        if word & WAITERS != 0 {
            return self.wake(current);
        }
        current.end();
    }

    /// After a release.
    #[cold]
    #[inline(never)]
    fn wake(&self, current: Current) {
        self.word.wake(1);
        current.end();
    }

    /// Gives a slot back that was claimed but not kept. Wakes in any case: see [`raw`](super) on who dies
    /// between release and wake.
    #[cold]
    pub(super) fn give_back(&self, current: Current) {
        // Relaxed: nothing was read.
        self.word.swap(FREE, Ordering::Relaxed);
        self.wake(current);
    }

    /// Claims the slot if nobody has it. It is pending then.
    pub(super) fn claim(&self, current: Current) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if word & OWNER != 0 {
            return false;
        }
        current.begin(&self.word, &self.node);
        // SeqCst: before the look at the writer lock. A mark on a dead reader's word need not be kept: the
        // kernel wakes.
        if self.word.compare_exchange(word, current.tid(), Ordering::SeqCst, Ordering::Relaxed).is_err() {
            current.end();
            return false;
        }
        if word != FREE {
            self.depth.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Says whose process it is. For those who look; nothing is built on it.
    #[inline(always)]
    pub(super) fn sign(&self) {
        let pid = thread::pid();
        if self.pid.load(Ordering::Relaxed) != pid {
            self.pid.store(pid, Ordering::Relaxed);
        }
    }

    /// Whether a thread of this process has it.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.is_taken(Ordering::Relaxed) && self.pid.load(Ordering::Relaxed) == std::process::id()
    }

    /// Whether it has a living owner.
    #[inline(always)]
    pub(super) fn is_taken(&self, ordering: Ordering) -> bool {
        self.word.load(ordering) & OWNER != 0
    }

    /// Enters a slot that this thread has just claimed in its list.
    ///
    /// # Safety
    ///
    /// It stays mapped until it is released.
    pub(super) unsafe fn keep(&self, current: Current) {
        self.sign();
        // SAFETY: the word bears this thread's id, because only the thread that a slot belongs to enters it
        // in its list, and it was claimed just now; the caller keeps it mapped.
        unsafe { current.link(&self.word, &self.node) };
    }

    /// As the holder of the writer lock: makes whoever frees the slot wake. Returns the word, `None` if it
    /// was freed before.
    pub(super) fn mark(&self) -> Option<u32> {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & OWNER != 0 {
            let marked = word | WAITERS;
            if word == marked {
                return Some(marked);
            }
            // Relaxed: the sleep compares the word once more.
            match self.word.compare_exchange(word, marked, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(marked),
                Err(other) => word = other,
            }
        }
        None
    }

    /// As the holder of the writer lock: waits until the slot has no owner, whoever that is by then.
    pub(super) fn wait_until_free(&self, deadline: Deadline) -> Result<(), Refusal> {
        let mut backoff = Backoff::new();
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        // Acquire: pairs with the release of a slot.
        while self.is_taken(Ordering::Acquire) {
            if expired {
                return Err(Refusal::TimedOut);
            }
            if backoff.pause() {
                continue;
            }
            rescued = false;
            let Some(marked) = self.mark() else { continue };
            if self.word.wait(marked, deadline.or_backstop()) == Wait::TimedOut {
                expired = deadline.has_passed();
                rescued = !expired;
            }
            backoff.reset();
        }
        if rescued {
            futex::count_backstop_rescue();
        }
        Ok(())
    }
}

impl fmt::Debug for ReaderSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderSlot")
            .field("owner", &(self.word.load(Ordering::Relaxed) & OWNER))
            .field("depth", &self.depth.load(Ordering::Relaxed))
            .field("pid", &self.pid.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
