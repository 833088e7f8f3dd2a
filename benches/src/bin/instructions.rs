//! How many instructions an operation takes when nobody contends for it: a gate that a noisy machine cannot mislead.
//!
//! `benches/instructions` builds and runs this: each operation many times under callgrind, and few times, so that what the
//! program takes to begin and end is known and does not count. The figures are compared with `benches/instructions.baseline`.
//! `--update` writes them there.
//!
//! Instructions are not time: a locked instruction is one like any other, and a cache line that another CPU holds costs
//! nothing here. What the gate sees is code that has come into a path, or was inlined no more.

use polyproc::{Event, Mutex, RLock, RwLock, Semaphore, Value};
use polyproc_pipe::Connection;
use polyproc_queue::{Bytes, Queue, Raw};
use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Repetitions of the two runs whose difference counts. The first has the operation's first time behind it, too.
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;
/// A share of the baseline: who changes more has to say so.
const TOLERANCE: f64 = 0.03;

/// An operation: its name, and how it is run so many times.
type Operation = (&'static str, fn(u64));

const OPERATIONS: &[Operation] = &[
    ("Mutex, lock and unlock", |count| {
        let mutex = Mutex::new(0u64).expect("memory");
        repeat(count, || *black_box(&mutex).lock().unwrap() += 1);
        assert_eq!(*mutex.lock().unwrap(), count);
    }),
    ("RLock, lock and unlock", |count| {
        let lock = RLock::new(0u64).expect("memory");
        repeat(count, || drop(black_box(&lock).lock().unwrap()));
    }),
    ("RwLock, read and unlock", |count| {
        let lock = RwLock::new(7u64).expect("memory");
        repeat(count, || assert_eq!(*black_box(&lock).read().unwrap(), 7));
    }),
    ("RwLock, write and unlock", |count| {
        let lock = RwLock::new(0u64).expect("memory");
        repeat(count, || *black_box(&lock).write().unwrap() += 1);
        assert_eq!(*lock.read().unwrap(), count);
    }),
    ("Value::update", |count| {
        let value = Value::new(0u64).expect("memory");
        repeat(count, || black_box(&value).update(|number| *number += 1).unwrap());
        assert_eq!(value.get().unwrap(), count);
    }),
    ("Semaphore, acquire and give back", |count| {
        let semaphore = Semaphore::new(3).expect("memory");
        repeat(count, || drop(black_box(&semaphore).acquire()));
        assert_eq!(semaphore.available(), 3);
    }),
    ("Event, set and clear", |count| {
        let event = Event::new().expect("memory");
        repeat(count, || {
            black_box(&event).set();
            black_box(&event).clear();
        });
    }),
    ("Queue of u64, try_put and try_get", |count| {
        let queue = Queue::<u64, Raw>::bounded(64).expect("memory");
        let mut number = 0;
        repeat(count, || {
            number += 1;
            black_box(&queue).try_put(number).unwrap();
            assert_eq!(black_box(&queue).try_get().unwrap(), number);
        });
    }),
    ("Queue of 64 bytes, put_bytes and get_into", |count| {
        let queue = Queue::<Vec<u8>, Bytes>::bounded(64).expect("memory");
        let mut got = Vec::with_capacity(64);
        repeat(count, || {
            black_box(&queue).put_bytes(black_box(&[7; 64])).unwrap();
            black_box(&queue).get_into(&mut got).unwrap();
            assert_eq!(got[63], 7);
        });
    }),
    ("Connection of u64, send and recv", |count| {
        let (here, there) = Connection::<u64, u64, Raw>::pair().expect("a connection");
        let mut number = 0;
        repeat(count, || {
            number += 1;
            black_box(&here).send(number).unwrap();
            assert_eq!(black_box(&there).recv().unwrap(), number);
        });
    }),
];

#[inline(always)]
fn repeat(count: u64, mut operation: impl FnMut()) {
    for _ in 0..count {
        operation();
    }
}

/// The instructions of the whole program when it runs an operation so many times.
fn collected(index: usize, count: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--run", &index.to_string(), &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}: it counts the instructions, and must be installed"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected : "));
    match line {
        Some((_, figure)) if output.status.success() => Ok(figure.trim().parse()?),
        _ => Err(format!("valgrind, {}, {}:\n{text}", OPERATIONS[index].0, output.status).into()),
    }
}

/// What the figures depend on beside the sources.
fn built_by() -> String {
    format!("# {}, {}", env!("POLYPROC_RUSTC"), std::env::consts::ARCH)
}

/// The figure of an operation in the baseline's text.
fn known(baseline: &str, name: &str) -> Option<f64> {
    baseline.lines().find_map(|line| line.strip_suffix(name)?.trim().parse().ok())
}

/// What to say of a figure beside the known one, if it is to be refused.
fn verdict(figure: f64, known: Option<f64>) -> Option<&'static str> {
    match known {
        None => Some("not in the baseline"),
        Some(known) if figure > known * (1.0 + TOLERANCE) => Some("MORE"),
        Some(known) if figure < known * (1.0 - TOLERANCE) => Some("fewer"),
        Some(_) => None,
    }
}

