//! What came of killing an operation's victim everywhere.

use super::attempt::{Attempt, place as place_of};
use crate::child::Ending;
use crate::trace::Event;
use core::fmt;
use std::time::{Duration, Instant};

/// Where the victim was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// After this many steps.
    After(u32),
    /// In its sleep, the first being 0.
    Asleep(u32),
    /// At its end.
    AtEnd,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kill::After(step) => write!(f, "killed after step {step}"),
            Kill::Asleep(sleep) => write!(f, "killed in its sleep {sleep}"),
            Kill::AtEnd => f.write_str("killed at the end"),
        }
    }
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It did not come to its end.
    Hang {
        /// Which process.
        who: String,
    },
    /// It panicked, or ended in another way that it should not.
    Complaint {
        /// Which process.
        who: String,
        /// How it ended.
        ending: Ending,
        /// What it said.
        text: String,
    },
    /// It waited until its backstop ended: a wake-up was lost.
    Rescued {
        /// Which process.
        who: String,
        /// How many of its waits.
        waits: u64,
    },
    /// The peers took long to get to their ends.
    Slow {
        /// How long.
        took: Duration,
    },
    /// A lone survivor still made system calls, long after the death.
    Unhealed {
        /// How many.
        calls: u32,
        /// In so many rounds.
        rounds: u32,
    },
    /// The victim did something else than steps.
    Victim {
        /// What.
        event: Event,
        /// What it said.
        complaint: Option<String>,
    },
    /// The peers did not come to rest at their cue.
    Unsettled,
    /// The survivor found what should have been over when it had been killed earlier.
    Order {
        /// What it found.
        found: &'static str,
        /// What was found at an earlier step.
        before: &'static str,
    },
    /// Nobody ever found this.
    Missing {
        /// What.
        phase: &'static str,
    },
    /// Descriptors or mappings of regions are left.
    Leak {
        /// How many of each there were before.
        before: (usize, usize),
        /// And after.
        after: (usize, usize),
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Hang { who } => write!(f, "{who} hangs"),
            Fault::Complaint { who, ending, text } => write!(f, "{who}: {ending:?} {text}"),
            Fault::Rescued { who, waits } => {
                write!(f, "{who} lost a wake-up: {waits} of its waits ended by their backstop")
            }
            Fault::Slow { took } => write!(f, "the peers took {took:?} to get to their ends"),
            Fault::Unhealed { calls, rounds } => {
                write!(f, "{calls} system calls in {rounds} rounds of a lone survivor, long after the death")
            }
            Fault::Victim { event, complaint } => {
                write!(f, "the victim: {event:?} {}", complaint.as_deref().unwrap_or_default())
            }
            Fault::Unsettled => f.write_str("the peers did not come to rest"),
            Fault::Order { found, before } => {
                write!(f, "found `{found}`, after `{before}` at an earlier step")
            }
            Fault::Missing { phase } => write!(f, "`{phase}` was never found"),
            Fault::Leak { before, after } => {
                write!(
                    f,
                    "before: {} descriptors, {} regions; after: {}, {}",
                    before.0, before.1, after.0, after.1
                )
            }
        }
    }
}

/// So many faults are enough.
const ENOUGH: usize = 5;

/// All kills of an operation.
#[derive(Debug)]
pub struct Report {
    name: String,
    phases: Vec<&'static str>,
    /// For each phase, the first and the last step after which it was found.
    found: Vec<Option<(u32, u32)>>,
    faults: Vec<(Option<(Kill, u64)>, Fault)>,
    steps: u32,
    sleeps: u32,
    first_sleep: Option<u32>,
    kills: u32,
    /// How often the victim went another way, when it was let run.
    strayed: u32,
    first: u32,
    stride: u32,
    start: Instant,
    took: Duration,
}

