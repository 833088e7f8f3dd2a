//! Reading and writing: uncontended, beside readers, in mixes, and how long a writer waits among busy readers.

use polyproc::Mutex;
use polyproc_benches::{
    Events, Processes, Samples, Table, is_test, nanos, pin_to, rounds, scaled, spreads, time_each,
};
use polyproc_rwlock::RwLock;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The processes or threads of a mix.
const CROWD: usize = 4;

fn uncontended() {
    pin_to(1);
    let count = scaled(20_000_000);
    let writes = scaled(2_000_000);
    let std = std::sync::RwLock::new(0u64);
    let parking_lot = parking_lot::RwLock::new(0u64);
    let ours = RwLock::new(0u64).expect("a lock");
    let few = RwLock::with_readers(0u64, 8).expect("a lock");
    let outer = Mutex::new(()).expect("a mutex");

    Table::new("read and unlock, uncontended")
        .subject("std::sync::RwLock", || {
            time_each(count, || assert_eq!(*black_box(&std).read().unwrap() & 1, 0))
        })
        .subject("polyproc RwLock", || {
            time_each(count, || assert_eq!(*black_box(&ours).read().unwrap() & 1, 0))
        })
        .subject("polyproc RwLock, while a mutex is held", || {
            let _outer = outer.lock().unwrap();
            time_each(count / 4, || assert_eq!(*black_box(&ours).read().unwrap() & 1, 0))
        })
        .subject("parking_lot::RwLock", || {
            time_each(count, || assert_eq!(*black_box(&parking_lot).read() & 1, 0))
        })
        .run();
    Table::new("write, add two, unlock, uncontended")
        .subject("std::sync::RwLock", || time_each(writes, || *black_box(&std).write().unwrap() += 2))
        .subject("polyproc RwLock, 60 places for readers", || {
            time_each(writes, || *black_box(&ours).write().unwrap() += 2)
        })
        .subject("polyproc RwLock, 8 places for readers", || {
            time_each(writes, || *black_box(&few).write().unwrap() += 2)
        })
        .subject("parking_lot::RwLock", || time_each(writes, || *black_box(&parking_lot).write() += 2))
        .run();
    let total = *std.read().unwrap();
    assert_eq!([*ours.read().unwrap(), *few.read().unwrap(), *parking_lot.read()], [total; 3]);
}

/// One round of a mix: each writes every `every`th time, and reads otherwise. `index` shifts the writes.
fn mix(each: u64, every: u64, index: usize, mut read: impl FnMut() -> [u64; 2], mut write: impl FnMut()) {
    for turn in 0..each {
        if every != 0 && (turn + index as u64).is_multiple_of(every) {
            write();
        } else {
            let [one, other] = read();
            assert_eq!(one, other, "a reader saw a writer at work");
        }
    }
}

fn writes(each: u64, every: u64) -> u64 {
    let of = |index: u64| (0..each).filter(|turn| every != 0 && (turn + index).is_multiple_of(every)).count();
    (0..CROWD as u64).map(of).sum::<usize>() as u64
}

fn processes(each: u64, every: u64) -> f64 {
    let lock = RwLock::new([0u64; 2]).expect("a lock");
    let timed = Processes::fork(CROWD, |index| {
        let write = || lock.write().unwrap().iter_mut().for_each(|number| *number += 1);
        mix(each, every, index, || *lock.read().unwrap(), write);
        0
    })
    .run();
    assert_eq!(*lock.read().unwrap(), [writes(each, every); 2]);
    nanos(timed.total) / (each * CROWD as u64) as f64
}

fn threads(each: u64, every: u64, read: impl Fn() -> [u64; 2] + Sync, write: impl Fn() + Sync) -> f64 {
    let before = read()[0];
    let start = Instant::now();
    std::thread::scope(|scope| {
        for index in 0..CROWD {
            let (read, write) = (&read, &write);
            scope.spawn(move || mix(each, every, index, read, write));
        }
    });
    let time = nanos(start.elapsed()) / (each * CROWD as u64) as f64;
    assert_eq!(read(), [before + writes(each, every); 2]);
    time
}

fn mixes() {
    for (title, every, each) in [
        ("4 x reads only", 0, scaled(2_000_000)),
        ("4 x 90 reads to 10 writes", 10, scaled(500_000)),
        ("4 x 50 reads to 50 writes", 2, scaled(300_000)),
    ] {
        let std = std::sync::RwLock::new([0u64; 2]);
        let parking_lot = parking_lot::RwLock::new([0u64; 2]);
        let add = |numbers: &mut [u64; 2]| numbers.iter_mut().for_each(|number| *number += 1);
        Table::new(title)
            .subject("std::sync::RwLock, threads", || {
                threads(each, every, || *std.read().unwrap(), || add(&mut std.write().unwrap()))
            })
            .subject("polyproc RwLock, processes", || processes(each, every))
            .subject("parking_lot::RwLock, threads", || {
                threads(each, every, || *parking_lot.read(), || add(&mut parking_lot.write()))
            })
            .run();
    }
}

/// How long one writer waits while four readers read in tight loops.
fn starvation() {
    let writes: u64 = if is_test() { 5 } else { 2_000 };
    let round = || {
        let lock = RwLock::new([0u64; 2]).expect("a lock");
        let samples = Samples::new(writes as usize);
        Processes::fork(CROWD + 1, |index| {
            if index != 0 {
                // The writer is done when the number says so.
                loop {
                    let [one, other] = *lock.read().unwrap();
                    assert_eq!(one, other, "a reader saw a writer at work");
                    if one == writes {
                        return 0;
                    }
                }
            }
            for write in 0..writes {
                let start = Instant::now();
                let mut guard = lock.write().unwrap();
                samples.note(write as usize, start.elapsed().as_nanos() as u64);
                guard.iter_mut().for_each(|number| *number += 1);
                drop(guard);
                std::thread::sleep(Duration::from_micros(20));
            }
            0
        })
        .run();
        samples.nanos()
    };
    let waits = Events::of(|| (0..rounds()).flat_map(|_| round()).collect());
    spreads("a write among 4 readers in tight loops", "nothing", &[("polyproc RwLock", waits)]);
}

fn main() {
    starvation();
    mixes();
    // Last: it pins the process to one CPU.
    uncontended();
}
