//! A producer and a consumer, twice: once the queue is closed at the end, and once the end is a message, as in Python.
//!
//! ```sh
//! cargo run --release --example queue
//! ```

use polyproc::{Process, Queue};

fn produce(queue: Queue<String>) {
    for number in 1..=3 {
        queue.put(format!("message {number}")).unwrap();
    }
    queue.close();
}

fn consume(queue: Queue<Option<u64>>) -> u64 {
    let mut sum = 0;
    while let Some(number) = queue.get().unwrap() {
        sum += number;
    }
    sum
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let queue = Queue::new()?;
    let producer = Process::spawn(produce, (queue.clone(),))?;
    for message in &queue {
        println!("{}", message?);
    } // Ends because the queue is closed and drained.
    producer.join()?;

    let queue = Queue::bounded(10)?;
    let consumer = Process::spawn(consume, (queue.clone(),))?;
    for number in 1..=100 {
        queue.put(Some(number))?;
    }
    queue.put(None)?;
    println!("the sum is {}", consumer.join()?);
    Ok(())
}
