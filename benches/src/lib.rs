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
pub mod fairness;
mod pipe;
mod processes;
pub mod results;
mod ring;
mod samples;
mod section;

pub use cpu::{cpu_count, note_pin, pin_to, pinned, pinned_to};
pub use pipe::NumberPipe;
pub use processes::{Processes, Timed};
use results::{How, Machine, Row, Run, Series, Share, Spread};
pub use ring::Ring;
pub use samples::Samples;
pub use section::{turns, work};

/// Whether the benches only show that they work: `cargo bench -- --test`.
pub fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Whether the benches are shortened: `POLYPROC_QUICK` is set. `benches/measure --quick` sets it.
pub fn is_quick() -> bool {
    std::env::var_os("POLYPROC_QUICK").is_some()
}

/// How many rounds a table has: 11; 5 in quick runs, 1 under `--test`; `POLYPROC_ROUNDS` overrides.
pub fn rounds() -> usize {
    let wanted = std::env::var("POLYPROC_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    wanted.unwrap_or(match (is_test(), is_quick()) {
        (true, _) => 1,
        (false, true) => 5,
        (false, false) => 11,
    })
}

/// `full`; a third of it in quick runs, a thousandth under `--test`, but at least one.
pub fn scaled(full: u64) -> u64 {
    let part = match (is_test(), is_quick()) {
        (true, _) => 1000,
        (false, true) => 3,
        (false, false) => 1,
    };
    (full / part).max(1)
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
    series: Option<Series>,
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
        Table { title, area: results::area(), series: None, subjects: Vec::new() }
    }

    /// Makes it one of several tables that differ by a number, of which a curve is drawn: what all of them measure, what the
    /// number counts, and the number.
    #[must_use]
    pub fn series(mut self, name: &str, axis: &str, at: u64) -> Table<'a> {
        self.series = Some(Series { name: name.to_owned(), axis: axis.to_owned(), at });
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
        let mut places = Vec::new();
        for subject in &mut self.subjects {
            places.push(pinned(&mut subject.run).1); // Warms up.
        }
        for round in 0..rounds {
            // Each round begins with another subject, so that none always follows the same.
            for offset in 0..self.subjects.len() {
                let index = (round + offset) % self.subjects.len();
                times[index].push((self.subjects[index].run)());
            }
        }
        head();
        println!("\n{} ({rounds} rounds, after a run of each)", self.title);
        println!(
            "{:<44} {:>10} {:>10} {:>10} {:>9} {:>12}  where",
            "", "least ns", "median ns", "most ns", "ratio", "worst ratio"
        );
        let mut rows = Vec::new();
        for ((subject, own), pinned) in self.subjects.iter().zip(&times).zip(places) {
            let ratios: Vec<f64> = own.iter().zip(&times[0]).map(|(own, first)| own / first).collect();
            let row = Row {
                who: subject.name.to_owned(),
                rounds_ns: own.clone(),
                median_ns: median(own),
                least_ns: own.iter().copied().fold(f64::INFINITY, f64::min),
                ratio: median(&ratios),
                worst_ratio: ratios.iter().copied().fold(0.0, f64::max),
                pinned,
            };
            let most_ns = own.iter().copied().fold(0.0, f64::max);
            println!(
                "{:<44} {:>10.2} {:>10.2} {most_ns:>10.2} {:>9.3} {:>12.3}  {}",
                row.who, row.least_ns, row.median_ns, row.ratio, row.worst_ratio, row.pinned
            );
            rows.push(row);
        }
        // Who failed, and says so by what is no number, has no figure.
        rows.retain(|row| row.ratio.is_finite() && row.rounds_ns.iter().all(|time| time.is_finite()));
        keep(self.title, self.area, "a run of each", |run| {
            run.rows = rows;
            run.series = self.series;
        });
    }
}

/// The times of many single events, and where they took place.
#[derive(Clone, Debug, Default)]
pub struct Events {
    nanos: Vec<f64>,
    pinned: String,
}

impl Events {
    /// Runs something that returns the nanoseconds of each.
    pub fn of(run: impl FnOnce() -> Vec<f64>) -> Events {
        let (nanos, pinned) = pinned(run);
        Events { nanos, pinned }
    }

    /// Adds what another run of the same took.
    pub fn add(&mut self, other: Events) {
        self.nanos.extend(other.nanos);
        self.pinned = other.pinned;
    }

    /// The times.
    pub fn nanos(&self) -> &[f64] {
        &self.nanos
    }
}

/// Prints how the times of single events are spread, in nanoseconds, and [keeps](results) it. `warm_up` says what went before
/// them.
///
/// # Panics
///
/// If somebody has no times.
pub fn spreads(title: &str, warm_up: &str, events: &[(&str, Events)]) {
    head();
    println!("\n{title} (after {warm_up})");
    println!(
        "{:<44} {:>7} {:>10} {:>10} {:>10} {:>10}  where",
        "", "events", "p50 us", "p99 us", "p99.9 us", "max us"
    );
    let mut all = Vec::new();
    for (who, Events { nanos, pinned }) in events {
        let mut times = nanos.clone();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).ceil() as usize];
        let spread = Spread {
            who: (*who).to_owned(),
            count: times.len() as u64,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: at(1.0),
            pinned: pinned.clone(),
        };
        println!(
            "{who:<44} {:>7} {:>10.2} {:>10.2} {:>10.2} {:>10.2}  {pinned}",
            spread.count,
            spread.p50_ns / 1e3,
            spread.p99_ns / 1e3,
            spread.p999_ns / 1e3,
            spread.max_ns / 1e3
        );
        all.push(spread);
    }
    keep(title, results::area(), warm_up, |run| run.spreads = all);
}

/// Prints how evenly things were shared, and [keeps](results) it.
fn shares(title: &str, shares: Vec<Share>) {
    head();
    println!("\n{title} ({} rounds, after one)", rounds());
    println!(
        "{:<44} {:>9} {:>10} {:>10} {:>16} {:>10}  where",
        "", "luckiest", "unluckiest", "longest ms", "in worst round", "ns a turn"
    );
    for share in &shares {
        println!(
            "{:<44} {:>9.2} {:>10.2} {:>10.2} {:>16.2} {:>10.1}  {}",
            share.who,
            share.luckiest,
            share.unluckiest,
            share.longest_ns / 1e6,
            share.worst_longest_ns / 1e6,
            share.turn_ns,
            share.pinned
        );
    }
    keep(title, results::area(), "a round", |run| run.shares = shares);
}

/// Says once where and of what the program measures.
fn head() {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| {
        println!("\n{}", Machine::here());
        let versions = results::versions().into_iter().map(|(name, version)| format!("{name} {version}"));
        println!("{}", versions.collect::<Vec<_>>().join(", "));
    });
}

/// Keeps a run, which `fill` fills.
fn keep(title: &str, area: String, warm_up: &str, fill: impl FnOnce(&mut Run)) {
    let mut run = Run {
        title: title.to_owned(),
        area,
        rows: Vec::new(),
        spreads: Vec::new(),
        shares: Vec::new(),
        how: How { rounds: rounds(), warm_up: warm_up.to_owned(), is_quick: is_quick() },
        series: None,
        versions: results::versions(),
        machine: Machine::here(),
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
