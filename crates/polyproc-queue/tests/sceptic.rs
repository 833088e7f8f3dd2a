//! What somebody tries who does not believe it yet.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{Bytes, GetError, JoinableQueue, PutError, Queue, Raw};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::{Child, Slot, takes, wait_for_the_end, watchdog};

const NOW: Duration = Duration::ZERO;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Work {
    Nothing,
    Number(i128),
    Named { name: String, tags: Vec<Option<char>> },
    Nested(Box<Work>),
    Table(BTreeMap<String, (f64, bool)>),
}

#[test]
fn what_serde_takes_goes_through() {
    let _watchdog = watchdog();
    let queue = Queue::<Work>::new().unwrap();
    let named = Work::Named { name: "größe".into(), tags: vec![None, Some('ß'), Some('\0')] };
    let table = [("a".to_owned(), (f64::MIN_POSITIVE, true)), (String::new(), (-0.0, false))];
    let all = [
        Work::Nothing,
        Work::Number(i128::MIN),
        named.clone(),
        Work::Nested(Box::new(Work::Nested(Box::new(named)))),
        Work::Table(table.into_iter().collect()),
    ];
    queue.put_many(all.clone()).unwrap();
    let child = Child::run(|| {
        for expected in &all {
            assert_eq!(queue.get().unwrap(), *expected);
        }
        queue.put(Work::Number(7)).unwrap();
    });
    child.join();
    assert_eq!(queue.get().unwrap(), Work::Number(7));
    // Bytes as serde has them are something else than `Bytes`, and pass as well.
    let bytes = Queue::<Vec<u8>>::new().unwrap();
    bytes.put(vec![0, 255, 0]).unwrap();
    assert_eq!(bytes.get().unwrap(), [0, 255, 0]);
}

/// One for each consumer, as in Python.
#[test]
fn none_is_a_message_that_ends_one_consumer() {
    let _watchdog = watchdog();
    let queue = Queue::<Option<u64>>::bounded(8).unwrap();
    let sum = Slot::new();
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            Child::run(|| {
                while let Some(number) = queue.get().unwrap() {
                    sum.add(number);
                }
            })
        })
        .collect();
    (1..=1_000).for_each(|number| queue.put(Some(number)).unwrap());
    (0..3).for_each(|_| queue.put(None).unwrap());
    consumers.into_iter().for_each(Child::join);
    assert_eq!((sum.get(), queue.len()), (500_500, 0));
}

#[test]
fn the_longest_times_are_no_different_from_none() {
    let _watchdog = watchdog();
    let queue = Queue::<u32>::bounded(1).unwrap();
    let tasks = JoinableQueue::<u32>::new().unwrap();
    queue.put_timeout(1, Duration::MAX).unwrap();
    assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), 1);
    assert!(tasks.join_timeout(Duration::MAX));
    let (asking, got) = (Slot::new(), Slot::new());
    // They do wait.
    let waiter = Child::run(|| {
        asking.set(1);
        assert_eq!(queue.get_timeout(Duration::MAX).unwrap(), 2);
        assert_eq!(queue.claim_timeout(Duration::MAX).unwrap().ack(), 3);
        got.set(1);
        queue.put_many_timeout([4, 5], Duration::MAX).unwrap();
    });
    asking.wait();
    waiter.wait_asleep();
    queue.put(2).unwrap();
    queue.put_timeout(3, Duration::from_secs(u64::MAX)).unwrap();
    got.wait();
    assert_eq!(queue.get_many_timeout(1, Duration::MAX).unwrap(), [4]);
    assert_eq!(queue.get().unwrap(), 5);
    waiter.join();
    takes(NOW, || assert!(matches!(queue.get_timeout(Duration::from_nanos(1)), Err(GetError::Empty))));
}

#[test]
fn the_largest_bound_is_none() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::bounded(usize::MAX).unwrap();
    assert_eq!(queue.capacity(), Some(usize::MAX));
    for round in 0..3 {
        queue.put_many(0..10_000).unwrap();
        queue.put(1).unwrap();
        queue.try_put(2).unwrap();
        assert!(!queue.is_full() && queue.len() == 10_002, "{round}");
        assert_eq!(queue.get_many(usize::MAX).unwrap().len(), 10_002);
    }
}

