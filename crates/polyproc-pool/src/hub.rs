//! Who attends to the workers: one thread at a time, whoever waits for a result anyway, or else the
//! supervisor.
//!
//! A thread that waits for its result takes the *seat* and receives for everybody, so that between a worker
//! and whoever waits for it there is no third thread. Others that wait sleep until the seat is free or their
//! result is there. When nobody waits and there is something to attend to, the supervisor takes the seat: a
//! thread of the pool that gives it up as soon as somebody asks.
//!
//! | seat | who wants it | what happens |
//! |---|---|---|
//! | free | somebody who waits | has it at once |
//! | another's who waits | somebody who waits | sleeps; the other gives it on when it leaves |
//! | the supervisor's | somebody who waits | the supervisor is called away |
//! | free for half a millisecond, and there is work; or for a while | nobody | the supervisor takes it |

use crate::core::{Core, Phase};
use crate::crew::Worker;
use crate::error::PoolError;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the supervisor leaves the seat free when there is something to attend to: somebody may be back at
/// once.
const GRACE: Duration = Duration::from_micros(500);
/// And when there is nothing: deaths of idle workers are seen a little later.
const LONG_GRACE: Duration = Duration::from_millis(50);
/// The bounds of how long a thread looks at memory before it sleeps.
const LOOK: (Duration, Duration) = (Duration::from_micros(2), Duration::from_micros(40));

/// The token of the bell in the epoll set. Those of workers are their ids, twice, plus one for the process.
const BELL: u64 = u64::MAX;

pub(crate) struct Hub {
    state: Mutex<State>,
    /// For the supervisor.
    call: Condvar,
    epoll: Arc<Epoll>,
    bell: Arc<EventFd>,
    /// Whose pool it is: a forked child has a copy and no business with it.
    pid: u32,
}

/// Everything under the lock.
pub(crate) struct State {
    pub(crate) core: Core,
    seat: Seat,
    /// Whether whoever has the seat sleeps in epoll.
    is_asleep: bool,
    /// How often the seat was given up, and the workers were attended to without it.
    attended: u64,
    /// Who waits for the seat, besides a result.
    queue: Vec<Arc<Condvar>>,
    supervisor: Rest,
    is_over: bool,
    look: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    Free,
    /// Taken by a thread that waits for something.
    Taken,
    Supervisor,
}

/// What the supervisor does without the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Looks soon by itself.
    Brief,
    /// Looks after a while by itself: to be called if there is something to attend to.
    Long,
    /// To be called when the seat is free.
    Parked,
}

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

