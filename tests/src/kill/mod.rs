//! Kills a process after every instruction of an operation, and has the survivors look at what is left.
//!
//! An [`Operation`] is a small play in several processes, each a fork of the test:
//!
//! - the **victim** does the operation. It is stepped through it with `ptrace`, and killed after step 0, step 1, and so
//!   on, each time in a new play with new shared memory, until it gets to the end before it is killed. Where it sleeps on
//!   the way, it is killed asleep as well.
//! - **peers** are there meanwhile: one holds the lock, others sleep in the queue, another takes the lock at the worst
//!   moment. They go on when they are given their *cue*; the victim stands still until they have settled. So each play
//!   with the same number runs alike.
//! - after the kill, all cues are given, and each peer has to get to its end.
//! - a **survivor**, forked last, checks the state and names it. The names must come in the order that the operation
//!   gives: once a later one was seen, an earlier one is a mistake; and all of them must be seen.
//!
//! What counts as a failure: somebody hangs; somebody panics, which is how peers and survivors complain; a wait that was
//! ended only by its backstop; a play that takes its time three times in a row; system calls where there should be none
//! any more; a name out of order; a descriptor or a region left over.
//!
//! # How much of it
//!
//! A release build kills after each step of most operations, and after every n-th of those that differ only in when a
//! peer comes. A debug build has ten times the steps and kills some hundred times an operation. With
//! `POLYPROC_KILL_FULL=1`, both kill after each step, whatever it takes.
//!
//! The way to a step is not stepped each time: the victim runs to a breakpoint there, since it is known from the first
//! play which way it goes. If it strays, it is stepped after all.

mod attempt;
mod report;

pub use attempt::Outcome;
pub use report::{Fault, Kill, Report};

use crate::shared::Cues;
use crate::system;
use crate::trace::Stage;
use attempt::{Attempt, Route};
use core::fmt;
use std::time::Duration;

/// In the short form, at most so many kills an operation.
const MOST: u32 = if cfg!(debug_assertions) { 60 } else { 2_000 };

/// A play that was slow may be so because the machine was busy: so many times in a row is its own fault.
const TRIES: u32 = 3;

type Part<S> = Box<dyn Fn(&S, &Stage)>;
type PeerPart<S> = Box<dyn Fn(&S, &Cues)>;
type Check<S> = Box<dyn Fn(&S, &Outcome<'_>) -> &'static str>;

/// When the next cue is given.
pub enum When<S> {
    /// As soon as the one before it has been, and all have settled.
    Next,
    /// When the victim falls asleep, or the next time that it does.
    Asleep,
    /// After this step of the victim.
    Step(u32),
    /// When it is so, after a step of the victim or another cue.
    So(fn(&S) -> bool),
}

impl<S> fmt::Debug for When<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Next => f.write_str("Next"),
            When::Asleep => f.write_str("Asleep"),
            When::Step(step) => write!(f, "Step({step})"),
            When::So(_) => f.write_str("So"),
        }
    }
}

/// Another process of the play.
struct Peer<S> {
    part: PeerPart<S>,
    /// It kills itself at the end of its part.
    dies: bool,
}

/// An operation, and who is there when it happens. `S` is what they share.
pub struct Operation<S> {
    name: String,
    setup: Box<dyn Fn() -> S>,
    victim: Part<S>,
    peers: Vec<Peer<S>>,
    cues: Vec<When<S>>,
    phases: Vec<&'static str>,
    check: Check<S>,
    rescues: bool,
    thin: u32,
    /// At most so many kills, if not all are asked for.
    most: u32,
    /// Beyond this, it is a hang.
    patience: Duration,
}

impl<S> Operation<S> {
    /// An operation that does nothing yet. `setup` makes what the processes share, anew for each kill.
    pub fn new(name: impl Into<String>, setup: impl Fn() -> S + 'static) -> Operation<S> {
        Operation {
            name: name.into(),
            setup: Box::new(setup),
            victim: Box::new(|_, stage| {
                stage.begin();
                stage.end();
            }),
            peers: Vec::new(),
            cues: Vec::new(),
            phases: vec!["any"],
            check: Box::new(|_, _| "any"),
            rescues: false,
            thin: 1,
            most: MOST,
            patience: Duration::from_secs(5),
        }
    }

    /// What the victim does. It is stepped through from `stage.begin()` to `stage.end()`.
    #[must_use]
    pub fn victim(mut self, part: impl Fn(&S, &Stage) + 'static) -> Operation<S> {
        self.victim = Box::new(part);
        self
    }

