//! A bounded buffer by hand: a ring of four numbers, and two conditions, for "there is room" and "there is something".
//!
//! ```sh
//! cargo run --release --example condition
//! ```

use polyproc::{Condition, Mutex, Process};

/// What the processes share: the ring's cells, then where it begins, and how many numbers are in it.
type Ring = [u32; 6];
const CELLS: u32 = 4;
const BEGIN: usize = 4;
const LENGTH: usize = 5;

fn produce(ring: Mutex<Ring>, room: Condition, something: Condition) {
    for number in 1..=10 {
        let mut ring = room.wait_while(ring.lock().unwrap(), |ring| ring[LENGTH] == CELLS).unwrap();
        let end = (ring[BEGIN] + ring[LENGTH]) % CELLS;
        ring[end as usize] = number;
        ring[LENGTH] += 1;
        drop(ring);
        something.notify_one();
    }
}

fn consume(ring: Mutex<Ring>, room: Condition, something: Condition) -> u32 {
    let mut sum = 0;
    for _ in 1..=10 {
        let mut ring = something.wait_while(ring.lock().unwrap(), |ring| ring[LENGTH] == 0).unwrap();
        sum += ring[ring[BEGIN] as usize];
        ring[BEGIN] = (ring[BEGIN] + 1) % CELLS;
        ring[LENGTH] -= 1;
        drop(ring);
        room.notify_one();
    }
    sum
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let shared = (Mutex::new(Ring::default())?, Condition::new()?, Condition::new()?);
    let producers = [Process::spawn(produce, shared.clone())?, Process::spawn(produce, shared.clone())?];
    let consumers = [Process::spawn(consume, shared.clone())?, Process::spawn(consume, shared)?];
    for producer in producers {
        producer.join()?;
    }
    let mut sum = 0;
    for consumer in consumers {
        sum += consumer.join()?;
    }
    println!("{sum}"); // Twice 1 + 2 + … + 10.
    Ok(())
}
