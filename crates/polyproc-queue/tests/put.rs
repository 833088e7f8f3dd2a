//! Putting: what there is room for, how long it waits, and that the message comes back with every error.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{Arena, Mutex};
use polyproc_queue::{Bytes, GetError, PutError, Queue, Raw};
use serde::{Deserialize, Serialize, Serializer};
use std::error::Error;
use std::time::{Duration, Instant};
use support::{Child, Slot, takes, wait_for_the_end, watchdog};

const SOON: Duration = Duration::from_millis(30);
const NOW: Duration = Duration::ZERO;

/// Odd ones cannot be serialised.
#[derive(Debug, PartialEq, Deserialize)]
struct Even(u32);

impl Serialize for Even {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(serde::ser::Error::custom("odd"));
        }
        self.0.serialize(serializer)
    }
}

#[test]
fn a_full_queue_gives_the_message_back_when_the_time_is_over() {
    let _watchdog = watchdog();
    let queue = Queue::<String>::bounded(1).unwrap();
    queue.put("first".into()).unwrap();
    let message = || "second".to_owned();
    let is_full =
        |result| assert!(matches!(result, Err(PutError::Full(message)) if message == "second"), "not full");
    takes(NOW, || is_full(queue.try_put(message())));
    takes(NOW, || is_full(queue.put_timeout(message(), NOW)));
    takes(NOW, || is_full(queue.put_until(message(), Instant::now() - SOON)));
    takes(SOON, || is_full(queue.put_timeout(message(), SOON)));
    takes(SOON, || is_full(queue.put_until(message(), Instant::now() + SOON)));
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.get().unwrap(), "first");
    // With room, no time is needed.
    queue.put_until(message(), Instant::now() - SOON).unwrap();
    assert_eq!(queue.get().unwrap(), "second");
}

#[test]
fn bytes_run_out_as_messages_do() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(64 << 10).unwrap();
    let mut put = 0;
    let back = loop {
        match queue.try_put(vec![put as u8; 1000]) {
            Ok(()) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&back, PutError::Full(message) if *message == vec![put as u8; 1000]));
    assert_eq!(put, (64 << 10) / 1008);
    assert!(!queue.is_full() && queue.capacity().is_none(), "it takes any number of messages");
    takes(SOON, || assert!(queue.put_timeout(vec![1; 1000], SOON).is_err()));
    for number in 0..put {
        assert_eq!(queue.try_get().unwrap(), [number as u8; 1000]);
        queue.try_put(vec![(put + number) as u8; 1000]).unwrap();
        assert!(queue.try_put(vec![0; 1000]).is_err());
    }
}

#[test]
fn the_largest_message_fits_wherever_the_queue_stands() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(64 << 10).unwrap();
    let largest = (64 << 10) - 8;
    for before in [0, 1, 8, 1000, 40_000, largest] {
        queue.try_put(vec![1; before]).unwrap();
        assert_eq!(queue.try_get().unwrap().len(), before);
        queue.try_put(vec![2; largest]).unwrap();
        assert!(matches!(queue.try_put(vec![]), Err(PutError::Full(_))));
        assert_eq!(queue.try_get().unwrap(), vec![2; largest]);
    }
    // One more will never fit: no wait.
    let error = takes(NOW, || queue.put(vec![3; largest + 1]).unwrap_err());
    assert_eq!(
        error.to_string(),
        format!("the message has {} bytes, and the queue takes messages of at most {largest}", largest + 1)
    );
    let PutError::TooLarge { message, length, most } = error else { panic!("{error:?}") };
    assert_eq!((message, length, most), (vec![3; largest + 1], largest + 1, largest));
    assert!(queue.is_empty());
}

#[test]
fn a_message_that_cannot_be_encoded_comes_back_and_the_queue_goes_on() {
    let _watchdog = watchdog();
    let queue = Queue::<Even>::bounded(4).unwrap();
    queue.put(Even(0)).unwrap();
    let error = queue.put(Even(1)).unwrap_err();
    assert_eq!(error.to_string(), "the message cannot be encoded");
    assert!(error.source().is_some());
    assert_eq!(error.into_message(), Even(1));
    assert_eq!(queue.len(), 1);

    let error = queue.put_many([Even(2), Even(4), Even(5), Even(6)]).unwrap_err();
    assert_eq!(error.to_string(), "2 messages were put, then: the message cannot be encoded");
    assert_eq!(error.put, 2);
    assert!(matches!(error.error, PutError::Encode { message: Even(5), .. }));
    assert_eq!(error.rest, [Even(6)]);
    assert_eq!(queue.get_many(10).unwrap(), [Even(0), Even(2), Even(4)]);
}

