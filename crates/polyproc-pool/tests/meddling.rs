//! What a pool does when its users panic, cancel, wait from several threads, and ask for too much.

mod common;

use common::{signal, spin, state, wait_until, watchdog};
use nix::sys::signal::Signal;
use polyproc_pool::{Pool, TaskError};
use polyproc_process::init_for_tests;
use polyproc_testing::{tid, wait_asleep};
use polyproc_value::RawValue;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

init_for_tests!();

fn square(n: u64) -> u64 {
    n * n
}

/// Says that it runs, and waits for leave to go on.
fn gated(gate: RawValue<u32>) {
    gate.store(1);
    while gate.load() != 2 {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn hang(beacon: RawValue<u32>) {
    beacon.store(std::process::id());
    std::thread::sleep(Duration::from_secs(100));
}

/// Who waits for something else receives it, and goes on waiting.
#[test]
fn a_result_that_another_thread_receives_wakes_who_waits_for_it() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let gate = RawValue::new(0u32).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| pool.apply(gated, (gate.clone(),)).unwrap());
        wait_until("it runs", || gate.load() == 1);
        for n in 0..100 {
            let begin = Instant::now();
            let result = pool.apply_async(square, (n,));
            assert_eq!(result.get_timeout(Duration::from_secs(10)).unwrap(), n * n);
            assert!(begin.elapsed() < Duration::from_secs(9), "nobody has told it");
        }
        gate.store(2);
    });
}

/// Whether it has begun or not.
#[test]
fn what_is_submitted_is_run_also_if_nobody_keeps_its_result() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let (gate, count) = (RawValue::new(0u32).unwrap(), RawValue::new(0u32).unwrap());
    let first = pool.apply_async(gated, (gate.clone(),));
    wait_until("it runs", || gate.load() == 1);
    let add = |count: RawValue<u32>| {
        count.fetch_add(1);
    };
    for _ in 0..10 {
        drop(pool.apply_async(add, (count.clone(),)));
    }
    drop(pool.starmap_async(add, (0..10).map(|_| (count.clone(),))));
    assert_eq!(count.load(), 0);
    gate.store(2);
    first.get().unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!((count.load(), pool.stats().tasks), (20, 21));
}

#[test]
fn a_result_that_a_thread_waits_for_can_be_asked_for_and_cancelled_by_another() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let beacon = RawValue::new(0u32).unwrap();
    let result = pool.apply_async(hang, (beacon.clone(),));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| result.get());
        wait_until("the task runs", || beacon.load() != 0);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!result.is_ready());
        assert!(!result.wait_timeout(Duration::from_millis(1)));
        assert!(result.cancel());
        assert!(matches!(waiter.join().unwrap(), Err(TaskError::Cancelled)));
    });
    assert!(result.is_ready());
}

#[test]
fn of_several_that_wait_for_a_result_one_has_it() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let gate = RawValue::new(0u32).unwrap();
    let first = pool.apply_async(gated, (gate.clone(),));
    let result = pool.map_async(square, 0..3);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| result.get())).collect();
        std::thread::sleep(Duration::from_millis(5));
        gate.store(2);
        let got: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        assert_eq!(got.iter().flatten().collect::<Vec<_>>(), [&[0, 1, 4]]);
    });
    first.get().unwrap();
}

/// A result that nobody has received yet is no reason to kill the worker, which is at something else.
#[test]
fn what_is_cancelled_too_late_hits_nothing_else() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    for round in 0..60 {
        let beacon = RawValue::new(0u32).unwrap();
        let task = |beacon: RawValue<u32>, n: u64| {
            beacon.store(1);
            spin(Duration::from_millis(1));
            n
        };
        let done = pool.apply_async(square, (3,));
        let other = pool.apply_async(task, (beacon.clone(), round));
        while beacon.load() == 0 {
            std::hint::spin_loop();
        }
        assert!(!done.cancel(), "round {round}: it was done");
        assert_eq!(other.get().unwrap(), round);
        assert_eq!(done.get().unwrap(), 9);
    }
    assert_eq!(pool.stats().deaths, 0);
}

