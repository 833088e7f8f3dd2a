//! [`Gate`]: one thread of this process at a time, and next to nothing for the one that always comes.
//!
//! A connection's rings are for one sender and one receiver, and a locked instruction for every message would
//! cost more than the message: it waits until everything stored before has reached the cache, which is the
//! line that the other side reads just now. So a gate belongs to the first thread that comes, and has a door
//! that is open for that thread only. It closes the door behind itself, looks whether the gate is still its
//! own, is in, and opens the door when it leaves: two plain stores and three loads. Another thread that comes
//! takes the gate away for good: it says that the gate is shared, has the kernel run a barrier on all CPUs of
//! this process ([`heavy_here`](crate::barrier::heavy_here)), and waits until the door is open. Either it
//! sees the door closed then, or the owner, that comes in later, sees that the gate is shared. So does an
//! owner that leaves later, and then wakes who waits. From then on the gate is an ordinary lock.
//!
//! | `owner` | `door` | `shared` | |
//! |---|---|---|---|
//! | 0 | closed | 0 | nobody has come yet |
//! | token | token | 0 | that thread's: it enters with plain stores |
//! | token | closed | 0 | it is inside |
//! | token | any | 1 | about to be taken away; if the door is closed, its owner is inside, or is leaving at once |
//! | 0 | any | 1 | taken away: everybody takes the lock. Who owned it closes the door when it comes the next time |
//!
//! The owner does not come in twice, in a signal handler or from a codec that uses its own connection: its
//! door is closed.
//!
//! What only those have to look at who take the lock costs the owner nothing: a gate can be taken away for
//! that reason alone ([`disown`](Gate::disown)).
//!
//! It lies in private memory, where no peer can reach it, and does not outlive its process: nobody can die in
//! it and leave others behind. But a forked child has a copy of it, and not the thread that is inside. What
//! that one was at is half done, here and in the ring, which still is its own. So the child finds the gate
//! [lost](Gate::begin_anew), for good. Who comes to it takes the slow path, because a child's threads have
//! other tokens, and `shared` is set.

use crate::barrier;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::Futex;
use polyproc_sys::thread;

/// In `shared`: everybody takes the lock.
const SHARED: u32 = 1;
/// In `shared`: this is a child, and a thread of its parent was inside.
const LOST: u32 = 2;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const CONTENDED: u32 = 2;

/// At the door: its owner is inside, or nobody owns the gate. No thread with this token becomes an owner.
const CLOSED: u64 = u64::MAX;

/// Lets one thread at a time to `T`.
///
/// What the owner needs lies in one cache line, with the first fields of `T`, and no other gate's: one thread
/// may send while another receives.
#[repr(C, align(128))]
pub(crate) struct Gate<T> {
    door: AtomicU64,
    owner: AtomicU64,
    shared: Futex,
    /// Counts how often the owner has left since the gate is shared.
    left: Futex,
    lock: Futex,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time has access to the value.
unsafe impl<T: Send> Sync for Gate<T> {}

/// Access to the value, until it is dropped.
pub(crate) struct Inside<'a, T> {
    gate: &'a Gate<T>,
    is_owner: bool,
    /// Not `Send`: the owner leaves as the thread that it is.
    thread: core::marker::PhantomData<*const ()>,
}

