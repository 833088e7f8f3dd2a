//! What passes from one part of the memory to the next, in all the ways there are to get it; and what is not to be seen of it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{Arena, Mutex};
use polyproc_queue::{Bytes, Claim, Codec, DecodeError, EncodeError, GetError, PutError, Queue, Raw};
use polyproc_sys::futex::backstop_rescues;
use polyproc_sys::membarrier::without_membarrier;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Child, Slot, memory_of, takes, wait_until, watchdog, woken_in_time};

/// So often in a row, and a lock is granted for sure.
const OFTEN: u64 = 300;

/// Gets so many messages, by one way or another.
type Way<T, C> = fn(&Queue<T, C>, usize) -> Vec<T>;

fn elsewhere<T: Send, C: Codec<T>>(
    queue: &Queue<T, C>,
    f: impl FnOnce(&Queue<T, C>) -> Vec<T> + Send,
) -> Vec<T> {
    std::thread::scope(|scope| scope.spawn(|| f(queue)).join().unwrap())
}

/// The smallest part is full and begins in the middle of itself when it is left, so that it ends there, and old messages lie
/// behind its end.
#[test]
fn what_comes_round_and_then_grows_comes_out_once() {
    let _watchdog = watchdog();
    let ways: [Way<u64, Raw>; 4] = [
        |queue, count| queue.get_many(count).unwrap(),
        |queue, _| vec![queue.get().unwrap()],
        |queue, count| elsewhere(queue, move |queue| queue.get_many(count).unwrap()),
        |queue, _| vec![queue.claim().unwrap().ack()],
    ];
    for (number, get) in ways.into_iter().enumerate() {
        let queue = Queue::<u64, Raw>::new().unwrap();
        for number in 0..OFTEN {
            queue.put(number).unwrap();
            queue.put_many([number]).unwrap();
            assert_eq!((queue.get().unwrap(), queue.get_many(1).unwrap()), (number, vec![number]));
        }
        let (mut put, mut got) = (0, 0);
        for (puts, gets) in [(3_000, 1_000), (2_000, 500), (6_000, 3_000), (20_000, 26_500)] {
            queue.put_many(put..put + puts).unwrap();
            put += puts;
            let until = got + gets;
            while got < until {
                for next in get(&queue, (until - got) as usize) {
                    assert_eq!(next, got, "way {number}");
                    got += 1;
                }
            }
        }
        assert!(queue.is_empty() && got == put);
    }
}

#[test]
fn bytes_of_all_lengths_come_round_and_out_once() {
    let _watchdog = watchdog();
    let ways: [Way<Vec<u8>, Bytes>; 4] = [
        |queue, count| queue.get_many(count).unwrap(),
        |queue, _| {
            let mut bytes = vec![1, 2, 3];
            queue.get_into(&mut bytes).unwrap();
            vec![bytes]
        },
        |queue, count| elsewhere(queue, move |queue| queue.get_many(count).unwrap()),
        |queue, _| vec![queue.get_ref().unwrap().to_vec()],
    ];
    let message = |number: usize| vec![number as u8; number * 997 % 5_000];
    for (number, get) in ways.into_iter().enumerate() {
        let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(1 << 20).unwrap();
        let (mut put, mut got) = (0, 0);
        while put < 2_000 {
            let count = 1 + put % 31;
            queue.put_many((put..put + count).map(message)).unwrap();
            put += count;
            let until = if put % 3 == 0 { put } else { got + (put - got) / 2 };
            while got < until {
                for next in get(&queue, until - got) {
                    assert!(next == message(got), "way {number}, message {got}");
                    got += 1;
                }
            }
        }
    }
}

/// However they are put. (The limit is not the size of a part.)
#[test]
fn no_more_bytes_than_it_may_have() {
    let _watchdog = watchdog();
    const MOST: u64 = 100_000;
    const EACH: u64 = 1_008;
    type Put = fn(&Queue<[u64; 125], Raw>) -> usize;
    let ways: [Put; 3] = [
        |queue| usize::from(queue.try_put([1; 125]).is_ok()),
        |queue| match queue.try_put_many([[1; 125]; 7]) {
            Ok(()) => 7,
            Err(error) => error.put,
        },
        |queue| elsewhere_count(queue),
    ];
    for (number, put) in ways.into_iter().enumerate() {
        let queue = Queue::<[u64; 125], Raw>::with_max_bytes(MOST).unwrap();
        for round in 0..20 {
            for _ in 0..OFTEN {
                queue.put_many([[2; 125]]).unwrap();
                assert_eq!(queue.get_many(1).unwrap(), [[2; 125]]);
            }
            let mut count = 0;
            loop {
                let more = put(&queue);
                count += more as u64;
                if more == 0 {
                    break;
                }
            }
            assert!(count * EACH <= MOST, "{count} messages by way {number}, in round {round}");
            assert!(count * EACH > MOST / 3, "only {count} messages");
            assert_eq!(queue.get_many(1_000).unwrap().len() as u64, count);
        }
    }
    let bytes = Queue::<Vec<u8>, Bytes>::with_max_bytes(MOST).unwrap();
    let put = bytes.try_put_many((0..200).map(|_| vec![1; 1_000])).unwrap_err().put as u64;
    assert!(put * EACH <= MOST && put * EACH > MOST / 3, "{put} messages");
    assert!(matches!(bytes.try_reserve(1_000), Err(PutError::Full(1_000))));
}

