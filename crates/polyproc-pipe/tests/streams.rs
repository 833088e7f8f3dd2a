//! Streams of messages of one length, with others in between, in any order, by one who knows how long they
//! are, beside what should come.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_memory::handover;
use polyproc_pipe::{Connection, Raw, RecvError, SendError, pipe_with_capacity};
use polyproc_testing::watchdog;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

type End<const N: usize> = Connection<[u8; N], [u8; N], Raw>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Message `number`.
fn content(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|index| (number * 31 + index * 7) as u8).collect()
}

/// To itself.
fn travel<const N: usize>(end: &mut End<N>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(end));
    let descriptors = descriptors.iter().map(|one| one.as_fd().try_clone_to_owned().unwrap()).collect();
    *end = handover::receive(descriptors, || postcard::from_bytes(&bytes.unwrap())).unwrap();
}

fn pair<const N: usize>(seed: u64) -> (End<N>, End<N>) {
    match seed % 4 {
        0 => Connection::pair(),
        1 => pipe_with_capacity(65_536),
        _ => pipe_with_capacity(4096),
    }
    .unwrap()
}

/// How long a message is that is not like the others.
fn other<const N: usize>(random: &mut Random) -> usize {
    match random.below(4) {
        0 => random.below(33) as usize,
        1 => random.below(80) as usize,
        2 => random.below(2_000) as usize,
        _ => N,
    }
}

fn in_any_order<const N: usize>(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut here, mut there) = pair::<N>(seed);
    let mut waiting = VecDeque::new();
    let mut number = 0;
    for _ in 0..1_500 {
        match random.below(16) {
            0..7 => {
                let most = if random.below(9) == 0 { 1_000 } else { 40 };
                for _ in 0..random.below(most) {
                    let message = content(number, N);
                    match here.try_send(*message.as_array().unwrap()) {
                        Ok(()) => waiting.push_back(message),
                        Err(SendError::Full(_)) => {
                            assert!(!waiting.is_empty());
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    number += 1;
                }
            }
            7 => {
                let message = content(number, other::<N>(&mut random));
                if waiting.len() < 5 {
                    here.send_bytes(&message).unwrap();
                    waiting.push_back(message);
                    number += 1;
                }
            }
            8 if random.below(4) == 0 => travel(&mut here),
            9 if random.below(4) == 0 => travel(&mut there),
            10 => assert_eq!(there.poll(Duration::ZERO).unwrap(), !waiting.is_empty()),
            _ => {
                for _ in 0..random.below(60) {
                    let Some(expected) = waiting.pop_front() else {
                        assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
                        break;
                    };
                    if expected.len() == N && random.below(50) != 0 {
                        assert_eq!(there.try_recv().unwrap()[..], expected, "seed {seed}");
                    } else {
                        assert_eq!(there.recv_bytes(9_000).unwrap(), expected, "seed {seed}");
                    }
                }
            }
        }
    }
    drop(here);
    for expected in waiting {
        assert_eq!(there.recv_bytes(9_000).unwrap(), expected);
    }
    assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
}

/// At the same time.
fn at_once<const N: usize>(seed: u64) {
    let (here, there) = pair::<N>(seed);
    let lengths = move || {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let rare = 1 + random.below(300);
        (0..60_000u64).map(move |number| {
            let length = if random.below(rare) == 0 { other::<N>(&mut random) } else { N };
            (number, length)
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(seed | 1);
            for (number, length) in lengths() {
                let message = content(number, length);
                match message.as_array() {
                    Some(array) => here.send(*array).unwrap(),
                    None => here.send_bytes(&message).unwrap(),
                }
                if random.below(3_000) == 0 {
                    std::thread::sleep(Duration::from_micros(random.below(100)));
                }
            }
        });
        let mut random = Random(seed | 3);
        for (number, length) in lengths() {
            let expected = content(number, length);
            if length == N {
                assert_eq!(there.recv().unwrap()[..], expected, "seed {seed}, {number}");
            } else {
                assert_eq!(there.recv_bytes(9_000).unwrap(), expected, "seed {seed}, {number}");
            }
            if random.below(3_000) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(100)));
            }
        }
        assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
    });
}

const SEEDS: u64 = 60;

#[test]
fn streams_and_others_in_any_order_while_both_ends_travel() {
    let _dog = watchdog();
    for seed in 1..=SEEDS {
        match seed % 7 {
            0 => in_any_order::<1>(seed),
            1 => in_any_order::<8>(seed),
            2 => in_any_order::<16>(seed),
            3 => in_any_order::<24>(seed),
            4 => in_any_order::<20>(seed),
            5 => in_any_order::<40>(seed),
            _ => in_any_order::<64>(seed),
        }
    }
}

#[test]
fn streams_and_others_at_once() {
    let _dog = watchdog();
    for seed in 1..=SEEDS {
        match seed % 7 {
            0 => at_once::<1>(seed),
            1 => at_once::<8>(seed),
            2 => at_once::<16>(seed),
            3 => at_once::<24>(seed),
            4 => at_once::<20>(seed),
            5 => at_once::<40>(seed),
            _ => at_once::<64>(seed),
        }
    }
}