#[test]
fn a_cancelled_map_says_so_of_every_task_that_is_not_done() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    for round in 0..40 {
        let task = |n: u64| {
            spin(Duration::from_micros(30));
            n
        };
        let result = pool.batch().chunk_size(64).map_async(task, 0..2000);
        std::thread::sleep(Duration::from_micros(200 * round));
        if !result.cancel() {
            continue;
        }
        let Err(error) = result.get() else { panic!("it was cancelled") };
        for (n, result) in error.into_results().into_iter().enumerate() {
            assert!(
                matches!(result, Err(TaskError::Cancelled)) || result.as_ref().is_ok_and(|r| *r == n as u64),
                "{n}: {result:?}"
            );
        }
    }
}

#[test]
fn a_limit_beyond_all_times_is_none() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).task_timeout(Duration::MAX).build().unwrap();
    assert_eq!(pool.apply_async(square, (3,)).get().unwrap(), 9);
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

/// Tasks that take about as long as they may: each is done or has taken too long, and none is killed for another.
#[test]
fn a_task_that_takes_too_long_takes_no_other_along() {
    let _watchdog = watchdog();
    let limit = Duration::from_millis(4);
    let pool = Pool::builder().workers(2).task_timeout(limit).build().unwrap();
    let task = |n: u64| {
        spin(Duration::from_micros(3_900 + n % 8 * 50));
        n
    };
    let results: Vec<_> = pool.batch().chunk_size(8).imap(task, 0..200).collect();
    assert_eq!(results.len(), 200);
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(result) => assert_eq!(result, n as u64),
            Err(error) => assert!(matches!(error, TaskError::TimedOut { .. }), "{n}: {error}"),
        }
    }
}

#[test]
fn a_limit_holds_for_tasks_that_come_while_another_thread_waits() {
    let _watchdog = watchdog();
    let limit = Duration::from_millis(400);
    let pool = Pool::builder().workers(2).task_timeout(limit).build().unwrap();
    pool.map(square, 0..10).unwrap();
    std::thread::scope(|scope| {
        let timed = || {
            let start = Instant::now();
            let result = pool.apply(|| std::thread::sleep(Duration::from_secs(100)), ());
            assert!(matches!(result, Err(TaskError::TimedOut { .. })));
            start.elapsed()
        };
        let first = scope.spawn(timed);
        std::thread::sleep(limit / 2);
        for took in [timed(), first.join().unwrap()] {
            assert!(took >= limit && took < limit + limit / 4, "{took:?}");
        }
    });
}

/// It is submitted by a `next` that has its result already, and so does not wait; and nobody else has anything to do.
#[test]
fn a_limit_holds_for_tasks_that_come_while_everybody_sleeps() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).task_timeout(Duration::from_millis(30)).build().unwrap();
    let task = |n: u64| {
        if n == 2 {
            std::thread::sleep(Duration::from_secs(100));
        }
        n
    };
    pool.batch().chunk_size(2).map(task, 0..2).unwrap();
    let mut results = pool.batch().chunk_size(2).max_in_flight(2).imap(task, 0..3);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    // Until the supervisor sleeps with nothing to look after.
    std::thread::sleep(Duration::from_millis(80));
    assert_eq!(results.next().unwrap().unwrap(), 1);
    let start = Instant::now();
    wait_until("the third one has taken too long", || pool.stats().deaths == 1);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(matches!(results.next(), Some(Err(TaskError::TimedOut { .. }))));
}

/// Orders that were revoked lie in a worker's line until it passes them by, and nothing tells when it has.
#[test]
fn a_line_full_of_what_was_cancelled_holds_up_nothing() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let length = |bytes: Vec<u8>| bytes.len();
    let sum = |bytes: Vec<u8>| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    for round in 0..40u8 {
        let gate = RawValue::new(0u32).unwrap();
        let first = pool.apply_async(gated, (gate.clone(),));
        wait_until("it runs", || gate.load() == 1);
        for size in std::iter::repeat_n(10_000, 12).chain(std::iter::repeat_n(usize::from(round), 400)) {
            assert!(pool.apply_async(length, (vec![7u8; size],)).cancel());
        }
        let long = pool.apply_async(sum, (vec![round; 40_000],));
        let next = pool.apply_async(length, (vec![7u8; 9_000],));
        gate.store(2);
        first.get().unwrap();
        assert!(next.wait_timeout(Duration::from_secs(10)), "round {round}: nobody runs it");
        assert_eq!(next.get().unwrap(), 9_000);
        assert_eq!(long.get().unwrap(), u64::from(round) * 40_000, "round {round}");
    }
    assert_eq!(pool.stats().deaths, 0);
}

