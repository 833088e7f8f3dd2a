//! The semaphore's protocol.
//!
//! | page | has |
//! |---|---|
//! | [`cell`](crate::cell) | what is in memory: a head, a cell for each permit that can be held, and the table of a cell's states |
//! | here | taking a permit out of a cell, and putting it back |
//! | [`wait`](crate::wait) | what a thread does for a permit when there is none at first sight |
//! | [`door`](crate::door) | whether somebody may be asleep |
//! | [`supply`](crate::supply) | permits that are in no cell, and how they come into one |
//!
//! Taking and giving back are one step each, and there is no instruction at which a permit is in two places
//! or in none.
//!
//! Whoever waits sleeps on the *gate*, the *door* and the known cells together. The gate is where one is
//! woken; the door says whether anybody may be asleep, and its number changes with all news.
//!
//! # Why nobody sleeps for ever
//!
//! While one sleeps, the door is not quiet, and all held cells have `WAITERS`: a sleeper announces itself at
//! the door first, and marks then; a holder takes its cell first, and looks at the door then; and of two
//! such, one sees the other. So each release tells. Whoever was about to sleep finds the number changed; if
//! nobody was, somebody is woken, takes a permit, and passes the news on if there is another. What if a
//! thread dies around that?
//!
//! - **A holder**: the kernel puts `OWNER_DIED` in its place and wakes one who sleeps on the cell, since it
//!   has `WAITERS`.
//! - **Between release and wake**: the cell is pending, and `FREE`, so that the kernel wakes one who sleeps
//!   on it. If it is taken again by then, its next end tells.
//! - **Woken, and not yet at a cell**: the gate is pending, and zero, so that the kernel wakes another there.
//!   If a thread has the gate, it tells when it leaves.
//! - **At a cell, and not yet its holder**: as between release and wake. And whoever has waited takes a cell
//!   with `WAITERS` in the same step.
//! - **Woken for two**: a sleeper hangs on many words, and two wakes of different words may both hit it. It
//!   passes on.
//!
//! A killed sleeper, or one whose time is over, leaves the door as it was: that costs the next release one
//! wake in vain, which puts it right.
//!
//! The kernel takes 128 words to sleep on. Where more cells than that are known, a sleeper looks at all of
//! them every millisecond; and so it does on kernels before 5.16, which take one word; and while there are
//! permits and every cell is taken, because one that forgets a permit then and dies tells nobody.
//!
//! What can strand others, until their backstop ([`polyproc_sys::deadline::BACKSTOP`]) ends, is two deaths:
//!
//! - of the thread that a wake was spent on, or that should have woken, and of the one that took the same
//!   cell meanwhile, between its compare-and-swap and its look at the door, some three instructions later;
//! - on kernels that pass a swallowed wake on only if the word is exactly zero: of the thread at the gate,
//!   and of the one that the kernel woke for it.

use crate::cell::{Cell, EMPTY, FREE, GONE, Head};
use crate::supply::Supply;
use core::fmt;
use polyproc_sys::atomic::{Ordering, fence_after_rmw};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::WAITERS;
use polyproc_sys::thread::{self, Current};

/// Why no permit was acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The deadline passed.
    TimedOut,
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks,
}

