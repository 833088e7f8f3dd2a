//! The counter job: processes that each increment one counter under one lock, beside threads with `parking_lot`.

use polyproc_benches::{Processes, Table, nanos, scaled};
use polyproc_mutex::Mutex;
use std::time::Instant;

/// Increments of each process.
const EACH: u64 = 1_000_000;

fn ours(processes: usize) -> f64 {
    let each = scaled(EACH);
    let counter = Mutex::new(0u64).expect("a mutex");
    let timed = Processes::fork(processes, |_| {
        let mut longest = 0;
        for _ in 0..each {
            *counter.lock().unwrap() += 1;
        }
        longest += 1;
        longest
    })
    .run();
    let total = each * processes as u64;
    assert_eq!(*counter.lock().unwrap(), total);
    nanos(timed.total) / total as f64
}

fn threads(count: usize, increment: impl Fn() + Sync) -> f64 {
    let each = scaled(EACH);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| (0..each).for_each(|_| increment()));
        }
    });
    nanos(start.elapsed()) / (each * count as u64) as f64
}

fn main() {
    for count in [1, 2, 4, 8, 16] {
        let title: &'static str = format!("counter, {count} x {}", scaled(EACH)).leak();
        let parking_lot = parking_lot::Mutex::new(0u64);
        let std = std::sync::Mutex::new(0u64);
        Table::new(title)
            .subject("parking_lot::Mutex, threads", || threads(count, || *parking_lot.lock() += 1))
            .subject("polyproc Mutex, processes", || ours(count))
            .subject("std::sync::Mutex, threads", || threads(count, || *std.lock().unwrap() += 1))
            .run();
    }
}