/// The same, and the worker has nothing to do: no report of it will come.
#[test]
fn a_worker_with_a_full_line_gets_its_next_task_when_there_is_room() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let length = |bytes: Vec<u8>| bytes.len();
    let pid = pool.apply(std::process::id, ()).unwrap();
    for size in [9_000, 40_000] {
        signal(pid, Signal::SIGSTOP);
        wait_until("it is stopped", || state(pid) == Some('T'));
        for _ in 0..20 {
            assert!(pool.apply_async(length, (vec![7u8; 10_000],)).cancel());
        }
        let next = pool.apply_async(length, (vec![7u8; size],));
        assert!(!next.wait_timeout(Duration::from_millis(20)));
        signal(pid, Signal::SIGCONT);
        assert!(next.wait_timeout(Duration::from_secs(10)), "nobody runs it");
        assert_eq!(next.get().unwrap(), size);
    }
    assert_eq!(pool.apply(std::process::id, ()).unwrap(), pid);
}

/// It is told to end when there is room, and so its state is not lost.
#[test]
fn a_worker_with_a_full_line_ends_in_peace() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).with_worker_state(|| 7u64, ()).unwrap();
    let pid = pool.apply(|_: &mut u64, (): ()| std::process::id(), ()).unwrap();
    signal(pid, Signal::SIGSTOP);
    wait_until("it is stopped", || state(pid) == Some('T'));
    for size in std::iter::repeat_n(10_000, 20).chain(std::iter::repeat_n(0, 3000)) {
        assert!(
            pool.apply_async(|state: &mut u64, bytes: Vec<u8>| *state += bytes.len() as u64, vec![1u8; size])
                .cancel()
        );
    }
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        signal(pid, Signal::SIGCONT);
    });
    assert_eq!(pool.close().unwrap(), [7]);
    waker.join().unwrap();
}

#[test]
fn a_chunk_may_be_of_any_size() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    for size in [1 << 31, 1 << 32, (1 << 32) + 1, usize::MAX] {
        let results = pool.batch().chunk_size(size).map(square, 0..5000).unwrap();
        assert!(results.into_iter().eq((0..5000).map(square)), "{size}");
        let mut endless = pool.batch().chunk_size(size).imap(square, 0..);
        assert_eq!(endless.nth(9).unwrap().unwrap(), 81);
    }
    assert!(pool.batch().chunk_size(usize::MAX).map(|()| (), vec![(); 20_000]).unwrap().len() == 20_000);
}

/// Seen from both sides: the input's, and that of who gets the results.
#[test]
fn no_more_is_in_flight_than_was_said() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    for most in [1, 2, 3, 10, 200] {
        let (pulled, got, highest) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let input = || {
            (0..1000u64).inspect(|_| {
                pulled.set(pulled.get() + 1);
                highest.set(highest.get().max(pulled.get() - got.get()));
            })
        };
        for result in pool.batch().max_in_flight(most).imap(square, input()) {
            result.unwrap();
            got.set(got.get() + 1);
        }
        assert_eq!(highest.get(), most);
        for cell in [&pulled, &got, &highest] {
            cell.set(0);
        }
        for result in pool.batch().max_in_flight(most).imap_unordered(square, input()) {
            result.unwrap();
            got.set(got.get() + 1);
        }
        assert_eq!(highest.get(), most, "unordered");
        // All at once: as far as the tasks themselves know.
        let ended = RawValue::new(0u64).unwrap();
        let input = (0..2000u64).map(|number| {
            let under_way = number + 1 - ended.load();
            assert!(under_way <= most as u64, "{under_way} of {most}");
            ended.clone()
        });
        let end = |ended: RawValue<u64>| {
            ended.fetch_add(1);
        };
        pool.batch().max_in_flight(most).map(end, input).unwrap();
        assert_eq!(ended.load(), 2000);
    }
}

