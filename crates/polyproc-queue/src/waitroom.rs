//! Where those sleep who need a change that the holders of some lock make: a message, or room for one.
//!
//! Each side of the queue has a lock, and a waitroom for those who wait for what that lock's holders do: consumers wait
//! for the producers' news, producers for the room that consumers make. In between, a holder has to know that somebody
//! sleeps, and a sleeper has to be woken, whoever dies on the way.
//!
//! | word | values | what |
//! |---|---|---|
//! | `door` | number, and `ASLEEP` in the lowest bit | whether anybody may sleep; the number changes with every wake, and with everybody who comes |
//! | `herald` | 0, or a holder's id + `WAITERS` | robust: a holder is about to publish something and to wake |
//! | place | 0, or a sleeper's id + `WAITERS` | robust: somebody sleeps, or was woken and has not done its work yet |
//!
//! A **holder** looks at the door when it has taken its lock. If somebody may sleep, it raises the herald, publishes,
//! gives the door a new number, wakes as many as it has news for, clears `ASLEEP` if there was nobody, and lowers the
//! herald, all before it releases the lock.
//!
//! A **sleeper** takes a place for the time from before its first sleep until its work is done. It sets `ASLEEP`, if it
//! is not, looks at the lock's word, looks for news a last time, and then sleeps on all of this at once: the door, the
//! herald, the places of those who are here already, and, if the lock is held just now, the lock's word, marked so that its
//! release wakes.
//!
//! # Why nobody sleeps for ever
//!
//! - **The holder took the lock before the sleeper came to the door**: then the sleeper finds the lock held and marks
//!   it, or finds it released and the news published.
//! - **After it**: the holder sees `ASLEEP`.
//! - **The sleeper has looked for news and does not sleep yet when the holder wakes**: the door's number has changed, so
//!   it does not begin to.
//! - **The holder dies** between publishing and waking: the kernel releases its lock, or its herald, and wakes one sleeper.
//! - **A sleeper dies that a wake was spent on**: before it has done its work, it has a place. The kernel releases that and
//!   wakes one who sleeps on it: one that came later. Those that came before have been woken before, because the kernel wakes
//!   in the order of arrival.
//! - **A sleeper leaves with its deadline, or dies asleep**: `ASLEEP` may stay, which costs the next holder one wake.
//!
//! More than [`PLACES`] sleepers at once are legal; those without a place wake every millisecond.

use polyproc_mutex::RawMutex;
use polyproc_sys::atomic::{AtomicU32, Ordering, fence, fence_after_rmw};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, OWNER, OWNER_DIED, WAIT_ANY_MAX, WAITERS, Wait, Waiter};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::{self, Current};
use std::time::Duration;

/// In `door`: somebody may be asleep.
const ASLEEP: u32 = 1;
/// The next number of the door.
const NEXT: u32 = 2;

/// A place that nobody has, a herald that nobody has raised.
const FREE: u32 = 0;

/// So many sleep in safety.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const PLACES: usize = 60;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const PLACES: usize = 2;

/// How long one without a place sleeps.
const SLICE: Duration = Duration::from_millis(1);

/// A word that the kernel looks after when the thread that has it dies.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Robust {
    pub(crate) word: Futex,
    reserved: [AtomicU32; 5],
    pub(crate) node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    assert!(core::mem::offset_of!(Robust, node) == polyproc_sys::robust::NODE_OFFSET);
    assert!(size_of::<Robust>() == 40 && align_of::<Robust>() == 8);
};

