//! What a worker says of its work in shared memory, so that its death leaves no doubt.
//!
//! A worker takes its jobs in order, and of each job some items at a time, a *unit*. It *begins* a unit by a
//! compare-and-swap of the gate, and its items' results become *committed* one by one: the bytes first, then one store that
//! counts them. What was committed is a result, whatever happens to the worker; what comes next is what it was at when it
//! died; the rest nobody has touched.
//!
//! | word | who writes | |
//! |---|---|---|
//! | gate | worker: the unit that it begins; pool: the next epoch | `epoch << 32 \| unit` |
//! | progress | worker | `job << 32 \| items` |
//! | data | worker | the results that were committed and not sent |
//!
//! The pool *revokes* what a worker has not begun by a compare-and-swap of the gate to the next epoch: of the two one
//! wins, so that a unit is begun or revoked, and never both. Units are numbered from 1, and a job by its first unit; only
//! the lower halves of the numbers are compared, since of units under way there are never more than some millions.

use polyproc_value::RawArray;
use serde::{Deserialize, Serialize};
use std::io;

const GATE: usize = 0;
const PROGRESS: usize = 8;
const DATA: usize = 16;
/// How many bytes of results it holds.
pub(crate) const CAPACITY: usize = 16 << 10;
const WORDS: usize = DATA + CAPACITY / 8;

/// A clone is the same board.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Board(RawArray<u64>);

/// How far a worker came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The lower half of the job's number.
    job: u32,
    /// How many of its items' results are committed.
    pub(crate) items: u32,
}

impl Progress {
    /// Whether it is about this job.
    pub(crate) fn is_of(self, job: u64) -> bool {
        self.job == job as u32
    }
}

/// Where the results end that lie on the board.
#[derive(Debug, Default)]
pub(crate) struct End {
    bytes: usize,
    /// The last word, if it is not complete.
    word: u64,
}

impl End {
    /// Appends some bytes, up to eight. What does not fill a word is kept.
    #[inline(always)]
    fn push<const N: usize>(&mut self, board: &Board, bytes: [u8; N]) {
        let mut word = [0; 8];
        word[..N].copy_from_slice(&bytes);
        let (word, filled) = (u64::from_le_bytes(word), self.bytes % 8);
        self.word |= word << (8 * filled);
        if filled + N >= 8 {
            self.flush(board);
            // In two steps, because of none there would be 64.
            self.word = word >> 8 >> (56 - 8 * filled);
            if filled + N == 8 {
                self.word = 0;
            }
        }
        self.bytes += N;
    }

    /// Stores the last word, complete or not.
    #[inline(always)]
    fn flush(&self, board: &Board) {
        // Within the board: the caller sends what does not fit.
        let _ = board.0.store_all(DATA + self.bytes / 8, &[self.word]);
    }
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Board {
    pub(crate) fn new() -> io::Result<Board> {
        RawArray::zeroed(WORDS).map(Board)
    }

    fn load(&self, word: usize) -> u64 {
        self.0.load(word).unwrap_or_default()
    }

    /// The worker begins a unit. `false` if it was revoked: then it is not to be done, and nothing of its job that
    /// follows.
    #[inline]
    pub(crate) fn begin(&self, epoch: u32, unit: u64) -> bool {
        let before = pair(epoch, (unit as u32).wrapping_sub(1));
        let begun = self.0.compare_exchange(GATE, before, pair(epoch, unit as u32));
        matches!(begun, Ok(Ok(_)))
    }

    /// The worker commits the results of the first so many items, of which `new` are the last one's bytes; those before lie
    /// here already, and end at this place.
    #[inline(always)]
    pub(crate) fn commit(&self, job: u64, items: u32, end: &mut End, new: &[u8]) {
        // As it was written: what is read back in other parts than it was written in has to wait for them.
        if let Some((head, new)) = new.split_first() {
            end.push(self, [*head]);
            let (words, rest) = new.as_chunks::<8>();
            words.iter().for_each(|word| end.push(self, *word));
            let (halves, rest) = rest.as_chunks::<4>();
            halves.iter().for_each(|half| end.push(self, *half));
            rest.iter().for_each(|byte| end.push(self, [*byte]));
        }
        end.flush(self);
        self.count(job, items);
    }

    /// The worker says how many items are committed; the next one is what it is at.
    #[inline]
    pub(crate) fn count(&self, job: u64, items: u32) {
        let _ = self.0.store_all(PROGRESS, &[pair(job as u32, items)]);
    }

    /// How far the worker is.
    pub(crate) fn progress(&self) -> Progress {
        let word = self.load(PROGRESS);
        Progress { job: (word >> 32) as u32, items: word as u32 }
    }

    /// The last unit that it has begun, by the lower half of its number.
    pub(crate) fn begun(&self) -> u32 {
        self.load(GATE) as u32
    }

    /// The pool revokes all that the worker has not begun, and returns the last unit that it has, by the lower half of its
    /// number. `epoch` is the one in which they were sent; the next one is one more.
    pub(crate) fn revoke(&self, epoch: u32) -> u32 {
        let revoked = self.0.fetch_update(GATE, |gate| {
            ((gate >> 32) as u32 == epoch).then(|| pair(epoch.wrapping_add(1), gate as u32))
        });
        match revoked {
            Ok(Ok(gate) | Err(gate)) => gate as u32,
            Err(_) => 0,
        }
    }

    /// The committed results that were not sent, of a worker that is dead.
    pub(crate) fn results(&self) -> Vec<u8> {
        self.0.to_vec()[DATA..].iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_begun_or_revoked() {
        let board = Board::new().unwrap();
        assert!(board.begin(0, 1));
        assert!(!board.begin(0, 1), "twice");
        assert!(!board.begin(0, 3), "out of turn");
        assert_eq!(board.revoke(0), 1);
        assert!(!board.begin(0, 2), "revoked");
        assert!(board.begin(1, 2));
        assert_eq!(board.begun(), 2);
    }

    #[test]
    fn numbers_go_on_beyond_their_lower_half() {
        let board = Board::new().unwrap();
        board.0.store(GATE, pair(7, u32::MAX)).unwrap();
        assert!(board.begin(7, 1 << 32));
        board.count(1 << 32, 0);
        assert!(board.progress().is_of(1 << 32));
        assert_eq!(board.revoke(7), 0);
    }

    #[test]
    fn of_a_race_for_a_unit_one_wins() {
        for _ in 0..2000 {
            let board = Board::new().unwrap();
            let (begun, last) = std::thread::scope(|scope| {
                let worker = scope.spawn(|| board.begin(0, 1));
                let last = board.revoke(0);
                (worker.join().unwrap(), last)
            });
            assert_eq!(begun, last == 1);
        }
    }

    #[test]
    fn what_is_committed_is_found() {
        let board = Board::new().unwrap();
        assert!(board.begin(0, 1));
        // In parts of all lengths, from all places on.
        for step in 1..70 {
            let (mut end, mut results) = (End::default(), Vec::new());
            for (item, length) in (1..).zip((0..70).map(|n| (n * step) % 71)) {
                let new: Vec<u8> = (0..length).map(|n| (n + item * 7) as u8 | 1).collect();
                results.extend_from_slice(&new);
                board.commit(1, item as u32, &mut end, &new);
                assert_eq!(board.progress(), Progress { job: 1, items: item as u32 });
                assert!(board.results()[..results.len()] == results, "{item} by {step}");
            }
        }
        assert_eq!(board.results().len(), CAPACITY);
    }
}
