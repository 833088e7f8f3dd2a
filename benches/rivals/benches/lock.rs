//! A lock: alone, and as the guard of a counter that 1 to 16 processes increment.

#[cfg(feature = "iceoryx2")]
use polyproc_rivals::adapters::iceoryx2;
#[cfg(feature = "raw_sync")]
use polyproc_rivals::adapters::raw_sync::RawSync;
use polyproc_rivals::adapters::{boost, ours, posix, python};
use polyproc_rivals::lock::{alone, processes, threads};
use polyproc_rivals::{Rivals, finish, rival};

fn main() {
    uncontended();
    for among in [1, 2, 4, 8, 16] {
        counter(among);
    }
    finish();
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

fn counter(among: usize) {
    /// Increments of all together.
    const COUNT: u64 = 2_000_000;
    let each = COUNT / among as u64;
    let scaled = polyproc_benches::scaled(each);
    let pinned = if among == 2 { ", two CPUs" } else { "" };
    let mut table = Rivals::new(format!("counter, {among} processes{pinned}"))
        .ours("polyproc Mutex", || processes(ours::mutex(), among, each))
        .ours("polyproc Value::update", || processes(ours::value(), among, each))
        .rival("parking_lot::Mutex, threads", || threads(parking_lot::Mutex::new(0), among, each))
        .rival("std::sync::Mutex, threads", || threads(std::sync::Mutex::new(0), among, each))
        .rival("pthread, plain", || processes(posix::Pthread::new(false), among, each))
        .rival("pthread, robust", || processes(posix::Pthread::new(true), among, each))
        .rival("POSIX semaphore", || processes(posix::Semaphore::new(1), among, each));
    table = rival!(table, "raw_sync", "raw_sync Mutex", || processes(RawSync::new(), among, each));
    table = rival!(table, "iceoryx2", "iceoryx2 building block, default", || {
        processes(iceoryx2::Block::new(false), among, each)
    });
    table = rival!(table, "iceoryx2", "iceoryx2 building block, robust", || {
        processes(iceoryx2::Block::new(true), among, each)
    });
    if boost::is_there() {
        table = table.rival("Boost interprocess_mutex", || boost::run("counter", &[among as u64, scaled]));
    }
    if python::is_there() {
        let fewer = (scaled / 25).max(20);
        table = table
            .rival("Python Lock", move || python::run("lock.py", "lock", &[among as u64, fewer]))
            .rival("Python Value with get_lock()", move || {
                python::run("lock.py", "value", &[among as u64, fewer])
            });
    }
    table.run();
}
