//! The ends of every range, and several things at once that each are rare.

mod common;

use common::{die, signal, state, wait_until, watchdog};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use polyproc_pool::{Pool, PoolError, Retry, TaskError};
use polyproc_process::{Process, init_for_tests};
use polyproc_value::{Array, RawArray, RawValue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

init_for_tests!();

fn square(n: u64) -> u64 {
    n * n
}

fn hang(beacon: RawValue<u32>) {
    beacon.store(std::process::id());
    std::thread::sleep(Duration::from_secs(100));
}

#[test]
fn nothing_and_one_thing_in_every_way() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let batches = [
        pool.batch(),
        pool.batch().chunk_size(1),
        pool.batch().chunk_size(usize::MAX),
        pool.batch().max_in_flight(0),
        pool.batch().max_in_flight(usize::MAX).chunk_size(3),
    ];
    for batch in &batches {
        for count in [0, 1, 2] {
            let expected = || (0..count).map(square);
            assert!(batch.map(square, 0..count).unwrap().into_iter().eq(expected()));
            assert!(batch.starmap(square, (0..count).map(|n| (n,))).unwrap().into_iter().eq(expected()));
            assert!(batch.map_async(square, 0..count).get().unwrap().into_iter().eq(expected()));
            assert!(batch.imap(square, 0..count).map(Result::unwrap).eq(expected()));
            let mut unordered: Vec<_> = batch.imap_unordered(square, 0..count).map(Result::unwrap).collect();
            unordered.sort_unstable();
            assert!(unordered.into_iter().eq(expected()));
        }
    }
    let array = Array::new(&[1u8; 3]).unwrap();
    for len in [1, 3, usize::MAX] {
        pool.for_each_chunk(&mut array.lock().unwrap(), len, |part: &mut [u8]| part[0] += 1).unwrap();
    }
    assert_eq!(array.to_vec().unwrap(), [4, 2, 2]);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.batch().chunk_size(0))).is_err());
    // What the function returns is the result, also if it is an `Err`.
    let parse = |text: String| text.parse::<u8>().map_err(|error| error.to_string());
    let parsed = pool.map(parse, ["7", "x"].map(String::from)).unwrap();
    assert!(parsed[0] == Ok(7) && parsed[1].is_err());
}

#[test]
fn no_time_and_all_time() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let beacon = RawValue::new(0).unwrap();
    let slow = pool.apply_async(hang, (beacon.clone(),));
    wait_until("it runs", || beacon.load() != 0);
    assert!(matches!(slow.get_timeout(Duration::ZERO), Err(TaskError::NotReady)));
    let behind = pool.apply_async(square, (3,));
    let mut results = pool.imap(square, 0..3);
    assert!(matches!(results.next_timeout(Duration::ZERO), Some(Err(TaskError::NotReady))));
    assert!(slow.cancel());
    assert_eq!(behind.get_timeout(Duration::MAX).unwrap(), 9);
    assert_eq!(results.next_timeout(Duration::MAX).unwrap().unwrap(), 0);
    assert!(pool.apply_async(square, (3,)).wait_timeout(Duration::MAX));
    assert!(results.map(Result::unwrap).eq([1, 4]));
    pool.close();
    pool.join_timeout(Duration::MAX).unwrap();
    pool.join_timeout(Duration::ZERO).unwrap();
    // No task may take no time at all, so all that is sure is that each ends.
    let pool = Pool::builder().workers(2).task_timeout(Duration::ZERO).build().unwrap();
    for result in pool.imap(square, 0..20) {
        assert!(matches!(result, Ok(_) | Err(TaskError::TimedOut { .. })), "{result:?}");
    }
    let slow = pool.apply(|| std::thread::sleep(Duration::from_secs(100)), ());
    assert!(matches!(slow, Err(TaskError::TimedOut { .. })), "{slow:?}");
}

