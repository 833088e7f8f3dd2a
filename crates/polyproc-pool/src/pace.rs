//! How long tasks take, and so how many of them a worker gets at a time.
//!
//! A chunk costs its way there and back, some microseconds, so it should be worth some hundred; and nobody
//! should wait long for a worker that has got too much. Nothing is known of a function at first: it begins
//! with one task, and grows from what was measured.

use polyproc_process::remote::Remote;
use std::collections::HashMap;

/// How many nanoseconds of work a chunk should be.
pub(crate) const CHUNK: f64 = 200_000.0;
/// By how much a chunk may be larger than the largest one that was measured.
const GROWTH: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Nanoseconds a task.
    task: f64,
    /// The largest number of tasks that were measured at a time.
    largest: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Pace(HashMap<Remote, Measured>);

impl Pace {
    /// So many tasks took so many nanoseconds.
    pub(crate) fn learn(&mut self, function: Remote, count: usize, nanoseconds: u64) {
        if count == 0 {
            return;
        }
        let task = nanoseconds as f64 / count as f64;
        let measured = self.0.entry(function).or_insert(Measured { task, largest: 0 });
        // Many tasks say more than few: of a single one, the first time, most is cold caches.
        let weight = if count > measured.largest { 0.75 } else { 0.25 };
        measured.task += (task - measured.task) * weight;
        measured.largest = measured.largest.max(count);
    }

    /// How many tasks make a chunk.
    pub(crate) fn chunk(&self, function: Remote) -> usize {
        self.0.get(&function).map_or(1, |measured| {
            let worth = (CHUNK / measured.task.max(1.0)) as usize;
            worth.clamp(1, measured.largest.saturating_mul(GROWTH).max(1))
        })
    }

    /// How many nanoseconds so many tasks will take; nothing is known at first.
    pub(crate) fn expect(&self, function: Remote, count: usize) -> Option<f64> {
        self.0.get(&function).map(|measured| measured.task * count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Map;

    fn function() -> Remote {
        Remote::new::<Map<u32, u32>, _>(|n: u32| n).unwrap()
    }

    #[test]
    fn an_unknown_function_begins_with_one_task() {
        assert_eq!(Pace::default().chunk(function()), 1);
        assert_eq!(Pace::default().expect(function(), 5), None);
    }

    #[test]
    fn chunks_grow_to_what_is_worth_it() {
        let (mut pace, function) = (Pace::default(), function());
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let size = pace.chunk(function);
            sizes.push(size);
            pace.learn(function, size, 1_000 + 20 * size as u64);
        }
        assert_eq!(sizes[..2], [1, 32]);
        assert!((5_000..=10_000).contains(&sizes[4]), "{sizes:?}");
    }

    #[test]
    fn a_long_task_is_a_chunk() {
        let (mut pace, function) = (Pace::default(), function());
        pace.learn(function, 1, 1_000_000);
        assert_eq!(pace.chunk(function), 1);
        assert_eq!(pace.expect(function, 3), Some(3_000_000.0));
    }

    #[test]
    fn a_function_that_becomes_slower_gets_smaller_chunks() {
        let (mut pace, function) = (Pace::default(), function());
        pace.learn(function, 1, 100);
        pace.learn(function, 30, 3_000);
        let before = pace.chunk(function);
        for _ in 0..10 {
            pace.learn(function, 30, 300_000);
        }
        assert!(pace.chunk(function) < before && pace.chunk(function) <= 25);
    }
}
