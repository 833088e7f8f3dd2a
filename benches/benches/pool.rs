//! Pools, beside threads (`rayon`), beside what they are made of (a connection, a process), and beside the ideal.
//!
//! Two workers, as many as the reference machine has CPUs; the process that submits is a third, and works, too. Nobody is
//! pinned. Each subject checks all results.

use polyproc::{Bytes, Connection, Pool, Process, pipe};
use polyproc_benches::{Table, cpu_count, is_test, nanos, scaled, time_each};
use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::hint::black_box;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn square(n: u64) -> u64 {
    n * n
}

fn check(count: u64, squares: &[u64]) {
    assert_eq!(squares.len() as u64, count);
    assert!(squares.iter().copied().eq((0..count).map(square)));
}

/// Works for so long, without a system call.
fn work(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The time of an item when this many are squared.
fn each(count: u64, f: impl FnOnce() -> Vec<u64>) -> f64 {
    let start = Instant::now();
    let squares = f();
    let time = nanos(start.elapsed()) / count as f64;
    check(count, &squares);
    time
}

fn threads() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads")
}

/// A message of numbers, as bytes.
type Line = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// The numbers behind each other's heels, as they lie in memory.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("eight")))
}

/// What squares numbers by hand: two processes, and a connection with each.
struct ByHand(Vec<(Line, Process<()>)>);

impl ByHand {
    /// About as many as the pool sends at a time.
    const CHUNK: u64 = 2_700;

    fn new() -> ByHand {
        let square_all = |there: Line| {
            while let Ok(bytes) = there.recv() {
                let squares: Vec<u8> = numbers(&bytes).flat_map(|n| square(n).to_ne_bytes()).collect();
                there.send(squares).expect("somebody there");
            }
        };
        let start = |_| {
            let (here, there) = Line::pair().expect("a connection");
            (here, Process::spawn(square_all, (there,)).expect("a process"))
        };
        ByHand([0, 1].map(start).into())
    }

    /// As the pool: the next ones go out before the first come back, two for each process at a time.
    fn map(&self, count: u64) -> Vec<u64> {
        let mut squares = Vec::with_capacity(count as usize);
        let mut take = |turn: usize| squares.extend(numbers(&self.0[turn % 2].0.recv().expect("squares")));
        let mut taken = 0;
        for (turn, first) in (0..count).step_by(Self::CHUNK as usize).enumerate() {
            if turn >= 4 {
                take(taken);
                taken += 1;
            }
            let chunk = first..count.min(first + Self::CHUNK);
            let bytes = chunk.flat_map(u64::to_ne_bytes).collect();
            self.0[turn % 2].0.send(bytes).expect("somebody there");
        }
        (taken..count.div_ceil(Self::CHUNK) as usize).for_each(take);
        squares
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        for (line, process) in self.0.drain(..) {
            drop(line);
            process.join().expect("its end");
        }
    }
}

fn small() {
    let count = scaled(100_000).max(1_000);
    let (pool, threads, by_hand) = (Pool::new(2).expect("a pool"), threads(), ByHand::new());
    Table::new("map of a square over 100,000 numbers, 2 workers, an item")
        .subject("rayon par_iter, threads", || {
            each(count, || threads.install(|| (0..count).into_par_iter().map(square).collect()))
        })
        .subject("polyproc Pool::map", || each(count, || pool.map(square, 0..count).expect("squares")))
        .subject("limit: by hand, over connections of bytes", || each(count, || by_hand.map(count)))
        .subject("one process, a loop", || each(count, || (0..count).map(|n| square(black_box(n))).collect()))
        .run();
}

fn chunks() {
    let count = scaled(100_000).max(1_000);
    let (pool, threads) = (Pool::new(2).expect("a pool"), threads());
    Table::new("map of a square over 100,000 numbers, one at a time, an item")
        .subject("rayon par_iter with_max_len(1), threads", || {
            each(count, || {
                threads.install(|| {
                    (0..count as u32).into_par_iter().with_max_len(1).map(|n| square(n.into())).collect()
                })
            })
        })
        .subject("polyproc Pool, chunks of 1", || {
            each(count, || pool.batch().chunk_size(1).map(square, 0..count).expect("squares"))
        })
        .run();
}

