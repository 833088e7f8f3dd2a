//! Tasks for three workers, and a parent that waits until all are done.
//!
//! ```sh
//! cargo run --release --example joinable_queue
//! ```

use polyproc::{JoinableQueue, Process, Value};

fn worker(tasks: JoinableQueue<u64>, total: Value<u64>) {
    for task in tasks.iter() {
        let square = task.unwrap().pow(2);
        total.update(|total| *total += square).unwrap();
        tasks.task_done().unwrap();
    }
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let (tasks, total) = (JoinableQueue::new()?, Value::new(0)?);
    let workers = (0..3)
        .map(|_| Process::spawn(worker, (tasks.clone(), total.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    for number in 1..=1_000 {
        tasks.put(number)?;
    }
    tasks.join();
    println!("{}", total.get()?); // All squares up to 1,000 are in it.
    tasks.close();
    for worker in workers {
        worker.join()?;
    }
    Ok(())
}