/// Whoever is first, everybody hears of an end, and nobody is left.
#[test]
fn all_ways_to_end_a_pool_at_once() {
    let _watchdog = watchdog();
    for round in 0..25 {
        let pool = Arc::new(Pool::new(2).unwrap());
        let pids: Vec<u32> = pool.stats().workers.iter().map(|worker| worker.pid).collect();
        std::thread::scope(|scope| {
            let spawn = |f: fn(&Pool)| {
                let pool = Arc::clone(&pool);
                scope.spawn(move || f(&pool));
            };
            spawn(|pool| drop(pool.map(square, 0..20_000)));
            spawn(|pool| pool.imap(square, 0..).take_while(Result::is_ok).for_each(drop));
            spawn(|pool| drop(pool.apply_async(square, (1,)).get()));
            std::thread::sleep(Duration::from_micros(round * 40));
            spawn(Pool::close);
            spawn(|pool| drop(pool.resize(1)));
            spawn(|pool| while matches!(pool.join(), Err(PoolError::StillOpen)) {});
            spawn(|pool| pool.workers_die());
            spawn(|pool| pool.terminate());
            spawn(|pool| drop(pool.resize(5)));
            drop(pool);
        });
        wait_until("the workers are gone", || pids.iter().all(|&pid| matches!(state(pid), None | Some('Z'))));
    }
}

trait WorkersDie {
    fn workers_die(&self);
}

impl WorkersDie for Pool {
    /// Kills one, if there is any.
    fn workers_die(&self) {
        if let Some(worker) = self.stats().workers.first() {
            let _ = kill(Pid::from_raw(i32::try_from(worker.pid).unwrap()), Signal::SIGKILL);
        }
    }
}

#[test]
fn a_callback_may_do_everything_with_its_pool() {
    let _watchdog = watchdog();
    let pool = Arc::new(Pool::new(2).unwrap());
    let (sender, receiver) = mpsc::channel();
    let inner = Arc::clone(&pool);
    pool.apply_async(square, (2,)).then(move |_| {
        inner.resize(3).unwrap();
        let all = inner.map(square, 0..100).unwrap().len();
        let one = inner.imap(square, 0..).nth(5).unwrap().unwrap();
        let again = Arc::clone(&inner);
        // Another callback comes after this one.
        inner.map_async(square, 0..10).then(move |squares| {
            again.close();
            let is_over = again.join().is_ok();
            // The last one who has it.
            drop(again);
            sender.send((squares.unwrap().len(), is_over)).unwrap();
        });
        assert_eq!((all, one, inner.stats().deaths), (100, 25, 0));
    });
    drop(pool);
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok((10, true)));
}

#[test]
fn a_pool_in_a_worker_ends_with_it() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let beacons = RawArray::zeroed(3).unwrap();
    let middle = |beacons: RawArray<u32>| {
        beacons.store(0, std::process::id()).unwrap();
        let pool = Pool::new(2).unwrap();
        let inner = |(beacons, n): (RawArray<u32>, usize)| {
            beacons.store(n, std::process::id()).unwrap();
            std::thread::sleep(Duration::from_secs(100));
        };
        let _ = pool.map(inner, [(beacons.clone(), 1), (beacons, 2)]);
    };
    let result = pool.apply_async(middle, (beacons.clone(),));
    wait_until("all are at work", || beacons.to_vec().iter().all(|&pid| pid != 0));
    signal(beacons.load(0).unwrap(), Signal::SIGKILL);
    assert!(
        matches!(result.get(), Err(TaskError::WorkerDied { pid, .. }) if pid == beacons.load(0).unwrap())
    );
    wait_until("its workers are gone", || {
        beacons.to_vec().iter().all(|&pid| matches!(state(pid), None | Some('Z')))
    });
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
}

/// How many tasks were done, how many children were forked, and who the last one is.
static COUNTS: OnceLock<RawArray<u32>> = OnceLock::new();

