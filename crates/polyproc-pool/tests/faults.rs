//! What a pool does when workers die, tasks panic, and everything else goes wrong.

mod common;

use common::{die, signal, spin, state, wait_until, watchdog};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use polyproc_pool::{Pool, PoolError, Retry, TaskError};
use polyproc_process::{Process, init_for_tests, parent_process};
use polyproc_value::{Array, LockTimeoutError, RawArray, RawValue, TryLockError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

init_for_tests!();

fn square(n: u64) -> u64 {
    n * n
}

/// The signal and the attempt of a death.
#[track_caller]
fn death<R>(result: Result<R, TaskError>) -> (Option<i32>, u32) {
    match result {
        Err(TaskError::WorkerDied { status, attempt, pid }) => {
            assert_ne!(pid, 0);
            (status.signal(), attempt)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a result"),
    }
}

#[test]
fn a_task_that_kills_its_worker_is_named_and_no_other() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let count = RawValue::new(0u64).unwrap();
    let task = |count: RawValue<u64>, n: u64| {
        count.fetch_add(1);
        if n == 37 {
            die();
        }
        n * n
    };
    let input = (0..100).map(|n| (count.clone(), n));
    let error = pool.starmap(task, input).unwrap_err();
    assert_eq!((error.index(), error.errors().count()), (37, 1));
    for (n, result) in error.into_results().into_iter().enumerate() {
        if n == 37 {
            assert_eq!(death(result), (Some(9), 1));
        } else {
            assert_eq!(result.unwrap(), square(n as u64));
        }
    }
    assert_eq!(count.load(), 100, "each task ran once");
    assert_eq!(pool.stats().deaths, 1);
}

/// In one chunk: what came before the death is not run again, and what comes after is run.
#[test]
fn a_death_in_the_middle_of_a_chunk_loses_and_repeats_nothing() {
    let _watchdog = watchdog();
    static RUNS: std::sync::OnceLock<RawValue<u64>> = std::sync::OnceLock::new();
    let runs = RawValue::new(0u64).unwrap();
    let remember = |runs: RawValue<u64>| drop(RUNS.set(runs));
    let pool = Pool::builder().workers(1).initializer(remember, (runs.clone(),)).build().unwrap();
    // Of different sizes, so that results begin anywhere in a word, and some do not fit the board, with others behind them that do.
    fn expected(n: u64) -> String {
        let letter = char::from(b'a' + (n % 26) as u8);
        letter.to_string().repeat((n % 7) as usize * if n % 100 == 77 { 20_000 } else { 1 })
    }
    let task = |n: u64| {
        RUNS.get().unwrap().fetch_add(1);
        if n % 100 == 50 {
            die();
        }
        expected(n)
    };
    let error = pool.batch().chunk_size(300).map(task, 0..1000).unwrap_err();
    let mut failed = 0;
    for (n, result) in error.into_results().into_iter().enumerate() {
        if n % 100 == 50 {
            failed += 1;
            assert_eq!(death(result), (Some(9), 1), "{n}");
        } else {
            assert!(result.unwrap() == expected(n as u64), "{n}");
        }
    }
    assert_eq!(failed, 10);
    assert_eq!(runs.load(), 1000, "each task ran once");
}

#[test]
fn idle_workers_that_are_killed_are_replaced() {
    let _watchdog = watchdog();
    let pool = Pool::new(3).unwrap();
    for _ in 0..5 {
        wait_until("all are ready", || {
            pool.stats().workers.iter().filter(|worker| worker.ready.is_some()).count() == 3
        });
        let old: Vec<u32> = pool.stats().workers.iter().map(|worker| worker.pid).collect();
        old.iter().for_each(|&pid| signal(pid, Signal::SIGKILL));
        assert!(pool.map(square, 0..1000).unwrap().into_iter().eq((0..1000).map(square)));
        wait_until("they are replaced", || {
            pool.stats().workers.iter().all(|worker| !old.contains(&worker.pid))
        });
    }
    assert_eq!(pool.stats().deaths, 15);
}

/// Somebody from outside kills workers at any moment; what they were at is said, everything else is right.
#[test]
fn workers_killed_at_any_moment_cost_their_own_task_only() {
    let _watchdog = watchdog();
    for chunk in [1, 40] {
        let pool = Arc::new(Pool::new(2).unwrap());
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let killer = std::thread::spawn({
            let (pool, stop) = (Arc::clone(&pool), Arc::clone(&stop));
            move || {
                let mut random = 12345u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    spin(Duration::from_micros(2_000 + (random >> 33) % 3_000));
                    let stats = pool.stats();
                    let ready: Vec<u32> = stats
                        .workers
                        .iter()
                        .filter(|worker| worker.ready.is_some())
                        .map(|worker| worker.pid)
                        .collect();
                    if let Some(&pid) = ready.get((random >> 40) as usize % ready.len().max(1)) {
                        // Not reaped before the pool knows: at worst a zombie.
                        let pid = nix::unistd::Pid::from_raw(pid as i32);
                        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                    }
                }
            }
        });
        let count = RawValue::new(0u64).unwrap();
        let task = |(count, n): (RawValue<u64>, u64)| {
            count.fetch_add(1);
            vec![n; (n % 50) as usize]
        };
        let input = (0..3_000u64).map(|n| (count.clone(), n));
        let results = match pool.batch().chunk_size(chunk).map(task, input) {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(error) => error.into_results(),
        };
        let plain = pool.batch().chunk_size(chunk).map(|n: u64| vec![n; (n % 50) as usize], 0..200_000);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        killer.join().unwrap();
        let mut deaths = 0;
        for (n, result) in results.into_iter().enumerate() {
            match result {
                Ok(words) => assert!(words.len() == n % 50 && words.iter().all(|&word| word == n as u64)),
                Err(TaskError::WorkerDied { attempt: 1, .. }) => deaths += 1,
                Err(other) => panic!("{other}"),
            }
        }
        // One that died was run or not; nothing else was run twice.
        assert!(count.load() <= 3_000 && count.load() >= 3_000 - deaths, "{} {deaths}", count.load());
        let plain = match plain {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(error) => error.into_results(),
        };
        assert_eq!(plain.len(), 200_000);
        let mut deaths = 0u64;
        for (n, result) in plain.into_iter().enumerate() {
            match result {
                Ok(words) => assert!(words.len() == n % 50 && words.iter().all(|&word| word == n as u64)),
                Err(TaskError::WorkerDied { .. }) => deaths += 1,
                Err(other) => panic!("{other}"),
            }
        }
        let stats = pool.stats();
        assert!(stats.deaths > 3, "{stats:?}");
        assert!(deaths <= stats.deaths);
    }
}

