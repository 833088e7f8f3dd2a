//! Boost.Interprocess, by a C++ program that `build.rs` has built if it could.

use super::program::{arguments, figure, seen};
use polyproc_benches::fairness::Seen;
use polyproc_benches::results::note_versions;
use std::process::Command;
use std::sync::OnceLock;

/// Whether the program is there; says so if not.
pub fn is_there() -> bool {
    let why = env!("POLYPROC_BOOST_MISSING");
    if !why.is_empty() {
        crate::skip("Boost.Interprocess", why);
    }
    static VERSION: OnceLock<()> = OnceLock::new();
    if why.is_empty() {
        VERSION.get_or_init(|| {
            let output = Command::new(env!("POLYPROC_BOOST")).arg("version").output().expect("the program");
            note_versions(String::from_utf8_lossy(&output.stdout).trim());
        });
    }
    why.is_empty()
}

/// Nanoseconds of an operation of a subject: see `boost/rivals.cpp`.
pub fn run(subject: &str, numbers: &[u64]) -> f64 {
    figure(Command::new(env!("POLYPROC_BOOST")).args(arguments(subject, numbers)))
}

/// What each party of a subject has seen.
pub fn run_seen(subject: &str, numbers: &[u64]) -> Vec<Seen> {
    seen(Command::new(env!("POLYPROC_BOOST")).args(arguments(subject, numbers)))
}
