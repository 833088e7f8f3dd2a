//! Where those sleep who need a change that the holders of some lock make: a message, or room for one.
//!
//! Each side of the queue has a lock, and a waitroom for those who wait for what that lock's holders do: consumers wait
//! for the producers' news, producers for the room that consumers make. In between, a holder has to know that somebody
//! sleeps, and a sleeper has to be woken, whoever dies on the way.
//!
//! | word | values | what |
//! |---|---|---|
//! | `door` | number, and `ASLEEP` in the lowest bit | whether anybody may sleep; the number changes with every wake, with everybody who comes, and with everybody who sleeps again |
//! | herald | 0, or the id of one who holds or held the lock + `WAITERS` | robust: it is about to publish something and to wake |
//! | place | 0, or a sleeper's id + `WAITERS` | robust: somebody sleeps, or was woken and has not done its work yet |
//!
//! A **holder** looks at the door when it has taken its lock. If somebody may sleep, it raises a herald, publishes, and
//! gives the door a new number. Then it releases the lock, wakes as many as it has news for, clears `ASLEEP` if there was
//! nobody, and lowers the herald. First the lock: whoever is woken may take the CPU at once, and would soon find it
//! held.
//!
//! So the next holder may come while the herald is up, and needs another. Sleepers listen to the first herald only, which
//! is enough for one side of a queue that has one thread; from the first time that another is needed, they listen to all
//! [`HERALDS`]. A holder that finds none wakes everybody *before* it publishes: they find the lock held, and sleep on that.
//!
//! A **sleeper** takes a place for the time from before its first sleep until its work is done. It sets `ASLEEP`, looks at
//! the lock's word, looks for news a last time, and then sleeps on all of this at once: the door, the heralds, the places
//! of those who are here already, and, if the lock is held just now, the lock's word, marked so that its release
//! wakes.
//!
//! # Why nobody sleeps for ever
//!
//! - **The holder took the lock before the sleeper came to the door**: then the sleeper finds the lock held and marks
//!   it, or finds it released and the news published.
//! - **After it**: the holder sees `ASLEEP`.
//! - **It takes no mutex, because the lock is [its own](crate::biased)**: the sleeper, having set `ASLEEP`, takes it away. If
//!   the owner is inside then, the sleeper sleeps on that, too, and its leaving wakes. If not, its next visit takes the mutex.
//! - **The sleeper has looked for news and does not sleep yet when the holder wakes**: the door's number has changed, so
//!   it does not begin to.
//! - **The holder dies** between publishing and waking: the kernel releases its herald, and wakes one sleeper.
//! - **It finds nobody to wake, and somebody comes before it clears `ASLEEP`**: with a new number, and it is not cleared.
//! - **A sleeper dies that a wake was spent on**: before it has done its work, it has a place. The kernel releases that and
//!   wakes one who sleeps on it: one that came later. Those that came before have been woken before, because the kernel wakes
//!   in the order of arrival.
//! - **A sleeper leaves with its deadline, or dies asleep**: `ASLEEP` may stay, which costs the next holder one wake.
//!
//! More than [`PLACES`] sleepers at once are legal; those without a place wake every millisecond.

use crate::biased::Side;
use core::cell::Cell;
use core::mem::ManuallyDrop;
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

/// So many wake at a time, each having released the lock.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const HERALDS: usize = 4;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const HERALDS: usize = 2;

/// Of `heralds_used`: all of them. Whoever sleeps from here on listens to all.
const ALL: u32 = 1;
/// And whoever slept before has been told.
const ALL_KNOWN: u32 = 2;

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
    /// 0 for the first alone, [`ALL`] or [`ALL_KNOWN`].
    heralds_used: AtomicU32,
    heralds: [Robust; HERALDS],
    places: [Robust; PLACES],
}

impl Waitroom {
    /// An empty one.
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    pub(crate) fn new() -> Waitroom {
        Waitroom {
            door: Futex::new(0),
            heralds_used: AtomicU32::new(0),
            heralds: core::array::from_fn(|_| Robust::default()),
            places: core::array::from_fn(|_| Robust::default()),
        }
    }

    /// As the holder of the lock's mutex, since a moment: may somebody be asleep?
    #[inline(always)]
    pub(crate) fn is_occupied(&self) -> bool {
        // Pairs with the compare-and-swap in `sleep`: either the sleeper sees that the lock is held, or this sees it.
        fence_after_rmw();
        self.looks_occupied()
    }

    /// As the lock's owner, inside: may somebody be asleep? A sleeper takes the lock away from its owner when it has said
    /// that it sleeps.
    #[inline(always)]
    pub(crate) fn looks_occupied(&self) -> bool {
        self.door.load(Ordering::Relaxed) & ASLEEP != 0
    }

