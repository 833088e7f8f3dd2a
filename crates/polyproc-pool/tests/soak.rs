//! Random work of several threads while workers are killed, stopped and continued: every result is right, and no task runs
//! twice. `POLYPROC_POOL_SECONDS` says how long, `POLYPROC_POOL_SEED` repeats a run's choices.

mod common;

use common::{spin, state};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use polyproc_pool::{Pool, Retry, TaskError};
use polyproc_process::init_for_tests;
use polyproc_value::RawArray;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

init_for_tests!();

/// How often each task was begun; tasks have numbers of their own throughout a run.
static RUNS: OnceLock<RawArray<u32>> = OnceLock::new();
const TASKS: usize = 4 << 20;

fn remember(runs: RawArray<u32>) {
    let _ = RUNS.set(runs);
    // There will be many, and they are looked at where they are results.
    std::panic::set_hook(Box::new(|_| {}));
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

/// What becomes of task `n`: its length says whether it is long, its bytes whose it is.
fn expected(n: u64) -> Vec<u8> {
    let length = match n % 97 {
        0 => 40_000,
        1..20 => n as usize % 700,
        _ => 8,
    };
    let mut bytes = n.to_le_bytes().repeat(length.div_ceil(8));
    bytes.truncate(length);
    bytes
}

fn task(n: u64) -> Vec<u8> {
    RUNS.get().expect("the initializer was called").fetch_add(n as usize, 1).expect("there is room");
    if n.is_multiple_of(13) {
        spin(Duration::from_micros(n % 400));
    }
    assert!(n % 501 != 500, "task {n} panics");
    expected(n)
}

fn long(n: u64, padding: Vec<u8>) -> Vec<u8> {
    assert!(padding.iter().all(|&byte| byte == n as u8));
    task(n)
}

struct Soak {
    pool: Pool,
    runs: RawArray<u32>,
    next: AtomicUsize,
    may_retry: bool,
    /// The ends, by their kind.
    done: AtomicU64,
    died: AtomicU64,
    cancelled: AtomicU64,
    timed_out: AtomicU64,
    panicked: AtomicU64,
}

impl Soak {
    /// Numbers for so many tasks.
    fn numbers(&self, count: u64) -> std::ops::Range<u64> {
        let first = self.next.fetch_add(count as usize, Ordering::Relaxed) as u64;
        first..first + count
    }

    fn has_numbers(&self) -> bool {
        self.next.load(Ordering::Relaxed) < TASKS - 100_000
    }

    fn check(&self, n: u64, result: Result<Vec<u8>, TaskError>, may_be_cancelled: bool) {
        let runs = self.runs.load(n as usize).unwrap();
        let most = if self.may_retry { 4 } else { 1 };
        assert!(runs <= most, "task {n} ran {runs} times, and became {result:?}");
        match result {
            Ok(bytes) => {
                assert!(runs >= 1, "task {n} did not run");
                assert!(
                    n % 501 != 500 && bytes == expected(n),
                    "task {n}: {:?}",
                    &bytes[..bytes.len().min(16)]
                );
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(TaskError::WorkerDied { attempt, .. }) => {
                assert_eq!(attempt, most, "task {n}");
                self.died.fetch_add(1, Ordering::Relaxed);
            }
            Err(TaskError::Panicked { message, .. }) => {
                assert_eq!(message, format!("task {n} panics"));
                self.panicked.fetch_add(1, Ordering::Relaxed);
            }
            // A worker that is stopped takes too long.
            Err(TaskError::TimedOut { .. }) => drop(self.timed_out.fetch_add(1, Ordering::Relaxed)),
            Err(TaskError::Cancelled) if may_be_cancelled => {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("task {n}: {error}"),
        }
    }

    fn step(&self, random: &mut Random) {
        match random.below(7) {
            0 => {
                let numbers = self.numbers(1 + random.below(3000));
                let batch = self.pool.batch();
                let batch = if random.below(2) == 0 {
                    batch
                } else {
                    batch.chunk_size(1 + random.below(50) as usize)
                };
                let results = match batch.map(task, numbers.clone()) {
                    Ok(results) => results.into_iter().map(Ok).collect(),
                    Err(error) => error.into_results(),
                };
                assert_eq!(results.len(), numbers.clone().count());
                numbers.zip(results).for_each(|(n, result)| self.check(n, result, false));
            }
            1 => {
                let numbers = self.numbers(1 + random.below(1000));
                let results = self.pool.batch().max_in_flight(1 + random.below(100) as usize);
                let results = results.imap(task, numbers.clone());
                let most = random.below(1500) as usize;
                numbers.zip(results).take(most).for_each(|(n, result)| self.check(n, result, false));
            }
            2 => {
                let numbers = self.numbers(1 + random.below(1000));
                let mut seen = vec![false; numbers.clone().count()];
                for (index, result) in self.pool.imap_unordered(task, numbers.clone()).indexed() {
                    assert!(!std::mem::replace(&mut seen[index], true));
                    self.check(numbers.start + index as u64, result, false);
                }
                assert!(seen.into_iter().all(|seen| seen));
            }
            3 => {
                for n in self.numbers(1 + random.below(50)) {
                    self.check(n, self.pool.apply(task, (n,)), false);
                }
            }
            4 => {
                let numbers = self.numbers(1 + random.below(200));
                let results: Vec<_> = numbers.clone().map(|n| self.pool.apply_async(task, (n,))).collect();
                for result in &results {
                    if random.below(4) == 0 {
                        result.cancel();
                    }
                }
                numbers.zip(results).for_each(|(n, result)| self.check(n, result.get(), true));
            }
            5 => {
                let numbers = self.numbers(1 + random.below(2000));
                let result = self.pool.map_async(task, numbers.clone());
                spin(Duration::from_micros(random.below(2000)));
                let is_cancelled = random.below(2) == 0 && result.cancel();
                let results: Vec<_> = match result.get() {
                    Ok(results) => results.into_iter().map(Ok).collect(),
                    Err(error) => error.into_results(),
                };
                assert_eq!(results.len(), numbers.clone().count());
                numbers.zip(results).for_each(|(n, result)| self.check(n, result, is_cancelled));
            }
            _ => {
                let numbers = self.numbers(1 + random.below(20));
                let size = random.below(100_000) as usize;
                let results: Vec<_> =
                    numbers.clone().map(|n| self.pool.apply_async(long, (n, vec![n as u8; size]))).collect();
                numbers.zip(results).for_each(|(n, result)| self.check(n, result.get(), false));
            }
        }
    }

    /// Kills, stops and continues workers.
    fn meddle(&self, random: &mut Random, is_over: &AtomicBool) -> u64 {
        let mut kills = 0;
        while !is_over.load(Ordering::Relaxed) {
            let workers = self.pool.stats().workers;
            if let Some(worker) = workers.get(random.below(workers.len().max(1) as u64) as usize) {
                let send = |signal| kill(Pid::from_raw(worker.pid as i32), signal);
                // Three in a row that die before they are ready would break the pool, as they should.
                match random.below(4) {
                    0 if worker.ready.is_some() => kills += u64::from(send(Signal::SIGKILL).is_ok()),
                    1 => {
                        let _ = send(Signal::SIGSTOP);
                        std::thread::sleep(Duration::from_micros(random.below(6000)));
                        let _ = send(Signal::SIGCONT);
                    }
                    2 => drop(self.pool.resize(1 + random.below(5) as usize)),
                    _ => {}
                }
            }
            std::thread::sleep(Duration::from_micros(random.below(6000)));
        }
        kills
    }
}

fn soak(seed: u64, time: Duration, may_retry: bool, limit: Option<Duration>) {
    let runs = RawArray::zeroed(TASKS).unwrap();
    let builder = Pool::builder().workers(3).initializer(remember, (runs.clone(),));
    let builder = if may_retry { builder.retry(Retry::UpTo(3)) } else { builder.max_tasks_per_worker(5000) };
    let builder = limit.into_iter().fold(builder, |builder, limit| builder.task_timeout(limit));
    let counter = AtomicU64::default;
    let soak = Soak {
        pool: builder.build().unwrap(),
        runs,
        next: AtomicUsize::new(0),
        may_retry,
        done: counter(),
        died: counter(),
        cancelled: counter(),
        timed_out: counter(),
        panicked: counter(),
    };
    let is_over = AtomicBool::new(false);
    let ended = AtomicUsize::new(0);
    let kills = std::thread::scope(|scope| {
        let meddler = scope.spawn(|| soak.meddle(&mut Random(seed ^ 0xff), &is_over));
        let users: Vec<_> = (0..4)
            .map(|user| {
                let (soak, ended) = (&soak, &ended);
                scope.spawn(move || {
                    let mut random = Random(seed + user);
                    let start = Instant::now();
                    while start.elapsed() < time && soak.has_numbers() {
                        soak.step(&mut random);
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        let start = Instant::now();
        while ended.load(Ordering::Relaxed) < users.len() && !users.iter().all(|user| user.is_finished()) {
            if start.elapsed() > time + Duration::from_secs(60) {
                eprintln!("seed {seed}: it hangs: {:?}", soak.pool);
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        meddler.join().unwrap()
    });
    let pids: Vec<u32> = soak.pool.stats().workers.iter().map(|worker| worker.pid).collect();
    soak.pool.close();
    soak.pool.join().unwrap();
    assert!(pids.into_iter().all(|pid| state(pid).is_none()));
    let twice = soak.runs.to_vec().iter().filter(|&&runs| runs > if may_retry { 4 } else { 1 }).count();
    assert_eq!(twice, 0, "seed {seed}");
    println!(
        "seed {seed}: {kills} kills; {:?} done, {:?} died, {:?} cancelled, {:?} timed out, {:?} panicked",
        soak.done, soak.died, soak.cancelled, soak.timed_out, soak.panicked
    );
}

#[test]
fn every_result_is_right_whatever_happens_to_workers() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds: u64 = number("POLYPROC_POOL_SECONDS").unwrap_or(9);
    let seed = number("POLYPROC_POOL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}");
    let time = Duration::from_secs(seconds) / 3;
    soak(seed, time, false, None);
    soak(seed + 1000, time, true, None);
    soak(seed + 2000, time, false, Some(Duration::from_millis(5)));
}
