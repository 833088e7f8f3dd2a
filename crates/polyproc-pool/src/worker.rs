//! The worker: a process that does one job after the other until it is told to stop, or its pool is gone.

mod calls;

pub use calls::Initialized;
pub(crate) use calls::{ForEachChunk, Initialize, MakeState, Map, MapWithState, SendState, StarMap};

use crate::board::{Board, End};
use crate::crew::{INLINE, SLAB_KEPT};
use crate::items::{self, Appended, Parcel, Tag};
use crate::pile::Pile;
use crate::wire::{Employment, Job, Kind, Line, Order, Report};
use calls::{Last, Setup};
use polyproc_memory::{Said, handover};
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
        results: Pile::default(),
        job: 0,
        count: 0,
        index: 0,
        reported: 0,
        items: 0,
        slab: None,
        out: None,
        put: None,
        lent: None,
        descriptors: Vec::new(),
        is_special: false,
        end: End::default(),
        started: Report::SIZE,
        function: None,
        epoch: 0,
        unit: 1,
        next_unit: 1,
        forks: thread::forks(),
    };
    let prepared = run.prepare(initializer, state);
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
    results: Pile,
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
    /// How many bytes of them are there.
    put: Option<usize>,
    /// The array of which parts were lent last, and by which function: as long as it is here it stays mapped,
    /// and its pages known.
    lent: Option<(Remote, Box<dyn Any>)>,
    descriptors: Vec<OwnedFd>,
    /// Whether there is a slab, or there are descriptors.
    is_special: bool,
    /// Where on the board those end that are committed.
    end: End,
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
    /// Calls the initializer and makes the state.
    fn prepare(
        &self,
        initializer: Option<(Remote, Parcel)>,
        state: Option<(Remote, Parcel)>,
    ) -> Result<Box<dyn Any>, String> {
        let mut made: Box<dyn Any> = Box::new(());
        for (function, Parcel { bytes, descriptors }) in [initializer, state].into_iter().flatten() {
            let descriptors: Result<Vec<OwnedFd>, _> =
                descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned()).collect();
            let descriptors = descriptors.map_err(|error| Said(&error).to_string())?;
            let mut setup = Setup { bytes, descriptors, made: Ok(Box::new(())) };
            let called = remote::catch_traced(|| function.call(&mut setup));
            self.end_if_fork();
            match called {
                Ok(Ok(())) => made = setup.made?,
                Ok(Err(remote::NotHere)) => return Err(NOT_HERE.into()),
                Err(Panic { message, location, .. }) => {
                    return Err(format!("panicked at {location}: {message}"));
                }
            }
        }
        Ok(made)
    }

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
                    let mut slab = |index: u32| {
                        let place = slabs.get_mut(index as usize)?;
                        let slab = place.clone()?;
                        // The pool does the same, whether the job is begun or not.
                        place.take_if(|slab| slab.len() > SLAB_KEPT);
                        Some(slab)
                    };
                    let items = job.slab.and_then(|(index, length)| Some((slab(index)?, length as usize)));
                    let out = job.out.and_then(slab);
                    if self.board.begin(job.epoch, job.number) {
                        self.board.count(job.number, 0);
                        self.items = length;
                        self.descriptors = descriptors;
                        (self.slab, self.out) = (items, out);
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
        self.results.truncate(0);
        // A large buffer is not kept for small results.
        self.results.make_room(ROOM, KEPT);
        self.results.skip(Report::SIZE);
        self.end = End::default();
        self.function = Some(job.function);
        self.lent.take_if(|(function, _)| *function != job.function);
        let start = Instant::now();
        if job.function.call(self).is_err() {
            while self.index < self.count {
                self.results.append_text(Tag::Unreadable, NOT_HERE);
                self.index += 1;
            }
        }
        let worked = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.slab = None;
        self.finish(worked)
    }

    /// Reports the end of a job, its results in the slab if they are long and there is one.
    fn finish(&mut self, worked: u64) -> Result<(), Gone> {
        let out = self.out.take();
        let results = &self.results.bytes()[Report::SIZE..];
        let length = results.len();
        let put = self.put.take().or_else(|| {
            let slab = out.filter(|slab| length > INLINE && length <= slab.len())?;
            slab.lock().unwrap_or_else(|error| error.into_inner())[..length].copy_from_slice(results);
            Some(length)
        });
        let Some(length) = put else { return self.report(Kind::Done, worked, &[]) };
        self.results.truncate(Report::SIZE);
        self.results.append_bytes(&(length as u64).to_le_bytes());
        self.report(Kind::DoneInSlab, worked, &[])
    }

    /// Calls the function with each item, and commits what becomes of it.
    #[inline]
    fn each<T: DeserializeOwned + 'static, R: Serialize + 'static>(
        &mut self,
        mut function: impl FnMut(&mut dyn Any, T) -> R,
    ) {
        while self.index < self.count {
            // A panic ends one item, and the next one begins afresh.
            let done = remote::catch_traced(|| {
                while self.index < self.count {
                    if self.index == self.next_unit && !self.begin_unit() {
                        break;
                    }
                    self.started = self.results.len();
                    let item = match self.is_special {
                        false => read_next(&self.message, &mut self.items),
                        true => self.read_specially(),
                    };
                    match item {
                        Ok(item) => {
                            let result = function(&mut *self.state, item);
                            self.enter(&result)?;
                        }
                        Err(why) => self.enter_text(Tag::Unreadable, &why)?,
                    }
                }
                Ok(())
            });
            let done = done.unwrap_or_else(|panic| {
                self.is_no_fork()?;
                self.results.truncate(self.started);
                let _ = self.results.append_slowly(Tag::Panicked, &panic);
                self.settle()
            });
            if done.is_err() {
                leave();
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

    /// Enters what the function returned.
    #[inline(always)]
    fn enter<R: Serialize + 'static>(&mut self, result: &R) -> Result<(), Gone> {
        self.is_no_fork()?;
        if self.out.is_some() && self.put_out(result) {
            self.index += 1;
            return Ok(());
        }
        match self.results.append(result) {
            Appended::Plain => self.settle(),
            Appended::Handles(descriptors) => self.send_alone(&descriptors),
            Appended::Not(why) => self.enter_text(Tag::Unsendable, &why),
        }
    }

    /// Puts a result where the pool has lent memory for it, if it is the job's only one, and fits: one is not
    /// likely to be short where one is lent.
    #[cold]
    #[inline(never)]
    fn put_out<R: Serialize + 'static>(&mut self, result: &R) -> bool {
        if self.count > 1 {
            return false;
        }
        let Some(out) = &self.out else { return false };
        // As in the pool: what somebody left behind does no harm.
        self.put = items::put_long(&mut out.lock().unwrap_or_else(|error| error.into_inner()), result);
        self.put.is_some()
    }

    #[cold]
    fn enter_text(&mut self, tag: Tag, text: &str) -> Result<(), Gone> {
        self.is_no_fork()?;
        self.results.append_text(tag, text);
        self.settle()
    }

    /// A child that a task has forked, and that should have ended there, is to end here: line and board are
    /// its parent's, and so are the slabs.
    #[inline(always)]
    fn is_no_fork(&self) -> Result<(), Gone> {
        if self.forks == thread::forks() { Ok(()) } else { Err(Gone) }
    }

    /// The same, of a child that was forked before the first task, or after the last.
    fn end_if_fork(&self) {
        if self.is_no_fork().is_err() {
            leave();
        }
    }

    /// Reads the next item if it lies in a slab, or if descriptors came with it: then it is the only one.
    #[cold]
    fn read_specially<T: DeserializeOwned + 'static>(&mut self) -> Result<T, String> {
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

    /// Commits the result that was appended last.
    #[inline(always)]
    fn settle(&mut self) -> Result<(), Gone> {
        self.index += 1;
        if self.index == self.count {
            // Whoever sends them all commits this one.
            return Ok(());
        }
        let result = &self.results.bytes()[self.started..];
        match self.board.commit(self.job, self.index, &mut self.end, result) {
            true => Ok(()),
            false => self.report(Kind::Part, 0, &[]),
        }
    }

    /// Sends the result that was appended last by itself, because descriptors go with it.
    #[cold]
    fn send_alone(&mut self, descriptors: &[handover::Descriptor]) -> Result<(), Gone> {
        let alone = self.results.split_off(self.started);
        if self.started > Report::SIZE {
            self.report(Kind::Part, 0, &[])?;
        }
        self.index += 1;
        self.results.append_bytes(&alone);
        self.report(Kind::Part, 0, descriptors)
    }

    /// Sends the results that were not sent.
    fn report(&mut self, kind: Kind, worked: u64, descriptors: &[handover::Descriptor]) -> Result<(), Gone> {
        let count = self.index - self.reported;
        let report = Report { kind, count, job: self.job, worked };
        self.results.bytes_mut()[..Report::SIZE].copy_from_slice(&report.to_bytes());
        send(&self.line, self.results.bytes(), descriptors)?;
        self.reported = self.index;
        if kind == Kind::Part {
            // They are the pool's: from here on the board is about the next.
            self.end = End::default();
            self.board.count(self.job, self.index);
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
        self.end_if_fork();
        if let Err(panic) = called {
            last.item.clear();
            let _ = items::append(&mut last.item, Tag::Panicked, &panic);
        }
        let report = Report { kind: Kind::State, count: 1, job: 0, worked: 0 };
        send(&self.line, &[&report.to_bytes(), &last.item[..]].concat(), &last.descriptors)
    }
}

/// Ends the process here: nobody waits for the rest.
fn leave() -> ! {
    std::process::exit(0)
}

/// Room for a report, and for the results of a job whose items came with it, if they are no longer than
/// those.
const ROOM: usize = Report::SIZE + INLINE + 512;
/// So large a buffer is kept from one job to the next.
const KEPT: usize = 4 << 20;

/// Reads the item at this place in the bytes.
#[inline(always)]
fn read_next<T: DeserializeOwned + 'static>(bytes: &[u8], at: &mut usize) -> Result<T, String> {
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
