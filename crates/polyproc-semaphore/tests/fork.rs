//! A forked child owns none of its parent's permits.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_semaphore::{Semaphore, TryAcquireError};
use support::{Child, Slot, wait_for_the_end, watchdog};

#[test]
fn an_inherited_permit_is_inert() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::new(2).unwrap();
    let mut permits = Some((semaphore.acquire(), semaphore.acquire()));
    Child::run(|| {
        let (first, second) = permits.take().unwrap();
        drop(first);
        second.forget();
        assert_eq!(semaphore.available(), 0);
        assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::WouldBlock);
    })
    .join();
    assert_eq!(semaphore.available(), 0);
    drop(permits);
    assert_eq!(semaphore.available(), 2);
}

#[test]
fn an_inherited_permit_does_not_give_back_what_the_child_acquired() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::new(1).unwrap();
    let released = Slot::new();
    let mut permit = Some(semaphore.acquire());
    let child = Child::run(|| {
        let inherited = permit.take();
        released.wait();
        let own = semaphore.acquire();
        drop(inherited);
        assert_eq!(semaphore.available(), 0);
        drop(own);
        assert_eq!(semaphore.available(), 1);
    });
    drop(permit.take());
    released.set(1);
    child.join();
    assert_eq!(semaphore.available(), 1);
}

#[test]
fn a_killed_child_takes_nothing_from_its_parent() {
    let _watchdog = watchdog();
    let (semaphore, other) = (Semaphore::new(1).unwrap(), Semaphore::new(1).unwrap());
    let ready = Slot::new();
    let permit = semaphore.acquire();
    let child = Child::run(|| {
        drop(other.acquire());
        ready.set(1);
        wait_for_the_end();
    });
    ready.wait();
    child.kill();
    assert_eq!((semaphore.available(), other.available()), (0, 1));
    drop(permit);
    assert_eq!(semaphore.available(), 1);
}
