//! Permits that nobody owns: their number, and how they come into cells.
//!
//! Permits that nobody has held yet, in excess of the cells or released by `release`, are a number: `supply`
//! has it, and the number of those that may still be released, in one word. So a `release` is one
//! compare-and-swap of all or nothing.
//!
//! A permit comes from there into a cell by a *move*, and so does the room that a forgotten permit leaves
//! come back. One thread at a time moves: the one that holds the gate, which is a robust lock too. It writes
//! what it is about to do into the `journal`, changes `supply`, whose parity says that it has, changes the
//! cell, and empties the journal. Who takes the gate from a dead thread finishes the move if the parity says
//! that it counts, and drops it if not. No move leads from `GONE` to `FREE`, in one: others could take the
//! permit and forget it before the journal is empty.
//!
//! `unused` is how many of the last cells have never had a permit. Nobody looks at those, or sleeps on them;
//! so before one gets its first permit, all who sleep are woken to look again.
//!
//! | journal | parity of `supply` | cell | a death leaves |
//! |---|---|---|---|
//! | none | any | `EMPTY`, `GONE` | nothing to do |
//! | the move | the one before | as it was | a move that is dropped |
//! | the move | the one that the journal names | as it was, or moved | a move that the next at the gate finishes |

use crate::cell::{EMPTY, FREE, GONE};
use crate::raw::RawSemaphore;
use core::fmt;
use polyproc_sys::atomic::{Ordering, compiler_fence, fence};
use polyproc_sys::backoff::Backoff;
use polyproc_sys::futex::{OWNER, OWNER_DIED, WAITERS};
use polyproc_sys::thread::{self, Current};

/// The most permits that a semaphore can have, those included that are held: 2³¹ - 1, as for POSIX
/// semaphores.
pub const MAX_PERMITS: u32 = i32::MAX as u32;

/// The word `supply`: how many more permits may be released, how many lie in no cell, and a bit that each
/// move flips.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Supply(u64);

const BITS: u32 = 31;
const PARITY: u64 = 1 << 62;

impl Supply {
    pub(crate) fn new(room: u32, credits: u32) -> Supply {
        Supply(u64::from(room) | u64::from(credits) << BITS)
    }

    /// How many more permits may be released.
    pub(crate) fn room(self) -> u32 {
        self.0 as u32 & MAX_PERMITS
    }

    /// How many permits lie in no cell.
    pub(crate) fn credits(self) -> u32 {
        (self.0 >> BITS) as u32 & MAX_PERMITS
    }

    fn parity(self) -> bool {
        self.0 & PARITY != 0
    }

    /// After the release of so many, if there is room.
    fn released(self, count: u32) -> Option<Supply> {
        let room = self.room().checked_sub(count)?;
        let credits = self.credits().checked_add(count).filter(|credits| *credits <= MAX_PERMITS)?;
        Some(Supply(Supply::new(room, credits).0 | (self.0 & PARITY)))
    }

    /// After a move.
    fn moved(self, kind: Move) -> Supply {
        let room = self.room().saturating_add(u32::from(kind.from() == GONE)).min(MAX_PERMITS);
        let credits = self.credits().saturating_sub(u32::from(kind.to() == FREE));
        Supply(Supply::new(room, credits).0 | (!self.0 & PARITY))
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

/// What can be done with a cell that has no permit. With the gate held only.
///
/// No move leads from `GONE` to `FREE`: others may take the permit and forget it while the journal still has
/// the move, and who finishes that for a dead thread would take the second `GONE` for the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    /// A permit comes into an empty cell.
    Fill,
    /// The room of a forgotten permit goes back.
    Collect,
}

impl Move {
    fn from(self) -> u32 {
        if self == Move::Fill { EMPTY } else { GONE }
    }

    fn to(self) -> u32 {
        if self == Move::Fill { FREE } else { EMPTY }
    }
}

/// The word `journal`: which move is under way, into which cell, and the parity of `supply` when it has begun
/// to count.
#[derive(Clone, Copy)]
struct Entry {
    kind: Move,
    parity: bool,
    index: u32,
}

/// No move is under way.
const NONE: u32 = 0;

impl Entry {
    fn to_bits(self) -> u32 {
        let kind = match self.kind {
            Move::Fill => 1,
            Move::Collect => 2,
        };
        kind | u32::from(self.parity) << 2 | self.index << 3
    }

    fn from_bits(bits: u32) -> Option<Entry> {
        let kind = match bits & 3 {
            1 => Move::Fill,
            2 => Move::Collect,
            _ => return None,
        };
        Some(Entry { kind, parity: bits & 4 != 0, index: bits >> 3 })
    }
}

/// What came of an attempt to bring a permit into a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refilled {
    /// Something has changed: it is worth looking again.
    Yes,
    /// There is a permit, and another thread is at the gate.
    Busy,
    /// There is none, or no cell for it.
    No,
}

/// More permits were to be released than there may be. Nothing was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseError {
    /// How many were to be released.
    pub requested: u32,
    /// How many could have been.
    pub room: u32,
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} permits were to be released, and there is room for {}", self.requested, self.room)
    }
}

