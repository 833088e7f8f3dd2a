//! A lock among the living: who excludes whom, timeouts, what is shown of it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_rwlock::{Arena, LockTimeoutError, PoisonCause, RwLock, TryLockError};
use polyproc_sys::futex::backstop_rescues;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::{Child, Slot, wait_asleep, watchdog, woken_in_time};

const ROUNDS: u64 = 10_000;
const TICK: Duration = Duration::from_millis(30);

#[test]
fn smoke() {
    let lock = RwLock::new(1u64).unwrap();
    assert_eq!(*lock.read().unwrap(), 1);
    *lock.write().unwrap() += 1;
    assert_eq!(*lock.try_read().unwrap(), 2);
    *lock.try_write().unwrap() += 1;
    assert_eq!(*lock.read_timeout(TICK).unwrap(), 3);
    *lock.write_timeout(TICK).unwrap() += 1;
    assert_eq!(*lock.read_until(Instant::now()).unwrap(), 4);
    *lock.write_until(Instant::now()).unwrap() += 1;
    assert_eq!(*lock.read().unwrap(), 5);
    assert_eq!((lock.readers(), lock.writer(), lock.poison_cause()), (0, None, None));
    assert!(!lock.is_poisoned());
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let _watchdog = watchdog();
    let lock = RwLock::new([1u8, 2, 3]).unwrap();
    let clone = lock.clone();
    let one = lock.read().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = clone.read().unwrap();
            assert_eq!((*one, lock.readers()), (*other, 2));
            drop(other);
            assert!(matches!(clone.try_write(), Err(TryLockError::WouldBlock)));
        });
    });
    drop(one);
    let mut guard = lock.write().unwrap();
    guard.reverse();
    assert_eq!(lock.writer(), Some(std::process::id()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(clone.try_read(), Err(TryLockError::WouldBlock)));
            assert!(matches!(clone.try_write(), Err(TryLockError::WouldBlock)));
        });
    });
    drop(guard);
    assert_eq!(*clone.read().unwrap(), [3, 2, 1]);
}

#[test]
fn processes_read_and_write_exactly() {
    let _watchdog = watchdog();
    for readers in [1, 2, 60] {
        let lock = RwLock::with_readers([0u64; 2], readers).unwrap();
        let work = |index: u64| {
            for turn in 0..ROUNDS {
                if (turn + index).is_multiple_of(5) {
                    lock.write().unwrap().iter_mut().for_each(|number| *number += 1);
                } else {
                    let numbers = lock.read().unwrap();
                    assert_eq!(numbers[0], numbers[1], "a reader saw a writer at work");
                }
            }
        };
        let children: Vec<_> = (0..4).map(|index| Child::run(|| work(index))).collect();
        children.into_iter().for_each(Child::join);
        assert_eq!(*lock.read().unwrap(), [4 * ROUNDS / 5; 2]);
    }
}

#[test]
fn every_way_of_taking_it_excludes_the_others() {
    let _watchdog = watchdog();
    let lock = RwLock::new([0u64; 2]).unwrap();
    let long = Duration::from_secs(20);
    let check = |numbers: &[u64; 2]| assert_eq!(numbers[0], numbers[1], "a reader saw a writer at work");
    let add = |numbers: &mut [u64; 2]| numbers.iter_mut().for_each(|number| *number += 1);
    let by_timeout = || {
        for _ in 0..ROUNDS {
            check(&lock.read_timeout(long).unwrap());
            add(&mut lock.write_timeout(long).unwrap());
        }
    };
    let by_deadline = || {
        for _ in 0..ROUNDS {
            check(&lock.read_until(Instant::now() + long).unwrap());
            add(&mut lock.write_until(Instant::now() + long).unwrap());
        }
    };
    let by_trying = || {
        for _ in 0..ROUNDS {
            if let Ok(guard) = lock.try_read() {
                check(&guard);
            }
            loop {
                match lock.try_write() {
                    Ok(mut guard) => break add(&mut guard),
                    Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let children = [Child::run(by_timeout), Child::run(by_deadline), Child::run(by_trying)];
    children.into_iter().for_each(Child::join);
    assert_eq!(*lock.read().unwrap(), [3 * ROUNDS; 2]);
}

/// A child that waits in `f` for a lock that this process holds, and gets it when `release` is called.
fn waits(f: impl Fn(), release: impl FnOnce()) -> u64 {
    let (asking, done, rescues) = (Slot::new(), Slot::new(), Slot::new());
    let child = Child::run(|| {
        let before = backstop_rescues();
        asking.set(1);
        f();
        done.set(support::now());
        rescues.set(backstop_rescues() - before);
    });
    asking.wait();
    child.wait_asleep();
    assert_eq!(done.get(), 0, "the waiter got a lock that is held");
    let released = support::now();
    release();
    child.join();
    assert!(done.get() >= released);
    rescues.get()
}

#[test]
fn a_writer_waits_for_readers() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let lock = RwLock::new(0u32).unwrap();
        let guard = lock.read().unwrap();
        let rescues = waits(|| *lock.write().unwrap() = 7, || drop(guard));
        assert_eq!(*lock.read().unwrap(), 7);
        rescues
    });
}

#[test]
fn readers_wait_for_a_writer() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let lock = RwLock::new(0u32).unwrap();
        let mut guard = lock.write().unwrap();
        *guard = 7;
        waits(|| assert_eq!(*lock.read().unwrap(), 7), || drop(guard))
    });
}

