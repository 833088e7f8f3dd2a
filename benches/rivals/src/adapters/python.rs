//! Python's `multiprocessing`, and faster-fifo, by the scripts in `python/`.

use super::program::{arguments, figure};
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

/// Whether Python is there; says so if not.
pub fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let is_there = *THERE.get_or_init(|| has("multiprocessing"));
    if !is_there {
        crate::skip("Python", "no python3");
    }
    is_there
}

/// Whether faster-fifo is there; says so if not.
pub fn has_faster_fifo() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let is_there = *THERE.get_or_init(|| has("faster_fifo"));
    if !is_there {
        crate::skip("faster-fifo", "not installed: benches/rivals/python/prepare installs it");
    }
    is_there
}

/// Nanoseconds of an operation of a subject of a script: see the script.
pub fn run(script: &str, subject: &str, numbers: &[u64]) -> f64 {
    let script = folder().join("python").join(script);
    figure(Command::new(interpreter()).arg("-B").arg(script).args(arguments(subject, numbers)))
}
