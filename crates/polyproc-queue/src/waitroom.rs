//! Where those sleep who need a change that the holders of some lock make: a message, or room for one.
//!
//! Each side of the queue has a lock, and a waitroom for those who wait for what that lock's holders do:
//! consumers wait for the producers' news, producers for the room that consumers make. In between, a holder
//! has to know that somebody sleeps, and a sleeper has to be woken, whoever dies on the way.
//!
//! | word | values | what |
//! |---|---|---|
//! | `door` | 0: nobody is asleep | what all sleep on; robust |
//! | | [`NUMBER`] + somebody's place, + `ALONE` if that one knows of nobody else; or + `TICKET` and a holder's number | somebody may be asleep; who came last |
//! | | a holder's id + `WAITERS`, + `CAME` if somebody has come since | *raised*: that one is about to publish something and to wake |
//! | | `OWNER_DIED` + `WAITERS` | it died; the kernel has woken one |
//! | a herald | 0, [`NUMBER`], or a holder's id + `WAITERS` | robust: raised, where several sleep |
//! | `bell` | a number | changes with every holder that raises a herald, and with who comes to a door that is raised and marked |
//! | place | 0, or a sleeper's id + `WAITERS` | robust: somebody sleeps, or was woken and has not done its work yet |
//!
//! A **holder** looks at the door when it has taken its lock. If somebody may sleep, it raises a herald,
//! publishes, changes the bell and the door, releases the lock, wakes as many as it has news for, makes the
//! door 0 if there was nobody, and lowers the herald. First the lock: whoever is woken may take the CPU at
//! once, and would soon find it held. So the next holder may come while the herald is up, and takes another;
//! one that finds none of [`HERALDS`] free wakes everybody *before* it publishes: they find the lock held,
//! and sleep on that. If there is one that sleeps **alone**, see below, the holder raises the door itself,
//! which is all that this one sleeps on.
//!
//! A **sleeper** takes a place for the time from before its first sleep until its work is done. It says at
//! the door that it sleeps, looks at the lock's word, looks for news a last time, and then sleeps: on the
//! door, the bell, the heralds, the places of those who are here already, and, if the lock is held just now,
//! on the lock's word, marked so that its release wakes. Only the holder changes a raised door: its links are
//! in that thread's list. So there the sleeper marks it; and if it finds it marked, it rings the bell.
//!
//! One who finds itself **alone**, and neither the door raised nor the lock held, sleeps on the door only,
//! and without a timer. That is the usual case of one who waits for each message: one word, one wake. Its
//! holder, having published and released the lock, lowers the door to 0, and wakes then. So the sleeper,
//! which may run at once, finds nobody at the door, and may be alone again, while its waker has not come back
//! from the system call. If somebody has come meanwhile, it wakes first.
//!
//! # Why nobody sleeps for ever
//!
//! - **The holder took the lock before the sleeper came to the door**: then the sleeper finds the lock held
//!   and marks it, or finds it released and the news published. So whoever finds the door raised and sleeps
//!   on that has seen the news, or sleeps on the lock.
//! - **After it**: the holder sees that the door is not 0.
//! - **It takes no mutex, because the lock is [its own](crate::biased)**: the sleeper, having come to the
//!   door, takes it away. If the owner is inside then, the sleeper sleeps on that, too, and its leaving
//!   wakes. If not, its next visit takes the mutex.
//! - **The sleeper has looked for news and does not sleep yet when the holder wakes**: the door, or the bell,
//!   is not what it was before the holder published, so it does not begin to. What the door becomes when
//!   somebody comes, nobody else makes of it.
//! - **The holder publishes nothing**: the door, once raised, never is again what it was before. Others have
//!   found it raised, and not changed it.
//! - **The holder dies**, from raising to lowering: the kernel wakes one who sleeps on the door. **With a
//!   herald**: one who sleeps on that. **Having lowered it to 0, before the wake**: the kernel finds it 0
//!   with the operation pending, and wakes one, the one that there is. If somebody has come in between, so
//!   that it is not 0, that one has woken the other first.
//! - **The holder finds nobody to wake, and somebody comes before it makes the door 0**: that has changed, or
//!   is marked, and does not become 0.
//! - **A sleeper dies that a wake was spent on**: before it has done its work, it has a place. The kernel
//!   releases that and wakes one who sleeps on it: one that came later. Those that came before have been
//!   woken before, because the kernel wakes in the order of arrival. (Real-time threads it wakes before
//!   others. So one of those wakes one that sleeps alone when it comes: that one sleeps again, on its place,
//!   too. Among several, such a one may leave others to their backstop.)
//! - **A sleeper leaves with its deadline, or dies asleep**: the door may stay as it is, which costs the next
//!   holder one wake.
//!
//! # Without a timer
//!
//! One that sleeps alone relies on no backstop, however many die. It says so (`alone`) before it comes to the
//! door, and as long as it does, holders raise the door: then they or the kernel wake one who sleeps there,
//! which is the first, and it is that; they make it 0 only when they have woken everybody, or are about to
//! with the kernel behind them. Whoever comes to sleep comes to the door, too, and sleeps behind it.
//!
//! More than [`PLACES`] sleepers at once are legal; those without a place look every millisecond.

