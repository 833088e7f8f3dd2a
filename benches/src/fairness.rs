//! Who wants one thing again and again for some time: what the luckiest and the unluckiest get, and how long anybody waits at
//! the most.

use crate::results::Share;
use crate::{Processes, median, pinned, rounds, shares};
use std::time::{Duration, Instant};

/// What one party has seen: how often it got what it wants, and its longest wait in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How often.
    pub turns: u64,
    /// The longest time between two turns.
    pub longest: u64,
}

/// Takes turns until the time is over.
pub fn want(period: Duration, mut turn: impl FnMut()) -> Seen {
    let start = Instant::now();
    let mut seen = Seen { turns: 0, longest: 0 };
    let mut before = start;
    while before - start < period {
        turn();
        let after = Instant::now();
        seen.longest = seen.longest.max((after - before).as_nanos() as u64);
        seen.turns += 1;
        before = after;
    }
    seen
}

/// Two numbers in one: the second is below 2^36, a minute of nanoseconds.
const BITS: u32 = 36;
const LOW: u64 = (1 << BITS) - 1;

/// What so many processes see.
pub fn by_processes(count: usize, period: Duration, turn: impl Fn()) -> Vec<Seen> {
    let timed = Processes::fork(count, |_| {
        let seen = want(period, &turn);
        (seen.turns << BITS) | seen.longest.min(LOW)
    })
    .run();
    timed.figures.iter().map(|figure| Seen { turns: figure >> BITS, longest: figure & LOW }).collect()
}

/// What so many threads see.
///
/// # Panics
///
/// If one does.
pub fn by_threads(count: usize, period: Duration, turn: impl Fn() + Sync) -> Vec<Seen> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| want(period, &turn))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    })
}

/// How many turns there were, of everybody.
pub fn total(seen: &[Seen]) -> u64 {
    seen.iter().map(|one| one.turns).sum()
}

/// Somebody who is measured: `None` when it has failed.
type Subject<'a> = (&'static str, Box<dyn FnMut() -> Option<Vec<Seen>> + 'a>);

/// A table of those who share.
pub struct Contest<'a> {
    title: String,
    period: Duration,
    subjects: Vec<Subject<'a>>,
}

impl std::fmt::Debug for Contest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)
    }
}

impl<'a> Contest<'a> {
    /// A table without subjects, in which each run takes `period`.
    pub fn new(title: impl Into<String>, period: Duration) -> Contest<'a> {
        Contest { title: title.into(), period, subjects: Vec::new() }
    }

    /// Adds a subject; `run` returns what each of its parties saw, or nothing if it failed.
    #[must_use]
    pub fn subject(mut self, name: &'static str, run: impl FnMut() -> Option<Vec<Seen>> + 'a) -> Contest<'a> {
        self.subjects.push((name, Box::new(run)));
        self
    }

    /// Runs all rounds, after one that warms up, prints the table, and keeps it.
    pub fn run(mut self) {
        let mut seen = vec![Vec::new(); self.subjects.len()];
        let mut places = vec![String::new(); self.subjects.len()];
        for round in 0..=rounds() {
            for offset in 0..self.subjects.len() {
                let index = (round + offset) % self.subjects.len();
                let (parties, place) = pinned(&mut self.subjects[index].1);
                places[index] = place;
                if round > 0 {
                    seen[index].push(parties);
                }
            }
        }
        let all = self.subjects.iter().zip(seen).zip(places).filter_map(|(((who, _), rounds), place)| {
            // Who has failed has no figure.
            let rounds: Vec<Vec<Seen>> = rounds.into_iter().collect::<Option<_>>()?;
            Some(share(who, self.period, &rounds, place))
        });
        shares(&self.title, all.collect());
    }
}

/// What the rounds of one subject come to.
fn share(who: &str, period: Duration, rounds: &[Vec<Seen>], pinned: String) -> Share {
    let of = |f: &dyn Fn(&[Seen]) -> f64| rounds.iter().map(|seen| f(seen)).collect::<Vec<f64>>();
    let part = |seen: &[Seen], turns: u64| turns as f64 * seen.len() as f64 / total(seen).max(1) as f64;
    let longest_rounds_ns = of(&|seen| seen.iter().map(|one| one.longest as f64).fold(0.0, f64::max));
    Share {
        who: who.to_owned(),
        luckiest: median(&of(&|seen| part(seen, seen.iter().map(|one| one.turns).max().unwrap_or(0)))),
        unluckiest: median(&of(&|seen| part(seen, seen.iter().map(|one| one.turns).min().unwrap_or(0)))),
        longest_ns: median(&longest_rounds_ns),
        worst_longest_ns: longest_rounds_ns.iter().copied().fold(0.0, f64::max),
        turn_ns: median(&of(&|seen| period.as_nanos() as f64 / total(seen).max(1) as f64)),
        longest_rounds_ns,
        pinned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_a_fair_one() {
        let seen = |turns, longest| Seen { turns, longest };
        let rounds = vec![vec![seen(300, 5), seen(100, 9)]; 3];
        let share = share("a lock", Duration::from_nanos(4000), &rounds, String::new());
        assert_eq!(
            (share.luckiest, share.unluckiest, share.longest_ns, share.turn_ns),
            (1.5, 0.5, 9.0, 10.0)
        );
    }

    #[test]
    fn turns_are_counted() {
        let period = Duration::from_millis(5);
        for seen in [by_processes(2, period, || ()), by_threads(2, period, || ())] {
            assert_eq!(seen.len(), 2);
            assert!(seen.iter().all(|one| one.turns > 1 && one.longest > 0), "{seen:?}");
        }
    }
}
