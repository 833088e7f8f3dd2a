//! Memory that is used again: fresh memory costs more than the copy that goes into it, if it is large.

/// Less is left to the allocator.
const LEAST: usize = 64 << 10;
/// So much is kept at the most, in so many pieces.
const MOST: usize = 32 << 20;
const PIECES: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

impl Spare {
    /// An empty vector, with memory if there is any.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps memory, if it is worth it.
    pub(crate) fn put(&mut self, mut memory: Vec<u8>) {
        let kept: usize = self.0.iter().map(Vec::capacity).sum();
        if memory.capacity() >= LEAST && kept + memory.capacity() <= MOST && self.0.len() < PIECES {
            memory.clear();
            self.0.push(memory);
        }
    }

    /// The same bytes, in no more memory than becomes them.
    pub(crate) fn fit(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        if bytes.capacity() < LEAST || bytes.len() > bytes.capacity() / 4 {
            return bytes;
        }
        let copy = bytes.as_slice().to_vec();
        self.put(bytes);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_comes_back_and_small_does_not() {
        let mut spare = Spare::default();
        spare.put(Vec::with_capacity(100));
        assert_eq!(spare.take().capacity(), 0);
        spare.put(vec![1; LEAST]);
        let memory = spare.take();
        assert!(memory.is_empty() && memory.capacity() >= LEAST);
        (0..100).for_each(|_| spare.put(Vec::with_capacity(MOST / 4)));
        assert!(spare.0.len() <= 4);
    }

    #[test]
    fn few_bytes_do_not_keep_much_memory() {
        let mut spare = Spare::default();
        let mut bytes = Vec::with_capacity(LEAST);
        bytes.extend_from_slice(b"few");
        let bytes = spare.fit(bytes);
        assert_eq!(bytes, b"few");
        assert!(bytes.capacity() < 100 && spare.take().capacity() >= LEAST);
        assert_eq!(spare.fit(vec![7; LEAST]).len(), LEAST);
    }
}
