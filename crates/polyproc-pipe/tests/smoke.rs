//! What a user does first.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{
    Bytes, Connection, Raw, RecvError, SendError, Sender, pipe, pipe_with_capacity, simplex, wait,
};
use polyproc_testing::watchdog;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

#[test]
fn there_and_back() {
    let (here, there) = pipe::<u32, String>().unwrap();
    for n in 0..10_000 {
        here.send(n).unwrap();
        assert_eq!(there.recv().unwrap(), n);
        there.send(n.to_string()).unwrap();
        assert_eq!(here.recv().unwrap(), n.to_string());
    }
    assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn messages_of_all_sizes_pass_whole_and_in_order() {
    let (here, there) = pipe_with_capacity::<Vec<u8>, (), Bytes>(4096).unwrap();
    let sizes = [0, 1, 7, 8, 9, 255, 256, 257, 2039, 2040, 2041, 4096, 4097, 70_000, 1 << 20, 0, 3];
    let message = |size: usize| (0..size).map(|n| (n * 31 + size) as u8).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                for size in sizes {
                    here.send_bytes(&message(size)).unwrap();
                }
            }
            here.close().unwrap();
        });
        for _ in 0..20 {
            for size in sizes {
                assert!(there.recv_bytes(usize::MAX).unwrap() == message(size), "{size}");
            }
        }
        assert!(matches!(there.recv_bytes(0), Err(RecvError::Disconnected)));
    });
}

#[test]
fn a_stream_between_threads_arrives_in_order() {
    let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..2_000_000).for_each(|n| here.send(n).unwrap()));
        for n in 0..2_000_000 {
            assert_eq!(there.recv().unwrap(), n);
        }
    });
}

#[test]
fn a_full_pipe_refuses_and_gives_the_message_back() {
    let (here, there) = pipe_with_capacity::<Vec<u8>, (), Bytes>(4096).unwrap();
    let mut sent = 0;
    let refused = loop {
        match here.try_send(vec![sent as u8; 100]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, SendError::Full(message) if *message == vec![sent as u8; 100]));
    let begin = Instant::now();
    assert!(matches!(here.send_timeout(vec![1; 5000], Duration::from_millis(30)), Err(SendError::Full(_))));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    for n in 0..sent {
        assert_eq!(there.try_recv().unwrap(), vec![n as u8; 100]);
    }
    // One that was begun and not finished is not seen, and the next one is.
    assert!(matches!(here.send_timeout(vec![2; 9000], Duration::from_millis(30)), Err(SendError::Full(_))));
    assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
    here.send(vec![3; 10]).unwrap();
    assert_eq!(there.recv().unwrap(), vec![3; 10]);
}

#[test]
fn a_message_that_is_too_long_stays_in_front() {
    let (here, there) = pipe_with_capacity::<Vec<u8>, (), Bytes>(4096).unwrap();
    here.send_bytes(b"0123456789").unwrap();
    let mut to = vec![7];
    assert!(matches!(there.recv_bytes_into(&mut to, 9), Err(RecvError::TooLong { length: 10, max: 9 })));
    assert_eq!(there.recv_bytes_into(&mut to, 10).unwrap(), 10);
    assert_eq!(to, b"\x070123456789");
    std::thread::scope(|scope| {
        scope.spawn(|| here.send_bytes(&[5; 100_000]).unwrap());
        assert!(matches!(there.recv_bytes(99_999), Err(RecvError::TooLong { length: 100_000, .. })));
        assert_eq!(there.recv_bytes(100_000).unwrap(), vec![5; 100_000]);
    });
}

#[test]
fn every_connection_takes_bytes_and_keeps_their_boundaries() {
    let (here, there) = pipe::<String, u64>().unwrap();
    for message in [&b""[..], b"\xff\0", b""] {
        here.send_bytes(message).unwrap();
    }
    for message in [&b""[..], b"\xff\0", b""] {
        assert_eq!(there.recv_bytes(2).unwrap(), message);
    }
    // What is not of the type is that message's error, and the next one is as it should be.
    here.send_bytes(b"\x05no").unwrap();
    here.send("yes".to_owned()).unwrap();
    assert!(matches!(there.recv(), Err(RecvError::Decode(_))));
    assert_eq!(there.recv_bytes(4).unwrap(), b"\x03yes");
    let (sender, receiver) = simplex::<u8>().unwrap();
    sender.send_bytes(&[9; 100]).unwrap();
    assert!(matches!(receiver.recv_bytes(99), Err(RecvError::TooLong { length: 100, max: 99 })));
    assert_eq!(receiver.recv_bytes(100).unwrap(), [9; 100]);
}