impl Hub {
    pub(crate) fn new(core: Core) -> io::Result<Hub> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Hub::with(core, Arc::new(epoll), Arc::new(bell)))
    }

    fn with(core: Core, epoll: Arc<Epoll>, bell: Arc<EventFd>) -> Hub {
        let state = State {
            core,
            seat: Seat::Free,
            is_asleep: false,
            attended: 0,
            queue: Vec::new(),
            supervisor: Rest::Brief,
            is_over: false,
            look: LOOK.0,
        };
        Hub { state: Mutex::new(state), call: Condvar::new(), epoll, bell, pid: std::process::id() }
    }

    /// What a forked child has in place of its parent's: nothing in there waits or is waited for. The
    /// parent's own lock may have been copied while it was held.
    pub(crate) fn stand_in(&self, mut core: Core) -> Hub {
        core.phase = Phase::Broken(PoolError::Forked);
        Hub::with(core, Arc::clone(&self.epoll), Arc::clone(&self.bell))
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn lock(&self) -> Guard<'_> {
        // A panic in here would be a bug; what it left is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After something was begun that nobody waits for: sees to it that it is attended to.
    pub(crate) fn attend(&self, mut state: Guard<'_>) {
        if state.seat == Seat::Free {
            if state.supervisor != Rest::Brief && state.core.is_busy() {
                self.call(&mut state);
            }
        } else if state.is_asleep {
            // It may have to look at the clock.
            drop(state);
            self.ring();
        }
    }

    /// After somebody has received for others, or has begun something, and will be back soon: whoever sleeps
    /// may have what it waits for, or has to look at the clock.
    pub(crate) fn stir(&self, mut state: Guard<'_>, has_received: bool) {
        // The supervisor is not needed as long as this goes on.
        state.attended += 1;
        if state.core.settings.timeout.is_some() || has_received && state.is_asleep {
            self.attend(state);
        }
    }

    fn call(&self, state: &mut State) {
        state.supervisor = Rest::Brief;
        self.call.notify_one();
    }

    fn ring(&self) {
        let _ = self.bell.write(1);
    }

    /// Waits until it is ready, attending to the workers meanwhile, or until the deadline: whether it is
    /// ready.
    pub(crate) fn wait<'a>(
        &'a self,
        mut state: Guard<'a>,
        news: &Arc<Condvar>,
        deadline: Option<Instant>,
        mut is_ready: impl FnMut(&mut Core) -> bool,
    ) -> (Guard<'a>, bool) {
        let mut was_asleep = false;
        loop {
            let is_ready_now = is_ready(&mut state.core);
            if is_ready_now || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                if was_asleep && state.seat == Seat::Free {
                    // It may have been offered the seat, and does not need it.
                    self.offer(&mut state);
                }
                return (state, is_ready_now);
            }
            if state.seat == Seat::Free {
                state.seat = Seat::Taken;
                state = self.drive(state, deadline, &mut |state| is_ready(&mut state.core));
                state = self.leave(state);
                continue;
            }
            was_asleep = true;
            state.queue.push(Arc::clone(news));
            if state.is_asleep && (state.seat == Seat::Supervisor || state.core.settings.timeout.is_some()) {
                self.ring();
            }
            state = match deadline {
                None => news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            if let Some(place) = state.queue.iter().position(|other| Arc::ptr_eq(other, news)) {
                state.queue.swap_remove(place);
            }
        }
    }

    /// Gives up the seat.
    fn leave<'a>(&self, mut state: Guard<'a>) -> Guard<'a> {
        state.seat = Seat::Free;
        state.attended += 1;
        self.offer(&mut state);
        state
    }

    /// Offers the free seat to somebody who waits for it, or else to the supervisor. Whoever is offered it
    /// and does not take it offers it again.
    fn offer(&self, state: &mut State) {
        if let Some(next) = state.queue.first() {
            next.notify_all();
        } else if state.supervisor == Rest::Parked || state.supervisor == Rest::Long && state.core.is_busy() {
            self.call(state);
        }
    }

    /// With the seat: attends to the workers until `is_enough`, or the deadline.
    fn drive<'a>(
        &'a self,
        mut state: Guard<'a>,
        deadline: Option<Instant>,
        is_enough: &mut dyn FnMut(&mut State) -> bool,
    ) -> Guard<'a> {
        loop {
            state.core.receive();
            // Before anybody is hired, which takes a while.
            if is_enough(&mut state) {
                return state;
            }
            let has_hired;
            (state, has_hired) = self.hire(state);
            state.core.release_workers();
            let next = state.core.watch();
            let seen;
            (state, seen) = if has_hired { (state, false) } else { self.look(state) };
            // Meanwhile others may have seen to it.
            if is_enough(&mut state) {
                return state;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return state;
            }
            if has_hired {
                // Others may have died meanwhile, before more are hired.
                state = self.sleep(state, Some(Duration::ZERO));
                continue;
            }
            if seen || self.arm(&mut state) {
                continue;
            }
            let until = [next, deadline].into_iter().flatten().min();
            state = self.sleep(state, until.map(|until| until.saturating_duration_since(now)));
        }
    }

    /// Looks at memory for a while: whether anything has come.
    fn look<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, bool) {
        if !state.core.workers.iter().any(|worker| !worker.jobs.is_empty()) {
            return (state, false);
        }
        let start = Instant::now();
        let mut rounds = 0u32;
        loop {
            let has_news = |worker: &Worker| !worker.is_gone && worker.line.has_news();
            if state.core.workers.iter().any(has_news) {
                state.look = (state.look * 2).min(LOOK.1);
                return (state, true);
            }
            let elapsed = start.elapsed();
            if elapsed >= state.look || !state.queue.is_empty() && state.seat == Seat::Supervisor {
                state.look = (state.look / 2).max(LOOK.0);
                return (state, false);
            }
            drop(state);
            rounds += 1;
            if rounds.is_multiple_of(16) {
                // Perhaps it is a worker that wants this CPU.
                thread::yield_now();
            } else {
                (0..16).for_each(|_| std::hint::spin_loop());
            }
            state = self.lock();
        }
    }

    /// Sees to it that what comes from now on wakes whoever sleeps. `true` if something has come already.
    fn arm(&self, state: &mut State) -> bool {
        let mut is_any = false;
        for worker in state.core.workers.iter_mut().filter(|worker| !worker.is_armed && !worker.is_gone) {
            match worker.line.prepare_wait() {
                Ok(true) => is_any = true,
                Ok(false) => worker.is_armed = true,
                Err(_) => worker.kill(),
            }
        }
        if is_any {
            // An end is no news that `receive` would see.
            for index in 0..state.core.workers.len() {
                if !state.core.workers[index].is_armed && !state.core.workers[index].is_gone {
                    state.core.receive_from(index);
                }
            }
        }
        is_any
    }

    fn sleep<'a>(&'a self, mut state: Guard<'a>, timeout: Option<Duration>) -> Guard<'a> {
        // Rounded up: a little late rather than in vain.
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(time) => {
                EpollTimeout::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); 32];
        state.is_asleep = true;
        drop(state);
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        let mut state = self.lock();
        state.is_asleep = false;
        for event in &events[..count] {
            let token = event.data();
            if token == BELL {
                let _ = self.bell.read();
                continue;
            }
            let Some(index) = state.core.workers.iter().position(|worker| worker.id == token / 2) else {
                continue;
            };
            if token % 2 == 1 {
                let worker = &state.core.workers[index];
                let _ = self.epoll.delete(worker.process.sentinel());
                let _ = self.epoll.delete(worker.line.as_fd());
                state.core.bury(index);
            } else {
                state.core.workers[index].is_armed = false;
                state.core.receive_from(index);
                if let Some(worker) = state.core.workers.get(index).filter(|worker| worker.is_gone) {
                    // Its end is readable for ever.
                    let _ = self.epoll.delete(worker.line.as_fd());
                }
            }
        }
        state
    }

    /// Starts a worker that is missing. Without the lock: it takes a while. Whether there was one.
    fn hire<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, bool) {
        let is_missing = state.core.missing() > 0;
        if is_missing {
            let id = state.core.number_worker();
            let recipe = state.core.settings.recipe.clone();
            state.core.starting += 1;
            drop(state);
            let worker = Worker::start(id, &recipe);
            state = self.lock();
            state.core.starting -= 1;
            match worker.and_then(|worker| self.watch(worker)) {
                Ok(worker) => {
                    state.core.welcome(worker);
                    if state.core.refusal().is_some() {
                        // The pool has ended meanwhile, or is about to.
                        if matches!(state.core.phase, Phase::Closed) {
                            state.core.release_workers();
                        } else {
                            state.core.workers.last_mut().expect("just pushed").kill();
                        }
                    }
                }
                Err(error) => state.core.regret(error),
            }
        }
        (state, is_missing)
    }

    /// Enters a worker into the epoll set.
    fn watch(&self, mut worker: Worker) -> Result<Worker, PoolError> {
        let line = EpollEvent::new(EpollFlags::EPOLLIN, worker.id * 2);
        let process = EpollEvent::new(EpollFlags::EPOLLIN, worker.id * 2 + 1);
        let added = self.epoll.add(worker.line.as_fd(), line);
        match added.and_then(|()| self.epoll.add(worker.process.sentinel(), process)) {
            Ok(()) => Ok(worker),
            Err(error) => {
                worker.kill();
                Err(io::Error::from(error).into())
            }
        }
    }

    /// Starts the first workers of a pool. After an error none is left.
    pub(crate) fn open(&self) -> Result<(), PoolError> {
        let (count, recipe) = {
            let state = self.lock();
            (state.core.wanted, state.core.settings.recipe.clone())
        };
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            let id = self.lock().core.number_worker();
            match Worker::start(id, &recipe).and_then(|worker| self.watch(worker)) {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    workers.iter_mut().for_each(Worker::kill);
                    for worker in workers {
                        let _ = worker.process.join();
                    }
                    return Err(error);
                }
            }
        }
        self.lock().core.workers = workers;
        Ok(())
    }

    /// The supervisor's life.
    pub(crate) fn supervise(&self) {
        let mut state = self.lock();
        loop {
            if state.seat != Seat::Free {
                state.supervisor = Rest::Parked;
                state = self.call.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Also at the end: those who are offered the seat need the lock.
            if !state.is_over || !state.queue.is_empty() {
                let is_busy = state.core.is_busy();
                state.supervisor = if is_busy { Rest::Brief } else { Rest::Long };
                let (grace, seen) = (if is_busy { GRACE } else { LONG_GRACE }, state.attended);
                let waited;
                (state, waited) =
                    self.call.wait_timeout(state, grace).unwrap_or_else(PoisonError::into_inner);
                state.supervisor = Rest::Brief;
                if !waited.timed_out() || state.attended != seen || state.seat != Seat::Free {
                    continue;
                }
            }
            let is_over = |state: &mut State| {
                state.is_over && state.core.workers.is_empty() && state.core.starting == 0
            };
            state.seat = Seat::Supervisor;
            state = self.drive(state, None, &mut |state| !state.queue.is_empty() || is_over(state));
            state = self.leave(state);
            if is_over(&mut state) {
                return;
            }
        }
    }

    /// Without a supervisor: kills the workers and waits for their end.
    pub(crate) fn close_up(&self) {
        self.lock().core.fall(Phase::Terminated);
        let workers = std::mem::take(&mut self.lock().core.workers);
        for worker in workers {
            let _ = worker.process.join();
        }
    }

    /// The pool's handle is gone: everything ends.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.core.fall(Phase::Terminated);
        drop(state);
        self.call.notify_one();
        self.ring();
    }
}