/// Although no task ends that would make room.
#[test]
fn whoever_waits_to_submit_hears_of_the_end() {
    let _watchdog = watchdog();
    for is_terminated in [false, true] {
        let pool = Pool::builder().workers(1).max_in_flight(1).build().unwrap();
        let gate = RawValue::new(0u32).unwrap();
        let first = pool.apply_async(gated, (gate.clone(),));
        wait_until("it runs", || gate.load() == 1);
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let submit = |number| {
                let (sender, pool) = (sender.clone(), &pool);
                scope.spawn(move || {
                    sender.send(tid()).unwrap();
                    pool.apply_async(square, (number,)).get()
                })
            };
            // One who waits for the workers, and is told nothing of this.
            let (sender, first) = (sender.clone(), &first);
            scope.spawn(move || {
                sender.send(tid()).unwrap();
                first.wait();
            });
            wait_asleep(receiver.recv().unwrap());
            let submitters = [1, 2, 3].map(submit);
            (0..3).for_each(|_| wait_asleep(receiver.recv().unwrap()));
            let begin = Instant::now();
            if is_terminated {
                pool.terminate()
            } else {
                pool.close()
            }
            for submitter in submitters {
                let refused = submitter.join().unwrap();
                assert!(matches!(refused, Err(TaskError::Closed | TaskError::Terminated)), "{refused:?}");
            }
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
            assert!(is_terminated || gate.load() == 1, "they were told although the first one runs");
            gate.store(2);
        });
        assert_eq!(first.get().is_ok(), !is_terminated);
    }
}

/// Whoever submits faster than the workers work waits for them.
#[test]
fn no_more_is_submitted_without_a_wait_than_was_said() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).max_in_flight(3).build().unwrap();
    let gate = RawValue::new(0u32).unwrap();
    let first = pool.apply_async(gated, (gate.clone(),));
    wait_until("it runs", || gate.load() == 1);
    let submitted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let results = scope.spawn(|| {
            let submit = |n| {
                submitted.fetch_add(1, Ordering::Relaxed);
                pool.apply_async(square, (n,))
            };
            (0..50).map(submit).collect::<Vec<_>>()
        });
        wait_until("it has submitted some", || submitted.load(Ordering::Relaxed) == 3);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(submitted.load(Ordering::Relaxed), 3, "the third one of them waits");
        gate.store(2);
        let results: Vec<u64> = results.join().unwrap().into_iter().map(|one| one.get().unwrap()).collect();
        assert!(results.into_iter().eq((0..50).map(square)));
    });
    first.get().unwrap();
    // All but so many are done when it returns.
    let (gate, pulled) = (RawValue::new(0u32).unwrap(), Cell::new(0));
    let input = (0..20u64).inspect(|_| pulled.set(pulled.get() + 1)).map(|n| (gate.clone(), n));
    let task = |(gate, n): (RawValue<u32>, u64)| {
        while n == 19 && gate.load() == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        n
    };
    let result = pool.map_async(task, input);
    assert_eq!(pulled.get(), 20);
    assert!(pool.stats().tasks >= 51 + 17 && !result.is_ready());
    gate.store(1);
    assert!(result.get().unwrap().into_iter().eq(0..20));
    // A pool that ends lets go of who waits.
    let hold = pool.map_async(hang, vec![RawValue::new(0).unwrap(); 3]);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| pool.apply_async(square, (1,)).get());
        std::thread::sleep(Duration::from_millis(5));
        pool.terminate();
        assert!(matches!(late.join().unwrap(), Err(TaskError::Terminated)));
    });
    assert!(hold.get().is_err());
}

/// What was dropped from the queue counts as well.
#[test]
fn all_tasks_are_counted_whatever_becomes_of_them() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let gate = RawValue::new(0u32).unwrap();
    let first = pool.apply_async(gated, (gate.clone(),));
    wait_until("it runs", || gate.load() == 1);
    let never = pool.map_async(square, 0..100);
    assert!(never.cancel());
    assert_eq!(pool.stats().tasks, 100);
    gate.store(2);
    first.get().unwrap();
    assert_eq!(pool.stats().tasks, 101);
}

#[test]
fn input_that_panics_ends_and_what_it_had_yielded_is_run() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let input = || {
        (0..).map(|n: u64| match n {
            700 => panic!("the input panics"),
            n => n,
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(|| pool.map(square, input()))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| pool.map_async(square, input()))).is_err());
    let mut results = pool.batch().max_in_flight(50).imap(square, input());
    let (mut got, mut panics) = (Vec::new(), 0);
    loop {
        match catch_unwind(AssertUnwindSafe(|| results.next())) {
            Ok(Some(result)) => got.push(result.unwrap()),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 1);
    assert!(got.into_iter().eq((0..700).map(square)));
    drop(results);
    assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
}

/// Panics on the way: 13 where it is written, 14 where it is read.
#[derive(Debug, PartialEq)]
struct Touchy(u64);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, 13, "unlucky");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Touchy, D::Error> {
        let number = u64::deserialize(deserializer)?;
        assert_ne!(number, 14, "touchy");
        Ok(Touchy(number))
    }
}

