//! Several that want one lock again and again for some time: what the luckiest and the unluckiest get, beside a fair part, and the
//! longest wait of anybody. Nobody is pinned.

use polyproc_benches::is_test;
#[cfg(feature = "iceoryx2")]
use polyproc_rivals::adapters::iceoryx2;
#[cfg(feature = "raw_sync")]
use polyproc_rivals::adapters::raw_sync::RawSync;
use polyproc_rivals::adapters::{boost, ours, posix, python};
use polyproc_rivals::lock::{shared_by_processes, shared_by_threads};
use polyproc_rivals::{Fairness, finish, rival};
use std::time::Duration;

fn main() {
    let period = Duration::from_millis(if is_test() { 3 } else { 200 });
    for among in [2, 4, 8, 16] {
        let mut table = Fairness::new(format!("{among} want one lock for {} ms", period.as_millis()), period)
            .ours("polyproc Mutex", || shared_by_processes(ours::mutex(), among, period))
            .rival("parking_lot::Mutex, threads", || {
                shared_by_threads(parking_lot::Mutex::new(0), among, period)
            })
            .rival("std::sync::Mutex, threads", || shared_by_threads(std::sync::Mutex::new(0), among, period))
            .rival("pthread, plain", || shared_by_processes(posix::Pthread::new(false), among, period))
            .rival("pthread, robust", || shared_by_processes(posix::Pthread::new(true), among, period))
            .rival("POSIX semaphore", || shared_by_processes(posix::Semaphore::new(1), among, period));
        table = rival!(table, "raw_sync", "raw_sync Mutex", || {
            shared_by_processes(RawSync::new(), among, period)
        });
        table = rival!(table, "iceoryx2", "iceoryx2 building block, robust", || {
            shared_by_processes(iceoryx2::Block::new(true), among, period)
        });
        let numbers = [among as u64, period.as_micros() as u64];
        if boost::is_there() {
            table = table.rival("Boost interprocess_mutex", move || boost::run_seen("fairness", &numbers));
        }
        if python::is_there() {
            table = table.rival("Python Lock", move || python::run_seen("lock.py", "fairness", &numbers));
        }
        table.run();
    }
    finish();
}
