//! Ends in other processes, and what becomes of them when those die.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{
    Bytes, Connection, Postcard, Raw, RecvError, SendError, Waitable, pipe, pipe_with_capacity, simplex, wait,
};
use polyproc_testing::{Child, Slot, Watchdog, signal, watchdog};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than any wake-up on a busy machine, shorter than any backstop that matters.
const SOON: Duration = Duration::from_millis(200);

/// A forked child has all descriptors of its parent, those of other tests too, and keeps their ends alive.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

#[test]
fn a_child_answers() {
    let _alone = alone();
    let (here, there) = pipe::<u64, u64>().unwrap();
    let child = Child::run(|| {
        for n in there.iter() {
            there.send(n.unwrap() + 1).unwrap();
        }
    });
    drop(there);
    for n in 0..10_000 {
        here.send(n).unwrap();
        assert_eq!(here.recv().unwrap(), n + 1);
    }
    here.close().unwrap();
    drop(here);
    child.kill();
}

#[test]
fn a_killed_sender_leaves_whole_messages_and_then_the_end() {
    let _alone = alone();
    for round in 0..300u64 {
        let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(8192).unwrap();
        let acknowledged = Slot::new();
        let child = Child::run(|| {
            for n in 0u64.. {
                let length = 8 + (n * 37 % 7_000) as usize;
                let mut message = vec![n as u8; length];
                message[..8].copy_from_slice(&n.to_ne_bytes());
                there.send_bytes(&message).unwrap();
                acknowledged.set(n + 1);
            }
        });
        // The forked child has the end; here it would keep the other one waiting.
        drop(there);
        for n in 0..round {
            check(&here.recv().unwrap(), n);
        }
        child.kill();
        let killed = Instant::now();
        let mut next = round;
        loop {
            match here.recv() {
                Ok(message) => {
                    check(&message, next);
                    next += 1;
                }
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
        let sent = acknowledged.get();
        assert!(next == sent || next == sent + 1, "{next} received, {sent} acknowledged");
        assert!(matches!(here.send_bytes(b"x"), Err(SendError::Disconnected(()))));
    }
}

/// As above, with messages in parts, of which the sender holds some back, or writes the last one.
#[test]
fn a_killed_sender_of_long_messages_leaves_whole_ones_and_then_the_end() {
    const LENGTH: usize = 700_001;
    let _alone = alone();
    let is_whole = |message: &[u8], n: u64| {
        message.len() == LENGTH
            && message[..8] == n.to_ne_bytes()
            && message[8..].iter().all(|byte| *byte == n as u8)
    };
    for round in 0..100u64 {
        let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(1 << 20).unwrap();
        let acknowledged = Slot::new();
        let child = Child::run(|| {
            for n in 0u64.. {
                let mut message = vec![n as u8; LENGTH];
                message[..8].copy_from_slice(&n.to_ne_bytes());
                there.send_bytes(&message).unwrap();
                acknowledged.set(n + 1);
            }
        });
        drop(there);
        let before = round % 10;
        for n in 0..before {
            assert!(is_whole(&here.recv().unwrap(), n), "message {n}");
        }
        // It has filled the ring, or is somewhere in a message.
        (0..round * 300).for_each(|_| std::hint::spin_loop());
        child.kill();
        let killed = Instant::now();
        let mut next = before;
        loop {
            match here.recv() {
                Ok(message) => {
                    assert!(is_whole(&message, next), "message {next}");
                    next += 1;
                }
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
        let sent = acknowledged.get();
        assert!(next == sent || next == sent + 1, "{next} received, {sent} acknowledged");
    }
}

fn check(message: &[u8], n: u64) {
    assert_eq!(message.len(), 8 + (n * 37 % 7_000) as usize);
    assert_eq!(message[..8], n.to_ne_bytes());
    assert!(message[8..].iter().all(|byte| *byte == n as u8));
}

#[test]
fn who_sleeps_hears_of_the_death_at_once() {
    let _alone = alone();
    let mut took = Vec::new();
    for _ in 0..100 {
        let (here, there) = pipe::<u8, u8>().unwrap();
        let child = Child::run(|| {
            there.recv().unwrap_err();
        });
        drop(there);
        child.wait_asleep();
        let begin = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                assert!(matches!(here.recv(), Err(RecvError::Disconnected)));
                Instant::now()
            });
            std::thread::sleep(Duration::from_millis(2));
            let begin = Instant::now();
            child.kill();
            waiting.join().unwrap() - begin
        });
        took.push(begin);
    }
    took.sort();
    assert!(took[50] < Duration::from_millis(50), "median {:?}", took[50]);
}

#[test]
fn who_waits_for_room_hears_of_the_death() {
    let _alone = alone();
    let (here, there) = pipe_with_capacity::<Vec<u8>, (), Bytes>(4096).unwrap();
    let child = Child::run(|| {
        let _kept = &there;
        polyproc_testing::wait_for_the_end();
    });
    drop(there);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| here.send(vec![1; 1 << 20]));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        child.kill();
        assert!(
            matches!(waiting.join().unwrap(), Err(SendError::Disconnected(message)) if message.len() == 1 << 20)
        );
    });
}

