//! Tables whose reference is ours, and in which a rival that fails has no figure.

use crate::each;
use polyproc_benches::fairness::{Contest, Seen};
use polyproc_benches::results::note_versions;
use polyproc_benches::{Events, Table, rounds, spreads};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A table of ours and its rivals.
///
/// Words on the command line choose: a table whose title has one is run as a whole; of the others, ours and the rivals whose
/// names have one.
pub struct Rivals<'a> {
    title: &'static str,
    series: Option<(&'static str, &'static str, u64)>,
    ours: Vec<Subject<'a>>,
    rivals: Vec<Subject<'a>>,
}

type Subject<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>);

/// Whether anybody failed.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Says that somebody is skipped, and why: once.
pub fn skip(who: &'static str, why: &str) {
    static TOLD: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if TOLD.lock().unwrap().insert(who) {
        println!("{who}: {why}: skipped");
    }
}

/// Whether the command line has no words, or one that this text has.
pub fn chosen(text: &str) -> bool {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    words.is_empty() || words.iter().any(|word| text.contains(word.as_str()))
}

/// Ends the program, as failed if anybody did.
pub fn finish() -> ! {
    // Relaxed: of this thread.
    std::process::exit(if FAILED.load(Ordering::Relaxed) { 1 } else { 0 })
}

impl<'a> Rivals<'a> {
    /// A table without subjects.
    pub fn new(title: impl Into<String>) -> Rivals<'a> {
        Rivals { title: title.into().leak(), series: None, ours: Vec::new(), rivals: Vec::new() }
    }

    /// Adds one of ours. The first is the reference; if it fails, so does the bench.
    #[must_use]
    pub fn ours(mut self, name: &'static str, run: impl FnMut() -> f64 + 'a) -> Rivals<'a> {
        self.ours.push((name, Box::new(run)));
        self
    }

    /// Makes it one of several tables that differ by a number: see [`Table::series`].
    #[must_use]
    pub fn series(mut self, name: &'static str, axis: &'static str, at: u64) -> Rivals<'a> {
        self.series = Some((name, axis, at));
        self
    }

    /// Adds a rival, or a limit. One that panics has failed: it is told, has no figure, and is not run again.
    #[must_use]
    pub fn rival(mut self, name: &'static str, run: impl FnMut() -> f64 + 'a) -> Rivals<'a> {
        let mut run = unless_failed(self.title, name, run);
        self.rivals.push((name, Box::new(move || run().unwrap_or(f64::NAN))));
        self
    }

    /// Runs it, as far as the command line wants it.
    pub fn run(mut self) {
        self.run_wanted();
    }

    /// Runs it, and then everybody once more for how single events are spread.
    pub fn run_and_each(mut self) {
        if !self.run_wanted() {
            return;
        }
        let mut events = Vec::new();
        for (name, run) in self.ours.iter_mut().chain(&mut self.rivals) {
            let mut all = Events::default();
            for _ in 0..rounds() {
                all.add(each::of(|| _ = run()));
            }
            // Who has failed has none.
            if !all.nanos().is_empty() {
                events.push((*name, all));
            }
        }
        if !events.is_empty() {
            spreads(&format!("each {}", self.title), "a tenth as many", &events);
        }
    }

    /// Whether it was wanted.
    fn run_wanted(&mut self) -> bool {
        if !chosen(self.title) {
            self.rivals.retain(|(name, _)| chosen(name));
            if self.rivals.is_empty() {
                return false;
            }
        }
        note_versions(env!("POLYPROC_RIVALS"));
        let mut table = Table::new(self.title);
        if let Some((name, axis, at)) = self.series {
            table = table.series(name, axis, at);
        }
        let subjects = self.ours.iter_mut().chain(&mut self.rivals);
        subjects.fold(table, |table, (name, run)| table.subject(name, run)).run();
        true
    }
}

/// Runs something as long as it does not panic: then it has failed, which is told, and is not run again.
fn unless_failed<T>(title: &str, name: &str, mut run: impl FnMut() -> T) -> impl FnMut() -> Option<T> {
    let mut has_failed = false;
    move || {
        if has_failed {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(&mut run));
        if result.is_err() {
            has_failed = true;
            FAILED.store(true, Ordering::Relaxed);
            println!("{title}: {name} FAILED");
        }
        result.ok()
    }
}

/// A table of who gets how much, chosen as a [`Rivals`] is.
pub struct Fairness<'a> {
    title: &'static str,
    period: Duration,
    subjects: Vec<Sharing<'a>>,
}

type Sharing<'a> = (&'static str, Box<dyn FnMut() -> Option<Vec<Seen>> + 'a>);

impl<'a> Fairness<'a> {
    /// A table without subjects, in which each run takes `period`.
    pub fn new(title: impl Into<String>, period: Duration) -> Fairness<'a> {
        Fairness { title: title.into().leak(), period, subjects: Vec::new() }
    }

    /// Adds one of ours; if it fails, so does the bench.
    #[must_use]
    pub fn ours(mut self, name: &'static str, mut run: impl FnMut() -> Vec<Seen> + 'a) -> Fairness<'a> {
        self.subjects.push((name, Box::new(move || Some(run()))));
        self
    }

    /// Adds a rival.
    #[must_use]
    pub fn rival(mut self, name: &'static str, run: impl FnMut() -> Vec<Seen> + 'a) -> Fairness<'a> {
        self.subjects.push((name, Box::new(unless_failed(self.title, name, run))));
        self
    }

    /// Runs it, as far as the command line wants it.
    pub fn run(mut self) {
        if !chosen(self.title) {
            let ours = |name: &str| name.starts_with("polyproc");
            self.subjects.retain(|(name, _)| ours(name) || chosen(name));
            if self.subjects.iter().all(|(name, _)| ours(name)) {
                return;
            }
        }
        note_versions(env!("POLYPROC_RIVALS"));
        let contest = Contest::new(self.title, self.period);
        self.subjects.into_iter().fold(contest, |contest, (name, run)| contest.subject(name, run)).run();
    }
}
