//! Pools of two workers: many small tasks, in chunks and one by one, one task there and back, tasks of a millisecond, large
//! payloads; and how long it takes to make a pool of four and to close it.

use polyproc_benches::{is_test, time_each};
use polyproc_rivals::adapters::python;
use polyproc_rivals::{Rivals, finish, rival};
use std::time::Duration;

const WORKERS: usize = 2;
/// As large as a large payload.
const LARGE: usize = 1 << 20;

fn square(number: u64) -> u64 {
    number * number
}

fn doze(_: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    1
}

/// Adds one to each byte.
#[cfg(any(feature = "rayon", feature = "procspawn"))]
fn add(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
    bytes
}

fn few(full: u64) -> u64 {
    if is_test() { (full / 100).max(4) } else { full }
}

#[cfg(feature = "rayon")]
mod rayon_pool {
    use super::*;
    use rayon::prelude::*;

    fn pool(workers: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("threads")
    }

    pub(crate) fn map(count: u64, chunk: usize) -> f64 {
        let pool = pool(WORKERS);
        let inputs: Vec<u64> = (0..count).collect();
        let mut results: Vec<u64> = Vec::new();
        let time = time_each(1, || {
            pool.install(|| match chunk {
                0 => inputs.par_iter().map(|number| square(*number)).collect_into_vec(&mut results),
                _ => inputs
                    .par_iter()
                    .with_max_len(chunk)
                    .map(|number| square(*number))
                    .collect_into_vec(&mut results),
            })
        });
        assert!(results.iter().copied().eq((0..count).map(square)));
        time / count as f64
    }

    pub(crate) fn apply(count: u64) -> f64 {
        let pool = pool(WORKERS);
        let mut number = 0;
        time_each(count, || {
            number += 1;
            assert_eq!(pool.install(|| square(number)), number * number);
        })
    }

    pub(crate) fn doze(count: u64) -> f64 {
        let pool = pool(WORKERS);
        let mut done = 0;
        let time = time_each(1, || {
            done = pool.install(|| {
                (0..count as usize).into_par_iter().with_max_len(1).map(|_| super::doze(0)).sum()
            });
        });
        assert_eq!(done, count);
        time / count as f64
    }

    /// Each payload is made by the thread that works on it: between threads, nothing has to travel.
    pub(crate) fn large(count: u64) -> f64 {
        let pool = pool(WORKERS);
        let time = time_each(1, || {
            let results: Vec<Vec<u8>> = pool.install(|| {
                (0..count as usize)
                    .into_par_iter()
                    .with_max_len(1)
                    .map(|number| add(vec![number as u8; LARGE]))
                    .collect()
            });
            check(&results);
        });
        time / count as f64
    }

    pub(crate) fn make(count: u64) -> f64 {
        time_each(count, || drop(pool(4)))
    }
}

#[cfg(any(feature = "rayon", feature = "procspawn"))]
fn check(results: &[Vec<u8>]) {
    for (number, result) in results.iter().enumerate() {
        let expected = (number as u8).wrapping_add(1);
        assert_eq!((result.len(), result[0], result[LARGE - 1]), (LARGE, expected, expected));
    }
}

/// procspawn has no `map`, and takes four descriptors a task that waits: a few tasks at a time are under way.
#[cfg(feature = "procspawn")]
mod procspawn_pool {
    use super::*;
    use procspawn::{JoinHandle, Pool};
    use std::collections::VecDeque;

    const WAIT: Duration = Duration::from_secs(30);

    fn get<T: serde::Serialize + serde::de::DeserializeOwned>(mut handle: JoinHandle<T>) -> T {
        handle.join_timeout(WAIT).expect("a result")
    }

    fn pool(workers: usize) -> Pool {
        Pool::new(workers).expect("processes")
    }

    fn squares(numbers: Vec<u64>) -> Vec<u64> {
        numbers.into_iter().map(square).collect()
    }

    pub(crate) fn map(count: u64, chunk: u64) -> f64 {
        let pool = pool(WORKERS);
        // As Python's pool does it: four chunks a worker.
        let chunk = if chunk == 0 { count.div_ceil(4 * WORKERS as u64) } else { chunk };
        let mut results = Vec::new();
        let time = time_each(1, || {
            let mut waiting = VecDeque::new();
            let mut next = 0;
            while next < count || !waiting.is_empty() {
                if next < count && waiting.len() < 8 * WORKERS {
                    let numbers: Vec<u64> = (next..count.min(next + chunk)).collect();
                    next += numbers.len() as u64;
                    waiting.push_back(pool.spawn(numbers, squares));
                } else if let Some(handle) = waiting.pop_front() {
                    results.extend(get(handle));
                }
            }
        });
        assert!(results.iter().copied().eq((0..count).map(square)));
        pool.shutdown();
        time / count as f64
    }

