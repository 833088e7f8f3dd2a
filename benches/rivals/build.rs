//! Builds the program of Boost.Interprocess, if there is a compiler and Boost; says why, if not.

use std::path::Path;
use std::process::Command;

#[path = "../versions.rs"]
mod versions;

/// Those whose versions belong to the results; some only with a feature of their name.
const RIVALS: [&str; 12] = [
    "crossbeam-channel",
    "parking_lot",
    "iceoryx2",
    "interprocess",
    "ipc-channel",
    "ipmpsc",
    "kanal",
    "procspawn",
    "raw_sync",
    "rayon",
    "shaq",
    "shmem-ipc",
];

fn main() {
    for path in ["build.rs", "../versions.rs", "Cargo.lock", "boost", "/usr/include/boost"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=CXX");
    let program = Path::new(&std::env::var_os("OUT_DIR").expect("cargo names it")).join("rivals");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O3", "-o"]).arg(&program);
    command.args(["boost/rivals.cpp", "-lrt", "-pthread"]);
    let missing = match command.output() {
        Ok(output) if output.status.success() => String::new(),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            text.lines().find(|line| line.contains("error")).unwrap_or("it does not build").to_owned()
        }
        Err(error) => format!("{compiler}: {error}"),
    };
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let built = |name: &&str| {
        let feature = name.to_uppercase().replace('-', "_");
        RIVALS[..2].contains(name) || std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
    };
    let names: Vec<&str> = RIVALS.into_iter().filter(built).collect();
    println!("cargo::rustc-env=POLYPROC_RIVALS={}", versions::versions(&lock, "polyproc-rivals", &names));
    println!("cargo::rustc-env=POLYPROC_BOOST={}", program.display());
    println!("cargo::rustc-env=POLYPROC_BOOST_MISSING={missing}");
}
