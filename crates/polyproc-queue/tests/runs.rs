//! Batches of plain data: they lie in the queue as runs, and whoever gets them does not notice.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{GetError, GetManyError, PutManyError, Queue, Raw};
use std::collections::VecDeque;
use support::watchdog;

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

type Message<const N: usize> = [u8; N];

fn message<const N: usize>(number: u64) -> Message<N> {
    std::array::from_fn(|nth| number.to_le_bytes()[nth % 8].wrapping_add(nth as u8))
}

/// Does what the dice say, and compares with a queue of the standard library. A second thread comes now and then, so that the
/// locks are granted and taken away again.
fn play<const N: usize>(seed: u64, queue: &Queue<Message<N>, Raw>, most: Option<usize>) {
    let mut dice = Dice(seed);
    let mut expected = VecDeque::new();
    let mut next = 0;
    let steps = 3_000;
    let elsewhere = |f: &(dyn Fn() + Sync)| std::thread::scope(|scope| scope.spawn(f).join().unwrap());
    for step in 0..steps {
        let batch = [1, 2, 7, 64, 200, 900][dice.roll(6)];
        match dice.roll(if step % 400 < 200 { 7 } else { 10 }) {
            0 | 1 => {
                let numbers: Vec<u64> = (next..next + batch as u64).collect();
                let put = match queue.try_put_many(numbers.iter().map(|number| message(*number))) {
                    Ok(()) => batch,
                    Err(PutManyError { put, rest, .. }) => {
                        assert_eq!(put + 1 + rest.len(), batch);
                        put
                    }
                };
                if let Some(most) = most {
                    assert_eq!(put, batch.min(most - expected.len()), "exactly as many as it takes");
                }
                expected.extend(&numbers[..put]);
                next += put as u64;
            }
            2 => {
                if queue.try_put(message(next)).is_ok() {
                    expected.push_back(next);
                    next += 1;
                }
            }
            3 | 7 => match queue.try_get_many(batch) {
                Ok(got) => {
                    assert_eq!(got.len(), batch.min(expected.len()), "all that is there");
                    for got in got {
                        assert_eq!(got, message(expected.pop_front().unwrap()));
                    }
                }
                Err(error) => assert!(matches!(error, GetManyError::Empty) && expected.is_empty()),
            },
            4 | 8 => match queue.try_get() {
                Ok(got) => assert_eq!(got, message(expected.pop_front().unwrap())),
                Err(error) => assert!(matches!(error, GetError::Empty) && expected.is_empty()),
            },
            5 => {
                // Several, in the middle of a run perhaps; one goes back, and the others are taken.
                let claims: Vec<_> = (0..4).map_while(|_| queue.try_claim().ok()).collect();
                assert_eq!(claims.len(), expected.len().min(4));
                let others: Vec<u64> = expected.drain(..claims.len()).collect();
                let (mut again, back) = (None, dice.roll(4));
                // What is put meanwhile must not get where they lie.
                if queue.try_put(message(next)).is_ok() {
                    expected.push_back(next);
                    next += 1;
                }
                for (nth, claim) in claims.into_iter().enumerate() {
                    assert_eq!(*claim, message(others[nth]));
                    if nth == back {
                        again = Some(others[nth]);
                        drop(claim);
                    } else {
                        claim.ack();
                    }
                }
                if let Some(number) = again {
                    let claim = queue.try_claim().unwrap();
                    assert_eq!((*claim, claim.is_redelivered()), (message(number), true));
                    claim.ack();
                }
            }
            6 if dice.roll(20) == 0 => elsewhere(&|| assert_eq!(queue.len(), expected.len())),
            6 if dice.roll(20) == 0 => {
                elsewhere(&|| match queue.try_get_many(3) {
                    Ok(got) => {
                        let numbers = expected.iter().take(3).map(|number| message(*number));
                        assert!(got.into_iter().eq(numbers));
                    }
                    Err(error) => assert!(matches!(error, GetManyError::Empty) && expected.is_empty()),
                });
                expected.drain(..expected.len().min(3));
            }
            6 => {
                for _ in 0..70 {
                    if let Ok(got) = queue.try_get() {
                        assert_eq!(got, message(expected.pop_front().unwrap()));
                    }
                }
            }
            _ => {
                let got = queue.get_many_timeout(batch, std::time::Duration::ZERO).unwrap_or_default();
                assert_eq!(got.len(), batch.min(expected.len()));
                for got in got {
                    assert_eq!(got, message(expected.pop_front().unwrap()));
                }
            }
        }
        assert_eq!(queue.len(), expected.len(), "step {step}");
    }
}

