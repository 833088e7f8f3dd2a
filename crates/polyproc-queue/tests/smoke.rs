//! One process: that it is a queue.

use polyproc_queue::{Bytes, GetError, PutError, Queue, Raw};
use std::time::{Duration, Instant};

#[test]
fn first_in_first_out() {
    let queue = Queue::<u64, Raw>::new().unwrap();
    for number in 0..1000 {
        queue.put(number).unwrap();
    }
    assert_eq!(queue.len(), 1000);
    for number in 0..1000 {
        assert_eq!(queue.get().unwrap(), number);
    }
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    assert!(queue.is_empty());
}

#[test]
fn a_million_messages_before_the_first_is_taken() {
    for start in [0, u64::MAX - 1_000_000, u64::MAX - 100] {
        let queue = Queue::<u64, Raw>::starting_at(start, 0, 1 << 30).unwrap();
        for number in 0..1_000_000 {
            queue.put(number).unwrap();
        }
        assert_eq!(queue.len(), 1_000_000);
        for number in 0..1_000_000 {
            assert_eq!(queue.try_get().unwrap(), number);
        }
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    }
}

#[test]
fn messages_of_all_sizes_wrap_and_grow() {
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(1 << 20).unwrap();
    let (mut sent, mut received) = (0u32, 0u32);
    let message = |n: u32| vec![n as u8; (n.wrapping_mul(2_654_435_761) >> 16) as usize % 9000];
    while received < 20_000 {
        for _ in 0..(sent % 37) + 1 {
            match queue.try_put(message(sent)) {
                Ok(()) => sent += 1,
                Err(PutError::Full(back)) => {
                    assert_eq!(back, message(sent));
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        for _ in 0..(received % 23) + 1 {
            match queue.try_get() {
                Ok(got) => {
                    assert_eq!(got, message(received), "{received}");
                    received += 1;
                }
                Err(GetError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(queue.len() as u32, sent - received);
    }
}

#[test]
fn a_bound_counts_messages() {
    let queue = Queue::<Vec<u8>, Bytes>::bounded(3).unwrap();
    for _ in 0..3 {
        queue.try_put(vec![]).unwrap();
    }
    assert!(queue.is_full());
    let start = Instant::now();
    let late = queue.put_timeout(vec![1], Duration::from_millis(30));
    assert!(matches!(late, Err(PutError::Full(message)) if message == [1]));
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(queue.get().unwrap(), []);
    queue.try_put(vec![2]).unwrap();
}

#[test]
fn threads_hand_over_asleep_and_awake() {
    let there = Queue::<u64, Raw>::bounded(4).unwrap();
    let back = Queue::<u64, Raw>::new().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in there.iter() {
                back.put(number.unwrap()).unwrap();
            }
        });
        for number in 0..20_000 {
            there.put(number).unwrap();
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        there.close();
        for number in 0..20_000 {
            assert_eq!(back.get().unwrap(), number);
        }
    });
    assert!(matches!(there.get(), Err(GetError::Closed)));
    assert!(matches!(there.put(1), Err(PutError::Closed(1))));
    assert_eq!(polyproc_sys::futex::backstop_rescues(), 0);
}

#[test]
fn many_threads() {
    let queue = Queue::<(u32, u32)>::bounded(16).unwrap();
    let got = std::sync::Mutex::new(vec![vec![]; 4]);
    std::thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let queue = queue.clone();
                scope.spawn(move || {
                    for number in 0..10_000 {
                        queue.put((producer, number)).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = [None; 4];
                for message in &queue {
                    let (producer, number) = message.unwrap();
                    assert!(last[producer as usize] < Some(number));
                    last[producer as usize] = Some(number);
                    got.lock().unwrap()[producer as usize].push(number);
                }
            });
        }
        for producer in producers {
            producer.join().unwrap();
        }
        queue.close();
    });
    for mut numbers in got.into_inner().unwrap() {
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..10_000));
    }
    assert_eq!(polyproc_sys::futex::backstop_rescues(), 0);
}
