//! What a worker does until it is killed.

use super::books::{Board, Books, Doing, Ledger, MUTEX, PLACES, RLOCK, Slot, VALUE, repaired};
use crate::random::Random;
use polyproc_mutex::{LockTimeoutError, MutexGuard, PoisonError, TryLockError};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::futex;
use std::time::{Duration, Instant};

/// The ways to make an addition.
pub(super) const WAYS: [&str; 5] =
    ["Mutex::lock", "Mutex::lock_timeout", "Mutex::try_lock", "RLock::lock", "Value::update"];

/// Adds until it is told to stop.
pub(super) fn work(books: &Books, board: &Board, place: usize, mut random: Random) {
    let slot = &board.slots[place];
    let before = futex::backstop_rescues();
    while board.stop.load(Ordering::Relaxed) == 0 {
        let way = random.below(WAYS.len() as u64) as u32;
        slot.begin(way);
        let start = Instant::now();
        let object = match way {
            0 => {
                let guard = repair(books, slot, books.mutex.lock());
                inside(slot, start, guard, place, &mut random)
            }
            1 => match books.mutex.lock_timeout(Duration::from_micros(random.below(2_000))) {
                Ok(guard) => inside(slot, start, guard, place, &mut random),
                Err(LockTimeoutError::Poisoned(error)) => {
                    let guard = repair(books, slot, Err(error));
                    inside(slot, start, guard, place, &mut random)
                }
                Err(_) => None,
            },
            2 => match books.mutex.try_lock() {
                Ok(guard) => inside(slot, start, guard, place, &mut random),
                Err(TryLockError::Poisoned(error)) => {
                    let guard = repair(books, slot, Err(error));
                    inside(slot, start, guard, place, &mut random)
                }
                Err(_) => None,
            },
            3 => nest(books, slot, start, place, &mut random),
            _ => {
                let updated = books.value.update(|ledger| {
                    slot.waited(start.elapsed());
                    slot.set_doing(Doing::Inside);
                    add(ledger, place, &mut random);
                });
                updated.unwrap_or_else(|error| panic!("an update poisoned its value: {error}"));
                Some(VALUE)
            }
        };
        if let Some(object) = object {
            slot.acknowledge(object);
        }
        slot.advance(futex::backstop_rescues() - before);
    }
}

type Guard<'a> = MutexGuard<'a, Ledger>;

/// One addition; now and then a slow one, so that deaths in the middle are not too rare.
fn add(ledger: &mut Ledger, place: usize, random: &mut Random) {
    ledger[place] += 1;
    // So that the two changes are not made one.
    std::hint::black_box(&mut *ledger);
    if random.below(64) == 0 {
        for _ in 0..random.below(1_000) {
            std::hint::spin_loop();
        }
    }
    ledger[PLACES] += 1;
}

/// The guard, and the data as it should be.
fn repair<'a>(books: &Books, slot: &Slot, result: Result<Guard<'a>, PoisonError<Guard<'a>>>) -> Guard<'a> {
    result.unwrap_or_else(|error| {
        let mut guard = error.into_inner();
        *guard = repaired(*guard);
        books.mutex.clear_poison();
        slot.count_repair();
        guard
    })
}

/// One addition under the mutex.
fn inside(
    slot: &Slot,
    start: Instant,
    mut guard: Guard<'_>,
    place: usize,
    random: &mut Random,
) -> Option<usize> {
    slot.waited(start.elapsed());
    slot.set_doing(Doing::Inside);
    add(&mut guard, place, random);
    slot.set_doing(Doing::Leaving);
    drop(guard);
    Some(MUTEX)
}

/// One addition under the re-entrant lock, taken twice.
fn nest(books: &Books, slot: &Slot, start: Instant, place: usize, random: &mut Random) -> Option<usize> {
    let mut outer = books.rlock.lock().unwrap_or_else(|error| {
        let mut guard = error.into_inner();
        let ledger = repaired(*guard);
        guard.set(ledger).expect("its only guard");
        books.rlock.clear_poison();
        slot.count_repair();
        guard
    });
    slot.waited(start.elapsed());
    slot.set_doing(Doing::Inside);
    let mut ledger = {
        let inner = books.rlock.lock().expect("repaired above");
        *inner
    };
    add(&mut ledger, place, random);
    outer.set(ledger).expect("its only guard");
    slot.set_doing(Doing::Leaving);
    drop(outer);
    Some(RLOCK)
}
