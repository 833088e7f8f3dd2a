//! A worker from the pool's side.

use crate::batch::{BatchId, Source};
use crate::board::Board;
use crate::shelf::{Lent, PLACES};
use crate::wire::{Employment, Job, Line, Order};
use crate::worker;
use polyproc_memory::{Said, handover};
use polyproc_pipe::{Connection, SendError};
use polyproc_process::remote::Remote;
use polyproc_process::{Builder, Process};
use polyproc_value::Array;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::PoolError;
use crate::items::Parcel;

/// Jobs whose items take no more bytes than this travel in the line itself.
pub(crate) const INLINE: usize = 24 << 10;
/// So many bytes of them may be under way to a worker: there is always room for them.
const INLINE_UNDER_WAY: usize = 2 * INLINE;
/// How many long jobs a worker has at a time, each in a slab of its own.
const SLABS: usize = 2;
/// How many long results of a worker may lie in slabs: of those jobs, and some that nobody has read yet.
const OUTS: usize = 8;
/// Larger slabs are not kept.
pub(crate) const SLAB_KEPT: usize = 16 << 20;
/// The most jobs under way to a worker.
const JOBS: usize = 48;

/// What all workers of a pool are started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) initializer: Option<(Remote, Parcel)>,
    pub(crate) state: Option<(Remote, Parcel)>,
    pub(crate) farewell: Option<Remote>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not said that it is initialised.
    Starting,
    Ready,
    /// It was told to end.
    Stopping,
}

/// A job that a worker has, or will have done when its report comes.
#[derive(Debug)]
pub(crate) struct Assigned {
    /// Of its first unit.
    pub(crate) number: u64,
    unit: usize,
    pub(crate) batch: BatchId,
    pub(crate) function: Remote,
    pub(crate) items: Source,
    /// Of how many of the items results have come.
    pub(crate) reported: usize,
    /// How many nanoseconds it is expected to take.
    pub(crate) expected: Option<f64>,
    /// How many bytes of it are in the line.
    bytes: usize,
    /// Where its items are, if they are long.
    slab: Option<Lease>,
    /// Where its results may be.
    pub(crate) out: Option<Lease>,
}

impl Assigned {
    /// How many of its items are begun if this is the last unit that is, by the lower half of its number;
    /// `None` if it has not begun.
    pub(crate) fn begun(&self, unit: u32) -> Option<usize> {
        let units = unit.wrapping_sub(self.number as u32) as i32;
        (units >= 0).then(|| (units as usize + 1).saturating_mul(self.unit).min(self.items.count))
    }
}

/// Memory for the items of a long job, or for its results.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    memory: Option<Array<u8>>,
    /// Shared by all who use what is in it.
    users: Arc<()>,
}

impl Slab {
    /// One for so many bytes, with room for the next, which may be a little longer.
    pub(crate) fn new(length: usize) -> io::Result<Slab> {
        Ok(Slab { memory: Some(allocate(length)?), users: Arc::default() })
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.as_ref().map_or(0, Array::len)
    }

    pub(crate) fn fits(&self, length: usize) -> bool {
        self.memory.is_some() && self.len() >= length
    }

    pub(crate) fn is_taken(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        Some(Lease { memory: self.memory.clone()?, _user: Arc::clone(&self.users) })
    }
}

fn allocate(length: usize) -> io::Result<Array<u8>> {
    Array::zeroed((length + length / 4).next_multiple_of(64 << 10))
}

/// A slab as long as somebody uses what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    memory: Array<u8>,
    _user: Arc<()>,
}

impl Lease {
    fn memory(&self) -> &Array<u8> {
        &self.memory
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    /// Does something with the bytes.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        // What somebody left behind who died does no harm: what counts is written anew each time.
        f(&mut self.memory.lock().unwrap_or_else(|error| error.into_inner()))
    }
}

