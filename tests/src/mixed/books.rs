//! What the workers share: one or two of each primitive, and the data that they guard.

use super::board::{Account, Board, PARENT, PLACES};
use polyproc_barrier::Barrier;
use polyproc_condition::Condition;
use polyproc_event::Event;
use polyproc_mutex::{LockTimeoutError, Mutex, RLock};
use polyproc_rwlock::RwLock;
use polyproc_semaphore::{AcquireTimeoutError, BoundedSemaphore, Permit, Semaphore, TryAcquireError};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_value::Value;
use std::sync::Arc;
use std::time::Duration;

use crate::shared::Shared;

/// Beyond this, it is a hang.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// So many permits each semaphore has.
pub(super) const PERMITS: u32 = 2;
/// So many parties each barrier has.
pub(super) const PARTIES: usize = 3;
/// So many barriers there are. A place comes always to the same, so that no round is complete without it.
pub(super) const GROUPS: usize = PLACES / PARTIES;

/// A part for each place, and the total.
pub(super) type Ledger = [u64; PLACES + 1];

/// The total is what the parts say. A death between the two changes of an addition leaves them apart.
pub(super) fn repaired(mut ledger: Ledger) -> Ledger {
    ledger[PLACES] = ledger[..PLACES].iter().sum();
    ledger
}

/// A buffer of items: how many were put and got in all, and by each; and the items. Each item is its own number.
pub(super) type Stock = [u64; ITEMS + ROOM];

const PUT: usize = 0;
const GOT: usize = 1;
/// What each has put, and the parent. Then, in the same order, what each has got.
const PARTS: usize = 2;
const ITEMS: usize = PARTS + 2 * (PLACES + 1);
/// So many items fit in.
const ROOM: usize = 4;

pub(super) fn items(stock: &Stock) -> u64 {
    stock[PUT] - stock[GOT]
}

pub(super) fn is_full(stock: &Stock) -> bool {
    items(stock) == ROOM as u64
}

pub(super) fn put_by(stock: &Stock, place: usize) -> u64 {
    stock[PARTS + place]
}

pub(super) fn got_by(stock: &Stock, place: usize) -> u64 {
    stock[PARTS + PLACES + 1 + place]
}

/// Puts an item into a buffer that is not full.
pub(super) fn put(stock: &mut Stock, place: usize, between: impl FnOnce()) {
    let item = stock[PUT];
    stock[PARTS + place] += 1;
    between();
    stock[ITEMS + item as usize % ROOM] = item;
    stock[PUT] += 1;
}

/// Gets an item from a buffer that is not empty.
pub(super) fn get(stock: &mut Stock, place: usize, between: impl FnOnce()) {
    let item = stock[GOT];
    assert_eq!(stock[ITEMS + item as usize % ROOM], item, "the items are mixed up: {stock:?}");
    stock[PARTS + PLACES + 1 + place] += 1;
    between();
    stock[GOT] += 1;
}

/// The totals and the items are what the parts say.
fn mend(stock: &mut Stock) {
    let (put, got) = sums(stock);
    (stock[PUT], stock[GOT]) = (put, got);
    for item in got..put {
        stock[ITEMS + item as usize % ROOM] = item;
    }
}

fn sums(stock: &Stock) -> (u64, u64) {
    let (puts, gots) = stock[PARTS..ITEMS].split_at(PLACES + 1);
    (puts.iter().sum(), gots.iter().sum())
}

/// Panics if the totals are not what the parts say.
pub(super) fn check_stock(stock: &Stock) {
    assert_eq!((stock[PUT], stock[GOT]), sums(stock), "a buffer that nobody died in: {stock:?}");
    assert!(stock[GOT] <= stock[PUT] && items(stock) <= ROOM as u64, "{stock:?}");
}

/// Panics if the total is not what the parts say.
pub(super) fn check_ledger(ledger: &Ledger) {
    assert_eq!(*ledger, repaired(*ledger), "a ledger that nobody died in");
}

/// Which of the two semaphores.
#[derive(Clone, Copy, Debug)]
pub(super) enum Store<'a> {
    Plain(&'a Semaphore),
    Bounded(&'a BoundedSemaphore),
}

pub(super) const PLAIN: usize = 0;
pub(super) const BOUNDED: usize = 1;
pub(super) const STORES: usize = 2;

impl<'a> Store<'a> {
    pub(super) fn acquire(self) -> Permit<'a> {
        match self {
            Store::Plain(semaphore) => semaphore.acquire(),
            Store::Bounded(semaphore) => semaphore.acquire(),
        }
    }

    pub(super) fn try_acquire(self) -> Option<Permit<'a>> {
        let permit = match self {
            Store::Plain(semaphore) => semaphore.try_acquire(),
            Store::Bounded(semaphore) => semaphore.try_acquire(),
        };
        assert!(!matches!(permit, Err(TryAcquireError::TooManyLocks)), "it holds no more than a few");
        permit.ok()
    }

    pub(super) fn acquire_timeout(self, timeout: Duration) -> Option<Permit<'a>> {
        let permit = match self {
            Store::Plain(semaphore) => semaphore.acquire_timeout(timeout),
            Store::Bounded(semaphore) => semaphore.acquire_timeout(timeout),
        };
        assert!(!matches!(permit, Err(AcquireTimeoutError::TooManyLocks)), "it holds no more than a few");
        permit.ok()
    }

    /// Whether there was room for so many.
    pub(super) fn release(self, count: u32) -> bool {
        match self {
            Store::Plain(semaphore) => semaphore.release(count).is_ok(),
            Store::Bounded(semaphore) => semaphore.release(count).is_ok(),
        }
    }

    pub(super) fn available(self) -> u32 {
        match self {
            Store::Plain(semaphore) => semaphore.available(),
            Store::Bounded(semaphore) => semaphore.available(),
        }
    }

    /// Releases one, which somebody has forgotten if the semaphore is bounded.
    pub(super) fn release_one(self, account: &Account) {
        account.releasing();
        assert!(self.release(1), "no room for a permit that was forgotten: {self:?}");
        account.released();
    }

    /// Does away with a permit.
    pub(super) fn forget(permit: Permit<'_>, account: &Account) {
        account.forgetting();
        permit.forget();
        account.forgotten();
    }
}

