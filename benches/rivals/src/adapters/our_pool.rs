//! Ours: a pool of processes.

use crate::pool::{add_one, doze, payload, square};
use polyproc::Pool;

impl crate::pool::Pool for Pool {
    fn new(workers: usize) -> Pool {
        Pool::new(workers).expect("processes")
    }

    fn map(&mut self, numbers: Vec<u64>, chunk: Option<usize>) -> Vec<u64> {
        match chunk {
            None => Pool::map(self, square, numbers),
            Some(tasks) => self.batch().chunk_size(tasks).map(square, numbers),
        }
        .expect("squares")
    }

    fn apply(&mut self, number: u64) -> u64 {
        Pool::apply(self, square, (number,)).expect("a square")
    }

    fn doze(&mut self, count: u64) -> u64 {
        Pool::map(self, doze, 0..count).expect("naps").into_iter().sum()
    }

    fn large(&mut self, count: u64, take: &mut dyn FnMut(Vec<u8>)) {
        let results = self.imap(add_one, (0..count).map(payload));
        results.for_each(|result| take(result.expect("a payload")));
    }

    fn close(self) {
        Pool::close(&self);
        self.join().expect("its end");
    }
}
