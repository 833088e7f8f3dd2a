//! The robust list, without addresses.

use super::{RECORD, futex::Futex, step, thread::Current};

/// See the real one.
pub const NODE_OFFSET: usize = 24;

/// See the real one.
#[must_use]
#[derive(Debug)]
pub struct Outer(*const Futex);

/// A lock's links: in a model, nothing.
#[derive(Debug, Default)]
pub struct Node;

#[allow(missing_docs, clippy::missing_safety_doc)]
impl Node {
    pub fn new() -> Node {
        Node
    }
}

#[allow(missing_docs, clippy::missing_safety_doc)]
impl Current {
    pub fn begin(self, word: &Futex, _: &Node) {
        RECORD.with(|record| record.pending.set(word));
    }
    pub fn end(self) {
        step();
        RECORD.with(|record| record.pending.set(core::ptr::null()));
    }
    pub fn begin_inside(self, word: &Futex, node: &Node) -> Option<Outer> {
        let outer = RECORD.with(|record| record.pending.get());
        if !outer.is_null() && !RECORD.with(|record| record.list.borrow().contains(&outer)) {
            return None;
        }
        self.begin(word, node);
        Some(Outer(outer))
    }
    pub fn end_inside(self, outer: Outer) {
        step();
        RECORD.with(|record| record.pending.set(outer.0));
    }
    pub fn has_room(self) -> bool {
        true
    }
    pub fn holds_none(self) -> bool {
        RECORD.with(|record| record.list.borrow().is_empty())
    }
    pub fn holds_only(self, word: &Futex, node: &Node) -> bool {
        let announced = RECORD.with(|record| core::ptr::eq(record.pending.get(), word));
        announced && self.holds(word, node) && RECORD.with(|record| record.list.borrow().len() == 1)
    }
    pub unsafe fn link_only(self, word: &Futex, node: &Node) {
        // SAFETY: the caller's.
        unsafe { self.link(word, node) };
    }
    pub unsafe fn unlink_only(self, word: &Futex, node: &Node) {
        // SAFETY: the caller's.
        unsafe { self.unlink(word, node) };
    }
    pub unsafe fn link(self, word: &Futex, _: &Node) {
        step();
        // One set of links: in one thread's list at a time.
        assert!(!word.linked.swap(true, core::sync::atomic::Ordering::Relaxed), "it is in a list already");
        RECORD.with(|record| record.list.borrow_mut().push(word));
    }
    pub unsafe fn unlink(self, word: &Futex, _: &Node) {
        step();
        word.linked.store(false, core::sync::atomic::Ordering::Relaxed);
        RECORD.with(|record| record.list.borrow_mut().retain(|other| !core::ptr::eq(*other, word)));
    }
    pub fn holds(self, word: &Futex, _: &Node) -> bool {
        RECORD.with(|record| record.list.borrow().iter().any(|other| core::ptr::eq(*other, word)))
    }
}