/// The sender does not ring for somebody who is awake: the descriptor alone would never become readable.
#[test]
fn connections_are_waited_for_by_their_descriptors_too() {
    let (a, at_a) = pipe::<u8, u8>().unwrap();
    let (b, at_b) = simplex::<u8>().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let all = [at_a.as_fd(), at_b.as_fd(), null.as_fd()];
    assert_eq!(wait(&all, Duration::ZERO).unwrap(), [2]);
    b.send(1).unwrap();
    assert_eq!(wait(&all[..2], Duration::from_secs(5)).unwrap(), [1]);
    assert_eq!(wait::<&dyn AsFd>(&[&null, &at_b, &at_a], None).unwrap(), [0, 1]);
    at_b.recv().unwrap();
    assert!(wait(&all[..2], Duration::from_millis(5)).unwrap().is_empty());
    drop((b, at_b));
    // Others that have got the same number since, unless another test was faster: then once more.
    let has_got_the_number = || {
        let (_b, at_b) = simplex::<u8>().unwrap();
        let number = at_b.as_fd().as_raw_fd();
        drop(at_b);
        let others: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert_eq!(wait(&others, None).unwrap().len(), others.len());
        others.iter().any(|other| other.as_raw_fd() == number)
    };
    assert!((0..1_000).any(|_| has_got_the_number()));
    a.send(1).unwrap();
    assert_eq!(wait(&[&at_a], None).unwrap(), [0]);
}

#[test]
fn a_poll_without_end_sees_the_message_and_the_end() {
    let (here, there) = pipe::<u8, u8>().unwrap();
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| there.poll(None).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!polling.is_finished());
        here.send(1).unwrap();
        assert!(polling.join().unwrap());
    });
    there.recv().unwrap();
    drop(here);
    assert!(there.poll(None).unwrap());
}

#[test]
fn drained_then_disconnected() {
    let (here, there) = pipe::<u8, u8>().unwrap();
    here.send(1).unwrap();
    here.send(2).unwrap();
    drop(here);
    assert!(there.poll(Duration::ZERO).unwrap());
    assert_eq!(there.recv().unwrap(), 1);
    assert_eq!(there.recv().unwrap(), 2);
    assert!(there.poll(Duration::ZERO).unwrap(), "the end counts");
    assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
    assert!(matches!(there.try_recv(), Err(RecvError::Disconnected)));
    assert!(matches!(there.send(3), Err(SendError::Disconnected(3))));
}

#[test]
fn the_first_send_to_nobody_fails_even_in_the_middle_of_a_conversation() {
    for round in 0..100 {
        let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
        for n in 0..round {
            here.send(n).unwrap();
            assert_eq!(there.recv().unwrap(), n);
        }
        drop(there);
        assert!(matches!(here.send(9), Err(SendError::Disconnected(9))), "round {round}");
    }
}

#[test]
fn who_closes_is_told_so_and_the_other_sees_the_end() {
    let (here, there) = pipe::<u8, u8>().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| there.recv());
        std::thread::sleep(Duration::from_millis(20));
        here.close().unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(RecvError::Disconnected)));
    });
    assert!(matches!(here.send(1), Err(SendError::Closed(1))));
    assert!(matches!(here.recv(), Err(RecvError::Closed)));
    assert!(here.is_closed());
}

#[test]
fn waits_take_as_long_as_they_should() {
    let (here, there) = pipe::<u8, u8>().unwrap();
    let begin = Instant::now();
    assert!(!there.poll(Duration::from_millis(30)).unwrap());
    assert!(matches!(there.recv_timeout(Duration::from_millis(30)), Err(RecvError::Empty)));
    assert!(begin.elapsed() >= Duration::from_millis(60));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            here.send(1).unwrap();
        });
        let begin = Instant::now();
        assert_eq!(there.recv().unwrap(), 1);
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(40) && took < Duration::from_millis(200), "{took:?}");
    });
}

#[test]
fn two_threads_send_and_two_receive_at_the_same_ends() {
    let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
    let sum = std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let here = here.clone();
            scope.spawn(move || (0..50_000).for_each(|n| here.send(n * 2 + thread).unwrap()));
        }
        let receivers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| (0..50_000).map(|_| there.recv().unwrap()).sum::<u64>())).collect();
        receivers.into_iter().map(|one| one.join().unwrap()).sum::<u64>()
    });
    assert_eq!(sum, (0..100_000).sum());
}

#[test]
fn without_the_kernels_barrier_it_works_too() {
    polyproc_pipe::without_membarrier(true);
    let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20_000 {
                assert_eq!(there.recv().unwrap(), n);
                there.send(n).unwrap();
            }
        });
        for n in 0..20_000 {
            here.send(n).unwrap();
            assert_eq!(here.recv().unwrap(), n);
        }
    });
    polyproc_pipe::without_membarrier(false);
}