#[test]
fn whatever_is_put_and_got_in_whatever_way_it_is_the_same_as_one_by_one() {
    let _watchdog = watchdog();
    for seed in 0..if cfg!(debug_assertions) { 1 } else { 8 } {
        play::<8>(seed, &Queue::new().unwrap(), None);
        play::<8>(seed, &Queue::with_max_bytes(1).unwrap(), None);
        play::<8>(seed, &Queue::bounded(300).unwrap(), Some(300));
        play::<12>(seed, &Queue::bounded(1_000).unwrap(), Some(1_000));
        play::<64>(seed, &Queue::with_max_bytes(100_000).unwrap(), None);
        play::<256>(seed, &Queue::with_max_bytes(1 << 20).unwrap(), None);
        play::<300>(seed, &Queue::with_max_bytes(1 << 20).unwrap(), None);
        // Positions that wrap.
        play::<8>(seed, &Queue::starting_at(0u64.wrapping_sub(40_000), 0, 1 << 18).unwrap(), None);
    }
    play::<1>(9, &Queue::bounded(77).unwrap(), Some(77));
    play::<0>(9, &Queue::bounded(77).unwrap(), Some(77));
}

#[test]
fn a_batch_has_one_header() {
    let _watchdog = watchdog();
    // The smallest queue has 64 KiB.
    let queue = Queue::<u64, Raw>::with_max_bytes(1).unwrap();
    let numbers = (64 << 10) / 8 - 1;
    queue.try_put_many(0..numbers).unwrap();
    assert!(queue.try_put(numbers).is_err(), "there are no more bytes");
    assert!(queue.get_many(usize::MAX).unwrap().into_iter().eq(0..numbers));
    assert!(queue.is_empty());
}

/// What lies behind it is what was there a lap before, and looks like messages.
#[test]
fn a_batch_across_the_last_position_ends_where_it_ends() {
    let _watchdog = watchdog();
    for is_owner in [false, true] {
        const LAP: u64 = 64 << 10;
        let queue = Queue::<u64, Raw>::starting_at(0u64.wrapping_sub(LAP + 4_000), 0, LAP).unwrap();
        for _ in 0..LAP / 16 {
            // Eight bytes, says each word of it.
            queue.put(8).unwrap();
            assert_eq!(queue.get().unwrap(), 8);
        }
        queue.try_put_many(0..1_000).unwrap();
        let get = || queue.get_many(usize::MAX).unwrap();
        let got = if is_owner { get() } else { std::thread::scope(|scope| scope.spawn(get).join().unwrap()) };
        assert!(got.into_iter().eq(0..1_000), "by the owner: {is_owner}");
        assert!(queue.is_empty());
    }
}

/// They take as many bytes as their headers.
#[test]
fn bytes_run_out_also_for_messages_without_bytes() {
    let _watchdog = watchdog();
    let queue = Queue::<[u8; 0], Raw>::with_max_bytes(1).unwrap();
    let most = (64 << 10) / 8;
    for round in 0..3 {
        assert_eq!(queue.try_put_many(vec![[]; 10_000]).unwrap_err().put, most, "round {round}");
        assert_eq!((queue.len(), queue.try_put([]).is_err()), (most, true));
        assert_eq!(queue.get_many(10).unwrap().len(), 10);
        assert_eq!(queue.try_put_many(vec![[]; 11]).unwrap_err().put, 10);
        assert_eq!(queue.get_many(usize::MAX).unwrap().len(), most);
        assert!(queue.is_empty());
        // From here on by the owner.
        for _ in 0..300 {
            queue.put_many([[]]).unwrap();
            assert_eq!(queue.get_many(2).unwrap().len(), 1);
        }
    }
}