/// The child would go on with the rest of the chunk, and say so on its parent's line.
#[test]
fn a_task_may_fork() {
    let _watchdog = watchdog();
    let counts = RawArray::zeroed(3).unwrap();
    let remember = |counts: RawArray<u32>| drop(COUNTS.set(counts));
    let pool = Pool::builder().workers(1).initializer(remember, (counts.clone(),)).build().unwrap();
    let pid = pool.apply(std::process::id, ()).unwrap();
    let task = |n: u64| {
        let counts = COUNTS.get().unwrap();
        if n == 3 {
            // SAFETY: the child goes on as the worker's copy, which is what is tested; it has one thread.
            if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
                counts.fetch_add(1, 1).unwrap();
                counts.store(2, std::process::id()).unwrap();
            }
        }
        std::thread::sleep(Duration::from_micros(100));
        counts.fetch_add(0, 1).unwrap();
        n
    };
    let results = pool.batch().chunk_size(10).map(task, 0..20).unwrap();
    assert!(results.into_iter().eq(0..20));
    wait_until("the child has ended", || match counts.load(2).unwrap() {
        0 => false,
        child => matches!(state(child), None | Some('Z')),
    });
    // The one in the child is the twenty-first.
    assert_eq!(counts.to_vec()[..2], [21, 1]);
    assert_eq!(pool.apply(std::process::id, ()).unwrap(), pid);
}

/// The child would be a second worker, on its parent's line.
#[test]
fn an_initializer_and_the_maker_of_a_state_may_fork() {
    let _watchdog = watchdog();
    let branch = |children: RawArray<u32>| {
        // SAFETY: the child goes on as the worker's copy, which is what is tested; it has one thread.
        if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
            let place = children.fetch_add(0, 1).unwrap() as usize + 1;
            children.store(place, std::process::id()).unwrap();
            assert!(place < 2, "in a child this is nobody's business");
        }
        0u64
    };
    // How many, and who.
    let children = RawArray::zeroed(4).unwrap();
    let pool = Pool::builder()
        .workers(1)
        .initializer(move |children: RawArray<u32>| assert_eq!(branch(children), 0), (children.clone(),))
        .with_worker_state(branch, (children.clone(),))
        .unwrap();
    let pid = pool.apply(|_: &mut u64, ()| std::process::id(), ()).unwrap();
    wait_until("both were forked", || children.load(2).unwrap() != 0);
    for child in [1, 2].map(|place| children.load(place).unwrap()) {
        assert_ne!(child, pid);
        wait_until("the child has ended", || matches!(state(child), None | Some('Z')));
    }
    assert_eq!(children.load(0).unwrap(), 2, "a child went on");
    let pids = pool.map(|_: &mut u64, _: u32| std::process::id(), 0..100).unwrap();
    assert_eq!((pids, pool.stats().deaths), (vec![pid; 100], 0));
}

#[test]
fn workers_without_input_and_output_work() {
    let _watchdog = watchdog();
    let close = || {
        for number in 0..3 {
            nix::unistd::close(number).unwrap();
        }
    };
    let pool = Pool::builder().workers(2).initializer(close, ()).build().unwrap();
    let double = |bytes: Vec<u8>| [&bytes[..], &bytes[..]].concat();
    for length in [0, 100, 100_000, 3_000_000] {
        let results = pool.map(double, vec![vec![1; length]; 4]).unwrap();
        assert!(results.iter().all(|bytes| *bytes == vec![1; 2 * length]));
    }
    let value = RawValue::new(7u32).unwrap();
    assert_eq!(pool.apply(|value: RawValue<u32>| value, (value,)).unwrap().load(), 7);
}

/// Twenty descriptors are room for one worker or two. A program that has no more finds out, and can go on.
#[test]
fn few_descriptors_are_enough_for_few_workers() {
    let _watchdog = watchdog();
    let program = || {
        setrlimit(Resource::RLIMIT_NOFILE, 20, 20).unwrap();
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        // The first one leaves what the process has once.
        let counts = [(); 2].map(|()| {
            assert!(matches!(Pool::new(8), Err(PoolError::Io(_) | PoolError::Spawn(_))));
            descriptors()
        });
        assert_eq!(counts[0], counts[1]);
        let pool = Pool::builder().workers(1).retry(Retry::UpTo(1)).build().unwrap();
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
        assert!(pool.apply(die, ()).is_err());
        pool.resize(9).unwrap();
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
        let length = |bytes: Vec<u8>| bytes.len();
        let long = pool.apply(length, (vec![1; 100_000],));
        assert!(matches!(long, Ok(100_000) | Err(TaskError::Encode(_))), "{long:?}");
        assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    };
    Process::spawn(program, ()).unwrap().join().unwrap();
}

