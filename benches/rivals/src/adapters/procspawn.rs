//! procspawn: its pool of processes. It has no `map`, and a task that waits takes four descriptors: only some are under way at
//! a time.

use crate::pool::{add_one, doze, payload, square};
use procspawn::{JoinHandle, Pool};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::time::Duration;

fn result<T: Serialize + DeserializeOwned>(mut handle: JoinHandle<T>) -> T {
    handle.join_timeout(Duration::from_secs(30)).expect("a result")
}

fn squares(numbers: Vec<u64>) -> Vec<u64> {
    numbers.into_iter().map(square).collect()
}

/// The results of all these, in order, at most so many of them under way.
fn all<A: Serialize + DeserializeOwned, R: Serialize + DeserializeOwned + Send + 'static>(
    pool: &Pool,
    inputs: impl Iterator<Item = A>,
    f: fn(A) -> R,
    most: usize,
) -> Vec<R> {
    let (mut waiting, mut results) = (VecDeque::new(), Vec::new());
    for input in inputs {
        if waiting.len() == most {
            results.extend(waiting.pop_front().map(result));
        }
        waiting.push_back(pool.spawn(input, f));
    }
    results.extend(waiting.into_iter().map(result));
    results
}

impl crate::pool::Pool for Pool {
    fn new(workers: usize) -> Pool {
        Pool::new(workers).expect("processes")
    }

    fn map(&mut self, numbers: Vec<u64>, chunk: Option<usize>) -> Vec<u64> {
        // As Python's pool does it: four chunks a worker.
        let chunk = chunk.unwrap_or(numbers.len().div_ceil(4 * self.size()));
        all(self, numbers.chunks(chunk).map(<[u64]>::to_vec), squares, 64).concat()
    }

    fn apply(&mut self, number: u64) -> u64 {
        result(self.spawn(number, square))
    }

    fn doze(&mut self, count: u64) -> u64 {
        all(self, 0..count, doze, 64).into_iter().sum()
    }

    fn large(&mut self, count: u64) -> Vec<Vec<u8>> {
        // One for each worker: with three on two workers, it and they wait for each other for ever.
        all(self, (0..count).map(payload), add_one, self.size())
    }

    fn close(self) {
        self.shutdown();
    }
}
