//! The counters, and what is known about the workers.

use polyproc_mutex::{LockTimeoutError, Mutex, RLock};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_value::Value;
use std::time::Duration;

/// How many workers there are at a time.
pub const PLACES: usize = 4;
/// How many counters.
pub const OBJECTS: usize = 3;
/// Beyond this, it is a hang.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const MUTEX: usize = 0;
pub(super) const RLOCK: usize = 1;
pub(super) const VALUE: usize = 2;

/// A part for each place, and the total.
pub(super) type Ledger = [u64; PLACES + 1];

/// The total is what the parts say. A death between the two changes of an addition leaves them apart.
pub(super) fn repaired(mut ledger: Ledger) -> Ledger {
    ledger[PLACES] = ledger[..PLACES].iter().sum();
    ledger
}

/// The counters that the workers add to, each with a lock of another kind.
#[derive(Debug)]
pub struct Books {
    pub(super) mutex: Mutex<Ledger>,
    pub(super) rlock: RLock<Ledger>,
    pub(super) value: Value<Ledger>,
}

impl Books {
    /// Empty ones.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    #[expect(clippy::new_without_default, reason = "allocating shared memory is nobody's default")]
    pub fn new() -> Books {
        let empty = Ledger::default();
        Books {
            mutex: Mutex::new(empty).expect("memory for a mutex"),
            rlock: RLock::new(empty).expect("memory for an rlock"),
            value: Value::new(empty).expect("memory for a value"),
        }
    }

    /// A counter, and whether it had to be repaired. `None` if its lock cannot be had.
    pub(super) fn read(&self, object: usize) -> Option<(Ledger, bool)> {
        match object {
            MUTEX => match self.mutex.lock_timeout(TIMEOUT) {
                Ok(guard) => Some((*guard, false)),
                Err(LockTimeoutError::Poisoned(error)) => {
                    let mut guard = error.into_inner();
                    *guard = repaired(*guard);
                    self.mutex.clear_poison();
                    Some((*guard, true))
                }
                Err(_) => None,
            },
            RLOCK => match self.rlock.lock_timeout(TIMEOUT) {
                Ok(guard) => Some((*guard, false)),
                Err(LockTimeoutError::Poisoned(error)) => {
                    let mut guard = error.into_inner();
                    let ledger = repaired(*guard);
                    guard.set(ledger).expect("its only guard");
                    self.rlock.clear_poison();
                    Some((ledger, true))
                }
                Err(_) => None,
            },
            // An update is never half done: a death in it poisons nothing.
            _ => match self.value.lock_timeout(TIMEOUT) {
                Ok(guard) => Some((*guard, false)),
                Err(LockTimeoutError::Poisoned(error)) => panic!("an update poisoned its value: {error}"),
                Err(_) => None,
            },
        }
    }

    /// A counter as far as it can be seen from outside.
    pub(super) fn describe(&self, object: usize) -> String {
        match object {
            MUTEX => format!("{:?}", self.mutex),
            RLOCK => format!("{:?}", self.rlock),
            _ => format!("{:?}", self.value),
        }
    }
}

/// Where a worker is in an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Outside = 0,
    Entering = 1,
    Inside = 2,
    Leaving = 3,
}

/// What is known about the worker at a place. All of it is written by that worker, and by the parent after its death.
#[derive(Debug, Default)]
pub(super) struct Slot {
    acknowledged: [AtomicU64; OBJECTS],
    doing: AtomicU32,
    /// What it adds to, in which way.
    way: AtomicU32,
    progress: AtomicU64,
    rescues: AtomicU64,
    repairs: AtomicU64,
    longest_wait: AtomicU64,
}

// Relaxed throughout: each value stands for itself, and the parent reads what matters after the end of the process.
impl Slot {
    pub(super) fn acknowledged(&self, object: usize) -> u64 {
        self.acknowledged[object].load(Ordering::Relaxed)
    }

    pub(super) fn acknowledge(&self, object: usize) {
        self.acknowledged[object].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn settle(&self, object: usize, additions: u64) {
        self.acknowledged[object].store(additions, Ordering::Relaxed);
    }

    pub(super) fn begin(&self, way: u32) {
        self.way.store(way, Ordering::Relaxed);
        self.doing.store(Doing::Entering as u32, Ordering::Relaxed);
    }

    pub(super) fn set_doing(&self, doing: Doing) {
        self.doing.store(doing as u32, Ordering::Relaxed);
    }

    pub(super) fn doing(&self) -> u32 {
        self.doing.load(Ordering::Relaxed)
    }

    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// The end of an addition, or of an attempt at one.
    pub(super) fn advance(&self, rescues: u64) {
        self.set_doing(Doing::Outside);
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.rescues.store(rescues, Ordering::Relaxed);
    }

    pub(super) fn take_rescues(&self) -> u64 {
        self.rescues.swap(0, Ordering::Relaxed)
    }

    pub(super) fn count_repair(&self) {
        self.repairs.fetch_add(1, Ordering::Relaxed);
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
        let way = super::worker::WAYS[self.way.load(Ordering::Relaxed) as usize];
        let doing = ["outside", "entering", "inside", "leaving"][self.doing() as usize];
        format!("{doing} {way}, {} done", self.progress())
    }
}

/// What the parent and the workers share, beside the books.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) slots: [Slot; PLACES],
    pub(super) stop: AtomicU32,
}
