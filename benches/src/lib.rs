//! How the benches measure: ours and the others in alternating rounds of one run, the median of the rounds, and the
//! worst round's ratio beside it.
//!
//! A machine's speed changes from minute to minute, and between two CPUs it changes by factors. A time means something
//! only beside another that was taken in the same round. So a [`Table`] runs every [`Subject`] once a round, and what it
//! prints to be compared is the ratio to the first subject, taken round by round.
//!
//! Single events, such as a wake-up after a death, are timed one by one instead, and a [`Spread`] of them is printed by
//! [`spreads`]. What is printed is also kept in a file: see [`results`].
//!
//! Every subject checks its result itself, and panics if it is wrong, before its time is used.

use std::time::{Duration, Instant};

mod cpu;
mod processes;
pub mod results;
mod ring;
mod samples;

pub use cpu::{cpu_count, pin_to};
pub use processes::{Processes, Timed};
use results::{Machine, Row, Run, Share, Spread};
pub use ring::Ring;
pub use samples::Samples;

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

/// One thing to measure. `run` returns the time of one operation in nanoseconds, or NaN if it failed.
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
    area: String,
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
        Table { title, area: results::area(), subjects: Vec::new() }
    }

    /// Makes it part of another figure than the one that is named for the program.
    #[must_use]
    pub fn area(mut self, area: &str) -> Table<'a> {
        area.clone_into(&mut self.area);
        self
    }

    /// Adds a subject; `run` returns nanoseconds an operation.
    #[must_use]
    pub fn subject(mut self, name: &'static str, run: impl FnMut() -> f64 + 'a) -> Table<'a> {
        self.subjects.push(Subject { name, run: Box::new(run) });
        self
    }

    /// Runs all rounds, prints the table, and [keeps](results) it.
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
        let mut rows = Vec::new();
        for (subject, own) in self.subjects.iter().zip(&times) {
            let ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(own, first)| own / first).collect();
            let row = Row {
                who: subject.name.to_owned(),
                rounds_ns: own.clone(),
                median_ns: median(own),
                least_ns: own.iter().copied().fold(f64::INFINITY, f64::min),
                ratio: median(&ratios),
                worst_ratio: ratios.iter().copied().fold(0.0, f64::max),
            };
            println!(
                "{:<44} {:>10.2} {:>10.2} {:>9.3} {:>12.3}",
                row.who, row.least_ns, row.median_ns, row.ratio, row.worst_ratio
            );
            rows.push(row);
        }
        // Who failed, and says so by what is no number, has no figure.
        rows.retain(|row| row.ratio.is_finite() && row.rounds_ns.iter().all(|time| time.is_finite()));
        keep(self.title, self.area, |run| run.rows = rows);
    }
}

/// Prints how the times of single events are spread, in nanoseconds, and [keeps](results) it.
///
/// # Panics
///
/// If somebody has no times.
pub fn spreads(title: &str, times: &[(&str, &[f64])]) {
    println!("\n{title}");
    println!(
        "{:<44} {:>7} {:>10} {:>10} {:>10} {:>10}",
        "", "events", "p50 us", "p99 us", "p99.9 us", "max us"
    );
    let mut all = Vec::new();
    for (who, times) in times {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).ceil() as usize];
        let spread = Spread {
            who: (*who).to_owned(),
            count: times.len() as u64,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: at(1.0),
        };
        println!(
            "{who:<44} {:>7} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
            spread.count,
            spread.p50_ns / 1e3,
            spread.p99_ns / 1e3,
            spread.p999_ns / 1e3,
            spread.max_ns / 1e3
        );
        all.push(spread);
    }
    keep(title, results::area(), |run| run.spreads = all);
}

/// Prints how evenly things were shared, and [keeps](results) it.
pub fn shares(title: &str, shares: Vec<Share>) {
    println!("\n{title}");
    println!(
        "{:<44} {:>9} {:>10} {:>10} {:>16} {:>10}",
        "", "luckiest", "unluckiest", "longest ms", "in worst round", "ns a turn"
    );
    for share in &shares {
        println!(
            "{:<44} {:>9.2} {:>10.2} {:>10.2} {:>16.2} {:>10.1}",
            share.who,
            share.luckiest,
            share.unluckiest,
            share.longest_ns / 1e6,
            share.worst_longest_ns / 1e6,
            share.turn_ns
        );
    }
    keep(title, results::area(), |run| run.shares = shares);
}

/// Keeps a run, which `fill` fills.
fn keep(title: &str, area: String, fill: impl FnOnce(&mut Run)) {
    let machine = Machine::here();
    let mut run = Run {
        title: title.to_owned(),
        area,
        rows: Vec::new(),
        spreads: Vec::new(),
        shares: Vec::new(),
        machine,
    };
    fill(&mut run);
    run.keep();
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
