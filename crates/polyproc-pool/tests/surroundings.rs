//! What a pool does when its process forks, is out of descriptors, ignores its children's ends, or has nothing to do. Each
//! of these is about the whole process, so the tests take turns.

mod common;

use common::{state, wait_until, watchdog};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use polyproc_pool::{Pool, PoolError, TaskError};
use polyproc_process::init_for_tests;
use polyproc_value::RawValue;
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

init_for_tests!();

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn square(n: u64) -> u64 {
    n * n
}

fn gated(gate: RawValue<u32>, n: u64) -> u64 {
    while gate.load() == 0 {
        std::thread::sleep(Duration::from_micros(50));
    }
    n
}

/// What a forked child does with its copy of the pool: the number of the first thing that is not as it should be.
fn misuse(
    pool: Pool,
    pending: polyproc_pool::AsyncResult<u64>,
    mut results: impl Iterator<Item = Result<u64, TaskError>>,
) -> u8 {
    let is_refused = |error: &TaskError| matches!(error, TaskError::Broken(PoolError::Forked));
    let steps = [
        pool.map(square, 0..100).is_err_and(|error| is_refused(error.error())),
        pool.apply(square, (2,)).is_err_and(|error| is_refused(&error)),
        pool.apply_async(square, (2,)).get().is_err_and(|error| is_refused(&error)),
        pool.imap(square, 0..).next().is_some_and(|result| result.is_err_and(|error| is_refused(&error))),
        pool.map_async(square, 0..10).get().is_err_and(|error| is_refused(error.error())),
        results.next().is_some_and(|result| result.is_err_and(|error| is_refused(&error))),
        results.next().is_none(),
        pending.is_ready() && !pending.cancel(),
        pending.get().is_err_and(|error| is_refused(&error)),
        pool.stats().workers.is_empty(),
        matches!(pool.join(), Err(PoolError::Forked)),
        matches!(pool.resize(3), Err(PoolError::Forked)),
    ];
    pool.close();
    pool.terminate();
    drop((results, pending, pool));
    steps.iter().position(|is_right| !is_right).map_or(0, |step| step as u8 + 1)
}

/// Other threads may have every lock of the pool while this one forks.
#[test]
fn a_forked_child_is_refused_and_does_no_harm() {
    let (_watchdog, _alone) = (watchdog(), alone());
    let pool = Pool::new(2).unwrap();
    let workers = || -> Vec<u32> { pool.stats().workers.iter().map(|worker| worker.pid).collect() };
    let before = workers();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                assert_eq!(pool.apply(square, (n,)).unwrap(), n * n);
            }
        });
        for round in 0..40 {
            let gate = RawValue::new(0u32).unwrap();
            let pending = pool.apply_async(gated, (gate.clone(), round));
            let results = pool.imap(square, 0..50);
            // SAFETY: the child calls what its parent's other threads may be in the middle of; that is what is tested. It
            // allocates, which glibc allows a child, and leaves by `_exit`.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    // SAFETY: a bitwise copy in a process that has a copy of everything, and drops this one alone.
                    let copy = unsafe { std::ptr::read(&pool) };
                    let code = misuse(copy, pending, results);
                    // SAFETY: ends the process, and nothing else.
                    unsafe { nix::libc::_exit(i32::from(code)) }
                }
                ForkResult::Parent { child } => {
                    let start = Instant::now();
                    let status = loop {
                        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
                            WaitStatus::StillAlive if start.elapsed() > Duration::from_secs(10) => {
                                nix::sys::signal::kill(child, Signal::SIGKILL).unwrap();
                                break None;
                            }
                            WaitStatus::StillAlive => std::thread::sleep(Duration::from_micros(200)),
                            status => break Some(status),
                        }
                    };
                    is_over.store(status != Some(WaitStatus::Exited(child, 0)), Ordering::Relaxed);
                    gate.store(1);
                    assert_eq!(status, Some(WaitStatus::Exited(child, 0)), "round {round}");
                    assert_eq!(pending.get().unwrap(), round);
                    assert!(results.map(Result::unwrap).eq((0..50).map(square)));
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        user.join().unwrap();
    });
    assert_eq!(workers(), before);
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Number(u64),
    Handle(RawValue<u64>),
}

/// Files that have all numbers below this one, so that what is opened next is above.
struct Plugs(#[allow(dead_code, reason = "kept open")] Vec<std::fs::File>);

const LIMIT: u64 = 100;

impl Plugs {
    fn new() -> Plugs {
        let mut files = Vec::new();
        while files.last().is_none_or(|file: &std::fs::File| (file.as_raw_fd() as u64) < LIMIT) {
            files.push(std::fs::File::open("/dev/null").unwrap());
        }
        Plugs(files)
    }

    /// Runs `f` with room for none.
    fn without_room<R>(&self, f: impl FnOnce() -> R) -> R {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).unwrap();
        let result = f();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        result
    }
}

/// A result with handles cannot be received; those behind it, which lie on the worker's board, are not taken for it.
#[test]
fn results_that_cannot_be_received_are_not_confused_with_others() {
    let (_watchdog, _alone) = (watchdog(), alone());
    let plugs = Plugs::new();
    let pool = Pool::new(1).unwrap();
    let task = |n: u64| match n {
        3 => Outcome::Handle(RawValue::new(33).unwrap()),
        6 => {
            std::thread::sleep(Duration::from_secs(1));
            Outcome::Number(n)
        }
        n => Outcome::Number(n),
    };
    let warm = pool.batch().chunk_size(8).map(|n: u64| n, 0..8).unwrap();
    assert_eq!(warm.len(), 8);
    let results = plugs.without_room(|| {
        let result = pool.batch().chunk_size(8).map(task, 0..8);
        result.map_or_else(|error| error.into_results(), |results| results.into_iter().map(Ok).collect())
    });
    assert_eq!(results.len(), 8);
    let mut failures = 0;
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(Outcome::Number(number)) => assert_eq!(number, n as u64),
            Ok(Outcome::Handle(value)) => assert_eq!((value.load(), n), (33, 3)),
            Err(error) => {
                failures += 1;
                assert!(matches!(error, TaskError::Decode(_) | TaskError::WorkerDied { .. }), "{n}: {error}");
            }
        }
    }
    assert!(failures > 0, "there was room for its descriptors");
    wait_until("there is a worker again", || pool.apply(square, (3,)).is_ok());
}