#[test]
fn a_stopped_peer_costs_the_deadline_and_nothing_else() {
    let _alone = alone();
    let (here, there) = pipe::<u64, u64>().unwrap();
    let child = Child::run(|| {
        for n in there.iter() {
            there.send(n.unwrap()).unwrap();
        }
    });
    drop(there);
    here.send(1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    child.wait_asleep();
    signal(child.pid(), libc::SIGSTOP);
    here.send(2).unwrap();
    let begin = Instant::now();
    assert!(matches!(here.recv_timeout(Duration::from_millis(50)), Err(RecvError::Empty)));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(50) && took < SOON, "{took:?}");
    signal(child.pid(), libc::SIGCONT);
    assert_eq!(here.recv().unwrap(), 2);
    child.kill();
}

#[test]
fn a_connection_and_a_handle_travel_in_a_message() {
    let _alone = alone();
    type Inner = Connection<u32, u32>;
    let (here, there) = pipe::<(Inner, polyproc_memory::Arena), u32>().unwrap();
    let child = Child::run(|| {
        here.close().unwrap(); // The fork made a copy of it.
        while let Ok((inner, arena)) = there.recv() {
            assert_eq!(arena.capacity(), 8192);
            let n: u32 = inner.recv().unwrap();
            inner.send(n * 2).unwrap();
        }
    });
    drop(there);
    for n in 0..50 {
        let (kept, given) = pipe::<u32, u32>().unwrap();
        kept.send(n).unwrap();
        here.send((given, polyproc_memory::Arena::new(8192).unwrap())).unwrap();
        assert_eq!(kept.recv().unwrap(), 2 * n);
        assert!(matches!(kept.recv(), Err(RecvError::Disconnected)), "what was given is only there");
    }
    drop(here);
    child.join();
}

#[test]
fn an_end_goes_on_where_it_was() {
    let _alone = alone();
    let (courier, at_courier) = simplex::<Connection<u64, u64>>().unwrap();
    let (here, there) = pipe::<u64, u64>().unwrap();
    for n in 0..100 {
        here.send(n).unwrap();
        there.send(n).unwrap();
    }
    for n in 0..40 {
        assert_eq!(there.recv().unwrap(), n);
    }
    let child = Child::run(|| {
        let there = at_courier.recv().unwrap();
        for n in 40..100 {
            assert_eq!(there.recv().unwrap(), n);
        }
        there.send(100).unwrap();
    });
    courier.send(there).unwrap();
    for n in 0..=100 {
        assert_eq!(here.recv().unwrap(), n);
    }
    child.join();
    assert!(matches!(here.recv(), Err(RecvError::Disconnected)));
}

/// Either end: the one that sends no more, and the one that has not heard of that yet.
#[test]
fn an_end_that_sends_no_more_is_the_same_elsewhere() {
    let _alone = alone();
    let (courier, at_courier) = simplex::<Connection<u64, u64>>().unwrap();
    let (here, there) = pipe::<u64, u64>().unwrap();
    here.send(1).unwrap();
    here.close_send().unwrap();
    let child = Child::run(|| {
        let here = at_courier.recv().unwrap();
        assert!(matches!(here.send(2), Err(SendError::Closed(2))));
        here.close_send().unwrap();
        assert_eq!(here.recv().unwrap(), 7);
        let there = at_courier.recv().unwrap();
        assert_eq!(there.recv().unwrap(), 1);
        assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
        there.send(8).unwrap();
        assert_eq!(here.recv().unwrap(), 8);
    });
    courier.send(here).unwrap();
    there.send(7).unwrap();
    courier.send(there).unwrap();
    child.join();
}

#[test]
fn a_pipe_that_is_full_grows_and_goes_on_elsewhere() {
    let _alone = alone();
    type End = Connection<Vec<u8>, Vec<u8>, Bytes>;
    let message = |n: usize| vec![n as u8; 900 + n % 200];
    let (courier, at_courier) = simplex::<End>().unwrap();
    let (here, there): (End, End) = Connection::pair().unwrap();
    let (mut sent, mut received) = (0, 0);
    // Each round fills the pipe and takes a half.
    for _ in 0..20 {
        while here.try_send(message(sent)).is_ok() {
            sent += 1;
        }
        let half = (sent - received) / 2;
        for n in received..received + half {
            assert_eq!(there.recv().unwrap(), message(n));
        }
        received += half;
    }
    while here.try_send(message(sent)).is_ok() {
        sent += 1;
    }
    assert!(sent - received > 700, "only {} messages have room", sent - received);
    let child = Child::run(|| {
        let there = at_courier.recv().unwrap();
        for n in received..sent + 3_000 {
            assert_eq!(there.recv().unwrap(), message(n));
        }
        there.send(vec![]).unwrap();
    });
    courier.send(there).unwrap();
    for n in sent..sent + 3_000 {
        here.send(message(n)).unwrap();
    }
    assert_eq!(here.recv().unwrap(), []);
    child.join();
}