use crate::biased::Side;
use crate::robust::{NUMBER, Robust, is_owned};
use core::cell::Cell;
use core::mem::ManuallyDrop;
use polyproc_sys::atomic::{AtomicU32, Ordering, fence, fence_after_rmw};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, OWNER, OWNER_DIED, WAIT_ANY_MAX, Wait, Waiter};
use polyproc_sys::thread::{self, Current};
use std::time::Duration;

/// Of the door: nobody is asleep.
const NOBODY: u32 = 0;
/// Of the door, if it is not raised: somebody may be asleep. In its lower bits may be who came last, as
/// place + 1.
const ASLEEP: u32 = NUMBER;
/// Beside that: who came last knows of nobody else.
const ALONE: u32 = 1 << 28;
/// Beside that: a holder's number, from the bell.
const TICKET: u32 = 1 << 27;
/// In a raised door: somebody has come since.
const CAME: u32 = OWNER_DIED;

/// So many sleep in safety.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const PLACES: usize = 60;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const PLACES: usize = 3;

/// So many more than one wake at a time, each having released the lock.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const HERALDS: usize = 3;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const HERALDS: usize = 1;

/// How long one without a place sleeps.
const SLICE: Duration = Duration::from_millis(1);

/// See the page above. All zero is an empty one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Waitroom {
    door: Robust,
    /// Raised where several sleep.
    heralds: [Robust; HERALDS],
    /// What all sleep on but who sleeps alone.
    bell: Futex,
    /// So many places were ever used.
    used: AtomicU32,
    /// Who sleeps and knows of nobody else, as place + 1.
    alone: AtomicU32,
    reserved: AtomicU32,
    places: [Robust; PLACES],
}

impl Waitroom {
    /// An empty one.
    #[cfg(any(test, polyproc_loom, polyproc_shuttle))]
    pub(crate) fn new() -> Waitroom {
        Waitroom {
            door: Robust::default(),
            heralds: core::array::from_fn(|_| Robust::default()),
            bell: Futex::new(0),
            used: AtomicU32::new(0),
            alone: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            places: core::array::from_fn(|_| Robust::default()),
        }
    }

    /// As the holder of the lock's mutex, since a moment: may somebody be asleep?
    #[inline(always)]
    pub(crate) fn is_occupied(&self) -> bool {
        // Pairs with the fence in `sleep`: either the sleeper sees that the lock is held, or this sees it.
        fence_after_rmw();
        self.looks_occupied()
    }

    /// As the lock's owner, inside: may somebody be asleep? A sleeper takes the lock away from its owner when
    /// it has said that it sleeps.
    #[inline(always)]
    pub(crate) fn looks_occupied(&self) -> bool {
        self.door.word.load(Ordering::Relaxed) != NOBODY
    }

