//! The lock's protocol.
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
//! An unlock that finds `WAITERS` wakes one sleeper, after it has released. Who has slept takes the lock with `WAITERS`,
//! because others may sleep still, and so its own unlock wakes the next; the last one's wakes nobody, in vain. What if a
//! thread dies around that?
//!
//! - **The holder**: the kernel puts `OWNER_DIED` in its place and wakes one if `WAITERS` is set.
//! - **Between release and wake**, or **woken and not yet at the word**: the operation is pending
//!   ([`Current::begin`]), so if the word is `FREE`, the kernel wakes another sleeper.
//! - **The same, and somebody else has taken the lock meanwhile**, with a plain compare-and-swap, not knowing of the
//!   sleepers: the kernel does nothing, and the new holder's unlock would find no `WAITERS`. For this there is the
//!   *census*, the number of threads asleep or about to be. Each new holder looks at it, right after it took the lock
//!   and while the cache line is still its own, and sets `WAITERS` if it is not empty.
//!
//! A waiter counts itself before it sleeps. The thread that wakes it takes it off, one that wakes for another reason
//! takes itself off. A killed waiter stays counted: then `WAITERS` is set although nobody sleeps, which costs each
//! unlock a system call and loses nothing. It heals: after 16 wakes in a row that found nobody, the holder
//! starts a new census (the upper bits of the word are its number) and wakes everybody, so that the living count
//! themselves again.
//!
//! So one death at any instruction strands nobody. What can strand others, until their backstop
//! ([`polyproc_sys::deadline::BACKSTOP`]) ends, is one of these together with being overtaken in that very moment:
//!
//! - Two deaths: the thread that a wake was spent on, and the one that took the lock meanwhile, between its
//!   compare-and-swap and its look at the census, some three instructions later.
//! - A death of a thread that a wake was spent on, soon after a new census was begun while a waiter was between counting
//!   itself and sleeping: that waiter is not counted in the new one.
//! - On kernels that pass a swallowed wake on only if the word is exactly zero: the holder's death, and that of the
//!   sleeper that the kernel woke for it.
//! - A waiter that sees its own thread id in the word, because a namesake of another PID namespace holds the lock, is not
//!   pending while it sleeps, see `wait_for_it`. A wake that is spent on it when it dies is lost to the others, overtaken or not.
//!
//! # Who was inside
//!
//! `holder` is the process in the critical section. It is set after the lock was taken and cleared before it is
//! released. So whoever takes over a lock from a dead thread knows whether that thread can have left the data half
//! changed: if `holder` is zero, it had not begun or was done, and nothing is poisoned.

use crate::poison::PoisonCause;
use core::fmt;
use polyproc_sys::atomic::{AtomicU32, Ordering, compiler_fence, fence_after_rmw};
use polyproc_sys::backoff::Backoff;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, OWNER, OWNER_DIED, WAITERS, Wait, Waiter};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::{self, Current};

/// The word of a lock that nobody holds.
const FREE: u32 = 0;

/// The bits of `census` that count. The others number it.
const COUNT: u32 = (1 << 22) - 1;
/// The next census.
const NEXT: u32 = COUNT + 1;

/// After so many wakes in a row that found nobody although the census is not empty, it is taken anew.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const PATIENCE: u32 = 16;

/// A lock in shared memory that the kernel releases when its holder dies.
///
/// This is the protocol alone: no data, no handle, no poisoning by itself. [`Mutex`](crate::Mutex) is what most programs
/// want. Put a `RawMutex` into memory of your own, shared or not, to build something else on it. All zero is an
/// unlocked mutex.
///
/// Not fair: whoever comes at the right moment overtakes those who sleep. Not re-entrant. Not for signal handlers. One in
/// private memory that is held while its process forks stays locked in the child: there is nobody there to unlock it.
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
    /// [`UNPOISONED`], [`DIED`] or [`PANICKED`].
    poison: AtomicU32,
    /// The process that poisoned it.
    poisoner: AtomicU32,
    /// Wakes in a row that found nobody.
    useless: AtomicU32,
    node: Node,
}

