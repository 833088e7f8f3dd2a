//! A worker from the pool's side.

use crate::batch::{BatchId, Source};
use crate::board::Board;
use crate::wire::{Employment, Job, Line, Order};
use crate::{board, worker};
use polyproc_memory::handover;
use polyproc_pipe::{Connection, SendError};
use polyproc_process::remote::Remote;
use polyproc_process::{Builder, Process};
use polyproc_value::Array;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::error::PoolError;
use crate::items::Parcel;

/// Jobs whose items take no more bytes than this travel in the line itself.
pub(crate) const INLINE: usize = 16 << 10;
/// So many bytes of them may be under way to a worker: there is always room for them.
const INLINE_UNDER_WAY: usize = 2 * INLINE;
/// How many long jobs a worker has at a time, each in a slab of its own.
const SLABS: usize = 2;
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

/// Why the pool has killed a worker: for the item that it was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    TimedOut,
    Cancelled,
}

/// A job that a worker has, or will have done when its report comes.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) number: u64,
    pub(crate) batch: BatchId,
    pub(crate) function: Remote,
    pub(crate) items: Source,
    /// Of how many of the items results have come.
    pub(crate) reported: usize,
    /// How many nanoseconds it is expected to take.
    pub(crate) expected: Option<f64>,
    /// Bytes in the line, or a slab.
    bytes: usize,
    slab: Option<usize>,
}

/// Memory for the items of a long job.
#[derive(Debug, Default)]
struct Slab {
    memory: Option<Array<u8>>,
    /// Whether a job is in it.
    is_taken: bool,
}