#[test]
fn types_that_panic_on_the_way_spoil_their_own_task_only() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    // Results.
    let results: Vec<_> = pool.batch().chunk_size(7).imap(Touchy, 0..30u64).collect();
    assert_eq!(results.len(), 30);
    for (n, result) in results.into_iter().enumerate() {
        match n {
            13 => assert!(matches!(result, Err(TaskError::Panicked { .. })), "{result:?}"),
            14 => assert!(matches!(result, Err(TaskError::Decode(_))), "{result:?}"),
            n => assert_eq!(result.unwrap(), Touchy(n as u64)),
        }
    }
    let late = pool.apply_async(Touchy, (14u64,));
    assert!(matches!(late.get(), Err(TaskError::Decode(_))));
    // Arguments: the one that cannot be written panics here, in whoever submits it.
    let read = |argument: Touchy| argument.0;
    assert!(catch_unwind(AssertUnwindSafe(|| pool.apply(read, (Touchy(13),)))).is_err());
    let mut results = pool.batch().max_in_flight(5).imap(read, (0..20).map(Touchy));
    let (mut got, mut panics) = (Vec::new(), 0);
    loop {
        match catch_unwind(AssertUnwindSafe(|| results.next())) {
            Ok(Some(result)) => got.push(result.unwrap()),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!((got, panics), ((0..13).collect(), 1));
    assert!(matches!(pool.apply(read, (Touchy(14),)), Err(TaskError::Panicked { .. })));
    // A hand-over that a panic ended leaves no trace on this thread.
    let value = RawValue::new(0u32).unwrap();
    let mixed = |_: RawValue<u32>, argument: Touchy| argument.0;
    assert!(catch_unwind(AssertUnwindSafe(|| pool.apply(mixed, (value.clone(), Touchy(13))))).is_err());
    assert_eq!(pool.apply(mixed, (value, Touchy(5))).unwrap(), 5);
}

/// Whether the input was pulled to its end or not.
#[test]
fn what_a_dropped_iterator_has_not_begun_is_not_run() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    for length in [4, 100] {
        let (count, gate) = (RawValue::new(0u32).unwrap(), RawValue::new(0u32).unwrap());
        // The first one runs, and the second waits.
        let task = |(count, gate, n): (RawValue<u32>, RawValue<u32>, u32)| {
            count.fetch_add(1);
            while gate.load() < n {
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        let input = (0..length).map(|n| (count.clone(), gate.clone(), n));
        let mut results = pool.batch().chunk_size(1).max_in_flight(20).imap(task, input);
        results.next().unwrap().unwrap();
        wait_until("the second one has begun", || count.load() == 2);
        assert!(matches!(results.next_timeout(Duration::from_millis(2)), Some(Err(TaskError::NotReady))));
        drop(results);
        gate.store(1000);
        pool.apply(square, (1,)).unwrap();
        assert_eq!(count.load(), 2, "of {length}");
    }
}

/// Their results go one by one, and each has its own time.
#[test]
fn a_limit_is_each_tasks_own_when_results_are_long() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).task_timeout(Duration::from_millis(200)).build().unwrap();
    let task = |n: u64| {
        std::thread::sleep(Duration::from_millis(120));
        vec![n; 20_000]
    };
    pool.batch().chunk_size(4).map(|n: u64| n, 0..100).unwrap();
    let results = pool.batch().chunk_size(4).map(task, 0..4).unwrap();
    assert!(results.into_iter().eq((0..4).map(|n| vec![n; 20_000])));
}

/// A long result comes in parts, and between any two of them the worker may stop for a while.
#[test]
fn a_long_result_of_a_worker_that_stops_now_and_then_comes() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(1).max_tasks_per_worker(1).build().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for worker in pool.stats().workers {
                    let send = |signal| {
                        let pid = nix::unistd::Pid::from_raw(i32::try_from(worker.pid).unwrap());
                        let _ = nix::sys::signal::kill(pid, signal);
                    };
                    send(Signal::SIGSTOP);
                    std::thread::sleep(Duration::from_micros(300));
                    send(Signal::SIGCONT);
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for n in 0..40u64 {
            // Longer than any line.
            let result = pool.apply_async(|n: u64| vec![n | 1 << 40; 500_000], (n,));
            let is_there = result.wait_timeout(Duration::from_secs(20));
            is_over.store(!is_there || n == 39, Ordering::Relaxed);
            assert!(is_there, "{n} does not come");
            assert!(result.get().unwrap() == vec![n | 1 << 40; 500_000]);
        }
    });
}

