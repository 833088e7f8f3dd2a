//! Processes that want one lock again and again for some time: what the luckiest and the unluckiest of them get, beside a
//! fair part, and how long anybody waits at the most. Beside them threads with `parking_lot` and with `std`.
//!
//! Nobody is pinned: there are more than CPUs, and who does not run does not get the lock. A process that the scheduler puts
//! aside waits for a few milliseconds without the lock's doing, more so with 16 on two CPUs.

use polyproc::Mutex;
use polyproc_benches::fairness::{Contest, by_processes, by_threads, total};
use polyproc_benches::is_test;
use std::time::Duration;

fn main() {
    let period = Duration::from_millis(if is_test() { 3 } else { 200 });
    for count in [2, 4, 8, 16] {
        let std = std::sync::Mutex::new(0u64);
        let parking_lot = parking_lot::Mutex::new(0u64);
        Contest::new(format!("{count} want one lock for {} ms", period.as_millis()), period)
            .subject("parking_lot::Mutex, threads", || {
                let before = *parking_lot.lock();
                let seen = by_threads(count, period, || *parking_lot.lock() += 1);
                assert_eq!(*parking_lot.lock() - before, total(&seen));
                Some(seen)
            })
            .subject("polyproc Mutex, processes", || {
                let counter = Mutex::new(0u64).expect("a mutex");
                let seen = by_processes(count, period, || *counter.lock().unwrap() += 1);
                assert_eq!(*counter.lock().unwrap(), total(&seen));
                Some(seen)
            })
            .subject("std::sync::Mutex, threads", || {
                let before = *std.lock().unwrap();
                let seen = by_threads(count, period, || *std.lock().unwrap() += 1);
                assert_eq!(*std.lock().unwrap() - before, total(&seen));
                Some(seen)
            })
            .run();
    }
}
