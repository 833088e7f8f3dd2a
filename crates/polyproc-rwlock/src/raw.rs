//! The readers-writer lock's protocol.
//!
//! A [`RawMutex`], the *writer lock*, and a row of *reader slots*. A writer holds the writer lock and waits
//! until no slot has a reader. A reader holds one slot, and must not keep it if the writer lock is not free.
//! All of them are robust locks: the kernel releases what the dead held. A slot and its states are in
//! [`slot`], the rest is here.
//!
//! # Reading and writing
//!
//! - **Reader**: claims a slot, then looks at the writer lock. Free: it reads. Not free: it gives the slot
//!   back, looks again for a moment, and then queues for the writer lock like a writer. With that it claims a
//!   slot, for which it waits if all are taken, and unlocks. The queue is the same for both, so that neither
//!   starves.
//! - **Writer**: takes the writer lock, then looks at every slot. Where there is a living owner, it marks the
//!   word and sleeps on it until it changes.
//!
//! Claim and look of a reader, lock and look of a writer: between either pair is a sequentially consistent
//! fence, so that one of the two sees the other. If both do, the reader gives way.
//!
//! A thread that reads already may be the one that the writer waits for, so it does not wait for the writer:
//! it counts in the `depth` of the slot that it has. It is not asked how many slots a thread has as long as
//! no writer is there.
//!
//! # Why nobody sleeps for ever
//!
//! For the writer lock, see [`RawMutex`]. On slots sleeps only the holder of the writer lock: a writer on
//! one, a reader for which there was no slot on all of them. Whoever frees a marked slot wakes. So there is
//! never more than one sleeper, and no wake-up can be spent on another. What if a thread dies?
//!
//! - **A reader with its slot**: the kernel puts `OWNER_DIED` in its place, and wakes if `WAITERS` is set.
//! - **Between release and wake**: the operation is pending
//!   ([`begin`](polyproc_sys::thread::Current::begin)), so if the word is `FREE`, the kernel wakes. If it is
//!   not, another reader has claimed the slot meanwhile. That one finds the writer lock held, because its
//!   holder sleeps here, and so gives the slot back; whoever gives a slot back wakes, whether it is marked or
//!   not.
//! - **The sleeper**: the kernel releases the writer lock, and the next holder looks at the slots itself. A
//!   mark that was left behind costs one wake in vain.
//! - **A writer inside** poisons, as for every [`RawMutex`]. Its word is not free until somebody has taken
//!   the lock over: readers do, in the queue. One that waits for readers is not inside yet.
//!
//! So one death at any instruction strands nobody. What is left to the backstop
//! ([`polyproc_sys::deadline::BACKSTOP`]) is two: of a reader between release and wake, and of the one that
//! claimed its slot meanwhile and was to give it back; beside what `RawMutex` leaves to it.

mod slot;

pub use slot::ReaderSlot;

use core::fmt;
use polyproc_mutex::{RawMutex, Refusal};
use polyproc_sys::atomic::{Ordering, fence_after_rmw};
use polyproc_sys::backoff::Backoff;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, OWNER, Wait};
use polyproc_sys::thread::{self, Current};
use slot::FREE;

/// A readers-writer lock made of a writer lock and reader slots, wherever these lie.
///
/// This is the protocol alone: no data, no handle, no poisoning by itself. [`RwLock`](crate::RwLock) is what
/// most programs want. A view: two references and a number, made where it is used. All zero is unlocked.
///
/// Writers do not starve: while one waits, readers that come queue with it. Reading is re-entrant, writing is
/// not. Not for signal handlers.
///
/// # Example
///
/// ```
/// use polyproc_mutex::{RawMutex, Refusal};
/// use polyproc_rwlock::{RawRwLock, ReaderSlot};
/// use polyproc_sys::deadline::Deadline;
///
/// static WRITER: RawMutex = RawMutex::new();
/// static SLOTS: [ReaderSlot; 8] = [const { ReaderSlot::new() }; 8];
///
/// let lock = RawRwLock::new(&WRITER, &SLOTS);
/// // SAFETY: statics stay where they are.
/// let slot = unsafe { lock.read_until(Deadline::NEVER) }.unwrap();
/// assert_eq!(lock.readers(), 1);
/// // SAFETY: got just now, by this thread.
/// unsafe { slot.unlock() };
/// // SAFETY: as above.
/// unsafe { lock.write_until(Deadline::PAST) }.unwrap();
/// // SAFETY: as above.
/// assert_eq!(unsafe { lock.read_until(Deadline::PAST) }.err(), Some(Refusal::TimedOut));
/// // SAFETY: locked above, by this thread.
/// unsafe { lock.writer().unlock() };
/// ```
#[derive(Clone, Copy)]
pub struct RawRwLock<'a> {
    writer: &'a RawMutex,
    slots: &'a [ReaderSlot],
    /// The slots that readers try first, less one: a power of two less one, so that a mask finds them.
    homes: u32,
}