/// The other side receives a message and lets go at once, while this one is still in `send`.
#[test]
fn what_was_received_does_not_come_back() {
    let mut received = 0;
    for _ in 0..3_000 {
        let (here, there) = pipe::<u32, u32>().unwrap();
        let receiver = std::thread::spawn(move || there.recv());
        // So that it is time to ask whether anybody is there.
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_micros(60) {
            std::hint::spin_loop();
        }
        let sent = here.send(7);
        if receiver.join().unwrap().is_ok() {
            received += 1;
            sent.expect("it was received");
        }
    }
    assert!(received > 1_000, "{received}");
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    let _dog = watchdog();
    let (here, there) = pipe::<u32, u32>().unwrap();
    for n in 0..3 {
        here.send(n).unwrap();
    }
    here.close_send().unwrap();
    here.close_send().unwrap();
    assert!(matches!(here.send(3), Err(SendError::Closed(3))));
    assert!(matches!(here.try_send(3), Err(SendError::Closed(3))));
    assert!(matches!(here.send_timeout(3, Duration::from_secs(1)), Err(SendError::Closed(3))));
    assert!(!here.is_closed());
    assert_eq!(there.iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2]);
    for _ in 0..3 {
        assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
        assert!(matches!(there.try_recv(), Err(RecvError::Disconnected)));
        assert!(matches!(there.recv_timeout(Duration::from_secs(5)), Err(RecvError::Disconnected)));
        assert!(there.poll(Duration::ZERO).unwrap(), "the end counts");
        assert!(there.prepare_wait().unwrap());
        assert_eq!(wait(&[&there], None).unwrap(), [0]);
    }
    for n in 0..100_000 {
        there.send(n).unwrap();
        assert_eq!(here.recv().unwrap(), n);
    }
    drop(there);
    assert!(matches!(here.recv(), Err(RecvError::Disconnected)));
    here.close_send().unwrap();
    here.close().unwrap();
    here.close_send().unwrap();
}

/// Nor does it cost anything that was sent before, if a long message has just been taken back for want of
/// room.
#[test]
fn the_end_of_a_direction_leaves_what_was_sent() {
    let _dog = watchdog();
    for length in (0..600).step_by(8) {
        let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(4096).unwrap();
        here.send(vec![3; length]).unwrap();
        assert!(matches!(here.try_send(vec![4; 1 << 20]), Err(SendError::Full(_))));
        here.close_send().unwrap();
        let received = there.iter().collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(received, [vec![3; length]], "{length} bytes");
    }
}

/// The end of a direction wakes who sleeps, though the ring is full in the other direction, and in this one.
#[test]
fn the_end_of_a_direction_needs_no_room_and_wakes_who_sleeps() {
    let _dog = watchdog();
    let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(4096).unwrap();
    while here.try_send(vec![1; 100]).is_ok() {}
    while there.try_send(vec![1; 100]).is_ok() {}
    here.close_send().unwrap();
    assert!(there.iter().map(Result::unwrap).all(|message| message == [1; 100]));

    let (here, there) = pipe::<u32, u32>().unwrap();
    let rescues = polyproc_sys::futex::backstop_rescues();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| there.recv());
        let waiter = scope.spawn(|| {
            let (_own, other) = pipe::<u32, u32>().unwrap();
            wait(&[&other, &there], None)
        });
        std::thread::sleep(Duration::from_millis(50));
        here.close_send().unwrap();
        assert!(matches!(sleeper.join().unwrap(), Err(RecvError::Disconnected)));
        assert_eq!(waiter.join().unwrap().unwrap(), [1]);
    });
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(polyproc_sys::futex::backstop_rescues(), rescues, "somebody was woken by its backstop");
}

/// With a poll(2) of one's own, and until a time.
#[test]
fn one_direction_is_waited_for_as_a_connection_is() {
    let _dog = watchdog();
    let (sender, receiver) = Sender::<u64, Raw>::pair().unwrap();
    let soon = || Instant::now() + Duration::from_millis(20);
    let begin = Instant::now();
    assert!(matches!(receiver.recv_until(soon()), Err(RecvError::Empty)));
    assert!(begin.elapsed() >= Duration::from_millis(20));
    sender.send_until(1, soon()).unwrap();
    assert_eq!(receiver.recv_until(soon()).unwrap(), 1);

    let is_readable = |patience: libc::c_int| {
        let mut polled = libc::pollfd { fd: receiver.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry is there.
        unsafe { libc::poll(&mut polled, 1, patience) == 1 }
    };
    for number in 2..5 {
        assert!(!receiver.prepare_wait().unwrap() && !receiver.has_news() && !is_readable(0));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| is_readable(20_000));
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waiting.is_finished());
            sender.send(number).unwrap();
            assert!(waiting.join().unwrap());
        });
        assert!(receiver.has_news() && receiver.prepare_wait().unwrap());
        assert_eq!(receiver.try_recv().unwrap(), number);
        assert!(matches!(receiver.try_recv(), Err(RecvError::Empty)));
    }
    assert!(!receiver.prepare_wait().unwrap());
    sender.send_bytes(&[1; 8]).unwrap();
    let mut bytes = vec![0];
    assert_eq!(receiver.recv_bytes_into(&mut bytes, 8).unwrap(), 8);
    assert_eq!(bytes, [0, 1, 1, 1, 1, 1, 1, 1, 1]);
    sender.close().unwrap();
    assert!(sender.is_closed() && !receiver.is_closed());
    assert!(matches!(sender.send_until(1, soon()), Err(SendError::Closed(1))));
    assert!(is_readable(20_000) && receiver.prepare_wait().unwrap());
    assert!(matches!(receiver.recv_until(soon()), Err(RecvError::Disconnected)));
}