#[test]
fn one_reader_too_many_waits_for_any_other() {
    let _watchdog = watchdog();
    for first in [true, false] {
        woken_in_time(|| {
            let lock = RwLock::with_readers(7u32, 2).unwrap();
            assert_eq!(lock.max_readers(), 2);
            let over = Slot::new();
            let ours = lock.read().unwrap();
            let reading = Slot::new();
            let other = Child::run(|| {
                let _guard = lock.read().unwrap();
                reading.set(1);
                over.wait();
            });
            reading.wait();
            // Reading again needs no place.
            assert_eq!((*lock.read().unwrap(), lock.readers()), (7, 3));
            Child::run(|| assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)))).join();
            let rescues = waits(
                || assert_eq!(*lock.read().unwrap(), 7),
                || if first { drop(ours) } else { over.set(1) },
            );
            over.set(1);
            other.join();
            rescues
        });
    }
}

#[test]
fn a_reader_comes_not_in_while_a_writer_waits_but_reads_again() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u32).unwrap();
    let guard = lock.read().unwrap();
    let asking = Slot::new();
    let writer = Child::run(|| {
        asking.set(1);
        *lock.write().unwrap() = 1;
    });
    asking.wait();
    writer.wait_asleep();
    assert_eq!(lock.writer(), None, "one that waits is not inside");
    Child::run(|| assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)))).join();
    // This thread is what the writer waits for.
    let (again, once_more) = (lock.read().unwrap(), lock.try_read().unwrap());
    assert_eq!((*guard, *again, *once_more, lock.readers()), (0, 0, 0, 3));
    drop(guard);
    drop(once_more);
    assert_eq!(lock.readers(), 1);
    drop(again);
    writer.join();
    assert_eq!(*lock.read().unwrap(), 1);
    assert_eq!(lock.readers(), 0);
}

#[test]
fn waiting_for_oneself_is_refused() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u32).unwrap();
    let panics = |f: &dyn Fn()| {
        let payload = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
        let message = payload.downcast_ref::<String>().cloned().unwrap_or_default();
        message + payload.downcast_ref::<&str>().unwrap_or(&"")
    };
    let reading = lock.read().unwrap();
    assert!(panics(&|| drop(lock.write())).contains("deadlock"));
    assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
    let start = Instant::now();
    assert!(matches!(lock.write_timeout(TICK), Err(LockTimeoutError::TimedOut)));
    assert!(start.elapsed() >= TICK);
    drop(reading);
    let writing = lock.write().unwrap();
    assert!(panics(&|| drop(lock.read())).contains("deadlock"));
    assert!(panics(&|| drop(lock.write())).contains("deadlock"));
    assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
    let start = Instant::now();
    assert!(matches!(lock.read_timeout(TICK), Err(LockTimeoutError::TimedOut)));
    assert!(start.elapsed() >= TICK);
    drop(writing);
    assert_eq!((lock.readers(), lock.is_poisoned()), (0, false));
}

#[test]
fn timeouts_end_and_not_sooner() {
    let _watchdog = watchdog();
    let lock = RwLock::with_readers(0u32, 1).unwrap();
    let timed_out = |take: &dyn Fn() -> bool| {
        let start = Instant::now();
        assert!(take());
        start.elapsed()
    };
    let read = |timeout| matches!(lock.read_timeout(timeout), Err(LockTimeoutError::TimedOut));
    let write = |timeout| matches!(lock.write_timeout(timeout), Err(LockTimeoutError::TimedOut));
    let read_past = || matches!(lock.read_until(Instant::now()), Err(LockTimeoutError::TimedOut));
    let write_past = || matches!(lock.write_until(Instant::now()), Err(LockTimeoutError::TimedOut));
    for writing in [true, false] {
        // With one place for readers, a reader keeps others out too.
        let (_reader, _writer) =
            if writing { (None, Some(lock.write().unwrap())) } else { (Some(lock.read().unwrap()), None) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(timed_out(&|| read(TICK)) >= TICK);
                assert!(timed_out(&|| write(TICK)) >= TICK);
                assert!(
                    timed_out(&|| read(Duration::ZERO) && write(Duration::ZERO)) < Duration::from_secs(5)
                );
                assert!(timed_out(&|| read_past() && write_past()) < Duration::from_secs(5));
            });
        });
    }
    assert_eq!(*lock.write().unwrap(), 0);
}

