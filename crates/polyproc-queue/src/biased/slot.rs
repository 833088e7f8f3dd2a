//! What belongs to a thread to which a lock was granted: where it says that it is inside.
//!
//! An owner may be stopped between its look at `bias` and its store to the word, and go on after an hour. So
//! a slot belongs to one thread, even while its grant is gone, and is free again only when the kernel says
//! that there is no such thread. If no slot is free, nobody is granted the lock, and everything is a little
//! slower.

use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};
use polyproc_sys::futex::{Futex, OWNER, WAITERS};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::Current;

/// In the word: the owner is not inside.
pub(super) const OUTSIDE: u32 = 0;

/// See the table of words in [`biased`](super). All zero is free.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Slot {
    pub(super) word: Futex,
    reserved: [AtomicU32; 5],
    node: Node,
    token: AtomicU64,
    /// The PID namespace that counts the ids; 0 if that is not known.
    namespace: AtomicU64,
    pid: AtomicU32,
    tid: AtomicU32,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(size_of::<Slot>() == 128);
    assert!(core::mem::offset_of!(Slot, node) == polyproc_sys::robust::NODE_OFFSET);
};

impl Slot {
    #[inline(always)]
    pub(super) fn belongs_to(&self, current: Current) -> bool {
        // Relaxed: the owner goes by what it has stored itself, and the others find that it is not theirs.
        self.token.load(Ordering::Relaxed) == current.token()
    }

    pub(super) fn is_free(&self) -> bool {
        self.token.load(Ordering::Relaxed) == 0
    }

    /// As the holder of the mutex: it is this thread's from here on.
    pub(super) fn hand_to(&self, current: Current) {
        self.token.store(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.word.store(OUTSIDE, Ordering::Relaxed);
        self.namespace.store(namespace(), Ordering::Relaxed);
        self.pid.store(current.pid(), Ordering::Relaxed);
        self.tid.store(current.tid(), Ordering::Relaxed);
        // Last: if this thread dies before it, the slot is free.
        compiler_fence(Ordering::SeqCst);
        self.token.store(current.token(), Ordering::Relaxed);
    }

    /// As its owner: the kernel looks here if the thread dies from now on.
    #[inline(always)]
    pub(super) fn announce(&self, current: Current) {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Pending) {
            return;
        }
        current.begin(&self.word, &self.node);
    }

    /// A plain store. (loom takes one and another thread's atomic addition of nothing, in its futex, for
    /// unordered, and may lose the store: there it is a swap.)
    #[inline(always)]
    pub(super) fn say(&self, word: u32, ordering: Ordering) {
        if cfg!(polyproc_loom) {
            self.word.swap(word, ordering);
        } else {
            self.word.store(word, ordering);
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        // Acquire: pairs with the Release in `leave`. SeqCst for the models, whose fences stand for the
        // kernel's.
        self.word.load(Ordering::SeqCst) & OWNER != 0
    }

    /// Says that somebody sleeps until the owner is outside. `None` if something has changed.
    pub(super) fn mark(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Relaxed);
        let marked = word | WAITERS;
        // SeqCst: as the kernel's comparison. The owner's store may overwrite it: then it wakes because of
        // `bias`.
        let is_marked = word & OWNER != 0
            && (word == marked
                || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok());
        is_marked.then_some(marked)
    }

    /// As the owner that has left.
    #[cold]
    #[inline(never)]
    pub(super) fn call(&self) {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Call) {
            return;
        }
        self.word.wake_all();
    }

    /// As one who may have been woken here: the kernel wakes no more than one for a dead owner.
    pub(super) fn pass_on(&self) {
        if !self.is_inside() {
            self.word.wake_all();
        }
    }

    /// Whether there certainly is no such thread any more.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub(super) fn is_left_by_the_dead(&self) -> bool {
        let namespace = namespace();
        if namespace == 0 || self.namespace.load(Ordering::Relaxed) != namespace {
            return false;
        }
        let (pid, tid) = (self.pid.load(Ordering::Relaxed), self.tid.load(Ordering::Relaxed));
        // SAFETY: takes numbers only, and signal 0 is none.
        let found = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
        found < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    }

    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub(super) fn is_left_by_the_dead(&self) -> bool {
        false
    }
}

/// The number of the PID namespace, 0 if it is not to be found out.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

#[cfg(any(polyproc_loom, polyproc_shuttle))]
fn namespace() -> u64 {
    0
}
