//! A thread that always puts, or always gets, takes its lock with plain stores: that must not be noticed but by a clock.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{Bytes, Codec, DecodeError, EncodeError, GetError, JoinableQueue, PutError, Queue, Raw};
use polyproc_sys::futex::backstop_rescues;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use support::{Child, Slot, takes, wait_for_the_end, wait_until, watchdog, woken_in_time};

/// So often in a row, and a lock is granted for sure.
const OFTEN: u64 = 300;

/// Both locks are granted to the calling thread.
fn own(queue: &Queue<u64, Raw>) {
    for number in 0..OFTEN {
        queue.put(number).unwrap();
        queue.put_many([number, number]).unwrap();
        assert_eq!(queue.get().unwrap(), number);
        assert_eq!(queue.get_many(2).unwrap(), [number, number]);
    }
}

#[test]
fn it_hears_of_the_end_that_it_makes_itself() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    own(&queue);
    queue.put_many([1, 2, 3, 4]).unwrap();
    queue.close();
    for _ in 0..OFTEN {
        assert!(matches!(queue.put(9), Err(PutError::Closed(9))));
        let error = queue.put_many([9, 10]).unwrap_err();
        assert!(matches!(error.error, PutError::Closed(9)));
        assert_eq!((error.put, error.rest, queue.len()), (0, vec![10], 4));
    }
    assert_eq!((queue.get().unwrap(), queue.get_many(9).unwrap()), (1, vec![2, 3, 4]));
    for _ in 0..OFTEN {
        assert!(matches!(queue.get(), Err(GetError::Closed)));
        assert!(queue.get_many(2).is_err());
    }
}

#[test]
fn it_hears_of_the_end_that_another_makes() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    own(&queue);
    Child::run(|| queue.close()).join();
    for _ in 0..OFTEN {
        assert!(matches!(queue.put(9), Err(PutError::Closed(9))));
        assert!(queue.put_many([9]).is_err() && queue.try_put_many([9]).is_err());
    }
    assert!(queue.is_empty());
}

#[test]
fn its_bounds_are_those_of_the_queue() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::bounded(5).unwrap();
    own(&queue);
    for round in 0..50 {
        queue.put_many([1, 2, 3, 4]).unwrap();
        queue.try_put(5).unwrap();
        assert!(matches!(queue.try_put(6), Err(PutError::Full(6))));
        assert_eq!(queue.try_put_many([6, 7]).unwrap_err().put, 0);
        assert!(queue.is_full());
        assert_eq!(queue.get_many(9).unwrap(), [1, 2, 3, 4, 5], "{round}");
        assert_eq!(queue.try_put_many(0..9).unwrap_err().put, 5);
        (0..5).for_each(|number| assert_eq!(queue.try_get().unwrap(), number));
    }
    // Bytes are counted by it, too, and what does not fit is left.
    let bytes = Queue::<[u64; 1000], Raw>::with_max_bytes(64 << 10).unwrap();
    for number in 0..OFTEN {
        bytes.put([number; 1000]).unwrap();
        assert_eq!(bytes.get().unwrap(), [number; 1000]);
        bytes.put_many([[number; 1000]]).unwrap();
        assert_eq!(bytes.get_many(1).unwrap(), [[number; 1000]]);
    }
    for round in 0..50u64 {
        let error = bytes.try_put_many((0..20).map(|number| [round + number; 1000])).unwrap_err();
        let put = error.put as u64;
        assert!((7..=8).contains(&put) && bytes.len() == error.put, "{put} messages of 8,000 bytes");
        assert!(matches!(bytes.try_put([0; 1000]), Err(PutError::Full(_))));
        for number in 0..put {
            assert_eq!(bytes.try_get().unwrap(), [round + number; 1000]);
        }
    }
    let large = Queue::<[u64; 10_000], Raw>::with_max_bytes(64 << 10).unwrap();
    for _ in 0..OFTEN {
        assert!(matches!(large.put([1; 10_000]), Err(PutError::TooLarge { .. })));
        assert_eq!(large.put_many([[1; 10_000]]).unwrap_err().put, 0);
    }
    assert!(large.is_empty());
}

/// A sleeper that nothing was put for, by one to whom the lock was granted meanwhile.
#[test]
fn it_wakes_who_has_slept_since_before_it_was_the_owner() {
    let _watchdog = watchdog();
    type Put = fn(&Queue<Vec<u8>, Bytes>);
    let puts: [Put; 2] = [|queue| queue.put(vec![1]).unwrap(), |queue| queue.put_many([vec![1]]).unwrap()];
    for put in puts {
        woken_in_time(|| {
            let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(64 << 10).unwrap();
            let (asking, rescues) = (Slot::new(), Slot::new());
            let sleeper = Child::run(|| {
                asking.set(1);
                assert_eq!(queue.get().unwrap(), [1]);
                rescues.add(backstop_rescues());
            });
            asking.wait();
            sleeper.wait_asleep();
            for _ in 0..OFTEN {
                assert!(queue.put(vec![0; 70_000]).is_err());
            }
            sleeper.wait_asleep();
            put(&queue);
            sleeper.join();
            rescues.get()
        });
    }
    let puts: [fn(&Queue<u64, Raw>); 2] =
        [|queue| queue.put(7).unwrap(), |queue| queue.put_many([7]).unwrap()];
    for put in puts {
        woken_in_time(|| {
            let queue = Queue::<u64, Raw>::new().unwrap();
            let (asking, rescues) = (Slot::new(), Slot::new());
            let sleeper = Child::run(|| {
                asking.set(1);
                assert_eq!(queue.get().unwrap(), 7);
                rescues.add(backstop_rescues());
            });
            asking.wait();
            sleeper.wait_asleep();
            for _ in 0..OFTEN {
                queue.put_many([]).unwrap();
                assert_eq!(queue.len(), 0);
            }
            put(&queue);
            sleeper.join();
            rescues.get()
        });
    }
}

