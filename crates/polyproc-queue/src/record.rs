//! [`Record`]: a header in the ring, and what is left of a record that was taken in part.
//!
//! | bits | |
//! |---|---|
//! | 0 to 47 | how many bytes its message has; of padding, how many follow |
//! | 48 to 62 | how many *further* messages of this length follow, without a header of their own: a run |
//! | 63 | it is padding |
//!
//! The messages of a run lie one behind the other, each rounded up to words. Whoever takes some of them
//! leaves the position eight bytes before the next one, as if a header were there, and what that would be
//! lies beside the position: the *rest*. So a run is taken in as many steps as it likes, each of them one
//! store, and nothing in the ring changes.

use crate::layout::HEADER;

const PADDING: u64 = 1 << 63;
const LENGTH: u64 = (1 << 48) - 1;
const ONE_MORE: u64 = 1 << 48;

/// So many messages are one run at most.
const MOST: usize = 1 << 15;
/// So long are the messages of a run at most: longer ones gain nothing, and a claim keeps the length in 32
/// bits.
const LONGEST: usize = 256;

/// A header, or the rest of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(transparent)]
pub(crate) struct Record(pub(crate) u64);

impl Record {
    /// As a rest: a header is where the position is.
    pub(crate) const NONE: Record = Record(0);

    /// One message.
    #[inline(always)]
    pub(crate) fn message(length: usize) -> Record {
        Record(length as u64)
    }

    /// So many messages of a length, at least one and no more than [`most`](Record::most).
    #[inline(always)]
    pub(crate) fn messages(count: usize, length: usize) -> Record {
        Record(length as u64 + (count as u64 - 1) * ONE_MORE)
    }

    /// How many messages of a length can be one record.
    #[inline(always)]
    pub(crate) fn most(length: usize) -> usize {
        if length == 0 || length > LONGEST { 1 } else { MOST }
    }

    /// Nothing, and so many bytes of it behind the header.
    #[inline(always)]
    pub(crate) fn padding(bytes: u64) -> Record {
        Record(PADDING | bytes)
    }

    #[inline(always)]
    pub(crate) fn is_padding(self) -> bool {
        self.0 & PADDING != 0
    }

    /// Of its message, of each of its messages, or of the padding.
    #[inline(always)]
    pub(crate) fn length(self) -> usize {
        (self.0 & LENGTH) as usize
    }

    /// How many messages it has, if it is no padding.
    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        (self.0 / ONE_MORE) as usize + 1
    }

    /// How many bytes a message of a length takes beside a header.
    #[inline(always)]
    pub(crate) fn stride(length: usize) -> u64 {
        (length as u64 + (HEADER - 1)) & !(HEADER - 1)
    }

    /// When so many of its messages are taken, at least one: how far the position moves, and the rest.
    #[inline(always)]
    pub(crate) fn after(self, taken: usize) -> (u64, Record) {
        let way = Record::stride(self.length()) * taken as u64;
        if taken == self.count() {
            (way + HEADER, Record::NONE)
        } else {
            (way, Record(self.0 - taken as u64 * ONE_MORE))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_a_run_is_taken_it_ends_at_the_same_place() {
        let run = Record::messages(7, 12);
        assert_eq!((run.count(), run.length(), run.is_padding()), (7, 12, false));
        for first in 1..7 {
            let (way, rest) = run.after(first);
            assert_eq!((rest.count(), rest.length()), (7 - first, 12));
            let (further, end) = rest.after(7 - first);
            assert_eq!((way + further, end), (HEADER + 7 * 16, Record::NONE));
        }
        assert_eq!(run.after(7), (HEADER + 7 * 16, Record::NONE));
    }

    #[test]
    fn one_message_is_a_header_with_its_length() {
        assert_eq!(Record::messages(1, 5), Record::message(5));
        assert_eq!(Record::message(5).after(1), (HEADER + 8, Record::NONE));
        assert_eq!(Record::message(0).after(1), (HEADER, Record::NONE));
        assert_eq!((Record::message(0).count(), Record::most(0), Record::most(8)), (1, 1, MOST));
        assert_eq!(Record::messages(MOST, LONGEST).count(), MOST);
        assert!(!Record::messages(MOST, LONGEST).is_padding() && Record::padding(40).is_padding());
        assert_eq!(Record::padding(40).length(), 40);
    }
}
