//! Builds the program of Boost.Interprocess, if there is a compiler and Boost; says why, if not.

use std::path::Path;
use std::process::Command;

fn main() {
    for path in ["build.rs", "boost", "/usr/include/boost"] {
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
    println!("cargo::rustc-env=POLYPROC_BOOST={}", program.display());
    println!("cargo::rustc-env=POLYPROC_BOOST_MISSING={missing}");
}
