//! Rivals that are programs of their own: they measure and check a subject by themselves, and print its nanoseconds.

use std::process::{Command, Stdio};

/// Runs one.
///
/// # Panics
///
/// If it fails, or prints anything but its figure.
pub(super) fn figure(command: &mut Command) -> f64 {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("the program");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{command:?}: {text}"))
}

/// The arguments of a program: a subject and its numbers.
pub(super) fn arguments(subject: &str, numbers: &[u64]) -> Vec<String> {
    std::iter::once(subject.to_owned()).chain(numbers.iter().map(u64::to_string)).collect()
}