/// Access of the thread that the gate belongs to, which knows that. Two words, like [`Inside`]: so much is
/// passed on in registers.
pub(crate) struct Owned<'a, T> {
    gate: &'a Gate<T>,
    token: u64,
    /// As above.
    thread: core::marker::PhantomData<*const ()>,
}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Gate<T> {
        Gate {
            door: AtomicU64::new(CLOSED),
            owner: AtomicU64::new(0),
            shared: Futex::new(0),
            left: Futex::new(0),
            lock: Futex::new(FREE),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for its turn. `None` after the deadline, if this very thread is inside, or if the gate [is
    /// lost](Gate::is_lost).
    #[inline(always)]
    pub(crate) fn enter(&self, deadline: Deadline) -> Option<Inside<'_, T>> {
        match self.enter_owned() {
            Some(owned) => Some(owned.into()),
            None => self.enter_slowly(deadline),
        }
    }

    /// As the thread that it belongs to, at once; `None` for all others, and if it is inside already: in a
    /// signal handler, or a codec that uses its own connection.
    #[inline(always)]
    pub(crate) fn enter_owned(&self) -> Option<Owned<'_, T>> {
        // One who is not registered yet has no token: 0, for whom no door is open.
        let token = thread::token();
        // Relaxed: only this thread's own token means anything.
        let is_inside = self.door.load(Ordering::Relaxed) == token && self.enter_as_owner(token);
        is_inside.then(|| Owned { gate: self, token, thread: core::marker::PhantomData })
    }

    /// From now on nobody owns it: everybody takes the lock. Whoever is inside may be there still.
    #[cold]
    pub(crate) fn disown(&self) {
        // SeqCst: whoever enters after this has returned sees it. It is the same as what a second thread
        // does, which then holds the lock, and waits: here nobody has to.
        self.shared.fetch_or(SHARED, Ordering::SeqCst);
    }

    /// In a child that was forked just now, by its one thread: the gate is lost if somebody was inside, or if
    /// what it leads to is not `whole`.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub(crate) fn begin_anew(&self, is_whole: impl FnOnce(&T) -> bool) {
        // Relaxed: there is no other thread.
        let owner = self.owner.load(Ordering::Relaxed);
        let is_inside = owner != 0 && self.door.load(Ordering::Relaxed) != owner;
        let is_free = self.lock.load(Ordering::Relaxed) == FREE && !is_inside;
        // SAFETY: nobody is inside, and there is no other thread that could come in.
        if !is_free || !is_whole(unsafe { &*self.value.get() }) {
            self.shared.store(SHARED | LOST, Ordering::Relaxed);
        }
    }

    /// Whether nobody comes in any more: a thread of the parent of this process was inside when that forked.
    #[cold]
    pub(crate) fn is_lost(&self) -> bool {
        self.shared.load(Ordering::Relaxed) & LOST != 0
    }

    #[inline(always)]
    fn inside(&self, is_owner: bool) -> Inside<'_, T> {
        Inside { gate: self, is_owner, thread: core::marker::PhantomData }
    }

    #[inline(always)]
    fn enter_as_owner(&self, token: u64) -> bool {
        self.door.store(CLOSED, Ordering::Relaxed);
        // The other half is in `take_away`.
        barrier::light_here();
        let is_its_own = self.shared.load(Ordering::Relaxed) == 0;
        if !is_its_own {
            self.turn_away(token);
        }
        is_its_own
    }

    /// Its owner finds that it is shared. Once it is nobody's, who owned it does not try the door again: each
    /// time would be a system call.
    #[cold]
    fn turn_away(&self, token: u64) {
        self.leave_as_owner(token);
        // Relaxed: it stays 0. Nobody looks at the door any more, but for this thread.
        if self.owner.load(Ordering::Relaxed) == 0 {
            self.door.store(CLOSED, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn leave_as_owner(&self, token: u64) {
        // Release: whoever takes the gate away sees what was done inside.
        self.door.store(token, Ordering::Release);
        barrier::light_here();
        if self.shared.load(Ordering::Relaxed) != 0 {
            self.left_for_others();
        }
    }

    #[cold]
    #[inline(never)]
    fn left_for_others(&self) {
        // Release: who sees that it has left sees the door open.
        self.left.fetch_add(1, Ordering::Release);
        self.left.wake_all();
    }

    #[cold]
    #[inline(never)]
    fn enter_slowly(&self, deadline: Deadline) -> Option<Inside<'_, T>> {
        if cfg!(not(any(polyproc_loom, polyproc_shuttle))) && self.is_lost() {
            return None;
        }
        self.take_lock(deadline)?;
        let unlock = self.inside(false);
        if self.shared.load(Ordering::Relaxed) == 0 {
            // The lock is held: nobody else changes it.
            if self.owner.load(Ordering::Relaxed) == 0 && barrier::is_registered() {
                let token = thread::current().token();
                if token != CLOSED {
                    self.owner.store(token, Ordering::Release);
                    drop(unlock);
                    return Some(self.inside(true));
                }
            }
            self.shared.store(SHARED, Ordering::SeqCst);
        }
        self.take_away(deadline)?;
        Some(unlock)
    }

    /// As the holder of the lock, after the gate was declared shared: waits until its former owner is not
    /// inside.
    fn take_away(&self, deadline: Deadline) -> Option<()> {
        let owner = self.owner.load(Ordering::Relaxed);
        if owner == 0 {
            return Some(());
        }
        if owner == thread::current().token() {
            // Its own, and shared: it is inside only if it waits for itself. If not, it takes it away from
            // itself.
            let is_outside = self.door.load(Ordering::Relaxed) == owner;
            return is_outside.then(|| self.owner.store(0, Ordering::Relaxed));
        }
        barrier::heavy_here();
        loop {
            // Acquire: pairs with the Release of who leaves, so that the door is seen that is open by then.
            let left = self.left.load(Ordering::Acquire);
            // Acquire: what was done inside.
            if self.door.load(Ordering::Acquire) == owner {
                // From now on it is nobody's, and costs no barrier.
                self.owner.store(0, Ordering::Relaxed);
                return Some(());
            }
            if deadline.has_passed() {
                return None;
            }
            self.left.wait(left, deadline);
        }
    }

    fn take_lock(&self, deadline: Deadline) -> Option<()> {
        if self.lock.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            return Some(());
        }
        while self.lock.swap(CONTENDED, Ordering::Acquire) != FREE {
            if deadline.has_passed() {
                return None;
            }
            self.lock.wait(CONTENDED, deadline);
        }
        Some(())
    }
}

