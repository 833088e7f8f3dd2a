//! Joining: exactly when all tasks are done.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{JoinableQueue, TaskDoneError};
use polyproc_sys::futex::backstop_rescues;
use std::time::{Duration, Instant};
use support::{Child, Slot, takes, wait_for_the_end, watchdog, woken_in_time};

const SOON: Duration = Duration::from_millis(30);

#[test]
fn all_joiners_go_on_with_the_last_task_and_no_sooner() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let queue = JoinableQueue::<u32>::new().unwrap();
        queue.join();
        queue.put_many(0..5).unwrap();
        let (joined, rescues) = (Slot::new(), Slot::new());
        let joiners = [(); 3].map(|()| {
            let asking = Slot::new();
            let child = Child::run(|| {
                asking.set(1);
                queue.join();
                joined.add(1);
                assert_eq!(queue.unfinished(), 0);
                rescues.add(backstop_rescues());
            });
            asking.wait();
            child.wait_asleep();
            child
        });
        for done in 0..5 {
            assert_eq!((joined.get(), queue.unfinished()), (0, 5 - done));
            queue.get().unwrap();
            joiners.iter().for_each(Child::wait_asleep);
            queue.task_done().unwrap();
        }
        joiners.into_iter().for_each(Child::join);
        rescues.get()
    });
}

#[test]
fn more_done_than_put_is_an_error() {
    let queue = JoinableQueue::<u32>::bounded(2).unwrap();
    assert_eq!(queue.task_done(), Err(TaskDoneError));
    queue.put(1).unwrap();
    // It counts what was put, not what was got.
    queue.task_done().unwrap();
    assert_eq!(queue.task_done(), Err(TaskDoneError));
    assert_eq!(TaskDoneError.to_string(), "task_done was called more often than messages were put");
    assert_eq!((queue.len(), queue.unfinished()), (1, 0));
    queue.put(2).unwrap();
    assert_eq!(queue.unfinished(), 1);
}

#[test]
fn a_join_ends_when_its_time_is_over() {
    let _watchdog = watchdog();
    let queue = JoinableQueue::<u32>::with_max_bytes(1 << 20).unwrap();
    queue.put(1).unwrap();
    takes(Duration::ZERO, || assert!(!queue.join_timeout(Duration::ZERO)));
    takes(SOON, || assert!(!queue.join_timeout(SOON)));
    takes(SOON, || assert!(!queue.join_until(Instant::now() + SOON)));
    queue.task_done().unwrap();
    assert!(queue.join_timeout(Duration::ZERO));
    assert!(queue.join_until(Instant::now() - SOON));
}

#[test]
fn a_killed_workers_task_is_not_done_and_a_claimed_one_is_done_by_another() {
    let _watchdog = watchdog();
    let queue = JoinableQueue::<u32>::new().unwrap();
    queue.put_many([1, 2]).unwrap();
    let (got, claimed) = (Slot::new(), Slot::new());
    let loses = Child::run(|| {
        queue.get().unwrap();
        got.set(1);
        wait_for_the_end();
    });
    got.wait();
    let keeps = Child::run(|| {
        let _claim = queue.claim().unwrap();
        claimed.set(1);
        wait_for_the_end();
    });
    claimed.wait();
    loses.kill();
    keeps.kill();
    assert_eq!((queue.unfinished(), queue.len()), (2, 1));
    let claim = queue.claim().unwrap();
    assert!(claim.is_redelivered());
    assert_eq!(claim.ack(), 2);
    queue.task_done().unwrap();
    assert!(!queue.join_timeout(SOON));
    // Somebody else has to answer for the one that is lost.
    queue.task_done().unwrap();
    queue.join();
}
