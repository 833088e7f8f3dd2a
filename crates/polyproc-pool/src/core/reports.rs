//! What comes from the workers.

use super::{Core, Phase};
use crate::batch::{Piece, What};
use crate::crew::{INLINE, Lease, Stage};
use crate::error::PoolError;
use crate::wire::{Kind, Report};
use polyproc_pipe::RecvError;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Core {
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
                    // It is about to end, or has closed what it should not have, or spoken nonsense: it is of
                    // no more use.
                    let _ = worker.process.kill();
                    return;
                }
            }
            if !self.workers[index].line.has_news() {
                return;
            }
        }
    }

    pub(super) fn take_report(&mut self, index: usize, bytes: Vec<u8>, descriptors: Vec<OwnedFd>) {
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
                let length = length_of_results(report.kind, &bytes);
                let room = job.out.as_ref().map_or(0, Lease::len);
                let rest = job.items.count.saturating_sub(job.reported);
                if count > rest
                    || count < rest && report.kind != Kind::Part
                    || report.kind == Kind::DoneInSlab && length > room
                {
                    // Somebody has written over it. What it was given is told by its death.
                    worker.kill();
                    return;
                }
                let (id, first) = (job.batch, job.items.first + job.reported);
                job.reported += count;
                worker.tasks += count as u64;
                let mut out = None;
                if report.kind != Kind::Part {
                    let mut job = worker.finish(place).expect("found above");
                    out = job.out.take().filter(|_| report.kind == Kind::DoneInSlab);
                    worker.long = match length {
                        ..=INLINE => 0,
                        length => worker.long.max(length),
                    };
                    let worked = Duration::from_nanos(report.worked);
                    worker.worked += worked;
                    worker.seen = None;
                    worker.since = Instant::now();
                    self.pace.learn(job.function, job.items.count, report.worked);
                    self.spare.put(Arc::into_inner(job.items.bytes).unwrap_or_default());
                }
                let what = match out {
                    Some(slab) => What::Lent { slab, length },
                    None => What::Items { bytes, at: Report::SIZE, descriptors },
                };
                if count > 0 {
                    self.settle(id, Piece { first, count, what });
                }
                self.feed(index);
            }
        }
    }
}

/// How many bytes the results are that a report is about.
fn length_of_results(kind: Kind, report: &[u8]) -> usize {
    let what = &report[Report::SIZE..];
    match kind {
        Kind::DoneInSlab => what.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize),
        _ => what.len(),
    }
}
