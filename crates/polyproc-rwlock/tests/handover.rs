//! Locks travel inside a hand-over, arrive as the same lock, and are not taken for something else. And a thread holds no
//! more of them than the kernel releases.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_memory::handover;
use polyproc_mutex::Mutex;
use polyproc_rwlock::{Arena, LockTimeoutError, RwLock, TryLockError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use support::watchdog;

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
fn a_received_handle_is_the_same_lock() {
    let _watchdog = watchdog();
    assert!(postcard::to_stdvec(&RwLock::new(0u32).unwrap()).is_err());
    for readers in [1, 5, 60] {
        let lock = RwLock::with_readers([1u32, 2], readers).unwrap();
        let received: RwLock<[u32; 2]> = receive(send(&lock)).unwrap();
        assert_eq!(received.max_readers(), readers as usize);
        let guard = lock.read().unwrap();
        assert!(matches!(received.try_write(), Err(TryLockError::WouldBlock)));
        assert_eq!(received.readers(), 1);
        drop(guard);
        received.write().unwrap()[0] = 7;
        assert_eq!(*lock.read().unwrap(), [7, 2]);
        drop(lock);
        assert_eq!(*received.read().unwrap(), [7, 2]);
    }
}

#[test]
fn it_is_not_taken_for_something_else() {
    let lock = RwLock::new(0u32).unwrap();
    assert!(receive::<RwLock<u64>>(send(&lock)).is_err());
    assert!(receive::<RwLock<[u8; 4]>>(send(&lock)).is_err());
    assert!(receive::<Mutex<u32>>(send(&lock)).is_err());
    assert!(receive::<RwLock<u32>>(send(&Mutex::new(0u32).unwrap())).is_err());
}

#[test]
fn one_lock_more_than_the_kernel_releases_is_refused() {
    let _watchdog = watchdog();
    let arena = Arena::new(2048 * 256).unwrap();
    let locks: Vec<_> = (0..2048).map(|_| RwLock::with_readers_in(&arena, 0u8, 1).unwrap()).collect();
    let mut guards: Vec<_> = locks.iter().map(|lock| lock.read().unwrap()).collect();
    let one_more = RwLock::new(0u8).unwrap();
    assert!(matches!(one_more.try_read(), Err(TryLockError::TooManyLocks)));
    assert!(matches!(one_more.try_write(), Err(TryLockError::TooManyLocks)));
    let timed = one_more.read_timeout(Duration::from_secs(60));
    assert!(matches!(timed, Err(LockTimeoutError::TooManyLocks)));
    let panic = catch_unwind(AssertUnwindSafe(|| drop(one_more.read()))).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("2048 locks"));
    assert_eq!((one_more.readers(), one_more.is_poisoned()), (0, false));
    // Reading again does not count.
    assert_eq!((*locks[7].read().unwrap(), locks[7].readers()), (0, 2));
    drop(guards.remove(1000));
    drop(one_more.read().unwrap());
    drop(one_more.write().unwrap());
    drop(guards);
    assert!(locks.iter().all(|lock| lock.try_write().is_ok()));
}
