//! A child that is forked while a thread of its parent is at work at an end: it is told so, and does not wait for a thread that
//! it does not have.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, RecvError, SendError, pipe_with_capacity, wait};
use polyproc_testing::{Child, Watchdog, watchdog};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{scope, sleep};
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
            let receiving = scope.spawn(|| here.recv());
            sleep(MOMENT);
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
            let sending = scope.spawn(|| here.send(vec![5; 50_000]));
            sleep(MOMENT);
            let child = fork(|| {
                cannot_send(&here);
                assert_eq!(here.recv_timeout(LONG).unwrap(), [3]);
                // With nothing there, it waits.
                assert!(matches!(here.recv_timeout(MOMENT), Err(RecvError::Empty)));
                assert_eq!(here.recv().unwrap(), [4]);
                cannot_send(&here);
            });
            there.send(vec![3]).unwrap();
            sleep(3 * MOMENT);
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
