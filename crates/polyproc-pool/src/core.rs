//! What a pool knows, under one lock: batches that wait, workers, and who is at what.
//!
//! | when | what happens |
//! |---|---|
//! | tasks are submitted | they go to workers that take them, first to those without any |
//! | a report comes | results go to their batch, and the worker gets more |
//! | a worker is idle and nothing waits | it gets what another has not begun |
//! | a worker is dead | what it had reported or committed counts; the task that it was at fails or is tried again; what it had not begun goes to others; another worker has its place |

mod dispatch;
mod lives;
mod reports;
#[cfg(test)]
mod tests;

use crate::batch::{Batch, BatchId, Callback, Piece, Source, What};
use crate::crew::{Recipe, Worker};
use crate::error::{PoolError, TaskError};
use crate::pace::Pace;
use crate::shelf::{Lent, Shelf};
use crate::spare::Spare;
use polyproc_process::remote::Remote;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar};
use std::thread;
use std::time::{Duration, Instant};

/// How often a task is tried whose worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Retry {
    /// Once: a death is its result. It may have done half of its work, and only its author knows whether that
    /// can be done again.
    #[default]
    Never,
    /// Again, up to so many times more.
    UpTo(u32),
}

/// How a pool was asked to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) recipe: Recipe,
    pub(crate) max_tasks: Option<usize>,
    pub(crate) retry: Retry,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_in_flight: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Open,
    /// Nothing more is submitted; what was, is done.
    Closed,
    Terminated,
    Broken(PoolError),
}

/// A job is divided into so many units, each of which may still go to another worker.
const UNITS: usize = 8;
/// So many workers in a row may die before they are ready.
const DEATHS: u32 = 3;
/// So many may die before they begin a task that they have next. Several, because somebody may kill them that
/// has nothing to do with it.
const SHUNNED: u32 = 10;
/// A task that may take so long is begun by a worker after ten times as long, and this at least: else the
/// worker stands still.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How long a worker may be at something before another takes over what it has not begun.
const PATIENCE: Duration = Duration::from_millis(1);
/// No job has more tasks: what an iterator yields is sent in rows of fewer.
const CHUNK_MOST: usize = 4096;
/// How long after the system refused a worker it is asked again: the first time, and the longest.
const RESPITE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// After so many refusals in a row what waits fails if there is no worker at all: half a second, and then
/// some.
const REFUSALS: u32 = 5;

pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) phase: Phase,
    pub(crate) workers: Vec<Worker>,
    /// How many workers there should be.
    pub(crate) wanted: usize,
    /// How many are being started.
    pub(crate) starting: usize,
    next_worker: u64,
    next_batch: BatchId,
    batches: HashMap<BatchId, Batch>,
    /// Batches with items that wait, each once, in the order of their turns.
    turns: VecDeque<BatchId>,
    pace: Pace,
    spare: Spare,
    shelf: Shelf,
    /// The way to the thread that calls back, once there is one.
    callbacks: Option<Sender<Box<dyn FnOnce() + Send>>>,
    /// The last states of workers that have ended.
    pub(crate) states: Vec<Piece>,
    /// How many workers in a row died before they were ready.
    deaths: u32,
    /// When the system is asked for a worker again.
    pub(crate) respite: Option<Instant>,
    /// How often in a row it has refused one.
    refusals: u32,
    pub(crate) died: u64,
    /// How many tasks were submitted, and of how many it is known what became of them.
    entered: u64,
    pub(crate) tasks: u64,
    /// Tells those that wait until fewer tasks are under way how many they are.
    pub(crate) room: Arc<Condvar>,
    pub(crate) wait_for_room: usize,
    /// Tells those that wait for the workers' end.
    pub(crate) ended: Arc<Condvar>,
}

impl Core {
    pub(crate) fn new(settings: Settings, wanted: usize) -> Core {
        Core {
            settings,
            phase: Phase::Open,
            workers: Vec::new(),
            wanted,
            starting: 0,
            next_worker: 1,
            next_batch: 0,
            batches: HashMap::new(),
            turns: VecDeque::new(),
            pace: Pace::default(),
            spare: Spare::default(),
            shelf: Shelf::default(),
            callbacks: None,
            states: Vec::new(),
            deaths: 0,
            respite: None,
            refusals: 0,
            died: 0,
            entered: 0,
            tasks: 0,
            room: Arc::default(),
            wait_for_room: 0,
            ended: Arc::default(),
        }
    }

    /// Memory for items or results, of some size if there is any.
    pub(crate) fn memory(&mut self) -> Vec<u8> {
        self.spare.take()
    }

    /// Shared memory for an item of about so many bytes, if there is any.
    pub(crate) fn lend(&mut self, length: usize) -> Option<Lent> {
        self.shelf.lend(length)
    }

    /// Memory that nobody needs any more, for the next.
    pub(crate) fn recycle(&mut self, memory: Vec<u8>) {
        self.spare.put(memory);
    }

