//! The thread's robust list: the locks that the kernel releases when the thread dies.
//!
//! glibc registers one such list with the kernel for every thread and keeps its robust `pthread_mutex_t`s in
//! it. Ours go into the same list, in the same layout, so that both kinds can be held together and in any
//! order. The list is walked by the kernel when the thread is gone, however it went: each lock word in it
//! that bears the thread's id gets `OWNER_DIED` in its place, and if the word had `WAITERS`, one sleeper is
//! woken.
//!
//! | bytes of a lock | what | who reads it |
//! |---|---|---|
//! | 0 to 3 | the futex word | everybody, and the kernel |
//! | 4 to 23 | the lock's own | everybody |
//! | 24 to 31 | `prev` of the list | the holder's thread |
//! | 32 to 39 | `next` of the list, what a list pointer points to | the holder's thread, and the kernel |
//!
//! [`Node`] is bytes 24 to 39, and a lock asserts at compile time that it puts its word and its node there
//! ([`NODE_OFFSET`]). The list's head lies in glibc's record of the thread. The `prev` of the newest entry is
//! the head, without being stored: it is written when a newer entry comes before it.
//!
//! Between the instruction that takes a lock and its entry in the list lies a gap, and another between
//! removal and release. For those the head has one slot, *pending*: the lock that an operation is under way
//! on. [`begin`](Current::begin) fills it before the word is touched, [`end`](Current::end) empties it after
//! the wake. At the thread's death the kernel treats a pending lock like one in the list, and one more case:
//! if the word shows no owner, the thread may have swallowed a wake-up, so the kernel wakes one sleeper in
//! its place. A lock in the list may stay pending until it is released, which saves two stores: the kernel
//! looks at it once.

use crate::atomic::{AtomicU64, Ordering, compiler_fence};
use crate::futex::Futex;
use crate::thread::Current;
use core::mem::offset_of;
use std::io;

/// The most locks a thread can hold: what the kernel walks of a robust list before it gives up.
pub const LIMIT: u32 = 2048;

/// Where a lock has its [`Node`], counted from its word.
pub const NODE_OFFSET: usize = 24;

/// What glibc tells the kernel: from a list pointer, where the lock word is.
const FUTEX_OFFSET: i64 = -32;

/// Marks a pointer to a priority-inheritance lock. Ours never are; a neighbour may be.
const PRIORITY_INHERITANCE: u64 = 1;

/// The list's head in glibc's record of the thread, in the kernel's layout (`struct robust_list_head`).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    list: AtomicU64,
    futex_offset: i64,
    pending: AtomicU64,
}

impl Head {
    /// In the child of a fork: what was under way is the parent's business.
    pub(crate) fn forget_pending(&self) {
        self.pending.store(0, Ordering::Relaxed);
    }

    /// What a list pointer to the head is: the end of the list.
    #[inline(always)]
    fn address(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

/// A lock's links in the robust list of the thread that holds it. All zero is unlinked.
///
/// The links are addresses in the holder's process and mean nothing in another.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Node {
    prev: AtomicU64,
    next: AtomicU64,
}

impl Node {
    /// A node that is in no list.
    pub const fn new() -> Node {
        Node { prev: AtomicU64::new(0), next: AtomicU64::new(0) }
    }

    /// What a list pointer to this node is: the address of `next`.
    #[inline(always)]
    fn address(&self) -> u64 {
        core::ptr::from_ref(&self.next).expose_provenance() as u64
    }
}

/// What was announced before [`begin_inside`](Current::begin_inside).
#[must_use = "the operation before it is to be announced again"]
#[derive(Debug)]
pub struct Outer(u64);

const _: () = {
    assert!(size_of::<Node>() == 16 && offset_of!(Node, next) == 8);
    assert!(size_of::<Head>() == 24 && offset_of!(Head, pending) == 16);
};

/// Whether the thread has a robust list in glibc's layout, so that the locks work here.
///
/// # Errors
///
/// `Unsupported`, with what was found, if not: under a C library that lays its locks out otherwise, or where
/// the system call is forbidden.
pub fn check() -> io::Result<()> {
    head().map(|_| ())
}

/// The calling thread's list head.
pub(crate) fn head() -> io::Result<*mut Head> {
    let mut head: *mut Head = core::ptr::null_mut();
    let mut size = 0usize;
    // SAFETY: thread 0 is the caller; both pointers are to locals of the types that get_robust_list(2)
    // writes.
    let result = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut size) };
    let unsupported = |found: String| {
        let message = format!("the locks need the robust list that glibc keeps for each thread, but {found}");
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    };
    if result != 0 {
        return unsupported(format!("get_robust_list failed: {}", io::Error::last_os_error()));
    }
    if head.is_null() || size != size_of::<Head>() {
        return unsupported("this thread has none".to_owned());
    }
    // SAFETY: the kernel returned the head that libc registered for this thread; it lives as long as the
    // thread, and its offset is never written after the registration.
    let offset = unsafe { (*head).futex_offset };
    if offset != FUTEX_OFFSET {
        return unsupported(format!("its locks lie at {offset} bytes from their links, not {FUTEX_OFFSET}"));
    }
    Ok(head)
}

