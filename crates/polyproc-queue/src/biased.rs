//! [`Biased`]: a lock that stays with the thread that always comes, which then takes it with plain stores.
//!
//! A locked instruction waits until everything stored before has reached the cache. In a queue, that goes to
//! lines which the other side has just read, and two such instructions a message cost more than the message.
//! So the lock of a side is granted to a thread that has taken it many times in a row, and taken away when
//! somebody else comes.
//!
//! # What is in memory
//!
//! | word | values | who writes |
//! |---|---|---|
//! | `mutex` | [`RawMutex`] | whoever comes and is not the owner, and the owner when it has more to do than usual |
//! | `bias` | 0: nobody's; `n`: granted to the owner of slot `n - 1`; `n` + `TAKEN_AWAY`: no more, it may be inside yet | see below |
//! | a slot's `word` | 0, or its owner's id while that is inside, + `WAITERS`; `OWNER_DIED` | the owner, with plain stores; others only add `WAITERS`; the kernel |
//! | a slot's `token` | whose it is, see [`slot`]; 0: free | the holder of the mutex |
//!
//! **Who is inside** has either the mutex, with `bias` 0 or its own; or has said so in its slot's word, and
//! *then* seen that `bias` is its grant.
//!
//! | `bias` | from | to | by |
//! |---|---|---|---|
//! | grant | 0 | `n` | the holder of the mutex, for itself |
//! | take away | `n` | `n` + `TAKEN_AWAY` | the holder of the mutex; or a sleeper, which has no lock |
//! | settle | `n` + `TAKEN_AWAY` | 0 | the holder of the mutex, when it has seen that the owner is not inside: after a barrier on all CPUs, or because it is the owner |
//!
//! The owner **enters**: its slot is *pending* ([`robust`](polyproc_sys::robust)), the word is its id, `bias`
//! is still its grant. It **leaves**: the word is 0; if `bias` is not its grant any more, it wakes whoever
//! sleeps on the word; nothing is pending. In between comes no locked instruction and no fence, only the
//! compiler is held back. So its stores may be seen late. Whoever takes away sets `bias` and then has the
//! kernel run a barrier on all CPUs ([`membarrier`](polyproc_sys::membarrier)): what the owner has said
//! before that is seen now, and if it looks at `bias` after that, it sees the change. So either the owner is
//! seen inside, and waited for, or it does not get in.
//!
//! # Who can die where
//!
//! | who | where | what is left |
//! |---|---|---|
//! | owner | before its word is set | it was not inside; the kernel wakes one who sleeps on the word, for nothing |
//! | owner | inside | the kernel puts `OWNER_DIED` in the place of its id, and wakes one who sleeps on the word |
//! | owner | word 0, and somebody to wake | the kernel wakes one, because the slot is pending and the word 0 |
//! | owner | outside | a grant of the dead: whoever comes takes it away |
//! | holder of the mutex | granting | a slot that it owns, and maybe a grant, of the dead |
//! | holder of the mutex | between taking away and settling | `TAKEN_AWAY`: the next one makes the barrier again, and waits again |
//! | sleeper | having taken away | the same |
//!
//! The kernel wakes one only. So whoever was woken here, and finds the word without an owner, wakes the
//! others; if it dies first, those wait until their backstop ends: for that it takes two deaths, of which one
//! is in a few instructions.
//!
//! After a `fork` the child has another token, and so no grant. After `exec` the slot is held until the
//! process ends. An id that two PID namespaces share means nothing here: what counts is the token, and the
//! kernel looks at a slot only for the thread that has it pending.
//!
//! # Without membarrier(2)
//!
//! A process that is not registered is granted nothing. If it finds another's grant, it waits for [`GRACE`]
//! instead: no store stays in a store buffer for so long; and from then on nothing is granted to anybody.

mod slot;
#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests;

pub(crate) use slot::Slot;

use polyproc_mutex::{RawMutex, Refusal};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, OWNER, Wait, Waiter};
use polyproc_sys::membarrier;
use polyproc_sys::thread::{self, Current};
use slot::OUTSIDE;
use std::time::Duration;

