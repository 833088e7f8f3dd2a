//! The lock's protocol. Here is taking it and giving it back; [`wait`] is for those who find it held,
//! [`census`] counts those who sleep, and [`inside`] says whether a dead holder has left the data half
//! changed.
//!
//! # The word
//!
//! | word | meaning | who sleeps |
//! |---|---|---|
//! | `FREE` (0) | nobody holds it | nobody, or a wake is under way |
//! | tid | held | nobody, or a wake is under way |
//! | tid + `WAITERS` | held | maybe somebody |
//! | `OWNER_DIED` | the holder died | nobody, or a wake is under way |
//! | `OWNER_DIED` + `WAITERS` | the holder died | maybe somebody; the kernel has woken one |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | `FREE` | tid | `lock`, `try_lock` | compare-and-swap |
//! | tid | tid + `WAITERS` | who is about to sleep; the holder that finds the census not empty | compare-and-swap; or |
//! | tid, tid + `WAITERS` | `FREE` | `unlock` | swap |
//! | tid … | `OWNER_DIED` … | the kernel, `WAITERS` kept | compare-and-swap |
//! | `OWNER_DIED` … | tid …, `WAITERS` kept | the next holder | compare-and-swap |
//!
//! A waiter's sleep is conditional on `tid + WAITERS`, so whoever changes the word first keeps it awake.
//!
//! # Why nobody sleeps for ever
//!
//! An unlock that finds `WAITERS` wakes one sleeper, after it has released. Whoever has slept takes the lock
//! with `WAITERS`, because others may sleep still, and so its own unlock wakes the next; the last one's wakes
//! nobody, in vain. What if a thread dies around that?
//!
//! - **The holder**: the kernel puts `OWNER_DIED` in its place and wakes one if `WAITERS` is set.
//! - **Between release and wake**, or **woken and not yet at the word**: the operation is pending
//!   ([`Current::begin`]), so if the word is `FREE`, the kernel wakes another sleeper.
//! - **The same, and somebody else has taken the lock meanwhile**, with a plain compare-and-swap, not knowing
//!   of the sleepers: the kernel does nothing, and the new holder's unlock would find no `WAITERS`. For this
//!   there is the *census*, the number of threads asleep or about to be. Each new holder looks at it, right
//!   after it took the lock and while the cache line is still its own, and sets `WAITERS` if it is not empty.
//!
//! So one death at any instruction strands nobody. What can strand others, until their backstop
//! ([`polyproc_sys::deadline::BACKSTOP`]) ends, is one of these together with being overtaken in that very
//! moment:
//!
//! - Two deaths: the thread that a wake was spent on, and the one that took the lock meanwhile, between its
//!   compare-and-swap and its look at the census, some three instructions later.
//! - A death of a thread that a wake was spent on, soon after a new census was begun while a waiter was
//!   between counting itself and sleeping: that waiter is not counted in the new one.
//! - On kernels that pass a swallowed wake on only if the word is exactly zero: the holder's death, and that
//!   of the sleeper that the kernel woke for it.
//! - A waiter that sees its own thread id in the word, because a namesake of another PID namespace holds the
//!   lock, is not pending while it sleeps, see [`wait`]. A wake that is spent on it when it dies is lost to
//!   the others, overtaken or not.

mod census;
mod inside;
mod wait;

use core::fmt;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, OWNER, WAITERS};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::{self, Current};

/// The word of a lock that nobody holds.
const FREE: u32 = 0;

