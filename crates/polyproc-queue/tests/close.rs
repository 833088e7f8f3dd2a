//! Closing: everybody hears of it, what is there can be got, and then it is over.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{GetError, GetManyError, JoinableQueue, PutError, Queue, Raw};
use polyproc_sys::futex::backstop_rescues;
use support::{Child, Slot, hand_over, wait_until, watchdog, woken_in_time};

/// A child that waits in `f`, which says that it is closed.
fn waiter(rescues: Slot, f: impl FnOnce()) -> Child {
    let asking = Slot::new();
    let child = Child::run(|| {
        asking.set(1);
        f();
        rescues.add(backstop_rescues());
    });
    asking.wait();
    child.wait_asleep();
    child
}

#[test]
fn all_who_wait_in_put_and_get_are_told() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let (empty, full) = (Queue::<u32>::new().unwrap(), Queue::<u32>::bounded(1).unwrap());
        full.put(0).unwrap();
        let rescues = Slot::new();
        let waiters = [
            waiter(rescues, || assert!(matches!(empty.get(), Err(GetError::Closed)))),
            waiter(rescues, || assert!(empty.iter().next().is_none())),
            waiter(rescues, || assert!(matches!(empty.get_many(3), Err(GetManyError::Closed)))),
            waiter(rescues, || assert!(matches!(empty.claim(), Err(GetError::Closed)))),
            waiter(rescues, || assert!(matches!(empty.get_ref(), Err(GetError::Closed)))),
            waiter(rescues, || assert!(matches!(full.put(1), Err(PutError::Closed(1))))),
            waiter(rescues, || assert!(matches!(full.put(2), Err(PutError::Closed(2))))),
            waiter(rescues, || {
                let error = full.put_many([3, 4]).unwrap_err();
                assert_eq!((error.put, error.error.into_message(), error.rest), (0, 3, vec![4]));
            }),
        ];
        empty.close();
        full.close();
        waiters.into_iter().for_each(Child::join);
        assert_eq!(full.get().unwrap(), 0);
        rescues.get()
    });
}

#[test]
fn what_is_there_can_be_got_and_then_it_is_over() {
    let _watchdog = watchdog();
    let queue = Queue::<u32>::bounded(3).unwrap();
    queue.put_many([1, 2, 3]).unwrap();
    assert!(!queue.is_closed());
    // By another process.
    Child::run(|| queue.close()).join();
    assert!(queue.is_closed() && queue.is_full());
    // Closed comes before full, and before how long it would take.
    assert!(matches!(queue.put(4), Err(PutError::Closed(4))));
    assert!(matches!(queue.try_put(4), Err(PutError::Closed(4))));
    assert_eq!(queue.get().unwrap(), 1);
    queue.close();
    assert_eq!(queue.try_get().unwrap(), 2);
    assert!(matches!(queue.try_put(4), Err(PutError::Closed(4))));
    let received: Queue<u32> = hand_over(&queue).unwrap();
    assert!(received.is_closed());
    assert_eq!(received.iter().map(Result::unwrap).collect::<Vec<_>>(), [3]);
    for _ in 0..2 {
        assert!(matches!(queue.get(), Err(GetError::Closed)));
        assert!(matches!(queue.try_get(), Err(GetError::Closed)));
        assert!(queue.iter().next().is_none());
        queue.close();
    }
    assert_eq!(queue.put(5).unwrap_err().to_string(), "the queue is closed");
    assert!(matches!(
        Queue::<Vec<u8>, polyproc_queue::Bytes>::new().map(|queue| {
            queue.close();
            queue.reserve(5).unwrap_err()
        }),
        Ok(PutError::Closed(5))
    ));
}

#[test]
fn consumers_share_what_is_left_and_all_end() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::bounded(64).unwrap();
    let (count, sum) = (Slot::new(), Slot::new());
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            Child::run(|| {
                for number in &queue {
                    sum.add(number.unwrap());
                    count.add(1);
                }
            })
        })
        .collect();
    queue.put_many(0..5_000).unwrap();
    queue.close();
    consumers.into_iter().for_each(Child::join);
    assert_eq!((count.get(), sum.get()), (5_000, 5_000 * 4_999 / 2));
}

/// A message that is claimed may come back: whoever gets waits for it.
#[test]
fn it_is_not_over_while_a_message_is_claimed() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let queue = Queue::<u32>::new().unwrap();
        queue.put_many([1, 2]).unwrap();
        let (first, second) = (queue.claim().unwrap(), queue.claim().unwrap());
        queue.close();
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
        let (rescues, got) = (Slot::new(), Slot::new());
        let waiters = [(); 2].map(|()| {
            waiter(rescues, || {
                for number in &queue {
                    got.add(number.unwrap().into());
                }
            })
        });
        drop(second);
        wait_until("the message is delivered again", || got.get() != 0);
        assert_eq!(got.get(), 2);
        waiters.iter().for_each(Child::wait_asleep);
        first.ack();
        waiters.into_iter().for_each(Child::join);
        assert_eq!(got.get(), 2);
        rescues.get()
    });
}

#[test]
fn whoever_joins_waits_for_the_tasks_of_a_closed_queue() {
    let _watchdog = watchdog();
    let queue = JoinableQueue::<u32>::new().unwrap();
    queue.put_many([1, 2]).unwrap();
    queue.close();
    let joined = Slot::new();
    let joiner = Child::run(|| {
        joined.set(1);
        queue.join();
        joined.set(2);
    });
    joined.wait();
    joiner.wait_asleep();
    for _ in &queue {}
    assert_eq!((joined.get(), queue.unfinished()), (1, 2));
    queue.task_done().unwrap();
    queue.task_done().unwrap();
    joiner.join();
}