impl<T> Inside<'_, T> {
    /// Whether the gate belongs to this thread, or did when it came in.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    #[inline(always)]
    pub(crate) fn is_owner(inside: &Self) -> bool {
        inside.is_owner
    }

    /// [`barrier::light`]: whoever owns a gate is registered, and need not ask whether it is.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    #[inline(always)]
    pub(crate) fn light(inside: &Inside<'_, T>) {
        if inside.is_owner {
            barrier::light_here();
        } else {
            barrier::light();
        }
    }
}

impl<T> Drop for Inside<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(polyproc_loom) && std::thread::panicking() {
            return; // The model has failed, and has no threads any more.
        }
        if self.is_owner {
            // Relaxed: nobody takes away a gate whose owner is inside.
            self.gate.leave_as_owner(self.gate.owner.load(Ordering::Relaxed));
        } else if self.gate.lock.swap(FREE, Ordering::Release) == CONTENDED {
            self.gate.lock.wake(1);
        }
    }
}

impl<T> Drop for Owned<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(polyproc_loom) && std::thread::panicking() {
            return; // As above.
        }
        self.gate.leave_as_owner(self.token);
    }
}

impl<'a, T> From<Owned<'a, T>> for Inside<'a, T> {
    #[inline(always)]
    fn from(owned: Owned<'a, T>) -> Inside<'a, T> {
        core::mem::ManuallyDrop::new(owned).gate.inside(true)
    }
}

impl<T> Deref for Owned<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: no other thread is inside.
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for Owned<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: no other thread is inside, and this one only once.
        unsafe { &mut *self.gate.value.get() }
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: no other thread is inside.
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for Inside<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: no other thread is inside, and this one only once.
        unsafe { &mut *self.gate.value.get() }
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn threads_take_turns() {
        for round in 0..200 {
            let gate = Gate::new(0u64);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..1_000 {
                            let mut inside = gate.enter(Deadline::NEVER).unwrap();
                            let before = *inside;
                            core::hint::black_box(&mut *inside);
                            *inside = before + 1;
                        }
                    });
                }
            });
            assert_eq!(*gate.enter(Deadline::NEVER).unwrap(), 4_000, "round {round}");
        }
    }

    #[test]
    fn who_waits_too_long_gives_up_and_the_gate_goes_on() {
        let gate = Gate::new(());
        let inside = gate.enter(Deadline::NEVER).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    let begin = Instant::now();
                    assert!(gate.enter(Deadline::after(Duration::from_millis(20))).is_none());
                    assert!(begin.elapsed() >= Duration::from_millis(20));
                }
            });
        });
        drop(inside);
        assert!(gate.enter(Deadline::PAST).is_some());
        assert!(gate.enter(Deadline::PAST).is_some());
    }

    /// Else each time would be a system call: thirty times as long.
    #[test]
    fn who_owned_the_gate_takes_the_lock_as_others_do() {
        let taken = |gate: &Gate<()>| {
            std::thread::scope(|scope| {
                scope.spawn(|| drop(gate.enter(Deadline::NEVER).unwrap()));
            });
        };
        for take in [&taken as &dyn Fn(&Gate<()>), &Gate::disown] {
            let gate = Gate::new(());
            for _ in 0..3 {
                drop(gate.enter(Deadline::NEVER).unwrap());
            }
            take(&gate);
            (0..3).for_each(|_| drop(gate.enter(Deadline::NEVER).unwrap()));
            let left = gate.left.load(Ordering::Relaxed);
            (0..100).for_each(|_| drop(gate.enter(Deadline::NEVER).unwrap()));
            assert_eq!(
                gate.left.load(Ordering::Relaxed),
                left,
                "it still wakes whoever waits for it to leave"
            );
            taken(&gate);
        }
    }

    /// Else each time would cost whoever comes a barrier on all CPUs.
    #[test]
    fn a_gate_is_taken_away_once() {
        let gate = Gate::new(());
        (0..2).for_each(|_| drop(gate.enter(Deadline::NEVER).unwrap()));
        assert_ne!(gate.owner.load(Ordering::Relaxed), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(gate.enter(Deadline::NEVER).unwrap()));
        });
        assert_eq!(gate.owner.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_does_not_wait_for_itself() {
        let gate = Gate::new(());
        let _inside = gate.enter(Deadline::NEVER).unwrap();
        assert!(gate.enter(Deadline::PAST).is_none());
    }
}