/// Cannot be sent.
struct Never;

impl Serialize for Never {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

impl<'de> Deserialize<'de> for Never {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Never, D::Error> {
        Ok(Never)
    }
}

/// One thread takes whatever has come while it feeds the pool; who waits for that has to be told.
#[test]
fn a_result_that_another_thread_has_received_is_not_slept_through() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut results = pool.imap(drop::<Never>, std::iter::repeat_with(|| Never));
                while !is_over.load(Ordering::Relaxed) {
                    assert!(matches!(results.next(), Some(Err(TaskError::Encode(_)))));
                }
            });
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            // What comes with descriptors takes the bell along.
            let task = |n: u64| {
                spin(Duration::from_micros(30 + n));
                RawValue::new(n).unwrap()
            };
            let asked = Instant::now();
            assert_eq!(pool.apply(task, (17,)).unwrap().load(), 17);
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Many workers to replace: that takes a while, and is not waited for by who is told of a death.
#[test]
fn a_death_is_reported_before_others_are_started() {
    let _watchdog = watchdog();
    let pool = Pool::new(24).unwrap();
    let mut shares: Vec<f64> = (0..5)
        .map(|_| {
            wait_until("all are ready", || {
                let stats = pool.stats();
                stats.workers.len() == 24 && stats.workers.iter().all(|worker| worker.ready.is_some())
            });
            let beacon = RawValue::new(0u32).unwrap();
            let result = pool.apply_async(hang, (beacon.clone(),));
            let waiter = std::thread::spawn(move || {
                assert!(matches!(result.get(), Err(TaskError::WorkerDied { .. })));
                Instant::now()
            });
            wait_until("the task runs", || beacon.load() != 0);
            std::thread::sleep(Duration::from_millis(3));
            let start = Instant::now();
            let old: Vec<u32> = pool.stats().workers.iter().map(|worker| worker.pid).collect();
            old.iter().filter(|pid| **pid != beacon.load()).for_each(|&pid| signal(pid, Signal::SIGKILL));
            signal(beacon.load(), Signal::SIGKILL);
            wait_until("they are replaced", || {
                let stats = pool.stats();
                stats.workers.len() == 24 && stats.workers.iter().all(|worker| !old.contains(&worker.pid))
            });
            let replaced = start.elapsed();
            (waiter.join().unwrap() - start).as_secs_f64() / replaced.as_secs_f64()
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    assert!(shares[2] < 0.5, "{shares:?}");
}

#[test]
fn who_waits_while_the_pool_is_dropped_is_told() {
    let _watchdog = watchdog();
    for round in 0..60 {
        let pool = Arc::new(Pool::new(2).unwrap());
        let results: Vec<_> =
            (0..6).map(|_| pool.apply_async(|| std::thread::sleep(Duration::from_secs(100)), ())).collect();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = results.iter().map(|result| scope.spawn(|| result.get())).collect();
            std::thread::sleep(Duration::from_micros(30 * round));
            drop(pool);
            for waiter in waiters {
                assert!(matches!(waiter.join().unwrap(), Err(TaskError::Terminated)));
            }
        });
    }
}

/// Submitting costs the same, however many results are outstanding.
#[test]
fn many_results_may_be_outstanding() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let gate = RawValue::new(0u32).unwrap();
    let first = pool.apply_async(gated, (gate.clone(),));
    wait_until("it runs", || gate.load() == 1);
    let submit = |count: u64| {
        let start = Instant::now();
        let results: Vec<_> = (0..count).map(|n| pool.apply_async(square, (n,))).collect();
        (start.elapsed(), results)
    };
    let (few, mut results) = submit(4_000);
    results.extend(submit(40_000).1);
    let (many, more) = submit(4_000);
    results.extend(more);
    assert!(many < few * 8 + Duration::from_millis(50), "{few:?}, then {many:?}");
    let dropped = results.split_off(46_000);
    assert!(dropped.iter().step_by(20).all(|result| result.cancel()));
    drop(dropped);
    gate.store(2);
    first.get().unwrap();
    for (n, result) in results.into_iter().enumerate() {
        let n = if n < 4_000 {
            n
        } else if n < 44_000 {
            n - 4_000
        } else {
            n - 44_000
        };
        assert_eq!(result.get().unwrap(), square(n as u64));
    }
}
