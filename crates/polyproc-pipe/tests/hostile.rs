//! A peer that writes anything anywhere: the worst that comes of it is an error.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, RecvError, SendError, pipe_with_capacity};
use polyproc_testing::{Child, Slot, watchdog};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// Children of one test have the descriptors of the others.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A generator that is good enough to scribble with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Where the pipe is mapped in this process: its control words and its rings, behind the headers of region
/// and object.
fn mapping() -> (*mut u64, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    // The pages of one mapping may be on several lines.
    let mut parts = maps.lines().filter(|line| line.contains("memfd:polyproc:pipe")).map(|line| {
        let (from, rest) = line.split_once('-').unwrap();
        let to = rest.split_once(' ').unwrap().0;
        [from, to].map(|address| usize::from_str_radix(address, 16).unwrap())
    });
    let mut whole = parts.next_back().expect("a mapped pipe");
    while let Some([from, to]) = parts.next_back()
        && to == whole[0]
    {
        whole[0] = from;
    }
    (whole[0] as *mut u64, (whole[1] - whole[0]) / 8)
}

/// What a scribbler likes to write.
fn nonsense(random: &mut Random) -> u64 {
    match random.next() % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 23,
        3 => random.next() % 4096,
        // Headers: of records of any kind, and of runs.
        4 => (1 << 23) | ((random.next() % 16) << 18) | ((random.next() % 8192) << 24),
        5 => (3 << 22) | ((random.next() % 26) << 24) | ((random.next() % 9) * 8) | (random.next() % 64 / 63),
        6 => u64::MAX - ((1 << 20) - 1) + random.next() % 16_384,
        _ => random.next(),
    }
}

#[test]
fn a_scribbler_is_an_error_and_no_deadline_is_missed() {
    let _alone = alone();
    let _watchdog = watchdog();
    let mut outcomes = [0; 4];
    for round in 1..=150u64 {
        let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
        let started = Slot::new();
        let child = Child::run(|| {
            here.close().unwrap();
            let (words, count) = mapping();
            let mut random = Random(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // Some begin honestly.
            for _ in 0..random.next() % 50 {
                let _ = there.send_timeout(vec![1; (random.next() % 3000) as usize], Duration::ZERO);
            }
            started.set(1);
            let everywhere = round % 3 == 0;
            loop {
                // The headers and the control words, and where the rings begin.
                let place = random.next() as usize % 256;
                let index = match place {
                    _ if everywhere => random.next() as usize % count,
                    0..128 => place,
                    _ => place - 128 + 512 * (1 + random.next() as usize % 2),
                };
                // SAFETY: within the mapping.
                let word = unsafe { words.add(index) };
                // SAFETY: this process may write to it; what that does to the other is the test.
                unsafe { word.write_volatile(nonsense(&mut random)) };
                if random.next().is_multiple_of(64) {
                    let byte = [[0, b'b', b'd', b'n'][random.next() as usize % 4]; 9];
                    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                    let length = random.next() as usize % 10;
                    // SAFETY: so many bytes are there.
                    unsafe { libc::send(there.as_fd().as_raw_fd(), byte.as_ptr().cast(), length, flags) };
                }
            }
        });
        drop(there);
        started.wait();
        let begin = Instant::now();
        let mut calls = 0;
        while begin.elapsed() < Duration::from_millis(15) {
            calls += 1;
            let call = Instant::now();
            let timeout = Duration::from_millis(1);
            match here.recv_timeout(timeout) {
                Ok(message) => {
                    assert!(
                        message.len() < 1 << 20,
                        "{} bytes through a ring of 4 KiB at once",
                        message.len()
                    );
                    outcomes[0] += 1;
                }
                Err(RecvError::Empty) => outcomes[1] += 1,
                Err(RecvError::Corrupt) => outcomes[2] += 1,
                Err(error) => panic!("round {round}: {error}"),
            }
            match here.send_timeout(vec![2; 500], timeout) {
                Ok(()) | Err(SendError::Full(_) | SendError::Corrupt(_)) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
            assert!(call.elapsed() < Duration::from_millis(500), "round {round}: {:?}", call.elapsed());
        }
        assert!(calls > 0);
        child.kill();
    }
    assert!(outcomes[2] > 0, "nothing was ever found to be corrupt: {outcomes:?}");
}

#[test]
fn bells_without_end_do_not_outlast_a_deadline() {
    let _alone = alone();
    let _watchdog = watchdog();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let child = Child::run(|| {
        loop {
            // SAFETY: one byte is there.
            unsafe { libc::send(there.as_fd().as_raw_fd(), c"b".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
        }
    });
    drop(there);
    for _ in 0..10 {
        let begin = Instant::now();
        assert!(matches!(here.recv_timeout(Duration::from_millis(20)), Err(RecvError::Empty)));
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(20) && took < Duration::from_millis(500), "{took:?}");
    }
    child.kill();
}

#[test]
fn parts_that_are_taken_back_without_end_do_not_outlast_a_deadline() {
    let _alone = alone();
    let _watchdog = watchdog();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let (words, _) = mapping();
    // All round the ring that the other side sends by, behind the page with the control words and the first
    // ring: the beginning of a message of 100 bytes, and that it does not go on.
    for at in (1024..1536).step_by(4) {
        for (place, word) in
            [(1 << 23) | (1 << 20) | (16 << 24), 100, 0, (1 << 23) | (1 << 21)].into_iter().enumerate()
        {
            // SAFETY: within the mapping.
            let word_there = unsafe { words.add(at + place) };
            // SAFETY: nobody else writes to it.
            unsafe { word_there.write_volatile(word) };
        }
    }
    for _ in 0..5 {
        let begin = Instant::now();
        assert!(matches!(here.recv_timeout(Duration::from_millis(20)), Err(RecvError::Empty)));
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(20) && took < Duration::from_millis(500), "{took:?}");
        assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
        assert!(begin.elapsed() < Duration::from_millis(500));
    }
    drop(there);
}
