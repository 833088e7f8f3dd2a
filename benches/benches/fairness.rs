//! Processes that want one lock again and again for some time: what the luckiest and the unluckiest of them get, beside a
//! fair part, and how long anybody waits at the most. Beside them threads with `parking_lot` and with `std`.
//!
//! Nobody is pinned: there are more than CPUs, and who does not run does not get the lock. A process that the scheduler puts
//! aside waits for a few milliseconds without the lock's doing, more so with 16 on two CPUs.

use polyproc::Mutex;
use polyproc_benches::results::Share;
use polyproc_benches::{Processes, is_test, median, rounds, shares};
use std::time::{Duration, Instant};

/// What one party has seen: how often it got the lock, and its longest wait in nanoseconds.
type Seen = (u64, u64);

/// Takes the lock again and again until the time is over.
fn want(period: Duration, mut turn: impl FnMut()) -> Seen {
    let start = Instant::now();
    let (mut count, mut longest) = (0, 0);
    let mut before = start;
    while before - start < period {
        turn();
        let after = Instant::now();
        longest = longest.max((after - before).as_nanos() as u64);
        count += 1;
        before = after;
    }
    (count, longest)
}

/// Two numbers in one: the second is below 2^36, a minute of nanoseconds.
const BITS: u32 = 36;

fn processes(count: usize, period: Duration) -> Vec<Seen> {
    let counter = Mutex::new(0u64).expect("a mutex");
    let timed = Processes::fork(count, |_| {
        let (count, longest) = want(period, || *counter.lock().unwrap() += 1);
        (count << BITS) | longest.min((1 << BITS) - 1)
    })
    .run();
    let seen: Vec<Seen> =
        timed.figures.iter().map(|figure| (figure >> BITS, figure & ((1 << BITS) - 1))).collect();
    assert_eq!(*counter.lock().unwrap(), seen.iter().map(|(count, _)| count).sum::<u64>());
    seen
}

fn threads(count: usize, period: Duration, turn: impl Fn() + Sync) -> Vec<Seen> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| want(period, &turn))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    })
}

/// What the rounds of one subject come to.
fn share(who: &str, period: Duration, rounds: &[Vec<Seen>]) -> Share {
    let of = |f: &dyn Fn(&Vec<Seen>) -> f64| rounds.iter().map(f).collect::<Vec<f64>>();
    let total = |seen: &Vec<Seen>| seen.iter().map(|(count, _)| *count as f64).sum::<f64>();
    let part = |seen: &Vec<Seen>, count: u64| count as f64 * seen.len() as f64 / total(seen);
    let longest = of(&|seen| seen.iter().map(|(_, longest)| *longest as f64).fold(0.0, f64::max));
    Share {
        who: who.to_owned(),
        luckiest: median(&of(&|seen| part(seen, seen.iter().map(|(count, _)| *count).max().unwrap()))),
        unluckiest: median(&of(&|seen| part(seen, seen.iter().map(|(count, _)| *count).min().unwrap()))),
        longest_ns: median(&longest),
        worst_longest_ns: longest.iter().copied().fold(0.0, f64::max),
        turn_ns: median(&of(&|seen| period.as_nanos() as f64 / total(seen))),
    }
}

fn main() {
    let period = Duration::from_millis(if is_test() { 3 } else { 200 });
    for count in [2, 4, 8, 16] {
        let std = std::sync::Mutex::new(0u64);
        let parking_lot = parking_lot::Mutex::new(0u64);
        let mut seen = [const { Vec::new() }; 3];
        for _ in 0..rounds() {
            seen[0].push(threads(count, period, || *parking_lot.lock() += 1));
            seen[1].push(processes(count, period));
            seen[2].push(threads(count, period, || *std.lock().unwrap() += 1));
        }
        let names = ["parking_lot::Mutex, threads", "polyproc Mutex, processes", "std::sync::Mutex, threads"];
        let all = names.iter().zip(&seen).map(|(name, rounds)| share(name, period, rounds));
        shares(&format!("{count} want one lock for {} ms", period.as_millis()), all.collect());
    }
}
