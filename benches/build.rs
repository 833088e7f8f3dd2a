//! Tells the benches by which compiler they are built, and what else is measured in which version: that belongs to every result.

use std::process::Command;

#[path = "versions.rs"]
mod versions;

fn main() {
    for path in ["build.rs", "versions.rs", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let output = Command::new(rustc).arg("--version").output().expect("the compiler's version");
    let version = String::from_utf8_lossy(&output.stdout);
    println!("cargo::rustc-env=POLYPROC_RUSTC={}", version.trim());
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    let names = ["crossbeam-channel", "parking_lot", "rayon"];
    println!("cargo::rustc-env=POLYPROC_VERSIONS={}", versions::versions(&lock, "polyproc-benches", &names));
}