/// In `bias`: nobody's.
const NOBODY: u32 = 0;
/// In `bias`: no longer its owner's.
const TAKEN_AWAY: u32 = 1 << 31;

/// So many threads can be granted a lock, one after the other.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const SLOTS: usize = 8;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const SLOTS: usize = 1;

/// Whoever takes it so often in a row, and nobody else in between, is granted it.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const FIRST: u32 = 64;
#[cfg(any(polyproc_loom, polyproc_shuttle))]
const FIRST: u32 = 0;
/// After grants that did not last, so often: by then, what it costs to take one away is a few percent of it.
const MOST: u32 = 1 << 14;
/// A grant that has lasted for so many milliseconds was worth it: longer than a turn on a CPU that many want.
const WORTH: u64 = 20;

/// What is waited where the kernel makes no barriers.
const GRACE: Duration = Duration::from_millis(20);

/// The lock but for its slots. All zero is free and nobody's.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Biased {
    pub(crate) mutex: RawMutex,
    bias: AtomicU32,
    /// How often the thread that took it last has to take it yet.
    left: AtomicU32,
    /// Who took it last.
    last: AtomicU64,
    /// How often in a row a thread has to take it. Zero is [`FIRST`].
    needed: AtomicU32,
    /// Whether there was somebody who cannot make barriers: 0 or 1.
    off: AtomicU32,
    /// When it was granted, in milliseconds.
    since: AtomicU64,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(size_of::<Biased>() == 72);
};

/// The whole lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(crate) lock: &'a Biased,
    pub(crate) slots: &'a [Slot; SLOTS],
}

/// The owner is inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside<'a> {
    slot: &'a Slot,
    bias: u32,
}