#[test]
fn one_in_a_hundred_kills_its_worker() {
    let _watchdog = watchdog();
    let task = |n: u64| {
        if n % 100 == 99 {
            die();
        }
        n * n
    };
    let pool = Pool::new(2).unwrap();
    let results = pool.map(task, 0..10_000).unwrap_err().into_results();
    assert_eq!(results.len(), 10_000);
    for (n, result) in results.into_iter().enumerate() {
        if n % 100 == 99 {
            assert_eq!(death(result), (Some(9), 1), "{n}");
        } else {
            assert_eq!(result.unwrap(), square(n as u64));
        }
    }
    assert_eq!(pool.stats().deaths, 100);
}

#[test]
fn with_retries_all_results_are_right() {
    let _watchdog = watchdog();
    let tries = Array::<u8>::zeroed(10_000).unwrap();
    // Each task that is a multiple of 100 kills its worker twice.
    let task = |(tries, n): (Array<u8>, u64)| {
        if n % 100 == 0 {
            let tried = tries.update(n as usize, |count| {
                *count += 1;
                *count
            });
            if tried.unwrap() < 3 {
                die();
            }
        }
        n * n
    };
    let pool = Pool::builder().workers(2).retry(Retry::UpTo(3)).build().unwrap();
    let results = pool.map(task, (0..10_000).map(|n| (tries.clone(), n))).unwrap();
    assert!(results.into_iter().eq((0..10_000).map(square)));
    assert_eq!(pool.stats().deaths, 200);
    let hopeless = pool.apply(die, ());
    assert_eq!(death(hopeless), (Some(9), 4));
}

