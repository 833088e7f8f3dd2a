//! Messages that stay in the queue's memory for a while: claims, messages in place, reservations.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{Bytes, Claim, GetError, PutError, Queue, Raw};
use polyproc_sys::futex::backstop_rescues;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;
use support::{Child, Slot, memory_of, takes, tid, wait_asleep, wait_for_the_end, watchdog, woken_in_time};

fn panics(f: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
}

#[test]
fn what_is_handed_back_comes_again_first_and_marked() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Raw>::new().unwrap();
    queue.put_many(0..6).unwrap();
    let claims: Vec<_> = (0..4).map(|_| queue.claim().unwrap()).collect();
    assert!(claims.iter().map(|claim| **claim).eq(0..4));
    assert!(claims.iter().all(|claim| !claim.is_redelivered()));
    assert_eq!(queue.len(), 2);
    let mut claims = claims.into_iter();
    // The later one first: they come back in their order all the same.
    let (first, second, third, fourth) =
        (claims.next().unwrap(), claims.next().unwrap(), claims.next().unwrap(), claims.next().unwrap());
    drop(fourth);
    drop(second);
    assert_eq!(first.ack(), 0);
    assert_eq!((queue.len(), queue.is_empty()), (4, false));
    let again = queue.claim().unwrap();
    assert_eq!((*again, again.is_redelivered()), (1, true));
    assert_eq!(format!("{again:?}"), "Claim { message: 1, redelivered: true, .. }");
    assert_eq!(again.ack(), 1);
    assert_eq!(queue.get_many(10).unwrap(), [3, 4, 5]);
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    third.ack();
    assert!(queue.is_empty());
}

#[test]
fn a_killed_claimers_message_goes_to_one_who_sleeps() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Raw>::new().unwrap();
    queue.put(5).unwrap();
    let (holding, asking) = (Slot::new(), Slot::new());
    let claimer = Child::run(|| {
        let _claim = queue.claim().unwrap();
        holding.set(1);
        wait_for_the_end();
    });
    holding.wait();
    assert!(queue.is_empty());
    let waiter = Child::run(|| {
        asking.set(1);
        let claim = queue.claim().unwrap();
        assert!(claim.is_redelivered());
        assert_eq!(claim.ack(), 5);
    });
    asking.wait();
    waiter.wait_asleep();
    claimer.kill();
    waiter.join();
    assert!(queue.is_empty());
}

#[test]
fn so_many_are_claimed_and_no_more() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Raw>::new().unwrap();
    queue.put_many(0..40).unwrap();
    let mut claims: Vec<_> = (0..32).map(|_| queue.claim().unwrap()).collect();
    assert!(matches!(queue.claim(), Err(GetError::TooManyClaims)));
    assert!(matches!(queue.try_get_ref(), Err(GetError::TooManyClaims)));
    assert_eq!((queue.len(), queue.get().unwrap()), (8, 32));
    claims.pop().unwrap().ack();
    assert_eq!(*queue.claim().unwrap(), 33);
    // That one was handed back.
    assert_eq!(queue.get().unwrap(), 33);
    drop(claims);
    assert!(queue.get_many(100).unwrap().into_iter().eq((0..31).chain(34..40)));
}

#[test]
fn what_is_kept_stays_as_it_is_while_others_come_and_go() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(4 << 20).unwrap();
    queue.put(vec![1; 50_000]).unwrap();
    let kept = queue.get_ref().unwrap();
    for number in 0..300u32 {
        queue.put(vec![number as u8; 10_000]).unwrap();
        assert_eq!(queue.get().unwrap(), vec![number as u8; 10_000]);
    }
    assert_eq!(*kept, vec![1; 50_000]);
    // What came after it takes up room until it goes.
    while queue.try_put(vec![2; 10_000]).is_ok() {}
    assert!(queue.len() < 150, "{}", queue.len());
    while queue.try_get().is_ok() {}
    assert!(queue.try_put(vec![2; 100_000]).is_err());
    drop(kept);
    queue.try_put(vec![2; 100_000]).unwrap();
}

#[test]
fn a_panic_hands_back_and_puts_nothing() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    queue.put_many([vec![1], vec![2]]).unwrap();
    panics(|| {
        let _message = queue.get_ref().unwrap();
        panic!("while reading");
    });
    let message = queue.get_ref().unwrap();
    assert_eq!((&*message, message.is_redelivered()), (&[1][..], true));
    drop(message);
    panics(|| {
        let _claim = queue.claim().unwrap();
        panic!("while working");
    });
    assert_eq!(queue.claim().unwrap().ack(), [2]);
    panics(|| {
        let _place = queue.reserve(10).unwrap();
        panic!("while writing");
    });
    assert!(queue.is_empty());
    queue.put(vec![3]).unwrap();
    assert_eq!(queue.get().unwrap(), [3]);
}