pub(crate) struct Worker {
    pub(crate) id: u64,
    pub(crate) process: Process<()>,
    pub(crate) line: Line,
    pub(crate) board: Board,
    pub(crate) stage: Stage,
    pub(crate) jobs: VecDeque<Assigned>,
    /// Those for items, and then those for results.
    slabs: [Slab; SLABS + OUTS],
    /// Which slabs of the shelf it was told of.
    shelf: [u64; PLACES],
    /// How many slabs it was told of.
    slabs_sent: u64,
    /// How long the last results were, if they were long.
    pub(crate) long: usize,
    under_way: usize,
    /// Memory for orders.
    order: Vec<u8>,
    epoch: u32,
    next_number: u64,
    /// How many tasks it was given.
    pub(crate) given: usize,
    /// Whether its line rings when something comes.
    pub(crate) is_armed: bool,
    /// Whether its line is at its end. The process will be, too.
    pub(crate) is_gone: bool,
    /// Whether something that it has said was lost.
    pub(crate) is_lost: bool,
    /// Whether it was killed, and so gets nothing more.
    pub(crate) is_doomed: bool,
    /// Whether it gets nothing more, because there are too many, and ends after what it is at.
    pub(crate) is_leaving: bool,
    /// Whether its line was full the last time: of orders that were revoked, and that it has still to pass
    /// by.
    pub(crate) is_clogged: bool,
    /// What it was at for too long, and was killed for.
    pub(crate) timed_out: Option<(u64, u32)>,
    /// What it was at when it was looked at, and since when it is.
    pub(crate) seen: Option<(u64, u32)>,
    pub(crate) since: Instant,
    pub(crate) spawned: Instant,
    pub(crate) ready: Option<Instant>,
    pub(crate) worked: Duration,
    pub(crate) tasks: u64,
}

/// Why a job was not given to a worker.
pub(crate) enum Refusal {
    /// It takes nothing more at the moment, or never will.
    NotNow,
    /// Nobody can have it, for this reason.
    Never(String),
}

impl Worker {
    /// Starts a worker.
    pub(crate) fn start(id: u64, recipe: &Recipe) -> Result<Worker, PoolError> {
        let (line, theirs) = Connection::pair()?;
        let board = Board::new()?;
        let Recipe { initializer, state, farewell } = recipe.clone();
        let employment = Employment { line: theirs, board: board.clone(), initializer, state, farewell };
        let process =
            Builder::new().daemon(true).name(format!("Worker-{id}")).spawn(worker::work, (employment,))?;
        let now = Instant::now();
        Ok(Worker {
            id,
            process,
            line,
            board,
            stage: Stage::Starting,
            jobs: VecDeque::new(),
            slabs: Default::default(),
            shelf: [0; PLACES],
            slabs_sent: 0,
            long: 0,
            under_way: 0,
            order: Vec::new(),
            epoch: 0,
            next_number: 1,
            given: 0,
            is_armed: false,
            is_gone: false,
            is_lost: false,
            is_doomed: false,
            is_leaving: false,
            is_clogged: false,
            timed_out: None,
            seen: None,
            since: now,
            spawned: now,
            ready: None,
            worked: Duration::ZERO,
            tasks: 0,
        })
    }

    /// Whether it takes a further job while it is at others: so that it never waits for its next, and nobody
    /// waits long for what lies before it.
    pub(crate) fn wants_more(&self) -> bool {
        if self.stage != Stage::Ready
            || self.is_gone
            || self.is_doomed
            || self.is_leaving
            || self.jobs.len() >= JOBS
            || self.under_way >= INLINE_UNDER_WAY
        {
            return false;
        }
        let expected = |job: &Assigned| job.expected.unwrap_or(crate::pace::CHUNK);
        self.jobs.len() < 2 || self.jobs.iter().map(expected).sum::<f64>() < 2.0 * crate::pace::CHUNK
    }

    pub(crate) fn is_idle(&self) -> bool {
        let is_fed = self.stage == Stage::Ready && !self.is_gone && !self.is_doomed && !self.is_leaving;
        is_fed && self.jobs.is_empty()
    }

