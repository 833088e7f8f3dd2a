//! [`Gate`]: one thread of this process at a time, and next to nothing for the one that always comes.
//!
//! A connection's rings are for one sender and one receiver, and a locked instruction for every message would cost more
//! than the message: it waits until everything stored before has reached the cache, which is the line that the other
//! side reads just now. So a gate belongs to the first thread that comes. That one says `inside`, looks whether the gate
//! is still its own, and is in: two plain stores and two loads. Another thread that comes takes the gate away for good:
//! it says so, has the kernel run a barrier on all CPUs of this process ([`heavy_here`](crate::barrier::heavy_here)),
//! and waits until the owner is not inside. From then on the gate is an ordinary lock.
//!
//! | `owner` | `shared` | |
//! |---|---|---|
//! | 0 | 0 | nobody has come yet |
//! | token | 0 | that thread's: it enters with plain stores |
//! | token | 1 | taken away from it; everybody takes the lock |
//!
//! What only those have to look at who take the lock costs the owner nothing: a gate can be taken away for that reason alone
//! ([`disown`](Gate::disown)).
//!
//! It lies in private memory, where no peer can reach it, and does not outlive its process: nobody can die in it and leave
//! others behind.

use crate::barrier;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::Futex;
use polyproc_sys::thread;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const CONTENDED: u32 = 2;

/// Lets one thread at a time to `T`.
pub(crate) struct Gate<T> {
    owner: AtomicU64,
    inside: Futex,
    shared: Futex,
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

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Gate<T> {
        Gate {
            owner: AtomicU64::new(0),
            inside: Futex::new(0),
            shared: Futex::new(0),
            lock: Futex::new(FREE),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for its turn. `None` after the deadline, or if this very thread is inside.
    #[inline(always)]
    pub(crate) fn enter(&self, deadline: Deadline) -> Option<Inside<'_, T>> {
        match self.enter_owned() {
            Some(inside) => Some(inside),
            None => self.enter_slowly(deadline),
        }
    }

    /// As the thread that it belongs to, at once; `None` for all others, and if it is inside already: in a signal handler, or
    /// a codec that uses its own connection.
    #[inline(always)]
    pub(crate) fn enter_owned(&self) -> Option<Inside<'_, T>> {
        // One who is not registered yet has no token, and a gate that nobody owns no owner.
        let token = thread::token();
        // Relaxed: only this thread's own token means anything.
        let is_owner = self.owner.load(Ordering::Relaxed) == token && token != 0;
        (is_owner && self.enter_as_owner()).then(|| self.inside(true))
    }

    /// From now on nobody owns it: everybody takes the lock. Whoever is inside may be there still.
    #[cold]
    pub(crate) fn disown(&self) {
        // SeqCst: whoever enters after this has returned sees it. It is the same as what a second thread does, which then
        // holds the lock, and waits: here nobody has to.
        self.shared.store(1, Ordering::SeqCst);
    }

    #[inline(always)]
    fn inside(&self, is_owner: bool) -> Inside<'_, T> {
        Inside { gate: self, is_owner, thread: core::marker::PhantomData }
    }

    #[inline(always)]
    fn enter_as_owner(&self) -> bool {
        if self.inside.load(Ordering::Relaxed) != 0 {
            return false;
        }
        self.set_inside(1, Ordering::Relaxed);
        // The other half is in `take_away`.
        barrier::light_here();
        if self.shared.load(Ordering::Relaxed) == 0 {
            return true;
        }
        self.leave_as_owner();
        false
    }

    #[inline(always)]
    fn leave_as_owner(&self) {
        // Release: whoever takes the gate away sees what was done inside.
        self.set_inside(0, Ordering::Release);
        barrier::light_here();
        if self.shared.load(Ordering::Relaxed) != 0 {
            self.inside.wake_all();
        }
    }

    /// A plain store. (loom takes one and another thread's atomic addition of nothing, in its futex, for unordered, and
    /// may lose the store: there it is a swap.)
    #[inline(always)]
    fn set_inside(&self, value: u32, order: Ordering) {
        if cfg!(polyproc_loom) {
            self.inside.swap(value, order);
        } else {
            self.inside.store(value, order);
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_slowly(&self, deadline: Deadline) -> Option<Inside<'_, T>> {
        self.take_lock(deadline)?;
        let unlock = self.inside(false);
        if self.shared.load(Ordering::Relaxed) == 0 {
            // The lock is held: nobody else changes these.
            if self.owner.load(Ordering::Relaxed) == 0 && barrier::is_registered() {
                self.inside.store(1, Ordering::Relaxed);
                self.owner.store(thread::current().token(), Ordering::Release);
                drop(unlock);
                return Some(self.inside(true));
            }
            self.shared.store(1, Ordering::SeqCst);
        }
        self.take_away(deadline)?;
        Some(unlock)
    }

    /// As the holder of the lock, after the gate was declared shared: waits until its former owner is not inside.
    fn take_away(&self, deadline: Deadline) -> Option<()> {
        if self.inside.load(Ordering::Acquire) == 0 && self.owner.load(Ordering::Relaxed) == 0 {
            return Some(());
        }
        if self.owner.load(Ordering::Relaxed) == thread::current().token() {
            // Its own, and shared: it is inside only if it waits for itself.
            return (self.inside.load(Ordering::Relaxed) == 0).then_some(());
        }
        barrier::heavy_here();
        loop {
            if self.inside.load(Ordering::Acquire) == 0 {
                // From now on it is nobody's, and costs no barrier.
                self.owner.store(0, Ordering::Relaxed);
                return Some(());
            }
            if deadline.has_passed() {
                return None;
            }
            self.inside.wait(1, deadline);
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
        if self.is_owner {
            self.gate.leave_as_owner();
        } else if self.gate.lock.swap(FREE, Ordering::Release) == CONTENDED {
            self.gate.lock.wake(1);
        }
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

    #[test]
    fn a_thread_does_not_wait_for_itself() {
        let gate = Gate::new(());
        let _inside = gate.enter(Deadline::NEVER).unwrap();
        assert!(gate.enter(Deadline::PAST).is_none());
    }
}
