//! Ten workers print under one lock, so that no line comes between another's. The order is theirs.
//!
//! ```sh
//! cargo run --release --example lock
//! ```

use polyproc::{Mutex, Process};

fn worker(lock: Mutex<()>, number: i32) {
    let _guard = lock.lock().unwrap();
    println!("hello world {number}");
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let lock = Mutex::new(())?;
    let workers = (0..10)
        .map(|number| Process::spawn(worker, (lock.clone(), number)))
        .collect::<Result<Vec<_>, _>>()?;
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}
