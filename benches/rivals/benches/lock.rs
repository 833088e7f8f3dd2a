//! A lock: alone, and as the guard of a counter that 1 to 16 processes increment, at once, or after 100 ns or 1 µs of work.

use polyproc_benches::{time_each, turns, work};
#[cfg(feature = "iceoryx2")]
use polyproc_rivals::adapters::iceoryx2;
#[cfg(feature = "raw_sync")]
use polyproc_rivals::adapters::raw_sync::RawSync;
use polyproc_rivals::adapters::{boost, ours, posix, python};
use polyproc_rivals::lock::{alone, processes, threads};
use polyproc_rivals::{Rivals, finish, rival};

fn main() {
    uncontended();
    for section in [
        Section { nanos: 0, name: "", count: 2_000_000 },
        Section { nanos: 100, name: "sections of 100 ns, ", count: 200_000 },
        Section { nanos: 1000, name: "sections of 1 us, ", count: 40_000 },
    ] {
        let turns = if section.nanos == 0 { 0 } else { turns(section.nanos) };
        for among in [1, 2, 4, 8, 16] {
            counter(section, turns, among);
        }
    }
    finish();
}

/// What is done under the lock.
#[derive(Clone, Copy)]
struct Section {
    /// Nanoseconds of work, before the increment.
    nanos: u64,
    /// As part of a title.
    name: &'static str,
    /// Increments of all together.
    count: u64,
}

fn uncontended() {
    const COUNT: u64 = 5_000_000;
    let scaled = polyproc_benches::scaled(COUNT);
    let mut table = Rivals::new("lock, increment, unlock, uncontended");
    let (mutex, value) = (ours::mutex(), ours::value());
    table = table.ours("polyproc Mutex", move || alone(&mutex, COUNT));
    table = table.ours("polyproc Value::update", move || alone(&value, COUNT));
    let (std, parking_lot) = (std::sync::Mutex::new(0), parking_lot::Mutex::new(0));
    table = table.rival("std::sync::Mutex", move || alone(&std, COUNT));
    table = table.rival("parking_lot::Mutex", move || alone(&parking_lot, COUNT));
    for (name, is_robust) in [("pthread, plain", false), ("pthread, robust", true)] {
        let pthread = posix::Pthread::new(is_robust);
        table = table.rival(name, move || alone(&pthread, COUNT));
    }
    let semaphore = posix::Semaphore::new(1);
    table = table.rival("POSIX semaphore", move || alone(&semaphore, COUNT));
    table = rival!(table, "raw_sync", "raw_sync Mutex", {
        let lock = RawSync::new();
        move || alone(&lock, COUNT)
    });
    table = rival!(table, "iceoryx2", "iceoryx2 building block, default", {
        let block = iceoryx2::Block::new(false);
        move || alone(&block, COUNT)
    });
    table = rival!(table, "iceoryx2", "iceoryx2 building block, robust", {
        let block = iceoryx2::Block::new(true);
        move || alone(&block, COUNT)
    });
    if boost::is_there() {
        table = table.rival("Boost interprocess_mutex", move || boost::run("lock_alone", &[scaled]));
    }
    if python::is_there() {
        let count = (scaled / 25).max(100);
        table = table.rival("Python Lock", move || python::run("lock.py", "lock_alone", &[count]));
        table = table
            .rival("Python Value with get_lock()", move || python::run("lock.py", "value_alone", &[count]));
    }
    table.run();
}

fn counter(section: Section, turns: u64, among: usize) {
    let Section { nanos, name, count } = section;
    let each = count / among as u64;
    let scaled = polyproc_benches::scaled(each);
    let pinned = if among == 2 { ", two CPUs" } else { "" };
    let series = format!("counter, {name}").trim_end_matches(", ").to_owned().leak();
    let mut table = Rivals::new(format!("counter, {name}{among} processes{pinned}"))
        .series(series, "processes", among as u64)
        .ours("polyproc Mutex", || processes(ours::mutex(), among, each, turns))
        .ours("polyproc Value::update", || processes(ours::value(), among, each, turns))
        .rival("parking_lot::Mutex, threads", || threads(parking_lot::Mutex::new(0), among, each, turns))
        .rival("std::sync::Mutex, threads", || threads(std::sync::Mutex::new(0), among, each, turns))
        .rival("pthread, plain", || processes(posix::Pthread::new(false), among, each, turns))
        .rival("pthread, robust", || processes(posix::Pthread::new(true), among, each, turns))
        .rival("POSIX semaphore", || processes(posix::Semaphore::new(1), among, each, turns));
    if turns > 0 {
        table = table.rival("limit: one process, no lock", || time_each(scaled, || work(turns)));
    }
    table = rival!(table, "raw_sync", "raw_sync Mutex", || processes(RawSync::new(), among, each, turns));
    table = rival!(table, "iceoryx2", "iceoryx2 building block, default", || {
        processes(iceoryx2::Block::new(false), among, each, turns)
    });
    table = rival!(table, "iceoryx2", "iceoryx2 building block, robust", || {
        processes(iceoryx2::Block::new(true), among, each, turns)
    });
    if boost::is_there() {
        let numbers = [among as u64, scaled, nanos];
        table = table.rival("Boost interprocess_mutex", move || boost::run("counter", &numbers));
    }
    // 100 ns are no more than a few of Python's steps.
    if python::is_there() && nanos != 100 {
        let fewer = (scaled / if nanos == 0 { 25 } else { 4 }).max(20);
        let numbers = [among as u64, fewer, nanos];
        table = table
            .rival("Python Lock", move || python::run("lock.py", "lock", &numbers))
            .rival("Python Value with get_lock()", move || python::run("lock.py", "value", &numbers));
    }
    table.run();
}