#[test]
fn a_writer_is_not_starved_by_readers() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let read = || while *lock.read().unwrap() < 200 {};
    let readers: Vec<_> = (0..4).map(|_| Child::run(read)).collect();
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let start = Instant::now();
        *lock.write().unwrap() += 1;
        longest = longest.max(start.elapsed());
    }
    readers.into_iter().for_each(Child::join);
    assert!(longest < Duration::from_secs(2), "a writer waited for {longest:?}");
}

#[test]
fn a_panicking_writer_poisons_and_a_reader_does_not() {
    let lock = RwLock::new(0u32).unwrap();
    let read = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.read().unwrap();
        panic!("while reading");
    }));
    assert!(read.is_err() && !lock.is_poisoned());
    let written = catch_unwind(AssertUnwindSafe(|| {
        *lock.write().unwrap() = 1;
        let _guard = lock.write().unwrap();
        panic!("while writing");
    }));
    assert!(written.is_err());
    let cause = PoisonCause::Panicked { pid: std::process::id() };
    let error = lock.read().unwrap_err();
    assert_eq!((error.cause(), **error.get_ref(), lock.poison_cause()), (cause, 1, Some(cause)));
    drop(error);
    assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(error)) if error.cause() == cause));
    assert!(
        matches!(lock.write_timeout(TICK), Err(LockTimeoutError::Poisoned(error)) if error.cause() == cause)
    );
    lock.clear_poison();
    assert!(lock.read().is_ok() && lock.write().is_ok());
}

#[test]
fn what_is_shown_of_it() {
    let lock = RwLock::new(7u32).unwrap();
    let pid = std::process::id();
    assert_eq!(format!("{lock:?}"), "RwLock { data: 7, readers: [], poison: None, .. }");
    let reading = lock.read().unwrap();
    assert_eq!(format!("{lock:?}"), format!("RwLock {{ data: 7, readers: [{pid}], poison: None, .. }}"));
    assert_eq!(format!("{reading:?} {reading}"), "7 7");
    drop(reading);
    let writing = lock.write().unwrap();
    assert_eq!(format!("{writing:?} {writing}"), "7 7");
    let text = format!("RwLock {{ data: <locked>, writer: Some({pid}), readers: [], poison: None, .. }}");
    assert_eq!(format!("{lock:?}"), text);
}

#[test]
fn locks_lie_in_arenas_and_need_a_place_for_readers() {
    assert_eq!(RwLock::with_readers(0u8, 0).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let arena = Arena::new(8192).unwrap();
    let few = RwLock::with_readers_in(&arena, [1u32; 3], 3).unwrap();
    let many = RwLock::new_in(&arena, 2u8).unwrap();
    assert!(RwLock::with_readers_in(&arena, 3u8, 100).unwrap_err().to_string().contains("arena"));
    drop(arena);
    let (one, other) = (few.read().unwrap(), many.write().unwrap());
    assert_eq!((one[2], *other, few.max_readers(), many.max_readers()), (1, 2, 3, 60));
}

#[test]
fn locks_held_together_end_in_any_order() {
    let locks: Vec<_> = (0..3u32).map(|number| RwLock::new(number).unwrap()).collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut guards: Vec<_> = locks.iter().map(|lock| Some(lock.read().unwrap())).collect();
        let writing = RwLock::new(9u8).unwrap();
        let writing = writing.write().unwrap();
        for index in order {
            assert_eq!(locks[index].readers(), 1);
            assert_eq!(guards[index].take().map(|guard| *guard), Some(index as u32));
            assert_eq!(locks[index].readers(), 0);
        }
        drop(writing);
    }
    locks.iter().for_each(|lock| drop(lock.try_write().unwrap()));
}

#[test]
fn threads_wait_for_each_other_too() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u32).unwrap();
    let asking = Slot::new();
    std::thread::scope(|scope| {
        let guard = lock.write().unwrap();
        let reader = scope.spawn(|| {
            asking.set(support::tid().into());
            *lock.read().unwrap()
        });
        wait_asleep(asking.wait() as u32);
        drop(guard);
        assert_eq!(reader.join().unwrap(), 0);
    });
}
