//! Work for the workers: who gets how much of what waits.

use super::{Core, PATIENCE, Phase, UNITS};
use crate::batch::{BatchId, Piece, Source, What};
use crate::crew::{INLINE, Refusal, Worker};
use crate::error::TaskError;
use crate::pace;

impl Core {
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
    pub(super) fn feed(&mut self, index: usize) {
        while self.workers[index].wants_more() && !self.turns.is_empty() {
            if !self.give(index) {
                return;
            }
        }
    }

    /// Gives a worker one job. Whether it took it.
    pub(super) fn give(&mut self, index: usize) -> bool {
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
    pub(super) fn take_back(&mut self, revoked: Vec<(BatchId, Source)>) {
        for (id, items) in revoked.into_iter().rev() {
            self.put_back(id, items);
        }
    }

    pub(super) fn put_back(&mut self, id: BatchId, items: Source) {
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
    pub(super) fn share(&mut self) {
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

    pub(super) fn has_left(&self, worker: &Worker) -> bool {
        self.settings.max_tasks.is_none_or(|most| worker.given < most)
    }
}
