//! Several processes at one semaphore, and how it gets to them.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_memory::handover;
use polyproc_semaphore::{BoundedSemaphore, Semaphore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, OwnedFd};
use support::{Child, Slot, watchdog};

/// Of the calls that release the last one at the same time, one succeeds.
#[test]
fn one_release_too_many_is_refused_exactly() {
    const ROUNDS: u64 = 300;
    let _watchdog = watchdog();
    let semaphore = BoundedSemaphore::new(3).unwrap();
    let (round, ready, done, succeeded) = (Slot::new(), Slot::new(), Slot::new(), Slot::new());
    let children: Vec<_> = (0..4)
        .map(|_| {
            Child::run(|| {
                for number in 1..=ROUNDS {
                    ready.add(1);
                    while round.get() < number {
                        std::thread::yield_now();
                    }
                    if semaphore.release(1).is_ok() {
                        succeeded.add(1);
                    }
                    done.add(1);
                }
            })
        })
        .collect();
    let mut expected = 0;
    for number in 1..=ROUNDS {
        let room = number % 4;
        for _ in 0..room {
            semaphore.acquire().forget();
        }
        while ready.get() < 4 * number {
            std::thread::yield_now();
        }
        round.set(number);
        while done.get() < 4 * number {
            std::thread::yield_now();
        }
        expected += room;
        assert_eq!((succeeded.get(), semaphore.available()), (expected, 3), "in round {number}");
    }
    for child in children {
        child.join();
    }
}

#[test]
fn three_permits_among_eight_processes() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::new(3).unwrap();
    let (inside, most) = (Slot::new(), Slot::new());
    let children: Vec<_> = (0..8)
        .map(|_| {
            Child::run(|| {
                for _ in 0..500 {
                    let permit = semaphore.acquire();
                    inside.add(1);
                    let now = inside.get();
                    most.set(most.get().max(now));
                    assert!(now <= 3, "{now} are inside");
                    inside.add(u64::MAX);
                    drop(permit);
                }
            })
        })
        .collect();
    for child in children {
        child.join();
    }
    assert_eq!((semaphore.available(), inside.get()), (3, 0));
    assert!(most.get() >= 1);
}

/// Each item that is released is acquired once, whoever does.
#[test]
fn producers_and_consumers() {
    const ITEMS: u64 = 2000;
    let _watchdog = watchdog();
    let ready = Semaphore::new(0).unwrap();
    let taken = Slot::new();
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            Child::run(|| {
                for _ in 0..ITEMS {
                    ready.acquire().forget();
                    taken.add(1);
                }
            })
        })
        .collect();
    let producers: Vec<_> =
        (0..2).map(|_| Child::run(|| (0..ITEMS).for_each(|_| ready.release(1).unwrap()))).collect();
    for child in consumers.into_iter().chain(producers) {
        child.join();
    }
    assert_eq!((taken.get(), ready.available()), (2 * ITEMS, 0));
}

/// What another process would get of a handle: the bytes, and duplicates of the descriptors.
fn send(handle: &impl Serialize) -> (Vec<u8>, Vec<OwnedFd>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(handle));
    let duplicate = |descriptor: &handover::Descriptor| descriptor.as_fd().try_clone_to_owned().unwrap();
    (bytes.unwrap(), descriptors.iter().map(duplicate).collect())
}

fn receive<T: DeserializeOwned>((bytes, descriptors): (Vec<u8>, Vec<OwnedFd>)) -> postcard::Result<T> {
    handover::receive(descriptors, || postcard::from_bytes(&bytes))
}

#[test]
fn a_received_handle_is_the_same_semaphore() {
    let semaphore = Semaphore::with_capacity(3, 100).unwrap();
    let received: Semaphore = receive(send(&semaphore)).unwrap();
    let permit = semaphore.acquire();
    assert_eq!(received.available(), 2);
    drop(permit);
    drop(semaphore);
    assert_eq!(received.available(), 3);
    drop((received.acquire(), received.acquire(), received.acquire()));
}

#[test]
fn what_is_something_else_is_not_received() {
    let (semaphore, bounded) = (Semaphore::new(1).unwrap(), BoundedSemaphore::new(1).unwrap());
    assert!(receive::<BoundedSemaphore>(send(&semaphore)).is_err());
    assert!(receive::<Semaphore>(send(&bounded)).is_err());
    assert!(receive::<BoundedSemaphore>(send(&bounded)).is_ok());
    assert!(postcard::to_stdvec(&semaphore).is_err(), "outside of a hand-over");
}