#[test]
fn outside_of_a_hand_over_nothing_travels() {
    let _alone = alone();
    let (here, _there) = pipe::<u8, u8>().unwrap();
    assert!(postcard::to_stdvec(&here).is_err());
    here.send(1).unwrap();
}

#[test]
fn hundreds_are_waited_for_at_once() {
    let _alone = alone();
    let pipes: Vec<_> = (0..200).map(|_| pipe_with_capacity::<u64, u64, Raw>(4096).unwrap()).collect();
    let (ends, others): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let child = Child::run(|| {
        for (n, other) in others.iter().enumerate().rev() {
            other.send(n as u64).unwrap();
            std::thread::yield_now();
        }
        polyproc_testing::wait_for_the_end();
    });
    drop(others);
    let mut seen = vec![false; ends.len()];
    while seen.contains(&false) {
        let waitables: Vec<Waitable<'_>> = ends.iter().map(Into::into).collect();
        for index in wait(&waitables, None).unwrap() {
            assert_eq!(ends[index].try_recv().unwrap(), index as u64);
            assert!(!std::mem::replace(&mut seen[index], true));
        }
    }
    let waitables: Vec<_> = ends.iter().collect();
    let begin = Instant::now();
    assert!(wait(&waitables, Some(Duration::from_millis(30))).unwrap().is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(30));
    child.kill();
    assert_eq!(wait(&waitables, None).unwrap().len(), ends.len());
}

/// Sends a handle until there is no more room for descriptors on their way.
#[test]
fn descriptors_that_find_no_room_cost_only_their_own_message() {
    let _alone = alone();
    type Handle = Connection<u8, u8>;
    let (here, there) = pipe_with_capacity::<(u32, Option<Handle>), u8, Postcard>(1 << 20).unwrap();
    let (handle, _other) = pipe::<u8, u8>().unwrap();
    let handles = |n| (n, Some(handle.clone()));
    let mut sent = 0;
    let refused = loop {
        match here.try_send(handles(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100_000, "there always is room");
    };
    assert!(matches!(refused, SendError::Full(_) | SendError::Io { .. }), "{refused:?}");
    here.send((sent, None)).unwrap();
    for n in 0..=sent {
        let (number, handle) = there.recv().unwrap();
        assert_eq!((number, handle.is_some()), (n, n < sent));
    }
    // The descriptors of the next message are its own.
    for n in 0..10 {
        here.send(handles(n)).unwrap();
        assert_eq!(there.recv().unwrap().0, n);
    }
}

/// One thread waits for room, another asks for messages that are not there, at the same end.
#[test]
fn who_passes_by_does_not_take_the_bell_of_who_waits() {
    let _alone = alone();
    polyproc_testing::woken_in_time(|| {
        let (here, there) = pipe_with_capacity::<u64, u64, Raw>(4096).unwrap();
        let before = polyproc_sys::futex::backstop_rescues();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..20_000).for_each(|n| here.send(n).unwrap());
                is_over.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
                }
            });
            for n in 0..20_000 {
                if n % 500 == 0 {
                    // The sender falls asleep meanwhile.
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert_eq!(there.recv().unwrap(), n);
            }
        });
        polyproc_sys::futex::backstop_rescues() - before
    });
}

/// More than go beside one packet of the socket.
#[test]
fn a_message_has_hundreds_of_descriptors() {
    let _alone = alone();
    type Ends = Vec<Connection<u64, u64, Raw>>;
    let (here, there) = pipe::<Ends, ()>().unwrap();
    let pipes: Vec<_> = (0..150).map(|_| pipe_with_capacity::<u64, u64, Raw>(4096).unwrap()).collect();
    let (kept, given): (Vec<_>, Ends) = pipes.into_iter().unzip();
    let child = Child::run(|| {
        for (n, end) in (0..).zip(there.recv().unwrap()) {
            end.send(n).unwrap();
        }
    });
    here.send(given).unwrap();
    for (n, end) in (0..).zip(&kept) {
        assert_eq!(end.recv().unwrap(), n);
        assert!(matches!(end.recv(), Err(RecvError::Disconnected)));
    }
    child.join();
}

/// Also a message of which a part was received before, by a call that ran into its deadline.
#[test]
fn a_message_that_has_begun_is_not_received_by_who_takes_less() {
    let _alone = alone();
    let (here, there) = pipe_with_capacity::<Vec<u8>, (), Bytes>(4096).unwrap();
    let child = Child::run(|| here.send(vec![5; 100_000]).unwrap());
    child.wait_asleep();
    child.signal(libc::SIGSTOP);
    assert!(matches!(there.recv_timeout(Duration::from_millis(20)), Err(RecvError::Empty)));
    child.signal(libc::SIGCONT);
    for _ in 0..2 {
        assert!(matches!(there.recv_bytes(99_999), Err(RecvError::TooLong { length: 100_000, max: 99_999 })));
    }
    assert_eq!(there.recv_bytes(100_000).unwrap(), vec![5; 100_000]);
    child.join();
}
