//! What is known about the workers: in memory of its own, and without locks.

use super::books::{GROUPS, STORES};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How many workers there are at a time.
pub const PLACES: usize = 6;
/// The place of the parent, which works too, and is not killed.
pub(super) const PARENT: usize = PLACES;

/// What a worker does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// `Semaphore`: acquires, and gives back, or forgets; releases.
    Semaphore,
    /// `BoundedSemaphore`: the same, but it releases only what it has forgotten.
    Bounded,
    /// `Event`: hears of the parent's pulses.
    Listen,
    /// `Event`: sets, clears, or waits a little.
    Door,
    /// `Condition`: puts an item.
    Put,
    /// `Condition`: gets an item.
    Get,
    /// `Barrier`: meets the others of its group.
    Meet,
    /// `RwLock`: compares the parts with the total.
    Read,
    /// `RwLock`: adds.
    Write,
    /// `RLock`: adds, with the lock taken twice.
    Nest,
    /// `Value`: adds.
    Update,
}

/// As many as there are.
pub const CHORES: usize = 11;

impl Chore {
    /// All of them.
    pub const ALL: [Chore; CHORES] = [
        Chore::Semaphore,
        Chore::Bounded,
        Chore::Listen,
        Chore::Door,
        Chore::Put,
        Chore::Get,
        Chore::Meet,
        Chore::Read,
        Chore::Write,
        Chore::Nest,
        Chore::Update,
    ];
}

/// Where it is in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Outside = 0,
    Entering = 1,
    Inside = 2,
    Leaving = 3,
}

/// What is counted for each place and acknowledged.
pub(super) const PUTS: usize = 0;
pub(super) const GETS: usize = 1;
pub(super) const WRITES: usize = 2;
pub(super) const NESTS: usize = 3;
pub(super) const UPDATES: usize = 4;
pub(super) const LEDGERS: usize = 5;

/// What a place did to the number of permits of a semaphore. Odd while one more is under way, so that one store ends it.
#[derive(Debug, Default)]
pub(super) struct Account {
    released: AtomicU64,
    forgotten: AtomicU64,
    /// Whether it may hold a permit, or wait for one.
    inside: AtomicU32,
}

