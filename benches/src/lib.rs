//! How the benches measure: ours and the others in alternating rounds of one run, the median of the rounds, and the
//! worst round's ratio beside it.
//!
//! A machine's speed changes from minute to minute, and between two CPUs it changes by factors. A time means something
//! only beside another that was taken in the same round. So a [`Table`] runs every [`Subject`] once a round, and what it
//! prints to be compared is the ratio to the first subject, taken round by round.
//!
//! Every subject checks its result itself, and panics if it is wrong, before its time is used.

use std::time::{Duration, Instant};

mod cpu;
mod processes;
mod ring;

pub use cpu::pin_to;
pub use processes::{Processes, Timed};
pub use ring::Ring;

/// Whether the benches only show that they work: `cargo bench -- --test`.
pub fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// How many rounds a table has: 11, or 1 under `--test`; `POLYPROC_ROUNDS` overrides.
pub fn rounds() -> usize {
    let wanted = std::env::var("POLYPROC_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    wanted.unwrap_or(if is_test() { 1 } else { 11 })
}

/// `full`, or a thousandth of it under `--test`, but at least one.
pub fn scaled(full: u64) -> u64 {
    if is_test() { (full / 1000).max(1) } else { full }
}

/// One thing to measure. `run` returns the time of one operation in nanoseconds.
pub struct Subject<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> f64 + 'a>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Subjects that are compared with the first of them.
#[derive(Debug)]
pub struct Table<'a> {
    title: &'static str,
    subjects: Vec<Subject<'a>>,
}

/// The median of some figures.
///
/// # Panics
///
/// If there are none.
pub fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

impl<'a> Table<'a> {
    /// A table without subjects. The first that is added is the reference.
    pub fn new(title: &'static str) -> Table<'a> {
        Table { title, subjects: Vec::new() }
    }

    /// Adds a subject; `run` returns nanoseconds an operation.
    #[must_use]
    pub fn subject(mut self, name: &'static str, run: impl FnMut() -> f64 + 'a) -> Table<'a> {
        self.subjects.push(Subject { name, run: Box::new(run) });
        self
    }

    /// Runs all rounds and prints the table.
    pub fn run(mut self) {
        let rounds = rounds();
        let mut times = vec![Vec::new(); self.subjects.len()];
        for subject in &mut self.subjects {
            (subject.run)(); // Warms up.
        }
        for round in 0..rounds {
            // Each round begins with another subject, so that none always follows the same.
            for offset in 0..self.subjects.len() {
                let index = (round + offset) % self.subjects.len();
                times[index].push((self.subjects[index].run)());
            }
        }
        println!("\n{} ({rounds} rounds)", self.title);
        println!("{:<44} {:>10} {:>10} {:>9} {:>12}", "", "least ns", "median ns", "ratio", "worst ratio");
        for (subject, own) in self.subjects.iter().zip(&times) {
            let ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(own, first)| own / first).collect();
            let worst = ratios.iter().copied().fold(0.0, f64::max);
            let least = own.iter().copied().fold(f64::INFINITY, f64::min);
            println!(
                "{:<44} {least:>10.2} {:>10.2} {:>9.3} {worst:>12.3}",
                subject.name,
                median(own),
                median(&ratios)
            );
        }
    }
}

/// The time of one of `count` repetitions of `f`, in nanoseconds.
#[inline(always)]
pub fn time_each(count: u64, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        f();
    }
    nanos(start.elapsed()) / count as f64
}

/// A duration in nanoseconds.
pub fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