impl Current {
    #[inline(always)]
    pub(crate) fn head<'a>(self) -> &'a Head {
        // SAFETY: `register` stored the head that the kernel knows for this thread; it lives as long as the
        // thread, all that changes in it is accessed atomically here, and nobody else writes it while this
        // thread runs our code.
        unsafe { &*self.record().head.get() }
    }

    /// Announces an operation on the lock with these links: whatever happens from here to
    /// [`end`](Current::end), the kernel sorts it out if the thread dies. The word is the lock's own; the
    /// kernel finds it by the node.
    #[inline(always)]
    pub fn begin(self, _word: &Futex, node: &Node) {
        self.head().pending.store(node.address(), Ordering::Relaxed);
        // The kernel reads what this thread has stored at the instruction it died: only the compiler may
        // reorder.
        compiler_fence(Ordering::SeqCst);
    }

    /// Ends what [`begin`](Current::begin) announced.
    #[inline(always)]
    pub fn end(self) {
        compiler_fence(Ordering::SeqCst);
        self.head().pending.store(0, Ordering::Relaxed);
    }

    /// [`begin`](Current::begin), for an operation that may come in the middle of another of the same thread:
    /// that of a signal handler, or one for which a held lock shall stay announced.
    /// [`end_inside`](Current::end_inside) puts back what was there. `None` if the place is taken by an
    /// operation that needs it itself.
    ///
    /// A lock that is held may lose its place for a while: it is in the list too. One that is about to be
    /// taken or released may not.
    #[inline]
    pub fn begin_inside(self, word: &Futex, node: &Node) -> Option<Outer> {
        let outer = self.head().pending.load(Ordering::Relaxed);
        if outer != 0 && !self.entries().any(|entry| entry == outer) {
            return None;
        }
        self.begin(word, node);
        Some(Outer(outer))
    }

    /// Ends what [`begin_inside`](Current::begin_inside) announced.
    #[inline]
    pub fn end_inside(self, outer: Outer) {
        compiler_fence(Ordering::SeqCst);
        self.head().pending.store(outer.0, Ordering::Relaxed);
    }

    /// Whether this thread holds no lock at all.
    #[inline(always)]
    pub fn holds_none(self) -> bool {
        let head = self.head();
        head.list.load(Ordering::Relaxed) == head.address()
    }

    /// Whether this thread holds the lock with these links, and no other, and is still announced to be at it.
    #[inline(always)]
    pub fn holds_only(self, _word: &Futex, node: &Node) -> bool {
        let head = self.head();
        head.list.load(Ordering::Relaxed) == node.address()
            && head.pending.load(Ordering::Relaxed) == node.address()
            && node.next.load(Ordering::Relaxed) == head.address()
    }

    /// Whether one more lock can be held without going beyond what the kernel walks. Counts what is held.
    pub fn has_room(self) -> bool {
        self.entries().take(LIMIT as usize).count() < LIMIT as usize
    }

    /// [`link`](Current::link), where the thread held none.
    ///
    /// # Safety
    ///
    /// As for [`link`](Current::link); and [`holds_none`](Current::holds_none).
    #[inline(always)]
    pub unsafe fn link_only(self, _word: &Futex, node: &Node) {
        let head = self.head();
        // Mostly it is still there from the last time. The atomic instruction of the unlock waits for every
        // store.
        if node.next.load(Ordering::Relaxed) != head.address() {
            node.next.store(head.address(), Ordering::Relaxed);
        }
        // The kernel follows `next` only: it must be in place before the head points here.
        compiler_fence(Ordering::SeqCst);
        head.list.store(node.address(), Ordering::Relaxed);
    }