fn single() {
    let pool = Pool::new(2).expect("a pool");
    let (here, there) = pipe::<u64, u64>().expect("a pipe");
    let echo = Process::spawn(
        |there: polyproc::Connection<u64, u64>| {
            while let Ok(number) = there.recv() {
                there.send(square(number)).expect("somebody there");
            }
        },
        (there,),
    )
    .expect("a process");
    let count = scaled(20_000).max(20);
    Table::new("one task at a time, there and back")
        .subject("a connection and a process", || {
            let mut number = 0;
            time_each(count, || {
                here.send(number).expect("somebody there");
                assert_eq!(here.recv().expect("somebody there"), square(number));
                number += 1;
            })
        })
        .subject("polyproc Pool::apply", || {
            let mut number = 0;
            time_each(count, || {
                assert_eq!(pool.apply(square, (number,)).expect("a square"), square(number));
                number += 1;
            })
        })
        .run();
    drop(here);
    echo.join().expect("its end");
}

fn millisecond() {
    const TASK: Duration = Duration::from_millis(1);
    let count = scaled(2_000).max(20);
    let (pool, threads) = (Pool::new(2).expect("a pool"), threads());
    let task = |n: u64| {
        work(TASK);
        n
    };
    // With fewer CPUs than workers there is more to be done than time.
    let ideal = nanos(TASK) / cpu_count().min(2) as f64;
    Table::new("2,000 tasks of 1 ms, 2 workers, a task")
        .subject("ideal", || ideal)
        .subject("polyproc Pool::map", || {
            let start = Instant::now();
            let done = pool.map(task, 0..count).expect("results");
            let time = nanos(start.elapsed()) / count as f64;
            assert!(done.into_iter().eq(0..count));
            time
        })
        .subject("rayon par_iter, threads", || {
            let start = Instant::now();
            let done: Vec<u64> = threads.install(|| {
                (0..count as u32).into_par_iter().with_max_len(1).map(|n| task(n.into())).collect()
            });
            let time = nanos(start.elapsed()) / count as f64;
            assert!(done.into_iter().eq(0..count));
            time
        })
        .run();
}

/// Bytes that many tasks may share on their way out, as Python's do; each that comes back has its own.
enum Payload {
    Shared(Arc<Vec<u8>>),
    Own(Vec<u8>),
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Shared(bytes) => bytes,
            Payload::Own(bytes) => bytes,
        }
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&**self, serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        serde_bytes::deserialize(deserializer).map(Payload::Own)
    }
}

fn large() {
    const SIZE: usize = 1 << 20;
    let count = scaled(500).max(10);
    let pool = Pool::new(2).expect("a pool");
    let bytes = Arc::new(vec![7; SIZE]);
    let task = |(n, payload): (u64, Payload)| {
        assert!(payload.len() == SIZE && payload[SIZE - 1] == 7);
        (n, payload)
    };
    Table::new("500 payloads of 1 MiB there and back, 2 workers, a task")
        .subject("limit: eight copies of it", || {
            let mut copies = [vec![1u8; SIZE], vec![2u8; SIZE]];
            time_each(count, || {
                for _ in 0..4 {
                    let [one, other] = &mut copies;
                    black_box(&mut *one).copy_from_slice(black_box(other));
                    black_box(&mut *other).copy_from_slice(black_box(one));
                }
            })
        })
        .subject("polyproc Pool::imap", || {
            let start = Instant::now();
            let input = (0..count).map(|n| (n, Payload::Shared(Arc::clone(&bytes))));
            for (n, result) in (0..).zip(pool.imap(task, input)) {
                let (number, payload) = result.expect("a payload");
                assert!(number == n && payload.len() == SIZE && payload[SIZE - 1] == 7);
            }
            nanos(start.elapsed()) / count as f64
        })
        .run();
}

fn making() {
    let count = if is_test() { 1 } else { 50 };
    Table::new("making and closing a pool of 4")
        .subject("four processes, started and joined", || {
            time_each(count, || {
                let processes: Vec<_> =
                    (0..4).map(|_| Process::spawn(|| (), ()).expect("a process")).collect();
                processes.iter().for_each(|process| process.join().expect("its end"));
            })
        })
        .subject("polyproc Pool::new, close, join", || {
            time_each(count, || {
                let pool = Pool::new(4).expect("a pool");
                pool.close();
                pool.join().expect("its end");
            })
        })
        .run();
}

fn main() {
    polyproc::init();
    let parts: [(&str, fn()); 6] = [
        ("small", small),
        ("chunks", chunks),
        ("single", single),
        ("millisecond", millisecond),
        ("large", large),
        ("making", making),
    ];
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}