#[test]
fn all_ways_to_end_a_process_are_told_apart() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    match pool.apply(|| -> () { std::process::exit(7) }, ()) {
        Err(TaskError::WorkerDied { status, .. }) => assert_eq!(status.code(), Some(7)),
        other => panic!("{other:?}"),
    }
    assert_eq!(death(pool.apply(|| -> () { std::process::abort() }, ())).0, Some(6));
    #[allow(unconditional_recursion)]
    fn deeper(n: u64) -> u64 {
        std::hint::black_box(deeper(std::hint::black_box(n + 1)) + 1)
    }
    let overflow = death(pool.apply(deeper, (0,))).0;
    assert!(matches!(overflow, Some(6 | 11)), "{overflow:?}");
    assert_eq!(pool.apply(square, (6,)).unwrap(), 36);
}

#[test]
fn panics_are_results_with_their_place_and_their_worker_goes_on() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let pid = pool.apply(std::process::id, ()).unwrap();
    let divide = |n: u64| {
        assert_ne!(n, 0, "nothing to divide by");
        12 / n
    };
    let results = pool.map(divide, [3, 0, 4]).unwrap_err().into_results();
    assert!(matches!((&results[0], &results[2]), (Ok(4), Ok(3))));
    match results.into_iter().nth(1).unwrap() {
        Err(TaskError::Panicked { message, location, backtrace }) => {
            assert!(message.contains("nothing to divide by"), "{message}");
            assert!(location.contains("faults.rs:"), "{location}");
            let is_wanted = std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0");
            assert_eq!(backtrace.contains("panics_are_results"), is_wanted, "{backtrace}");
        }
        other => panic!("{other:?}"),
    }
    match pool.apply(|| -> () { std::panic::panic_any(7) }, ()) {
        Err(TaskError::Panicked { message, .. }) => assert_eq!(message, "no message"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.apply(std::process::id, ()).unwrap(), pid);
}

/// Fails to be read if it is a multiple of ten, to be written if it is 5.
#[derive(Debug, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            5 => Err(serde::ser::Error::custom("not five")),
            6 => panic!("not six"),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Picky, D::Error> {
        match u32::deserialize(deserializer)? {
            n if n % 10 == 0 => Err(serde::de::Error::custom("no tens")),
            7 => panic!("not seven"),
            n => Ok(Picky(n)),
        }
    }
}

#[test]
fn what_cannot_be_sent_or_read_is_that_tasks_error() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    // The way there.
    let results = pool.batch().chunk_size(20).map(|n: Picky| n.0, (1..=5).chain(7..=21).map(Picky));
    let results = results.unwrap_err().into_results();
    for (n, result) in (1..=5).chain(7..=21).zip(results) {
        match (n, result) {
            (5, Err(TaskError::Encode(_))) | (10 | 20, Err(TaskError::Arguments(_))) => {}
            (7, Err(TaskError::Panicked { message, .. })) => assert_eq!(message, "not seven"),
            (n, result) => assert_eq!(result.unwrap(), n),
        }
    }
    // The way back.
    let results = pool.batch().chunk_size(20).map(|n: u32| Picky(n), (1..=6).chain(8..=21));
    let results = results.unwrap_err().into_results();
    for (n, result) in (1..=6).chain(8..=21).zip(results) {
        match (n, result) {
            (5, Err(TaskError::Unsendable(_))) | (10 | 20, Err(TaskError::Decode(_))) => {}
            (6, Err(TaskError::Panicked { message, .. })) => assert_eq!(message, "not six"),
            (n, result) => assert_eq!(result.unwrap(), Picky(n)),
        }
    }
}

#[test]
fn a_worker_killed_while_it_writes_a_long_result() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    // Stopped by nobody: it is killed some time after it has begun to send.
    for micros in (0..2_000).step_by(100) {
        let pid = pool.apply(std::process::id, ()).unwrap();
        let long = pool.apply_async(|| vec![1u8; 3 << 20], ());
        spin(Duration::from_micros(2_000 + micros * 4));
        signal(pid, Signal::SIGKILL);
        match long.get() {
            Ok(bytes) => assert_eq!(bytes.len(), 3 << 20),
            Err(TaskError::WorkerDied { status, .. }) => assert_eq!(status.signal(), Some(9)),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(pool.apply(square, (2,)).unwrap(), 4);
    }
}

