//! Tables whose reference is ours, and in which a rival that fails has no figure.

use polyproc_benches::Table;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A table of ours and its rivals.
///
/// Words on the command line choose: a table whose title has one is run as a whole; of the others, ours and the rivals whose
/// names have one.
pub struct Rivals<'a> {
    title: &'static str,
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
        Rivals { title: title.into().leak(), ours: Vec::new(), rivals: Vec::new() }
    }

    /// Adds one of ours. The first is the reference; if it fails, so does the bench.
    #[must_use]
    pub fn ours(mut self, name: &'static str, run: impl FnMut() -> f64 + 'a) -> Rivals<'a> {
        self.ours.push((name, Box::new(run)));
        self
    }

    /// Adds a rival, or a limit. One that panics has failed: it is told, has no figure, and is not run again.
    #[must_use]
    pub fn rival(mut self, name: &'static str, mut run: impl FnMut() -> f64 + 'a) -> Rivals<'a> {
        let title = self.title;
        let mut has_failed = false;
        let run = move || {
            if has_failed {
                return f64::NAN;
            }
            catch_unwind(AssertUnwindSafe(&mut run)).unwrap_or_else(|_| {
                has_failed = true;
                FAILED.store(true, Ordering::Relaxed);
                println!("{title}: {name} FAILED");
                f64::NAN
            })
        };
        self.rivals.push((name, Box::new(run)));
        self
    }

    /// Runs it, as far as the command line wants it.
    pub fn run(mut self) {
        if !chosen(self.title) {
            self.rivals.retain(|(name, _)| chosen(name));
            if self.rivals.is_empty() {
                return;
            }
        }
        let subjects = self.ours.into_iter().chain(self.rivals);
        subjects.fold(Table::new(self.title), |table, (name, run)| table.subject(name, run)).run();
    }
}
