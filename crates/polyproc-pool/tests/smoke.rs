//! What a pool does when nothing goes wrong.

mod common;

use common::{spin, wait_until, watchdog};
use polyproc_pool::{Pool, PoolError, TaskError};
use polyproc_process::init_for_tests;
use polyproc_value::{Array, RawValue, Value};
use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

init_for_tests!();

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn map_keeps_the_order() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    for count in [0, 1, 2, 3, 7, 100, 10_000, 100_000] {
        let squares = pool.map(square, 0..count).unwrap();
        assert!(squares.iter().copied().eq((0..count).map(square)), "{count}");
    }
}

#[test]
fn chunks_of_any_size_give_the_same() {
    let _watchdog = watchdog();
    let pool = Pool::new(3).unwrap();
    for chunk in [1, 2, 7, 1000, 1 << 20] {
        let squares = pool.batch().chunk_size(chunk).map(square, 0..5_000).unwrap();
        assert!(squares.iter().copied().eq((0..5_000).map(square)), "{chunk}");
        let ordered = pool.batch().chunk_size(chunk).imap(square, 0..500).map(Result::unwrap);
        assert!(ordered.eq((0..500).map(square)), "{chunk}");
    }
}

#[test]
fn tasks_run_in_other_processes_at_the_same_time() {
    let _watchdog = watchdog();
    let pool = Pool::new(3).unwrap();
    let meeting = polyproc_barrier::Barrier::new(3).unwrap();
    let meet = |barrier: polyproc_barrier::Barrier| {
        barrier.wait().unwrap();
        std::process::id()
    };
    let pids = pool.map(meet, vec![meeting; 3]).unwrap();
    let distinct: HashSet<u32> = pids.into_iter().collect();
    assert_eq!(distinct.len(), 3);
    assert!(!distinct.contains(&std::process::id()));
}

/// Python's ends at the first error if its chunks have more than one task.
#[test]
fn an_iterator_has_each_error_in_its_place_and_goes_on() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let task = |n: u64| {
        assert!(n % 5 != 3, "{n} is refused");
        n
    };
    for chunk in [1, 4, 100] {
        let results: Vec<_> = pool.batch().chunk_size(chunk).imap(task, 0..50).collect();
        assert_eq!(results.len(), 50);
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(same) => assert_eq!(same, n),
                Err(TaskError::Panicked { message, .. }) => assert_eq!(message, format!("{n} is refused")),
                Err(error) => panic!("{error}"),
            }
        }
        let failed =
            pool.batch().chunk_size(chunk).imap_unordered(task, 0..50).filter(Result::is_err).count();
        assert_eq!(failed, 10);
        // Of a map, the first in the order of the input is told, not the first that came, and all others are there.
        let error = pool.batch().chunk_size(chunk).map(task, 0..50).unwrap_err();
        assert_eq!((error.index(), error.errors().count()), (3, 10));
        assert_eq!(
            error.into_results().into_iter().flatten().sum::<u64>(),
            (0..50).filter(|n| n % 5 != 3).sum()
        );
        assert_eq!(pool.batch().chunk_size(chunk).map(task, 0..0).unwrap(), []);
    }
}

#[test]
fn starmap_spreads_tuples() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let joined =
        pool.starmap(|a: String, b: u8, c: Option<i32>| format!("{a}{b}{c:?}"), [("x".to_owned(), 1, None)]);
    assert_eq!(joined.unwrap(), ["x1None"]);
    let later = pool.starmap_async(u32::pow, [(2, 3), (3, 2)]);
    assert_eq!(later.get().unwrap(), [8, 9]);
}

#[test]
fn unordered_results_come_as_they_are_done() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let delay = |millis: u64| {
        std::thread::sleep(Duration::from_millis(millis));
        millis
    };
    let order: Vec<u64> = pool.imap_unordered(delay, [300, 1, 2, 3]).map(Result::unwrap).collect();
    assert_eq!(order.last(), Some(&300));
    let mut indexed: Vec<_> = pool.imap_unordered(square, 0..100).indexed().collect();
    indexed.sort_by_key(|(index, _)| *index);
    for (index, result) in indexed.into_iter().enumerate() {
        assert_eq!((result.0, result.1.unwrap()), (index, square(index as u64)));
    }
}

