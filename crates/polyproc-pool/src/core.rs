//! What a pool knows, under one lock: batches that wait, workers, and who is at what.
//!
//! | when | what happens |
//! |---|---|
//! | tasks are submitted | they go to workers that take them, first to those without any |
//! | a report comes | results go to their batch, and the worker gets more |
//! | a worker is idle and nothing waits | it gets what another has not begun |
//! | a worker is dead | what it had reported or committed counts; the task that it was at fails or is tried again; what it had not begun goes to others; another worker has its place |

use crate::batch::{Batch, BatchId, Callback, Piece, Source, What};
use crate::crew::{Assigned, INLINE, Recipe, Refusal, Stage, Worker};
use crate::error::{PoolError, TaskError};
use crate::items;
use crate::pace::{self, Pace};
use crate::spare::Spare;
use crate::wire::{Kind, Report};
use polyproc_pipe::RecvError;
use polyproc_process::JoinError;
use polyproc_process::remote::Remote;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar};
use std::thread;
use std::time::{Duration, Instant};

/// How often a task is tried whose worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Retry {
    /// Once: a death is its result. It may have done half of its work, and only its author knows whether that can be done
    /// again.
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
/// How long a worker may be at something before another takes over what it has not begun.
const PATIENCE: Duration = Duration::from_millis(1);
/// No job has more tasks: what an iterator yields is sent in rows of fewer.
const CHUNK_MOST: usize = 4096;
/// How long after the system refused a worker it is asked again.
const RESPITE: Duration = Duration::from_millis(100);

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
    /// The way to the thread that calls back, once there is one.
    callbacks: Option<Sender<Box<dyn FnOnce() + Send>>>,
    /// The last states of workers that have ended.
    pub(crate) states: Vec<Piece>,
    /// How many workers in a row died before they were ready.
    deaths: u32,
    /// When the system is asked for a worker again.
    pub(crate) respite: Option<Instant>,
    pub(crate) died: u64,
    pub(crate) tasks: u64,
    /// Tells who waits for the workers' end.
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
            callbacks: None,
            states: Vec::new(),
            deaths: 0,
            respite: None,
            died: 0,
            tasks: 0,
            ended: Arc::default(),
        }
    }

    /// Memory for items or results, of some size if there is any.
    pub(crate) fn memory(&mut self) -> Vec<u8> {
        self.spare.take()
    }

    /// Memory that nobody needs any more, for the next.
    pub(crate) fn recycle(&mut self, memory: Vec<u8>) {
        self.spare.put(memory);
    }

    // ---- Batches.

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
        self.tasks += piece.count as u64;
        if let Some(batch) = self.batches.get_mut(&id) {
            batch.settle(piece);
            self.finish_batch(id);
        }
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

    /// The results are wanted by a callback, which a thread of its own calls: it may take its time, and panic.
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

    /// The handle of a batch is gone: unless there is a callback, nobody wants the results any more. Unless it is to be run
    /// all the same, what has not begun is not.
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

    /// Takes back what a worker has not begun. Of what it has, all but the last is done, and has been reported.
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
            batch.fail_queued(error);
            self.finish_batch(id);
        }
    }

    /// Cancels what is not done of a batch: what waits never runs, and a worker that is at it is killed. Whether there was
    /// anything.
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
            // What it has not begun comes back, and is failed on the way. So it can be at nothing else when it is killed.
            self.take_unbegun(index);
            let worker = &mut self.workers[index];
            if worker.jobs.front().is_some_and(|job| job.batch == id) {
                worker.kill();
            }
        }
        self.dispatch();
        true
    }

    // ---- Work for the workers.

    /// How many tasks of a batch make a job now, and how many of them a unit.
    pub(crate) fn chunk(&mut self, id: BatchId) -> (usize, usize) {
        let workers = self.wanted.max(1);
        let pace = self.pace(id);
        let batch = &self.batches[&id];
        let (job, unit) = match batch.chunk {
            Some(chunk) => ((pace / chunk).max(1) * chunk, chunk),
            None => {
                // At the end jobs become smaller, so that all are done at the same time.
                let left = batch.queued.saturating_add(batch.expected);
                let job = pace.min(left.div_ceil(2 * workers)).max(1);
                (job, job.div_ceil(UNITS))
            }
        };
        // One that takes too long shall not take others along that were begun with it.
        (job, if self.settings.timeout.is_some() { 1 } else { unit })
    }

    /// How many tasks of a batch would be worth their way, if there were enough.
    pub(crate) fn pace(&self, id: BatchId) -> usize {
        self.batches[&id].function.as_ref().map_or(1, |function| self.pace.chunk(*function))
    }

    /// Gives what waits to workers: first to those that have nothing.
    pub(crate) fn dispatch(&mut self) {
        // The one that was at work last is the likeliest to be awake.
        for index in (0..self.workers.len()).rev() {
            if self.turns.is_empty() {
                return;
            }
            if self.workers[index].is_idle() {
                self.give(index);
            }
        }
        let mut is_any = true;
        while is_any && !self.turns.is_empty() {
            is_any = false;
            for index in 0..self.workers.len() {
                if self.workers[index].wants_more() {
                    is_any |= self.give(index);
                }
            }
        }
    }

    /// Gives a worker as much as it takes.
    fn feed(&mut self, index: usize) {
        while self.workers[index].wants_more() && !self.turns.is_empty() {
            if !self.give(index) {
                return;
            }
        }
    }

    /// Gives a worker one job. Whether it took it.
    fn give(&mut self, index: usize) -> bool {
        loop {
            let Some(&id) = self.turns.front() else { return false };
            let left = match self.settings.max_tasks {
                Some(most) => most.saturating_sub(self.workers[index].given),
                None => usize::MAX,
            };
            if left == 0 {
                return false;
            }
            let (chunk, unit) = self.chunk(id);
            let chunk = chunk.min(left);
            let batch = self.batches.get_mut(&id).expect("a turn is a batch's");
            let (Some(front), Ok(function)) = (batch.sources.front_mut(), &batch.function) else {
                self.turns.pop_front();
                continue;
            };
            let function = *function;
            let (items, length) = front.split(chunk, INLINE);
            if front.count == 0 {
                batch.sources.pop_front();
            }
            let count = items.count;
            batch.queued -= count;
            let expected = self.pace.expect(function, count);
            let assigned = self.workers[index].assign(id, function, items, length, unit, expected);
            let batch = self.batches.get_mut(&id).expect("a turn is a batch's");
            let result = match assigned {
                Ok(()) => Ok(true),
                Err((items, Refusal::NotNow)) => {
                    batch.queued += count;
                    batch.sources.push_front(items);
                    return false;
                }
                Err((items, Refusal::Never(why))) => Err((items, why)),
            };
            if batch.sources.is_empty() {
                self.turns.pop_front();
            } else {
                self.turns.rotate_left(1);
            }
            match result {
                Ok(_) => return true,
                Err((items, why)) => {
                    let what = What::Failed(TaskError::Encode(why));
                    self.settle(id, Piece { first: items.first, count, what });
                }
            }
        }
    }

    /// Puts items back in front that no worker has begun.
    fn take_back(&mut self, revoked: Vec<(BatchId, Source)>) {
        for (id, items) in revoked.into_iter().rev() {
            self.put_back(id, items);
        }
    }

    fn put_back(&mut self, id: BatchId, items: Source) {
        if items.count == 0 {
            return;
        }
        let refusal = match &self.phase {
            Phase::Open | Phase::Closed => None,
            _ => self.refusal(),
        };
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let refusal = if batch.is_cancelled { Some(TaskError::Cancelled) } else { refusal };
        if let Some(error) = refusal {
            self.settle(id, Piece { first: items.first, count: items.count, what: What::Failed(error) });
            return;
        }
        batch.queued += items.count;
        batch.sources.push_front(items);
        if !self.turns.contains(&id) {
            self.turns.push_front(id);
        }
    }

    /// If a worker is idle and nothing waits: takes from another what it has not begun and will not soon.
    fn share(&mut self) {
        if !self.turns.is_empty()
            || !self.workers.iter().any(|worker| worker.is_idle() && self.has_left(worker))
        {
            return;
        }
        let is_slow = |worker: &Worker| {
            let expected = worker.jobs.front().and_then(|job| job.expected).unwrap_or(0.0);
            expected > pace::CHUNK / 2.0 || worker.since.elapsed() >= PATIENCE
        };
        let victim = self.workers.iter_mut().filter(|worker| worker.has_unbegun() && is_slow(worker));
        let Some(victim) = victim.max_by_key(|worker| worker.jobs.len()) else { return };
        let revoked = victim.revoke();
        self.take_back(revoked);
        self.dispatch();
    }

    fn has_left(&self, worker: &Worker) -> bool {
        self.settings.max_tasks.is_none_or(|most| worker.given < most)
    }

    // ---- What comes from the workers.

    /// Takes all that has come from all of them. Whether anything has.
    pub(crate) fn receive(&mut self) -> bool {
        let mut is_any = false;
        let mut index = 0;
        while index < self.workers.len() {
            if !self.workers[index].is_gone && self.workers[index].line.has_news() {
                is_any = true;
                self.receive_from(index);
            }
            index += 1;
        }
        if is_any {
            self.share();
            self.release_workers();
        }
        is_any
    }

    /// Takes all that has come from one.
    pub(crate) fn receive_from(&mut self, index: usize) {
        loop {
            let mut bytes = self.spare.take();
            let worker = &mut self.workers[index];
            // Also if it is only a part of a message: its bell has rung.
            worker.is_armed = false;
            match worker.line.try_recv_with(&mut bytes) {
                Ok(descriptors) => {
                    let bytes = self.spare.fit(bytes);
                    self.take_report(index, bytes, descriptors);
                }
                Err(RecvError::Empty) => {
                    // If a part has come, it lies in this memory, and some other is here.
                    self.spare.put(bytes);
                    return;
                }
                Err(error) => {
                    worker.is_gone = true;
                    // Out of descriptors, for instance: a result that should have brought some.
                    worker.is_lost = !matches!(error, RecvError::Disconnected);
                    if !worker.process.is_alive() || worker.stage == Stage::Stopping {
                        return;
                    }
                    // It has closed what it should not have, or spoken nonsense: it is of no more use.
                    worker.kill();
                    return;
                }
            }
            if !self.workers[index].line.has_news() {
                return;
            }
        }
    }

    fn take_report(&mut self, index: usize, bytes: Vec<u8>, descriptors: Vec<OwnedFd>) {
        let Some(report) = Report::read(&bytes) else {
            self.workers[index].kill();
            return;
        };
        let worker = &mut self.workers[index];
        match report.kind {
            Kind::Ready => {
                worker.ready = Some(Instant::now());
                self.deaths = 0;
                if worker.stage == Stage::Starting {
                    worker.stage = Stage::Ready;
                }
                self.feed(index);
            }
            Kind::Refused => {
                let why = String::from_utf8_lossy(&bytes[Report::SIZE..]).into_owned();
                self.fall(Phase::Broken(PoolError::Initializer(why)));
            }
            Kind::State => {
                let what = What::Items { bytes, at: Report::SIZE, descriptors };
                self.states.push(Piece { first: 0, count: 1, what });
            }
            Kind::Part | Kind::Done | Kind::DoneInSlab => {
                let Some(place) = worker.jobs.iter().position(|job| job.number == report.job) else {
                    worker.kill();
                    return;
                };
                let job = &mut worker.jobs[place];
                let count = report.count as usize;
                let (id, first) = (job.batch, job.items.first + job.reported);
                job.reported += count;
                worker.tasks += count as u64;
                let mut is_short = false;
                let mut out = None;
                if report.kind != Kind::Part {
                    let mut job = worker.finish(place).expect("found above");
                    out = job.out.take().filter(|_| report.kind == Kind::DoneInSlab);
                    worker.long = match long_results(report.kind, &bytes) {
                        0 => 0,
                        length => worker.long.max(length),
                    };
                    let worked = Duration::from_nanos(report.worked);
                    worker.worked += worked;
                    worker.seen = None;
                    worker.since = Instant::now();
                    is_short = job.reported != job.items.count;
                    self.pace.learn(job.function, job.items.count, report.worked);
                    self.spare.put(Arc::into_inner(job.items.bytes).unwrap_or_default());
                }
                let what = match out {
                    Some(slab) => What::Lent { slab, length: long_results(report.kind, &bytes) },
                    None => What::Items { bytes, at: Report::SIZE, descriptors },
                };
                if count > 0 {
                    self.settle(id, Piece { first, count, what });
                }
                if is_short {
                    self.workers[index].kill();
                }
                self.feed(index);
            }
        }
    }

    // ---- The workers' lives.

    /// How many workers are to be started.
    pub(crate) fn missing(&self) -> usize {
        let has_work = match self.phase {
            Phase::Open => true,
            Phase::Closed => !self.turns.is_empty(),
            _ => false,
        };
        let is_resting = self.respite.is_some_and(|respite| Instant::now() < respite);
        if !has_work || is_resting {
            return 0;
        }
        let staying = self.workers.iter().filter(|worker| worker.stage != Stage::Stopping).count();
        self.wanted.saturating_sub(staying + self.starting)
    }

    pub(crate) fn number_worker(&mut self) -> u64 {
        self.next_worker += 1;
        self.next_worker - 1
    }

    /// No worker could be started.
    pub(crate) fn regret(&mut self, error: PoolError) {
        // Whoever waits for the end may have waited for this one.
        self.ended.notify_all();
        if self.workers.is_empty() {
            self.fall(Phase::Broken(error));
        } else {
            self.respite = Some(Instant::now() + RESPITE);
        }
    }

    /// Whether all workers have ended, and there is nothing for which others would be started.
    pub(crate) fn has_ended(&self) -> bool {
        self.workers.is_empty() && self.starting == 0 && self.turns.is_empty()
    }

    /// Tells workers to end that have done all that they will do.
    pub(crate) fn release_workers(&mut self) {
        let is_over = matches!(self.phase, Phase::Closed) && self.turns.is_empty();
        let mut surplus = self
            .workers
            .iter()
            .filter(|worker| worker.stage != Stage::Stopping)
            .count()
            .saturating_sub(self.wanted);
        for index in (0..self.workers.len()).rev() {
            let worker = &self.workers[index];
            // One that has only just been started is told, too, when the pool is closed.
            let is_idle = worker.jobs.is_empty() && worker.stage != Stage::Stopping && !worker.is_gone;
            if !is_idle {
                continue;
            }
            let is_spent = worker.stage == Stage::Ready && !self.has_left(worker);
            if is_over || is_spent || surplus > 0 {
                surplus = surplus.saturating_sub(1);
                self.workers[index].stop();
            }
        }
    }

    /// The pool ends before its work is done: what waits fails, and the workers are killed.
    pub(crate) fn fall(&mut self, phase: Phase) {
        if matches!(self.phase, Phase::Terminated | Phase::Broken(_)) {
            return;
        }
        self.phase = phase;
        let error = self.refusal().expect("it is not open");
        for id in std::mem::take(&mut self.turns) {
            self.drop_queued(id, &error);
        }
        self.workers.iter_mut().for_each(Worker::kill);
        // Whoever still submits is told so.
        for batch in self.batches.values() {
            batch.news.notify_all();
        }
        self.ended.notify_all();
    }

    /// Clears up after a worker whose process has ended.
    pub(crate) fn bury(&mut self, index: usize) {
        // What it has said is there, and counts.
        if !self.workers[index].is_gone {
            self.receive_from(index);
        }
        let mut worker = self.workers.remove(index);
        let status = worker.status();
        let pid = worker.process.pid();
        let is_expected = worker.stage == Stage::Stopping && worker.jobs.is_empty();
        if !is_expected && matches!(self.phase, Phase::Open | Phase::Closed) {
            self.died += 1;
        }
        // A program whose panics abort has told its last one.
        let panic = match worker.process.try_join() {
            Err(JoinError::Panicked { message, location }) => {
                Some(TaskError::Panicked { message, location, backtrace: String::new() })
            }
            _ => None,
        };
        while let Some(job) = worker.jobs.pop_back() {
            if worker.is_lost
                && let Some(begun) = job.begun(worker.board.begun())
            {
                // Of these nobody knows which are done.
                self.put_back(job.batch, job.items.clone().after(begun));
                let (first, count) = (job.items.first + job.reported, begun.saturating_sub(job.reported));
                let why = TaskError::Decode("what its worker said of it could not be received".into());
                self.settle(job.batch, Piece { first, count, what: What::Failed(why) });
                continue;
            }
            match worker.remains(&job) {
                None => self.put_back(job.batch, job.items.after(job.reported)),
                Some((committed, bytes)) => {
                    let salvaged = committed - job.reported;
                    let first = job.items.first + job.reported;
                    let Assigned { number, batch: id, items, .. } = job;
                    if committed < items.count {
                        let rest = items.clone().after(committed);
                        let tried = rest.tried + 1;
                        let may_retry = match self.settings.retry {
                            Retry::Never => false,
                            Retry::UpTo(times) => tried <= times,
                        };
                        let position = (number, committed as u32);
                        let is_cancelled = self.batches.get(&id).is_none_or(|batch| batch.is_cancelled);
                        let limit = self.settings.timeout.unwrap_or_default();
                        let error = match &panic {
                            _ if worker.timed_out == Some(position) => {
                                Some(TaskError::TimedOut { pid, limit })
                            }
                            _ if is_cancelled => Some(TaskError::Cancelled),
                            Some(panic) => Some(panic.clone()),
                            _ if matches!(self.phase, Phase::Terminated | Phase::Broken(_)) => self.refusal(),
                            _ if may_retry => None,
                            _ => Some(TaskError::WorkerDied { pid, status, attempt: tried }),
                        };
                        match error {
                            None => {
                                self.put_back(id, Source { tried, ..rest });
                            }
                            Some(error) => {
                                let index = rest.first;
                                self.put_back(id, rest.after(1));
                                self.settle(id, Piece { first: index, count: 1, what: What::Failed(error) });
                            }
                        }
                    }
                    if salvaged > 0 {
                        self.salvage(id, first, salvaged, bytes);
                    }
                }
            }
        }
        if worker.stage == Stage::Starting && matches!(self.phase, Phase::Open | Phase::Closed) {
            self.deaths += 1;
            if self.deaths >= DEATHS {
                self.fall(Phase::Broken(PoolError::WorkersDie { pid, status }));
            }
        }
        self.dispatch();
        self.release_workers();
        if self.workers.is_empty() {
            self.ended.notify_all();
        }
    }

    /// Enters results that a worker had committed when it died.
    fn salvage(&mut self, id: BatchId, first: usize, count: usize, mut bytes: Vec<u8>) {
        let what = match items::length_of(&bytes, count) {
            Some(length) => {
                bytes.truncate(length);
                What::Items { bytes, at: 0, descriptors: Vec::new() }
            }
            None => What::Failed(TaskError::Decode("the worker's board is damaged".into())),
        };
        self.settle(id, Piece { first, count, what });
    }

    // ---- Time.

    /// Whether anybody will have something to say.
    pub(crate) fn is_busy(&self) -> bool {
        !self.turns.is_empty()
            || self.starting > 0
            || self.missing() > 0
            || self
                .workers
                .iter()
                .any(|worker| !worker.jobs.is_empty() || worker.stage != Stage::Ready || worker.is_gone)
    }

    /// Looks how long workers have been at what they are. Returns when to look again.
    pub(crate) fn watch(&mut self) -> Option<Instant> {
        let mut next = self.respite.filter(|_| self.wanted > self.workers.len());
        let mut revoked = Vec::new();
        if let Some(limit) = self.settings.timeout {
            for worker in self.workers.iter_mut().filter(|worker| !worker.jobs.is_empty() && !worker.is_gone)
            {
                if worker.timed_out.is_some() {
                    continue;
                }
                let now = Instant::now();
                let position = worker.position();
                if position != worker.seen || position.is_none() {
                    (worker.seen, worker.since) = (position, now);
                }
                // Without an end if that is beyond all times.
                let Some(end) = worker.since.checked_add(limit) else { continue };
                if let Some(position) = position
                    && now >= end
                {
                    // So that it can be at nothing else when it is killed.
                    revoked.extend(worker.revoke());
                    if worker.position() == Some(position) && !worker.line.has_news() {
                        worker.timed_out = Some(position);
                        worker.kill();
                        continue;
                    }
                }
                // What changes meanwhile is found by looking, often enough that the limit is overrun by a tenth at most.
                let is_last = worker.jobs.len() == 1 && worker.jobs[0].items.count == 1 && position.is_some();
                let soon = now.checked_add((limit / 10).max(PATIENCE)).unwrap_or(end);
                let look = match () {
                    () if now >= end => now + PATIENCE,
                    () if is_last => end,
                    () => end.min(soon),
                };
                next = Some(next.map_or(look, |next| next.min(look)));
            }
        }
        let mut is_clogged = false;
        for worker in self.workers.iter_mut().filter(|worker| worker.jobs.is_empty()) {
            is_clogged |= std::mem::take(&mut worker.is_clogged);
        }
        if is_clogged || !revoked.is_empty() {
            self.take_back(revoked);
            self.dispatch();
        }
        if is_clogged {
            // Nothing tells when there is room again.
            let look = Instant::now() + PATIENCE;
            next = Some(next.map_or(look, |next| next.min(look)));
        }
        if self.turns.is_empty()
            && self.workers.iter().any(Worker::is_idle)
            && self.workers.iter().any(Worker::has_unbegun)
        {
            self.share();
            let look = Instant::now() + PATIENCE;
            next = Some(next.map_or(look, |next| next.min(look)));
        }
        next
    }
}

/// How many bytes the results are that a report is about, if they are long.
fn long_results(kind: Kind, report: &[u8]) -> usize {
    let what = &report[Report::SIZE..];
    match kind {
        Kind::DoneInSlab => what.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize),
        _ if what.len() > INLINE => what.len(),
        _ => 0,
    }
}
