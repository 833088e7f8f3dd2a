//! Where a process may not have large files, or many addresses.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_queue::{Bytes, PutError, Queue};
use polyproc_testing::{Child, watchdog};

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is of the right type.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}

/// Puts until there is no room, and gets it all again.
fn fill_and_drain() {
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    let mut put = 0u32;
    let back = loop {
        match queue.try_put(vec![put as u8; 5000]) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(back, PutError::Full(_) | PutError::OutOfMemory { .. }), "{back:?}");
    assert_eq!(back.into_message(), vec![put as u8; 5000]);
    assert!(put >= 10);
    assert!((0..put).all(|number| queue.get().unwrap() == vec![number as u8; 5000]));
    assert!(queue.is_empty());
}

#[test]
fn a_queue_is_as_large_as_the_limits_of_its_process_allow() {
    let _watchdog = watchdog();
    for (resource, bytes) in [(libc::RLIMIT_FSIZE, 256 << 10), (libc::RLIMIT_AS, 1 << 30)] {
        Child::run(|| {
            limit(resource, bytes);
            fill_and_drain();
        })
        .join();
    }
}