#[test]
fn put_many_says_what_it_put_and_gives_back_the_rest() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Raw>::bounded(3).unwrap();
    queue.put_many([]).unwrap();
    let error = queue.try_put_many([1, 2, 3, 4, 5]).unwrap_err();
    assert_eq!((error.put, error.error.into_message(), error.rest), (3, 4, vec![5]));
    let error = takes(SOON, || queue.put_many_timeout([6, 7], SOON).unwrap_err());
    assert!(matches!(error.error, PutError::Full(6)));
    assert_eq!((error.put, error.rest), (0, vec![7]));
    assert_eq!(queue.get_many(2).unwrap(), [1, 2]);
    queue.try_put_many([8, 9]).unwrap();
    assert_eq!(queue.get_many(100).unwrap(), [3, 8, 9]);

    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(64 << 10).unwrap();
    let error = queue.put_many([vec![1], vec![2; 70_000], vec![3]]).unwrap_err();
    assert!(matches!(error.error, PutError::TooLarge { length: 70_000, .. }));
    assert_eq!((error.put, error.rest), (1, vec![vec![3]]));
    queue.close();
    let error = queue.put_many([vec![4], vec![5]]).unwrap_err();
    assert!(matches!(error.error, PutError::Closed(message) if message == [4]));
    assert_eq!(queue.get_many(10).unwrap(), [[1]]);
}

#[test]
fn put_many_waits_for_room_as_often_as_it_takes() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Raw>::bounded(4).unwrap();
    let consumer = Child::run(|| {
        let mut next = 0;
        while next < 1000 {
            for number in queue.get_many(7).unwrap() {
                assert_eq!(number, next);
                next += 1;
            }
        }
    });
    queue.put_many(0..1000).unwrap();
    consumer.join();
    assert!(queue.is_empty());
}

#[test]
fn no_message_at_all_is_no_bound() {
    let error = Queue::<u32>::bounded(0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`new`"), "{error}");
}

#[test]
fn while_another_process_is_putting_a_try_does_not_wait_for_it() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    let holding = Slot::new();
    let holder = Child::run(|| {
        let mut place = queue.reserve(3).unwrap();
        place.copy_from_slice(&[1, 2, 3]);
        holding.set(1);
        wait_for_the_end();
    });
    holding.wait();
    assert!(matches!(queue.try_put(vec![9]), Err(PutError::Full(_))));
    takes(SOON, || assert!(matches!(queue.put_timeout(vec![9], SOON), Err(PutError::Full(_)))));
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    // What was not committed never was.
    holder.kill();
    queue.try_put(vec![4]).unwrap();
    assert_eq!((queue.len(), queue.get().unwrap()), (1, vec![4]));
}

#[test]
fn more_memory_than_there_is_is_an_error_and_the_queue_goes_on() {
    let _watchdog = watchdog();
    Child::run(|| {
        // Should it be allocated after all, this process is the first to go.
        std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
        let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(1 << 44).unwrap();
        queue.put(vec![1]).unwrap();
        let length = 1 << 42;
        let Err(error) = queue.reserve(length) else { panic!("{length} bytes of memory") };
        assert_eq!(error.to_string(), "there is no memory for the queue to grow");
        let PutError::OutOfMemory { message, error } = error else { panic!("{error}") };
        assert_eq!((message, error.kind()), (length, std::io::ErrorKind::OutOfMemory));
        queue.put(vec![2]).unwrap();
        assert_eq!(queue.get_many(10).unwrap(), [[1], [2]]);
    })
    .join();
}

#[test]
fn a_thread_with_all_the_locks_it_can_hold_is_told_so() {
    let _watchdog = watchdog();
    let arena = Arena::new(1 << 20).unwrap();
    let locks: Vec<_> = (0..2048).map(|_| Mutex::new_in(&arena, 0u64).unwrap()).collect();
    let queue = Queue::<u32, Raw>::new().unwrap();
    queue.put(1).unwrap();
    let guards: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
    assert!(matches!(queue.put(2), Err(PutError::TooManyLocks(2))));
    assert!(matches!(queue.get(), Err(GetError::TooManyLocks)));
    drop(guards);
    queue.put(3).unwrap();
    assert_eq!(queue.get_many(3).unwrap(), [1, 3]);
}
