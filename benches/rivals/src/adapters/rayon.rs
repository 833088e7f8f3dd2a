//! rayon: a pool of threads, to which nothing has to travel.

use crate::pool::{Pool, add_one, doze, payload, square};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

impl Pool for ThreadPool {
    fn new(workers: usize) -> ThreadPool {
        ThreadPoolBuilder::new().num_threads(workers).build().expect("threads")
    }

    fn map(&mut self, numbers: Vec<u64>, chunk: Option<usize>) -> Vec<u64> {
        let most = chunk.unwrap_or(usize::MAX);
        self.install(|| numbers.into_par_iter().with_max_len(most).map(square).collect())
    }

    fn apply(&mut self, number: u64) -> u64 {
        self.install(|| square(number))
    }

    fn doze(&mut self, count: u64) -> u64 {
        self.install(|| (0..count as usize).into_par_iter().with_max_len(1).map(|_| doze(0)).sum())
    }

    fn large(&mut self, count: u64, take: &mut dyn FnMut(Vec<u8>)) {
        let work = |number| add_one(payload(number as u64));
        let results: Vec<_> =
            self.install(|| (0..count as usize).into_par_iter().with_max_len(1).map(work).collect());
        results.into_iter().for_each(take);
    }

    fn close(self) {}
}