impl<'a> RawRwLock<'a> {
    /// The lock that consists of these parts. All its users must give the same.
    ///
    /// # Panics
    ///
    /// If there is no slot.
    #[inline(always)]
    pub fn new(writer: &'a RawMutex, slots: &'a [ReaderSlot]) -> RawRwLock<'a> {
        RawRwLock { writer, slots, homes: (1 << slots.len().ilog2()) - 1 }
    }

    /// The writer lock. A writer unlocks it when it is done, having called [`leave`](RawMutex::leave) if it
    /// had called [`enter`](RawMutex::enter).
    #[inline(always)]
    pub fn writer(self) -> &'a RawMutex {
        self.writer
    }

    /// Takes the lock to read, waiting for it until the deadline. [`ReaderSlot::unlock`] ends it.
    ///
    /// A thread that already reads gets it at once.
    ///
    /// # Errors
    ///
    /// Any [`Refusal`] but `WouldBlock`. A thread that holds the lock to write is told so if it would wait
    /// for ever; with a deadline it waits.
    ///
    /// # Safety
    ///
    /// The parts stay mapped, at their addresses, until [`unlock`](ReaderSlot::unlock) has returned or the
    /// calling thread has ended: a thread's locks form a list by address.
    #[inline(always)]
    pub unsafe fn read_until(self, deadline: Deadline) -> Result<&'a ReaderSlot, Refusal> {
        // Apart from the slow path's result, which comes by memory: this one stays in a register.
        // SAFETY: the caller's.
        if let Some(slot) = unsafe { self.read_at_once() } {
            return Ok(slot);
        }
        // SAFETY: the caller's.
        unsafe { self.read_slowly(thread::current(), deadline) }
    }

    /// Reads if no writer is there, the thread's first choice of a slot is free, and it holds no other lock.
    ///
    /// # Safety
    ///
    /// As for [`read_until`](RawRwLock::read_until).
    #[inline(always)]
    unsafe fn read_at_once(self) -> Option<&'a ReaderSlot> {
        let current = thread::current();
        // The writer lock first: who finds a writer here does not get in its way.
        if !current.holds_none() || !self.writer.is_free() {
            return None;
        }
        let slot = self.home(current);
        current.begin(&slot.word, &slot.node);
        // SeqCst: before the look at the writer lock.
        let free = slot.word.compare_exchange(FREE, current.tid(), Ordering::SeqCst, Ordering::Relaxed);
        if free.is_err() {
            return None;
        }
        if !self.is_kept() {
            slot.give_back(current);
            return None;
        }
        slot.sign();
        // SAFETY: claimed just now, as the thread's only lock; the caller keeps it mapped.
        unsafe { current.link_only(&slot.word, &slot.node) };
        Some(slot)
    }

    /// Whether a slot that was just claimed may be kept.
    #[inline(always)]
    fn is_kept(self) -> bool {
        // Pairs with the fence in `write_until`: either this thread sees the writer lock taken, or the writer
        // sees the slot taken. What the last writer wrote is visible if it is free: see `is_free`.
        fence_after_rmw();
        self.writer.is_free()
    }

    /// The slot that the thread tries first. Processes and threads that were made together have ids in a row.
    #[inline(always)]
    fn home(self, current: Current) -> &'a ReaderSlot {
        &self.slots[(current.tid() & self.homes) as usize]
    }

    /// There is a writer, or the slot is taken, or this thread holds others.
    ///
    /// # Safety
    ///
    /// As for [`read_until`](RawRwLock::read_until).
    #[cold]
    #[inline(never)]
    unsafe fn read_slowly(self, current: Current, deadline: Deadline) -> Result<&'a ReaderSlot, Refusal> {
        // Of the attempt before.
        current.end();
        let mut backoff = Backoff::new();
        loop {
            if !current.has_room() {
                return self.read_again(current).ok_or(Refusal::TooManyLocks);
            }
            if self.writer.is_free() {
                let Some(slot) = self.claim(current) else { break };
                if self.is_kept() {
                    // SAFETY: claimed just now; the caller keeps it mapped.
                    unsafe { slot.keep(current) };
                    return Ok(slot);
                }
                slot.give_back(current);
            }
            if deadline == Deadline::PAST || self.held(current).is_some() || !backoff.pause() {
                break;
            }
        }
        if let Some(slot) = self.read_again(current) {
            return Ok(slot);
        }
        // SAFETY: the caller's.
        unsafe { self.queue(current, deadline) }
    }

    /// Reads by the slot that the thread has already, if so.
    fn read_again(self, current: Current) -> Option<&'a ReaderSlot> {
        let slot = self.held(current)?;
        let depth = slot.depth.load(Ordering::Relaxed);
        slot.depth.store(depth.checked_add(1).expect("read 2^32 times at once"), Ordering::Relaxed);
        Some(slot)
    }

    /// Reads by way of the writer lock.
    ///
    /// # Safety
    ///
    /// As for [`read_until`](RawRwLock::read_until).
    unsafe fn queue(self, current: Current, deadline: Deadline) -> Result<&'a ReaderSlot, Refusal> {
        // SAFETY: the caller keeps it mapped, until it is unlocked below.
        unsafe { self.writer.lock_until(deadline) }?;
        let claimed = if current.has_room() {
            self.claim_sooner_or_later(current, deadline)
        } else {
            Err(Refusal::TooManyLocks)
        };
        if let Ok(slot) = claimed {
            // SAFETY: claimed just now; the caller keeps it mapped.
            unsafe { slot.keep(current) };
        }
        // SAFETY: locked above.
        unsafe { self.writer.unlock() };
        claimed
    }

    /// Claims any slot that is free: the thread's own first.
    fn claim(self, current: Current) -> Option<&'a ReaderSlot> {
        let (before, from) = self.slots.split_at((current.tid() & self.homes) as usize);
        from.iter().chain(before).find(|slot| slot.claim(current))
    }

    /// As the holder of the writer lock: claims a slot, waiting for one until the deadline.
    fn claim_sooner_or_later(self, current: Current, deadline: Deadline) -> Result<&'a ReaderSlot, Refusal> {
        let mut backoff = Backoff::new();
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        loop {
            if let Some(slot) = self.claim(current) {
                if rescued {
                    futex::count_backstop_rescue();
                }
                return Ok(slot);
            }
            if expired {
                return Err(Refusal::TimedOut);
            }
            if backoff.pause() {
                continue;
            }
            rescued = false;
            let marked: Option<Vec<_>> =
                self.slots.iter().map(|slot| Some((&slot.word, slot.mark()?))).collect();
            let Some(words) = marked else { continue };
            if futex::wait_any(&words, deadline.or_backstop()) == Wait::TimedOut {
                expired = deadline.has_passed();
                rescued = !expired;
            }
        }
    }

    /// The slot that the calling thread reads by, or one of them. Beyond doubt: see [`Current::holds`].
    fn held(self, current: Current) -> Option<&'a ReaderSlot> {
        if current.holds_none() {
            return None;
        }
        let mine = |slot: &&ReaderSlot| {
            slot.word.load(Ordering::Relaxed) & OWNER == current.tid()
                && current.holds(&slot.word, &slot.node)
        };
        self.slots.iter().find(mine)
    }

    /// Takes the lock to write, waiting for it until the deadline. Unlocking [`writer`](RawRwLock::writer)
    /// ends it.
    ///
    /// # Errors
    ///
    /// Any [`Refusal`] but `WouldBlock`. A thread that holds the lock already, to write or to read, is told
    /// so if it would wait for ever; with a deadline it waits.
    ///
    /// # Safety
    ///
    /// As for [`read_until`](RawRwLock::read_until).
    #[inline(always)]
    pub unsafe fn write_until(self, deadline: Deadline) -> Result<(), Refusal> {
        let current = thread::current();
        if !current.holds_none() && self.held(current).is_some() {
            return Err(wait_in_vain(deadline));
        }
        // SAFETY: the caller's.
        unsafe { self.writer.lock_until(deadline) }?;
        // Pairs with the fence in `is_kept`. The compare-and-swap that took the lock is before it.
        fence_after_rmw();
        // Acquire: pairs with the release of a slot.
        match self.slots.iter().position(|slot| slot.is_taken(Ordering::Acquire)) {
            None => Ok(()),
            // SAFETY: locked just now; the caller's.
            Some(first) => unsafe { self.wait_for_readers(first, deadline) },
        }
    }

    /// As the holder of the writer lock: waits until all slots from this one on are free. Unlocks if it gives
    /// up.
    ///
    /// # Safety
    ///
    /// As for [`RawMutex::unlock`].
    #[cold]
    #[inline(never)]
    unsafe fn wait_for_readers(self, first: usize, deadline: Deadline) -> Result<(), Refusal> {
        for slot in &self.slots[first..] {
            if let Err(refusal) = slot.wait_until_free(deadline) {
                // SAFETY: the caller's.
                unsafe { self.writer.unlock() };
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// How many reads are under way. The answer may be out of date by the time the caller looks at it.
    pub fn readers(self) -> usize {
        let taken = self.slots.iter().filter(|slot| slot.is_taken(Ordering::Relaxed));
        taken.map(|slot| 1 + slot.depth.load(Ordering::Relaxed) as usize).sum()
    }

    /// The processes that read, by slot: a process may be there more than once.
    pub fn reading(self) -> impl Iterator<Item = u32> {
        let taken = self.slots.iter().filter(|slot| slot.is_taken(Ordering::Relaxed));
        taken.map(|slot| slot.pid.load(Ordering::Relaxed))
    }
}

/// The calling thread would wait for itself: nobody else is to wait for that.
#[cold]
fn wait_in_vain(deadline: Deadline) -> Refusal {
    if deadline == Deadline::NEVER {
        return Refusal::OwnedByCaller;
    }
    let nothing = Futex::new(0);
    while !deadline.has_passed() {
        nothing.wait(0, deadline);
    }
    Refusal::TimedOut
}

impl fmt::Debug for RawRwLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRwLock")
            .field("writer", self.writer)
            .field("readers", &self.readers())
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}
