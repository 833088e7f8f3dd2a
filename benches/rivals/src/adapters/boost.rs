//! Boost.Interprocess, by a C++ program that `build.rs` has built if it could.

use super::program::{arguments, figure};
use std::process::Command;

/// Whether the program is there; says so if not.
pub fn is_there() -> bool {
    let why = env!("POLYPROC_BOOST_MISSING");
    if !why.is_empty() {
        crate::skip("Boost.Interprocess", why);
    }
    why.is_empty()
}

/// Nanoseconds of an operation of a subject: see `boost/rivals.cpp`.
pub fn run(subject: &str, numbers: &[u64]) -> f64 {
    figure(Command::new(env!("POLYPROC_BOOST")).args(arguments(subject, numbers)))
}