fn elsewhere_count(queue: &Queue<[u64; 125], Raw>) -> usize {
    std::thread::scope(|scope| scope.spawn(|| usize::from(queue.try_put([1; 125]).is_ok())).join().unwrap())
}

/// One at a time, too, whoever gets them; and when it grows again it has as much memory as the first time, not addresses only.
#[test]
fn memory_is_given_back_and_taken_again_by_single_messages() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    let empty = memory_of(&queue);
    let mut grown = Vec::new();
    for round in 0..6 {
        queue.put_many(0..20_000).unwrap();
        assert!(memory_of(&queue) > empty + 80_000);
        let drain = |queue: &Queue<u64, Raw>| (0..20_000).for_each(|n| assert_eq!(queue.get().unwrap(), n));
        if round % 2 == 0 {
            drain(&queue)
        } else {
            Child::run(|| drain(&queue)).join()
        }
        // It may wait with that for some drains, if it grew again soon.
        for _ in 0..1_100 {
            if memory_of(&queue) == empty {
                break;
            }
            queue.put(1).unwrap();
            queue.get().unwrap();
        }
        assert_eq!(memory_of(&queue), empty, "round {round}");
    }
    let queue = Queue::<Vec<u8>, Bytes>::new().unwrap();
    for _ in 0..3 {
        queue.put(vec![1; 70_000]).unwrap();
        grown.push(memory_of(&queue));
        assert_eq!(queue.get().unwrap().len(), 70_000);
        std::thread::sleep(Duration::from_millis(110));
    }
    assert!(grown.iter().all(|memory| *memory == grown[0] && *memory > 128 << 10), "{grown:?}");
}

#[test]
fn what_is_kept_outlives_the_part_it_lies_in() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(4 << 20).unwrap();
    // Into the second part, which is left with something claimed in it.
    queue.put(vec![1; 60_000]).unwrap();
    queue.put(vec![2; 60_000]).unwrap();
    assert_eq!(queue.get().unwrap(), vec![1; 60_000]);
    let kept = queue.get_ref().unwrap();
    for round in 3..40u8 {
        queue.put(vec![round; 90_000]).unwrap();
        if round % 3 == 0 {
            queue.get_many(3).unwrap();
        }
    }
    while queue.try_get().is_ok() {}
    assert!(kept.len() == 60_000 && kept.iter().all(|byte| *byte == 2), "it was overwritten");
    drop(kept);
    queue.put(vec![7; 1 << 20]).unwrap();
    assert_eq!(queue.get().unwrap(), vec![7; 1 << 20]);
}

thread_local! {
    /// What the codec does in the middle of a copy.
    static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Copies bytes, and does something meanwhile.
#[derive(Debug)]
struct Busy;

impl Codec<Vec<u8>> for Busy {
    const CODE: u8 = b'B';
    type Copied = Vec<u8>;

    fn encode<R>(message: &Vec<u8>, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(message))
    }

    fn copy(bytes: &[u8]) -> Vec<u8> {
        if let Some(meanwhile) = MEANWHILE.take() {
            meanwhile();
        }
        bytes.to_vec()
    }

    fn decode(copied: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
        Ok(copied)
    }
}

/// What is put while the last message of a part is taken is not left there.
#[test]
fn a_message_that_comes_while_it_shrinks_is_not_lost() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Busy>::new().unwrap();
    for round in 0..50u8 {
        queue.put(vec![round; 70_000]).unwrap();
        let other = queue.clone();
        MEANWHILE.set(Some(Box::new(move || other.put(vec![round; 10]).unwrap())));
        assert_eq!(queue.get().unwrap(), vec![round; 70_000]);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.try_get().unwrap(), [round; 10]);
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    }
}

