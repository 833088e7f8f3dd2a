//! What the tests share.

#![allow(dead_code, unused_imports, reason = "each test binary uses some of it")]

pub(crate) use polyproc_testing::{state, wait_until, watchdog};
use std::time::{Duration, Instant};

/// Kills this very process.
pub(crate) fn die() {
    let itself = i32::try_from(std::process::id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(itself), nix::sys::signal::SIGKILL).unwrap();
}

/// Sends a signal to another.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Works for so long.
pub(crate) fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
