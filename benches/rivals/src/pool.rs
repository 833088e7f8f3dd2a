//! Subjects: a pool at small tasks in chunks and one by one, at one task there and back, at tasks of a millisecond, at large
//! payloads; and how long it takes to make one and to close it.

use polyproc_benches::{nanos, time_each};
use std::time::{Duration, Instant};

/// How many bytes a large payload has.
pub const LARGE: usize = 1 << 20;

/// A pool of workers, and what is asked of it.
pub trait Pool: Sized {
    /// One with so many workers.
    fn new(workers: usize) -> Self;
    /// The [`square`] of each, in order; in chunks of so many, or as it likes.
    fn map(&mut self, numbers: Vec<u64>, chunk: Option<usize>) -> Vec<u64>;
    /// The square of one, by a worker.
    fn apply(&mut self, number: u64) -> u64;
    /// Has so many tasks [`doze`], each by itself: the sum of what they return.
    fn doze(&mut self, count: u64) -> u64;
    /// Has [`add_one`] done to so many payloads, made by [`payload`], and hands on the results, in order: one after the other
    /// if it can.
    fn large(&mut self, count: u64, take: &mut dyn FnMut(Vec<u8>));
    /// Ends all workers, and waits for them.
    fn close(self);
}

/// A small task.
pub fn square(number: u64) -> u64 {
    number * number
}

/// A task of a millisecond.
pub fn doze(_: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    1
}

/// A payload.
pub fn payload(number: u64) -> Vec<u8> {
    vec![number as u8; LARGE]
}

/// A task that touches each byte of its payload.
pub fn add_one(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
    bytes
}

/// A pool whose workers are at work.
fn ready<P: Pool>(workers: usize) -> P {
    let mut pool = P::new(workers);
    assert_eq!(pool.map((0..8).collect(), Some(1)), (0..8).map(square).collect::<Vec<_>>());
    pool
}

/// Nanoseconds a number of a map by two workers.
pub fn map<P: Pool>(count: u64, chunk: Option<usize>) -> f64 {
    let mut pool = ready::<P>(2);
    let numbers: Vec<u64> = (0..count).collect();
    let start = Instant::now();
    let results = pool.map(numbers, chunk);
    let time = start.elapsed();
    assert!(results.into_iter().eq((0..count).map(square)), "not the squares");
    pool.close();
    nanos(time) / count as f64
}

/// Nanoseconds of a task there and back.
pub fn apply<P: Pool>(count: u64) -> f64 {
    let mut pool = ready::<P>(2);
    let mut number = 0;
    let time = time_each(count, || {
        number += 1;
        assert_eq!(pool.apply(number), number * number);
    });
    pool.close();
    time
}

/// Nanoseconds a task of a millisecond, of two workers: half a millisecond at best.
pub fn naps<P: Pool>(count: u64) -> f64 {
    let mut pool = ready::<P>(2);
    let start = Instant::now();
    assert_eq!(pool.doze(count), count);
    let time = start.elapsed();
    pool.close();
    nanos(time) / count as f64
}

/// Nanoseconds a large payload there and back. Each is looked at, as in Python, and dropped; or they are all kept, and compared
/// in the end.
pub fn payloads<P: Pool>(count: u64, are_kept: bool) -> f64 {
    let mut pool = ready::<P>(2);
    let (mut number, mut kept) = (0, Vec::new());
    let start = Instant::now();
    pool.large(count, &mut |result| {
        let expected = (number as u8).wrapping_add(1);
        assert!(result.len() == LARGE && result[0] == expected && result[LARGE - 1] == expected);
        // The whole of a few.
        assert!(number % 100 != 0 || result == add_one(payload(number)), "not the payload that was due");
        number += 1;
        if are_kept {
            kept.push(result);
        }
    });
    let time = start.elapsed();
    pool.close();
    assert_eq!(number, count);
    for (number, result) in (0..).zip(&kept) {
        assert!(*result == add_one(payload(number)), "not the payload that was due");
    }
    nanos(time) / count as f64
}

/// Nanoseconds of a pool of four that is made, does a task, and is closed.
pub fn make<P: Pool>(count: u64) -> f64 {
    time_each(count, || {
        let mut pool = P::new(4);
        assert_eq!(pool.apply(3), 9);
        pool.close();
    })
}

/// The limit of [`naps`]: two threads that sleep as often as it is their turn.
pub fn ideal_naps(count: u64) -> f64 {
    let start = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let work = |index| scope.spawn(move || (0..(count + index) / 2).map(doze).sum::<u64>());
        [0, 1].map(work).into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(done, count);
    nanos(start.elapsed()) / count as f64
}
