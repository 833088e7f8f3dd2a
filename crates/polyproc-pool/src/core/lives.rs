//! The workers' lives: who is missing, who is told to end, what a death leaves, and who takes too long.

use super::{Core, DEATHS, PATIENCE, Phase, REFUSALS, RESPITE, Retry, SHUNNED, STANDSTILL};
use crate::batch::{BatchId, Piece, Source, What};
use crate::crew::{Assigned, Stage, Worker};
use crate::error::{PoolError, TaskError};
use crate::items;
use polyproc_process::JoinError;
use std::time::Instant;

impl Core {
    /// How many workers are to be started.
    pub(crate) fn missing(&self) -> usize {
        let is_resting = self.respite.is_some_and(|respite| Instant::now() < respite);
        if is_resting { 0 } else { self.lacking() }
    }

    /// How many are to be started now, or when the system may be asked again.
    fn lacking(&self) -> usize {
        let has_work = match self.phase {
            Phase::Open => true,
            Phase::Closed => !self.turns.is_empty(),
            _ => false,
        };
        if has_work { self.wanted.saturating_sub(self.staying() + self.starting) } else { 0 }
    }

    /// How many workers there are that were not told to end.
    fn staying(&self) -> usize {
        self.workers.iter().filter(|worker| worker.stage != Stage::Stopping && !worker.is_leaving).count()
    }

    /// Changes how many workers there should be.
    pub(crate) fn resize(&mut self, wanted: usize) {
        self.wanted = wanted;
        // Those that were to leave may stay, if they are wanted again.
        self.workers.iter_mut().for_each(|worker| worker.is_leaving = false);
        self.release_workers();
        // Of those at work the youngest end after what they are at. What they have not begun goes to others.
        let surplus = self.staying().saturating_sub(wanted);
        let staying = |index: &usize| self.workers[*index].stage != Stage::Stopping;
        let leaving: Vec<usize> = (0..self.workers.len()).rev().filter(staying).take(surplus).collect();
        for index in leaving {
            self.workers[index].is_leaving = true;
            self.take_unbegun(index);
        }
        self.dispatch();
        self.release_workers();
    }

    pub(crate) fn number_worker(&mut self) -> u64 {
        self.next_worker += 1;
        self.next_worker - 1
    }

    /// A worker was started.
    pub(crate) fn welcome(&mut self, worker: Worker) {
        (self.respite, self.refusals) = (None, 0);
        self.workers.push(worker);
    }

    /// No worker could be started: the system is asked again, less and less often. What waits meanwhile is
    /// told if that takes long and there is no worker at all; what comes later may find some.
    pub(crate) fn regret(&mut self, error: PoolError) {
        self.refusals = self.refusals.saturating_add(1);
        let respite = RESPITE.0 * (1 << (self.refusals - 1).min(10));
        self.respite = Some(Instant::now() + respite.min(RESPITE.1));
        if self.refusals >= REFUSALS && self.workers.is_empty() && self.starting == 0 {
            let error = TaskError::Broken(error);
            for id in std::mem::take(&mut self.turns) {
                self.drop_queued(id, &error);
            }
        }
        // Whoever waits for the end may have waited for this one.
        self.ended.notify_all();
    }

    /// Whether all workers have ended, and there is nothing for which others would be started.
    pub(crate) fn has_ended(&self) -> bool {
        self.workers.is_empty() && self.starting == 0 && self.turns.is_empty()
    }

    /// Tells workers to end that have done all that they will do.
    pub(crate) fn release_workers(&mut self) {
        let is_over = matches!(self.phase, Phase::Closed) && self.turns.is_empty();
        let mut surplus = self.staying().saturating_sub(self.wanted);
        for index in (0..self.workers.len()).rev() {
            let worker = &self.workers[index];
            // One that has only just been started is told, too, when the pool is closed.
            let is_idle = worker.jobs.is_empty() && worker.stage != Stage::Stopping && !worker.is_gone;
            if !is_idle {
                continue;
            }
            let is_spent = worker.stage == Stage::Ready && !self.has_left(worker);
            if worker.is_leaving {
                self.workers[index].stop();
            } else if is_over || is_spent || surplus > 0 {
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
        self.room.notify_all();
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
        // If it was at nothing, it may be what it had next that it died of.
        let was_at = |job: &Assigned| worker.remains(job).is_some();
        let is_shunning = !worker.is_doomed && !worker.jobs.iter().any(was_at);
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
                None => {
                    let (id, mut items) = (job.batch, job.items.after(job.reported));
                    if is_shunning && worker.jobs.is_empty() && items.count > 0 {
                        items.shunned += 1;
                        if items.shunned >= SHUNNED {
                            let (first, deaths) = (items.first, items.shunned);
                            self.put_back(id, items.after(1));
                            let what = What::Failed(TaskError::Unbegun { pid, status, deaths });
                            self.settle(id, Piece { first, count: 1, what });
                            continue;
                        }
                    }
                    self.put_back(id, items);
                }
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
    pub(super) fn salvage(&mut self, id: BatchId, first: usize, count: usize, mut bytes: Vec<u8>) {
        let what = match items::length_of(&bytes, count) {
            Some(length) => {
                bytes.truncate(length);
                What::Items { bytes, at: 0, descriptors: Vec::new() }
            }
            None => What::Failed(TaskError::Decode("the worker's board is damaged".into())),
        };
        self.settle(id, Piece { first, count, what });
    }

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
        let mut next = self.respite.filter(|_| self.lacking() > 0);
        let mut revoked = Vec::new();
        if let Some(limit) = self.settings.timeout {
            for worker in self.workers.iter_mut().filter(|worker| !worker.jobs.is_empty() && !worker.is_gone)
            {
                if worker.timed_out.is_some() {
                    continue;
                }
                let now = Instant::now();
                let position = worker.position();
                if position != worker.seen {
                    (worker.seen, worker.since) = (position, now);
                }
                let most = match position {
                    Some(_) => limit,
                    None => limit.saturating_mul(10).max(STANDSTILL),
                };
                // Without an end if that is beyond all times.
                let Some(end) = worker.since.checked_add(most) else { continue };
                if position.is_none() && now >= end {
                    // It is stopped, perhaps. Others can have what it has, unless it has begun just now.
                    revoked.extend(worker.revoke());
                    // If it has, it is soon at it, or was stopped at the very moment: then nobody has called
                    // the function.
                    if worker.jobs.is_empty() || end.checked_add(most).is_some_and(|end| now >= end) {
                        worker.kill();
                        continue;
                    }
                }
                if let Some(position) = position
                    && now >= end
                {
                    #[cfg(test)]
                    super::tests::BEFORE_IT_IS_REVOKED.take().inspect(|happens| happens());
                    // So that it can be at nothing else when it is killed.
                    revoked.extend(worker.revoke());
                    if worker.position() == Some(position) && !worker.line.has_news() {
                        worker.timed_out = Some(position);
                        worker.kill();
                        continue;
                    }
                }
                // What changes meanwhile is found by looking, often enough that the limit is overrun by a
                // tenth at most.
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
