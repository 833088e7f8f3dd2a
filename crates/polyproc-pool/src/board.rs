//! What a worker says of its work in shared memory, so that its death leaves no doubt.
//!
//! A worker takes its jobs in order, and of each job some items at a time, a *unit*. It *begins* a unit by a
//! compare-and-swap of the gate, and its items' results become *committed* one by one: the bytes first, then
//! one store that counts them. What was committed is a result, whatever happens to the worker; what comes
//! next is what it was at when it died; the rest nobody has touched.
//!
//! | word | who writes | |
//! |---|---|---|
//! | gate | worker: the unit that it begins; pool: the next epoch | `epoch << 32 \| unit` |
//! | progress | worker | `job << 32 \| items` |
//! | data | worker | the results that were committed and not sent |
//!
//! The pool *revokes* what a worker has not begun by a compare-and-swap of the gate to the next epoch: of the
//! two one wins, so that a unit is begun or revoked, and never both. Units are numbered from 1, and a job by
//! its first unit; only the lower halves of the numbers are compared, since of units under way there are
//! never more than some millions.

use polyproc_value::RawArray;
use serde::{Deserialize, Serialize};
use std::io;

const GATE: usize = 0;
const PROGRESS: usize = 8;
const DATA: usize = 16;
/// How many bytes it has for results: for all of a job that came through the line, if they are numbers.
const CAPACITY: usize = 48 << 10;
const WORDS: usize = DATA + CAPACITY / 8;

/// A result lies there behind a word of its own: its first byte, and how many follow, from the next word on.
const HEAD_SHIFT: u32 = 56;

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

/// In how many words the results lie that are on the board.
#[derive(Debug, Default)]
pub(crate) struct End(usize);

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

    /// The worker begins a unit. `false` if it was revoked: then it is not to be done, and nothing of its job
    /// that follows.
    #[inline]
    pub(crate) fn begin(&self, epoch: u32, unit: u64) -> bool {
        let before = pair(epoch, (unit as u32).wrapping_sub(1));
        let begun = self.0.compare_exchange(GATE, before, pair(epoch, unit as u32));
        matches!(begun, Ok(Ok(_)))
    }

    /// The worker commits the results of the first so many items, of which `new` are the last one's bytes;
    /// those before it lie here already, and end there. `false` if there is no room.
    #[inline(always)]
    #[must_use]
    pub(crate) fn commit(&self, job: u64, items: u32, end: &mut End, new: &[u8]) -> bool {
        let Some((first, rest)) = new.split_first() else { return false };
        let head = u64::from(*first) << HEAD_SHIFT | rest.len() as u64;
        let words = match <[u8; 8]>::try_from(rest) {
            // Most results are one number, and that is read as it was written: another part of it would have
            // to wait until it has left the CPU's buffers.
            Ok(number) => {
                let words = [head, u64::from_le_bytes(number)];
                self.0.store_all(DATA + end.0, &words).is_ok().then_some(words.len())
            }
            Err(_) => self.store_rest(DATA + end.0, head, rest),
        };
        let Some(words) = words else { return false };
        end.0 += words;
        self.count(job, items);
        true
    }

    /// How many words it took.
    fn store_rest(&self, at: usize, head: u64, rest: &[u8]) -> Option<usize> {
        let words = 1 + rest.len().div_ceil(8);
        if at + words > WORDS {
            return None;
        }
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        for (place, bytes) in (at + 1..).zip(rest.chunks(8)) {
            let _ = self.0.store_all(place, &[word(bytes)]);
        }
        let _ = self.0.store_all(at, &[head]);
        Some(words)
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

    /// The pool revokes all that the worker has not begun, and returns the last unit that it has, by the
    /// lower half of its number. `epoch` is the one in which they were sent; the next one is one more.
    pub(crate) fn revoke(&self, epoch: u32) -> u32 {
        let revoked = self.0.fetch_update(GATE, |gate| {
            ((gate >> 32) as u32 == epoch).then(|| pair(epoch.wrapping_add(1), gate as u32))
        });
        match revoked {
            Ok(Ok(gate) | Err(gate)) => gate as u32,
            Err(_) => 0,
        }
    }

    /// The first so many committed results that were not sent, of a worker that is dead; fewer if it has
    /// scribbled here.
    pub(crate) fn results(&self, count: usize) -> Vec<u8> {
        let words = self.0.to_vec();
        let (mut rest, mut bytes) = (&words[DATA..], Vec::new());
        for _ in 0..count {
            let Some((head, behind)) = rest.split_first() else { break };
            let length = (head & ((1 << HEAD_SHIFT) - 1)) as usize;
            let Some((item, behind)) = behind.split_at_checked(length.div_ceil(8)) else { break };
            bytes.push((head >> HEAD_SHIFT) as u8);
            let end = bytes.len() + length;
            bytes.extend(item.iter().flat_map(|word| word.to_le_bytes()));
            bytes.truncate(end);
            rest = behind;
        }
        bytes
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
        for step in 1..20 {
            let (mut end, mut results, mut count) = (End::default(), Vec::new(), 0);
            for length in (0..).map(|n| 1 + n * step % 71) {
                let new: Vec<u8> = (0..length).map(|n| (n + count * 7) as u8 | 1).collect();
                if !board.commit(1, count as u32 + 1, &mut end, &new) {
                    break;
                }
                count += 1;
                results.extend_from_slice(&new);
            }
            assert_eq!(board.progress(), Progress { job: 1, items: count as u32 });
            assert!(board.results(count) == results, "{step}");
            assert!(count > CAPACITY / (8 + 72) && end.0 <= CAPACITY / 8);
        }
    }

    #[test]
    fn a_scribbled_board_gives_no_more_than_there_is() {
        let board = Board::new().unwrap();
        for head in [u64::MAX, 1 << HEAD_SHIFT, CAPACITY as u64 + 1, CAPACITY as u64 - 8, 0] {
            (DATA..WORDS).for_each(|word| board.0.store(word, head).unwrap());
            assert!(board.results(1 << 20).len() <= CAPACITY);
        }
    }
}