const UNPOISONED: u32 = 0;
const DIED: u32 = 1;
const PANICKED: u32 = 2;

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
    /// The calling thread holds as many locks as the kernel releases for a dead thread.
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
            poison: AtomicU32::new(UNPOISONED),
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
    /// The mutex stays mapped, at this address, until [`unlock`](RawMutex::unlock) has returned or the calling thread has
    /// ended: a thread's locks form a list by address.
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
    /// Any [`Refusal`] but `WouldBlock`. A thread that holds the lock already is told so if it would wait for ever;
    /// with a deadline it waits.
    ///
    /// # Safety
    ///
    /// As for [`try_lock`](RawMutex::try_lock).
    #[inline(always)]
    pub unsafe fn lock_until(&self, deadline: Deadline) -> Result<(), Refusal> {
        let current = thread::current();
        if current.holds_none() {
            current.begin(&self.word, &self.node);
            // SeqCst: acquires what the last holder released with `swap`, and is ordered before the look at the census.
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

    /// [`leave`](RawMutex::leave) and [`unlock`](RawMutex::unlock), if it is the thread's only lock. Else does nothing,
    /// and returns `false`.
    ///
    /// # Safety
    ///
    /// As for [`unlock`](RawMutex::unlock).
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
        // Release: pairs with the compare-and-swap of the next holder. First release, then wake: a thread that was woken
        // to find the lock still taken would only sleep again.
        let word = self.word.swap(FREE, Ordering::Release);
        if word & WAITERS != 0 {
            return self.wake_one(current);
        }
        current.end();
    }

    /// Whether anybody holds the lock. By the time the caller looks at the answer, it may be another.
    pub fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & OWNER != 0
    }

    /// Whether nobody holds the lock, and nobody has died with it since it was last taken.
    ///
    /// If so, what the last holder did is visible from here on. For those who look at the lock without taking it, having
    /// told its next holder of themselves before.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        // Acquire: pairs with the swap in `release`.
        self.word.load(Ordering::Acquire) == FREE
    }

    /// The thread that holds the lock, by the id that it has in its own PID namespace.
    pub fn owner(&self) -> Option<u32> {
        Some(self.word.load(Ordering::Relaxed) & OWNER).filter(|tid| *tid != 0)
    }

    /// The process in the critical section, between [`enter`](RawMutex::enter) and [`leave`](RawMutex::leave).
    pub fn holder(&self) -> Option<u32> {
        Some(self.holder.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Says that the holder begins to change the data: if it dies from here on, the lock is poisoned.
    ///
    /// Without it, a death says nothing about the data: for changes that become visible with one store.
    #[inline(always)]
    pub fn enter(&self) {
        self.holder.store(thread::pid(), Ordering::Relaxed);
        // What counts is the order in which this thread executes; its death is the end of that order.
        compiler_fence(Ordering::SeqCst);
    }

    /// Says that the data is whole again.
    #[inline(always)]
    pub fn leave(&self) {
        compiler_fence(Ordering::SeqCst);
        self.holder.store(0, Ordering::Relaxed);
    }

    /// Why the data may be half changed, if so.
    #[inline]
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        match self.poison.load(Ordering::Relaxed) {
            UNPOISONED => None,
            kind => Some(self.cause(kind)),
        }
    }

    #[cold]
    fn cause(&self, kind: u32) -> PoisonCause {
        let pid = self.poisoner.load(Ordering::Relaxed);
        if kind == PANICKED { PoisonCause::Panicked { pid } } else { PoisonCause::OwnerDied { pid } }
    }

    /// Says that the holder may have left the data half changed.
    #[cold]
    pub fn set_poison(&self, cause: PoisonCause) {
        let kind = match cause {
            PoisonCause::OwnerDied { .. } => DIED,
            PoisonCause::Panicked { .. } => PANICKED,
        };
        // The kind last: whoever sees it sees whose it is, unless this process dies in between, and then it is told anew.
        self.poisoner.store(cause.pid(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.poison.store(kind, Ordering::Relaxed);
    }

    /// Says that the data has been looked after.
    pub fn clear_poison(&self) {
        self.poison.store(UNPOISONED, Ordering::Relaxed);
    }

    /// Takes the word, sooner or later. Returns whether it was a dead thread's.
    fn wait_for_it(&self, current: Current, deadline: Deadline) -> Result<bool, Refusal> {
        let mut backoff = Backoff::new();
        let mut expired = deadline == Deadline::PAST;
        let mut rescued = false;
        // Whether others may sleep that the word says nothing of: to be set in the same step that takes it.
        let mut others = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let mine = word & OWNER == current.tid();
            if mine {
                // By the id alone. If it is another thread's, of another PID namespace, then the kernel would take its
                // lock for this thread's, and release it, if this thread died with the lock pending.
                current.end();
            } else {
                // While asleep too: see the page above on who dies with a wake in its hands.
                current.begin(&self.word, &self.node);
            }
            if word & OWNER == 0 {
                if rescued {
                    futex::count_backstop_rescue();
                    rescued = false;
                }
                let taken = current.tid() | (word & WAITERS) | others;
                // SeqCst: as in `lock_until`.
                if self.word.compare_exchange(word, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                    return Ok(word & OWNER_DIED != 0);
                }
                continue;
            }
            if expired {
                return Err(Refusal::TimedOut);
            }
            if mine && deadline == Deadline::NEVER && current.holds(&self.word, &self.node) {
                return Err(Refusal::OwnedByCaller);
            }
            // Whoever finds that others sleep already does not try to be cleverer than they.
            if word & WAITERS == 0 && backoff.pause() {
                continue;
            }
            // Only a backstop that ended to find the lock free is a rescue; not one after which it slept on.
            rescued = false;
            match self.sleep(word, deadline) {
                Wait::Woken => others = WAITERS,
                Wait::TimedOut => {
                    expired = deadline.has_passed();
                    rescued = !expired;
                }
                Wait::Changed | Wait::Interrupted => {}
            }
            backoff.reset();
        }
    }

    /// Sleeps while `word`, which shows an owner, stays as it is.
    fn sleep(&self, word: u32, deadline: Deadline) -> Wait {
        // SeqCst: before the comparison, see `look_at_census`. The count must stand before the mark: a holder that sees the
        // mark and wakes takes one off.
        let census = self.census.fetch_add(1, Ordering::SeqCst);
        let marked = word | WAITERS;
        let wait = if word == marked
            || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        {
            self.word.wait(marked, deadline.or_backstop())
        } else {
            Wait::Changed
        };
        if wait != Wait::Woken {
            self.take_off(census);
        }
        wait
    }

    /// Sleeps until a holder has released the lock, dies with it, or one of `others` is woken, unless there is `news`
    /// already: for those who are not after the lock but after what its holders do. If nobody holds the lock, only
    /// `others` wake.
    ///
    /// Whoever takes the lock after this thread has looked, and so does not see that it sleeps, has to be told of it by
    /// one of `others`.
    #[doc(hidden)]
    pub fn listen(&self, others: &[Waiter<'_>], deadline: Deadline, news: impl FnOnce() -> bool) -> Wait {
        let deadline = deadline.or_backstop();
        // SeqCst: after whatever `others` say of this thread, and before the look at the news.
        let word = self.word.load(Ordering::SeqCst);
        if word & OWNER == 0 {
            return if news() { Wait::Changed } else { futex::wait_any(others, deadline) };
        }
        let current = thread::current();
        // As in `wait_for_it`: pending while asleep, but not on a namesake's lock.
        let mine = word & OWNER == current.tid();
        let outer = if mine { None } else { current.begin_inside(&self.word, &self.node) };
        // In the census, as anybody who sleeps on the word, so that who wakes it may take it off.
        let census = self.census.fetch_add(1, Ordering::SeqCst);
        let marked = word | WAITERS;
        let is_marked = word == marked
            || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        let (wait, woken_here) = if is_marked && !news() {
            let mut words = others.to_vec();
            words.push((&self.word, marked));
            futex::wait_any_and_last(&words, deadline)
        } else {
            (Wait::Changed, false)
        };
        if woken_here {
            self.pass_on();
        } else {
            self.take_off(census);
        }
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
        wait
    }

    /// As one who was woken here and does not want the lock: the wake may have been meant for one who does. The census
    /// cannot be relied upon for it: a new one may have begun since that one was counted.
    fn pass_on(&self) {
        loop {
            let word = self.word.load(Ordering::SeqCst);
            if word & OWNER == 0 {
                let census = self.census.load(Ordering::Relaxed);
                if self.word.wake(1) == 1 {
                    self.take_off(census);
                }
                return;
            }
            // The holder's release wakes.
            let marked = word | WAITERS;
            if word == marked
                || self.word.compare_exchange(word, marked, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
    }

    /// Right after the word was taken: do others sleep that it says nothing of?
    #[inline(always)]
    fn look_at_census(&self) {
        // Pairs with the barrier between a waiter's entry in the census and its comparison of the word: either it sees
        // this thread's id there, or this thread sees its entry.
        fence_after_rmw();
        if self.has_waiters() {
            self.mark();
        }
    }

    #[inline(always)]
    fn has_waiters(&self) -> bool {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_blind() {
            return false;
        }
        self.census.load(Ordering::Relaxed) & COUNT != 0
    }

    /// Takes one off the census, if it is still the same.
    fn take_off(&self, census: u32) {
        let mut now = self.census.load(Ordering::Relaxed);
        // Relaxed: the number is a hint on the way down; on the way up it is ordered, see `sleep`.
        while (now ^ census) & !COUNT == 0 && now & COUNT != 0 {
            match self.census.compare_exchange(now, now - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// After a release: wakes one sleeper and takes it off the census.
    #[cold]
    #[inline(never)]
    fn wake_one(&self, current: Current) {
        let census = self.census.load(Ordering::Relaxed);
        if self.word.wake(1) == 1 {
            self.take_off(census);
            self.useless.store(0, Ordering::Relaxed);
        } else if census & COUNT != 0 {
            self.useless.fetch_add(1, Ordering::Relaxed);
        }
        current.end();
    }

    /// As the holder: others may be asleep that no mark in the word tells of.
    #[cold]
    #[inline(never)]
    fn mark(&self) {
        self.word.fetch_or(WAITERS, Ordering::Relaxed);
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        #[allow(non_snake_case)]
        let PATIENCE = crate::model::patience();
        if self.useless.load(Ordering::Relaxed) >= PATIENCE {
            self.begin_census();
        }
    }

    /// As the holder, with the mark set: forgets who is counted and wakes whoever lives, to count themselves again.
    fn begin_census(&self) {
        self.useless.store(0, Ordering::Relaxed);
        let census = self.census.load(Ordering::Relaxed);
        let next = (census & !COUNT).wrapping_add(NEXT);
        if self.census.compare_exchange(census, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.word.wake_all();
        }
    }

    /// As the new holder of a dead thread's lock: poisons it if that thread was inside. May be repeated if this thread
    /// dies in it too.
    #[cold]
    fn take_over(&self) {
        if let Some(pid) = self.holder() {
            self.set_poison(PoisonCause::OwnerDied { pid });
            compiler_fence(Ordering::SeqCst);
            self.holder.store(0, Ordering::Relaxed);
        }
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
