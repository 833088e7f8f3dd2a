//! A channel whose producer or consumer is killed at some moment and replaced: in how many trials further messages did not
//! pass. Ours must not fail at all.

use polyproc_benches::is_test;
#[cfg(feature = "ipmpsc")]
use polyproc_rivals::adapters::ipmpsc;
#[cfg(feature = "shaq")]
use polyproc_rivals::adapters::shaq;
use polyproc_rivals::adapters::{boost, ours, pipe, python};
use polyproc_rivals::chosen;
use polyproc_rivals::kills::{SLOTS, Victim, failures, trial};
use std::time::Duration;

/// Somebody's name, and a trial of it.
type Trial = (&'static str, Box<dyn FnMut(Victim, Duration) -> bool>);

fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = vec![
        (
            "polyproc Queue",
            Box::new(|victim, after| {
                let queue = ours::Plain::<64>::bounded(SLOTS as u64);
                trial(victim, after, || queue.clone(), || queue.clone())
            }),
        ),
        (
            "pipe(2)",
            Box::new(|victim, after| {
                let (put, get) = pipe::ends();
                trial(
                    victim,
                    after,
                    || put.try_clone().expect("a descriptor"),
                    || get.try_clone().expect("a descriptor"),
                )
            }),
        ),
    ];
    #[cfg(feature = "shaq")]
    trials.push((
        "shaq, many to many",
        Box::new(|victim, after| {
            let (put, get) = shaq::many_to_many::<64>(SLOTS);
            trial(victim, after, || put.clone(), || get.clone())
        }),
    ));
    #[cfg(not(feature = "shaq"))]
    polyproc_rivals::skip("shaq", "built without it");
    #[cfg(feature = "ipmpsc")]
    trials.push((
        "ipmpsc",
        Box::new(|victim, after| {
            let ring = ipmpsc::Ring::with_slots::<64>(SLOTS);
            trial(victim, after, || ring.sender(), || ring.receiver())
        }),
    ));
    #[cfg(not(feature = "ipmpsc"))]
    polyproc_rivals::skip("ipmpsc", "built without it");
    if boost::is_there() {
        trials.push((
            "Boost message_queue",
            Box::new(|victim, after| {
                let victim = u64::from(victim == Victim::Consumer);
                boost::run("kill", &[victim, after.as_micros() as u64]) == 1.0
            }),
        ));
    }
    if python::is_there() {
        for (name, subject) in [
            ("Python Queue", "queue"),
            ("Python SimpleQueue", "simple_queue"),
            ("faster-fifo", "faster_fifo"),
        ] {
            if subject == "faster_fifo" && !python::has_faster_fifo() {
                continue;
            }
            trials.push((
                name,
                Box::new(move |victim, after| {
                    let victim = u64::from(victim == Victim::Consumer);
                    python::run("kills.py", subject, &[victim, after.as_micros() as u64]) == 1.0
                }),
            ));
        }
    }
    trials
}

fn main() {
    let count = if is_test() { 1 } else { 30 };
    println!(
        "\na killed producer, a killed consumer: trials of {count} in which further messages did not pass"
    );
    for (name, mut trial) in trials() {
        if !chosen(name) {
            continue;
        }
        let [producers, consumers] =
            [Victim::Producer, Victim::Consumer].map(|victim| failures(count, |after| trial(victim, after)));
        println!("{name:<44} {producers:>10} {consumers:>10}");
        assert!(producers + consumers == 0 || !name.starts_with("polyproc"), "ours has failed");
    }
}
