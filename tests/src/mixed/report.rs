//! What came of a soak.

use super::board::{CHORES, Chore, Slot};
use core::fmt;
use polyproc_sys::atomic::Ordering;
use std::time::Duration;

/// What came of a soak.
#[derive(Debug, Default)]
pub struct Report {
    /// How many workers were killed.
    pub kills: u32,
    /// How many of them stood still at the time.
    pub stopped: u32,
    /// How many of them were in the middle of each chore, in the order of [`Chore::ALL`].
    pub died: [u32; CHORES],
    /// How often each chore was done.
    pub done: [u64; CHORES],
    /// How many had made an addition that they had not acknowledged.
    pub unacknowledged: u32,
    /// How often somebody found the data of a dead one and repaired it.
    pub repairs: u64,
    /// How many additions there were in all ledgers.
    pub additions: u64,
    /// How often all permits were counted.
    pub audits: u64,
    /// How often that had to tell whether the dead had forgotten or released one.
    pub in_doubt: u64,
    /// How many permits the dead had forgotten and not replaced.
    pub made_up: u64,
    /// How often somebody that slept heard of a pulse.
    pub pulses_heard: u64,
    /// How many rounds of a barrier were completed.
    pub rounds: u64,
    /// How often somebody learnt that a round was broken, and of those, by a death.
    pub broken: [u64; 2],
    /// The longest that anybody waited for a lock, a permit, or the parent's question to be answered.
    pub longest_wait: Duration,
    /// The longest that a worker was made to stand still.
    pub longest_stop: Duration,
    /// Waits that only their backstop ended.
    pub rescues: u64,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Adds what a place has counted.
    pub(super) fn add(&mut self, slot: &Slot) {
        for chore in Chore::ALL {
            self.done[chore as usize] += slot.done(chore);
        }
        self.repairs += slot.repairs();
        self.rescues += slot.take_rescues();
        self.longest_wait = self.longest_wait.max(slot.longest_wait());
        self.broken[0] += slot.broken.load(Ordering::Relaxed);
        self.broken[1] += slot.bereft.load(Ordering::Relaxed);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = f64::from(self.kills) / self.took.as_secs_f64().max(f64::EPSILON);
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{} kills in {seconds:.1} s, {rate:.0} a second, {} while stopped; ",
            self.kills, self.stopped
        )?;
        for (chore, (done, died)) in Chore::ALL.iter().zip(self.done.iter().zip(&self.died)) {
            write!(f, "{chore:?} {done} and {died} deaths, ")?;
        }
        let [broken, bereft] = self.broken;
        write!(
            f,
            "{} rounds, {broken} told of a broken one, {bereft} of them of a death, {} pulses heard; {} unacknowledged; \
             {} repairs; {} additions; permits counted {} times, {} in doubt, {} made up for; longest wait {:?}, longest \
             stop {:?}; {} ended by a backstop",
            self.rounds,
            self.pulses_heard,
            self.unacknowledged,
            self.repairs,
            self.additions,
            self.audits,
            self.in_doubt,
            self.made_up,
            self.longest_wait,
            self.longest_stop,
            self.rescues
        )
    }
}