    /// As the holder, before it publishes something: should it die from here on, somebody hears of it.
    #[cold]
    #[inline(never)]
    pub(crate) fn raise(&self) -> Herald<'_> {
        let current = thread::current();
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Herald) {
            return Herald { room: self, current, raised: None, door: NOBODY };
        }
        // Acquire: who sees one at the door sees whether it is alone.
        let is_for_one =
            self.door.word.load(Ordering::Acquire) != NOBODY && self.alone.load(Ordering::Relaxed) != 0;
        let door = if is_for_one { self.door.seize(current) } else { None };
        let raised = match door {
            Some(seen) => Some((&self.door, seen)),
            None => self.heralds.iter().find_map(|herald| Some((herald, herald.seize(current)?))),
        };
        if raised.is_none() {
            self.call_all();
        }
        Herald { room: self, current, raised, door: NOBODY }
    }

    /// As one who was woken: wakes so many more.
    #[cold]
    #[inline(never)]
    pub(crate) fn pass_on(&self, count: u32) {
        self.door.word.wake(count);
    }

    /// Wakes everybody, and whoever is about to sleep: what they sleep on has changed.
    #[cold]
    pub(crate) fn call_all(&self) {
        let word = &self.door.word;
        let mut door = word.load(Ordering::SeqCst);
        loop {
            if is_owned(door) {
                self.bell.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if door == NOBODY {
                break;
            }
            match word.compare_exchange(door, ASLEEP, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(other) => door = other,
            }
        }
        word.wake_all();
    }

    /// Takes a place, if there is one, for as long as the [`Sleeper`] lives.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter(&self) -> Sleeper<'_> {
        let current = thread::current();
        let place = self.places.iter().position(|place| place.claim(current));
        if let Some(index) = place {
            let mut used = self.used.load(Ordering::Relaxed);
            while used <= index as u32 {
                // SeqCst: before the door, see `neighbours`.
                match self.used.compare_exchange(used, index as u32 + 1, Ordering::SeqCst, Ordering::Relaxed)
                {
                    Ok(_) => break,
                    Err(other) => used = other,
                }
            }
        }
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Place)
            && let Some(index) = place
        {
            // SAFETY: claimed just now.
            unsafe { self.places[index].give_back(current, false) };
        }
        Sleeper { room: self, place, current, known: Cell::new(false) }
    }

    /// The places of living others.
    fn neighbours<'a>(&'a self, own: usize, words: &mut Vec<Waiter<'a>>) {
        // SeqCst: after the door, see `lie_down`.
        let used = self.used.load(Ordering::SeqCst) as usize;
        words.clear();
        for (index, place) in self.places.iter().take(used).enumerate() {
            let word = place.word.load(Ordering::SeqCst);
            if index != own && word & OWNER != 0 {
                words.push((&place.word, word));
            }
        }
    }
}

/// Raised by a holder that is about to publish something, see [`Waitroom::raise`]. Dropped, it is lowered.
pub(crate) struct Herald<'a> {
    room: &'a Waitroom,
    current: Current,
    /// The door or another, and what it was. `None` if everybody was woken instead.
    raised: Option<(&'a Robust, u32)>,
    /// What was made of the door, if it is another that is raised.
    door: u32,
}

impl Herald<'_> {
    /// As the holder that has published: whoever has looked for news and is not asleep yet looks again.
    pub(crate) fn announce(&mut self) {
        let room = self.room;
        if self.raised.is_some_and(|(raised, _)| self.is_door(raised)) {
            return; // It was changed before.
        }
        // Those who rely on the door alone have seen what was published, or sleep on the lock.
        let ticket = TICKET | (room.bell.fetch_add(1, Ordering::SeqCst).wrapping_add(1) & (TICKET - 1));
        let mut door = room.door.word.load(Ordering::SeqCst);
        while door != NOBODY && !is_owned(door) {
            let next = ASLEEP | ticket;
            match room.door.word.compare_exchange(door, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    self.door = next;
                    return;
                }
                Err(other) => door = other,
            }
        }
        self.door = NOBODY;
    }

    /// As the one that has published, best when it has released the lock: wakes so many.
    #[cold]
    #[inline(never)]
    pub(crate) fn wake(self, count: u32) {
        // Who vanishes in a model drops nothing.
        let this = ManuallyDrop::new(self);
        let word = &this.room.door.word;
        match this.raised {
            Some((door, seen)) if this.is_door(door) && seen & ALONE != 0 => {
                // There is one, and whoever comes is seen. So the next holder finds nobody, and that one may
                // sleep again, while this is on its way.
                this.lower(door, nobody(), true);
            }
            Some((door, _)) if this.is_door(door) => {
                // If fewer are woken than might be, nobody is asleep any more.
                let rest = if word.wake(count) < count { NOBODY } else { ASLEEP };
                this.lower(door, rest, false);
            }
            other => {
                if word.wake(count) < count && this.door != NOBODY {
                    // Fails if anybody has come since. Not cleared before the wake: if this thread died
                    // there, those whom the wake did not reach would be forgotten.
                    let _ = word.compare_exchange(this.door, NOBODY, Ordering::SeqCst, Ordering::Relaxed);
                }
                if let Some((herald, _)) = other {
                    this.lower(herald, NUMBER, false);
                }
            }
        }
    }

    fn is_door(&self, raised: &Robust) -> bool {
        core::ptr::eq(raised, &self.room.door)
    }

    fn lower(&self, raised: &Robust, rest: u32, wake: bool) {
        // SAFETY: seized by `raise`, on this thread: a `Herald` is not `Send`.
        unsafe { raised.relinquish(self.current, rest, ASLEEP, wake) };
    }
}