/// One who needs more room than there is does not keep the wake from one who needs little.
#[test]
fn room_for_one_is_found_behind_one_for_whom_there_is_none() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(64 << 10).unwrap();
        while queue.try_put(vec![0; 1_000]).is_ok() {}
        while queue.try_put(vec![0; 0]).is_ok() {}
        let (asking, rescues) = (Slot::new(), Slot::new());
        let sleeper = |length: usize| {
            let asked = asking.get();
            let child = Child::run(|| {
                asking.add(1);
                queue.put(vec![length as u8; length]).unwrap();
                rescues.add(backstop_rescues());
            });
            wait_until("it asks", || asking.get() == asked + 1);
            child.wait_asleep();
            child
        };
        let (large, small) = (sleeper(50_000), sleeper(500));
        assert_eq!(queue.get().unwrap().len(), 1_000);
        small.join();
        while queue.try_get().is_ok() {}
        large.join();
        rescues.get()
    });
}

/// What a claim has kept from who sleeps for bytes, it hears of, in whatever way the claim ends.
#[test]
fn who_sleeps_for_the_bytes_of_a_claim_is_woken_when_it_is_gone() {
    let _watchdog = watchdog();
    type End = fn(&Queue<Vec<u8>, Bytes>, Claim<'_, Vec<u8>>);
    let ways: [End; 4] = [
        |_, claim| drop(claim.ack()),
        |queue, claim| {
            drop(claim);
            assert_eq!(queue.get().unwrap()[0], 0);
        },
        |queue, claim| {
            drop(claim);
            assert_eq!(queue.get_many(9).unwrap().len(), 1);
        },
        |queue, claim| {
            drop(claim);
            queue.claim().unwrap().ack();
        },
    ];
    for way in ways {
        woken_in_time(|| {
            let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(64 << 10).unwrap();
            queue.put(vec![0; 40_000]).unwrap();
            let claim = queue.claim().unwrap();
            let (asking, rescues) = (Slot::new(), Slot::new());
            let sleeper = Child::run(|| {
                asking.set(1);
                queue.put(vec![1; 40_000]).unwrap();
                rescues.add(backstop_rescues());
            });
            asking.wait();
            sleeper.wait_asleep();
            way(&queue, claim);
            sleeper.join();
            assert_eq!(queue.get().unwrap()[0], 1);
            rescues.get()
        });
    }
}

/// Of the two tests that use what follows, one at a time.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
static HOLDS: AtomicBool = AtomicBool::new(false);
static IS_INSIDE: AtomicBool = AtomicBool::new(false);

/// Plain, and takes its time over a 7.
#[derive(Debug)]
struct Slow;

impl Codec<u64> for Slow {
    const CODE: u8 = b's';
    const IS_PLAIN: bool = true;
    type Copied = u64;

    fn element() -> core::alloc::Layout {
        core::alloc::Layout::new::<u64>()
    }

    fn encode<R>(message: &u64, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        while *message == 7 && HOLDS.load(Ordering::SeqCst) {
            IS_INSIDE.store(true, Ordering::SeqCst);
            std::thread::yield_now();
        }
        Ok(put(&message.to_ne_bytes()))
    }

    fn copy(bytes: &[u8]) -> u64 {
        u64::from_ne_bytes(bytes.try_into().unwrap())
    }

    fn decode(copied: u64) -> Result<u64, DecodeError> {
        Ok(copied)
    }
}

/// One whose `try_put` was in vain because an owner was at work does not keep what it took for that.
#[test]
fn a_try_in_vain_at_an_owners_holds_up_nobody() {
    let _watchdog = watchdog();
    let _turn = TURN.lock();
    IS_INSIDE.store(false, Ordering::SeqCst);
    let queue = Queue::<u64, Slow>::new().unwrap();
    let (tried, over) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..OFTEN {
                queue.put_many([number + 8]).unwrap();
            }
            HOLDS.store(true, Ordering::SeqCst);
            queue.put_many([1, 7]).unwrap();
        });
        wait_until("the owner is inside", || IS_INSIDE.load(Ordering::SeqCst));
        scope.spawn(|| {
            takes(Duration::ZERO, || assert!(matches!(queue.try_put(2), Err(PutError::Full(2)))));
            let soon = Duration::from_millis(5);
            takes(soon, || assert!(matches!(queue.put_timeout(2, soon), Err(PutError::Full(2)))));
            tried.wait();
            // It lives on.
            over.wait();
        });
        tried.wait();
        assert_eq!(queue.len() as u64, OFTEN);
        HOLDS.store(false, Ordering::SeqCst);
        takes(Duration::ZERO, || queue.put(3).unwrap());
        over.wait();
    });
    assert_eq!(queue.get_many(999).unwrap()[OFTEN as usize..], [1, 7, 3]);
}