impl std::error::Error for ReleaseError {}

impl RawSemaphore<'_> {
    /// Adds permits that nobody has held, and wakes as many who wait. All of them, or none if they are too
    /// many.
    ///
    /// Not for signal handlers.
    ///
    /// # Errors
    ///
    /// There would be more permits than there may be.
    pub fn release(self, count: u32) -> Result<(), ReleaseError> {
        if count == 0 {
            return Ok(());
        }
        let current = thread::current();
        // If this thread dies between the release and the wake, the kernel wakes one who sleeps at the gate.
        let Some(outer) = current.begin_inside(&self.head.gate, &self.head.node) else {
            // In a signal handler, in the middle of another operation: without that.
            let supply = self.supply();
            return self.add(count).map_err(|()| ReleaseError { requested: count, room: supply.room() });
        };
        let result = self.add(count).or_else(|()| self.add_at_the_gate(current, count));
        current.end_inside(outer);
        result
    }

    fn add(self, count: u32) -> Result<(), ()> {
        let mut supply = self.supply();
        loop {
            let more = supply.released(count).ok_or(())?;
            match self.change_supply(supply, more) {
                Ok(()) => break,
                Err(other) => supply = other,
            }
        }
        self.head.door.tell(&self.head.gate, count);
        Ok(())
    }

    /// There was not room enough: the decision is made by one thread at a time, with all room collected.
    #[cold]
    #[inline(never)]
    fn add_at_the_gate(self, current: Current, count: u32) -> Result<(), ReleaseError> {
        let mut backoff = Backoff::new();
        while !self.try_lock(current) {
            if !backoff.pause() {
                nap();
            }
        }
        let result = loop {
            let supply = self.supply();
            if self.collect() {
                continue;
            }
            // No cell was `GONE` when `supply` was read: with the gate held, none ceases to be. So this was
            // all the room that there was in that moment.
            let Some(more) = supply.released(count) else {
                break Err(ReleaseError { requested: count, room: supply.room() });
            };
            if self.change_supply(supply, more).is_ok() {
                break Ok(());
            }
        };
        self.unlock();
        if result.is_ok() {
            self.head.door.tell(&self.head.gate, count);
        }
        result
    }

    /// With the gate held: the room of all forgotten permits goes back. Whether there were any.
    fn collect(self) -> bool {
        let mut found = false;
        for index in 0..self.known() {
            if self.cells[index].word.load(Ordering::Acquire) == GONE {
                self.make(Move::Collect, index);
                found = true;
            }
        }
        found
    }

    /// Brings a permit into a cell, if there is one without, and a cell for it; and sees to what a dead
    /// thread left at the gate.
    pub(crate) fn refill(self, current: Current) -> Refilled {
        let died = self.head.gate.load(Ordering::Relaxed) & OWNER_DIED != 0;
        if !died && !self.can_refill() {
            return Refilled::No;
        }
        if !self.try_lock(current) {
            return Refilled::Busy;
        }
        if self.supply().credits() > 0 {
            self.fill();
        }
        self.unlock();
        Refilled::Yes
    }

    /// Whether there is a permit in no cell, and a cell for it.
    pub(crate) fn can_refill(self) -> bool {
        self.supply().credits() > 0 && (self.known() < self.cells.len() || self.vacant().is_some())
    }

    /// Whether there is a permit in no cell, and no cell for it.
    pub(crate) fn is_stuck(self) -> bool {
        self.supply().credits() > 0 && !self.can_refill()
    }

    /// With the gate held and a permit to spare: fills a cell, if there is one.
    fn fill(self) {
        if let Some(index) = self.vacant() {
            if self.cells[index].word.load(Ordering::Relaxed) == GONE {
                self.make(Move::Collect, index);
            }
            self.make(Move::Fill, index);
        } else if self.known() < self.cells.len() {
            let index = self.known();
            let unused = (self.cells.len() - index - 1) as u32;
            self.head.unused.store(unused, Ordering::Relaxed);
            // Those who sleep do not know this cell, and would not hear of its holder's death. From here on,
            // who looks at the door first knows it.
            self.head.door.tell(&self.head.gate, u32::MAX);
            self.make(Move::Fill, index);
        }
    }

    /// A cell that had a permit once, and has none.
    fn vacant(self) -> Option<usize> {
        let vacant = |index: &usize| matches!(self.cells[*index].word.load(Ordering::Relaxed), EMPTY | GONE);
        (0..self.known()).find(vacant)
    }

    /// With the gate held: a move, in steps that a survivor can finish.
    fn make(self, kind: Move, index: usize) {
        let mut supply = self.supply();
        let entry = Entry { kind, parity: !supply.parity(), index: index as u32 };
        // Relaxed, here and below: these are for who holds the gate next. That this thread may die in between
        // is a matter of the compiler only.
        self.head.journal.store(entry.to_bits(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // Others release meanwhile.
        while let Err(other) = self.change_supply(supply, supply.moved(kind)) {
            supply = other;
        }
        compiler_fence(Ordering::SeqCst);
        self.finish(entry);
    }

    /// With the gate held: a move that `supply` has counted comes to its end.
    fn finish(self, entry: Entry) {
        if let Some(cell) = self.cells.get(entry.index as usize) {
            // SeqCst: passes on what the release of this permit acquired, and the forgetting of the one
            // before. It fails if the dead thread has done it already: only who holds the gate changes a cell
            // without a permit.
            let (from, to) = (entry.kind.from(), entry.kind.to());
            let _ = cell.word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed);
        }
        compiler_fence(Ordering::SeqCst);
        self.head.journal.store(NONE, Ordering::Relaxed);
    }

    /// Takes the gate, if no living thread has it. It is pending then, as in all of a wait.
    fn try_lock(self, current: Current) -> bool {
        let gate = self.head.gate.load(Ordering::Relaxed);
        // With WAITERS in any case: if this thread dies here, the kernel wakes one.
        let taken = current.tid() | WAITERS;
        // SeqCst: acquires what the last holder left, and is ordered before the look at the journal.
        if gate & OWNER != 0
            || self.head.gate.compare_exchange(gate, taken, Ordering::SeqCst, Ordering::Relaxed).is_err()
        {
            return false;
        }
        if gate & OWNER_DIED != 0 {
            self.recover();
        }
        true
    }

    /// With the gate held: finishes what a dead thread has begun there.
    #[cold]
    fn recover(self) {
        if let Some(entry) = Entry::from_bits(self.head.journal.load(Ordering::Relaxed)) {
            if self.supply().parity() == entry.parity {
                self.finish(entry);
            } else {
                self.head.journal.store(NONE, Ordering::Relaxed);
            }
        }
        // It may have made a cell known, and died before it told.
        self.head.door.tell(&self.head.gate, u32::MAX);
    }

    /// Gives the gate back, and wakes one if there is something to have: who came to the gate meanwhile went
    /// to sleep.
    fn unlock(self) {
        self.head.gate.swap(0, Ordering::SeqCst);
        self.pass_on();
    }

    /// Wakes one who sleeps if there is a permit to have.
    pub(crate) fn pass_on(self) {
        // Pairs with the fence of `Door::announce`.
        fence(Ordering::SeqCst);
        if !self.head.door.is_quiet() && self.has_permit() {
            self.head.door.tell(&self.head.gate, 1);
        }
    }

    /// Whether a permit could be acquired.
    fn has_permit(self) -> bool {
        let lies_there = |word: u32| word == FREE || word & OWNER_DIED != 0;
        self.cells[..self.known()].iter().any(|cell| lies_there(cell.word.load(Ordering::Relaxed)))
            || self.can_refill()
    }

    /// How many permits there are that nobody holds. The answer may be out of date by the time the caller
    /// looks at it.
    pub fn available(self) -> u32 {
        loop {
            let supply = self.supply();
            let on_its_way = self.is_on_its_way(supply);
            let cells = self.cells[..self.known()].iter().filter(|cell| {
                let word = cell.word.load(Ordering::Acquire);
                word == FREE || word & OWNER_DIED != 0
            });
            let available = supply.credits() + cells.count() as u32 + u32::from(on_its_way);
            // A move meanwhile would have been counted twice, or not at all.
            if self.supply() == supply && self.is_on_its_way(supply) == on_its_way {
                return available;
            }
        }
    }

    /// Whether a permit has left `supply` and is not in its cell yet.
    fn is_on_its_way(self, supply: Supply) -> bool {
        let Some(entry) = Entry::from_bits(self.head.journal.load(Ordering::Acquire)) else { return false };
        let Some(cell) = self.cells.get(entry.index as usize) else { return false };
        entry.kind.to() == FREE
            && supply.parity() == entry.parity
            && cell.word.load(Ordering::Acquire) == entry.kind.from()
    }

    /// How many more permits may be released.
    pub fn room(self) -> u32 {
        let gone = self.cells[..self.known()].iter().filter(|cell| cell.word.load(Ordering::Acquire) == GONE);
        let gone = gone.count() as u32;
        let supply = self.supply();
        let counted = Entry::from_bits(self.head.journal.load(Ordering::Acquire)).is_some_and(|entry| {
            let word = self.cells.get(entry.index as usize).map(|cell| cell.word.load(Ordering::Acquire));
            supply.parity() == entry.parity && entry.kind.from() == GONE && word == Some(GONE)
        });
        supply.room() + gone - u32::from(counted).min(gone)
    }

    fn supply(self) -> Supply {
        // Acquire: pairs with `change_supply`.
        Supply(self.head.supply.load(Ordering::Acquire))
    }

    fn change_supply(self, now: Supply, next: Supply) -> Result<(), Supply> {
        // SeqCst: who takes a permit acquires what its releaser had done before.
        let result = self.head.supply.compare_exchange(now.0, next.0, Ordering::SeqCst, Ordering::Acquire);
        result.map(|_| ()).map_err(Supply)
    }
}

/// Lets others go on. The gate is held for some hundred instructions; whoever holds it longer does not run.
fn nap() {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    polyproc_sys::model::yield_now();
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    std::thread::sleep(std::time::Duration::from_micros(100));
}
