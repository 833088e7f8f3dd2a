//! What a holder does for those who sleep: it raises a herald before it publishes, and wakes when it has
//! released the lock. See the page of [`waitroom`](super).

use super::{ALONE, ASLEEP, NOBODY, TICKET, Waitroom};
use crate::robust::{NUMBER, Robust, is_owned};
use core::mem::ManuallyDrop;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::thread::{self, Current};

impl Waitroom {
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

/// What the door is before the wake of one that sleeps alone.
fn nobody() -> u32 {
    #[cfg(any(polyproc_loom, polyproc_shuttle))]
    if crate::model::is_without(crate::model::Part::Zero) {
        return ASLEEP;
    }
    NOBODY
}