/// A lock in shared memory that the kernel releases when its holder dies.
///
/// This is the protocol alone: no data, no handle, no poisoning by itself. [`Mutex`](crate::Mutex) is what
/// most programs want. Put a `RawMutex` into memory of your own, shared or not, to build something else on
/// it. All zero is an unlocked mutex.
///
/// Not fair: whoever comes at the right moment overtakes those who sleep. Not re-entrant. Not for signal
/// handlers. One in private memory that is held while its process forks stays locked in the child: there is
/// nobody there to unlock it.
///
/// # Example
///
/// ```
/// use polyproc_mutex::{RawMutex, Refusal};
/// use polyproc_sys::deadline::Deadline;
///
/// static MUTEX: RawMutex = RawMutex::new();
///
/// // SAFETY: a static stays where it is.
/// unsafe { MUTEX.lock_until(Deadline::NEVER) }.unwrap();
/// assert!(MUTEX.is_locked());
/// // SAFETY: as above.
/// assert_eq!(unsafe { MUTEX.try_lock() }, Err(Refusal::WouldBlock));
/// // SAFETY: locked above, by this thread.
/// unsafe { MUTEX.unlock() };
/// ```
#[derive(Default)]
#[repr(C)]
pub struct RawMutex {
    /// Who holds it; see the table above.
    word: Futex,
    /// How many sleep or are about to, and the number of this census.
    census: AtomicU32,
    /// The process in the critical section.
    holder: AtomicU32,
    /// Whether it is poisoned, and by what; see [`inside`].
    poison: AtomicU32,
    /// The process that poisoned it.
    poisoner: AtomicU32,
    /// Wakes in a row that found nobody.
    useless: AtomicU32,
    node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(core::mem::offset_of!(RawMutex, word) == 0);
    assert!(core::mem::offset_of!(RawMutex, holder) == 8);
    assert!(core::mem::offset_of!(RawMutex, node) == polyproc_sys::robust::NODE_OFFSET);
    assert!(size_of::<RawMutex>() == 40 && align_of::<RawMutex>() == 8);
};

/// Why a lock was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody holds it, and the call was not to wait.
    WouldBlock,
    /// The deadline passed.
    TimedOut,
    /// The calling thread holds it itself, and would have waited for ever.
    OwnedByCaller,
    /// The calling thread already holds 2,048 locks, as many as the kernel releases for a dead thread.
    TooManyLocks,
}