/// How often each task was begun.
static TRIES: OnceLock<RawArray<u64>> = OnceLock::new();

/// They lie in memory that all workers know and that is used again. Between them are short ones, and those that panic.
#[test]
fn long_arguments_outlive_their_workers() {
    let _watchdog = watchdog();
    const COUNT: usize = 120;
    let tries = RawArray::zeroed(COUNT).unwrap();
    let remember = |tries: RawArray<u64>| TRIES.set(tries).unwrap();
    let task = |bytes: Vec<u8>| {
        let number = usize::from(bytes[0]);
        let tried = TRIES.get().unwrap().fetch_add(number, 1).unwrap();
        if number % 11 == 3 && tried < 2 {
            die();
        }
        assert_ne!(number % 40, 7, "never");
        assert!(bytes.iter().all(|byte| usize::from(*byte) == number), "{number} is another's");
        bytes
    };
    let argument = |number: usize| match number % 9 {
        8 => vec![number as u8; 5],
        _ => vec![number as u8; 60_000 + 7_919 * number],
    };
    let pool = Pool::builder().workers(3).retry(Retry::UpTo(2)).initializer(remember, (tries.clone(),));
    let pool = pool.build().unwrap();
    let results: Vec<_> = pool.imap(task, (0..COUNT).map(argument)).collect();
    assert_eq!(results.len(), COUNT);
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Err(TaskError::Panicked { message, .. }) => {
                assert!(number % 40 == 7 && message.contains("never"), "{message}");
            }
            result => assert!(result.unwrap() == argument(number), "{number}"),
        }
        let expected = if number % 11 == 3 { 3 } else { 1 };
        assert_eq!(tries.load(number), Ok(expected), "{number}");
    }
}

#[test]
fn a_death_is_reported_at_once() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let mut times: Vec<Duration> = (0..41)
        .map(|_| {
            let beacon = RawValue::new(0u32).unwrap();
            let hang = |beacon: RawValue<u32>| {
                beacon.store(std::process::id());
                std::thread::sleep(Duration::from_secs(100));
            };
            let result = pool.apply_async(hang, (beacon.clone(),));
            let waiter = std::thread::spawn(move || {
                assert_eq!(death(result.get()).0, Some(9));
                Instant::now()
            });
            wait_until("the task runs", || beacon.load() != 0);
            std::thread::sleep(Duration::from_millis(2));
            let killed = Instant::now();
            signal(beacon.load(), Signal::SIGKILL);
            waiter.join().unwrap() - killed
        })
        .collect();
    times.sort();
    println!("killed worker to its error: median {:?}, worst {:?}", times[20], times[40]);
    assert!(times[20] < Duration::from_millis(5), "{times:?}");
}

#[test]
fn an_initializer_that_fails_breaks_the_pool_with_its_message() {
    let _watchdog = watchdog();
    let refuse = |why: String| -> Result<(), String> { Err(why) };
    let pool = Pool::builder().workers(2).initializer(refuse, ("no licence".to_owned(),)).build().unwrap();
    match pool.map(square, 0..1000).unwrap_err().into_error() {
        TaskError::Broken(PoolError::Initializer(why)) => assert_eq!(why, "no licence"),
        other => panic!("{other}"),
    }
    assert!(matches!(pool.apply(square, (1,)), Err(TaskError::Broken(_))));
    assert!(matches!(pool.join(), Err(PoolError::Initializer(_))));
    let panics = || -> () { panic!("cannot begin") };
    let pool = Pool::builder().workers(1).initializer(panics, ()).build().unwrap();
    match pool.apply(square, (1,)) {
        Err(TaskError::Broken(PoolError::Initializer(why))) => assert!(why.contains("cannot begin"), "{why}"),
        other => panic!("{other:?}"),
    }
    let makes_none = || -> u32 { panic!("no state") };
    let pool = Pool::builder().workers(1).with_worker_state(makes_none, ()).unwrap();
    assert!(matches!(pool.apply(|_, n: u32| n, 1), Err(TaskError::Broken(PoolError::Initializer(_)))));
}