    /// As the holder, before it publishes something: should it die from here on, somebody hears of it.
    #[cold]
    #[inline(never)]
    pub(crate) fn raise(&self) -> Herald<'_> {
        let current = thread::current();
        let mut herald = Herald { room: self, current, raised: None, door: 0 };
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Herald) {
            return herald;
        }
        let first = &self.heralds[0];
        herald.raised = if first.claim(current) { Some(first) } else { self.raise_another(current) };
        if herald.raised.is_none() {
            self.call_all();
        }
        herald
    }

    /// Somebody else, who has released the lock, has the first one raised.
    #[cold]
    fn raise_another(&self, current: Current) -> Option<&Robust> {
        if self.heralds_used.load(Ordering::Relaxed) != ALL_KNOWN {
            // SeqCst: before the door's new number, see `sleep`.
            self.heralds_used.store(ALL, Ordering::SeqCst);
            self.call_all();
            self.heralds_used.store(ALL_KNOWN, Ordering::Relaxed);
        }
        self.heralds[1..].iter().find(|herald| herald.claim(current))
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
        Sleeper { room: self, place, current, again: Cell::new(false) }
    }
}

/// Raised by a holder that is about to publish something, see [`Waitroom::raise`]. Dropped, it is lowered.
pub(crate) struct Herald<'a> {
    room: &'a Waitroom,
    current: Current,
    /// `None` if everybody was woken instead.
    raised: Option<&'a Robust>,
    /// What was made of the door.
    door: u32,
}

impl Herald<'_> {
    /// As the holder that has published: gives the door a new number. Whoever has looked for news and is not asleep yet
    /// looks again.
    pub(crate) fn announce(&mut self) {
        self.door = self.room.door.fetch_add(NEXT, Ordering::SeqCst).wrapping_add(NEXT);
    }

    /// As the one that has announced, best when it has released the lock: wakes so many.
    #[cold]
    #[inline(never)]
    pub(crate) fn wake(self, count: u32) {
        // Who vanishes in a model drops nothing.
        let this = ManuallyDrop::new(self);
        let (room, door) = (this.room, this.door);
        if room.door.wake(count) == 0 {
            // Fails if anybody has come since: with a new number. Not cleared before the wake: if this thread died there,
            // those whom the wake did not reach would be forgotten.
            let _ = room.door.compare_exchange(door, door & !ASLEEP, Ordering::SeqCst, Ordering::Relaxed);
        }
        this.lower();
    }

    fn lower(&self) {
        if let Some(raised) = self.raised {
            // SAFETY: claimed by `raise`, on this thread: a `Herald` is not `Send`.
            unsafe { raised.give_back(self.current, false) };
        }
    }
}

impl Drop for Herald<'_> {
    fn drop(&mut self) {
        self.lower();
    }
}

/// Somebody who sleeps in a [`Waitroom`], or has done so and not done its work yet.
pub(crate) struct Sleeper<'a> {
    room: &'a Waitroom,
    place: Option<&'a Robust>,
    current: Current,
    /// It has slept before.
    again: Cell<bool>,
}

impl Sleeper<'_> {
    /// Sleeps until it is woken, one of `others` is woken, or the deadline, unless there is `news` already.
    ///
    /// `lock` is the one whose holders ring. Every wake may be a spurious one.
    #[cold]
    #[inline(never)]
    pub(crate) fn sleep<'b>(
        &self,
        lock: Side<'b>,
        others: impl Iterator<Item = Waiter<'b>>,
        deadline: Deadline,
        news: impl FnOnce() -> bool,
    ) -> Wait {
        let room = self.room;
        let mut words: Vec<Waiter<'_>> = Vec::with_capacity(16);
        let mut door = room.door.load(Ordering::Relaxed);
        let mut again = self.again.replace(true);
        // A number that is newer than that of anybody who has found nobody asleep. The first time, `enter` has given it one.
        while again || door & ASLEEP == 0 {
            let next = door.wrapping_add(NEXT) | ASLEEP;
            match room.door.compare_exchange(door, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => (door, again) = (next, false),
                Err(other) => door = other,
            }
        }
        // Before the look at the lock, see `is_occupied`.
        fence(Ordering::SeqCst);
        words.push((&room.door, door));
        // Acquire, here and below: who sees that somebody has died sees what the dead one has published.
        // SeqCst: after the door, see `raise_another`.
        let heralds = if room.heralds_used.load(Ordering::SeqCst) == 0 { 1 } else { HERALDS };
        for herald in &room.heralds[..heralds] {
            words.push((&herald.word, herald.word.load(Ordering::Acquire)));
        }
        for place in &room.places {
            let word = place.word.load(Ordering::Acquire);
            if word != FREE && !self.place.is_some_and(|own| core::ptr::eq(own, place)) {
                words.push((&place.word, word));
            }
        }
        for other in others {
            words.push(other);
        }
        // Two more are the lock's.
        words.truncate(WAIT_ANY_MAX - 2);
        let deadline = if self.has_to_poll() { deadline.min(Deadline::after(SLICE)) } else { deadline };
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::LastLook) {
            return lock.listen(&mut words, deadline, || false);
        } else if crate::model::is_without(crate::model::Part::Mark) {
            return if news() { Wait::Changed } else { polyproc_sys::futex::wait_any(&words, deadline) };
        }
        lock.listen(&mut words, deadline, news)
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