/// One or two of each primitive.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) stock: Mutex<Stock>,
    pub(super) not_empty: Condition,
    pub(super) not_full: Condition,
    pub(super) rlock: RLock<Ledger>,
    pub(super) value: Value<Ledger>,
    pub(super) rwlock: RwLock<Ledger>,
    plain: Semaphore,
    bounded: BoundedSemaphore,
    /// Set and cleared by the parent. Whoever sleeps hears of it.
    pub(super) pulse: Event,
    /// Set, cleared and waited for by anybody.
    pub(super) door: Event,
    pub(super) barriers: Vec<Barrier>,
}

/// The place that this process works at.
static HERE: AtomicU32 = AtomicU32::new(PARENT as u32);

/// Says which place this process works at.
pub(super) fn settle_at(place: usize) {
    HERE.store(place as u32, Ordering::Relaxed);
}

impl Books {
    /// Empty ones. The barriers' action counts on the board.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    pub(super) fn new(board: &Arc<Shared<Board>>) -> Books {
        let barrier = |group: usize| {
            let board = Arc::clone(board);
            let action = move || {
                board.rounds[group].fetch_add(1, Ordering::SeqCst);
                board.slots[HERE.load(Ordering::Relaxed) as usize].acted();
            };
            Barrier::with_action(PARTIES, action).expect("memory for a barrier")
        };
        let event = || Event::new().expect("memory for an event");
        let condition = || Condition::new().expect("memory for a condition");
        Books {
            stock: Mutex::new([0; ITEMS + ROOM]).expect("memory for a mutex"),
            not_empty: condition(),
            not_full: condition(),
            rlock: RLock::new(Ledger::default()).expect("memory for an rlock"),
            value: Value::new(Ledger::default()).expect("memory for a value"),
            rwlock: RwLock::new(Ledger::default()).expect("memory for an rwlock"),
            plain: Semaphore::new(PERMITS).expect("memory for a semaphore"),
            bounded: BoundedSemaphore::new(PERMITS).expect("memory for a semaphore"),
            pulse: event(),
            door: event(),
            barriers: (0..GROUPS).map(barrier).collect(),
        }
    }

    pub(super) fn store(&self, which: usize) -> Store<'_> {
        if which == PLAIN { Store::Plain(&self.plain) } else { Store::Bounded(&self.bounded) }
    }

    /// Repairs the buffer, whose lock is held, after a death in it.
    pub(super) fn mend_stock(&self, stock: &mut Stock) {
        mend(stock);
        self.stock.clear_poison();
        // The dead may have had news for them.
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }

    /// Does something with the buffer. `None` if its lock cannot be had. And whether it had to be repaired.
    pub(super) fn with_stock<R>(&self, work: impl FnOnce(&mut Stock) -> R) -> Option<(R, bool)> {
        let (mut guard, repaired) = match self.stock.lock_timeout(TIMEOUT) {
            Ok(guard) => (guard, false),
            Err(LockTimeoutError::Poisoned(error)) => {
                let mut guard = error.into_inner();
                self.mend_stock(&mut guard);
                (guard, true)
            }
            Err(_) => return None,
        };
        check_stock(&guard);
        Some((work(&mut guard), repaired))
    }

    /// What is in the ledger of the `RLock`, and whether it had to be repaired. `None` if its lock cannot be had.
    pub(super) fn read_rlock(&self) -> Option<(Ledger, bool)> {
        match self.rlock.lock_timeout(TIMEOUT) {
            Ok(guard) => Some((*guard, false)),
            Err(LockTimeoutError::Poisoned(error)) => {
                let mut guard = error.into_inner();
                let ledger = repaired(*guard);
                guard.set(ledger).expect("its only guard");
                self.rlock.clear_poison();
                Some((ledger, true))
            }
            Err(_) => None,
        }
    }

    /// The same of the `Value`, which is never to be repaired.
    pub(super) fn read_value(&self) -> Option<(Ledger, bool)> {
        match self.value.lock_timeout(TIMEOUT) {
            Ok(guard) => Some((*guard, false)),
            Err(LockTimeoutError::Poisoned(error)) => panic!("an update poisoned its value: {error}"),
            Err(_) => None,
        }
    }

    /// The same of the `RwLock`.
    pub(super) fn read_rwlock(&self) -> Option<(Ledger, bool)> {
        match self.rwlock.read_timeout(TIMEOUT) {
            Ok(guard) => return Some((*guard, false)),
            Err(LockTimeoutError::Poisoned(_)) => {}
            Err(_) => return None,
        }
        match self.rwlock.write_timeout(TIMEOUT) {
            Ok(guard) => Some((*guard, false)),
            Err(LockTimeoutError::Poisoned(error)) => {
                let mut guard = error.into_inner();
                *guard = repaired(*guard);
                self.rwlock.clear_poison();
                Some((*guard, true))
            }
            Err(_) => None,
        }
    }
}
