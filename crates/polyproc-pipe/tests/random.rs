//! Everything that can be done with both ends of a pipe by one thread, in any order, beside what should come
//! of it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_memory::handover;
use polyproc_pipe::{Bytes, Connection, RecvError, SendError, pipe_with_capacity, wait};
use polyproc_testing::watchdog;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound) as usize
    }

    /// Short ones, several of which have the same length, some around half the ring, and some that do not fit
    /// into it.
    fn length(&mut self) -> usize {
        match self.below(8) {
            0..4 => [8, 8, 16, 24, 0, 1, 64][self.below(7)],
            4 => self.below(200),
            5 => self.below(2_100),
            6 => 2_020 + self.below(60),
            _ => self.below(3) * 50_000 + self.below(40_000),
        }
    }
}

/// What is on its way to an end.
#[derive(Default)]
struct Expected {
    /// Their bytes, and how many descriptors each has.
    messages: VecDeque<(Vec<u8>, usize)>,
    /// Parts that were taken back may be in the ring until somebody looks.
    is_clogged: bool,
}

fn send(end: &End, expected: &mut Expected, random: &mut Random, null: &File) {
    let message = vec![random.below(256) as u8; random.length()];
    let count = if random.below(8) == 0 { random.below(4) } else { 0 };
    let descriptors = vec![null.as_fd(); count];
    let result = match random.below(6) {
        _ if count != 0 => end.try_send_with(&message, &descriptors),
        0 => end.send_timeout(message.clone(), Duration::from_micros(10)).map_err(|error| error.map(drop)),
        1 => end.try_send_with(&message, &[]),
        _ => end.try_send(message.clone()).map_err(|error| error.map(drop)),
    };
    match result {
        Ok(()) => expected.messages.push_back((message, count)),
        Err(SendError::Full(())) => {
            let is_long = message.len() > 2_000;
            assert!(!expected.messages.is_empty() || is_long || expected.is_clogged, "{}", message.len());
            expected.is_clogged |= is_long;
        }
        Err(error) => panic!("{error}"),
    }
}

fn receive(end: &End, expected: &mut Expected, random: &mut Random) {
    let mut to = vec![7; random.below(2) * 3];
    let before = to.len();
    let received = match random.below(4) {
        0 => end.try_recv_with(&mut to).map(|descriptors| descriptors.len()),
        1 => end.recv_timeout(Duration::from_micros(5)).map(|message| {
            to.extend(message);
            expected.messages[0].1
        }),
        2 if !expected.messages.is_empty() => {
            let max = random.length();
            let received = end.recv_bytes_into(&mut to, max);
            if let Err(RecvError::TooLong { length, max: allowed }) = received {
                assert_eq!((length, allowed), (expected.messages[0].0.len(), max));
                assert!(length > max && to.len() == before);
                return;
            }
            received.map(|length| {
                assert_eq!(length, to.len() - before);
                expected.messages[0].1
            })
        }
        _ => end.try_recv().map(|message| {
            to.extend(message);
            expected.messages[0].1
        }),
    };
    match received {
        Ok(count) => {
            let (message, descriptors) = expected.messages.pop_front().unwrap();
            assert!(
                to[before..] == message && count == descriptors,
                "{} {}",
                to.len() - before,
                message.len()
            );
        }
        Err(RecvError::Empty) => {
            assert!(expected.messages.is_empty());
            expected.is_clogged = false;
        }
        Err(error) => panic!("{error}"),
    }
}

fn ask(end: &End, expected: &mut Expected, random: &mut Random) {
    let is_ready = match random.below(4) {
        0 => end.poll(Duration::ZERO).unwrap(),
        1 => end.prepare_wait().unwrap(),
        2 => end.poll(Duration::from_micros(5)).unwrap(),
        _ => !wait(&[end], Duration::ZERO).unwrap().is_empty(),
    };
    assert_eq!(is_ready, !expected.messages.is_empty());
    expected.is_clogged &= is_ready;
}

/// To itself. Not while descriptors are here whose message is not received.
fn travel(end: &mut End, expected: &Expected) {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(end));
    let Ok(bytes) = bytes else {
        let has_some = expected.messages.iter().any(|(_, descriptors)| *descriptors != 0);
        // Those of a message that was taken back behind another one.
        return assert!(has_some || expected.is_clogged && !expected.messages.is_empty());
    };
    let descriptors = descriptors.iter().map(|one| one.as_fd().try_clone_to_owned().unwrap()).collect();
    *end = handover::receive(descriptors, || postcard::from_bytes(&bytes)).unwrap();
}

#[test]
fn whatever_is_done_with_both_ends_comes_out_as_it_should() {
    let _dog = watchdog();
    let null = File::open("/dev/null").unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for seed in 1..=100u64 {
        let before = open();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (here, there): (End, End) =
            if seed % 4 == 0 { Connection::pair() } else { pipe_with_capacity(4096) }.unwrap();
        let mut ends = [here, there];
        // What each of them is to receive.
        let mut expected = [Expected::default(), Expected::default()];
        // Some like to send, some to receive.
        let taste = 2 + random.below(6);
        for _ in 0..2_000 {
            let side = random.below(2);
            match random.below(12) {
                at if at < taste => send(&ends[side], &mut expected[1 - side], &mut random, &null),
                8 | 9 if random.below(8) == 0 => ask(&ends[side], &mut expected[side], &mut random),
                10 if random.below(8) == 0 => travel(&mut ends[side], &expected[side]),
                _ => receive(&ends[side], &mut expected[side], &mut random),
            }
        }
        let [here, there] = ends;
        let here = if random.below(2) == 0 {
            drop(here);
            None
        } else {
            here.close_send().unwrap();
            Some(here)
        };
        while !expected[1].messages.is_empty() {
            receive(&there, &mut expected[1], &mut random);
        }
        assert!(there.poll(None).unwrap());
        assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
        drop((here, there));
        assert_eq!(open(), before, "seed {seed}");
    }
}
