//! What a sleeper does: it takes a place, comes to the door, looks for news a last time, and sleeps. See the
//! page of [`waitroom`](super).

use super::{ALONE, ASLEEP, CAME, NOBODY, Waitroom};
use crate::biased::Side;
use crate::robust::is_owned;
use core::cell::Cell;
use polyproc_sys::atomic::{Ordering, fence};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{OWNER, WAIT_ANY_MAX, Wait, Waiter};
use polyproc_sys::thread::{self, Current};
use std::time::Duration;

/// How long one without a place sleeps.
const SLICE: Duration = Duration::from_millis(1);

impl Waitroom {
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
    pub(super) fn lie_down<'b>(&self, place: usize, words: &mut Vec<Waiter<'b>>) -> (u32, u32)
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