    /// Why nothing more is taken, if so.
    pub(crate) fn refusal(&self) -> Option<TaskError> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closed => Some(TaskError::Closed),
            Phase::Terminated => Some(TaskError::Terminated),
            Phase::Broken(error) => Some(TaskError::Broken(error.clone())),
        }
    }

    pub(crate) fn begin(&mut self, function: Result<Remote, TaskError>, chunk: Option<usize>) -> BatchId {
        self.next_batch += 1;
        self.batches.insert(self.next_batch, Batch::new(function, chunk.map(|chunk| chunk.min(CHUNK_MOST))));
        self.next_batch
    }

    pub(crate) fn batch(&mut self, id: BatchId) -> &mut Batch {
        self.batches.get_mut(&id).expect("a batch is there as long as its handle")
    }

    /// Enters tasks, and gives them to workers that take them.
    pub(crate) fn enter(&mut self, id: BatchId, source: Source) {
        let refusal = self.refusal();
        self.entered += source.count as u64;
        let batch = self.batch(id);
        batch.entered += source.count;
        let refusal = match &batch.function {
            _ if batch.is_cancelled => Some(TaskError::Cancelled),
            Err(error) => Some(error.clone()),
            Ok(_) => refusal,
        };
        if let Some(error) = refusal {
            let piece = Piece { first: source.first, count: source.count, what: What::Failed(error) };
            self.settle(id, piece);
            return;
        }
        batch.queued += source.count;
        if batch.sources.is_empty() {
            self.turns.push_back(id);
        }
        self.batch(id).sources.push_back(source);
        self.dispatch();
    }

    /// Enters a task that failed before it could be sent.
    pub(crate) fn enter_failed(&mut self, id: BatchId, index: usize, error: TaskError) {
        self.entered += 1;
        self.batch(id).entered += 1;
        self.settle(id, Piece { first: index, count: 1, what: What::Failed(error) });
    }

    /// All tasks of a batch were submitted.
    pub(crate) fn complete(&mut self, id: BatchId) {
        self.batch(id).is_complete = true;
        self.finish_batch(id);
    }

    /// Enters what became of tasks.
    fn settle(&mut self, id: BatchId, piece: Piece) {
        self.count_settled(piece.count);
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.settle(piece);
            self.finish_batch(id);
        }
    }

    fn count_settled(&mut self, count: usize) {
        self.tasks += count as u64;
        if self.wait_for_room > 0 {
            self.room.notify_all();
        }
    }

    /// How many tasks were submitted and are not done.
    pub(crate) fn under_way(&self) -> usize {
        (self.entered - self.tasks) as usize
    }

    /// If all is done, and nobody will fetch the results: does what is to be done with them.
    fn finish_batch(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        if !batch.is_done() {
            return;
        }
        if let Some(callback) = batch.callback.take() {
            let pieces = std::mem::take(&mut batch.pieces);
            self.batches.remove(&id);
            let callbacks = self.callbacks.as_ref().expect("there is a thread since there is a callback");
            // The thread is there as long as this end.
            let _ = callbacks.send(Box::new(move || callback(pieces)));
        } else if batch.is_abandoned {
            self.batches.remove(&id);
        }
    }

    /// The results are wanted by a callback, which a thread of its own calls: it may take its time, and
    /// panic.
    pub(crate) fn call_back(&mut self, id: BatchId, callback: Callback) {
        if self.callbacks.is_none() {
            let (sender, due) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
            let call = move || {
                for callback in due {
                    // The panic hook has told it; the next one is due.
                    let _ = catch_unwind(AssertUnwindSafe(callback));
                }
            };
            let thread = thread::Builder::new().name("polyproc-callbacks".into()).spawn(call);
            thread.expect("the system has room for a thread");
            self.callbacks = Some(sender);
        }
        self.batch(id).callback = Some(callback);
        self.finish_batch(id);
    }

    /// The handle of a batch is gone: unless there is a callback, nobody wants the results any more. Unless
    /// it is to be run all the same, what has not begun is not.
    pub(crate) fn abandon(&mut self, id: BatchId, is_kept: bool) {
        let Some(batch) = self.batches.get_mut(&id).filter(|batch| batch.callback.is_none()) else { return };
        batch.is_abandoned = true;
        batch.pieces = Vec::new();
        if !(batch.is_complete && is_kept || batch.is_done()) {
            batch.is_complete = true;
            batch.is_cancelled = true;
            self.drop_queued(id, &TaskError::Cancelled);
            for index in self.workers_at(id) {
                self.take_unbegun(index);
            }
            self.dispatch();
        }
        self.finish_batch(id);
    }

    /// The workers that have jobs of a batch.
    fn workers_at(&self, id: BatchId) -> Vec<usize> {
        let has_any = |&index: &usize| self.workers[index].jobs.iter().any(|job| job.batch == id);
        (0..self.workers.len()).filter(has_any).collect()
    }

    /// Takes back what a worker has not begun. Of what it has, all but the last is done, and has been
    /// reported.
    fn take_unbegun(&mut self, index: usize) {
        loop {
            let revoked = self.workers[index].revoke();
            self.take_back(revoked);
            if self.workers[index].is_gone || !self.workers[index].line.has_news() {
                return;
            }
            // It may be given more.
            self.receive_from(index);
        }
    }

    fn drop_queued(&mut self, id: BatchId, error: &TaskError) {
        self.turns.retain(|turn| *turn != id);
        if let Some(batch) = self.batches.get_mut(&id) {
            let count = batch.fail_queued(error);
            self.count_settled(count);
            self.finish_batch(id);
        }
    }

    /// Cancels what is not done of a batch: what waits never runs, and a worker that is at it is killed.
    /// Whether there was anything.
    pub(crate) fn cancel(&mut self, id: BatchId) -> bool {
        // What is done already cannot be.
        self.receive();
        let Some(batch) = self.batches.get_mut(&id) else { return false };
        if batch.is_done() {
            return false;
        }
        batch.is_cancelled = true;
        self.drop_queued(id, &TaskError::Cancelled);
        for index in self.workers_at(id) {
            // What it has not begun comes back, and is failed on the way. So it can be at nothing else when
            // it is killed.
            self.take_unbegun(index);
            let worker = &mut self.workers[index];
            if worker.jobs.front().is_some_and(|job| job.batch == id) {
                worker.kill();
            }
        }
        self.dispatch();
        true
    }
}