    /// [`unlink`](Current::unlink), where the thread holds no other.
    ///
    /// # Safety
    ///
    /// As for [`unlink`](Current::unlink); and [`holds_only`](Current::holds_only) this one.
    #[inline(always)]
    pub unsafe fn unlink_only(self, _word: &Futex, _node: &Node) {
        let head = self.head();
        head.list.store(head.address(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Enters a lock that this thread has just taken in its list.
    ///
    /// # Safety
    ///
    /// The node belongs to a lock whose word bears this thread's id; it is in no list; it stays mapped at
    /// this address until [`unlink`](Current::unlink) or the thread's end.
    pub unsafe fn link(self, _word: &Futex, node: &Node) {
        let head = self.head();
        let first = head.list.load(Ordering::Relaxed);
        node.next.store(first, Ordering::Relaxed);
        if first != head.address() {
            // SAFETY: `first` is an entry of this thread's own list.
            let neighbour = unsafe { prev_slot(first) };
            neighbour.store(node.address(), Ordering::Relaxed);
        }
        // The kernel follows `next` only: it must be in place before the head points here.
        compiler_fence(Ordering::SeqCst);
        head.list.store(node.address(), Ordering::Relaxed);
    }

    /// Takes a lock that this thread is about to release out of its list.
    ///
    /// # Safety
    ///
    /// The node was entered by [`link`](Current::link) on this thread, in this process, and not taken out
    /// since.
    pub unsafe fn unlink(self, _word: &Futex, node: &Node) {
        let head = self.head();
        let next = node.next.load(Ordering::Relaxed);
        let prev = if head.list.load(Ordering::Relaxed) == node.address() {
            head.address()
        } else {
            node.prev.load(Ordering::Relaxed)
        };
        if next != head.address() {
            // SAFETY: `next` is an entry of this thread's own list.
            let neighbour = unsafe { prev_slot(next) };
            neighbour.store(prev, Ordering::Relaxed);
        }
        // SAFETY: `prev` is an entry of this thread's own list, or its head.
        let neighbour = unsafe { next_slot(prev) };
        neighbour.store(next, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Whether this thread holds the lock with these links. Walks the list: unlike the id in the lock word,
    /// which a thread of another PID namespace can share, the answer is always right.
    pub fn holds(self, _word: &Futex, node: &Node) -> bool {
        self.entries().any(|entry| entry == node.address())
    }

    /// The list's entries, newest first, as addresses.
    fn entries(self) -> impl Iterator<Item = u64> {
        let head = self.head();
        let end = head.address();
        let mut entry = head.list.load(Ordering::Relaxed) & !PRIORITY_INHERITANCE;
        core::iter::from_fn(move || {
            let this = entry;
            if this == end {
                return None;
            }
            // SAFETY: `this` is an entry of this thread's own list.
            let next = unsafe { next_slot(this) };
            entry = next.load(Ordering::Relaxed) & !PRIORITY_INHERITANCE;
            Some(this)
        })
    }
}

/// The `prev` of the list entry that `pointer` points to: the eight bytes before it.
///
/// # Safety
///
/// `pointer` points to an entry of the calling thread's own list.
#[inline(always)]
unsafe fn prev_slot<'a>(pointer: u64) -> &'a AtomicU64 {
    let address = (pointer & !PRIORITY_INHERITANCE) - 8;
    let slot = core::ptr::with_exposed_provenance_mut::<u64>(address as usize);
    // SAFETY: entries, glibc's and ours, have their `prev` right before their `next`. While linked they stay
    // mapped, and only this thread touches them.
    unsafe { AtomicU64::from_ptr(slot) }
}

/// The `next` of the list entry, or head, that `pointer` points to: the eight bytes at it.
///
/// # Safety
///
/// `pointer` points to an entry of the calling thread's own list, or to its head.
#[inline(always)]
unsafe fn next_slot<'a>(pointer: u64) -> &'a AtomicU64 {
    let address = pointer & !PRIORITY_INHERITANCE;
    let slot = core::ptr::with_exposed_provenance_mut::<u64>(address as usize);
    // SAFETY: a list pointer points to the `next` of an entry, or to the head's first pointer. While linked
    // they stay mapped, and only this thread touches them.
    unsafe { AtomicU64::from_ptr(slot) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread::current;

    /// A lock of the agreed layout.
    #[derive(Default)]
    #[repr(C)]
    struct Lock {
        before: [u64; 3],
        node: Node,
    }

    const _: () = assert!(offset_of!(Lock, node) == NODE_OFFSET);

    /// Stands for the locks' words, which nothing looks at here.
    static WORD: Futex = Futex::new(0);

    fn entries() -> Vec<u64> {
        current().entries().collect()
    }

    #[test]
    fn locks_leave_in_any_order() {
        let locks: [Lock; 3] = Default::default();
        let addresses: Vec<_> = locks.iter().map(|lock| lock.node.address()).collect();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            for lock in &locks {
                // SAFETY: the nodes are in no list, and live to the end of the test.
                unsafe { current().link(&WORD, &lock.node) };
            }
            assert_eq!(entries(), [addresses[2], addresses[1], addresses[0]]);
            assert!(locks.iter().all(|lock| current().holds(&WORD, &lock.node)));
            for index in order {
                // SAFETY: linked above.
                unsafe { current().unlink(&WORD, &locks[index].node) };
                assert!(!current().holds(&WORD, &locks[index].node));
            }
            assert_eq!(entries(), []);
        }
    }

    #[test]
    fn an_operation_inside_another_gives_its_place_back() {
        let [outer, inner]: [Lock; 2] = Default::default();
        let pending = || current().head().pending.load(Ordering::Relaxed);
        // About to be taken: its place is its own.
        current().begin(&WORD, &outer.node);
        assert!(current().begin_inside(&WORD, &inner.node).is_none());
        assert_eq!(pending(), outer.node.address());
        // Held: the list has it.
        // SAFETY: the node is in no list, and lives to the end of the test.
        unsafe { current().link(&WORD, &outer.node) };
        let before = current().begin_inside(&WORD, &inner.node).unwrap();
        assert_eq!(pending(), inner.node.address());
        current().end_inside(before);
        assert_eq!(pending(), outer.node.address());
        // SAFETY: linked above.
        unsafe { current().unlink(&WORD, &outer.node) };
        current().end();
        // Nothing at all.
        let before = current().begin_inside(&WORD, &inner.node).unwrap();
        current().end_inside(before);
        assert_eq!(pending(), 0);
    }

    #[test]
    fn robust_pthread_mutexes_share_the_list() {
        // SAFETY: all-zero is a valid value to be initialised by the calls below.
        let mut theirs: libc::pthread_mutex_t = unsafe { core::mem::zeroed() };
        let mut attributes = core::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: initialises the attributes.
        assert_eq!(unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) }, 0);
        // SAFETY: the attributes were initialised.
        let result =
            unsafe { libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST) };
        assert_eq!(result, 0);
        // SAFETY: the attributes were initialised, the mutex is ours.
        assert_eq!(unsafe { libc::pthread_mutex_init(&mut theirs, attributes.as_ptr()) }, 0);
        let (older, newer): (Lock, Lock) = Default::default();

        // SAFETY: the node is in no list, and lives to the end of the test.
        unsafe { current().link(&WORD, &older.node) };
        // SAFETY: the mutex was initialised.
        assert_eq!(unsafe { libc::pthread_mutex_lock(&mut theirs) }, 0);
        // SAFETY: as above.
        unsafe { current().link(&WORD, &newer.node) };
        assert_eq!(entries().len(), 3);
        // SAFETY: locked above; it lies between two of ours.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(&mut theirs) }, 0);
        assert_eq!(entries(), [newer.node.address(), older.node.address()]);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutex_lock(&mut theirs) }, 0);
        // SAFETY: linked above; theirs is its neighbour now.
        unsafe { current().unlink(&WORD, &newer.node) };
        // SAFETY: as above.
        unsafe { current().unlink(&WORD, &older.node) };
        assert_eq!(entries().len(), 1);
        // SAFETY: locked above.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(&mut theirs) }, 0);
        assert_eq!(entries(), []);
    }

    #[test]
    fn foreign_entries_count_towards_the_limit() {
        let locks: Vec<Lock> = (0..LIMIT).map(|_| Lock::default()).collect();
        for (count, lock) in locks.iter().enumerate() {
            assert!(current().has_room(), "refused the lock after {count}");
            // SAFETY: the node is in no list, and lives to the end of the test.
            unsafe { current().link(&WORD, &lock.node) };
        }
        assert!(!current().has_room());
        for lock in locks.iter().rev() {
            // SAFETY: linked above.
            unsafe { current().unlink(&WORD, &lock.node) };
        }
        assert!(current().has_room());
    }
}
