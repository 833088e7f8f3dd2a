//! Memory: as much as it takes, and given back.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{Bytes, Queue, Raw};
use std::time::{Duration, Instant};
use support::{Child, memory_of, watchdog};

const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn an_empty_queue_is_small_and_soon_made() {
    let begin = Instant::now();
    let queues: Vec<_> = (0..20).map(|_| Queue::<u64>::new().unwrap()).collect();
    let each = begin.elapsed() / 20;
    println!("{} bytes, {each:?}", memory_of(&queues[0]));
    assert!(queues.iter().all(|queue| memory_of(queue) <= 96 << 10));
    assert!(each < Duration::from_millis(20), "{each:?}");
}

#[test]
fn a_million_messages_and_their_memory_is_given_back() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    let empty = memory_of(&queue);
    for round in 0..2 {
        queue.put_many(0..1_000_000).unwrap();
        assert_eq!(queue.len(), 1_000_000);
        // Eight bytes each: a batch of plain data has no headers but its own.
        assert!(memory_of(&queue) >= empty + 7_500_000);
        let mut next = 0;
        while next < 1_000_000 {
            for number in queue.try_get_many(1000).unwrap() {
                assert_eq!(number, next);
                next += 1;
            }
        }
        assert_eq!(memory_of(&queue), empty, "{round}");
        assert!(queue.is_empty());
    }
}

/// To give memory back and to get it again takes longer than many messages.
#[test]
fn memory_that_is_needed_again_at_once_is_kept_for_a_while() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    let empty = memory_of(&queue);
    let message = vec![1; 200 << 10];
    let is_given_back = || {
        queue.put_bytes(&message).unwrap();
        assert_eq!(queue.get().unwrap(), message);
        memory_of(&queue) == empty
    };
    assert!(is_given_back(), "at the first drain");
    // Once more for each time that this was put aside for long between two messages.
    let again = (1..1000).filter(|_| is_given_back()).count();
    assert!(again <= 2, "{again} times");
    assert!((0..10_000).any(|_| is_given_back()), "some day it is");
}

#[test]
fn a_process_puts_ten_mebibytes_and_is_gone() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    Child::run(|| {
        for number in 0..10 {
            queue.put(vec![number; MIB]).unwrap();
        }
    })
    .join();
    for number in 0..10 {
        assert_eq!(queue.try_get().unwrap(), vec![number; MIB]);
    }
    assert!(queue.is_empty());
}

#[test]
fn one_message_of_a_gibibyte() {
    let _watchdog = watchdog();
    let available = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = available.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: u64 = available.trim().trim_end_matches(" kB").parse().unwrap();
    if available < 6 << 20 {
        println!("left out: {available} kB of memory are too few");
        return;
    }
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(2 * GIB).unwrap();
    let empty = memory_of(&queue);
    let mut message = vec![1; GIB as usize];
    (message[12_345], message[GIB as usize - 1]) = (2, 3);
    queue.put(message).unwrap();
    assert!(memory_of(&queue) >= GIB);
    let message = queue.get().unwrap();
    assert_eq!((message.len() as u64, message[0], message[12_345], *message.last().unwrap()), (GIB, 1, 2, 3));
    assert_eq!(memory_of(&queue), empty);
}
