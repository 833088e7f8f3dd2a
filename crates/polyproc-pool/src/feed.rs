//! From an iterator to the workers: pulls no more than they will soon need.

use crate::batch::{BatchId, Piece, Source, What};
use crate::core::{Core, Settings};
use crate::error::{PoolError, TaskError};
use crate::hub::Hub;
use crate::items::{self, Appended, Tag};
use crate::pile::Pile;
use crate::progress::Progress;
use crate::shelf::Lent;
use polyproc_memory::handover::Descriptor;
use polyproc_process::SpawnError;
use polyproc_process::remote::Remote;
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar};
use std::time::Instant;

/// How a batch of tasks is to be run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) chunk: Option<usize>,
    pub(crate) max_in_flight: Option<usize>,
    pub(crate) progress: Progress,
}

/// A batch that this process has submitted. Dropped, it is abandoned.
pub(crate) struct Submitted {
    pub(crate) hub: Arc<Hub>,
    pub(crate) id: BatchId,
    news: Arc<Condvar>,
    /// Who has submitted it: a forked child gets no results of its parent's.
    pid: u32,
    /// Whether it is run though nobody wants its results any more.
    is_kept: bool,
}

impl Submitted {
    /// A new batch without tasks.
    pub(crate) fn new(
        hub: &Arc<Hub>,
        function: Result<Remote, SpawnError>,
        chunk: Option<usize>,
    ) -> Submitted {
        let function = function.map_err(|error| TaskError::Broken(PoolError::from(error)));
        let hub = match hub.is_ours() {
            true => Arc::clone(hub),
            false => Arc::new(hub.stand_in(Core::new(Settings::default(), 1))),
        };
        let mut state = hub.lock();
        let id = state.core.begin(function, chunk);
        let batch = state.core.batch(id);
        let news = Arc::clone(&batch.news);
        drop(state);
        Submitted { hub, id, news, pid: std::process::id(), is_kept: false }
    }

    /// Whether it is a forked child's copy.
    pub(crate) fn is_inherited(&self) -> bool {
        self.pid != std::process::id()
    }

    /// A new batch of one task.
    pub(crate) fn one<T: Serialize + 'static>(
        hub: &Arc<Hub>,
        function: Result<Remote, SpawnError>,
        argument: &T,
        is_awaited: bool,
    ) -> Submitted {
        let mut bytes = Vec::new();
        let appended = items::append(&mut bytes, Tag::Value, argument);
        let mut submitted = Submitted::new(hub, function, Some(1));
        submitted.is_kept = true;
        let hub = Arc::clone(&submitted.hub);
        let mut state = hub.lock();
        if let Some(most) = state.core.settings.max_in_flight.filter(|_| !is_awaited) {
            let room = Arc::clone(&state.core.room);
            state.core.wait_for_room += 1;
            let has_room = |core: &mut Core| core.under_way() < most || core.refusal().is_some();
            (state, _) = hub.wait(state, &room, None, has_room);
            state.core.wait_for_room -= 1;
        }
        match appended {
            Appended::Plain => state.core.enter(submitted.id, Source::new(bytes, Vec::new(), 0, 1)),
            Appended::Handles(descriptors) => {
                state.core.enter(submitted.id, Source::new(bytes, descriptors, 0, 1));
            }
            Appended::Not(why) => state.core.enter_failed(submitted.id, 0, TaskError::Encode(why)),
        }
        state.core.complete(submitted.id);
        if !is_awaited {
            hub.attend(state);
        }
        submitted
    }

    /// Waits until something has come back, or everything is done, or the deadline. What came back, and
    /// whether that was all.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> (Vec<Piece>, bool) {
        let (mut state, _) = self.wait_for(deadline, false);
        let batch = state.core.batch(self.id);
        (std::mem::take(&mut batch.pieces), batch.is_done())
    }

    /// Sees to the workers, between two pieces of something that takes a while.
    pub(crate) fn attend(&self) {
        let mut state = self.hub.lock();
        let has_received = state.core.receive();
        self.hub.stir(state, has_received);
    }

    /// Waits until all is done: all that came back.
    pub(crate) fn wait_for_all(&self) -> Vec<Piece> {
        self.is_done(None);
        self.take()
    }

    /// All that came back.
    pub(crate) fn take(&self) -> Vec<Piece> {
        if self.is_inherited() {
            let what = What::Failed(TaskError::Broken(PoolError::Forked));
            return vec![Piece { first: 0, count: 1, what }];
        }
        std::mem::take(&mut self.hub.lock().core.batch(self.id).pieces)
    }

    /// Memory that nobody needs any more.
    pub(crate) fn recycle(&self, memory: Vec<u8>) {
        if memory.capacity() > BYTES {
            self.hub.lock().core.recycle(memory);
        }
    }

    /// Waits until all is done, or the deadline: whether it is.
    pub(crate) fn is_done(&self, deadline: Option<Instant>) -> bool {
        self.is_inherited() || self.wait_for(deadline, true).1
    }

    /// Waits until fewer tasks than this are under way: how many fewer.
    fn wait_for_room(&self, most: usize) -> usize {
        let mut state = self.hub.lock();
        state.core.batch(self.id).waiting += 1;
        let has_room = |core: &mut Core| core.batch(self.id).under_way() < most;
        (state, _) = self.hub.wait(state, &self.news, None, has_room);
        let batch = state.core.batch(self.id);
        batch.waiting -= 1;
        most - batch.under_way()
    }

    fn wait_for(&self, deadline: Option<Instant>, all: bool) -> (crate::hub::Guard<'_>, bool) {
        let mut state = self.hub.lock();
        state.core.batch(self.id).waiting += 1;
        let (mut state, is_ready) = self.hub.wait(state, &self.news, deadline, |core| {
            let batch = core.batch(self.id);
            batch.is_done() || !all && !batch.pieces.is_empty()
        });
        state.core.batch(self.id).waiting -= 1;
        (state, is_ready)
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if !self.is_inherited() {
            self.hub.lock().core.abandon(self.id, self.is_kept);
        }
    }
}

