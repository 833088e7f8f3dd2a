//! Ours: a pool of processes.

use crate::pool::{add_one, doze, payload, square};
use polyproc::Pool;
use serde_bytes::ByteBuf;

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

    fn large(&mut self, count: u64) -> Vec<Vec<u8>> {
        let add_one = |bytes: ByteBuf| ByteBuf::from(add_one(bytes.into_vec()));
        let payloads = (0..count).map(|number| ByteBuf::from(payload(number)));
        Pool::map(self, add_one, payloads).expect("payloads").into_iter().map(ByteBuf::into_vec).collect()
    }

    fn close(self) {
        Pool::close(&self);
        self.join().expect("its end");
    }
}
