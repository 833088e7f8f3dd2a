//! Barriers: rounds of 2, 4 and 8 processes, beside as many threads at `std::sync::Barrier`; how long a barrier takes to
//! make, and how soon a death is told.

use polyproc_barrier::{Arena, Barrier, BrokenCause};
use polyproc_benches::{Processes, Table, is_test, median, nanos, pin_to, scaled, time_each};
use polyproc_sys::futex::backstop_rescues;
use std::time::{Duration, Instant};

/// Where the parties run: on the CPUs by turns, or wherever the system puts them.
#[derive(Clone, Copy)]
enum Where {
    Pinned,
    Anywhere,
}

impl Where {
    fn place(self, index: usize) {
        match self {
            Where::Pinned => pin_to(index),
            Where::Anywhere => {}
        }
    }
}

/// A round of so many processes at our barrier.
fn processes(parties: usize, place: Where, rounds: u64) -> f64 {
    let barrier = Barrier::new(parties).expect("a barrier");
    let timed = Processes::fork(parties, |index| {
        place.place(index);
        let mut leads = 0;
        for _ in 0..rounds {
            leads += u64::from(barrier.wait().expect("nobody dies").leader);
        }
        assert_eq!(backstop_rescues(), 0);
        leads
    })
    .run();
    assert_eq!(timed.figures.iter().sum::<u64>(), rounds, "one leads a round");
    nanos(timed.total) / rounds as f64
}

/// A round of so many threads at the barrier of `std`.
fn threads(parties: usize, place: Where, rounds: u64) -> f64 {
    let barrier = std::sync::Barrier::new(parties);
    let start = std::sync::Barrier::new(parties);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parties)
            .map(|index| {
                let (barrier, start) = (&barrier, &start);
                scope.spawn(move || {
                    place.place(index);
                    start.wait();
                    let begun = Instant::now();
                    let leads = (0..rounds).filter(|_| barrier.wait().is_leader()).count() as u64;
                    (begun, Instant::now(), leads)
                })
            })
            .collect();
        let times: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a thread")).collect();
        assert_eq!(times.iter().map(|(_, _, leads)| leads).sum::<u64>(), rounds);
        let begun = times.iter().map(|(begun, ..)| *begun).min().expect("a thread");
        let ended = times.iter().map(|(_, ended, _)| *ended).max().expect("a thread");
        nanos(ended - begun) / rounds as f64
    })
}

/// From the kill of a party until another, which sleeps, has been told: the median of `count`.
fn death(count: u64) -> f64 {
    /// Longer than anybody looks before sleeping.
    const ASLEEP: Duration = Duration::from_micros(300);
    let barrier = Barrier::new(3).expect("a barrier");
    let times: Vec<f64> = (0..count)
        .map(|_| {
            // SAFETY: this program has one thread where it forks.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
            if pid == 0 {
                let _ = barrier.wait();
                // SAFETY: ends the child without the parent's exit handlers.
                unsafe { libc::_exit(0) };
            }
            let killed = std::thread::scope(|scope| {
                let killer = scope.spawn(|| {
                    while barrier.n_waiting() < 2 {
                        std::thread::yield_now();
                    }
                    std::thread::sleep(ASLEEP);
                    let killed = Instant::now();
                    // SAFETY: a child that has not been waited for.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                    killed
                });
                let error = barrier.wait().expect_err("a party dies");
                let told = Instant::now();
                assert_eq!(error.cause(), Some(BrokenCause::PartyDied { pid: pid as u32 }));
                told - killer.join().expect("the killer")
            });
            // SAFETY: the status is not wanted.
            unsafe { libc::waitpid(pid, core::ptr::null_mut(), 0) };
            barrier.reset();
            nanos(killed)
        })
        .collect();
    median(&times)
}

fn main() {
    for (place, title) in [
        (Where::Pinned, "a round of 2, each pinned to a CPU of its own"),
        (Where::Anywhere, "a round of 2, not pinned"),
    ] {
        let rounds = scaled(10_000);
        Table::new(title)
            .subject("std::sync::Barrier, threads", || threads(2, place, rounds))
            .subject("polyproc Barrier, processes", || processes(2, place, rounds))
            .run();
    }
    for (parties, title) in [(4, "a round of 4, not pinned"), (8, "a round of 8, not pinned")] {
        let rounds = scaled(2_000);
        Table::new(title)
            .subject("std::sync::Barrier, threads", || threads(parties, Where::Anywhere, rounds))
            .subject("polyproc Barrier, processes", || processes(parties, Where::Anywhere, rounds))
            .run();
    }
    let count = scaled(20_000);
    let alone = Barrier::new(1).expect("a barrier");
    let std_alone = std::sync::Barrier::new(1);
    Table::new("a round of 1")
        .subject("std::sync::Barrier", || time_each(count, || assert!(std_alone.wait().is_leader())))
        .subject("polyproc Barrier", || time_each(count, || assert!(alone.wait().is_ok())))
        .run();
    let count = scaled(1_000);
    Table::new("new and drop")
        .subject("polyproc Barrier::new(2)", || time_each(count, || drop(Barrier::new(2).expect("memory"))))
        .subject("polyproc Barrier::new_in(arena, 2)", || {
            let arena = Arena::new(1 << 20).expect("memory");
            time_each(count, || drop(Barrier::new_in(&arena, 2).expect("memory")))
        })
        .run();
    let count = if is_test() { 3 } else { 50 };
    Table::new("from a kill until a sleeper is told").subject("polyproc Barrier", || death(count)).run();
}