/// A semaphore in shared memory: its head and its cells. A permit is the index of a cell.
///
/// This is the protocol alone: no handle, no guard. [`Semaphore`](crate::Semaphore) is what most programs
/// want.
///
/// # Example
///
/// ```
/// use polyproc_semaphore::{Cell, Head, RawSemaphore, Refusal};
/// use polyproc_sys::deadline::Deadline;
///
/// static HEAD: Head = Head::new();
/// static CELLS: [Cell; 2] = [const { Cell::new() }; 2];
/// let semaphore = RawSemaphore::new(&HEAD, &CELLS);
///
/// // SAFETY: statics stay where they are.
/// let first = unsafe { semaphore.acquire_until(0, Deadline::NEVER) }.unwrap();
/// // SAFETY: as above.
/// let second = unsafe { semaphore.acquire_until(0, Deadline::NEVER) }.unwrap();
/// // SAFETY: as above.
/// let third = unsafe { semaphore.acquire_until(0, Deadline::PAST) };
/// assert_eq!((first, second, third), (0, 1, Err(Refusal::TimedOut)));
///
/// // SAFETY: acquired above, by this thread.
/// unsafe { semaphore.put_back(first) };
/// // SAFETY: as above.
/// unsafe { semaphore.forget(second) };
/// assert_eq!((semaphore.available(), semaphore.room()), (1, 1));
/// semaphore.release(1).unwrap();
/// assert!(semaphore.release(1).is_err());
/// ```
#[derive(Clone, Copy)]
pub struct RawSemaphore<'a> {
    pub(crate) head: &'a Head,
    pub(crate) cells: &'a [Cell],
}

