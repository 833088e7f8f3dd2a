//! The counter job: processes that each increment one counter under one lock, beside threads with `parking_lot` and with
//! `std`, and Python's `multiprocessing`.
//!
//! Then the same with sections that take 100 ns and 1 µs. Who gets how many of them is the bench `fairness`.
//!
//! Two of them are also measured pinned to two CPUs, where every hand-over crosses between them. The others are not
//! pinned: there are more than CPUs, and the scheduler is part of the job.

use polyproc::{Mutex, Value};
use polyproc_benches::results::note_versions;
use polyproc_benches::{Processes, Table, nanos, pin_to, scaled, time_each, turns, work};
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

fn threads(count: usize, each: u64, place: Place, increment: impl Fn() + Sync) -> f64 {
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

/// As in `Python 3.11.7`.
fn python_version() -> String {
    let output = Command::new("python3").arg("--version").output().expect("python3");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Sections that take a while, one after another, of which each process has its part: the time of one, with what it takes to
/// pass the lock on. Who comes again at once gives no time to anybody in between: that is the job at its worst.
fn sections() {
    for (nanos, name, total) in [(100, "100 ns", 400_000), (1000, "1 us", 60_000)] {
        let turns = turns(nanos);
        for count in [1, 2, 4, 8, 16] {
            let each = (scaled(total) / count as u64).max(1);
            let title: &'static str = format!("critical sections of {name}, by {count}").leak();
            let std = std::sync::Mutex::new(0u64);
            let parking_lot = parking_lot::Mutex::new(0u64);
            let all = each * count as u64;
            Table::new(title)
                .series(&format!("critical sections of {name}"), "processes", count as u64)
                .subject("limit: one process, no lock", || time_each(all, || work(turns)))
                .subject("parking_lot::Mutex, threads", || {
                    threads(count, each, Place::Anywhere, || {
                        let mut guard = parking_lot.lock();
                        work(turns);
                        *guard += 1;
                    })
                })
                .subject("polyproc Mutex, processes", || {
                    let counter = Mutex::new(0u64).expect("a mutex");
                    let timed = Processes::fork(count, |_| {
                        for _ in 0..each {
                            let mut guard = counter.lock().unwrap();
                            work(turns);
                            *guard += 1;
                        }
                        0
                    })
                    .run();
                    assert_eq!(*counter.lock().unwrap(), all);
                    polyproc_benches::nanos(timed.total) / all as f64
                })
                .subject("std::sync::Mutex, threads", || {
                    threads(count, each, Place::Anywhere, || {
                        let mut guard = std.lock().unwrap();
                        work(turns);
                        *guard += 1;
                    })
                })
                .run();
            let total = *std.lock().unwrap();
            assert_eq!(*parking_lot.lock(), total);
            assert!(total.is_multiple_of(all) && total > 0);
        }
    }
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
            .subject("parking_lot::Mutex, threads", || {
                threads(count, scaled(EACH), place, || *parking_lot.lock() += 1)
            })
            .subject("polyproc Mutex, processes", || mutex(count, place))
            .subject("polyproc Value::update, processes", || value(count, place))
            .subject("std::sync::Mutex, threads", || {
                threads(count, scaled(EACH), place, || *std.lock().unwrap() += 1)
            });
        if let Anywhere = place {
            table = table.series("counter", "processes", count as u64);
        }
        if count == 4 {
            match python() {
                Some(_) => {
                    note_versions(&python_version());
                    table = table
                        .subject("Python Value with get_lock(), processes", || python().expect("python3"));
                }
                None => println!("python3 is not there: skipped"),
            }
        }
        table.run();
    }
    sections();
}