impl Robust {
    /// Takes it if it has no living owner, and enters it in the thread's list. Returns whether it did.
    pub(crate) fn claim(&self, current: Current) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        if word & OWNER != 0 || !current.has_room() {
            return false;
        }
        let Some(outer) = current.begin_inside(&self.word, &self.node) else { return false };
        // SeqCst: before the look for news of who claims it to sleep.
        let claimed =
            self.word.compare_exchange(word, current.tid() | WAITERS, Ordering::SeqCst, Ordering::Relaxed);
        if claimed.is_ok() {
            // SAFETY: it bears this thread's id since just now, and the queue's handle keeps it mapped.
            unsafe { current.link(&self.word, &self.node) };
        }
        current.end_inside(outer);
        claimed.is_ok()
    }

    /// Gives it back, and wakes those who sleep on it if they want to know.
    ///
    /// # Safety
    ///
    /// The calling thread has claimed it, in this process, and not given it back.
    pub(crate) unsafe fn give_back(&self, current: Current, wake: bool) {
        let outer = current.begin_inside(&self.word, &self.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&self.word, &self.node) };
        // Release: whoever takes it sees what was done with it.
        self.word.store(FREE, Ordering::Release);
        if wake {
            // Still pending: should this thread die before it, the kernel wakes one, because the word is zero.
            self.word.wake_all();
        }
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
    }

    /// Gives it up as if the thread had died, and wakes one who sleeps on it.
    ///
    /// # Safety
    ///
    /// As for [`give_back`](Robust::give_back).
    pub(crate) unsafe fn abandon(&self, current: Current) {
        let outer = current.begin_inside(&self.word, &self.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&self.word, &self.node) };
        // Release: as the kernel's own.
        self.word.store(OWNER_DIED | WAITERS, Ordering::Release);
        self.word.wake(1);
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
    }

    /// Whether it is a living or dead thread's.
    pub(crate) fn is_taken(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }
}

/// See the page above. All zero is an empty one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Waitroom {
    door: Futex,
    /// Keeps the herald aligned.
    reserved: AtomicU32,
    herald: Robust,
    places: [Robust; PLACES],
}

impl Waitroom {
    /// An empty one.
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub(crate) fn new() -> Waitroom {
        Waitroom {
            door: Futex::new(0),
            reserved: AtomicU32::new(0),
            herald: Robust::default(),
            places: core::array::from_fn(|_| Robust::default()),
        }
    }

    /// As the holder of the lock, since a moment: may somebody be asleep?
    #[inline(always)]
    pub(crate) fn is_occupied(&self) -> bool {
        // Pairs with the compare-and-swap in `sleep`: either the sleeper sees that the lock is held, or this sees it.
        fence_after_rmw();
        self.door.load(Ordering::Relaxed) & ASLEEP != 0
    }

    /// As the holder, before it publishes something: should it die from here on, somebody hears of it.
    #[cold]
    #[inline(never)]
    pub(crate) fn raise(&self) {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Herald) {
            return;
        }
        let current = thread::current();
        if current.has_room() {
            // Whoever had it raised had the lock. A swap, where a store would do: the kernel looks at the word as those who
            // sleep on it do, and the models know the order of swaps only.
            self.herald.word.swap(current.tid() | WAITERS, Ordering::Relaxed);
            // SAFETY: it bears this thread's id, nobody else touches it while the lock is held, and it stays mapped.
            unsafe { current.link(&self.herald.word, &self.herald.node) };
        } else {
            self.herald.word.store(FREE, Ordering::Relaxed);
        }
    }

    /// As the holder that has [raised](Waitroom::raise) and published: wakes so many.
    #[cold]
    #[inline(never)]
    pub(crate) fn ring(&self, count: u32) {
        // A new number first: whoever has looked for news and is not asleep yet looks again.
        let door = self.door.fetch_add(NEXT, Ordering::SeqCst).wrapping_add(NEXT);
        if self.door.wake(count) == 0 {
            // Fails if anybody has come since. Who sleeps since the wake sleeps on the lock as well, and comes back. Not
            // cleared before the wake: if this thread died there, those whom the wake did not reach would be forgotten.
            let _ = self.door.compare_exchange(door, door & !ASLEEP, Ordering::SeqCst, Ordering::Relaxed);
        }
        self.lower();
    }

    /// As one who was woken: wakes so many more.
    #[cold]
    #[inline(never)]
    pub(crate) fn pass_on(&self, count: u32) {
        // As in `ring`.
        self.door.fetch_add(NEXT, Ordering::SeqCst);
        self.door.wake(count);
    }

    /// Wakes everybody, and whoever is about to sleep: what they sleep on has changed.
    #[cold]
    pub(crate) fn call_all(&self) {
        self.door.fetch_add(NEXT, Ordering::SeqCst);
        self.door.wake_all();
    }

    /// As the holder that has raised, and has nothing to tell.
    pub(crate) fn lower(&self) {
        let current = thread::current();
        if self.herald.word.load(Ordering::Relaxed) & OWNER == current.tid() {
            // SAFETY: linked by `raise`, on this thread, which holds the lock since.
            unsafe { current.unlink(&self.herald.word, &self.herald.node) };
            self.herald.word.store(FREE, Ordering::Relaxed);
        }
    }

    /// Takes a place, if there is one, for as long as the [`Sleeper`] lives.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter(&self) -> Sleeper<'_> {
        let current = thread::current();
        let place = self.places.iter().find(|place| place.claim(current));
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        let place = if crate::model::is_without(crate::model::Part::Place) {
            place.inspect(|place| {
                // SAFETY: claimed just now.
                unsafe { place.give_back(current, false) }
            });
            None
        } else {
            place
        };
        // A new number: whoever has looked at the places before, and is not asleep yet, sleeps on this one too.
        self.door.fetch_add(NEXT, Ordering::SeqCst);
        Sleeper { room: self, place, current }
    }
}

