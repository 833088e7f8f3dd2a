//! Messages that were taken back half-way: whoever asks whether something is there does not see them.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, RecvError, SendError, pipe_with_capacity, wait};
use polyproc_testing::watchdog;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;
type Ask = fn(&End) -> bool;

const NOW: Duration = Duration::ZERO;
const LONG: usize = 3 << 20;

/// All that say whether there is something to receive.
const ASKS: [Ask; 4] = [
    |end| end.poll(NOW).unwrap(),
    |end| end.poll(Duration::from_millis(1)).unwrap(),
    |end| end.prepare_wait().unwrap(),
    |end| !wait(&[end], NOW).unwrap().is_empty(),
];

/// A ring that stays as it is, and one that grows several times in the middle of the message.
fn pairs() -> [(End, End); 2] {
    [pipe_with_capacity(4096).unwrap(), Connection::pair().unwrap()]
}

/// With a part of it in the ring, or more.
fn take_back(end: &End, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
    assert!(matches!(end.try_send_with(&vec![1; LONG], descriptors), Err(SendError::Full(()))));
}

#[test]
fn what_was_taken_back_is_no_news() {
    let _dog = watchdog();
    for ask in ASKS {
        for (here, there) in pairs() {
            for messages in [1, 3] {
                (0..messages).for_each(|_| take_back(&here, &[]));
                assert!(!ask(&there));
                assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
                (0..messages).for_each(|_| take_back(&here, &[]));
                here.send(vec![2]).unwrap();
                assert!(ask(&there), "what follows is");
                assert_eq!(there.recv().unwrap(), [2]);
                assert!(!ask(&there));
            }
            take_back(&here, &[]);
            drop(here);
            assert!(ask(&there), "the end is");
            assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
        }
    }
}

/// Some of it was received before.
#[test]
fn the_rest_of_what_was_taken_back_is_no_news() {
    let _dog = watchdog();
    for ask in ASKS {
        for (here, there) in pairs() {
            std::thread::scope(|scope| {
                let sending = scope.spawn(|| here.send_timeout(vec![1; LONG], Duration::from_millis(100)));
                // Takes some, and leaves the rest.
                while !there.poll(NOW).unwrap() {}
                assert!(matches!(there.recv_timeout(Duration::from_micros(50)), Err(RecvError::Empty)));
                assert!(matches!(sending.join().unwrap(), Err(SendError::Full(_))));
            });
            assert!(!ask(&there));
            here.send(vec![2]).unwrap();
            assert!(ask(&there));
            assert_eq!(there.recv().unwrap(), [2]);
        }
    }
}

/// Nor is it too long for anybody.
#[test]
fn what_was_taken_back_is_not_too_long() {
    let _dog = watchdog();
    for (here, there) in pairs() {
        take_back(&here, &[]);
        let mut received = Vec::new();
        here.send(vec![2]).unwrap();
        assert_eq!(there.recv_bytes(1).unwrap(), [2]);
        take_back(&here, &[]);
        take_back(&here, &[]);
        here.send(vec![3; 9]).unwrap();
        let refused = there.recv_bytes_into(&mut received, 1);
        assert!(matches!(refused, Err(RecvError::TooLong { length: 9, max: 1 })), "{refused:?}");
        assert_eq!(there.recv_bytes(9).unwrap(), [3; 9]);
    }
}

/// And its descriptors are closed, and the next message has its own.
#[test]
fn the_descriptors_of_what_was_taken_back_are_closed_by_who_asks() {
    let _dog = watchdog();
    let null = std::fs::File::open("/dev/null").unwrap();
    for ask in ASKS {
        for (here, there) in pairs() {
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            // Others of this process may open and close some meanwhile.
            let before = open();
            take_back(&here, &[null.as_fd(); 5]);
            assert!(!ask(&there));
            polyproc_testing::wait_until("they are closed", || open() <= before);
            here.send_with(&[2], &[null.as_fd()]).unwrap();
            assert!(ask(&there));
            let mut received = Vec::new();
            assert_eq!(there.recv_with(&mut received).unwrap().len(), 1);
            assert_eq!(received, [2]);
        }
    }
}

/// Who waits goes on waiting, until its deadline and no longer.
#[test]
fn who_waits_is_not_woken_for_what_is_taken_back() {
    let _dog = watchdog();
    for (here, there) in pairs() {
        let timeout = Duration::from_millis(60);
        let ways: [&(dyn Fn() -> bool + Sync); 2] =
            [&|| there.poll(timeout).unwrap(), &|| !wait(&[&there], timeout).unwrap().is_empty()];
        for way in ways {
            let is_late = (0..100).all(|_| {
                let begin = Instant::now();
                let found = std::thread::scope(|scope| {
                    let waiting = scope.spawn(way);
                    std::thread::sleep(timeout / 4);
                    let sent = here.try_send(vec![1; LONG]);
                    assert!(matches!(sent, Err(SendError::Full(_))));
                    waiting.join().unwrap()
                });
                assert!(found || begin.elapsed() >= timeout);
                // It may have looked when a part was there that was not taken back yet.
                found
            });
            assert!(!is_late);
            assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
        }
    }
}
