//! Rivals that are programs of their own: they measure and check a subject by themselves, and print its nanoseconds. Below them
//! may be `pinned` with the CPUs that its processes were pinned to (`-` for one that was not), and other lines of numbers.

use crate::each;
use polyproc_benches::note_pin;
use std::process::{Command, Stdio};

/// Runs one: its figure, and the numbers of the other lines.
///
/// # Panics
///
/// If it fails, or prints anything else.
pub(super) fn lines(command: &mut Command) -> (f64, Vec<Vec<f64>>) {
    if each::is_wanted() {
        command.env(each::WANTED, "1");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("the program");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = |line: &str| -> Vec<f64> {
        let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{command:?}: {line}"));
        line.split_whitespace().map(number).collect()
    };
    let mut all = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("pinned") {
            Some(cpus) => cpus.split_whitespace().for_each(|cpu| note_pin(cpu.parse().ok())),
            None => all.push(numbers(line)),
        }
    }
    let figure = match all.first().map(Vec::as_slice) {
        Some([figure]) => *figure,
        _ => panic!("{command:?}: {text}"),
    };
    (figure, all.split_off(1))
}

/// Runs one: its figure. The other lines are the times of single events, one a line.
pub(super) fn figure(command: &mut Command) -> f64 {
    let (figure, events) = lines(command);
    each::keep_nanos(events.concat());
    figure
}

/// The arguments of a program: a subject and its numbers.
pub(super) fn arguments(subject: &str, numbers: &[u64]) -> Vec<String> {
    std::iter::once(subject.to_owned()).chain(numbers.iter().map(u64::to_string)).collect()
}

/// What each party of a program has seen, one a line: its turns, and its longest wait.
pub(super) fn seen(command: &mut Command) -> Vec<polyproc_benches::fairness::Seen> {
    let (_, lines) = lines(command);
    let seen = |line: Vec<f64>| {
        assert_eq!(line.len(), 2, "{command:?}");
        polyproc_benches::fairness::Seen { turns: line[0] as u64, longest: line[1] as u64 }
    };
    lines.into_iter().map(seen).collect()
}