impl<'a> RawSemaphore<'a> {
    /// A semaphore with this head and these cells, which are to be the same in all processes.
    ///
    /// # Panics
    ///
    /// If there are more than 65,536 cells.
    #[inline(always)]
    pub fn new(head: &'a Head, cells: &'a [Cell]) -> RawSemaphore<'a> {
        assert!(cells.len() <= crate::MAX_HOLDERS as usize);
        RawSemaphore { head, cells }
    }

    /// Sets it up with so many permits, of so many that there may be. Before anybody else knows of it.
    ///
    /// # Panics
    ///
    /// If `permits` is more than `most`, or `most` more than [`MAX_PERMITS`](crate::MAX_PERMITS).
    pub fn set_up(self, permits: u32, most: u32) {
        assert!(permits <= most && most <= crate::MAX_PERMITS);
        let filled = self.cells.len().min(permits as usize);
        for cell in &self.cells[filled..] {
            cell.word.store(EMPTY, Ordering::Relaxed);
        }
        self.head.unused.store((self.cells.len() - filled) as u32, Ordering::Relaxed);
        self.head
            .supply
            .store(Supply::new(most - permits, permits - filled as u32).bits(), Ordering::Release);
    }

    /// Acquires a permit, waiting for it until the deadline, and returns the index of its cell. Looks at the
    /// cell `start` first.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    ///
    /// # Safety
    ///
    /// Head and cells stay mapped, at their addresses, until the permit is put back or forgotten, or the
    /// calling thread has ended: a thread's permits form a list by address.
    #[inline(always)]
    pub unsafe fn acquire_until(self, start: u32, deadline: Deadline) -> Result<u32, Refusal> {
        let current = thread::current();
        if current.holds_none()
            && let Some(cell) = self.cells.get(start as usize)
        {
            current.begin(&cell.word, &cell.node);
            // SeqCst: acquires what the last holder released with `swap`, and is ordered before the look at
            // the door.
            let free = cell.word.compare_exchange(FREE, current.tid(), Ordering::SeqCst, Ordering::Relaxed);
            if free.is_ok() {
                self.look_at_door(cell);
                // SAFETY: taken just now, as the thread's only lock; the caller keeps the cell mapped.
                unsafe { current.link_only(&cell.word, &cell.node) };
                return Ok(start);
            }
        }
        // SAFETY: the caller's.
        unsafe { self.acquire_slowly(current, start, deadline) }
    }

    /// There was no permit at first sight, or this thread holds others.
    ///
    /// # Safety
    ///
    /// As for [`acquire_until`](RawSemaphore::acquire_until).
    #[cold]
    #[inline(never)]
    unsafe fn acquire_slowly(self, current: Current, start: u32, deadline: Deadline) -> Result<u32, Refusal> {
        if !current.has_room() {
            current.end();
            return Err(Refusal::TooManyLocks);
        }
        match self.wait_for_one(current, start as usize, deadline) {
            Some(index) => {
                let cell = &self.cells[index];
                self.look_at_door(cell);
                // SAFETY: taken just now; the caller keeps the cell mapped.
                unsafe { current.link(&cell.word, &cell.node) };
                self.pass_on();
                Ok(index as u32)
            }
            None => {
                current.end();
                Err(Refusal::TimedOut)
            }
        }
    }

    /// Puts a permit back, and wakes one who waits for it. Never blocks.
    ///
    /// # Safety
    ///
    /// The calling thread holds it, in this process: not a parent before a `fork`.
    #[inline(always)]
    pub unsafe fn put_back(self, index: u32) {
        let cell = &self.cells[index as usize];
        // SAFETY: it has acquired, which registered it.
        let current = unsafe { thread::registered() };
        if current.holds_only(&cell.word, &cell.node) {
            // SAFETY: this thread linked it when it took the permit, and holds no other.
            unsafe { current.unlink_only(&cell.word, &cell.node) };
            self.vacate(current, cell);
        } else {
            // SAFETY: the caller's.
            unsafe { self.put_back_among_others(current, cell) };
        }
    }

    /// The thread holds other permits or locks too, or has worked on others since.
    ///
    /// # Safety
    ///
    /// As for [`put_back`](RawSemaphore::put_back).
    #[cold]
    #[inline(never)]
    unsafe fn put_back_among_others(self, current: Current, cell: &Cell) {
        current.begin(&cell.word, &cell.node);
        // SAFETY: this thread linked it when it took the permit.
        unsafe { current.unlink(&cell.word, &cell.node) };
        self.vacate(current, cell);
    }

    /// The end of a release.
    #[inline(always)]
    fn vacate(self, current: Current, cell: &Cell) {
        cell.holder.store(0, Ordering::Relaxed);
        // Release: pairs with the compare-and-swap of the next holder. First release, then wake.
        if cell.word.swap(FREE, Ordering::Release) & WAITERS != 0 {
            return self.tell_one(current);
        }
        current.end();
    }

    #[cold]
    #[inline(never)]
    fn tell_one(self, current: Current) {
        self.head.door.tell(&self.head.gate, 1);
        current.end();
    }

    /// Does away with a permit: there is room for the release of another. Never blocks.
    ///
    /// # Safety
    ///
    /// As for [`put_back`](RawSemaphore::put_back).
    pub unsafe fn forget(self, index: u32) {
        let cell = &self.cells[index as usize];
        // SAFETY: it has acquired, which registered it.
        let current = unsafe { thread::registered() };
        current.begin(&cell.word, &cell.node);
        // SAFETY: this thread linked it when it took the permit.
        unsafe { current.unlink(&cell.word, &cell.node) };
        cell.holder.store(0, Ordering::Relaxed);
        // Release: pairs with the move that fills the cell again.
        let word = cell.word.swap(GONE, Ordering::Release);
        if word & WAITERS != 0 {
            // No permit, but a cell, which may have been what was missing.
            self.pass_on();
        }
        current.end();
    }

    /// How many cells have ever had a permit.
    pub(crate) fn known(self) -> usize {
        // Relaxed: who must not miss a cell has looked at the door before. A peer may have written anything.
        self.cells.len().saturating_sub(self.head.unused.load(Ordering::Relaxed) as usize)
    }

    /// The processes that hold permits, by id, one for each permit.
    pub fn holders(self) -> impl Iterator<Item = u32> + 'a {
        self.cells[..self.known()].iter().filter_map(Cell::holder)
    }

    /// Right after a cell was taken: does anybody sleep who is to hear of its end?
    #[inline(always)]
    fn look_at_door(self, cell: &Cell) {
        // Pairs with the fence of `Door::announce`: either the sleeper sees this thread's id in the cell, or
        // this thread sees the door.
        fence_after_rmw();
        if !self.head.door.is_quiet() {
            cell.mark();
        }
    }
}

impl fmt::Debug for RawSemaphore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSemaphore")
            .field("available", &self.available())
            .field("room", &self.room())
            .field("cells", &self.cells.len())
            .field("holders", &self.holders().collect::<Vec<_>>())
            .finish()
    }
}
