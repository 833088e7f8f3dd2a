//! Processes that are killed in the middle of an operation.

mod support;

use polyproc_value::{Array, ArrayError, PoisonCause, RawArray, RawValue, Value};
use std::time::{Duration, Instant};
use support::{Child, Random, sleep_for_ever, until, watched};

type Big = [u64; 100];

/// How long to let a child work before it is killed.
fn spin(microseconds: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(microseconds) {
        std::hint::spin_loop();
    }
}

#[test]
fn killed_in_update_leaves_the_old_number_and_the_lock_free() {
    let value = Value::new(7i32).unwrap();
    let inside = RawValue::new(0u32).unwrap();
    let child = Child::fork(|| {
        let _ = value.update(|n| {
            *n = 8;
            inside.store(1);
            sleep_for_ever();
        });
        false
    });
    until("the child is in the closure", || inside.load() == 1);
    assert!(value.is_locked());
    child.kill();
    watched(move || {
        assert_eq!(value.get(), Ok(7));
        assert!(!value.is_poisoned());
        assert_eq!(value.update(|n| *n += 1), Ok(()));
        assert_eq!(value.get(), Ok(8));
    });
}

#[test]
fn killed_in_update_leaves_the_old_value_of_any_size() {
    let value = Value::new([3u64; 100]).unwrap();
    let inside = RawValue::new(0u32).unwrap();
    for round in 0..3 {
        inside.store(0);
        let child = Child::fork(|| {
            let _ = value.update(|big| {
                big[..50].fill(9);
                inside.store(1);
                sleep_for_ever();
            });
            false
        });
        until("the child is in the closure", || inside.load() == 1);
        child.kill();
        assert_eq!(value.get(), Ok([3 + round; 100]));
        assert!(!value.is_poisoned());
        value.update(|big: &mut Big| big.iter_mut().for_each(|n| *n += 1)).unwrap();
    }
}

#[test]
fn killed_in_update_of_an_element_leaves_the_old_element() {
    let numbers = Array::new(&[1i16, 2, 3]).unwrap();
    let records = Array::new(&[[1u8; 7], [2; 7], [3; 7]]).unwrap();
    let inside = RawValue::new(0u32).unwrap();
    for round in 0..2 {
        inside.store(0);
        let child = Child::fork(|| {
            if round == 0 {
                let _ = numbers.update(1, |n| {
                    *n = 9;
                    inside.store(1);
                    sleep_for_ever();
                });
            } else {
                let _ = records.update(1, |record| {
                    record[..3].fill(9);
                    inside.store(1);
                    sleep_for_ever();
                });
            }
            false
        });
        until("the child is in the closure", || inside.load() == 1);
        child.kill();
        assert_eq!(numbers.to_vec().unwrap(), [1, 2, 3]);
        assert_eq!(records.to_vec().unwrap(), [[1; 7], [2; 7], [3; 7]]);
        assert!(!numbers.is_poisoned() && !records.is_poisoned());
    }
}

#[test]
fn killed_under_a_guard_poisons_the_value() {
    let value = Value::new(1i64).unwrap();
    let child = Child::fork(|| {
        let mut guard = value.lock().unwrap();
        *guard = 2;
        sleep_for_ever();
    });
    until("the child holds the guard", || value.holder() == Some(child.pid()));
    let pid = child.pid();
    child.kill();

    let cause = PoisonCause::OwnerDied { pid };
    let poisoned = value.get().unwrap_err();
    assert_eq!(poisoned.cause(), cause);
    assert_eq!(poisoned.to_string(), format!("poisoned: process {pid} died while it held the lock"));
    assert_eq!(value.set(5), Err(poisoned));
    assert_eq!(value.update(|_| panic!("called although poisoned")), Err::<(), _>(poisoned));
    assert_eq!(value.poison_cause(), Some(cause));
    assert!(!value.is_locked(), "the refusals released the lock");

    let error = value.lock().unwrap_err();
    assert_eq!(error.cause(), cause);
    let mut guard = error.into_inner();
    assert!((1..=2).contains(&*guard));
    *guard = 3;
    drop(guard);
    value.clear_poison();
    assert_eq!(value.get(), Ok(3));
}