#[test]
fn endless_input_is_pulled_as_it_is_needed() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let pulled = std::cell::Cell::new(0usize);
    let input = (0u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let mut results = pool.batch().max_in_flight(10).imap(square, input);
    for yielded in 1..=200 {
        assert_eq!(results.next().unwrap().unwrap(), square(yielded - 1));
        assert!(pulled.get() <= yielded as usize + 10, "{} after {yielded}", pulled.get());
    }
    drop(results);
    let input = (0u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let slow = |n: u64| {
        spin(Duration::from_millis(1));
        n
    };
    pulled.set(0);
    assert_eq!(pool.imap_unordered(slow, input).take(20).count(), 20);
    assert!(pulled.get() < 60, "{}", pulled.get());
}

#[test]
fn a_dropped_iterator_runs_no_more() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let count = RawValue::new(0u32).unwrap();
    let task = |(count, _): (RawValue<u32>, u32)| {
        count.fetch_add(1);
        spin(Duration::from_millis(2));
    };
    let mut results =
        pool.batch().chunk_size(1).max_in_flight(100).imap(task, (0..100).map(|n| (count.clone(), n)));
    results.next().unwrap().unwrap();
    drop(results);
    pool.apply(|| (), ()).unwrap();
    let ran = count.load();
    assert!(ran < 90, "{ran}");
}

#[test]
fn a_result_that_is_late_can_be_waited_for_again() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let slow = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    let result = pool.apply_async(slow, (100,));
    let start = Instant::now();
    assert!(matches!(result.get_timeout(Duration::from_millis(20)), Err(TaskError::NotReady)));
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(!result.is_ready());
    assert!(!result.wait_timeout(Duration::ZERO));
    result.wait();
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(result.is_ready());
    result.get().unwrap();
    assert!(matches!(result.get(), Err(TaskError::AlreadyTaken)));
    let mut results = pool.imap(slow, [100, 0]);
    assert!(matches!(results.next_timeout(Duration::from_millis(10)), Some(Err(TaskError::NotReady))));
    assert!(results.next().unwrap().is_ok());
    assert!(results.next().unwrap().is_ok());
    assert!(results.next().is_none());
}

#[test]
fn results_are_ready_though_nobody_waits() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    // More than the workers are given at once, so somebody has to attend to them.
    let result = pool.map_async(square, 0..50_000);
    wait_until("the results are there", || result.is_ready());
    assert_eq!(result.get().unwrap().len(), 50_000);
}

#[test]
fn callbacks_are_called_and_may_panic() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let (sender, receiver) = mpsc::channel();
    pool.apply_async(square, (3,)).then(|_| panic!("a callback that panics"));
    for n in 0..10 {
        let sender = sender.clone();
        pool.apply_async(square, (n,)).then(move |result| sender.send(result.unwrap()).unwrap());
    }
    let sum: u64 = (0..10).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).sum();
    assert_eq!(sum, 285);
    pool.map_async(square, 0..3).then(move |squares| sender.send(squares.unwrap().len() as u64).unwrap());
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(3));
}

#[test]
fn handles_are_among_arguments_and_results() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let counter = Value::new(0u64).unwrap();
    let add = |counter: Value<u64>, n: u64| {
        counter.update(|sum| *sum += n).unwrap();
        counter
    };
    let same = pool.starmap(add, (1..=100).map(|n| (counter.clone(), n))).unwrap();
    assert_eq!(counter.get().unwrap(), 5050);
    same[7].set(1).unwrap();
    assert_eq!(counter.get().unwrap(), 1);
}

/// In one chunk, with and without handles: each has its own.
#[test]
fn results_with_handles_lie_between_others() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let make = |n: u64| (n, (n % 3 == 2).then(|| RawValue::new(n).unwrap()));
    let made = pool.batch().chunk_size(10).map(make, 0..40).unwrap();
    assert_eq!(made.len(), 40);
    for (n, (number, handle)) in (0..).zip(made) {
        assert_eq!((number, handle.map(|handle| handle.load())), (n, (n % 3 == 2).then_some(n)));
    }
}

#[test]
fn long_arguments_and_results_pass_both_ways_at_once() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let reverse = |mut words: Vec<u64>| {
        words.reverse();
        words
    };
    for length in [1_000, 2_047, 2_049, 10_000, 150_000, 400_000] {
        let row = |n: u64| (n..n + length).collect::<Vec<u64>>();
        let results = pool.map(reverse, (0..12).map(row)).unwrap();
        for (n, mut result) in results.into_iter().enumerate() {
            result.reverse();
            assert!(result == row(n as u64), "{length}");
        }
    }
    // Small ones that become long, in one chunk.
    let grow = |n: usize| vec![n as u8; n];
    let grown = pool.batch().chunk_size(50).map(grow, (0..100).map(|n| n * 500)).unwrap();
    assert!(grown.iter().enumerate().all(|(n, bytes)| bytes.len() == n * 500));
}

