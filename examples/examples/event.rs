//! Runners who wait for the starting signal.
//!
//! ```sh
//! cargo run --release --example event
//! ```

use polyproc::{Event, Process, Semaphore};
use std::time::Duration;

fn runner(ready: Semaphore, start: Event, number: i32) {
    ready.release(1).unwrap();
    start.wait();
    println!("runner {number} runs");
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let (ready, start) = (Semaphore::new(0)?, Event::new()?);
    let runners = (0..4)
        .map(|number| Process::spawn(runner, (ready.clone(), start.clone(), number)))
        .collect::<Result<Vec<_>, _>>()?;
    for _ in &runners {
        ready.acquire().forget();
    }
    assert!(!start.wait_timeout(Duration::from_millis(10)), "nobody has set it");
    println!("ready, steady, go");
    start.set();
    for runner in runners {
        runner.join()?;
    }
    Ok(())
}
