//! The worker: a process that does one job after the other until it is told to stop, or its pool is gone.

mod calls;

pub use calls::Initialized;
pub(crate) use calls::{ForEachChunk, Initialize, MakeState, Map, MapWithState, SendState, StarMap};

use crate::board::{self, Board};
use crate::crew::{INLINE, SLAB_KEPT};
use crate::items::{self, Appended, Parcel, Tag};
use crate::wire::{Employment, Job, Kind, Line, Order, Report};
use calls::{Last, Setup};
use polyproc_memory::handover;
use polyproc_pipe::{RecvError, SendError};
use polyproc_process::remote::{self, Panic, Remote};
use polyproc_sys::thread;
use polyproc_value::Array;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Runs in the worker's process.
pub(crate) fn work(employment: Employment) {
    // From a terminal, Ctrl-C comes to all; what becomes of the pool is the parent's to say.
    remote::shrug_off_interrupts();
    // From here on forks are counted.
    thread::current();
    let Employment { line, board, initializer, state, farewell } = employment;
    let mut run = Run {
        line,
        board,
        state: Box::new(()),
        message: Vec::new(),
        results: vec![0; Report::SIZE],
        job: 0,
        count: 0,
        index: 0,
        reported: 0,
        items: 0,
        slab: None,
        out: None,
        lent: None,
        descriptors: Vec::new(),
        is_special: false,
        started: Report::SIZE,
        function: None,
        epoch: 0,
        unit: 1,
        next_unit: 1,
        forks: thread::forks(),
    };
    let prepared = prepare(initializer, state);
    let greeting = match prepared {
        Ok(state) => {
            run.state = state;
            run.say(Kind::Ready, 0, b"")
        }
        Err(why) => run.say(Kind::Refused, 0, why.as_bytes()).and(Err(Gone)),
    };
    if greeting.is_ok() && run.obey().is_ok() {
        // Nobody may be left to hear it.
        let _ = run.bid_farewell(farewell);
    }
}

/// Calls the initializer and makes the state.
fn prepare(
    initializer: Option<(Remote, Parcel)>,
    state: Option<(Remote, Parcel)>,
) -> Result<Box<dyn Any>, String> {
    let mut made: Box<dyn Any> = Box::new(());
    for (function, Parcel { bytes, descriptors }) in [initializer, state].into_iter().flatten() {
        let descriptors: Result<Vec<OwnedFd>, _> =
            descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned()).collect();
        let descriptors = descriptors.map_err(|error| error.to_string())?;
        let mut setup = Setup { bytes, descriptors, made: Ok(Box::new(())) };
        let called = remote::catch_traced(|| function.call(&mut setup));
        match called {
            Ok(Ok(())) => made = setup.made?,
            Ok(Err(remote::NotHere)) => return Err(NOT_HERE.into()),
            Err(Panic { message, location, .. }) => return Err(format!("panicked at {location}: {message}")),
        }
    }
    Ok(made)
}

/// So long an array stays mapped of which nothing is lent any more.
const LENT: Duration = Duration::from_secs(1);

const NOT_HERE: &str = "the worker's program is not the one that the pool runs";

/// Nobody is left at the other end.
struct Gone;

/// What the function of a job works with. Its items, and where their results go.
pub(crate) struct Run {
    line: Line,
    board: Board,
    state: Box<dyn Any>,
    /// The order, with the items that came with it.
    message: Vec<u8>,
    /// Room for a report, and the results that were not sent.
    results: Vec<u8>,
    job: u64,
    count: u32,
    /// The item that is next.
    index: u32,
    /// How many results were sent.
    reported: u32,
    /// Where in the message the next item is.
    items: usize,
    /// Where it is, if not there.
    slab: Option<(Array<u8>, usize)>,
    /// Where the results may be put.
    out: Option<Array<u8>>,
    /// The array of which parts were lent last, and by which function: as long as it is here it stays mapped, and its pages
    /// known.
    lent: Option<(Remote, Box<dyn Any>)>,
    descriptors: Vec<OwnedFd>,
    /// Whether there is a slab, or there are descriptors.
    is_special: bool,
    /// Where the result begins that is being made.
    started: usize,
    /// What is called.
    function: Option<Remote>,
    epoch: u32,
    /// How many items are begun at a time, and before which of them the next are.
    unit: u32,
    next_unit: u32,
    /// How often this process and its forebears were forked: once more in a child that a task has forked.
    forks: u32,
}