#[test]
fn an_array_is_worked_on_in_place() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let array = Array::new(&(0..100_003).collect::<Vec<u32>>()).unwrap();
    pool.for_each_chunk(&mut array.lock().unwrap(), 1000, |part: &mut [u32]| {
        part.iter_mut().for_each(|n| *n *= 2);
    })
    .unwrap();
    assert!(array.to_vec().unwrap().into_iter().eq((0..100_003).map(|n| 2 * n)));
    let empty = Array::<u8>::new(&[]).unwrap();
    pool.for_each_chunk(&mut empty.lock().unwrap(), 1, |_: &mut [u8]| unreachable!()).unwrap();
}

/// How many arrays a process has mapped.
fn arrays_of(pid: u32) -> usize {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().matches("polyproc:array").count()
}

#[test]
fn a_lent_array_is_let_go_of() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let pid = pool.apply(std::process::id, ()).unwrap();
    let maps = || arrays_of(pid);
    let before = maps();
    let lend = || {
        let array = Array::<u64>::zeroed(100_000).unwrap();
        pool.for_each_chunk(&mut array.lock().unwrap(), 10_000, |part: &mut [u64]| part.fill(1)).unwrap();
        assert_eq!(maps(), before + 1, "for the next pass");
    };
    lend();
    let start = Instant::now();
    wait_until("an idle worker lets go of it", || maps() == before);
    assert!(start.elapsed() >= Duration::from_millis(500));
    lend();
    pool.apply(square, (1,)).unwrap();
    assert_eq!(maps(), before, "another function");
}

/// Else so much memory would be gone until the worker's next task.
#[test]
fn the_memory_of_a_very_long_argument_is_let_go_of() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let pid = pool.apply(std::process::id, ()).unwrap();
    let maps = || arrays_of(pid);
    let before = maps();
    for _ in 0..3 {
        let length = pool.apply(|bytes: Vec<u8>| bytes.len(), (vec![1; 20 << 20],)).unwrap();
        assert_eq!((length, maps()), (20 << 20, before));
    }
}

/// On the way back it lies in memory that the pool has lent to the worker: for the next one, if it is not too much.
#[test]
fn the_memory_of_very_long_results_is_let_go_of() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let pid = pool.apply(std::process::id, ()).unwrap();
    let maps = || arrays_of(pid);
    let before = maps();
    let fill = |length: usize| vec![1u8; length];
    for _ in 0..4 {
        assert_eq!(pool.apply(fill, (20 << 20,)).unwrap().len(), 20 << 20);
    }
    for _ in 0..20 {
        assert_eq!(pool.apply(fill, (1,)).unwrap(), [1]);
    }
    assert_eq!(maps(), before);
    // As memory that others use again.
    (0..4).for_each(|_| assert_eq!(pool.apply(fill, (1 << 20,)).unwrap().len(), 1 << 20));
    assert!(maps() > before);
}

#[test]
fn a_closed_pool_does_what_it_has_and_takes_no_more() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    assert!(matches!(pool.join(), Err(PoolError::StillOpen)));
    let slow = |n: u64| {
        std::thread::sleep(Duration::from_millis(10));
        n
    };
    let result = pool.map_async(slow, 0..20);
    pool.close();
    assert!(matches!(pool.apply(square, (1,)), Err(TaskError::Closed)));
    assert!(matches!(pool.map(square, 0..3).unwrap_err().error(), TaskError::Closed));
    assert!(matches!(pool.imap(square, 0..).next(), Some(Err(TaskError::Closed))));
    assert!(matches!(pool.join_timeout(Duration::from_millis(5)), Err(PoolError::TimedOut)));
    pool.join().unwrap();
    assert_eq!(result.get().unwrap(), (0..20).collect::<Vec<u64>>());
    assert!(pool.stats().workers.is_empty());
    pool.join().unwrap();
}

#[test]
fn a_pool_without_workers_is_refused() {
    assert!(matches!(Pool::new(0), Err(PoolError::NoWorkers)));
}

#[test]
fn workers_live_as_long_as_they_should() {
    let _watchdog = watchdog();
    let pool = Pool::builder().workers(2).max_tasks_per_worker(5).build().unwrap();
    let pids = pool.map(|_: u32| std::process::id(), 0..50).unwrap();
    let mut tasks = std::collections::HashMap::new();
    pids.iter().for_each(|pid| *tasks.entry(pid).or_insert(0) += 1);
    assert!(tasks.values().all(|&count| count <= 5), "{tasks:?}");
    assert!(tasks.len() >= 10);
    let result = pool.map_async(square, 0..33);
    pool.close();
    pool.join().unwrap();
    assert_eq!(result.get().unwrap().len(), 33);
}

