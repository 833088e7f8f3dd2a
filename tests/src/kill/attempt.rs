//! One play: set up, step, kill, look.

use super::report::{Fault, Kill};
use super::{Operation, When};
use crate::child::{Child, Ending, die};
use crate::shared::{Cues, Shared};
use crate::trace::{Event, Pinned, Stage, Tracee};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::BACKSTOP;
use std::time::{Duration, Instant};

/// Beyond this, a play was slow: far less than the backstop of a wait, far more than a wake takes.
const SLOW: Duration = Duration::from_millis(150);
/// After a death, it may take so many rounds of the lone survivor until it costs no system calls any more.
const HEALING: u32 = 64;
/// So many rounds without a system call show that it has healed.
const QUIET: u32 = 8;

/// What a survivor knows of the play.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The victim's process id.
    pub victim: u32,
    /// Whether it had come to its end, and was killed there.
    pub ended: bool,
    /// Whether it was killed asleep.
    pub asleep: bool,
    stage: &'a Stage,
}

impl Outcome<'_> {
    /// Checks that `round`, which this process can do without waiting, makes no system calls, once it has been done some
    /// 64 times. Once a check.
    pub fn heals(&self, round: impl Fn()) {
        for _ in 0..HEALING {
            round();
        }
        self.stage.begin();
        for _ in 0..QUIET {
            round();
        }
        self.stage.end();
    }
}

/// What came of one play.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) kill: Kill,
    /// How many steps the victim made.
    pub(crate) steps: u32,
    /// How often it fell asleep on the way.
    pub(crate) sleeps: u32,
    /// In which step that was for the first time.
    pub(crate) first_sleep: Option<u32>,
    /// Whether it got to its end.
    pub(crate) ended: bool,
    /// Where it was.
    pub(crate) position: u64,
    /// Whether it went another way than was known.
    pub(crate) strayed: bool,
    /// What the survivor found, by its number.
    pub(crate) phase: Option<usize>,
    pub(crate) fault: Option<Fault>,
}

/// The way that a victim goes.
#[derive(Debug)]
pub(crate) struct Route {
    /// Where it is after each step.
    positions: Vec<u64>,
    /// The steps that it is to be stopped after: before it sleeps, and when a cue is given.
    halts: Vec<u32>,
}

/// So close to where it is to be, it is stepped.
const CLOSE: u32 = 4;

impl Route {
    /// A way that has to be found step by step.
    pub(crate) fn unknown() -> Route {
        Route { positions: Vec::new(), halts: Vec::new() }
    }

    fn halt(&mut self, step: u32) {
        if self.halts.last() != Some(&step) {
            self.halts.push(step);
        }
    }

    /// The step that the victim can run to at once: after `step`, on its way to `kill`.
    fn next(&self, step: u32, kill: Kill) -> Option<u32> {
        let last = (self.positions.len() as u32).checked_sub(CLOSE)?;
        let halt = self.halts.iter().copied().find(|halt| *halt > step).unwrap_or(last);
        let goal = if let Kill::After(goal) = kill { goal } else { last };
        Some(halt.min(goal).min(last)).filter(|next| *next > step + CLOSE)
    }

    /// The place after step `to`, and how often it is passed on the way there from step `from`.
    fn leg(&self, from: u32, to: u32) -> (u64, u32) {
        let place = self.positions[to as usize];
        let way = &self.positions[from as usize + 1..=to as usize];
        (place, way.iter().filter(|position| **position == place).count() as u32)
    }
}

/// Gives the peers their cues.
struct Director<'a, S> {
    operation: &'a Operation<S>,
    shared: &'a S,
    cues: &'a Cues,
    peers: &'a [Child],
    /// How many sleeps of the victim have not been a cue yet.
    sleeps: u32,
}

impl<S> Director<'_, S> {
    /// Gives all cues whose time has come. Whether everybody has settled since.
    fn look(&mut self, step: u32, seen: &mut Route) -> bool {
        loop {
            let given = self.cues.given();
            let now = match self.operation.cues.get(given as usize) {
                None => false,
                Some(When::Next) => true,
                Some(When::Asleep) => self.sleeps > 0,
                Some(When::Step(at)) => step >= *at,
                Some(When::So(is_so)) => is_so(self.shared),
            };
            if !now {
                return true;
            }
            if matches!(self.operation.cues[given as usize], When::Asleep) {
                self.sleeps = 0;
            }
            seen.halt(step);
            self.cues.give(given + 1);
            if !self.peers.iter().all(|peer| peer.settle(self.operation.patience)) {
                return false;
            }
        }
    }
}

/// Plays it once. What came of it, and the way that the victim went, if it was stepped.
pub(crate) fn play<S>(operation: &Operation<S>, kill: Kill, route: &Route) -> (Attempt, Route) {
    let shared = (operation.setup)();
    let cues = Shared::<Cues>::new();
    let mut victim = Tracee::fork(|stage| (operation.victim)(&shared, stage));
    let mut seen = Route::unknown();
    let mut attempt = Attempt {
        kill,
        steps: 0,
        sleeps: 0,
        first_sleep: None,
        ended: false,
        position: 0,
        strayed: false,
        phase: None,
        fault: None,
    };
    if let Err(event) = victim.go(operation.patience) {
        attempt.fault = Some(Fault::Victim { event, complaint: victim.child().complaint() });
        return (attempt, seen);
    }
    let mut peers = Vec::new();
    for peer in &operation.peers {
        let child = Child::fork(|| {
            (peer.part)(&shared, &cues);
            if peer.dies {
                die();
            }
        });
        if !child.settle(operation.patience) {
            attempt.fault = Some(Fault::Unsettled);
        }
        peers.push(child);
    }
    let director = Director { operation, shared: &shared, cues: &cues, peers: &peers, sleeps: 0 };
    if attempt.fault.is_none() {
        let _pinned = Pinned::with(&victim);
        attempt.fault = step_through(&mut victim, director, &mut attempt, route, &mut seen);
    }
    if attempt.strayed {
        return (attempt, seen);
    }
    let outcome = (victim.child().pid(), attempt.ended, matches!(kill, Kill::Asleep(_)));
    victim.kill();
    cues.give_all();
    let start = Instant::now();
    if attempt.fault.is_none() {
        attempt.fault =
            operation.peers.iter().zip(&mut peers).enumerate().find_map(|(number, (peer, child))| {
                let who = format!("peer {}", number + 1);
                verdict(child, &who, peer.dies, operation)
            });
    }
    let took = start.elapsed();
    if attempt.fault.is_none() {
        attempt.fault = survive(operation, &shared, outcome, &mut attempt.phase);
    }
    if attempt.fault.is_none() && took > SLOW {
        attempt.fault = Some(Fault::Slow { took });
    }
    (attempt, seen)
}