impl Drop for Herald<'_> {
    fn drop(&mut self) {
        match self.raised {
            // By this one nothing has happened, but by others meanwhile: whoever came before it was raised
            // and does not sleep yet looks again.
            Some((door, _)) if self.is_door(door) => self.lower(door, ASLEEP, false),
            Some((herald, _)) => {
                self.room.bell.fetch_add(1, Ordering::SeqCst);
                self.lower(herald, NUMBER, false);
            }
            None => {}
        }
    }
}

/// Somebody who sleeps in a [`Waitroom`], or has done so and not done its work yet.
pub(crate) struct Sleeper<'a> {
    room: &'a Waitroom,
    place: Option<usize>,
    current: Current,
    /// It has come to the door, or rung the bell: whoever comes to sleep from then on finds its place.
    known: Cell<bool>,
}

impl<'r> Sleeper<'r> {
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
    ) -> Wait
    where
        'r: 'b,
    {
        let Some(place) = self.place else {
            if news() {
                return Wait::Changed;
            }
            std::thread::sleep(deadline.remaining().map_or(SLICE, |left| left.min(SLICE)));
            return Wait::TimedOut;
        };
        let room = self.room;
        let mut words: Vec<Waiter<'_>> = Vec::new();
        let (door, bell) = self.lie_down(place, &mut words);
        let is_alone = words.is_empty();
        // Before the look at the lock, see `is_occupied`.
        fence(Ordering::SeqCst);
        words.extend(others);
        let wait = if door & ALONE != 0 && words.is_empty() && lock.is_quiet() {
            // The usual case. Whoever comes next comes to the door first, and so it needs no timer: see the
            // page above.
            if has_news(news) { Wait::Changed } else { room.door.word.wait(door, deadline) }
        } else {
            let mut all: Vec<Waiter<'_>> = Vec::with_capacity(16 + words.len());
            all.extend([(&room.door.word, door), (&room.bell, bell)]);
            // Acquire: who sees that somebody has died sees what the dead one has published.
            all.extend(room.heralds.iter().map(|herald| (&herald.word, herald.word.load(Ordering::Acquire))));
            all.append(&mut words);
            // Two more are the lock's.
            all.truncate(WAIT_ANY_MAX - 2);
            #[cfg(any(polyproc_loom, polyproc_shuttle))]
            if crate::model::is_without(crate::model::Part::Mark) {
                return if news() { Wait::Changed } else { polyproc_sys::futex::wait_any(&all, deadline) };
            }
            lock.listen(&mut all, deadline, || has_news(news))
        };
        if is_alone {
            room.alone.store(0, Ordering::Relaxed);
        }
        wait
    }

    /// Says at the door that it sleeps. Returns what the door and the bell are then, and the places of the
    /// others to sleep on.
    fn lie_down<'b>(&self, place: usize, words: &mut Vec<Waiter<'b>>) -> (u32, u32)
    where
        'r: 'b,
    {
        let room = self.room;
        let word = &room.door.word;
        let own = ASLEEP | (place as u32 + 1);
        loop {
            // SeqCst: the door, then the places. Whoever takes a place comes to the door then, and either
            // this fails, or that one has changed something that is slept on.
            let door = word.load(Ordering::SeqCst);
            let mut bell = room.bell.load(Ordering::SeqCst);
            room.neighbours(place, words);
            let next = match (is_owned(door), words.is_empty()) {
                (false, true) => own | ALONE,
                (false, false) => own,
                (true, _) => door | came(),
            };
            // Relaxed: ordered by the door.
            let alone = room.alone.load(Ordering::Relaxed);
            let wakes = !words.is_empty() && alone != 0 && (door == NOBODY || overtakes());
            if words.is_empty() {
                room.alone.store(place as u32 + 1, Ordering::Relaxed);
            } else if wakes {
                // One sleeps that does not know of this one, and is to be woken before it is: by somebody who
                // may die on the way to that, or by those who would wake this one first.
                word.wake_all();
            }
            if next == door && is_owned(door) {
                if self.known.replace(true) {
                    return (door, bell);
                }
                bell = room.bell.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
                room.neighbours(place, words);
                return (door, bell);
            }
            // SeqCst: before the look at the lock, and for the news.
            if word.compare_exchange(door, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                self.known.set(true);
                if wakes {
                    // Once more: it may have fallen asleep since. From here on it does not.
                    word.wake_all();
                    room.alone.store(0, Ordering::Relaxed);
                }
                return (next, bell);
            }
        }
    }

    /// Whether it has to look by itself, because all places were taken.
    pub(crate) fn is_without_place(&self) -> bool {
        self.place.is_none()
    }
}

