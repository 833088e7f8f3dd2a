//! A child that is forked while a thread of its parent is at work at an end: it is told so, and does not wait
//! for a thread that it does not have.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, Raw, RecvError, SendError, pipe_with_capacity, simplex, wait};
use polyproc_testing::{Child, Slot, Watchdog, tid, wait_asleep, watchdog};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{Scope, ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

const MOMENT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

/// A forked child has all descriptors of its parent, those of other tests too, and keeps their ends alive.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

/// Forks a child, which ends well, and in time.
fn fork(child: impl FnOnce()) -> Child {
    Child::run(|| {
        // SAFETY: takes a number. Nobody handles the signal, so it ends a child that waits for ever.
        unsafe { libc::alarm(10) };
        child();
    })
}

/// Both ends of a pipe. Their gates belong to one thread, or are everybody's.
fn ends(is_shared: bool) -> (End, End) {
    let (here, there) = pipe_with_capacity(4096).unwrap();
    if is_shared {
        for end in [&here, &there] {
            let other = if std::ptr::eq(end, &here) { &there } else { &here };
            end.send(vec![1]).unwrap();
            other.recv().unwrap();
            scope(|scope| {
                scope.spawn(|| end.send(vec![1]).unwrap());
            });
            scope(|scope| {
                scope.spawn(|| other.recv().unwrap());
            });
        }
    }
    (here, there)
}

/// Has a thread do something in which it falls asleep, and waits for that.
fn falls_asleep<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    f: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let (sender, receiver) = mpsc::channel();
    let thread = scope.spawn(move || {
        sender.send(tid()).unwrap();
        f()
    });
    wait_asleep(receiver.recv().unwrap());
    thread
}