pub(crate) struct Worker {
    pub(crate) id: u64,
    pub(crate) process: Process<()>,
    pub(crate) line: Line,
    pub(crate) board: Board,
    pub(crate) stage: Stage,
    pub(crate) jobs: VecDeque<Assigned>,
    slabs: [Slab; SLABS],
    under_way: usize,
    epoch: u32,
    next_number: u64,
    /// How many tasks it was given.
    pub(crate) given: usize,
    /// Whether its line rings when something comes.
    pub(crate) is_armed: bool,
    /// Whether its line is at its end. The process will be, too.
    pub(crate) is_gone: bool,
    /// Why it was killed, and what it was at.
    pub(crate) verdict: Option<(Verdict, (u64, u32))>,
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
        let process = Builder::new().daemon(true).name(format!("Worker-{id}")).spawn(worker::work, (employment,))?;
        let now = Instant::now();
        Ok(Worker {
            id,
            process,
            line,
            board,
            stage: Stage::Starting,
            jobs: VecDeque::new(),
            slabs: Default::default(),
            under_way: 0,
            epoch: 0,
            next_number: 1,
            given: 0,
            is_armed: false,
            is_gone: false,
            verdict: None,
            seen: None,
            since: now,
            spawned: now,
            ready: None,
            worked: Duration::ZERO,
            tasks: 0,
        })
    }

    /// Whether it takes a further job while it is at others: so that it never waits for its next, and nobody waits long
    /// for what lies before it.
    pub(crate) fn wants_more(&self) -> bool {
        if self.stage != Stage::Ready || self.is_gone || self.jobs.len() >= JOBS || self.under_way >= INLINE_UNDER_WAY {
            return false;
        }
        let expected = |job: &Assigned| job.expected.unwrap_or(crate::pace::CHUNK);
        self.jobs.len() < 2 || self.jobs.iter().map(expected).sum::<f64>() < 2.0 * crate::pace::CHUNK
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.stage == Stage::Ready && !self.is_gone && self.jobs.is_empty()
    }

    /// Gives it a job: the items, which take so many bytes. They come back if it does not take them.
    pub(crate) fn assign(
        &mut self,
        batch: BatchId,
        function: Remote,
        items: Source,
        length: usize,
        expected: Option<f64>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), (Source, Refusal)> {
        let bytes = &items.bytes[items.at..items.at + length];
        let slab = if length <= INLINE {
            None
        } else {
            match self.fill_slab(bytes) {
                Ok(Some(slab)) => Some(slab),
                Ok(None) => return Err((items, Refusal::NotNow)),
                Err(error) => return Err((items, Refusal::Never(error.to_string()))),
            }
        };
        let number = self.next_number;
        let job = Job {
            function,
            epoch: self.epoch,
            number,
            count: items.count as u32,
            slab: slab.map(|slab| (slab as u32, length as u64)),
        };
        scratch.clear();
        *scratch = postcard::to_extend(&Order::Run(job), std::mem::take(scratch)).unwrap_or_default();
        if slab.is_none() {
            scratch.extend_from_slice(bytes);
        }
        let descriptors: Vec<_> = items.descriptors.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.line.try_send_with(scratch, &descriptors) {
            if let Some(slab) = slab {
                self.release_slab(slab);
            }
            let refusal = match error {
                SendError::Io { error, .. } => Refusal::Never(error.to_string()),
                SendError::TooLarge { .. } => Refusal::Never(error.to_string()),
                _ => Refusal::NotNow,
            };
            return Err((items, refusal));
        }
        self.next_number += 1;
        self.given += items.count;
        let bytes = if slab.is_none() { length } else { 0 };
        self.under_way += bytes;
        if self.jobs.is_empty() {
            self.seen = None;
            self.since = Instant::now();
        }
        self.jobs.push_back(Assigned { number, batch, function, items, reported: 0, expected, bytes, slab });
        Ok(())
    }

    /// Puts a long job's items into shared memory. `None` if all of it is taken.
    fn fill_slab(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let fits = |slab: &Slab| !slab.is_taken && slab.memory.as_ref().is_some_and(|memory| memory.len() >= bytes.len());
        let index = match self.slabs.iter().position(fits) {
            Some(index) => index,
            None => {
                let Some(index) = self.slabs.iter().position(|slab| !slab.is_taken) else { return Ok(None) };
                self.slabs[index].memory = Some(self.send_slab(index, bytes.len())?);
                index
            }
        };
        let slab = &mut self.slabs[index];
        let memory = slab.memory.as_ref().expect("it fits");
        // What a reader that died left behind does no harm.
        let mut place = memory.lock().unwrap_or_else(|error| error.into_inner());
        place[..bytes.len()].copy_from_slice(bytes);
        drop(place);
        slab.is_taken = true;
        Ok(Some(index))
    }

    fn send_slab(&mut self, index: usize, length: usize) -> io::Result<Array<u8>> {
        let slab = Array::zeroed(length.next_power_of_two().max(64 << 10))?;
        let order = Order::Slab(index as u32, slab.clone());
        let (order, descriptors) = handover::send(|| postcard::to_stdvec(&order));
        let order = order.map_err(io::Error::other)?;
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        match self.line.try_send_with(&order, &borrowed) {
            Err(SendError::Io { error, .. }) => Err(error),
            // If it is dead, what it is given comes back.
            _ => Ok(slab),
        }
    }

    fn release_slab(&mut self, index: usize) {
        let slab = &mut self.slabs[index];
        slab.is_taken = false;
        // The worker does the same.
        slab.memory.take_if(|memory| memory.len() > SLAB_KEPT);
    }

    /// Takes out a job that is done, or revoked.
    pub(crate) fn finish(&mut self, index: usize) -> Option<Assigned> {
        let job = self.jobs.remove(index)?;
        self.under_way -= job.bytes;
        if let Some(slab) = job.slab {
            self.release_slab(slab);
        }
        Some(job)
    }

    /// Takes back the jobs that it has not begun.
    pub(crate) fn revoke(&mut self) -> Vec<Assigned> {
        let begun = self.board.revoke(self.epoch);
        self.epoch = self.epoch.wrapping_add(1);
        // Those that it has begun, it will report. What it has not comes after them.
        let kept = self.jobs.iter().take_while(|job| !is_after(job.number, begun)).count();
        let mut revoked = Vec::new();
        while self.jobs.len() > kept {
            let job = self.finish(kept).expect("counted above");
            self.given -= job.items.count;
            revoked.push(job);
        }
        // Its numbers are given again.
        if let Some(first) = revoked.first() {
            self.next_number = first.number;
        }
        revoked
    }

    /// Whether there is anything to revoke.
    pub(crate) fn has_unbegun(&self) -> bool {
        self.jobs.back().is_some_and(|job| is_after(job.number, self.board.begun()))
    }

    /// The job and the item that it is at; `None` if it has begun none of its jobs.
    pub(crate) fn position(&self) -> Option<(u64, u32)> {
        let progress = self.board.progress();
        let job = self.jobs.iter().find(|job| progress.is_of(job.number))?;
        Some((job.number, progress.items))
    }

    /// Of a dead worker's job: how many items' results are committed, and the bytes of those that were not reported;
    /// `None` if it was not at it.
    pub(crate) fn remains(&self, job: &Assigned) -> Option<(usize, Vec<u8>)> {
        if is_after(job.number, self.board.begun()) || !self.board.progress().is_of(job.number) {
            return None;
        }
        let committed = (self.board.progress().items as usize).max(job.reported).min(job.items.count);
        let bytes = if committed > job.reported { self.board.results() } else { Vec::new() };
        debug_assert!(bytes.len() <= board::CAPACITY);
        Some((committed, bytes))
    }

    /// Tells it to end when all is done that it has.
    pub(crate) fn stop(&mut self) {
        self.stage = Stage::Stopping;
        let order = postcard::to_stdvec(&Order::Stop).unwrap_or_default();
        if self.line.try_send_with(&order, &[]).is_err() {
            // Dead, or no room, which there always is.
            let _ = self.process.kill();
        }
    }

    /// Ends it now.
    pub(crate) fn kill(&self) {
        let _ = self.process.kill();
    }

    /// How it ended, once it has.
    pub(crate) fn status(&self) -> ExitStatus {
        self.process.exit_status().unwrap_or_default()
    }
}

/// Whether a job comes after the one with this lower half of a number.
fn is_after(number: u64, begun: u32) -> bool {
    (number as u32).wrapping_sub(begun) as i32 > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_numbers_survives_their_lower_halves() {
        assert!(is_after(1, 0) && !is_after(1, 1) && !is_after(1, 2));
        assert!(is_after(1 << 32, u32::MAX) && !is_after(u64::from(u32::MAX), 3));
    }
}
