//! Somebody dies, and the others go on.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_rwlock::{Arena, LockTimeoutError, PoisonCause, RwLock, TryLockError};
use polyproc_sys::futex::backstop_rescues;
use std::time::Duration;
use support::{Child, Slot, median, now, wait_for_the_end, watchdog, woken_in_time};

/// A child that reads until it is killed.
fn reader(lock: &RwLock<u64>) -> Child {
    let reading = Slot::new();
    let child = Child::run(|| {
        let _guard = lock.read().unwrap();
        reading.set(1);
        wait_for_the_end();
    });
    reading.wait();
    child
}

/// A child that has written this, and holds the lock until it is killed.
fn writer(lock: &RwLock<u64>, data: u64) -> Child {
    let writing = Slot::new();
    let child = Child::run(|| {
        let mut guard = lock.write().unwrap();
        *guard = data;
        writing.set(1);
        wait_for_the_end();
    });
    writing.wait();
    child
}

#[test]
fn a_dead_reader_is_skipped() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let mut latencies = Vec::new();
    for round in 0..10 {
        let readers: Vec<_> = (0..=round % 3).map(|_| reader(&lock)).collect();
        assert_eq!(lock.readers(), readers.len());
        woken_in_time(|| {
            let (asking, got, rescues) = (Slot::new(), Slot::new(), Slot::new());
            let waiter = Child::run(|| {
                let before = backstop_rescues();
                asking.set(1);
                *lock.write().unwrap() += 1;
                got.set(now());
                rescues.set(backstop_rescues() - before);
            });
            asking.wait();
            if lock.readers() != 0 {
                waiter.wait_asleep();
                assert_eq!(got.get(), 0, "the writer did not wait");
            }
            let killed = now();
            readers.iter().for_each(|reader| support::kill(reader.pid()));
            waiter.join();
            latencies.push(got.get() - killed);
            rescues.get()
        });
        drop(readers);
        assert!(!lock.is_poisoned());
    }
    let latency = median(latencies);
    assert!(latency < Duration::from_millis(50), "{latency:?}");
    assert!(*lock.read().unwrap() >= 10);
    assert_eq!(lock.readers(), 0);
}

#[test]
fn a_dead_reader_leaves_its_place() {
    let _watchdog = watchdog();
    let lock = RwLock::with_readers(0u64, 1).unwrap();
    for _ in 0..10 {
        let dead = reader(&lock);
        assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
        dead.kill();
        // Read again by what the dead had, which may have read more than once.
        let (one, two) = (lock.try_read().unwrap(), lock.try_read().unwrap());
        assert_eq!((*one, *two, lock.readers()), (0, 0, 2));
        drop((one, two));
        assert_eq!(lock.readers(), 0);
        let nested = {
            let reading = Slot::new();
            let child = Child::run(|| {
                let _guards = (lock.read().unwrap(), lock.read().unwrap(), lock.read().unwrap());
                reading.set(1);
                wait_for_the_end();
            });
            reading.wait();
            child
        };
        assert_eq!(lock.readers(), 3);
        nested.kill();
        assert_eq!((lock.readers(), *lock.try_write().unwrap()), (0, 0));
        drop(lock.read().unwrap());
        assert_eq!(lock.readers(), 0);
    }
}

#[test]
fn a_reader_that_waits_for_a_place_gets_that_of_the_dead() {
    let _watchdog = watchdog();
    let lock = RwLock::with_readers(0u64, 2).unwrap();
    for victim in [0, 1] {
        woken_in_time(|| {
            let mut readers = [Some(reader(&lock)), Some(reader(&lock))];
            let (asking, rescues) = (Slot::new(), Slot::new());
            let waiter = Child::run(|| {
                let before = backstop_rescues();
                asking.set(1);
                drop(lock.read().unwrap());
                rescues.set(backstop_rescues() - before);
            });
            asking.wait();
            waiter.wait_asleep();
            readers[victim].take().unwrap().kill();
            waiter.join();
            rescues.get()
        });
    }
}

#[test]
fn a_dead_writer_poisons() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let died = |pid| PoisonCause::OwnerDied { pid };

    let pid = writer(&lock, 1).kill();
    let error = lock.read().unwrap_err();
    assert_eq!((error.cause(), **error.get_ref()), (died(pid), 1));
    assert_eq!(error.to_string(), format!("poisoned lock: process {pid} died while it held the lock"));
    drop(error);
    // Each is told, until the data is repaired.
    assert_eq!(lock.read().unwrap_err().cause(), died(pid));
    *lock.write().unwrap_err().into_inner() = 5;
    lock.clear_poison();
    assert_eq!(*lock.read().unwrap(), 5);

    let pid = writer(&lock, 2).kill();
    assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(error)) if error.cause() == died(pid)));
    lock.clear_poison();
    let pid = writer(&lock, 3).kill();
    assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(error)) if error.cause() == died(pid)));
    lock.clear_poison();
    let pid = writer(&lock, 4).kill();
    let read = lock.read_timeout(Duration::ZERO);
    assert!(matches!(read, Err(LockTimeoutError::Poisoned(error)) if error.cause() == died(pid)));
    lock.clear_poison();
    let pid = writer(&lock, 5).kill();
    assert_eq!(lock.write().unwrap_err().cause(), died(pid));
    assert_eq!((lock.readers(), lock.writer()), (0, None));
}

