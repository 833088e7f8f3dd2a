//! Tasks that were submitted together, from the pool's side: what waits, what is under way, what came back.

use crate::crew::Lease;
use crate::error::TaskError;
use crate::items::{self, Tag};
use crate::shelf::Lent;
use polyproc_memory::handover::Descriptor;
use polyproc_process::remote::{Panic, Remote};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar};

/// Names a batch within its pool.
pub(crate) type BatchId = u64;

/// A row of items, one behind the other, that wait for a worker.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Of the handles in it. Where there are any, there is one item.
    pub(crate) descriptors: Arc<Vec<Descriptor>>,
    /// Where in the bytes the first one is.
    pub(crate) at: usize,
    /// Its index in the batch.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// How often the first one was tried.
    pub(crate) tried: u32,
    /// How many workers died that had it next and were at nothing else.
    pub(crate) shunned: u32,
    /// The slab where the only one lies, if it does not lie in the bytes.
    pub(crate) lent: Option<Arc<Lent>>,
}

impl Source {
    /// The items of a fresh buffer.
    pub(crate) fn new(bytes: Vec<u8>, descriptors: Vec<Descriptor>, first: usize, count: usize) -> Source {
        let (bytes, descriptors) = (Arc::new(bytes), Arc::new(descriptors));
        Source { bytes, descriptors, at: 0, first, count, tried: 0, shunned: 0, lent: None }
    }

    /// One item that was written into a slab.
    pub(crate) fn lent(lent: Lent, index: usize) -> Source {
        Source { lent: Some(Arc::new(lent)), ..Source::new(Vec::new(), Vec::new(), index, 1) }
    }

    /// Takes so many items off the front, one at least, but no more bytes than `limit` if there is more than
    /// one. Returns them, and where they end.
    pub(crate) fn split(&mut self, count: usize, limit: usize) -> (Source, usize) {
        let most = if self.tried + self.shunned > 0 { 1 } else { count.clamp(1, self.count) };
        let (count, length) = items::fit(&self.bytes[self.at..], self.count, most, limit);
        let front = Source { count, ..self.clone() };
        self.skip(count, length);
        (front, length)
    }

    /// Without so many items, which take so many bytes.
    fn skip(&mut self, count: usize, length: usize) {
        self.at += length;
        self.first += count;
        self.count -= count;
        if count > 0 {
            (self.tried, self.shunned) = (0, 0);
        }
    }

    /// Without so many items.
    pub(crate) fn after(mut self, count: usize) -> Source {
        let length = items::length_of(&self.bytes[self.at..], count).unwrap_or_default();
        self.skip(count.min(self.count), length);
        self
    }
}

/// What became of some tasks that were neighbours.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The first one's index in the batch.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// Items from a worker, from this place in the bytes on.
    Items { bytes: Vec<u8>, at: usize, descriptors: Vec<OwnedFd> },
    /// The same, so many bytes in a slab.
    Lent { slab: Lease, length: usize },
    /// All of them failed for this reason.
    Failed(TaskError),
}

/// Takes results.
pub(crate) trait Take<R> {
    fn value(&mut self, index: usize, value: R);
    fn failure(&mut self, index: usize, error: TaskError);
}

impl Piece {
    /// Whether it lies in a slab, which is wanted for other results.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.what, What::Lent { .. })
    }

    /// Hands on each task's result, with its index. Returns memory that can be used again.
    #[inline]
    pub(crate) fn read<R: DeserializeOwned + 'static>(self, to: &mut impl Take<R>) -> Vec<u8> {
        let end = self.first + self.count;
        match self.what {
            What::Failed(error) => {
                (self.first..end).for_each(|index| to.failure(index, error.clone()));
                Vec::new()
            }
            What::Items { bytes, at, descriptors } if descriptors.is_empty() => {
                read_all(&bytes[at..], self.first..end, to);
                bytes
            }
            What::Lent { slab, length } => {
                slab.with(|bytes| read_all(&bytes[..length.min(bytes.len())], self.first..end, to));
                Vec::new()
            }
            What::Items { bytes, at, descriptors } => {
                // Then it is one.
                match items::next(&mut &bytes[at..]) {
                    Some((Tag::Value, item)) => {
                        let read = AssertUnwindSafe(|| items::read_with(item, descriptors));
                        match catch_unwind(read).unwrap_or_else(|_| Err(PANICKED.into())) {
                            Ok(value) => to.value(self.first, value),
                            Err(why) => to.failure(self.first, TaskError::Decode(why)),
                        }
                    }
                    item => to.failure(self.first, read_failure(item)),
                }
                bytes
            }
        }
    }
}

