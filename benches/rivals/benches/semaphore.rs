//! A permit of a semaphore: alone, and four processes at two permits.

use polyproc::Semaphore;
use polyproc_benches::{Processes, nanos, pin_to, pinned_to, scaled, time_each};
use polyproc_rivals::adapters::{boost, posix, python};
use polyproc_rivals::{Rivals, finish};
use std::hint::black_box;

const CROWD: usize = 4;

/// A loop that takes a few tens of nanoseconds.
fn work() {
    for turn in 0..100 {
        black_box(turn);
    }
}

/// Nanoseconds a turn of four processes that take a permit, work, give it back and work.
fn crowd(turn: impl Fn(u64)) -> f64 {
    let count = scaled(100_000);
    let timed = Processes::fork(CROWD, |index| {
        pin_to(index);
        turn(count);
        count
    })
    .run();
    assert_eq!(timed.figures, [count; CROWD]);
    nanos(timed.total) / (count * CROWD as u64) as f64
}

fn main() {
    let count = scaled(3_000_000);
    let fewer = (count / 25).max(100);
    let (ours, posix) = (Semaphore::new(3).expect("memory"), posix::Semaphore::new(3));
    let mut table = Rivals::new("acquire and give back, alone")
        .ours("polyproc Semaphore", || {
            let time = pinned_to(1, || time_each(count, || drop(black_box(&ours).acquire())));
            assert_eq!(ours.available(), 3);
            time
        })
        .rival("POSIX semaphore", || {
            let turn = || {
                black_box(&posix).acquire();
                black_box(&posix).release();
            };
            let time = pinned_to(1, || time_each(count, turn));
            assert_eq!(posix.available(), 3);
            time
        });
    if boost::is_there() {
        table = table.rival("Boost interprocess_semaphore", || boost::run("semaphore_alone", &[count]));
    }
    if python::is_there() {
        table = table.rival("Python Semaphore", || python::run("lock.py", "semaphore_alone", &[fewer]));
    }
    table.run();

    let (ours, posix) = (Semaphore::new(2).expect("memory"), posix::Semaphore::new(2));
    let mut table = Rivals::new("two permits, four processes")
        .ours("polyproc Semaphore", || {
            let time = crowd(|count| {
                for _ in 0..count {
                    let permit = ours.acquire();
                    work();
                    drop(permit);
                    work();
                }
            });
            assert_eq!(ours.available(), 2);
            time
        })
        .rival("POSIX semaphore", || {
            let time = crowd(|count| {
                for _ in 0..count {
                    posix.acquire();
                    work();
                    posix.release();
                    work();
                }
            });
            assert_eq!(posix.available(), 2);
            time
        });
    if boost::is_there() {
        table = table.rival("Boost interprocess_semaphore", || boost::run("semaphore", &[scaled(100_000)]));
    }
    if python::is_there() {
        let each = scaled(100_000).max(500) / 25;
        table = table.rival("Python Semaphore", move || python::run("lock.py", "semaphore", &[each]));
    }
    table.run();
    finish();
}
