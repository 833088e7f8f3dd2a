//! Where a sender is in a run.
//!
//! That is one word, from which follows all that a message of a run needs: to load and to store costs more than to calculate. A
//! run that is open begins with its line, so that the place of its next message says how many it has.

use super::{COUNT_SHIFT, HEADER, LINE, RUN, Spot, WRITTEN, slots};
use crate::line::Line;
use core::ptr::NonNull;

/// How many words each message of a run has, 1 to 3, and [`ODD`] if it is shorter than that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(usize);

const WORDS: usize = 3;
const ODD: usize = 4;

impl Kind {
    /// Of messages of this length. Those that are not for runs have a kind that no [`Next`] has.
    #[inline(always)]
    pub(crate) fn of(length: usize) -> Kind {
        Kind(match length {
            8 | 16 | 24 => length / 8,
            1..8 => ODD | 1,
            9..16 => ODD | 2,
            17..24 => ODD | 3,
            _ => usize::MAX,
        })
    }

    #[inline(always)]
    fn words(self) -> usize {
        self.0 & WORDS
    }

    /// How many of them a line has room for.
    #[inline(always)]
    pub(crate) fn most(self) -> u64 {
        slots(0, 8 * self.words() as u64)
    }

    /// Where in its line a full run ends: with the line, or a word before.
    #[inline(always)]
    fn end(self) -> usize {
        if self.words() == 1 { 0 } else { OFFSET }
    }

    /// Where in the line of an open run the next message may go: a set of bits.
    #[inline(always)]
    fn offsets(self) -> u64 {
        match self.words() {
            _ if self.0 > WORDS | ODD => 0,
            1 => 1 << 8 | 1 << 16 | 1 << 24 | 1 << 32 | 1 << 40 | 1 << 48 | 1 << 56,
            2 => 1 << 8 | 1 << 24 | 1 << 40,
            _ => 1 << 8 | 1 << 32,
        }
    }
}

/// Where the next message goes, and in the lowest bits, which are zero there, its [`Kind`].
#[derive(Clone, Copy)]
pub(super) struct Next(Spot);

/// How far it is from the beginning of its line.
const OFFSET: usize = LINE as usize - 8;

impl Next {
    /// No run is open, and none follows another.
    pub(super) const NOWHERE: Next = Next(Spot::NOWHERE);

    /// In an open run.
    #[inline(always)]
    pub(super) fn new(slot: Spot, kind: Kind) -> Next {
        Next(Spot(slot.0.map_addr(|address| address | kind.0)))
    }

    /// No run is open; such a message begins one at the beginning of a line, wherever that is.
    pub(super) fn at_line(kind: Kind) -> Next {
        let line = NonNull::<Line>::dangling().cast();
        Next(Spot(line.map_addr(|address| address | kind.end() | kind.0)))
    }

    #[inline(always)]
    fn address(self) -> usize {
        self.0.0.addr().get()
    }

    #[inline(always)]
    fn offset(self) -> usize {
        self.address() & OFFSET
    }

    /// Whether a run of this kind is open.
    #[inline(always)]
    pub(super) fn goes_on(self, kind: Kind) -> bool {
        // One instruction looks for the bit, which is there if both the offset and the kind are right.
        (kind.offsets() << (kind.0 & (WORDS | ODD))) >> (self.address() % LINE as usize) & 1 != 0
    }

    /// Whether a message of this kind begins a run at the beginning of a line.
    #[inline(always)]
    pub(super) fn is_at_line(self, kind: Kind) -> bool {
        self.address() % LINE as usize == kind.end() | kind.0
    }

    #[inline(always)]
    pub(super) fn is_nowhere(self) -> bool {
        self.address() & WORDS == 0
    }

    /// If a run is open: of what kind, and how many messages it has.
    pub(super) fn open_run(self) -> Option<(Kind, u64)> {
        let kind = Kind(self.address() & (WORDS | ODD));
        (!self.is_nowhere() && self.offset() != kind.end()).then(|| (kind, self.count(kind)))
    }

    /// Where the message goes, in a run of this kind.
    #[inline(always)]
    pub(super) fn slot(self, kind: Kind) -> Spot {
        // SAFETY: the lowest bits are the kind's.
        Spot(unsafe { self.0.0.byte_sub(kind.0) })
    }

    /// Where the line begins, in which a run of this kind is open.
    #[inline(always)]
    pub(super) fn line(self, kind: Kind) -> Spot {
        // SAFETY: the beginning of the line is so far away.
        Spot(unsafe { self.slot(kind).0.byte_sub(self.offset()) })
    }

    /// How many messages the run has, which is of this kind.
    #[inline(always)]
    pub(super) fn count(self, kind: Kind) -> u64 {
        let before = self.offset() - HEADER as usize;
        // Each by itself: a division would take as long as all the rest.
        (match kind.words() {
            1 => before / 8,
            2 => before / 16,
            _ => before / 24,
        }) as u64
    }

    /// Behind the message, in a run of this kind.
    ///
    /// # Safety
    ///
    /// The run is open.
    #[inline(always)]
    pub(super) unsafe fn after(self, kind: Kind) -> Next {
        // SAFETY: in the same line, or at its end.
        Next(unsafe { self.0.add(8 * kind.words() as u64) })
    }
}

/// What the header of a run says that has so many messages of this length.
#[inline(always)]
pub(super) fn run_header(count: u64, length: usize) -> u64 {
    WRITTEN | RUN | (count << COUNT_SHIFT) | length as u64
}