#[test]
fn after_close_puts_fail_and_gets_go_on_until_all_is_got() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    queue.put_many([vec![1], vec![2], vec![3], vec![4], vec![5]]).unwrap();
    let place = queue.reserve(1).unwrap();
    drop(place);
    queue.close();
    assert!(matches!(queue.put_bytes(&[9]), Err(PutError::Closed(()))));
    assert!(matches!(queue.put_timeout(vec![9], Duration::MAX), Err(PutError::Closed(_))));
    assert!(matches!(queue.put_until(vec![9], Instant::now()), Err(PutError::Closed(_))));
    let error = queue.put_many([vec![9], vec![10]]).unwrap_err();
    assert!(matches!(error.error, PutError::Closed(message) if message == [9]));
    assert_eq!((error.put, error.rest), (0, vec![vec![10]]));
    // What is handed back is there again.
    drop(queue.claim().unwrap());
    assert_eq!(queue.get().unwrap(), [1]);
    assert_eq!(*queue.get_ref().unwrap(), [2]);
    assert_eq!(queue.claim().unwrap().ack(), [3]);
    assert_eq!(queue.get_many(1).unwrap(), [[4]]);
    let mut buffer = Vec::new();
    assert_eq!(queue.get_into(&mut buffer).unwrap(), 1);
    assert!(matches!(queue.get_into(&mut buffer), Err(GetError::Closed)));
    assert_eq!(buffer, [5], "an error leaves it");
    assert_eq!(queue.iter().count(), 0);
    assert!(queue.is_closed() && queue.is_empty());
}

/// Each queue has one descriptor. Where there are no more, that is what the error says, and the others go on.
#[test]
fn as_many_queues_as_there_are_descriptors() {
    let _watchdog = watchdog();
    Child::run(|| {
        let limit = libc::rlimit { rlim_cur: 200, rlim_max: 200 };
        // SAFETY: `limit` is of the right type.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        for _ in 0..3 {
            let mut queues = Vec::new();
            let error = loop {
                match Queue::<usize>::new() {
                    Ok(queue) => queues.push(queue),
                    Err(error) => break error,
                }
                assert!(queues.len() <= 200, "more queues than descriptors");
            };
            assert!(queues.len() > 150, "only {} queues", queues.len());
            let said = error.to_string();
            assert!(said.contains("descriptor") || said.contains("open files"), "{said:?}");
            for (number, queue) in queues.iter().enumerate() {
                queue.put(number).unwrap();
                assert_eq!(queue.clone().get().unwrap(), number);
            }
        }
    })
    .join();
}

/// Whoever has claimed a task and is killed has not done it, and joining waits for whoever does it then.
#[test]
fn joining_waits_for_the_task_of_a_killed_worker() {
    let _watchdog = watchdog();
    let tasks = JoinableQueue::<u32>::new().unwrap();
    tasks.put(1).unwrap();
    let (claimed, joined) = (Slot::new(), Slot::new());
    let worker = Child::run(|| {
        let _claim = tasks.claim().unwrap();
        claimed.set(1);
        wait_for_the_end();
    });
    claimed.wait();
    let joiner = Child::run(|| {
        joined.set(1);
        tasks.join();
        joined.set(2);
    });
    joined.wait();
    joiner.wait_asleep();
    worker.kill();
    takes(Duration::from_millis(20), || assert!(!tasks.join_timeout(Duration::from_millis(20))));
    assert_eq!(joined.get(), 1);
    assert_eq!(tasks.claim().unwrap().ack(), 1);
    tasks.task_done().unwrap();
    joiner.join();
    for _ in 0..3 {
        assert!(tasks.task_done().is_err(), "once too often, however often");
    }
    tasks.put(2).unwrap();
    assert!(!tasks.join_timeout(NOW), "too often before counts for nothing");
}

/// What is said of a queue that others use is old, but never absurd.
#[test]
fn the_length_is_never_more_than_there_can_be() {
    let _watchdog = watchdog();
    let queue = JoinableQueue::<u64, Raw>::bounded(4).unwrap();
    let over = Slot::new();
    let others = [(); 2].map(|()| {
        Child::run(|| {
            while over.get() == 0 {
                queue.put(1).unwrap();
                queue.get().unwrap();
                queue.task_done().unwrap();
            }
        })
    });
    for _ in 0..100_000 {
        // Two put one each before they get one.
        let (length, unfinished) = (queue.len(), queue.unfinished());
        assert!(length <= 2 && unfinished <= 2, "{length} of {unfinished}");
        assert!(!queue.is_full());
    }
    over.set(1);
    others.into_iter().for_each(Child::join);
    assert_eq!((queue.len(), queue.unfinished()), (0, 0));
}

#[test]
fn dropping_every_handle_frees_it_whatever_is_in_it() {
    let _watchdog = watchdog();
    let regions = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("polyproc:queue:leak")).count()
    };
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
    Child::run(move || {
        for _ in 0..50 {
            let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
            queue.put(vec![1; 1 << 20]).unwrap();
            queue.put(vec![2; 10]).unwrap();
            let other = queue.clone();
            drop(queue.claim().unwrap());
            drop(queue);
            assert_eq!(other.get().unwrap().len(), 1 << 20);
        }
        assert!(std::fs::read_dir("/proc/self/fd").unwrap().count() <= before, "descriptors are left");
        assert_eq!(regions(), 0);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("polyproc:queue"), "a mapping is left");
    })
    .join();
}
