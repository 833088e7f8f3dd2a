//! [`Robust`]: a word that tells of its owner's death.

use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::futex::{Futex, OWNER, OWNER_DIED, WAITERS};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::Current;

/// Nobody's.
pub(crate) const FREE: u32 = 0;

/// In a word: a number, of which no thread has the like for an id.
pub(crate) const NUMBER: u32 = 1 << 29;

/// Whether a living thread has it.
pub(crate) fn is_owned(word: u32) -> bool {
    word & NUMBER == 0 && word & OWNER != 0
}

/// A word that the kernel looks after when the thread that has it dies.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Robust {
    pub(crate) word: Futex,
    reserved: [AtomicU32; 5],
    pub(crate) node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(core::mem::offset_of!(Robust, node) == polyproc_sys::robust::NODE_OFFSET);
    assert!(size_of::<Robust>() == 40 && align_of::<Robust>() == 8);
};

impl Robust {
    /// Takes it if it has no living owner, and enters it in the thread's list. Returns whether it did.
    pub(crate) fn claim(&self, current: Current) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if word & OWNER != 0 || !current.has_room() {
            return false;
        }
        let Some(outer) = current.begin_inside(&self.word, &self.node) else { return false };
        // SeqCst: before the look for news of who claims it to sleep.
        let claimed =
            self.word.compare_exchange(word, current.tid() | WAITERS, Ordering::SeqCst, Ordering::Relaxed);
        if claimed.is_ok() {
            // SAFETY: it bears this thread's id since just now, and the queue's handle keeps it mapped.
            unsafe { current.link(&self.word, &self.node) };
        }
        current.end_inside(outer);
        claimed.is_ok()
    }

    /// Takes it, whatever number it bears, and enters it in the thread's list, unless a living thread has it.
    /// Returns what the word was. `None`, and nothing is done, if somebody has it, or this thread can hold no
    /// more.
    pub(crate) fn seize(&self, current: Current) -> Option<u32> {
        let mut word = self.word.load(Ordering::Relaxed);
        if is_owned(word) || !current.has_room() {
            return None;
        }
        let outer = current.begin_inside(&self.word, &self.node)?;
        while !is_owned(word) {
            // SeqCst: before what its owner publishes, and after what whoever sleeps on it has said.
            match self.word.compare_exchange(
                word,
                current.tid() | WAITERS,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    // SAFETY: it bears this thread's id since just now, and the queue's handle keeps it
                    // mapped.
                    unsafe { current.link(&self.word, &self.node) };
                    current.end_inside(outer);
                    return Some(word);
                }
                Err(other) => word = other,
            }
        }
        current.end_inside(outer);
        None
    }

    /// Gives up what was [seized](Robust::seize): the word becomes `rest`, or, if somebody has marked it,
    /// `marked`. Then, with `wake`, everybody is woken who sleeps on it: should this thread die before that,
    /// the kernel wakes one if the word is zero. Where it is marked, they are woken first.
    ///
    /// # Safety
    ///
    /// The calling thread has seized it, in this process, and not given it up.
    pub(crate) unsafe fn relinquish(&self, current: Current, rest: u32, marked: u32, wake: bool) {
        let outer = current.begin_inside(&self.word, &self.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&self.word, &self.node) };
        let own = current.tid() | WAITERS;
        // SeqCst: as above. Nobody else changes it, but for the mark.
        let is_marked = self.word.compare_exchange(own, rest, Ordering::SeqCst, Ordering::Relaxed).is_err();
        if wake {
            self.word.wake_all();
        }
        if is_marked {
            self.word.store(marked, Ordering::SeqCst);
        }
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
    }

    /// Gives it back, and wakes those who sleep on it if they want to know.
    ///
    /// # Safety
    ///
    /// The calling thread has claimed it, in this process, and not given it back.
    pub(crate) unsafe fn give_back(&self, current: Current, wake: bool) {
        let outer = current.begin_inside(&self.word, &self.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&self.word, &self.node) };
        // Release: whoever takes it sees what was done with it.
        self.word.store(FREE, Ordering::Release);
        if wake {
            // Still pending: should this thread die before it, the kernel wakes one, because the word is
            // zero.
            self.word.wake_all();
        }
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
    }

    /// Gives it up as if the thread had died, and wakes one who sleeps on it.
    ///
    /// # Safety
    ///
    /// As for [`give_back`](Robust::give_back).
    pub(crate) unsafe fn abandon(&self, current: Current) {
        let outer = current.begin_inside(&self.word, &self.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&self.word, &self.node) };
        // Release: as the kernel's own.
        self.word.store(OWNER_DIED | WAITERS, Ordering::Release);
        self.word.wake(1);
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
    }

    /// Whether it is a living or dead thread's.
    pub(crate) fn is_taken(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }
}