#[test]
fn the_number_of_workers_can_change() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    pool.resize(3).unwrap();
    wait_until("three are ready", || {
        pool.stats().workers.iter().filter(|worker| worker.ready.is_some()).count() == 3
    });
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    pool.resize(1).unwrap();
    wait_until("one is left", || pool.stats().workers.len() == 1);
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    assert!(matches!(pool.resize(0), Err(PoolError::NoWorkers)));
    pool.close();
    pool.join().unwrap();
}

/// Also of those that would never be idle. What they are at is done, and what they had next is done by others.
#[test]
fn a_pool_under_load_shrinks_as_soon_as_tasks_end() {
    let _watchdog = watchdog();
    let pool = Pool::new(4).unwrap();
    let task = |n: u64| {
        std::thread::sleep(Duration::from_millis(3));
        n
    };
    let result = pool.map_async(task, 0..400);
    let begun = || pool.stats().tasks;
    wait_until("all are at work", || pool.stats().workers.iter().all(|worker| worker.tasks > 0));
    let before = begun();
    pool.resize(1).unwrap();
    wait_until("one is left", || pool.stats().workers.len() == 1);
    assert!(begun() - before < 50, "{} of {before}", begun());
    pool.resize(3).unwrap();
    pool.resize(2).unwrap();
    wait_until("two are at work", || pool.stats().workers.iter().filter(|one| one.tasks > 0).count() == 2);
    assert!(result.get().unwrap().into_iter().eq(0..400));
    assert_eq!(pool.stats().deaths, 0);
}

#[test]
fn a_state_lives_in_its_worker_and_comes_back() {
    let _watchdog = watchdog();
    let start = |first: u64| vec![first];
    let pool = polyproc_pool::Pool::builder().workers(3).with_worker_state(start, (7,)).unwrap();
    let note = |notes: &mut Vec<u64>, n: u64| {
        notes.push(n);
        notes.len() as u64
    };
    let lengths = pool.map(note, 0..1000).unwrap();
    assert!(lengths.iter().all(|&length| length >= 2));
    assert!(pool.apply(note, 1000).unwrap() >= 2);
    let states = pool.close().unwrap();
    assert_eq!(states.len(), 3);
    assert!(states.iter().all(|state| state[0] == 7));
    let mut all: Vec<u64> = states.into_iter().flat_map(|state| state[1..].to_vec()).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..=1000));
}

#[test]
fn the_stats_add_up() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    let work = |_: u32| spin(Duration::from_millis(1));
    pool.map(work, 0..40).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.tasks, stats.deaths), (40, 0));
    assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 40);
    let worked: Duration = stats.workers.iter().map(|worker| worker.working).sum();
    assert!(worked >= Duration::from_millis(40), "{worked:?}");
}

#[test]
fn a_pool_can_be_used_by_many_threads() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..200u64 {
                    assert_eq!(pool.apply(square, (thread + round,)).unwrap(), square(thread + round));
                }
                let input = thread * 1000..thread * 1000 + 3000;
                assert!(pool.map(square, input.clone()).unwrap().into_iter().eq(input.map(square)));
            });
        }
    });
}

#[test]
fn a_slow_task_does_not_hold_up_what_lies_behind_it() {
    let _watchdog = watchdog();
    let pool = Pool::new(2).unwrap();
    // Make them seem fast, so that each worker is given many.
    let maybe = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    pool.map(maybe, vec![0; 5_000]).unwrap();
    let start = Instant::now();
    let mut times = vec![0; 40];
    times[0] = 1_000;
    let results = pool.batch().chunk_size(1).imap_unordered(maybe, times);
    let before = results.take(39).map(Result::unwrap).count();
    assert_eq!(before, 39);
    assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
}

#[test]
fn a_fast_task_behind_a_long_map_gets_its_turn() {
    let _watchdog = watchdog();
    let pool = Pool::new(1).unwrap();
    let slow = |_: u32| spin(Duration::from_millis(2));
    let long = pool.map_async(slow, 0..500);
    let start = Instant::now();
    assert_eq!(pool.apply(square, (5,)).unwrap(), 25);
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(long.cancel());
    assert!(!long.cancel() || long.get().is_err());
}