    pub(crate) fn apply(count: u64) -> f64 {
        let pool = pool(WORKERS);
        let mut number = 0;
        let time = time_each(count, || {
            number += 1;
            assert_eq!(get(pool.spawn(number, square)), number * number);
        });
        pool.shutdown();
        time
    }

    pub(crate) fn doze(count: u64) -> f64 {
        let pool = pool(WORKERS);
        let mut done = 0;
        let time = time_each(1, || {
            let mut waiting = VecDeque::new();
            for number in 0..count {
                if waiting.len() == 4 * WORKERS {
                    done += get(waiting.pop_front().unwrap());
                }
                waiting.push_back(pool.spawn(number, super::doze));
            }
            done += waiting.drain(..).map(get).sum::<u64>();
        });
        assert_eq!(done, count);
        pool.shutdown();
        time / count as f64
    }

    /// One payload a worker under way: three on two workers wait for each other for ever.
    pub(crate) fn large(count: u64) -> f64 {
        let pool = pool(WORKERS);
        let time = time_each(1, || {
            let mut waiting = VecDeque::new();
            let mut results = Vec::new();
            for number in 0..count {
                if waiting.len() == WORKERS {
                    results.push(get(waiting.pop_front().unwrap()));
                }
                waiting.push_back(pool.spawn(vec![number as u8; LARGE], add));
            }
            results.extend(waiting.drain(..).map(get));
            check(&results);
        });
        pool.shutdown();
        time / count as f64
    }

    pub(crate) fn make(count: u64) -> f64 {
        time_each(count, || {
            let pool = pool(4);
            assert_eq!(get(pool.spawn(3, square)), 9);
            pool.shutdown();
        })
    }
}

/// A table of a subject. Ours comes first, when it is there: `.ours("polyproc Pool", ...)`, a function a subject as above.
fn table(title: &str, subject: &'static str, numbers: &[u64]) -> Rivals<'static> {
    let numbers = numbers.to_vec();
    let table = Rivals::new(title);
    if !python::is_there() {
        return table;
    }
    table.rival("Python Pool", move || python::run("pool.py", subject, &numbers))
}

fn main() {
    #[cfg(feature = "procspawn")]
    procspawn::init();
    let count = few(100_000);
    let mut squares = table("map of a square over 100,000 numbers, 2 workers, a number", "map", &[count, 0]);
    squares = rival!(squares, "rayon", "rayon, threads", move || rayon_pool::map(count, 0));
    squares =
        rival!(squares, "procspawn", "procspawn, chunks by hand", move || procspawn_pool::map(count, 0));
    squares.run();

    let fewer = few(10_000);
    let mut single = table("map of a square in chunks of 1, 2 workers, a number", "map", &[fewer, 1]);
    single = rival!(single, "rayon", "rayon, threads", move || rayon_pool::map(fewer, 1));
    single = rival!(single, "procspawn", "procspawn", move || procspawn_pool::map(fewer, 1));
    single.run();

    let trips = few(5_000);
    let mut apply = table("apply, there and back, 2 workers", "apply", &[trips]);
    apply = rival!(apply, "rayon", "rayon, threads", move || rayon_pool::apply(trips));
    apply = rival!(apply, "procspawn", "procspawn", move || procspawn_pool::apply(trips));
    apply.run();

    let naps = few(2_000);
    let mut doze_table = table("2,000 tasks of 1 ms on 2 workers, a task", "doze", &[naps])
        .rival("limit: two threads that sleep", move || ideal(naps));
    doze_table = rival!(doze_table, "rayon", "rayon, threads", move || rayon_pool::doze(naps));
    doze_table = rival!(doze_table, "procspawn", "procspawn", move || procspawn_pool::doze(naps));
    doze_table.run();

    let payloads = few(500);
    let mut large = table("500 payloads of 1 MiB there and back, 2 workers, a payload", "large", &[payloads]);
    large = rival!(large, "rayon", "rayon, threads", move || rayon_pool::large(payloads));
    large = rival!(large, "procspawn", "procspawn, two at a time", move || procspawn_pool::large(payloads));
    large.run();

    let pools = if is_test() { 1 } else { 10 };
    let mut make = table("make a pool of 4, have one task done, close it", "make", &[pools]);
    make = rival!(make, "rayon", "rayon, threads", move || rayon_pool::make(pools));
    make = rival!(make, "procspawn", "procspawn", move || procspawn_pool::make(pools));
    make.run();
    finish();
}

/// Two threads that sleep a millisecond as often as it is their turn.
fn ideal(count: u64) -> f64 {
    let time = time_each(1, || {
        std::thread::scope(|scope| {
            for index in 0..2 {
                scope.spawn(move || (0..(count + index) / 2).map(doze).sum::<u64>());
            }
        });
    });
    time / count as f64
}
