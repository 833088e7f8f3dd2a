//! Locks travel inside a hand-over, arrive as the same lock, and are not taken for something else.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_memory::handover;
use polyproc_mutex::{Arena, LockTimeoutError, Mutex, PoisonCause, RLock, TryLockError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use support::{Child, Slot, wait_for_the_end, watchdog};

/// What another process would get of a handle: the bytes, and duplicates of the descriptors.
fn send(handle: &impl Serialize) -> (Vec<u8>, Vec<OwnedFd>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(handle));
    let duplicate = |descriptor: &handover::Descriptor| descriptor.as_fd().try_clone_to_owned().unwrap();
    (bytes.unwrap(), descriptors.iter().map(duplicate).collect())
}

fn receive<T: DeserializeOwned>((bytes, descriptors): (Vec<u8>, Vec<OwnedFd>)) -> postcard::Result<T> {
    handover::receive(descriptors, || postcard::from_bytes(&bytes))
}

/// Why what was sent cannot be received as a `T`.
fn refusal<T: DeserializeOwned>(sent: &impl Serialize) -> String {
    assert!(receive::<T>(send(sent)).is_err(), "it was taken for something else");
    handover::take_failure().unwrap().to_string()
}

#[test]
fn outside_of_a_handover_a_lock_cannot_be_serialised() {
    let (mutex, rlock) = (Mutex::new(0u32).unwrap(), RLock::new(0u32).unwrap());
    let how = "a polyproc handle travels only inside a hand-over: pass it as an argument of Process::spawn, or send it \
               through a Connection";
    assert!(postcard::to_stdvec(&mutex).is_err());
    assert_eq!(handover::take_failure().unwrap().to_string(), how);
    assert!(postcard::to_stdvec(&rlock).is_err());
    assert_eq!(handover::take_failure().unwrap().to_string(), how);

    let (bytes, descriptors) = send(&mutex);
    drop(descriptors);
    assert!(postcard::from_bytes::<Mutex<u32>>(&bytes).is_err());
    assert_eq!(handover::take_failure().unwrap().to_string(), how);
}

#[test]
fn a_received_handle_is_the_same_lock() {
    let mutex = Mutex::new(1u32).unwrap();
    let received: Mutex<u32> = receive(send(&mutex)).unwrap();
    let guard = mutex.lock().unwrap();
    assert!(matches!(received.try_lock(), Err(TryLockError::WouldBlock)));
    drop(guard);
    *received.lock().unwrap() = 2;
    assert_eq!(*mutex.lock().unwrap(), 2);
    // It keeps the lock alive by itself.
    drop(mutex);
    assert_eq!(*received.lock().unwrap(), 2);

    let rlock = RLock::new(1u32).unwrap();
    let received: RLock<u32> = receive(send(&rlock)).unwrap();
    let _outer = rlock.lock().unwrap();
    let _inner = received.lock().unwrap();
    assert_eq!(received.depth(), 2);
}

#[test]
fn locks_of_one_arena_travel_with_one_descriptor() {
    let arena = Arena::new(4096).unwrap();
    let locks = (Mutex::new_in(&arena, 1u32).unwrap(), RLock::new_in(&arena, 2u32).unwrap());
    let sent = send(&locks);
    assert_eq!(sent.1.len(), 1);
    let received: (Mutex<u32>, RLock<u32>) = receive(sent).unwrap();
    *locks.0.lock().unwrap() = 3;
    assert_eq!((*received.0.lock().unwrap(), *received.1.lock().unwrap()), (3, 2));
}

#[test]
fn a_process_that_received_a_lock_maps_it_elsewhere_and_shares_it() {
    const ROUNDS: u64 = 10_000;
    let _watchdog = watchdog();
    let (sent, counted, go, holding) = (Slot::new(), Slot::new(), Slot::new(), Slot::new());
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let parent = std::process::id();
    // Forked before the mutex is made: it inherits nothing of it.
    let child = Child::run(|| {
        let descriptor = sent.wait();
        let path = format!("/proc/{parent}/fd/{descriptor}");
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut bytes = [0; 64];
        let count = reader.read(&mut bytes).unwrap();
        // Takes the address that the parent's mutex has there, if the kernel gives out the same.
        let _before = Mutex::new([0u64; 32]).unwrap();
        let mutex: Mutex<u64> = receive((bytes[..count].to_vec(), vec![file.into()])).unwrap();
        for _ in 0..ROUNDS {
            *mutex.lock().unwrap() += 1;
        }
        counted.set(1);
        go.wait();
        *mutex.lock().unwrap() += 1;
        let _guard = mutex.lock().unwrap();
        holding.set(1);
        wait_for_the_end();
    });
    let mutex = Mutex::new(0u64).unwrap();
    let (bytes, descriptors) = send(&mutex);
    writer.write_all(&bytes).unwrap();
    sent.set(descriptors[0].as_raw_fd() as u64);
    for _ in 0..ROUNDS {
        *mutex.lock().unwrap() += 1;
    }
    counted.wait();
    assert_eq!(*mutex.lock().unwrap(), 2 * ROUNDS);
    go.set(1);
    holding.wait();
    assert_eq!(mutex.holder(), Some(child.pid()));
    let (start, timeout) = (Instant::now(), Duration::from_millis(10));
    assert!(matches!(mutex.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
    assert!(start.elapsed() >= timeout);
    let pid = child.kill();
    let error = mutex.lock().unwrap_err();
    assert_eq!(error.cause(), PoisonCause::OwnerDied { pid });
    assert_eq!(*error.into_inner(), 2 * ROUNDS + 1);
}

#[test]
fn a_lock_is_not_taken_for_another() {
    let small = Mutex::new(0u32).unwrap();
    assert_eq!(refusal::<Mutex<u64>>(&small), "the object's elements have 4 bytes each, not 8");
    assert_eq!(refusal::<Mutex<[u8; 4]>>(&small), "the object's elements are aligned to 4 bytes, not 1");
    assert_eq!(refusal::<RLock<u32>>(&small), "the object is of kind 'mutex', not 'rlock'");
    let rlock = RLock::new(0u32).unwrap();
    assert_eq!(refusal::<Mutex<u32>>(&rlock), "the object is of kind 'rlock', not 'mutex'");
    assert_eq!(refusal::<RLock<u16>>(&rlock), "the object's elements have 4 bytes each, not 2");
    // All of that changed nothing.
    assert!(receive::<Mutex<u32>>(send(&small)).is_ok());
    // Same size and alignment: for the memory that is the same.
    assert!(receive::<Mutex<f32>>(send(&small)).is_ok());
}

#[test]
fn what_is_no_lock_is_not_taken_for_one() {
    let mutex = Mutex::new(0u32).unwrap();
    let (bytes, _) = send(&mutex);
    let (unrelated, _writer) = std::io::pipe().unwrap();
    assert!(receive::<Mutex<u32>>((bytes.clone(), vec![unrelated.into()])).is_err());
    assert_eq!(handover::take_failure().unwrap().to_string(), "the descriptor is not of a memory file");
    assert!(receive::<Mutex<u32>>((bytes, vec![])).is_err());
    assert_eq!(
        handover::take_failure().unwrap().to_string(),
        "the message names its descriptor number 0, and 0 came with it"
    );
}