#[test]
fn everybody_who_waits_for_a_killed_writer_goes_on() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let round = || {
        let holder = writer(&lock, 0);
        let rescues = Slot::new();
        let waiters: Vec<_> = (0..6)
            .map(|index| {
                let asking = Slot::new();
                let waiter = Child::run(|| {
                    let before = backstop_rescues();
                    asking.set(1);
                    if index % 2 == 0 {
                        drop(lock.read().unwrap_or_else(|error| error.into_inner()));
                    } else {
                        *lock.write().unwrap_or_else(|error| error.into_inner()) += 1;
                    }
                    rescues.add(backstop_rescues() - before);
                });
                asking.wait();
                waiter.wait_asleep();
                waiter
            })
            .collect();
        holder.kill();
        waiters.into_iter().for_each(Child::join);
        assert_eq!(*lock.write().unwrap_err().into_inner(), 3);
        lock.clear_poison();
        rescues.get()
    };
    (0..10).for_each(|_| woken_in_time(round));
}

#[test]
fn a_writer_that_dies_while_it_waits_poisons_nothing() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let guard = lock.read().unwrap();
    let wait = |write: bool| {
        let asking = Slot::new();
        let child = Child::run(|| {
            asking.set(1);
            if write {
                *lock.write().unwrap() += 1;
            } else {
                drop(lock.read().unwrap());
            }
        });
        asking.wait();
        child.wait_asleep();
        child
    };
    let (first, second, third) = (wait(true), wait(true), wait(false));
    first.kill();
    assert_eq!((*guard, lock.readers()), (0, 1));
    drop(guard);
    second.join();
    third.join();
    assert_eq!(*lock.read().unwrap(), 1);
}

#[test]
fn a_thread_that_ends_with_the_lock_loses_it() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let read = std::thread::spawn({
        let lock = lock.clone();
        move || core::mem::forget(lock.read().unwrap())
    });
    read.join().unwrap();
    assert_eq!((*lock.write().unwrap(), lock.readers()), (0, 0));
    let written = std::thread::spawn({
        let lock = lock.clone();
        move || core::mem::forget(lock.write().unwrap())
    });
    written.join().unwrap();
    assert_eq!(lock.read().unwrap_err().cause(), PoisonCause::OwnerDied { pid: std::process::id() });
}

/// Whether the memory of this name is mapped in this process.
fn is_mapped(name: &str) -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains(name)
}

#[test]
fn a_lock_whose_guard_was_forgotten_stays_mapped() {
    let _watchdog = watchdog();
    let thread = std::thread::spawn(|| {
        let other = RwLock::new(0u32).unwrap();
        for (name, forget) in [("no-guard", false), ("read-guard", true)] {
            let arena = Arena::labelled(name, 8192).unwrap();
            let lock = RwLock::new_in(&arena, 0u32).unwrap();
            let guard = lock.read().unwrap();
            if forget {
                core::mem::forget(guard);
            } else {
                drop(guard);
            }
            assert!(is_mapped(name));
            drop((lock, arena));
            assert_eq!(is_mapped(name), forget);
            // Linked beside the forgotten one, if it is still in the thread's list.
            *other.write().unwrap() += 1;
            assert_eq!(*other.read().unwrap(), 1 + u32::from(forget));
        }
    });
    // The kernel walks the list at the thread's end.
    thread.join().unwrap();
}

#[test]
fn inherited_guards_are_inert() {
    let _watchdog = watchdog();
    let lock = RwLock::new(0u64).unwrap();
    let mut reading = Some((lock.read().unwrap(), lock.read().unwrap()));
    // In a child, the drop of what it inherits is not the parent's.
    Child::run(|| {
        drop(reading.take());
        assert_eq!(lock.readers(), 2);
        assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
        assert_eq!(*lock.read().unwrap(), 0);
    })
    .join();
    assert_eq!(lock.readers(), 2);
    drop(reading);
    let mut writing = Some(lock.write().unwrap());
    Child::run(|| {
        drop(writing.take());
        assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
    })
    .join();
    assert_eq!(lock.writer(), Some(std::process::id()));
    drop(writing);
    assert_eq!((lock.readers(), *lock.write().unwrap()), (0, 0));
}