    /// Gives it a job: the items, which take so many bytes. They come back if it does not take them.
    pub(crate) fn assign(
        &mut self,
        batch: BatchId,
        function: Remote,
        items: Source,
        length: usize,
        unit: usize,
        expected: Option<f64>,
    ) -> Result<(), (Source, Refusal)> {
        let bytes = &items.bytes[items.at..items.at + length];
        let slabs_before = self.slabs_sent;
        let slab = if let Some(lent) = &items.lent {
            match self.take_lent(lent) {
                Ok(true) => Some((SLABS + OUTS + lent.place, lent.lease.clone(), lent.length)),
                Ok(false) => return Err((items, Refusal::NotNow)),
                Err(error) => return Err((items, Refusal::Never(Said(&error).to_string()))),
            }
        } else if length <= INLINE {
            None
        } else {
            match self.take_slab(0..SLABS, length) {
                Ok(Some((index, slab))) => {
                    slab.with(|place| place[..length].copy_from_slice(bytes));
                    Some((index, slab, length))
                }
                Ok(None) => return Err((items, Refusal::NotNow)),
                Err(error) => return Err((items, Refusal::Never(Said(&error).to_string()))),
            }
        };
        // Without one the results come through the line.
        let out = match self.long {
            0 => None,
            long => self.take_slab(SLABS..SLABS + OUTS, long).ok().flatten(),
        };
        let number = self.next_number;
        let job = Job {
            function,
            epoch: self.epoch,
            number,
            count: items.count as u32,
            unit: unit as u32,
            slab: slab.as_ref().map(|(index, _, length)| (*index as u32, *length as u64)),
            out: out.as_ref().map(|(index, _)| *index as u32),
        };
        self.order.clear();
        let order = postcard::to_extend(&Order::Run(job), std::mem::take(&mut self.order));
        self.order = order.unwrap_or_default();
        if slab.is_none() {
            self.order.extend_from_slice(bytes);
        }
        let descriptors: Vec<_> = items.descriptors.iter().map(AsFd::as_fd).collect();
        let sent = match self.line.try_send_with(&self.order, &descriptors) {
            // It may be the slab that it died of, and then it is this job that has to be said to have killed
            // it.
            Err(SendError::Disconnected(())) if self.slabs_sent > slabs_before => Ok(()),
            sent => sent,
        };
        if let Err(error) = sent {
            let refusal = match error {
                SendError::Io { error, .. } => Refusal::Never(Said(&error).to_string()),
                SendError::TooLarge { .. } => Refusal::Never(error.to_string()),
                error => {
                    self.is_clogged = matches!(error, SendError::Full(()));
                    Refusal::NotNow
                }
            };
            return Err((items, refusal));
        }
        self.next_number += items.count.div_ceil(unit) as u64;
        self.given += items.count;
        let bytes = if slab.is_none() { length } else { 0 };
        self.under_way += bytes;
        if self.jobs.is_empty() {
            self.seen = None;
            self.since = Instant::now();
        }
        let (slab, out) = (slab.map(|(_, slab, _)| slab), out.map(|(_, out)| out));
        self.jobs.push_back(Assigned {
            number,
            unit,
            batch,
            function,
            items,
            reported: 0,
            expected,
            bytes,
            slab,
            out,
        });
        Ok(())
    }

    /// A free slab for so many bytes, and its number; `None` if all are taken, or the worker cannot be told
    /// of it now.
    fn take_slab(&mut self, range: Range<usize>, length: usize) -> io::Result<Option<(usize, Lease)>> {
        let slabs = &self.slabs[range.clone()];
        let place = slabs.iter().position(|slab| !slab.is_taken() && slab.fits(length));
        let index = match place.or_else(|| slabs.iter().position(|slab| !slab.is_taken())) {
            Some(index) => range.start + index,
            None => return Ok(None),
        };
        // One that is too large to be kept is dropped by the worker after the job.
        let is_kept = self.slabs[index].memory.as_ref().is_some_and(|memory| memory.len() <= SLAB_KEPT);
        if place.is_none() || !is_kept {
            let memory = allocate(length)?;
            if !self.send_slab(index, &memory)? {
                return Ok(None);
            }
            self.slabs[index].memory = Some(memory);
        }
        Ok(self.slabs[index].lease().map(|lease| (index, lease)))
    }

    /// Tells it of a slab of the shelf, unless it knows it. Whether it does now.
    fn take_lent(&mut self, lent: &Lent) -> io::Result<bool> {
        if self.shelf[lent.place] != lent.number {
            if !self.send_slab(SLABS + OUTS + lent.place, lent.lease.memory())? {
                return Ok(false);
            }
            self.shelf[lent.place] = lent.number;
        }
        Ok(true)
    }

    /// Whether there was room in the line: if not, the worker would look for the job's bytes in the slab
    /// before this one.
    fn send_slab(&mut self, index: usize, slab: &Array<u8>) -> io::Result<bool> {
        let order = Order::Slab(index as u32, slab.clone());
        let (order, descriptors) = handover::send(|| postcard::to_stdvec(&order));
        let order = order.map_err(io::Error::other)?;
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        match self.line.try_send_with(&order, &borrowed) {
            Err(SendError::Io { error, .. }) => Err(error),
            Err(SendError::Full(())) => {
                self.is_clogged = true;
                Ok(false)
            }
            // If it is dead, what it is given comes back.
            _ => {
                self.slabs_sent += 1;
                Ok(true)
            }
        }
    }

