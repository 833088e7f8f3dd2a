//! A pool of three permits, and eight workers who need one each: never more than three are at work.
//!
//! ```sh
//! cargo run --release --example semaphore
//! ```

use polyproc::{Process, RawValue, Semaphore};
use std::time::Duration;

fn worker(permits: Semaphore, at_work: RawValue<i32>, most: RawValue<i32>, number: i32) {
    let _permit = permits.acquire(); // Goes back when it is dropped, or when this process dies.
    most.fetch_max(at_work.fetch_add(1) + 1);
    std::thread::sleep(Duration::from_millis(20));
    println!("worker {number} was at work");
    at_work.fetch_sub(1);
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let permits = Semaphore::new(3)?;
    let (at_work, most) = (RawValue::new(0)?, RawValue::new(0)?);
    let workers = (0..8)
        .map(|number| Process::spawn(worker, (permits.clone(), at_work.clone(), most.clone(), number)))
        .collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        worker.join()?;
    }
    assert!(most.load() <= 3);
    println!("{} permits are back", permits.available());
    Ok(())
}
