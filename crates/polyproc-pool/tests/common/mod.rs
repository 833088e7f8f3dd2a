//! What the tests share.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Ends the whole test binary if the test has not ended in time.
#[must_use]
pub(crate) struct Watchdog(#[allow(dead_code)] mpsc::Sender<()>);

pub(crate) fn watchdog() -> Watchdog {
    let (sender, receiver) = mpsc::channel();
    let test = std::thread::current().name().unwrap_or("?").to_string();
    std::thread::spawn(move || {
        if receiver.recv_timeout(Duration::from_secs(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs");
            std::process::abort();
        }
    });
    Watchdog(sender)
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

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

/// What a process does, as its `stat` says; `None` if there is none.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Works for so long.
pub(crate) fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