#[test]
fn killed_under_a_guard_poisons_the_array() {
    let array = Array::new(&[1u8, 2, 3]).unwrap();
    let child = Child::fork(|| {
        let mut guard = array.lock().unwrap();
        guard[0] = 9;
        sleep_for_ever();
    });
    until("the child holds the guard", || array.holder() == Some(child.pid()));
    let pid = child.pid();
    child.kill();

    let poisoned = array.to_vec().unwrap_err();
    assert_eq!(poisoned.cause(), PoisonCause::OwnerDied { pid });
    assert_eq!(array.get(0), Err(ArrayError::Poisoned(poisoned)));
    assert_eq!(array.set(0, 1), Err(poisoned.into()));
    assert_eq!(array.update(0, |_| ()), Err(poisoned.into()));
    assert_eq!(array.read(..), Err(poisoned.into()));
    assert_eq!(array.read_into(.., &mut [0; 3]), Err(poisoned.into()));
    assert_eq!(array.write(.., &[0; 3]), Err(poisoned.into()));
    array.lock().unwrap_err().into_inner().copy_from_slice(&[4, 5, 6]);
    array.clear_poison();
    assert_eq!(array.to_vec(), Ok(vec![4, 5, 6]));
}

/// A write of 32 MiB takes milliseconds, so that the kill comes while it is under way.
#[test]
fn killed_in_write_poisons_the_array() {
    const LEN: usize = 4 << 20;
    let array = Array::<u64>::zeroed(LEN).unwrap();
    let source = vec![1u64; LEN];
    let mut pid = 0;
    // A kill that hits the moment between two writes is no poison: next to impossible, and not three times.
    for _ in 0..3 {
        let child = Child::fork(|| {
            loop {
                let _ = array.write(.., &source);
            }
        });
        pid = child.pid();
        until("the child writes", || array.holder() == Some(pid));
        child.kill();
        if array.get(0).is_err() {
            break;
        }
    }
    assert_eq!(array.poison_cause(), Some(PoisonCause::OwnerDied { pid }));
    assert!(matches!(array.get(0), Err(ArrayError::Poisoned(_))));
    array.clear_poison();
    assert!(array.get(0).is_ok());
}

#[test]
fn killed_at_any_moment_leaves_a_big_value_whole() {
    let value = Value::new([0u64; 100]).unwrap();
    let done = RawValue::new(0u64).unwrap();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..200 {
        let before = done.load();
        let child = Child::fork(|| {
            loop {
                let next = value.update(|big| {
                    let next = big[0] + 1;
                    big.iter_mut().for_each(|n| *n = next);
                    next
                });
                done.store(next.unwrap());
                value.set([done.load() + 1; 100]).unwrap();
                done.fetch_add(1);
            }
        });
        until("the child works", || done.load() > before);
        spin(random.below(300));
        child.kill();
        let found = value.get().expect("nobody held a guard");
        assert_eq!(found, [found[0]; 100], "torn");
        // What was acknowledged is there, and at most one more.
        let acknowledged = done.load();
        assert!((acknowledged..=acknowledged + 1).contains(&found[0]), "{} {acknowledged}", found[0]);
        done.store(found[0]);
    }
}

/// The elements are large, so that most kills hit the copying: before the commit, or after it.
#[test]
fn killed_at_any_moment_leaves_a_big_element_whole() {
    type Page = [u64; 512];
    let array = Array::<Page>::zeroed(3).unwrap();
    let done = RawArray::<u64>::zeroed(3).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..200u64 {
        let at = (round % 3) as usize;
        let before = done.load(at).unwrap();
        let child = Child::fork(|| {
            loop {
                let next = array.update(at, |page| {
                    let next = page[0] + 1;
                    page.iter_mut().for_each(|n| *n = next);
                    next
                });
                done.store(at, next.unwrap()).unwrap();
            }
        });
        until("the child works", || done.load(at).unwrap() > before);
        spin(random.below(300));
        child.kill();
        assert!(!array.is_poisoned());
        // Through a guard or an operation: both recover.
        let all = if round % 2 == 0 { array.to_vec().unwrap() } else { array.lock().unwrap().to_vec() };
        for (page, acknowledged) in all.iter().zip(done.to_vec()) {
            assert_eq!(*page, [page[0]; 512], "torn");
            assert!((acknowledged..=acknowledged + 1).contains(&page[0]), "{} {acknowledged}", page[0]);
        }
        done.store(at, all[at][0]).unwrap();
    }
}

