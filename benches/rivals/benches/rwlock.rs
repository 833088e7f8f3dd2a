//! Reading and writing: alone, and in mixes of four processes or threads.

#[cfg(feature = "raw_sync")]
use polyproc_rivals::adapters::raw_sync::RawSyncRwLock;
use polyproc_rivals::adapters::{boost, ours, posix};
use polyproc_rivals::rwlock::{ReadWrite, processes, reads_alone, threads, writes_alone};
use polyproc_rivals::{Rivals, finish, rival};

type Std = std::sync::RwLock<[u64; 2]>;
type ParkingLot = parking_lot::RwLock<[u64; 2]>;

fn main() {
    // The places for readers that a lock has by default, and as many as it may need here.
    const READERS: [u32; 2] = [60, 8];
    for (title, every, each) in [
        ("4 x reads only", 0, 1_000_000),
        ("4 x 99 reads to 1 write", 100, 400_000),
        ("4 x 90 reads to 10 writes", 10, 300_000),
        ("4 x 50 reads to 50 writes", 2, 150_000),
    ] {
        let mut table = Rivals::new(title)
            .ours("polyproc RwLock", move || processes(ours::rwlock(READERS[0]), each, every))
            .ours("polyproc RwLock, 8 places", move || processes(ours::rwlock(READERS[1]), each, every))
            .rival("std::sync::RwLock, threads", move || threads(Std::default(), each, every))
            .rival("parking_lot::RwLock, threads", move || threads(ParkingLot::default(), each, every))
            .rival("pthread_rwlock", move || processes(posix::RwLock::new(), each, every));
        table = rival!(table, "raw_sync", "raw_sync RwLock", move || {
            processes(RawSyncRwLock::new(), each, every)
        });
        if boost::is_there() {
            let numbers = [polyproc_benches::scaled(each), every];
            table = table.rival("Boost interprocess_sharable_mutex", move || boost::run("rwlock", &numbers));
        }
        table.run();
    }
    alone("read and unlock, uncontended", "rwlock_read_alone", 5_000_000, |lock, count| lock.reads(count));
    alone("write and unlock, uncontended", "rwlock_write_alone", 1_000_000, |lock, count| lock.writes(count));
    finish();
}

/// A lock of any kind, alone.
trait Alone {
    fn reads(&self, count: u64) -> f64;
    fn writes(&self, count: u64) -> f64;
}

impl<L: ReadWrite> Alone for L {
    fn reads(&self, count: u64) -> f64 {
        reads_alone(self, count)
    }

    fn writes(&self, count: u64) -> f64 {
        writes_alone(self, count)
    }
}

fn alone(title: &str, subject: &'static str, count: u64, run: fn(&dyn Alone, u64) -> f64) {
    let with = |lock: Box<dyn Alone>| move || run(&*lock, count);
    let mut table = Rivals::new(title)
        .ours("polyproc RwLock", with(Box::new(ours::rwlock(60))))
        .ours("polyproc RwLock, 8 places", with(Box::new(ours::rwlock(8))))
        .rival("std::sync::RwLock", with(Box::<Std>::default()))
        .rival("parking_lot::RwLock", with(Box::<ParkingLot>::default()))
        .rival("pthread_rwlock", with(Box::new(posix::RwLock::new())));
    table = rival!(table, "raw_sync", "raw_sync RwLock", with(Box::new(RawSyncRwLock::new())));
    if boost::is_there() {
        let numbers = [polyproc_benches::scaled(count)];
        table = table.rival("Boost interprocess_sharable_mutex", move || boost::run(subject, &numbers));
    }
    table.run();
}