#[test]
fn workers_killed_in_their_initializer_are_replaced_but_not_for_ever() {
    let _watchdog = watchdog();
    let lives = RawValue::new(2u32).unwrap();
    let fragile = |lives: RawValue<u32>| {
        if lives.fetch_update(|left| left.checked_sub(1)).is_ok() {
            die();
        }
    };
    let pool = Pool::builder().workers(1).initializer(fragile, (lives,)).build().unwrap();
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    assert_eq!(pool.stats().deaths, 2);
    let pool = Pool::builder().workers(2).initializer(die, ()).build().unwrap();
    match pool.apply(square, (1,)) {
        Err(TaskError::Broken(PoolError::WorkersDie { status, .. })) => assert_eq!(status.signal(), Some(9)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_task_that_no_worker_can_take_is_given_up() {
    let _watchdog = watchdog();
    let limit = || setrlimit(Resource::RLIMIT_NOFILE, 40, 40).unwrap();
    let pool = Pool::builder().workers(2).initializer(limit, ()).build().unwrap();
    let handles: Vec<_> = (0..60).map(|_| RawValue::new(0u32).unwrap()).collect();
    let count = |handles: Vec<RawValue<u32>>| handles.len();
    let many = pool.apply_async(count, (handles.clone(),));
    let few = pool.map_async(count, (0..20).map(|n| handles[..n % 3].to_vec()));
    match many.get() {
        Err(TaskError::Unbegun { pid, status, deaths: 10 }) => assert!(pid != 0 && !status.success()),
        other => panic!("{other:?}"),
    }
    assert!(few.get().unwrap().into_iter().eq((0..20).map(|n| n % 3)));
    assert!(pool.stats().deaths >= 10);
    // Too little memory, for what comes in a slab of its own.
    let limit = || {
        let size = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = size.split(' ').next().unwrap().parse().unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
        setrlimit(Resource::RLIMIT_AS, pages * 4096 + (4 << 20), hard).unwrap();
    };
    let pool = Pool::builder().workers(1).initializer(limit, ()).build().unwrap();
    let length = |bytes: Vec<u8>| bytes.len();
    // More than the system may free once the size was read: a thread's arena has 64 MiB too many for a moment.
    let long = pool.apply_async(length, (vec![1; 100 << 20],));
    let long = long.get();
    assert!(matches!(long, Err(TaskError::Unbegun { deaths: 10, .. })), "{long:?}");
    assert_eq!(pool.apply(length, (vec![1; 100],)).unwrap(), 100);
}

#[test]
fn a_task_that_takes_too_long_ends_with_its_worker() {
    let _watchdog = watchdog();
    let limit = Duration::from_millis(200);
    let pool = Pool::builder().workers(2).task_timeout(limit).build().unwrap();
    let task = |n: u64| {
        if n == 3 {
            std::thread::sleep(Duration::from_secs(100));
        }
        n
    };
    let start = Instant::now();
    let results = pool.batch().chunk_size(5).map(task, 0..10).unwrap_err().into_results();
    let elapsed = start.elapsed();
    assert!(elapsed >= limit && elapsed < Duration::from_secs(2), "{elapsed:?}");
    for (n, result) in results.into_iter().enumerate() {
        match (n, result) {
            (3, Err(TaskError::TimedOut { limit: said, pid })) => assert!(said == limit && pid != 0),
            (n, result) => assert_eq!(result.unwrap(), n as u64),
        }
    }
    // Many that are short are not one that is long.
    let nap = |_: u32| std::thread::sleep(Duration::from_millis(20));
    pool.batch().chunk_size(20).map(nap, 0..40).unwrap();
}

#[test]
fn what_is_cancelled_ends_and_nothing_else_does() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let beacon = RawValue::new(0u32).unwrap();
    let hang = |beacon: RawValue<u32>| {
        beacon.store(std::process::id());
        std::thread::sleep(Duration::from_secs(100));
    };
    let running = pool.apply_async(hang, (beacon.clone(),));
    let behind = pool.apply_async(square, (5,));
    let never = pool.apply_async(die, ());
    wait_until("the task runs", || beacon.load() != 0);
    assert!(never.cancel());
    assert!(running.cancel());
    assert!(matches!(running.get(), Err(TaskError::Cancelled)));
    assert!(matches!(never.get(), Err(TaskError::Cancelled)));
    assert_eq!(behind.get().unwrap(), 25);
    let done = pool.apply_async(square, (1,));
    done.wait();
    assert!(!done.cancel());
    assert_eq!(done.get().unwrap(), 1);
}

#[test]
fn a_pool_that_is_terminated_or_dropped_leaves_nobody() {
    let _watchdog = watchdog();
    let hang = |_: u32| std::thread::sleep(Duration::from_secs(100));
    let pool = Pool::new(3).unwrap();
    let result = pool.map_async(hang, 0..10);
    wait_until("all are ready", || pool.stats().workers.iter().all(|worker| worker.ready.is_some()));
    let pids: Vec<u32> = pool.stats().workers.iter().map(|worker| worker.pid).collect();
    let start = Instant::now();
    pool.terminate();
    pool.terminate();
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(pids.iter().all(|&pid| state(pid).is_none()));
    assert!(
        result.get().unwrap_err().into_results().iter().all(|one| matches!(one, Err(TaskError::Terminated)))
    );
    assert!(matches!(pool.apply(square, (1,)), Err(TaskError::Terminated)));

    let pool = Pool::new(2).unwrap();
    let result = pool.apply_async(hang, (1,));
    let mut results = pool.imap(square, 0..);
    results.next().unwrap().unwrap();
    let pids: Vec<u32> = pool.stats().workers.iter().map(|worker| worker.pid).collect();
    drop(pool);
    assert!(pids.iter().all(|&pid| state(pid).is_none()));
    assert!(matches!(result.get(), Err(TaskError::Terminated)));
    assert!(results.any(|result| matches!(result, Err(TaskError::Terminated))));
}

#[test]
fn a_callback_may_terminate_and_drop_the_pool() {
    let _watchdog = watchdog();
    let pool = Arc::new(Pool::new(2).unwrap());
    let (sender, receiver) = mpsc::channel();
    let result = pool.apply_async(square, (2,));
    result.then({
        let pool = Arc::clone(&pool);
        move |_| {
            pool.terminate();
            sender.send(pool.join().is_ok()).unwrap();
            drop(pool);
        }
    });
    drop(pool);
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(true));
}

#[test]
fn stopped_workers_hold_up_only_their_own_tasks() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    wait_until("both are ready", || pool.stats().workers.iter().all(|worker| worker.ready.is_some()));
    let stopped = pool.stats().workers[0].pid;
    signal(stopped, Signal::SIGSTOP);
    // More than one of them gets, and long ones, too.
    let mut results =
        pool.batch().chunk_size(1).imap_unordered(|bytes: Vec<u8>| bytes.len(), vec![vec![1; 100_000]; 20]);
    let mut arrived = 0;
    while let Some(Ok(length)) = results.next_timeout(Duration::from_millis(500)) {
        assert_eq!(length, 100_000);
        arrived += 1;
    }
    assert!(arrived >= 19, "{arrived}");
    signal(stopped, Signal::SIGCONT);
    assert_eq!(results.map(Result::unwrap).count(), 20 - arrived);
}