/// Brings the victim to where it is to be killed.
fn step_through<S>(
    victim: &mut Tracee,
    mut director: Director<'_, S>,
    attempt: &mut Attempt,
    route: &Route,
    seen: &mut Route,
) -> Option<Fault> {
    loop {
        if !director.look(attempt.steps, seen) {
            return Some(Fault::Unsettled);
        }
        if attempt.kill == Kill::After(attempt.steps) {
            attempt.position = victim.position();
            return None;
        }
        if let Some(next) = route.next(attempt.steps, attempt.kill) {
            let (place, times) = route.leg(attempt.steps, next);
            if victim.run_to(place, times) != Event::Stepped {
                attempt.strayed = true;
                return None;
            }
            attempt.steps = next;
            continue;
        }
        seen.positions.push(victim.position());
        let mut event = victim.step();
        if event == Event::Asleep {
            if attempt.kill == Kill::Asleep(attempt.sleeps) {
                return None;
            }
            attempt.sleeps += 1;
            attempt.first_sleep.get_or_insert(attempt.steps);
            director.sleeps += 1;
            seen.halt(attempt.steps);
            if !director.look(attempt.steps, seen) {
                return Some(Fault::Unsettled);
            }
            let start = Instant::now();
            event = victim.awake(director.operation.patience).unwrap_or(Event::Asleep);
            if start.elapsed() >= BACKSTOP - Duration::from_millis(10) {
                return Some(Fault::Rescued { who: "the victim".to_owned(), waits: 1 });
            }
        }
        match event {
            Event::Stepped => attempt.steps += 1,
            Event::Marked => {
                attempt.ended = true;
                return None;
            }
            event => return Some(Fault::Victim { event, complaint: victim.child().complaint() }),
        }
    }
}

/// Waits for a peer's end and judges it.
fn verdict<S>(child: &mut Child, who: &str, dies: bool, operation: &Operation<S>) -> Option<Fault> {
    let who = who.to_owned();
    match child.wait(operation.patience) {
        None => Some(Fault::Hang { who }),
        Some(Ending::Killed(libc::SIGKILL)) if dies => None,
        Some(Ending::Exited(0)) if operation.rescues || child.rescues() == 0 => None,
        Some(Ending::Exited(0)) => Some(Fault::Rescued { who, waits: child.rescues() }),
        Some(ending) => Some(Fault::Complaint { who, ending, text: child.complaint().unwrap_or_default() }),
    }
}

/// Has a survivor look, and notes what it found.
fn survive<S>(
    operation: &Operation<S>,
    shared: &S,
    (victim, ended, asleep): (u32, bool, bool),
    phase: &mut Option<usize>,
) -> Option<Fault> {
    let found = Shared::<AtomicU32>::new();
    let mut survivor = Tracee::fork(|stage| {
        let name = (operation.check)(shared, &Outcome { victim, ended, asleep, stage });
        let number = operation.phases.iter().position(|phase| *phase == name);
        let number = number.unwrap_or_else(|| panic!("the check returned `{name}`, which is no phase"));
        found.store(number as u32, Ordering::Relaxed);
    });
    let who = || "the survivor".to_owned();
    // To the beginning of what is counted, through it, and to the end; or straight to the end.
    let mut event = survivor.go(operation.patience);
    if event == Ok(()) {
        match survivor.count_system_calls(operation.patience) {
            Ok(0) => event = survivor.finish(operation.patience).map_or(Err(Event::Asleep), Err),
            Ok(calls) => return Some(Fault::Unhealed { calls, rounds: QUIET }),
            Err(other) => event = Err(other),
        }
    }
    match event {
        Err(Event::Ended(Ending::Exited(0))) => {
            if survivor.child().rescues() != 0 && !operation.rescues {
                return Some(Fault::Rescued { who: who(), waits: survivor.child().rescues() });
            }
            *phase = Some(found.load(Ordering::Relaxed) as usize);
            None
        }
        Err(Event::Ended(ending)) => Some(Fault::Complaint {
            who: who(),
            ending,
            text: survivor.child().complaint().unwrap_or_default(),
        }),
        _ => Some(Fault::Hang { who: who() }),
    }
}

/// An address as the file that is mapped there and the offset in its image: what tools that name the line of an
/// instruction want.
pub(crate) fn place(address: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut image = ("", 0);
    for line in maps.lines() {
        let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) else {
            continue;
        };
        let (Some(start), Some(end)) = (number(start), number(end)) else { continue };
        let name = line.rsplit([' ', '/']).next().unwrap_or_default();
        if name != image.0 {
            image = (name, start);
        }
        if (start..end).contains(&address) {
            return format!("{name} + {:#x}", address - image.1);
        }
    }
    format!("{address:#x}")
}
