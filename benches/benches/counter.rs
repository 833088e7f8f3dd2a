//! The counter job: processes that each increment one counter under one lock, beside threads with `parking_lot` and with
//! `std`, and Python's `multiprocessing`.
//!
//! Two of them are also measured pinned to two CPUs, where every hand-over crosses between them. The others are not
//! pinned: there are more than CPUs, and the scheduler is part of the job.

use polyproc::{Mutex, Value};
use polyproc_benches::{Processes, Table, median, nanos, pin_to, rounds, scaled};
use std::process::Command;
use std::time::Instant;

/// Increments of each process.
const EACH: u64 = 1_000_000;

/// Whether the processes or threads of a round are pinned, one to a CPU.
#[derive(Clone, Copy)]
enum Place {
    Pinned,
    Anywhere,
}

impl Place {
    fn take(self, index: usize) {
        if let Place::Pinned = self {
            pin_to(index);
        }
    }
}

fn mutex(processes: usize, place: Place) -> f64 {
    let each = scaled(EACH);
    let counter = Mutex::new(0u64).expect("a mutex");
    let timed = Processes::fork(processes, |index| {
        place.take(index);
        (0..each).for_each(|_| *counter.lock().unwrap() += 1);
        0
    })
    .run();
    let total = each * processes as u64;
    assert_eq!(*counter.lock().unwrap(), total);
    nanos(timed.total) / total as f64
}

fn value(processes: usize, place: Place) -> f64 {
    let each = scaled(EACH);
    let counter = Value::new(0u64).expect("a value");
    let timed = Processes::fork(processes, |index| {
        place.take(index);
        (0..each).for_each(|_| counter.update(|number| *number += 1).unwrap());
        0
    })
    .run();
    let total = each * processes as u64;
    assert_eq!(counter.get().unwrap(), total);
    nanos(timed.total) / total as f64
}

fn threads(count: usize, place: Place, increment: impl Fn() + Sync) -> f64 {
    let each = scaled(EACH);
    let increment = &increment;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for index in 0..count {
            scope.spawn(move || {
                place.take(index);
                (0..each).for_each(|_| increment());
            });
        }
    });
    nanos(start.elapsed()) / (each * count as u64) as f64
}

/// The same in Python, with fewer increments: the time of one.
fn python() -> Option<f64> {
    const SCRIPT: &str = "
import multiprocessing, sys, time
def work(counter, n):
    for _ in range(n):
        with counter.get_lock():
            counter.value += 1
each = int(sys.argv[1])
context = multiprocessing.get_context('fork')
counter = context.Value('i', 0)
start = time.monotonic()
workers = [context.Process(target=work, args=(counter, each)) for _ in range(4)]
for worker in workers: worker.start()
for worker in workers: worker.join()
seconds = time.monotonic() - start
assert counter.value == 4 * each
print(seconds / (4 * each) * 1e9)
";
    let each = scaled(100_000).max(1000).to_string();
    let output = Command::new("python3").args(["-c", SCRIPT, &each]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// How long a process waits for the lock at the most, and how unequal the processes' times are.
fn fairness(processes: usize) {
    let each = scaled(EACH) / 5;
    let mut longest = Vec::new();
    let mut spread = Vec::new();
    for _ in 0..rounds() {
        let counter = Mutex::new(0u64).expect("a mutex");
        let timed = Processes::fork(processes, |_| {
            let mut longest = 0;
            for _ in 0..each {
                let start = Instant::now();
                let mut guard = counter.lock().unwrap();
                longest = longest.max(start.elapsed().as_nanos() as u64);
                *guard += 1;
            }
            longest
        })
        .run();
        longest.push(*timed.figures.iter().max().unwrap() as f64 / 1e6);
        let times = timed.each.iter().map(|time| nanos(*time));
        spread.push(times.clone().fold(0.0, f64::max) / times.fold(f64::INFINITY, f64::min));
    }
    let worst = longest.iter().copied().fold(0.0, f64::max);
    println!(
        "{processes:>2} processes: longest wait for the lock {:.1} ms in the median round, {worst:.1} ms in the worst; \
         slowest / fastest process {:.2}",
        median(&longest),
        median(&spread)
    );
}

fn main() {
    use Place::{Anywhere, Pinned};
    for (count, place) in
        [(1, Anywhere), (2, Pinned), (2, Anywhere), (4, Anywhere), (8, Anywhere), (16, Anywhere)]
    {
        let pinned = if let Pinned = place { ", pinned" } else { "" };
        let title: &'static str = format!("counter, {count} x {} increments{pinned}", scaled(EACH)).leak();
        let parking_lot = parking_lot::Mutex::new(0u64);
        let std = std::sync::Mutex::new(0u64);
        let mut table = Table::new(title)
            .subject("parking_lot::Mutex, threads", || threads(count, place, || *parking_lot.lock() += 1))
            .subject("polyproc Mutex, processes", || mutex(count, place))
            .subject("polyproc Value::update, processes", || value(count, place))
            .subject("std::sync::Mutex, threads", || threads(count, place, || *std.lock().unwrap() += 1));
        if count == 4 {
            match python() {
                Some(_) => {
                    table = table
                        .subject("Python Value with get_lock(), processes", || python().expect("python3"));
                }
                None => println!("python3 is not there: skipped"),
            }
        }
        table.run();
    }
    println!("\nfairness, {} increments each", scaled(EACH) / 5);
    for count in [2, 4, 8, 16] {
        fairness(count);
    }
}
