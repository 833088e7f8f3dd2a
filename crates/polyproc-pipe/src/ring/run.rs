//! Where a sender is in a run.
//!
//! That is the line, and what its header says, from which follows all that a message of a run needs: to load
//! and to store costs more than to calculate.

use super::{HEADER, LENGTH_SHIFT, LINE, RUN, RUN_MOST, Spot, WRITTEN, padded};
use polyproc_sys::atomic::Ordering;

/// The runs of messages of one length.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    length: u64,
}

impl Kind {
    /// Of messages of this length, which need not be one that runs have.
    #[inline(always)]
    pub(crate) fn of(length: usize) -> Kind {
        Kind { length: length as u64 }
    }

    #[inline(always)]
    fn is_for_runs(self) -> bool {
        self.length.wrapping_sub(1) < RUN_MOST as u64
    }

    /// How many bytes of its line a full run uses for its messages, if it begins with the line.
    #[inline(always)]
    fn full(self) -> u64 {
        self.most() * padded(self.length)
    }

    /// How many of them a line has room for.
    #[inline(always)]
    pub(crate) fn most(self) -> u64 {
        super::slots(0, self.length)
    }

    /// What the header of such a run says that has no message yet.
    #[inline(always)]
    pub(super) fn empty_header(self) -> u64 {
        WRITTEN | RUN | self.length << LENGTH_SHIFT | HEADER
    }

    /// What it says when the line is full.
    #[inline(always)]
    pub(super) fn full_header(self) -> u64 {
        self.empty_header() + self.full()
    }
}

/// A run that began with its line.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Run {
    /// Where it begins, if it is open.
    line: Spot,
    /// What is said there; if that is that it is full, a message of the same length begins a run at the
    /// beginning of the next line. 0 if no message goes on with anything.
    header: u64,
}

impl Run {
    pub(super) const NONE: Run = Run { line: Spot::NOWHERE, header: 0 };

    /// One that has so many messages.
    #[inline(always)]
    pub(super) fn new(line: Spot, kind: Kind, messages: u64) -> Run {
        Run { line, header: kind.empty_header() + messages * padded(kind.length) }
    }

    /// A full one, wherever it is.
    pub(super) fn full(kind: Kind) -> Run {
        Run { line: Spot::NOWHERE, header: kind.full_header() }
    }

    /// How many bytes of messages are in it, if it is of this kind; if not, more than any run has.
    #[inline(always)]
    fn used(self, kind: Kind) -> u64 {
        self.header.wrapping_sub(kind.empty_header())
    }

    /// Whether a message of this kind goes on with it.
    #[inline(always)]
    pub(crate) fn is_open(self, kind: Kind) -> bool {
        // One comparison, for what it is and for whether it is full.
        kind.is_for_runs() && self.used(kind) <= kind.full() - padded(kind.length)
    }

    /// Whether a message of this kind begins one like it at the beginning of the next line.
    #[inline(always)]
    pub(crate) fn is_full(self, kind: Kind) -> bool {
        kind.is_for_runs() && self.header == kind.full_header()
    }

    #[inline(always)]
    pub(super) fn is_none(self) -> bool {
        self.header == 0
    }

    /// If it is open: how many more messages it has room for.
    pub(super) fn room(self) -> Option<u64> {
        let kind = Kind { length: super::length(self.header) };
        self.is_open(kind).then(|| kind.most() - self.used(kind) / padded(kind.length))
    }

    /// Where the next message goes, which is of this kind.
    ///
    /// # Safety
    ///
    /// It is [open](Run::is_open) for it.
    #[inline(always)]
    pub(super) unsafe fn slot(self, kind: Kind) -> Spot {
        // SAFETY: the run is not full, so its next message ends in the same line.
        unsafe { self.line.add(HEADER + self.used(kind)) }
    }

    /// What its header says with one more message of this kind.
    #[inline(always)]
    pub(super) fn header_after(self, kind: Kind) -> u64 {
        self.header + padded(kind.length)
    }

    /// What its header says.
    pub(super) fn header(self) -> u64 {
        self.header
    }

    #[inline(always)]
    pub(super) fn set_header(&mut self, header: u64) {
        self.header = header;
    }

    /// Says in the ring what its header is, after the messages.
    ///
    /// # Safety
    ///
    /// It is there, open.
    #[inline(always)]
    pub(super) unsafe fn publish(self, header: u64) {
        // SAFETY: the caller's.
        let shared = unsafe { self.line.header() };
        // Release: the messages first. Pairs with the Acquire in the receiver's `front`.
        shared.store(header, Ordering::Release);
    }
}

const _: () = assert!(LINE <= 1 << LENGTH_SHIFT);