/// Where the worker that writes says who it is.
static BEACON: OnceLock<RawValue<u32>> = OnceLock::new();

/// Has a worker write to a lent array for ever.
fn lend_for_ever(array: Array<u64>, beacon: RawValue<u32>) {
    let remember = |beacon: RawValue<u32>| drop(BEACON.set(beacon));
    let pool = Pool::builder().workers(1).initializer(remember, (beacon,)).build().unwrap();
    let write = |part: &mut [u64]| loop {
        part[0] += 1;
        std::hint::black_box(&mut part[0]);
        BEACON.get().unwrap().store(std::process::id());
    };
    let _ = pool.for_each_chunk(&mut array.lock().unwrap(), 1, write);
}

/// The lock of its array is free, and still nobody has it before the worker, who may write, is gone.
#[test]
fn a_lent_array_is_nobodys_as_long_as_a_worker_of_a_killed_pool_may_write() {
    let _watchdog = watchdog();
    let array = Array::<u64>::zeroed(2).unwrap();
    for is_stopped in [true, false] {
        let beacon = RawValue::new(0u32).unwrap();
        let lender = Process::spawn(lend_for_ever, (array.clone(), beacon.clone())).unwrap();
        wait_until("a worker writes", || beacon.load() != 0);
        let worker = beacon.load();
        if is_stopped {
            signal(worker, Signal::SIGSTOP);
            wait_until("it is stopped", || state(worker) == Some('T'));
        }
        lender.kill().unwrap();
        wait_until("the lender is dead", || lender.exit_status().is_some());
        if is_stopped {
            assert!(matches!(array.try_lock(), Err(TryLockError::WouldBlock)));
            let start = Instant::now();
            let limit = Duration::from_millis(20);
            assert!(matches!(array.lock_timeout(limit), Err(LockTimeoutError::TimedOut)));
            assert!(start.elapsed() >= limit);
            array.clear_poison();
            signal(worker, Signal::SIGCONT);
        }
        let guard = array.lock().unwrap_or_else(|error| error.into_inner());
        let written = guard[0];
        assert!(written > 0);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(std::hint::black_box(&guard)[0], written, "nobody writes any more");
        drop(guard);
        array.clear_poison();
        assert_eq!(array.get(0).unwrap(), written);
    }
}