    /// Another process. The peers begin one after the other, when the victim is at its `begin`, and each when the one
    /// before it sleeps, waits for its cue, or has ended.
    #[must_use]
    pub fn peer(mut self, part: impl Fn(&S, &Cues) + 'static) -> Operation<S> {
        self.peers.push(Peer { part: Box::new(part), dies: false });
        self
    }

    /// A peer that is killed at the end of its part, with all that it holds then.
    #[must_use]
    pub fn doomed_peer(mut self, part: impl Fn(&S, &Cues) + 'static) -> Operation<S> {
        self.peers.push(Peer { part: Box::new(part), dies: true });
        self
    }

    /// When the next cue is given: the first call is for cue 1, the second for cue 2, and so on.
    #[must_use]
    pub fn cue(mut self, when: When<S>) -> Operation<S> {
        self.cues.push(when);
        self
    }

    /// What the survivor finds: one of these, in this order as the victim is killed later and later.
    #[must_use]
    pub fn check(
        mut self,
        phases: &[&'static str],
        check: impl Fn(&S, &Outcome<'_>) -> &'static str + 'static,
    ) -> Operation<S> {
        self.phases = phases.to_vec();
        self.check = Box::new(check);
        self
    }

    /// Puts up with waits that their backstop ended: for deaths that the protocol names as ones it leaves to it.
    #[must_use]
    pub fn allow_rescues(mut self, allowed: bool) -> Operation<S> {
        self.rescues = allowed;
        self
    }

    /// In the short form, kills only after every n-th step: for one of many operations that are much the same.
    #[must_use]
    pub fn thinly(mut self, every: u32) -> Operation<S> {
        self.thin = every;
        self
    }

    /// Kills after every step in the short form of a debug build as well.
    #[must_use]
    pub fn thoroughly(mut self) -> Operation<S> {
        self.most = u32::MAX;
        self
    }

    /// After which time without an end a process is said to hang. Five seconds, unless this says otherwise.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Operation<S> {
        self.patience = patience;
        self
    }

    /// Kills the victim after every step, and says what came of it.
    pub fn run(&self) -> Report {
        let before = (system::open_descriptors(), system::mapped_regions());
        let mut report = Report::new(&self.name, &self.phases);
        // Once to the end, step by step, to see the way.
        let (whole, route) = self.explore();
        report.found(&whole);
        let stride = if is_full() { 1 } else { self.thin.max(whole.steps.div_ceil(self.most)) };
        let first = self.first_step();
        report.begin_at(first, stride);
        for step in (first..=whole.steps).step_by(stride as usize) {
            report.found(&self.attempt(Kill::After(step), &route));
            if report.is_hopeless() {
                break;
            }
        }
        for sleep in 0..whole.sleeps {
            report.found(&self.attempt(Kill::Asleep(sleep), &route));
        }
        let after = (system::open_descriptors(), system::mapped_regions());
        if before != after {
            report.leaked(before, after);
        }
        report.close();
        report
    }

    /// Kills before the first cue are like those of the same operation with a later one.
    fn first_step(&self) -> u32 {
        match self.cues.first() {
            Some(When::Step(step)) => *step,
            _ => 0,
        }
    }

    /// One play to the end, and the way that the victim goes.
    fn explore(&self) -> (Attempt, Route) {
        let mut route = Route::unknown();
        let whole = self.until_quick(|| {
            let (attempt, seen) = attempt::play(self, Kill::AtEnd, &Route::unknown());
            route = seen;
            attempt
        });
        (whole, route)
    }

    fn attempt(&self, kill: Kill, route: &Route) -> Attempt {
        self.until_quick(|| {
            let (attempt, _) = attempt::play(self, kill, route);
            if attempt.strayed { attempt::play(self, kill, &Route::unknown()).0 } else { attempt }
        })
    }

    /// One play, and again if it was slow.
    fn until_quick(&self, mut play: impl FnMut() -> Attempt) -> Attempt {
        let mut attempt = play();
        for _ in 1..TRIES {
            if !matches!(attempt.fault, Some(Fault::Slow { .. })) {
                break;
            }
            attempt = play();
        }
        attempt
    }
}

impl<S> fmt::Debug for Operation<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("name", &self.name)
            .field("peers", &self.peers.len())
            .field("cues", &self.cues)
            .field("phases", &self.phases)
            .finish_non_exhaustive()
    }
}

/// Whether everything is asked for.
pub fn is_full() -> bool {
    std::env::var_os("POLYPROC_KILL_FULL").is_some_and(|value| value != "0")
}