    /// Takes out a job that is done, or revoked.
    pub(crate) fn finish(&mut self, index: usize) -> Option<Assigned> {
        let mut job = self.jobs.remove(index)?;
        self.under_way -= job.bytes;
        drop(job.slab.take());
        // Large ones are not kept.
        for slab in self.slabs.iter_mut().filter(|slab| !slab.is_taken()) {
            slab.memory.take_if(|memory| memory.len() > SLAB_KEPT);
        }
        Some(job)
    }

    /// Takes back what it has not begun, and says of which batch each is.
    pub(crate) fn revoke(&mut self) -> Vec<(BatchId, Source)> {
        let begun = self.board.revoke(self.epoch);
        self.epoch = self.epoch.wrapping_add(1);
        let mut revoked = Vec::new();
        // What it has begun, it will report. What it has not comes after it.
        while let Some(job) = self.jobs.back_mut() {
            if let Some(kept) = job.begun(begun) {
                if kept < job.items.count {
                    let rest = job.items.clone().after(kept);
                    self.given -= rest.count;
                    job.items.count = kept;
                    self.next_number = job.number + kept.div_ceil(job.unit) as u64;
                    revoked.push((job.batch, rest));
                }
                break;
            }
            let job = self.finish(self.jobs.len() - 1).expect("it is the last");
            self.given -= job.items.count;
            // Its numbers are given again.
            self.next_number = job.number;
            revoked.push((job.batch, job.items));
        }
        revoked.reverse();
        revoked
    }

    /// Whether there is anything to revoke.
    pub(crate) fn has_unbegun(&self) -> bool {
        let begun = self.board.begun();
        self.jobs.back().is_some_and(|job| job.begun(begun).is_none_or(|begun| begun < job.items.count))
    }

    /// The job and the item that it is at; `None` if it has begun none of its jobs.
    pub(crate) fn position(&self) -> Option<(u64, u32)> {
        let progress = self.board.progress();
        let job = self.jobs.iter().find(|job| progress.is_of(job.number))?;
        Some((job.number, progress.items))
    }

    /// Of a dead worker's job: how many items' results are committed, and the bytes of those that were not
    /// reported; `None` if it was not at it.
    pub(crate) fn remains(&self, job: &Assigned) -> Option<(usize, Vec<u8>)> {
        if job.begun(self.board.begun()).is_none() || !self.board.progress().is_of(job.number) {
            return None;
        }
        let committed = (self.board.progress().items as usize).max(job.reported).min(job.items.count);
        let bytes = match committed - job.reported {
            0 => Vec::new(),
            count => self.board.results(count),
        };
        Some((committed, bytes))
    }

    /// Tells it to end when all is done that it has. If its line is full, it is to be told again.
    pub(crate) fn stop(&mut self) {
        let order = postcard::to_stdvec(&Order::Stop).unwrap_or_default();
        match self.line.try_send_with(&order, &[]) {
            Err(SendError::Full(())) => self.is_clogged = true,
            told => {
                self.stage = Stage::Stopping;
                if told.is_err() {
                    self.kill();
                }
            }
        }
    }

    /// Ends it now.
    pub(crate) fn kill(&mut self) {
        self.is_doomed = true;
        let _ = self.process.kill();
    }

    /// How it ended, once it has.
    pub(crate) fn status(&self) -> ExitStatus {
        self.process.exit_status().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Map;

    #[test]
    fn what_is_begun_is_counted_in_units() {
        let function = Remote::new::<Map<u32, u32>, _>(|n: u32| n).unwrap();
        let items = Source::new(Vec::new(), Vec::new(), 0, 10);
        let job = |number, unit| Assigned {
            number,
            unit,
            batch: 0,
            function,
            items: items.clone(),
            reported: 0,
            expected: None,
            bytes: 0,
            slab: None,
            out: None,
        };
        assert_eq!(job(7, 4).begun(6), None);
        assert_eq!(job(7, 4).begun(7), Some(4));
        assert_eq!(job(7, 4).begun(8), Some(8));
        assert_eq!(job(7, 4).begun(9), Some(10));
        assert_eq!(job(7, 4).begun(10), Some(10), "a later job");
        assert_eq!(job(u64::from(u32::MAX), 1).begun(1), Some(3));
        assert_eq!(job(1 << 32, 1).begun(u32::MAX), None);
    }
}