#[test]
fn pools_nest() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let inner = |n: u64| {
        let pool = Pool::new(2).unwrap();
        pool.map(square, 0..n).unwrap().into_iter().sum::<u64>()
    };
    assert_eq!(pool.map(inner, [10, 20]).unwrap(), [285, 2470]);
}

#[test]
fn two_hundred_workers() {
    let _watchdog = watchdog();
    let pool = Pool::new(200).unwrap();
    assert!(pool.map(square, 0..20_000).unwrap().into_iter().eq((0..20_000).map(square)));
    let pids = pool.batch().chunk_size(1).map(
        |_: u32| {
            std::thread::sleep(Duration::from_millis(100));
            std::process::id()
        },
        0..400,
    );
    let distinct: std::collections::HashSet<u32> = pids.unwrap().into_iter().collect();
    assert!(distinct.len() > 150, "{}", distinct.len());
    pool.close();
    pool.join().unwrap();
}

#[test]
fn workers_know_their_parent_and_have_names() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let who = || (parent_process().unwrap().pid(), polyproc_process::current_process().name().to_owned());
    let (parent, name) = pool.apply(who, ()).unwrap();
    assert_eq!(parent, std::process::id());
    assert!(name.starts_with("Worker-"), "{name}");
}

#[test]
fn nothing_leaks() {
    let _watchdog = watchdog();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || {
        let mut states = BTreeMap::new();
        for entry in std::fs::read_dir("/proc/self/task").unwrap() {
            let path = entry.unwrap().path().join("children");
            for pid in std::fs::read_to_string(path).unwrap_or_default().split_whitespace() {
                states.insert(pid.parse::<u32>().unwrap(), ());
            }
        }
        states.len()
    };
    // Runs alone in a process of its own: other tests have pools, too.
    let count = move || {
        let round = || {
            let pool = Pool::builder().workers(2).retry(Retry::UpTo(1)).build().unwrap();
            let kill = |(bytes, n): (Vec<u8>, u32)| {
                if n == 3 {
                    die();
                }
                bytes
            };
            let long = (0..10).map(|n| (vec![0u8; 50_000], n));
            drop(pool.map(kill, long));
            let value = RawValue::new(0u32).unwrap();
            pool.map(|value: RawValue<u32>| value, vec![value; 5]).unwrap();
        };
        round();
        let before = (descriptors(), children());
        (0..10).for_each(|_| round());
        (before, (descriptors(), children()))
    };
    let (before, after) = polyproc_process::Process::spawn(count, ()).unwrap().join().unwrap();
    assert_eq!(before, after);
    assert_eq!(before.1, 0);
}