/// Nothing comes between the messages of a batch that need not wait, also if the queue grows for them, or if it is the last look
/// at the room that finds it.
#[test]
fn a_batch_that_makes_the_queue_grow_stays_together() {
    let _watchdog = watchdog();
    let _turn = TURN.lock();
    for is_bounded in [false, true] {
        IS_INSIDE.store(false, Ordering::SeqCst);
        let queue = if is_bounded { Queue::bounded(1_001) } else { Queue::<u64, Slow>::new() }.unwrap();
        let batch = || std::iter::once(7).chain(8..if is_bounded { 1_007 } else { 20_000 });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..OFTEN {
                    queue.put_many([number + 8]).unwrap();
                }
                if is_bounded {
                    // All the room is there, and this thread has not seen it.
                    assert_eq!(
                        elsewhere(&queue, |queue| queue.get_many(1_001).unwrap()).len(),
                        OFTEN as usize
                    );
                }
                HOLDS.store(true, Ordering::SeqCst);
                queue.put_many(batch()).unwrap();
            });
            wait_until("the batch is begun", || IS_INSIDE.load(Ordering::SeqCst));
            let other = Child::run(|| queue.put(3).unwrap());
            other.wait_asleep();
            HOLDS.store(false, Ordering::SeqCst);
            other.join();
        });
        let got = queue.get_many(usize::MAX).unwrap();
        let before = if is_bounded { 0 } else { OFTEN as usize };
        assert!(
            got[before..].iter().copied().eq(batch().chain([3])),
            "{:?}",
            got.iter().position(|n| *n == 3)
        );
    }
}

/// A process without barriers waits once for what was granted before it came, and not each time that it comes.
#[test]
fn one_without_barriers_has_to_wait_only_once() {
    let _watchdog = watchdog();
    const ROUNDS: u64 = 20;
    let queue = Queue::<u64, Raw>::new().unwrap();
    let (turn, slow) = (Slot::new(), Slot::new());
    let other = Child::run(|| {
        without_membarrier(true);
        for round in 0..ROUNDS {
            wait_until("its turn", || turn.get() == 2 * round + 1);
            let begin = Instant::now();
            queue.put(1).unwrap();
            slow.add((begin.elapsed() >= Duration::from_millis(20)).into());
            turn.set(2 * round + 2);
        }
    });
    for round in 0..ROUNDS {
        for number in 0..OFTEN {
            queue.put(number).unwrap();
            queue.get().unwrap();
        }
        turn.set(2 * round + 1);
        wait_until("the other's turn", || turn.get() == 2 * round + 2);
        queue.get().unwrap();
    }
    other.join();
    assert!((1..ROUNDS / 2).contains(&slow.get()), "{} of {ROUNDS} had to wait", slow.get());
}

#[test]
fn a_claim_that_would_be_one_lock_too_many_is_refused() {
    let _watchdog = watchdog();
    let arena = Arena::new(1 << 20).unwrap();
    let locks: Vec<_> = (0..2047).map(|_| Mutex::new_in(&arena, 0u64).unwrap()).collect();
    let queue = Queue::<u32, Raw>::new().unwrap();
    queue.put_many([1, 2, 3]).unwrap();
    let guards: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
    for _ in 0..3 {
        assert!(matches!(queue.claim(), Err(GetError::TooManyLocks)));
        assert!(matches!(queue.try_get_ref(), Err(GetError::TooManyLocks)));
    }
    assert_eq!((queue.len(), queue.get().unwrap()), (3, 1));
    // It needs both locks at once, and leaves none behind.
    let closed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.close()));
    assert!(closed.is_err() && !queue.is_closed());
    Child::run(|| queue.put(4).unwrap()).join();
    drop(guards);
    assert_eq!(queue.claim().unwrap().ack(), 2);
    queue.close();
    assert_eq!(queue.iter().map(Result::unwrap).collect::<Vec<_>>(), [3, 4]);
}

/// What a claim keeps counts as bytes that are in use, whatever is got beyond it, and through however many parts.
#[test]
fn a_claim_counts_among_the_bytes_when_a_part_is_left_behind_it() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::with_max_bytes(200_000).unwrap();
    queue.put_many(0..20_000).unwrap();
    let claim = queue.claim().unwrap();
    assert!(queue.get_many(usize::MAX).unwrap().into_iter().eq(1..20_000));
    let put = queue.try_put_many(0..100_000).unwrap_err().put;
    assert!((20_000 + put) * 8 <= 200_000, "{put} more");
    assert_eq!(claim.ack(), 0);
    assert_eq!(queue.get_many(usize::MAX).unwrap().len(), put);
    assert!(queue.try_put_many(0..100_000).unwrap_err().put > put + 15_000);
}