impl Report {
    pub(super) fn new(name: &str, phases: &[&'static str]) -> Report {
        Report {
            name: name.to_owned(),
            phases: phases.to_vec(),
            found: vec![None; phases.len()],
            faults: Vec::new(),
            steps: 0,
            sleeps: 0,
            first_sleep: None,
            kills: 0,
            strayed: 0,
            first: 0,
            stride: 1,
            start: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// From which step on, and how many from one kill to the next.
    pub(super) fn begin_at(&mut self, first: u32, stride: u32) {
        self.first = first;
        self.stride = stride;
    }

    /// Enters one kill.
    pub(super) fn found(&mut self, attempt: &Attempt) {
        self.kills += 1;
        self.strayed += u32::from(attempt.strayed);
        self.steps = self.steps.max(attempt.steps);
        self.sleeps = self.sleeps.max(attempt.sleeps);
        self.first_sleep = self.first_sleep.or(attempt.first_sleep);
        let place = Some((attempt.kill, attempt.position));
        if let Some(fault) = &attempt.fault {
            self.faults.push((place, fault.clone()));
        }
        // In its sleep or at the end, it is at a step that comes in its turn as well.
        let (Some(phase), Kill::After(step)) = (attempt.phase, attempt.kill) else {
            if let (Some(phase), Kill::AtEnd) = (attempt.phase, attempt.kill) {
                self.found[phase].get_or_insert((attempt.steps, attempt.steps));
            }
            return;
        };
        // One that was only seen at the end is not before this.
        let later = self.found.iter().enumerate().skip(phase + 1);
        let later = later.filter_map(|(other, seen)| seen.filter(|seen| seen.0 < step).map(|_| other)).next();
        if let Some(before) = later {
            let fault = Fault::Order { found: self.phases[phase], before: self.phases[before] };
            self.faults.push((place, fault));
        }
        let seen = self.found[phase].get_or_insert((step, step));
        *seen = (seen.0.min(step), seen.1.max(step));
    }

    pub(super) fn leaked(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.faults.push((None, Fault::Leak { before, after }));
    }

    /// Whether there is no point in going on.
    pub(super) fn is_hopeless(&self) -> bool {
        self.faults.len() >= ENOUGH
    }

    pub(super) fn close(&mut self) {
        self.took = self.start.elapsed();
        // Who leaves steps out may miss a phase; who was stopped, any.
        if self.first == 0 && self.stride == 1 && !self.is_hopeless() {
            let missing = self.phases.iter().zip(&self.found).filter(|(_, found)| found.is_none());
            let missing: Vec<_> = missing.map(|(phase, _)| (None, Fault::Missing { phase })).collect();
            self.faults.extend(missing);
        }
    }

    /// The most steps that the victim made.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// How often the victim was killed.
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// How often the victim fell asleep on its way.
    pub fn sleeps(&self) -> u32 {
        self.sleeps
    }

    /// The step in which the victim fell asleep for the first time; the last step if it did not.
    pub fn first_sleep(&self) -> u32 {
        self.first_sleep.unwrap_or(self.steps)
    }

    /// What was wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().map(|(_, fault)| fault)
    }

    /// Prints it, and complains if anything was wrong.
    ///
    /// # Panics
    ///
    /// If anything was wrong.
    pub fn assert_clean(&self) {
        println!("{self}");
        assert!(self.faults.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { name, steps, kills, .. } = self;
        write!(
            f,
            "{name:<58} {steps:>5} steps, {} asleep, {kills:>5} kills, {:>5} ms",
            self.sleeps,
            self.took.as_millis()
        )?;
        if self.first > 0 || self.stride > 1 {
            write!(f, ", from {} every {}", self.first, self.stride)?;
        }
        if self.strayed > 0 {
            write!(f, ", {} strayed", self.strayed)?;
        }
        if self.phases.len() > 1 {
            f.write_str(":")?;
        }
        for (phase, found) in self.phases.iter().zip(&self.found).filter(|_| self.phases.len() > 1) {
            match found {
                Some((first, last)) => write!(f, " {phase} {first}..={last},")?,
                None => write!(f, " {phase} never,")?,
            }
        }
        for (place, fault) in &self.faults {
            match place {
                Some((kill, position)) => write!(f, "\n    {kill} at {}: {fault}", place_of(*position))?,
                None => write!(f, "\n    {fault}")?,
            }
        }
        Ok(())
    }
}
