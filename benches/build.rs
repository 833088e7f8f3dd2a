//! Tells the benches by which compiler they are built: it belongs to every result.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let output = Command::new(rustc).arg("--version").output().expect("the compiler's version");
    let version = String::from_utf8_lossy(&output.stdout);
    println!("cargo::rustc-env=POLYPROC_RUSTC={}", version.trim());
}