/// How many bytes of items are made at a time: about what a worker gets at a time.
const BYTES: usize = 23 << 10;
/// By default an iterator is this many times ahead of what all workers take at a time.
const AHEAD: usize = 4;

/// A batch whose tasks come from an iterator.
pub(crate) struct Feeder<I> {
    pub(crate) submitted: Submitted,
    input: I,
    /// How many were pulled.
    pub(crate) pulled: usize,
    pub(crate) is_over: bool,
    max_in_flight: Option<usize>,
    /// How long the last item was, if it was long.
    long: usize,
    /// How many items the last row had that was full: a worker gets no more at a time.
    row: usize,
}

impl<T: Serialize + 'static, I: Iterator<Item = T>> Feeder<I> {
    pub(crate) fn new(
        hub: &Arc<Hub>,
        function: Result<Remote, SpawnError>,
        options: &Options,
        input: I,
    ) -> Feeder<I> {
        let submitted = Submitted::new(hub, function, options.chunk);
        let max_in_flight = options.max_in_flight.or(submitted.hub.lock().core.settings.max_in_flight);
        let mut feeder =
            Feeder { submitted, input, pulled: 0, is_over: false, max_in_flight, long: 0, row: usize::MAX };
        feeder.expect();
        feeder
    }

    /// How many will come, as far as is known.
    pub(crate) fn expected(&self) -> usize {
        if self.is_over { 0 } else { self.input.size_hint().0 }
    }

    /// Says how many will come.
    fn expect(&mut self) {
        let expected = self.expected();
        self.submitted.hub.lock().core.batch(self.submitted.id).expected = expected;
    }

    /// Pulls what the workers will soon need, but no more than so many that were not yet yielded, if they are
    /// yielded.
    pub(crate) fn feed(&mut self, yielded: Option<usize>) {
        if self.submitted.is_inherited() {
            return;
        }
        while !self.is_over {
            let (want, is_open) = {
                let mut state = self.submitted.hub.lock();
                let (chunk, _) = state.core.chunk(self.submitted.id);
                let workers = state.core.wanted.max(1);
                let is_open = state.core.refusal().is_none();
                let pace = state.core.pace(self.submitted.id);
                let batch = state.core.batch(self.submitted.id);
                let is_open = is_open && !batch.is_cancelled && batch.function.is_ok();
                let (queued, under_way) = (batch.queued, batch.under_way());
                // As many as keep them at work until this is called again. More would only need more memory.
                let share = workers.saturating_mul(chunk.max(pace).min(self.row));
                let room = match (self.max_in_flight, yielded) {
                    (Some(most), Some(yielded)) => most.saturating_sub(self.pulled - yielded),
                    (Some(most), None) => most.saturating_sub(under_way),
                    (None, Some(yielded)) => (AHEAD * share).saturating_sub(self.pulled - yielded),
                    (None, None) => usize::MAX,
                };
                ((2 * share).saturating_sub(queued).min(share.max(1)).min(room), is_open)
            };
            // Of a pool that takes nothing any more one asks no further: the first task says so.
            let want = if is_open { want } else { want.min(1) };
            if want == 0 {
                break;
            }
            self.pull(want);
            if !is_open {
                self.is_over = true;
            }
        }
        if self.is_over {
            let mut state = self.submitted.hub.lock();
            if !state.core.batch(self.submitted.id).is_complete {
                state.core.complete(self.submitted.id);
            }
        }
    }

    /// Pulls all there is. If there is a limit to how much may be under way, it waits for what is.
    pub(crate) fn feed_all(&mut self) {
        while !self.is_over {
            let room = self.max_in_flight.map_or(usize::MAX, |most| self.submitted.wait_for_room(most));
            self.pull(room);
            // Most inputs know, so that nobody waits for room for nothing.
            self.is_over |= self.input.size_hint().1 == Some(0);
        }
        self.submitted.is_kept = true;
        let mut state = self.submitted.hub.lock();
        state.core.complete(self.submitted.id);
        self.submitted.hub.attend(state);
    }

    /// Pulls so many, and submits them.
    fn pull(&mut self, most: usize) {
        let mut entries: Vec<Entry> = Vec::new();
        let (pile, lent) = match self.long {
            0 => (Pile::new(if most > 1 { (BYTES + 512).min(most.saturating_mul(64)) } else { 0 }), None),
            long => {
                let core = &mut self.submitted.hub.lock().core;
                (Pile::reuse(core.memory()), core.lend(long))
            }
        };
        let mut row = Row { pile, first: self.pulled, count: 0 };
        let mut lent_bytes = None;
        let mut pulled = 0;
        let mut made = 0;
        let mut before = 0;
        let panic = catch_unwind(AssertUnwindSafe(|| {
            while pulled < most && made + row.pile.len() < BYTES {
                let Some(item) = self.input.next() else {
                    self.is_over = true;
                    break;
                };
                let index = self.pulled + pulled;
                before = row.pile.len();
                if let Some(lent) = &lent {
                    // Long items come one at a time.
                    lent_bytes = lent.lease.with(|place| items::put_long(place, &item));
                    if lent_bytes.is_some() {
                        pulled += 1;
                        break;
                    }
                }
                match row.pile.append(&item) {
                    Appended::Plain => row.count += 1,
                    Appended::Handles(descriptors) => {
                        let alone = row.pile.split_off(before);
                        made += before + alone.len();
                        row.flush(&mut entries, index + 1);
                        entries.push(Entry::Source(Source::new(alone, descriptors, index, 1)));
                    }
                    Appended::Not(why) => {
                        made += before;
                        row.flush(&mut entries, index + 1);
                        entries.push(Entry::Failed(index, why));
                    }
                }
                before = row.pile.len();
                pulled += 1;
                if lent.is_some() {
                    break;
                }
            }
        }));
        if panic.is_err() {
            // The input ends with what it had yielded before, all of which is run.
            row.pile.truncate(before);
            pulled = row.first + row.count - self.pulled;
            self.is_over = true;
        }
        if row.pile.len() >= BYTES && row.count > 0 {
            self.row = row.count;
        }
        self.long = match lent_bytes.unwrap_or(row.pile.len()) {
            length if length > 2 * BYTES => length,
            _ => 0,
        };
        row.flush(&mut entries, 0);
        if let (Some(lent), Some(length)) = (lent, lent_bytes) {
            entries.push(Entry::Source(Source::lent(Lent { length, ..lent }, self.pulled)));
        }
        self.pulled += pulled;
        let expected = self.expected();
        let mut state = self.submitted.hub.lock();
        // What has come meanwhile makes room for more.
        let has_received = state.core.receive();
        state.core.batch(self.submitted.id).expected = expected;
        for entry in entries {
            match entry {
                Entry::Source(source) => state.core.enter(self.submitted.id, source),
                Entry::Failed(index, why) => {
                    state.core.enter_failed(self.submitted.id, index, TaskError::Encode(why));
                }
            }
        }
        self.submitted.hub.stir(state, has_received);
        if let Err(panic) = panic {
            resume_unwind(panic);
        }
    }
}

enum Entry {
    Source(Source),
    Failed(usize, String),
}

/// Items without descriptors, one behind the other.
struct Row {
    pile: Pile,
    first: usize,
    count: usize,
}

impl Row {
    /// Ends the row; the next one begins with this index.
    fn flush(&mut self, entries: &mut Vec<Entry>, next: usize) {
        let none: Vec<Descriptor> = Vec::new();
        if self.count > 0 {
            let bytes = std::mem::take(&mut self.pile).into_bytes();
            entries.push(Entry::Source(Source::new(bytes, none, self.first, self.count)));
        }
        (self.first, self.count) = (next, 0);
    }
}