#[inline]
fn read_all<R: DeserializeOwned + 'static>(bytes: &[u8], indices: Range<usize>, to: &mut impl Take<R>) {
    let (mut rest, mut indices) = (bytes, indices);
    while !indices.is_empty() {
        // A panic ends one, and the next one begins afresh.
        let read = catch_unwind(AssertUnwindSafe(|| {
            for index in indices.by_ref() {
                match items::next(&mut rest) {
                    Some((Tag::Value, item)) => match items::read(item) {
                        Ok(value) => to.value(index, value),
                        Err(why) => to.failure(index, TaskError::Decode(why)),
                    },
                    item => to.failure(index, read_failure(item)),
                }
            }
        }));
        if read.is_err() {
            to.failure(indices.start - 1, TaskError::Decode(PANICKED.into()));
        }
    }
}

/// What became of a result whose type panics when it is read. The panic hook has told more.
const PANICKED: &str = "its type panicked";

/// Why there is no value.
#[cold]
fn read_failure(item: Option<(Tag, &[u8])>) -> TaskError {
    let Some((tag, item)) = item else {
        return TaskError::Decode("the results end too early".into());
    };
    if tag == Tag::Panicked {
        return match items::read::<Panic>(item) {
            Ok(Panic { message, location, backtrace }) => {
                TaskError::Panicked { message, location, backtrace }
            }
            Err(why) => TaskError::Decode(why),
        };
    }
    match (items::read(item), tag) {
        (Ok(why), Tag::Unreadable) => TaskError::Arguments(why),
        (Ok(why), _) => TaskError::Unsendable(why),
        (Err(why), _) => TaskError::Decode(why),
    }
}

/// What is called when all of a batch is done.
pub(crate) type Callback = Box<dyn FnOnce(Vec<Piece>) + Send>;

pub(crate) struct Batch {
    /// What is called; or why nothing can be.
    pub(crate) function: Result<Remote, TaskError>,
    /// How many tasks a worker gets at a time, if somebody has said so.
    pub(crate) chunk: Option<usize>,
    pub(crate) sources: VecDeque<Source>,
    /// How many items are in them.
    pub(crate) queued: usize,
    /// How many will still come, as far as is known.
    pub(crate) expected: usize,
    /// How many were submitted, and of how many it is known what became of them.
    pub(crate) entered: usize,
    pub(crate) settled: usize,
    /// Whether all were submitted.
    pub(crate) is_complete: bool,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) is_cancelled: bool,
    /// Whether nobody wants the results.
    pub(crate) is_abandoned: bool,
    pub(crate) callback: Option<Callback>,
    /// Tells those that wait for it.
    pub(crate) news: Arc<Condvar>,
    pub(crate) waiting: usize,
}

impl Batch {
    pub(crate) fn new(function: Result<Remote, TaskError>, chunk: Option<usize>) -> Batch {
        Batch {
            function,
            chunk,
            sources: VecDeque::new(),
            queued: 0,
            expected: 0,
            entered: 0,
            settled: 0,
            is_complete: false,
            pieces: Vec::new(),
            is_cancelled: false,
            is_abandoned: false,
            callback: None,
            news: Arc::default(),
            waiting: 0,
        }
    }

    pub(crate) fn under_way(&self) -> usize {
        self.entered - self.settled
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_complete && self.settled == self.entered
    }

    /// Enters what became of some tasks.
    pub(crate) fn settle(&mut self, piece: Piece) {
        self.settled += piece.count;
        if !self.is_abandoned {
            self.pieces.push(piece);
        }
        if self.waiting > 0 {
            self.news.notify_all();
        }
    }

    /// Gives up all that waits, for this reason: how many that were.
    pub(crate) fn fail_queued(&mut self, error: &TaskError) -> usize {
        let count = std::mem::take(&mut self.queued);
        for source in std::mem::take(&mut self.sources) {
            self.settle(Piece {
                first: source.first,
                count: source.count,
                what: What::Failed(error.clone()),
            });
        }
        count
    }
}