#[test]
fn a_worker_that_cannot_be_replaced_is_said_and_is_no_busy_loop() {
    let (_watchdog, _alone) = (watchdog(), alone());
    let plugs = Plugs::new();
    let pool = Pool::new(2).unwrap();
    pool.map(square, 0..100).unwrap();
    let victim = pool.stats().workers[0].pid;
    plugs.without_room(|| {
        let victim = nix::unistd::Pid::from_raw(i32::try_from(victim).unwrap());
        nix::sys::signal::kill(victim, Signal::SIGKILL).unwrap();
        wait_until("its death is noticed", || pool.stats().deaths == 1);
        // The other one goes on, and little is spent on asking for another.
        let before = cpu_time();
        for n in 0..20 {
            assert_eq!(pool.apply(square, (n,)).unwrap(), n * n);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(cpu_time() - before < Duration::from_millis(100), "{:?}", cpu_time() - before);
    });
    wait_until("it is replaced", || pool.stats().workers.len() == 2);
    let last = pool.stats().workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    plugs.without_room(|| {
        for pid in last {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        }
        // What waits is told, and so is what comes next.
        wait_until("the last ones are dead", || pool.stats().deaths == 3);
        for _ in 0..2 {
            let error = pool.apply(square, (1,)).unwrap_err();
            assert!(matches!(error, TaskError::Broken(_)), "{error}");
            assert!(error.to_string().contains("descriptor"), "{error}");
        }
        let before = cpu_time();
        std::thread::sleep(Duration::from_millis(300));
        assert!(cpu_time() - before < Duration::from_millis(30), "{:?}", cpu_time() - before);
    });
    // And when there is room again, the pool has workers again.
    wait_until("there are workers", || pool.apply(square, (3,)).is_ok());
    wait_until("there are as many as before", || pool.stats().workers.len() == 2);
    // A shortage that is over soon is not even noticed by who waits.
    let last = pool.stats().workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    let result = plugs.without_room(|| {
        last.iter().for_each(|&pid| common::signal(pid, Signal::SIGKILL));
        wait_until("they are dead", || pool.stats().deaths == 5);
        let result = pool.apply_async(square, (5,));
        assert!(!result.wait_timeout(Duration::from_millis(100)));
        result
    });
    assert_eq!(result.get().unwrap(), 25);
    // A pool that is closed meanwhile ends.
    let last = pool.stats().workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    plugs.without_room(|| {
        last.iter().for_each(|&pid| common::signal(pid, Signal::SIGKILL));
        let result = pool.apply_async(square, (5,));
        pool.close();
        pool.join().unwrap();
        assert!(result.is_ready());
    });
}

/// What this process has used.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap())
}

#[test]
fn a_pool_that_waits_uses_no_cpu() {
    let (_watchdog, _alone) = (watchdog(), alone());
    let long = || std::thread::sleep(Duration::from_millis(900));
    let sleep = |n: u64| std::thread::sleep(Duration::from_millis(n));
    for limit in [None, Some(Duration::from_secs(30))] {
        let builder = Pool::builder().workers(3);
        let pool = match limit {
            Some(limit) => builder.task_timeout(limit).build().unwrap(),
            None => builder.build().unwrap(),
        };
        pool.map(square, 0..1000).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let used = |what: &str, f: &dyn Fn()| {
            let before = cpu_time();
            f();
            let used = cpu_time() - before;
            assert!(used <= Duration::from_millis(60), "{what}: {used:?}");
        };
        used("idle", &|| std::thread::sleep(Duration::from_millis(900)));
        used("one waits", &|| pool.apply(long, ()).unwrap());
        let three =
            || std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| pool.apply(long, ())))));
        used("three wait", &three);
        used("nobody waits", &|| {
            let result = pool.apply_async(long, ());
            std::thread::sleep(Duration::from_millis(950));
            wait_until("it is there", || result.is_ready());
        });
        used("tasks behind tasks", &|| drop(pool.map(sleep, [300, 300, 300, 300, 300, 300, 300]).unwrap()));
        pool.close();
        pool.join().unwrap();
        used("closed", &|| std::thread::sleep(Duration::from_millis(300)));
    }
}

#[test]
fn a_program_that_ignores_its_childrens_ends_has_all_but_their_status() {
    let (_watchdog, _alone) = (watchdog(), alone());
    // SAFETY: no handler is installed.
    let before = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
    let pool = Pool::new(2).unwrap();
    let pids: Vec<u32> = pool.stats().workers.iter().map(|worker| worker.pid).collect();
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    let result = pool.apply(|| -> () { std::process::exit(3) }, ());
    assert!(matches!(result, Err(TaskError::WorkerDied { .. })), "{result:?}");
    assert_eq!(pool.apply(square, (4,)).unwrap(), 16);
    pool.close();
    pool.join().unwrap();
    // SAFETY: as it was.
    unsafe { signal(Signal::SIGCHLD, before) }.unwrap();
    drop(pool);
    assert!(pids.iter().all(|&pid| state(pid).is_none()));
}