#[test]
fn processes_count_to_an_exact_sum() {
    let counter = Value::new(0i32).unwrap();
    let pair = Value::new([0u64; 2]).unwrap();
    let cells = Array::<u16>::zeroed(4).unwrap();
    let children: Vec<_> = (0..4)
        .map(|index| {
            let work = || {
                for _ in 0..5_000 {
                    counter.update(|n| *n += 1).unwrap();
                    pair.update(|[a, b]| (*a, *b) = (*a + 1, *b + 2)).unwrap();
                    cells.update(index % 2, |n| *n += 1).unwrap();
                }
                true
            };
            Child::fork(work)
        })
        .collect();
    children.into_iter().for_each(Child::join);
    assert_eq!(counter.get(), Ok(20_000));
    assert_eq!(pair.get(), Ok([20_000, 40_000]));
    assert_eq!(cells.to_vec(), Ok(vec![10_000, 10_000, 0, 0]));
}

/// The parent waits in its closure until the child's call has returned and the child is gone, and then panics: so whatever
/// changed was the child's doing.
#[test]
fn a_child_that_the_closure_forks_changes_nothing() {
    let number = Value::new(1u32).unwrap();
    let big = Value::new([1u64; 3]).unwrap();
    let array = Array::new(&[[1u8; 3]]).unwrap();
    let small = Array::new(&[1u8]).unwrap();

    forks_inside(|fork| number.update(|n| (fork(), *n = 7).0).unwrap(), || number.is_locked());
    assert_eq!(number.get(), Ok(1));
    forks_inside(|fork| big.update(|n| (fork(), n.fill(7)).0).unwrap(), || big.is_locked());
    assert_eq!(big.get(), Ok([1; 3]));
    forks_inside(|fork| array.update(0, |n| (fork(), n.fill(7)).0).unwrap(), || array.is_locked());
    assert_eq!(array.get(0), Ok([1; 3]));
    forks_inside(|fork| small.update(0, |n| (fork(), *n = 7).0).unwrap(), || small.is_locked());
    assert_eq!(small.get(0), Ok(1));
}

/// The child writes through its reference when the parent has long committed: to a copy of its own.
#[test]
fn a_child_that_the_closure_forks_keeps_its_reference_to_itself() {
    let (go, done) = (RawValue::new(0u32).unwrap(), RawValue::new(0u32).unwrap());
    let late = |write: &mut dyn FnMut()| {
        Child::fork(|| {
            until("the parent has committed", || go.load() == 1);
            write();
            done.store(1);
            true
        })
    };
    let finish = |child: Child| {
        go.store(1);
        until("the child has written", || done.load() == 1);
        child.join();
        go.store(0);
        done.store(0);
    };
    let big = Value::new([1u64; 3]).unwrap();
    let child = big.update(|n| (late(&mut || n.fill(9)), n.fill(2)).0).unwrap();
    finish(child);
    assert_eq!(big.get(), Ok([2; 3]));

    let array = Array::new(&[[1u8; 3]; 2]).unwrap();
    let child = array.update(0, |n| (late(&mut || n.fill(9)), n.fill(2)).0).unwrap();
    // In the middle of another's call.
    array.update(1, |n| (n.fill(3), finish(child)).1).unwrap();
    assert_eq!(array.to_vec(), Ok(vec![[2; 3], [3; 3]]));
}

/// Calls `update` with a function to fork in its closure, and asserts in the child that the lock is still held.
fn forks_inside(update: impl FnOnce(&dyn Fn()), is_locked: impl Fn() -> bool) {
    let parent = std::process::id();
    let fork = || {
        // SAFETY: the child calls only what is in here, and ends with `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            return;
        }
        let mut status = 0;
        // SAFETY: `status` is writable; the child is ours.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        panic!("the child's status was {status}");
    };
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| update(&fork)));
    if std::process::id() != parent {
        let inert = end.is_ok() && is_locked();
        // SAFETY: ends the child without the test harness's exit handlers.
        unsafe { libc::_exit(if inert { 0 } else { 1 }) };
    }
    let panic = end.expect_err("the parent's closure panics");
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "the child's status was 0");
    assert!(!is_locked(), "the parent's lock is released by its panic");
}