fn cannot_receive(end: &End) {
    let begin = Instant::now();
    assert!(matches!(end.recv(), Err(RecvError::Corrupt)));
    assert!(matches!(end.try_recv(), Err(RecvError::Corrupt)));
    assert!(matches!(end.recv_timeout(LONG), Err(RecvError::Corrupt)));
    assert!(matches!(end.recv_bytes(1), Err(RecvError::Corrupt)));
    assert!(end.poll(LONG).unwrap() && end.prepare_wait().unwrap() && !end.has_news());
    assert_eq!(wait(&[end], LONG).unwrap(), [0]);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

fn cannot_send(end: &End) {
    let begin = Instant::now();
    assert!(matches!(end.send(vec![7]), Err(SendError::Corrupt(message)) if message == [7]));
    assert!(matches!(end.try_send(vec![7; 5_000]), Err(SendError::Corrupt(_))));
    assert!(matches!(end.send_timeout(vec![7], LONG), Err(SendError::Corrupt(_))));
    assert!(matches!(end.close_send(), Err(SendError::Corrupt(()))));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn where_a_thread_of_its_parent_receives_a_child_cannot_but_it_can_send() {
    let _alone = alone();
    for is_shared in [false, true] {
        let (here, there) = ends(is_shared);
        scope(|scope| {
            let receiving = falls_asleep(scope, || here.recv());
            let child = fork(|| {
                cannot_receive(&here);
                for thread in 0..2 {
                    // Its other threads neither.
                    std::thread::scope(|scope| {
                        scope.spawn(|| cannot_receive(&here));
                    });
                    // More than there is room for.
                    here.send(vec![thread; 20_000]).unwrap();
                }
                here.close().unwrap();
                assert!(matches!(here.recv(), Err(RecvError::Corrupt | RecvError::Closed)));
            });
            for thread in 0..2 {
                assert_eq!(there.recv().unwrap(), [thread; 20_000]);
            }
            child.join();
            there.send(vec![9]).unwrap();
            assert_eq!(receiving.join().unwrap().unwrap(), [9]);
        });
    }
}

#[test]
fn where_a_thread_of_its_parent_sends_a_child_cannot_but_it_can_receive() {
    let _alone = alone();
    for is_shared in [false, true] {
        let (here, there) = ends(is_shared);
        scope(|scope| {
            let sending = falls_asleep(scope, || here.send(vec![5; 50_000]));
            let has_waited = Slot::new();
            let child = fork(|| {
                cannot_send(&here);
                assert_eq!(here.recv_timeout(LONG).unwrap(), [3]);
                // With nothing there, it waits.
                assert!(matches!(here.recv_timeout(MOMENT), Err(RecvError::Empty)));
                has_waited.set(1);
                assert_eq!(here.recv().unwrap(), [4]);
                cannot_send(&here);
            });
            there.send(vec![3]).unwrap();
            has_waited.wait();
            there.send(vec![4]).unwrap();
            child.join();
            assert_eq!(there.recv().unwrap(), vec![5; 50_000]);
            sending.join().unwrap().unwrap();
        });
    }
}

/// Neither thread is inside.
#[test]
fn where_its_parent_does_nothing_a_child_goes_on() {
    let _alone = alone();
    for is_shared in [false, true] {
        let (here, there) = ends(is_shared);
        let child = fork(|| {
            for number in 0..100 {
                here.send(vec![number; 2_000]).unwrap();
                assert_eq!(here.recv().unwrap(), [number]);
            }
            fork(|| {
                here.send(vec![100]).unwrap();
                assert_eq!(here.recv().unwrap(), [100]);
            })
            .join();
        });
        for number in 0..100 {
            assert_eq!(there.recv().unwrap(), [number; 2_000]);
            there.send(vec![number]).unwrap();
        }
        assert_eq!(there.recv().unwrap(), [100]);
        there.send(vec![100]).unwrap();
        child.join();
    }
}

/// Each of those that have an end says farewell, and is heard, also in the middle of a burst: the first send
/// after the last one is refused.
#[test]
fn the_first_send_after_the_last_of_several_processes_has_closed_the_end_is_told_so() {
    let _alone = alone();
    let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
    let burst = || (0..2_000).for_each(|number| here.send(number).unwrap());
    let children: Vec<_> = (0..2u64)
        .map(|number| {
            let (begin, begun) = simplex::<u64>().unwrap();
            let child = fork(|| {
                begun.recv().unwrap();
                // It is somebody who has the end, and this is all that it does there.
                there.close().unwrap();
                here.close().unwrap();
                assert!(there.is_closed(), "{number}");
            });
            (begin, begun, child)
        })
        .collect();
    burst();
    there.close().unwrap();
    // The one who hears this finds that others are left, and goes on without a question.
    burst();
    let last = children.len() - 1;
    for (number, (begin, _begun, child)) in children.into_iter().enumerate() {
        begin.send(1).unwrap();
        child.join();
        if number < last {
            burst();
        }
    }
    assert!(matches!(here.send(7), Err(SendError::Disconnected(7))));
    assert!(matches!(here.send(7), Err(SendError::Disconnected(7))));
}

/// A stop in the middle of a long message, with parts held back, and then a death: whoever receives waits no
/// longer than it wants.
#[test]
fn a_sender_that_is_stopped_with_parts_held_back_costs_the_deadline_and_its_death_nothing() {
    let _alone = alone();
    for round in 0..20 {
        let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(1 << 20).unwrap();
        let child = Child::run(|| {
            here.close().unwrap();
            loop {
                there.send(vec![1; 900_000]).unwrap();
            }
        });
        there.close().unwrap();
        (0..5).for_each(|_| assert_eq!(here.recv().unwrap().len(), 900_000));
        (0..round * 2_000).for_each(|_| std::hint::spin_loop());
        child.signal(libc::SIGSTOP);
        let begin = Instant::now();
        let mut whole = 0;
        let late = loop {
            match here.recv_timeout(MOMENT) {
                Ok(message) => assert_eq!(message, [1; 900_000]),
                Err(RecvError::Empty) => break begin.elapsed(),
                Err(error) => panic!("{error}"),
            }
            whole += 1;
        };
        assert!(whole <= 2 && late >= MOMENT && late < Duration::from_secs(5), "{whole} {late:?}");
        assert!(!here.poll(MOMENT).unwrap() || here.try_recv().is_err());
        if round % 2 == 0 {
            child.signal(libc::SIGCONT);
            assert_eq!(here.recv_timeout(LONG).unwrap(), [1; 900_000]);
        }
        child.kill();
        let begin = Instant::now();
        while here.recv_timeout(LONG).is_ok() {}
        assert!(matches!(here.try_recv(), Err(RecvError::Disconnected)));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