#[test]
fn a_stopped_worker_takes_too_long() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).task_timeout(Duration::from_millis(50)).build().unwrap();
    let beacon = RawValue::new(0).unwrap();
    let stopped = pool.apply_async(
        |beacon: RawValue<u32>| {
            beacon.store(std::process::id());
            kill(Pid::this(), Signal::SIGSTOP).unwrap();
        },
        (beacon.clone(),),
    );
    assert!(matches!(stopped.get(), Err(TaskError::TimedOut { pid, .. }) if pid == beacon.load()));
    // One that stands still before it begins anything has taken no time for it, and another runs it.
    let pid = pool.apply(std::process::id, ()).unwrap();
    signal(pid, Signal::SIGSTOP);
    wait_until("it is stopped", || state(pid) == Some('T'));
    assert_ne!(pool.apply(std::process::id, ()).unwrap(), pid);
    assert_eq!(pool.stats().deaths, 2);
}

/// Of a result that is longer than its slab a part has come, and then nothing more.
#[test]
fn a_worker_killed_halfway_through_a_long_result() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let long = |length: usize| vec![7u8; length];
    for _ in 0..8 {
        assert_eq!(pool.apply(long, (100_000,)).unwrap().len(), 100_000);
        let pid = pool.stats().workers[0].pid;
        let result = pool.apply_async(long, (8 << 20,));
        let behind = pool.apply_async(square, (3,));
        // Most times nobody receives for a moment, so the worker stands before a line that is full.
        wait_until("it waits", || state(pid) == Some('S'));
        signal(pid, Signal::SIGSTOP);
        result.wait_timeout(Duration::from_millis(2));
        signal(pid, Signal::SIGKILL);
        match result.get() {
            Ok(bytes) => assert_eq!(bytes.len(), 8 << 20),
            Err(error) => assert!(matches!(error, TaskError::WorkerDied { .. }), "{error}"),
        }
        assert_eq!(behind.get().unwrap(), 9);
    }
}

/// With a killer that spares nobody, and a queue of work.
#[test]
fn many_workers_that_are_killed_at_random_do_everything_all_the_same() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(40).retry(Retry::UpTo(50)).build().unwrap();
    let is_over = AtomicBool::new(false);
    let results = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1u64;
            while !is_over.load(Ordering::Relaxed) {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let workers = pool.stats().workers;
                let ready: Vec<_> = workers.iter().filter(|worker| worker.ready.is_some()).collect();
                if let Some(worker) = ready.get((random >> 33) as usize % ready.len().max(1)) {
                    let _ = kill(Pid::from_raw(i32::try_from(worker.pid).unwrap()), Signal::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let results = pool.map(square, 0..60_000);
        let longs = pool.map(|n: u64| vec![n; 5000], 0..100);
        is_over.store(true, Ordering::Relaxed);
        assert!(longs.unwrap().iter().enumerate().all(|(n, long)| *long == vec![n as u64; 5000]));
        results
    });
    assert!(results.unwrap().into_iter().eq((0..60_000).map(square)));
}

/// What is never asked for again holds up no end.
#[test]
fn a_forgotten_iterator_holds_up_nobody() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let mut results = pool.imap(square, 0..);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    std::mem::forget(results);
    std::mem::forget(pool.apply_async(square, (1,)));
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    pool.close();
    pool.join().unwrap();
}

/// A lock of the user's own is held while the pool is used, and callbacks want it.
#[test]
fn a_callback_that_waits_holds_up_callbacks_only() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let lock = Arc::new(Mutex::new(0));
    let held = lock.lock().unwrap();
    for _ in 0..3 {
        let lock = Arc::clone(&lock);
        pool.apply_async(square, (2,)).then(move |result| *lock.lock().unwrap() += result.unwrap());
    }
    assert_eq!(pool.map(square, 0..1000).unwrap().len(), 1000);
    drop(held);
    wait_until("all were called", || *lock.lock().unwrap() == 12);
}
