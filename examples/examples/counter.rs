//! Four processes increment one counter, a million times each, under its lock.
//!
//! ```sh
//! cargo run --release --example counter
//! ```
//!
//! Prints the total; to stderr, how long that took.

use polyproc::{Process, Value};
use std::time::Instant;

const PROCESSES: u32 = 4;
const INCREMENTS: u32 = 1_000_000;

fn worker(n: u32, counter: Value<i32>) {
    for _ in 0..n {
        *counter.lock().unwrap() += 1;
    }
}

fn main() -> polyproc::Result<()> {
    polyproc::init(); // In a child: runs its function and exits.

    let counter = Value::new(0)?;
    let start = Instant::now();
    let workers = (0..PROCESSES)
        .map(|_| Process::spawn(worker, (INCREMENTS, counter.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        worker.join()?;
    }
    let time = start.elapsed();

    println!("{}", counter.get()?);
    let rate = f64::from(PROCESSES * INCREMENTS) / time.as_secs_f64();
    eprintln!("{:.1} ms, {:.1} million increments per second", time.as_secs_f64() * 1e3, rate / 1e6);
    Ok(())
}