// Relaxed, where nothing else is said: the parent reads it after the end of the process, or when nobody is inside.
impl Account {
    pub(super) fn releasing(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn released(&self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn forgetting(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn forgotten(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    /// How many more it has released than forgotten, for certain.
    pub(super) fn surplus(&self) -> i64 {
        let (released, forgotten) = self.both();
        (released / 2) as i64 - (forgotten / 2) as i64
    }

    /// By how much the surplus may be another: one that it was killed at.
    pub(super) fn doubt(&self) -> i64 {
        let (released, forgotten) = self.both();
        (released % 2) as i64 - (forgotten % 2) as i64
    }

    fn both(&self) -> (u64, u64) {
        (self.released.load(Ordering::Relaxed), self.forgotten.load(Ordering::Relaxed))
    }

    /// The one that it was killed at was done, or not.
    pub(super) fn settle(&self, done: bool) {
        for count in [&self.released, &self.forgotten] {
            let pairs = count.load(Ordering::Relaxed);
            if pairs % 2 == 1 {
                count.store(if done { pairs + 1 } else { pairs - 1 }, Ordering::Relaxed);
            }
        }
    }

    /// Another answers for what it has released and forgotten, all of it settled.
    pub(super) fn transfer_to(&self, other: &Account) {
        other.released.fetch_add(self.released.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        other.forgotten.fetch_add(self.forgotten.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::SeqCst) != 0
    }

    pub(super) fn leave(&self) {
        self.inside.store(0, Ordering::SeqCst);
    }
}

/// What is known about the worker at a place. All of it is written by that worker, and by the parent after its death.
#[derive(Debug, Default)]
pub(super) struct Slot {
    doing: AtomicU32,
    progress: AtomicU64,
    done: [AtomicU64; CHORES],
    acknowledged: [AtomicU64; LEDGERS],
    pub(super) accounts: [Account; STORES],
    /// Counts its waits for a pulse, twice. Odd while it waits.
    listening: AtomicU64,
    /// Whether it has run the action of the round that it is in.
    acted: AtomicU32,
    /// Rounds that it passed, that it led, and that were broken after it had run the action.
    pub(super) passed: AtomicU64,
    pub(super) led: AtomicU64,
    pub(super) spoilt: AtomicU64,
    /// Rounds that were broken, and of those, how often somebody had died.
    pub(super) broken: AtomicU64,
    pub(super) bereft: AtomicU64,
    rescues: AtomicU64,
    repairs: AtomicU64,
    longest_wait: AtomicU64,
}

pub(super) fn add_one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

// Relaxed throughout: each value stands for itself, and the parent reads what matters after the end of the process.
impl Slot {
    pub(super) fn acknowledged(&self, ledger: usize) -> u64 {
        self.acknowledged[ledger].load(Ordering::Relaxed)
    }

    pub(super) fn acknowledge(&self, ledger: usize) {
        add_one(&self.acknowledged[ledger]);
    }

    pub(super) fn settle(&self, ledger: usize, additions: u64) {
        self.acknowledged[ledger].store(additions, Ordering::Relaxed);
    }

    pub(super) fn set_doing(&self, chore: Chore, phase: Phase) {
        self.doing.store(chore as u32 * 4 + phase as u32, Ordering::Relaxed);
    }

    pub(super) fn doing(&self) -> (Chore, u32) {
        let doing = self.doing.load(Ordering::Relaxed);
        (Chore::ALL[doing as usize / 4], doing % 4)
    }

    pub(super) fn begin_to_listen(&self) {
        self.listening.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn has_heard(&self) {
        self.listening.fetch_add(1, Ordering::SeqCst);
    }

    /// Which wait for a pulse this is, if it waits.
    pub(super) fn listening(&self) -> Option<u64> {
        let count = self.listening.load(Ordering::SeqCst);
        (count % 2 == 1).then_some(count)
    }

    pub(super) fn acted(&self) {
        self.acted.store(1, Ordering::Relaxed);
    }

    pub(super) fn take_acted(&self) -> bool {
        self.acted.swap(0, Ordering::Relaxed) != 0
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The end of a chore, within another or not.
    pub(super) fn finish(&self, chore: Chore) {
        self.set_doing(chore, Phase::Outside);
        add_one(&self.done[chore as usize]);
    }

    /// The end of a chore, and of all that was done within it.
    pub(super) fn advance(&self, chore: Chore, rescues: u64) {
        self.finish(chore);
        add_one(&self.progress);
        self.rescues.store(rescues, Ordering::Relaxed);
    }

    pub(super) fn done(&self, chore: Chore) -> u64 {
        self.done[chore as usize].load(Ordering::Relaxed)
    }

    /// After the death of a worker: the next one begins outside of everything.
    pub(super) fn clear(&self) {
        for account in &self.accounts {
            account.leave();
        }
        if self.listening().is_some() {
            self.has_heard();
        }
        self.take_acted();
        let (chore, _) = self.doing();
        self.set_doing(chore, Phase::Outside);
    }

    pub(super) fn take_rescues(&self) -> u64 {
        self.rescues.swap(0, Ordering::Relaxed)
    }

    pub(super) fn count_repair(&self) {
        add_one(&self.repairs);
    }

    pub(super) fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    pub(super) fn waited(&self, time: Duration) {
        self.longest_wait.fetch_max(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn longest_wait(&self) -> Duration {
        Duration::from_nanos(self.longest_wait.load(Ordering::Relaxed))
    }

    pub(super) fn describe(&self) -> String {
        let (chore, phase) = self.doing();
        let phase = ["outside", "entering", "inside", "leaving"][phase as usize];
        format!("{phase} {chore:?}, {} done", self.progress())
    }
}

/// What the parent and the workers share, beside the books.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// One for each place, and the parent's.
    pub(super) slots: [Slot; PLACES + 1],
    pub(super) stop: AtomicU32,
    /// Whether the permits are being counted: nobody goes in.
    pub(super) audit: AtomicU32,
    /// How often the action of each barrier has run.
    pub(super) rounds: [AtomicU64; GROUPS],
}

impl Board {
    /// Goes in to acquire a permit, unless they are being counted.
    pub(super) fn enter(&self, account: &Account) -> bool {
        // SeqCst, both, and the same in an audit: either it sees the audit, or the audit sees it.
        account.inside.store(1, Ordering::SeqCst);
        if self.audit.load(Ordering::SeqCst) != 0 {
            account.leave();
            return false;
        }
        true
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }
}