impl<'a> Side<'a> {
    /// Goes inside if the lock is granted to the calling thread. Between this and [`leave`](Side::leave)
    /// comes nothing that takes a lock: the slot is pending, and in no list.
    #[inline(always)]
    pub(crate) fn enter(self) -> Option<Inside<'a>> {
        // Relaxed, here and below: the owner goes by what it has stored itself.
        let bias = self.lock.bias.load(Ordering::Relaxed);
        let slot = self.slots.get((bias as usize).wrapping_sub(1))?;
        let current = thread::current();
        // It may be inside already: a codec that uses its own queue.
        if !slot.belongs_to(current) || slot.word.load(Ordering::Relaxed) != OUTSIDE {
            return None;
        }
        slot.announce(current);
        slot.say(current.tid(), Ordering::Relaxed);
        // The other half is in `take_away`.
        light();
        let inside = Inside { slot, bias };
        if self.lock.bias.load(Ordering::Relaxed) == bias {
            return Some(inside);
        }
        self.leave(inside);
        None
    }

    /// Leaves.
    #[inline(always)]
    pub(crate) fn leave(self, inside: Inside<'_>) {
        // SAFETY: it has entered.
        let current = unsafe { thread::registered() };
        // Release: whoever comes next sees what was done inside.
        inside.slot.say(OUTSIDE, Ordering::Release);
        // The other half is in `take_away`.
        light();
        if self.lock.bias.load(Ordering::Relaxed) != inside.bias {
            inside.slot.call();
        }
        current.end();
    }

    /// Takes the lock, waiting for it until the deadline.
    ///
    /// # Safety
    ///
    /// As for [`RawMutex::lock_until`].
    #[inline(always)]
    pub(crate) unsafe fn lock_until(self, deadline: Deadline) -> Result<(), Refusal> {
        // SAFETY: the caller's.
        unsafe { self.lock.mutex.lock_until(deadline) }?;
        let token = thread::current().token();
        let left = self.lock.left.load(Ordering::Relaxed);
        if self.lock.bias.load(Ordering::Relaxed) != NOBODY
            || self.lock.last.load(Ordering::Relaxed) != token
            || left == 0
        {
            return self.otherwise(deadline);
        }
        self.lock.left.store(left - 1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes the lock if it is free, for something that has to be done once and not with every message:
    /// whoever was granted it, or is about to be, is none the farther from it.
    ///
    /// # Safety
    ///
    /// As for [`RawMutex::lock_until`].
    pub(crate) unsafe fn visit(self) -> Result<(), Refusal> {
        // SAFETY: the caller's.
        unsafe { self.lock.mutex.lock_until(Deadline::PAST) }?;
        match self.lock.bias.load(Ordering::Relaxed) {
            NOBODY => Ok(()),
            // Nothing is taken away in vain, as far as can be seen.
            bias if self.slot(bias).is_inside() => {
                // SAFETY: locked above.
                unsafe { self.unlock() };
                Err(Refusal::TimedOut)
            }
            bias => self.settle(bias, Deadline::PAST, Self::note_visit),
        }
    }

    /// Releases it.
    ///
    /// # Safety
    ///
    /// As for [`RawMutex::unlock`].
    #[inline(always)]
    pub(crate) unsafe fn unlock(self) {
        // SAFETY: the caller's.
        unsafe { self.lock.mutex.unlock() };
    }

    /// As the holder of the mutex: it is somebody's, or may be granted.
    #[cold]
    #[inline(never)]
    fn otherwise(self, deadline: Deadline) -> Result<(), Refusal> {
        let current = thread::current();
        let bias = self.lock.bias.load(Ordering::Relaxed);
        if bias != NOBODY {
            self.settle(bias, deadline, Self::note_disturbance)?;
        } else if self.lock.last.load(Ordering::Relaxed) != current.token() {
            self.lock.last.store(current.token(), Ordering::Relaxed);
            self.lock.left.store(self.needed(), Ordering::Relaxed);
        } else {
            self.lock.left.store(self.needed(), Ordering::Relaxed);
            self.grant(current);
        }
        Ok(())
    }

    fn needed(self) -> u32 {
        self.lock.needed.load(Ordering::Relaxed).max(FIRST)
    }

    fn slot(self, bias: u32) -> &'a Slot {
        &self.slots[((bias & !TAKEN_AWAY) as usize).wrapping_sub(1) % SLOTS]
    }

    /// As the holder of the mutex: sees to it that nobody is inside, or releases it. `forgotten` is called if
    /// the grant is gone.
    fn settle(self, bias: u32, deadline: Deadline, forgotten: fn(Self)) -> Result<(), Refusal> {
        let slot = self.slot(bias);
        let settled = if slot.belongs_to(thread::current()) {
            Self::keep(slot, bias, deadline)
        } else {
            self.wait_until_outside(slot, bias, deadline).map(|()| true)
        };
        match settled {
            Ok(false) => Ok(()),
            Ok(true) => {
                forgotten(self);
                self.lock.bias.store(NOBODY, Ordering::Relaxed);
                Ok(())
            }
            Err(refusal) => {
                // SAFETY: the caller holds it, and does not from here on.
                unsafe { self.unlock() };
                Err(refusal)
            }
        }
    }

    /// As the holder of the mutex that is the owner, too. Whether the grant is gone.
    fn keep(slot: &Slot, bias: u32, deadline: Deadline) -> Result<bool, Refusal> {
        if slot.word.load(Ordering::Relaxed) & OWNER != 0 {
            // It is inside, and would wait for itself.
            return Err(if deadline == Deadline::NEVER { Refusal::OwnedByCaller } else { Refusal::TimedOut });
        }
        Ok(bias & TAKEN_AWAY != 0)
    }

    /// As the holder of the mutex: takes it away from its owner, and waits until that is outside.
    fn wait_until_outside(self, slot: &Slot, bias: u32, deadline: Deadline) -> Result<(), Refusal> {
        self.take_away(bias);
        let (mut slept, mut rescued) = (false, false);
        // Acquire: pairs with the Release in `leave`, or with the kernel's release.
        while slot.is_inside() {
            if deadline.has_passed() {
                return Err(Refusal::TimedOut);
            }
            rescued = false;
            if let Some(marked) = slot.mark() {
                slept = true;
                rescued = slot.word.wait(marked, deadline.or_backstop()) == Wait::TimedOut;
            }
        }
        if slept {
            slot.pass_on();
            if rescued && !deadline.has_passed() {
                futex::count_backstop_rescue();
            }
        }
        Ok(())
    }

    /// From here on the owner does not get in, and if it is inside, that is seen.
    fn take_away(self, bias: u32) {
        // SeqCst, as in a sleeper's case: it said before that it sleeps.
        let _ = self.lock.bias.compare_exchange(
            bias & !TAKEN_AWAY,
            bias | TAKEN_AWAY,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        // Also if it was taken away before: who did that may be dead, and have made no barrier.
        if !heavy() {
            self.lock.off.store(1, Ordering::SeqCst);
            std::thread::sleep(GRACE);
        }
    }

    /// As the holder of the mutex: the grant is gone because somebody came who wants what the owner wants.
    fn note_disturbance(self) {
        let lasted = now().saturating_sub(self.lock.since.load(Ordering::Relaxed));
        let needed = if lasted >= WORTH { self.needed() / 2 } else { self.needed() * 2 };
        self.lock.needed.store(needed.clamp(FIRST, MOST), Ordering::Relaxed);
        self.lock.left.store(needed, Ordering::Relaxed);
    }

    /// The same if somebody came for something else: the next time it takes the lock it is granted it again.
    fn note_visit(self) {
        self.lock.left.store(0, Ordering::Relaxed);
    }

    /// As the holder of the mutex, and the only one for a while: it is its own from here on.
    fn grant(self, current: Current) {
        if self.lock.off.load(Ordering::Relaxed) != 0 || !membarrier::is_registered() {
            return;
        }
        let find = |fits: &dyn Fn(&Slot) -> bool| self.slots.iter().position(fits);
        let Some(index) = find(&|slot| slot.belongs_to(current))
            .or_else(|| find(&Slot::is_free))
            .or_else(|| find(&Slot::is_left_by_the_dead))
        else {
            self.lock.needed.store((self.needed() * 2).min(MOST), Ordering::Relaxed);
            return;
        };
        let slot = &self.slots[index];
        if !slot.belongs_to(current) {
            slot.hand_to(current);
        }
        self.lock.since.store(now(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // Release: whoever sees the grant sees whose it is. And a fence: who looked before it for somebody to
        // take it away from has said before that it sleeps, and this thread sees that from here on.
        self.lock.bias.store(index as u32 + 1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// As one who sleeps for what the lock's holders do, has told the next of them so, and looks for `news` a
    /// last time: as [`RawMutex::listen`]. The owner is no longer one by itself, and if it is inside, its
    /// leaving wakes, too.
    pub(crate) fn listen<'b>(
        self,
        others: &mut Vec<Waiter<'b>>,
        deadline: Deadline,
        news: impl FnOnce() -> bool,
    ) -> Wait
    where
        'a: 'b,
    {
        // SeqCst: after what the sleeper has said.
        let bias = self.lock.bias.load(Ordering::SeqCst);
        let mut heard = None;
        // This thread itself is outside.
        if bias != NOBODY && !self.slot(bias).belongs_to(thread::current()) {
            let slot = self.slot(bias);
            self.take_away(bias);
            if slot.is_inside() {
                let Some(marked) = slot.mark() else { return Wait::Changed };
                others.push((&slot.word, marked));
                heard = Some(slot);
            }
        }
        let wait = self.lock.mutex.listen(others, deadline, news);
        if let Some(slot) = heard {
            slot.pass_on();
        }
        wait
    }

    /// As in [`listen`](Side::listen): whether nobody has the lock, and nobody comes to it who does not take
    /// the mutex.
    pub(crate) fn is_quiet(self) -> bool {
        let bias = self.lock.bias.load(Ordering::SeqCst);
        (bias == NOBODY || self.slot(bias).belongs_to(thread::current())) && self.lock.mutex.is_free()
    }
}

/// The owner's half of the barrier. It is registered, or it would have no grant.
#[inline(always)]
fn light() {
    if cfg!(any(polyproc_loom, polyproc_shuttle)) {
        membarrier::light();
    } else {
        compiler_fence(Ordering::SeqCst);
    }
}

/// The other half.
fn heavy() -> bool {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    if crate::model::is_without(crate::model::Part::Barrier) {
        return true;
    }
    membarrier::heavy()
}

/// Milliseconds of the monotonic clock.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(any(polyproc_loom, polyproc_shuttle))]
fn now() -> u64 {
    0
}