impl Run {
    /// Does what the pool says, until it says that this was all.
    fn obey(&mut self) -> Result<(), Gone> {
        let mut slabs: Vec<Option<Array<u8>>> = Vec::new();
        loop {
            if self.lent.is_some() && matches!(self.line.poll(LENT), Ok(false)) {
                self.lent = None;
            }
            self.message.clear();
            let descriptors = match self.line.recv_with(&mut self.message) {
                Ok(descriptors) => descriptors,
                Err(RecvError::Disconnected) => return Err(Gone),
                // Out of descriptors, for instance: another can have the job.
                Err(error) => {
                    eprintln!("polyproc: a task cannot be received: {error}");
                    std::process::exit(74)
                }
            };
            let (order, length) = {
                let read = || postcard::take_from_bytes::<Order>(&self.message);
                // A job's descriptors are its items', not the order's.
                let read = match self.message.first() {
                    Some(0) => read(),
                    _ => handover::receive(
                        descriptors.iter().filter_map(|one| one.try_clone().ok()).collect(),
                        read,
                    ),
                };
                match read {
                    Ok((order, rest)) => (order, self.message.len() - rest.len()),
                    Err(_) => {
                        let why = handover::take_failure();
                        let why = why.map_or_else(|| "it is nonsense".into(), |why| why.to_string());
                        eprintln!("polyproc: a task cannot be received: {why}");
                        std::process::exit(74)
                    }
                }
            };
            match order {
                Order::Stop => return Ok(()),
                Order::Slab(index, slab) => {
                    let index = index as usize;
                    if slabs.len() <= index {
                        slabs.resize(index + 1, None);
                    }
                    slabs[index] = Some(slab);
                }
                Order::Run(job) => {
                    if self.board.begin(job.epoch, job.number) {
                        self.board.count(job.number, 0);
                        self.items = length;
                        self.descriptors = descriptors;
                        self.slab = job.slab.and_then(|(index, length)| {
                            let place = slabs.get_mut(index as usize)?;
                            let slab = place.clone()?;
                            // The pool does the same.
                            place.take_if(|slab| slab.len() > SLAB_KEPT);
                            Some((slab, length as usize))
                        });
                        self.out = job.out.and_then(|index| slabs.get(index as usize)?.clone());
                        self.is_special = self.slab.is_some() || !self.descriptors.is_empty();
                        self.perform(&job)?;
                    }
                }
            }
        }
    }

    fn perform(&mut self, job: &Job) -> Result<(), Gone> {
        (self.job, self.count, self.index, self.reported) = (job.number, job.count, 0, 0);
        (self.epoch, self.unit, self.next_unit) = (job.epoch, job.unit, job.unit);
        self.results.truncate(Report::SIZE);
        self.function = Some(job.function);
        self.lent.take_if(|(function, _)| *function != job.function);
        let start = Instant::now();
        if job.function.call(self).is_err() {
            while self.index < self.count {
                items::append_text(&mut self.results, Tag::Unreadable, NOT_HERE);
                self.index += 1;
            }
        }
        let worked = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.slab = None;
        self.finish(worked)
    }

    /// Reports the end of a job, its results in the slab if they are long and there is one.
    fn finish(&mut self, worked: u64) -> Result<(), Gone> {
        let results = &self.results[Report::SIZE..];
        let length = results.len();
        let slab = self.out.take().filter(|slab| length > INLINE && length <= slab.len());
        if let Some(slab) = slab {
            // As in the pool: what somebody left behind does no harm.
            slab.lock().unwrap_or_else(|error| error.into_inner())[..length].copy_from_slice(results);
            self.results.truncate(Report::SIZE);
            self.results.extend_from_slice(&(length as u64).to_le_bytes());
            return self.report(Kind::DoneInSlab, worked, &[]);
        }
        self.report(Kind::Done, worked, &[])
    }

    /// Calls the function with each item, and commits what becomes of it.
    #[inline]
    fn each<T: DeserializeOwned, R: Serialize>(&mut self, mut function: impl FnMut(&mut dyn Any, T) -> R) {
        while self.index < self.count {
            // A panic ends one item, and the next one begins afresh.
            let done = remote::catch_traced(|| {
                while self.index < self.count {
                    if self.index == self.next_unit && !self.begin_unit() {
                        break;
                    }
                    let start = self.results.len();
                    let descriptors = self.next_one(&mut function);
                    self.settle(start, &descriptors)?;
                }
                Ok(())
            });
            let done = done.unwrap_or_else(|panic| {
                let start = self.started;
                self.results.truncate(start);
                let _ = items::append(&mut self.results, Tag::Panicked, &panic);
                self.settle(start, &[])
            });
            if done.is_err() {
                // Nobody waits for the rest.
                std::process::exit(0);
            }
        }
    }

    /// Begins the next unit. If it was revoked, the job ends here.
    #[inline]
    fn begin_unit(&mut self) -> bool {
        let number = self.job + u64::from(self.next_unit / self.unit);
        self.next_unit = self.next_unit.saturating_add(self.unit);
        let has_begun = self.board.begin(self.epoch, number);
        if !has_begun {
            self.count = self.index;
        }
        has_begun
    }

    /// Calls the function with the next item, and appends what it returns. The descriptors belong to that.
    #[inline(always)]
    fn next_one<T: DeserializeOwned, R: Serialize>(
        &mut self,
        function: &mut impl FnMut(&mut dyn Any, T) -> R,
    ) -> Vec<handover::Descriptor> {
        self.started = self.results.len();
        let item =
            if self.is_special { self.read_specially() } else { read_next(&self.message, &mut self.items) };
        let (tag, text) = match item {
            Ok(item) => match items::append(&mut self.results, Tag::Value, &function(&mut *self.state, item))
            {
                Appended::Plain => return Vec::new(),
                Appended::Handles(descriptors) => return descriptors,
                Appended::Not(why) => (Tag::Unsendable, why),
            },
            Err(why) => (Tag::Unreadable, why),
        };
        items::append_text(&mut self.results, tag, &text);
        Vec::new()
    }