/// The same on the other side, where saying that a task is done takes the lock of those who get.
#[test]
fn it_wakes_who_has_slept_for_room_since_before_it_was_the_owner() {
    let _watchdog = watchdog();
    let gets: [fn(&Queue<u64, Raw>); 3] = [
        |queue| assert_eq!(queue.get().unwrap(), 0),
        |queue| assert_eq!(queue.get_many(1).unwrap(), [0]),
        |queue| assert_eq!(queue.claim().unwrap().ack(), 0),
    ];
    for get in gets {
        woken_in_time(|| {
            let queue = JoinableQueue::<u64, Raw>::bounded(1).unwrap();
            queue.put(0).unwrap();
            queue.task_done().unwrap();
            let (asking, rescues) = (Slot::new(), Slot::new());
            let sleeper = Child::run(|| {
                asking.set(1);
                queue.put(1).unwrap();
                rescues.add(backstop_rescues());
            });
            asking.wait();
            sleeper.wait_asleep();
            for _ in 0..OFTEN {
                assert!(queue.task_done().is_err());
            }
            get(&queue);
            sleeper.join();
            assert_eq!(queue.get().unwrap(), 1);
            rescues.get()
        });
    }
}

/// Plain, and panics when it is to copy a 7, in or out.
#[derive(Debug)]
struct Superstitious;

thread_local! {
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

fn look(number: u64) {
    let panics = PANICS.get();
    assert!(number != 7 || !panics, "a seven");
}

impl Codec<u64> for Superstitious {
    const CODE: u8 = b'7';
    const IS_PLAIN: bool = true;
    type Copied = u64;

    fn element() -> core::alloc::Layout {
        core::alloc::Layout::new::<u64>()
    }

    fn encode<R>(message: &u64, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        look(*message);
        Ok(put(&message.to_ne_bytes()))
    }

    fn copy(bytes: &[u8]) -> u64 {
        let number = u64::from_ne_bytes(bytes.try_into().unwrap());
        look(number);
        number
    }

    fn decode(copied: u64) -> Result<u64, DecodeError> {
        Ok(copied)
    }
}

#[test]
fn a_panic_in_the_middle_of_many_holds_up_nobody() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Superstitious>::new().unwrap();
    let panics = |f: &dyn Fn()| {
        PANICS.set(true);
        let result = catch_unwind(AssertUnwindSafe(f));
        PANICS.set(false);
        assert!(result.is_err());
    };
    for _ in 0..OFTEN {
        queue.put_many([1, 2]).unwrap();
        assert_eq!(queue.get_many(2).unwrap(), [1, 2]);
    }
    panics(&|| queue.put_many([1, 7, 2]).unwrap());
    assert!(queue.is_empty(), "nothing was published");
    Child::run(|| queue.put_many([1, 7, 2]).unwrap()).join();
    for _ in 0..OFTEN {
        assert_eq!(queue.len(), 3);
        panics(&|| _ = queue.get_many(9));
    }
    panics(&|| _ = queue.try_get_many(9));
    // Another is not held up, here or elsewhere.
    Child::run(|| assert_eq!(takes(Duration::ZERO, || queue.get_many(9).unwrap()), [1, 7, 2])).join();
    queue.put(3).unwrap();
    assert_eq!(queue.get().unwrap(), 3);
    // Nor by one that is got by itself.
    for _ in 0..OFTEN {
        queue.put(1).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
    }
    queue.put(7).unwrap();
    (0..3).for_each(|_| panics(&|| _ = queue.get()));
    Child::run(|| assert_eq!(takes(Duration::ZERO, || queue.get().unwrap()), 7)).join();
}

/// What it has got is out of the queue, where the rest lies in another piece: around the end of the ring.
#[test]
fn a_panic_at_the_second_piece_costs_nothing_of_the_first() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Superstitious>::new().unwrap();
    let mut kept = 0;
    for round in 0..3_000 {
        queue.put_many([1; 90]).unwrap();
        queue.put_many([7, 2]).unwrap();
        PANICS.set(true);
        let got = catch_unwind(AssertUnwindSafe(|| queue.get_many(1_000).unwrap()));
        PANICS.set(false);
        let got = got.unwrap_or_default();
        assert!(got.iter().all(|one| *one == 1));
        assert_eq!(got.len() + queue.len(), 92, "round {round}");
        kept += usize::from(!got.is_empty());
        assert_eq!(queue.get_many(1_000).unwrap().last(), Some(&2));
    }
    assert!(kept > 0);
}

#[test]
fn claims_of_others_come_back_to_it_first() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    let claimed = Slot::new();
    queue.put_many([1, 2, 3, 4]).unwrap();
    let claimer = Child::run(|| {
        let _claim = queue.claim().unwrap();
        claimed.set(1);
        wait_for_the_end();
    });
    claimed.wait();
    // The lock is granted to this thread while there is a claim.
    let own_claim = queue.claim().unwrap();
    for _ in 0..OFTEN {
        queue.put(5).unwrap();
        assert_eq!(queue.get_many(1).unwrap().len(), 1);
    }
    claimer.kill();
    wait_until("the message is back", || queue.len() == 3);
    assert_eq!(queue.get_many(1).unwrap(), [1]);
    assert_eq!(own_claim.ack(), 2);
    assert_eq!(queue.get_many(9).unwrap(), [5, 5]);
}
