//! [`Waiting`]: first look, then sleep.

use crate::biased::Side;
use crate::layout::Look;
use crate::waitroom::{Sleeper, Waitroom};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Wait, Waiter};

/// The longest pause before a look.
const PAUSES: u32 = 256;

/// One who waits in a waitroom: looks for a while, then sleeps, again and again.
pub(crate) struct Waiting<'a> {
    room: &'a Waitroom,
    lock: Side<'a>,
    look: &'a Look,
    pub(crate) sleeper: Option<Sleeper<'a>>,
    deadline: Deadline,
    expired: bool,
    rescued: bool,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(room: &'a Waitroom, lock: Side<'a>, look: &'a Look, deadline: Deadline) -> Waiting<'a> {
        let expired = deadline.has_passed();
        Waiting { room, lock, look, sleeper: None, deadline, expired, rescued: false }
    }

    /// Waits until there is news, or something that looks like it. `false` if the deadline has passed.
    pub(crate) fn wait<'b, I: Iterator<Item = Waiter<'b>>>(
        &mut self,
        others: impl Fn() -> I,
        news: impl Fn() -> bool,
        longer: impl Fn(u32) -> bool,
    ) -> bool
    where
        'a: 'b,
    {
        if self.expired {
            return false;
        }
        self.rescued = false;
        if self.sleeper.is_none() && self.looks(&news, longer) {
            return true;
        }
        let sleeper = self.sleeper.get_or_insert_with(|| self.room.enter());
        if sleeper.sleep(self.lock, others(), self.deadline, &news) == Wait::TimedOut {
            self.expired = self.deadline.has_passed();
            self.rescued = !self.expired && !sleeper.is_without_place();
        }
        true
    }

    /// Looks for news before it sleeps.
    ///
    /// Whoever looks all the time finds one message at a time, and each look holds up the one that makes the
    /// next. So `longer` says, of the number of looks that it took, whether the next wait is to leave the
    /// other side alone for longer, or for less.
    fn looks(&self, news: impl Fn() -> bool, longer: impl Fn(u32) -> bool) -> bool {
        let first = self.look.first.load(Ordering::Relaxed).clamp(1, PAUSES);
        let found = self.look.patience.look_sparsely(first, PAUSES, || news().then_some(()));
        let next = if found.is_some_and(|((), looks)| longer(looks)) { first * 2 } else { first / 2 };
        if next.clamp(1, PAUSES) != first {
            self.look.first.store(next, Ordering::Relaxed);
        }
        found.is_some()
    }

    /// It will not do what it may have been woken for. Wakes another for it.
    pub(crate) fn gives_up(&self) {
        if self.sleeper.is_some() {
            self.room.pass_on(1);
        }
    }

    /// It found what it waited for. Wakes so many others, that may find it too: who should have woken them
    /// may have died after waking one.
    pub(crate) fn succeeded(&self, others: u32) {
        if self.rescued {
            futex::count_backstop_rescue();
        }
        if self.sleeper.is_some() && others != 0 {
            self.room.pass_on(others);
        }
    }
}