    /// Reads the next item if it lies in a slab, or if descriptors came with it: then it is the only one.
    #[cold]
    fn read_specially<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let descriptors = std::mem::take(&mut self.descriptors);
        handover::receive(descriptors, || match &self.slab {
            None => read_next(&self.message, &mut self.items),
            Some((slab, length)) => {
                // A panic of an earlier reader did no harm: readers change nothing.
                let lent = slab.lock().unwrap_or_else(|error| error.into_inner());
                read_next(&lent[..(*length).min(lent.len())], &mut 0)
            }
        })
    }

    /// Commits the result that begins at `start`.
    #[inline(always)]
    fn settle(&mut self, start: usize, descriptors: &[handover::Descriptor]) -> Result<(), Gone> {
        if self.forks != thread::forks() {
            // A child that the task has forked, and that should have ended there: line and board are its parent's.
            return Err(Gone);
        }
        self.index += 1;
        if !descriptors.is_empty() {
            return self.send_alone(start, descriptors);
        }
        if self.index == self.count {
            // Whoever sends them all commits this one.
            return Ok(());
        }
        let end = self.results.len();
        if end - Report::SIZE > board::CAPACITY - 8 {
            return self.report(Kind::Part, 0, &[]);
        }
        // So that the last word is complete.
        self.results.extend_from_slice(&[0; 8]);
        let committed = &self.results[Report::SIZE..];
        self.board.commit(self.job, self.index, committed, start - Report::SIZE);
        self.results.truncate(end);
        Ok(())
    }

    /// Sends a result by itself, because descriptors go with it.
    #[cold]
    fn send_alone(&mut self, start: usize, descriptors: &[handover::Descriptor]) -> Result<(), Gone> {
        let alone = self.results.split_off(start);
        if start > Report::SIZE {
            self.index -= 1;
            self.report(Kind::Part, 0, &[])?;
            self.index += 1;
        }
        self.results.extend_from_slice(&alone);
        self.report(Kind::Part, 0, descriptors)
    }

    /// Sends the results that were not sent.
    fn report(&mut self, kind: Kind, worked: u64, descriptors: &[handover::Descriptor]) -> Result<(), Gone> {
        let count = self.index - self.reported;
        let report = Report { kind, count, job: self.job, worked };
        self.results[..Report::SIZE].copy_from_slice(&report.to_bytes());
        send(&self.line, &self.results, descriptors)?;
        self.reported = self.index;
        if kind == Kind::Part {
            // They are the pool's: from here on the board is about the next.
            self.board.count(self.job, self.index);
        }
        // A large buffer is not kept for small results.
        if self.results.capacity() > KEPT {
            self.results = vec![0; Report::SIZE];
        }
        self.results.truncate(Report::SIZE);
        Ok(())
    }

    fn say(&mut self, kind: Kind, count: u32, what: &[u8]) -> Result<(), Gone> {
        let report = Report { kind, count, job: 0, worked: 0 };
        send(&self.line, &[&report.to_bytes(), what].concat(), &[])
    }

    fn bid_farewell(&mut self, farewell: Option<Remote>) -> Result<(), Gone> {
        let Some(farewell) = farewell else { return Ok(()) };
        let state = std::mem::replace(&mut self.state, Box::new(()));
        let mut last = Last { state, item: Vec::new(), descriptors: Vec::new() };
        let called = remote::catch_traced(|| farewell.call(&mut last));
        if let Err(panic) = called {
            last.item.clear();
            let _ = items::append(&mut last.item, Tag::Panicked, &panic);
        }
        let report = Report { kind: Kind::State, count: 1, job: 0, worked: 0 };
        send(&self.line, &[&report.to_bytes(), &last.item[..]].concat(), &last.descriptors)
    }
}

/// So large a buffer is kept from one job to the next.
const KEPT: usize = 4 << 20;

/// Reads the item at this place in the bytes.
#[inline(always)]
fn read_next<T: DeserializeOwned>(bytes: &[u8], at: &mut usize) -> Result<T, String> {
    let mut rest = bytes.get(*at..).unwrap_or_default();
    let (_, item) = items::next(&mut rest).ok_or("the items end too early")?;
    *at = bytes.len() - rest.len();
    items::read(item)
}

fn send(line: &Line, bytes: &[u8], descriptors: &[handover::Descriptor]) -> Result<(), Gone> {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    match line.send_with(bytes, &borrowed) {
        Ok(()) => Ok(()),
        // What cannot be sent would be waited for: to be dead says more.
        Err(error @ (SendError::TooLarge { .. } | SendError::Io { .. })) => {
            eprintln!("polyproc: a result cannot be sent: {error}");
            std::process::exit(74)
        }
        Err(_) => Err(Gone),
    }
}
