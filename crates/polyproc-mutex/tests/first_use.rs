//! A fork while another thread uses a lock for the first time.
//!
//! A binary of its own, and one test: no other may use a lock in this process.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::Mutex;
use std::sync::Barrier;
use support::{Child, watchdog};

#[test]
fn a_child_forked_while_another_thread_begins_to_use_locks_can_use_them() {
    let _watchdog = watchdog();
    for _ in 0..2000 {
        // A process in which nobody has used a lock yet.
        Child::run(|| {
            let together = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    together.wait();
                    drop(Mutex::new(0u32).unwrap().lock().unwrap());
                });
                together.wait();
                Child::run(|| drop(Mutex::new(0u32).unwrap().lock().unwrap())).join();
            });
        })
        .join();
    }
}