/// What the door is before the wake of one that sleeps alone.
fn nobody() -> u32 {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    if crate::model::is_without(crate::model::Part::Zero) {
        return ASLEEP;
    }
    NOBODY
}

/// What a raised door is marked with.
fn came() -> u32 {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    if crate::model::is_without(crate::model::Part::Came) {
        return 0;
    }
    CAME
}

/// Whether the calling thread is woken before others that came to sleep before it: the kernel goes by
/// real-time priorities.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
fn overtakes() -> bool {
    // SAFETY: takes a number only.
    let policy = unsafe { libc::sched_getscheduler(0) };
    !matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE)
}

#[cfg(any(polyproc_loom, polyproc_shuttle))]
fn overtakes() -> bool {
    polyproc_sys::model::wakes_the_last_first() && !crate::model::is_without(crate::model::Part::Overtaken)
}

fn has_news(news: impl FnOnce() -> bool) -> bool {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    if crate::model::is_without(crate::model::Part::LastLook) {
        return false;
    }
    news()
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        #[cfg(any(polyproc_loom, polyproc_shuttle))]
        if crate::model::is_without(crate::model::Part::Place) {
            return;
        }
        if let Some(place) = self.place {
            // SAFETY: claimed by `enter`, on this thread: a `Sleeper` is not `Send`.
            unsafe { self.room.places[place].give_back(self.current, false) };
        }
    }
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use crate::biased::{Biased, SLOTS, Slot};
    use polyproc_sys::futex::WAITERS;

    /// As somebody who has looked for news and does not sleep yet: all that tells it to look again.
    fn seen(room: &Waitroom) -> Vec<u32> {
        let heralds = room.heralds.iter().map(|herald| &herald.word);
        [&room.door.word, &room.bell]
            .into_iter()
            .chain(heralds)
            .map(|word| word.load(Ordering::SeqCst))
            .collect()
    }

    /// In particular what a dead one has published, though nobody says so who comes after it.
    #[test]
    fn whoever_does_not_sleep_yet_looks_again_after_a_death() {
        for is_alone in [false, true] {
            let room = Waitroom::new();
            let sleeper = room.enter();
            for round in 0..4 {
                if is_alone {
                    // It sleeps on the door, and so that is what is raised.
                    sleeper.lie_down(0, &mut Vec::new());
                }
                let before = seen(&room);
                std::thread::scope(|scope| {
                    let dies = scope.spawn(|| core::mem::forget(room.raise()));
                    dies.join().unwrap();
                });
                let dead = seen(&room);
                assert!(dead.contains(&(OWNER_DIED | WAITERS)), "round {round}: {dead:x?}");
                drop(room.raise());
                let after = seen(&room);
                assert!(!after.contains(&(OWNER_DIED | WAITERS)), "round {round}: {after:x?}");
                assert_ne!(after, before, "round {round}, alone: {is_alone}");
            }
        }
    }

    /// Or whoever publishes would look for sleepers for ever.
    #[test]
    fn several_that_have_gone_are_forgotten_with_the_first_wake_that_finds_nobody() {
        let (lock, slots) = (Biased::default(), core::array::from_fn::<_, SLOTS, _>(|_| Slot::default()));
        let side = Side { lock: &lock, slots: &slots };
        let room = Waitroom::new();
        for round in 0..3 {
            assert!(!room.is_occupied(), "round {round}");
            let (first, second) = (room.enter(), room.enter());
            for sleeper in [&first, &second] {
                assert_eq!(
                    sleeper.sleep(side, core::iter::empty(), Deadline::PAST, || false),
                    Wait::TimedOut
                );
                assert!(room.is_occupied());
            }
            if round == 1 {
                drop((first, second));
            }
            let mut herald = room.raise();
            herald.announce();
            herald.wake(1);
        }
        assert!(!room.is_occupied());
    }
}