/// Somebody who sleeps in a [`Waitroom`], or has done so and not done its work yet.
pub(crate) struct Sleeper<'a> {
    room: &'a Waitroom,
    place: Option<&'a Robust>,
    current: Current,
}

impl Sleeper<'_> {
    /// Sleeps until it is woken, one of `others` is woken, or the deadline, unless there is `news` already.
    ///
    /// `lock` is the one whose holders ring. Every wake may be a spurious one.
    #[cold]
    #[inline(never)]
    pub(crate) fn sleep<'b>(
        &self,
        lock: &RawMutex,
        others: impl Iterator<Item = Waiter<'b>>,
        deadline: Deadline,
        news: impl FnOnce() -> bool,
    ) -> Wait {
        let room = self.room;
        let mut words: Vec<Waiter<'_>> = Vec::with_capacity(16);
        let mut door = room.door.load(Ordering::Relaxed);
        // Those who go to sleep together share a number.
        while door & ASLEEP == 0 {
            let next = door.wrapping_add(NEXT) | ASLEEP;
            match room.door.compare_exchange(door, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => door = next,
                Err(other) => door = other,
            }
        }
        // Before the look at the lock, see `is_occupied`.
        fence(Ordering::SeqCst);
        words.push((&room.door, door));
        // Acquire, here and below: who sees that somebody has died sees what the dead one has published.
        words.push((&room.herald.word, room.herald.word.load(Ordering::Acquire)));
        for place in &room.places {
            let word = place.word.load(Ordering::Acquire);
            if word != FREE && !self.place.is_some_and(|own| core::ptr::eq(own, place)) {
                words.push((&place.word, word));
            }
        }
        for other in others {
            words.push(other);
        }
        // One more is the lock's.
        words.truncate(WAIT_ANY_MAX - 1);
        let deadline = if self.has_to_poll() { deadline.min(Deadline::after(SLICE)) } else { deadline };
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::LastLook) {
            return lock.listen(&words, deadline, || false);
        } else if crate::model::is_without(crate::model::Part::Mark) {
            return if news() { Wait::Changed } else { polyproc_sys::futex::wait_any(&words, deadline) };
        }
        lock.listen(&words, deadline, news)
    }
}

impl Sleeper<'_> {
    fn has_to_poll(&self) -> bool {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Place) {
            return false;
        }
        self.place.is_none()
    }

    /// Whether it has to look by itself, because all places were taken.
    pub(crate) fn is_without_place(&self) -> bool {
        self.place.is_none()
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // SAFETY: claimed by `enter`, on this thread: a `Sleeper` is not `Send`.
            unsafe { place.give_back(self.current, false) };
        }
    }
}