fn gate(path: &Path, is_update: bool) -> Result<bool, Box<dyn Error>> {
    let baseline = std::fs::read_to_string(path).unwrap_or_default();
    let header = built_by();
    let mut text =
        header.clone() + "\n# Instructions an operation. Written by `benches/instructions --update`.\n";
    let mut is_good = true;
    println!("{:>10} {:>10}", "baseline", "now");
    for (index, (name, _)) in OPERATIONS.iter().enumerate() {
        let total = collected(index, MANY)?.saturating_sub(collected(index, FEW)?);
        let figure = total as f64 / (MANY - FEW) as f64;
        let known = known(&baseline, name);
        let told = known.map_or_else(|| "-".to_owned(), |known| format!("{known:.1}"));
        let verdict = verdict(figure, known);
        println!("{told:>10} {figure:>10.1} {name} {}", verdict.unwrap_or_default());
        is_good &= verdict.is_none();
        writeln!(text, "{figure:>8.1} {name}")?;
    }
    if is_update {
        std::fs::write(path, text)?;
        println!("written: {}", path.display());
        return Ok(true);
    }
    if !is_good {
        eprintln!("\nThe figures differ by more than {} % from {}.", TOLERANCE * 100.0, path.display());
        if baseline.lines().next() != Some(&header) {
            eprintln!(
                "The baseline is of another compiler. It says: {}",
                baseline.lines().next().unwrap_or("nothing")
            );
            eprintln!("This is                                     : {header}");
        }
        eprintln!(
            "If that is as it should be: `benches/instructions --update`, and commit it with the reason."
        );
    }
    Ok(is_good)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_update = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--update"] => true,
        ["--run", index, count] => {
            let (_, run) = OPERATIONS[index.parse::<usize>()?];
            run(count.parse()?);
            return Ok(ExitCode::SUCCESS);
        }
        _ => return Err("usage: instructions [--update]".into()),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.baseline");
    Ok(if gate(&path, is_update)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_judged_by_the_baseline() {
        let baseline = "# rustc\n    20.0 Mutex\n   100.5 Queue, put\n";
        assert_eq!(known(baseline, "Mutex"), Some(20.0));
        assert_eq!(known(baseline, "Queue, put"), Some(100.5));
        assert_eq!(known(baseline, "Event"), None);
        assert_eq!(verdict(20.5, Some(20.0)), None);
        assert_eq!(verdict(21.0, Some(20.0)), Some("MORE"));
        assert_eq!(verdict(19.0, Some(20.0)), Some("fewer"));
        assert_eq!(verdict(19.0, None), Some("not in the baseline"));
    }

    #[test]
    fn every_operation_runs() {
        for (_, run) in OPERATIONS {
            run(10);
        }
    }
}