impl RawMutex {
    /// An unlocked mutex.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> RawMutex {
        RawMutex {
            word: Futex::new(FREE),
            census: AtomicU32::new(0),
            holder: AtomicU32::new(0),
            poison: AtomicU32::new(inside::UNPOISONED),
            poisoner: AtomicU32::new(0),
            useless: AtomicU32::new(0),
            node: Node::new(),
        }
    }

    /// An unlocked mutex.
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub fn new() -> RawMutex {
        RawMutex::default()
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`Refusal::WouldBlock`], also if it is the calling thread that holds it, or [`Refusal::TooManyLocks`].
    ///
    /// # Safety
    ///
    /// The mutex stays mapped, at this address, until [`unlock`](RawMutex::unlock) has returned or the
    /// calling thread has ended: a thread's locks form a list by address.
    #[inline(always)]
    pub unsafe fn try_lock(&self) -> Result<(), Refusal> {
        // SAFETY: the caller's.
        unsafe { self.lock_until(Deadline::PAST) }.map_err(|refusal| match refusal {
            Refusal::TimedOut => Refusal::WouldBlock,
            other => other,
        })
    }

    /// Takes the lock, waiting for it until the deadline.
    ///
    /// # Errors
    ///
    /// Any [`Refusal`] but `WouldBlock`. A thread that holds the lock already is told so if it would wait for
    /// ever; with a deadline it waits.
    ///
    /// # Safety
    ///
    /// As for [`try_lock`](RawMutex::try_lock).
    #[inline(always)]
    pub unsafe fn lock_until(&self, deadline: Deadline) -> Result<(), Refusal> {
        let current = thread::current();
        if current.holds_none() {
            current.begin(&self.word, &self.node);
            // SeqCst: acquires what the last holder released with `swap`, and is ordered before the look at
            // the census.
            let free = self.word.compare_exchange(FREE, current.tid(), Ordering::SeqCst, Ordering::Relaxed);
            if free.is_ok() {
                self.look_at_census();
                // SAFETY: taken just now, as the thread's only lock; the caller keeps the mutex mapped.
                unsafe { current.link_only(&self.word, &self.node) };
                return Ok(());
            }
        }
        // SAFETY: the caller's.
        unsafe { self.lock_slowly(current, deadline) }
    }

    /// The lock was not free at first sight, or this thread holds others.
    ///
    /// # Safety
    ///
    /// As for [`try_lock`](RawMutex::try_lock).
    #[cold]
    #[inline(never)]
    unsafe fn lock_slowly(&self, current: Current, deadline: Deadline) -> Result<(), Refusal> {
        if !current.has_room() {
            return Err(Refusal::TooManyLocks);
        }
        match self.wait_for_it(current, deadline) {
            Ok(died) => {
                self.look_at_census();
                // SAFETY: taken just now; the caller keeps the mutex mapped.
                unsafe { current.link(&self.word, &self.node) };
                if died {
                    self.take_over();
                }
                Ok(())
            }
            Err(refusal) => {
                current.end();
                Err(refusal)
            }
        }
    }

    /// Releases the lock, and wakes one who waits for it. Never blocks.
    ///
    /// # Safety
    ///
    /// The calling thread has locked it, in this process: not a parent before a `fork`.
    #[inline(always)]
    pub unsafe fn unlock(&self) {
        // SAFETY: it has locked, which registered it.
        let current = unsafe { thread::registered() };
        if current.holds_only(&self.word, &self.node) {
            // SAFETY: this thread linked it when it took the lock, and holds no other.
            unsafe { current.unlink_only(&self.word, &self.node) };
            self.release(current);
        } else {
            // SAFETY: the caller's.
            unsafe { self.unlock_among_others(current) };
        }
    }

    /// [`leave`](RawMutex::leave) and [`unlock`](RawMutex::unlock), if it is the thread's only lock. Else
    /// does nothing, and returns `false`.
    ///
    /// # Safety
    ///
    /// As for [`unlock`](RawMutex::unlock).
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    #[inline(always)]
    pub(crate) unsafe fn leave_and_unlock_only(&self) -> bool {
        // SAFETY: it has locked, which registered it.
        let current = unsafe { thread::registered() };
        if !current.holds_only(&self.word, &self.node) {
            return false;
        }
        self.leave();
        // SAFETY: this thread linked it when it took the lock, and holds no other.
        unsafe { current.unlink_only(&self.word, &self.node) };
        self.release(current);
        true
    }

    /// The thread holds other locks too, or has worked on others since.
    ///
    /// # Safety
    ///
    /// As for [`unlock`](RawMutex::unlock).
    #[cold]
    #[inline(never)]
    unsafe fn unlock_among_others(&self, current: Current) {
        current.begin(&self.word, &self.node);
        // SAFETY: this thread linked it when it took the lock.
        unsafe { current.unlink(&self.word, &self.node) };
        self.release(current);
    }

    /// The end of an unlock.
    #[inline(always)]
    fn release(&self, current: Current) {
        // Release: pairs with the compare-and-swap of the next holder. First release, then wake: a thread
        // that was woken to find the lock still taken would only sleep again.
        let word = self.word.swap(FREE, Ordering::Release);
        if word & WAITERS != 0 {
            return self.wake_one(current);
        }
        current.end();
    }

    /// Whether anybody holds the lock. The answer may be out of date by the time the caller looks at it.
    pub fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & OWNER != 0
    }

    /// Whether nobody holds the lock, and nobody has died with it since it was last taken.
    ///
    /// If so, what the last holder did is visible from here on. For those who look at the lock without taking
    /// it, having told its next holder of themselves before.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        // Acquire: pairs with the swap in `release`.
        self.word.load(Ordering::Acquire) == FREE
    }

    /// The thread that holds the lock, by the id that it has in its own PID namespace.
    pub fn owner(&self) -> Option<u32> {
        Some(self.word.load(Ordering::Relaxed) & OWNER).filter(|tid| *tid != 0)
    }
}

impl fmt::Debug for RawMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMutex")
            .field("owner", &self.owner())
            .field("holder", &self.holder())
            .field("poison", &self.poison_cause())
            .finish_non_exhaustive()
    }
}