#[test]
fn a_reservation_is_a_message_when_it_is_committed() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::bounded(2).unwrap();
    let mut place = queue.reserve(4).unwrap();
    assert_eq!(format!("{place:?}"), "Reservation { length: 4, .. }");
    place.copy_from_slice(b"text");
    assert_eq!((&*place, queue.len()), (&b"text"[..], 0));
    let soon = Duration::from_millis(30);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(queue.try_put(vec![]), Err(PutError::Full(_))));
            takes(soon, || assert!(matches!(queue.reserve_timeout(1, soon), Err(PutError::Full(1)))));
        });
    });
    place.commit();
    drop(queue.reserve(1 << 20).unwrap());
    queue.put(vec![1]).unwrap();
    assert!(matches!(queue.try_reserve(8), Err(PutError::Full(8))));
    assert_eq!(queue.get_many(9).unwrap(), [b"text".to_vec(), vec![1]]);
}

/// Whoever has it would wait for itself.
#[test]
fn the_thread_that_has_a_reservation_cannot_put() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    let place = queue.reserve(1).unwrap();
    panics(|| queue.put(vec![]).unwrap());
    panics(|| queue.close());
    place.commit();
    assert_eq!((queue.len(), queue.is_closed()), (1, false));
}

#[test]
fn what_a_child_inherits_does_nothing() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    queue.put_many([vec![1], vec![2], vec![3], vec![4]]).unwrap();
    let mut acked = Some(queue.claim().unwrap());
    let mut dropped = Some(queue.claim().unwrap());
    let mut message = Some(queue.get_ref().unwrap());
    let mut committed = Some(queue.reserve(1).unwrap());
    Child::run(|| {
        assert_eq!(acked.take().unwrap().ack(), [1]);
        drop(dropped.take());
        assert_eq!(*message.take().unwrap(), [3]);
        committed.take().unwrap().commit();
        assert_eq!(queue.len(), 1);
        assert!(matches!(queue.try_put(vec![]), Err(PutError::Full(_))));
    })
    .join();
    Child::run(|| drop(committed.take())).join();
    assert_eq!(queue.len(), 1);
    let mut place = committed.unwrap();
    place[0] = 5;
    place.commit();
    assert_eq!(queue.get().unwrap(), [4]);
    drop((acked, dropped));
    drop(message);
    let again = [queue.claim().unwrap(), queue.claim().unwrap()];
    assert!(again.iter().all(|claim| claim.is_redelivered()));
    assert_eq!(again.map(|claim| claim.ack()), [[1], [2]]);
    assert_eq!(queue.get_many(9).unwrap(), [[5]]);
}

/// All that came after it has long gone.
#[test]
fn the_memory_that_a_claim_keeps_goes_with_it() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    type End = fn(&Queue<u64, Raw>, Claim<'_, u64>);
    let ways: [End; 2] = [
        |_, claim| _ = claim.ack(),
        |queue, claim| {
            drop(claim);
            assert_eq!(queue.get().unwrap(), 0);
        },
    ];
    for (number, ends) in ways.into_iter().enumerate() {
        queue.put_many(0..20_000).unwrap();
        queue.put_many(20_000..50_000).unwrap();
        let claim = queue.claim().unwrap();
        assert!(queue.get_many(50_000).unwrap().into_iter().eq(1..50_000));
        let kept = memory_of(&queue);
        ends(&queue, claim);
        let left = memory_of(&queue);
        assert!(left + 100_000 < kept, "way {number}: {left} of {kept} bytes are left");
        assert!(queue.is_empty());
    }
}

/// The room that it kept is for whoever sleeps for it.
#[test]
fn the_room_of_what_was_delivered_again_goes_to_one_who_sleeps() {
    let _watchdog = watchdog();
    let ways: [fn(&Queue<u64, Raw>); 4] = [
        |queue| assert_eq!(queue.get().unwrap(), 0),
        |queue| assert_eq!(queue.get_many(1).unwrap(), [0]),
        |queue| assert_eq!(queue.claim().unwrap().ack(), 0),
        |queue| drop(queue.get_ref().unwrap()),
    ];
    for get in ways {
        woken_in_time(|| {
            let before = backstop_rescues();
            let queue = Queue::<u64, Raw>::with_max_bytes(64 << 10).unwrap();
            queue.put(0).unwrap();
            let claim = queue.claim().unwrap();
            while queue.try_put(1).is_ok() {}
            let count = queue.len();
            assert_eq!(queue.get_many(count).unwrap().len(), count);
            assert!(matches!(queue.try_put(1), Err(PutError::Full(1))));
            std::thread::scope(|scope| {
                let (sender, receiver) = mpsc::channel();
                let queue = &queue;
                scope.spawn(move || {
                    sender.send(tid()).unwrap();
                    // It may sleep without a timer.
                    takes(Duration::ZERO, || queue.put_timeout(2, Duration::from_secs(10)).unwrap());
                });
                wait_asleep(receiver.recv().unwrap());
                drop(claim);
                get(queue);
            });
            assert_eq!(queue.get().unwrap(), 2);
            backstop_rescues() - before
        });
    }
}
