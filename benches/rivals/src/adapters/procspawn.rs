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

/// Hands on the results of all these, in order, at most so many of them under way.
fn all<A: Serialize + DeserializeOwned, R: Serialize + DeserializeOwned + Send + 'static>(
    pool: &Pool,
    inputs: impl Iterator<Item = A>,
    f: fn(A) -> R,
    most: usize,
    mut take: impl FnMut(R),
) {
    let mut waiting = VecDeque::new();
    for input in inputs {
        if waiting.len() == most {
            waiting.pop_front().map(result).into_iter().for_each(&mut take);
        }
        waiting.push_back(pool.spawn(input, f));
    }
    waiting.into_iter().map(result).for_each(take);
}

impl crate::pool::Pool for Pool {
    fn new(workers: usize) -> Pool {
        Pool::new(workers).expect("processes")
    }

    fn map(&mut self, numbers: Vec<u64>, chunk: Option<usize>) -> Vec<u64> {
        // As Python's pool does it: four chunks a worker.
        let chunk = chunk.unwrap_or(numbers.len().div_ceil(4 * self.size()));
        let mut all_squares = Vec::new();
        all(self, numbers.chunks(chunk).map(<[u64]>::to_vec), squares, 64, |some| all_squares.extend(some));
        all_squares
    }

    fn apply(&mut self, number: u64) -> u64 {
        result(self.spawn(number, square))
    }

    fn doze(&mut self, count: u64) -> u64 {
        let mut sum = 0;
        all(self, 0..count, doze, 64, |one| sum += one);
        sum
    }

    fn large(&mut self, count: u64, take: &mut dyn FnMut(Vec<u8>)) {
        // One for each worker: with three on two workers, it and they wait for each other for ever.
        all(self, (0..count).map(payload), add_one, self.size(), take);
    }

    fn close(self) {
        self.shutdown();
    }
}
