//! Random deaths under load.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test soak -- --nocapture
//! POLYPROC_KILLS=100000 cargo test --release -p polyproc-tests --test soak -- --nocapture
//! POLYPROC_SEED=12345 cargo test --release -p polyproc-tests --test soak -- --nocapture
//! ```

use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_tests::child::Child;
use polyproc_tests::random::{from_environment, seed};
use polyproc_tests::shared::Shared;
use polyproc_tests::soak;
use polyproc_tests::system::{mapped_regions, names, one_at_a_time, open_descriptors, state};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn random_kills_leave_the_books_exact() {
    let _turn = one_at_a_time();
    let before = (open_descriptors(), mapped_regions());
    let (seed, kills) = (seed(), from_environment("POLYPROC_KILLS").unwrap_or(2_000));
    println!("POLYPROC_SEED={seed} POLYPROC_KILLS={kills}");
    let report = soak::run(seed, kills as u32);
    println!("{report}");
    assert_eq!(before, (open_descriptors(), mapped_regions()), "descriptors and regions are left");
    // A soak in which nobody died inside a critical section has shown nothing.
    if kills >= 500 {
        assert!(report.repairs > 0 && report.doing[1] > 0 && report.doing[2] > 0, "{report}");
    }
}

/// What there is in the places where a family of processes could leave something.
fn files() -> BTreeSet<String> {
    let folders = [Path::new("/dev/shm"), &std::env::temp_dir()];
    folders.iter().flat_map(|folder| names(folder)).collect()
}

#[test]
fn a_family_that_is_killed_leaves_nothing() {
    let _turn = one_at_a_time();
    // Other programs use these places too. What they leave there meanwhile, they do not leave there three times.
    let left = (0..3).map(|_| kill_a_family()).find(BTreeSet::is_empty);
    assert!(left.is_some(), "there are new files each time");
}

/// Kills a parent and its workers in the middle of their work. The files that are there since.
fn kill_a_family() -> BTreeSet<String> {
    let before = (open_descriptors(), mapped_regions());
    let files_before = files();
    let pids = Shared::<[AtomicU32; soak::PLACES]>::new();
    let mut head = Child::fork(|| {
        let books = soak::Books::new();
        let workers: Vec<Child> =
            (0..soak::PLACES).map(|place| Child::fork(|| soak::work_forever(&books, place))).collect();
        for (pid, worker) in pids.iter().zip(&workers) {
            pid.store(worker.pid(), Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_secs(100));
    });
    let alive = |pid: &AtomicU32| matches!(state(pid.load(Ordering::Relaxed)), Some(state) if state != 'Z');
    wait_until("all work", || pids.iter().all(|pid| pid.load(Ordering::Relaxed) != 0 && alive(pid)));
    // Its workers die with it, by `SIGKILL` as well.
    head.kill();
    drop(head);
    wait_until("none is left", || !pids.iter().any(alive));
    drop(pids);
    assert_eq!(before, (open_descriptors(), mapped_regions()), "descriptors and regions are left");
    files().difference(&files_before).cloned().collect()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(10), "not in time: {what}");
        std::thread::yield_now();
    }
}
