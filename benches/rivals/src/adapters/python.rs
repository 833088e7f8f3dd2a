//! Python's `multiprocessing`, and faster-fifo, by the scripts in `python/`.

use super::program::{arguments, figure, seen};
use polyproc_benches::fairness::Seen;
use polyproc_benches::results::note_versions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interpreter of the environment that `python/prepare` makes, if it did; else the system's.
fn interpreter() -> PathBuf {
    let own = folder().join("target/python/bin/python3");
    if own.exists() { own } else { "python3".into() }
}

/// Whether this can be imported.
fn has(module: &str) -> bool {
    let code = format!("import {module}");
    let mut command = Command::new(interpreter());
    command.args(["-c", &code]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Notes what an expression says, if it can.
fn note_version(expression: &str, module: &str) {
    let code = format!("import {module}; print({expression})");
    let output = Command::new(interpreter()).args(["-c", &code]).stderr(Stdio::null()).output();
    if let Some(output) = output.ok().filter(|output| output.status.success()) {
        note_versions(String::from_utf8_lossy(&output.stdout).trim());
    }
}

/// Whether Python is there; says so if not.
pub fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let is_there = *THERE.get_or_init(|| {
        note_version("'Python ' + platform.python_version()", "platform");
        has("multiprocessing")
    });
    if !is_there {
        crate::skip("Python", "no python3");
    }
    is_there
}

/// Whether faster-fifo is there; says so if not.
pub fn has_faster_fifo() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let is_there = *THERE.get_or_init(|| {
        note_version("'faster-fifo ' + importlib.metadata.version('faster-fifo')", "importlib.metadata");
        has("faster_fifo")
    });
    if !is_there {
        crate::skip("faster-fifo", "not installed: benches/rivals/python/prepare installs it");
    }
    is_there
}

fn command(script: &str, subject: &str, numbers: &[u64]) -> Command {
    let script = folder().join("python").join(script);
    let mut command = Command::new(interpreter());
    command.arg("-B").arg(script).args(arguments(subject, numbers));
    command
}

/// Nanoseconds of an operation of a subject of a script: see the script.
pub fn run(script: &str, subject: &str, numbers: &[u64]) -> f64 {
    figure(&mut command(script, subject, numbers))
}

/// What each party of a subject has seen.
pub fn run_seen(script: &str, subject: &str, numbers: &[u64]) -> Vec<Seen> {
    seen(&mut command(script, subject, numbers))
}
