//! Parts of an array that are lent to other processes, when whoever lends them is killed.

mod support;

use polyproc_memory::Arena;
use polyproc_value::{Array, LockTimeoutError, PoisonCause, RawArray, TryLockError};
use std::time::Duration;
use support::{Child, until};

/// What the processes say to each other: words that go up.
struct Scene {
    array: Array<u32>,
    words: RawArray<u32>,
}

const WORKER: usize = 0;
const BEGUN: usize = 1;
const MAY_BEGIN: usize = 2;
const MAY_END: usize = 3;
const REFUSED: usize = 4;

impl Scene {
    fn new(array: Array<u32>) -> Scene {
        Scene { array, words: RawArray::zeroed(5).unwrap() }
    }

    fn get(&self, word: usize) -> u32 {
        self.words.load(word).unwrap()
    }

    fn set(&self, word: usize, value: u32) {
        self.words.store(word, value).unwrap();
    }

    /// A lender that lends a part to a child of its own, and waits for its end.
    fn lender(&self) -> Child {
        Child::fork(|| {
            let mut guard = self.array.lock().unwrap_or_else(|error| error.into_inner());
            let lending = guard.lend();
            let mut loan = lending.loan();
            let worker = Child::fork(|| {
                until("it may begin", || self.get(MAY_BEGIN) == 1);
                let done = loan.with(1..3, |part| {
                    part[0] = 7;
                    self.set(BEGUN, 1);
                    until("it may end", || self.get(MAY_END) == 1);
                    part[1] = 8;
                });
                self.set(REFUSED, u32::from(done.is_err()));
                true
            });
            self.set(WORKER, worker.pid());
            worker.join();
            drop(lending);
            true
        })
    }
}

#[test]
fn a_lender_has_everything_back_when_the_loan_ends() {
    let scene = Scene::new(Array::new(&[1, 2, 3, 4]).unwrap());
    scene.set(MAY_BEGIN, 1);
    scene.set(MAY_END, 1);
    scene.lender().join();
    assert_eq!(scene.array.to_vec().unwrap(), [1, 7, 8, 4]);
}

/// Alone, and in memory that it shares with others.
#[test]
fn who_is_at_work_when_the_lender_dies_is_waited_for() {
    let arena = Arena::new(1 << 16).unwrap();
    let neighbour = Array::new_in(&arena, &[9u32; 4]).unwrap();
    for array in [Array::new(&[1, 2, 3, 4]).unwrap(), Array::new_in(&arena, &[1, 2, 3, 4]).unwrap()] {
        let scene = Scene::new(array);
        let lender = scene.lender();
        scene.set(MAY_BEGIN, 1);
        until("it is at work", || scene.get(BEGUN) == 1);
        let pid = lender.pid();
        lender.kill();
        let array = &scene.array;
        assert!(matches!(array.try_lock(), Err(TryLockError::WouldBlock)));
        let limit = Duration::from_millis(10);
        assert!(matches!(array.lock_timeout(limit), Err(LockTimeoutError::TimedOut)));
        assert_eq!(array.poison_cause(), Some(PoisonCause::OwnerDied { pid }));
        neighbour.set(0, 1).unwrap();
        // Also by those who look at no guard, and by those to whom somebody has said that all is well.
        array.clear_poison();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| array.get(2).unwrap());
            std::thread::sleep(Duration::from_millis(5));
            assert!(!reader.is_finished());
            scene.set(MAY_END, 1);
            assert_eq!(reader.join().unwrap(), 8);
        });
        assert_eq!(array.to_vec().unwrap(), [1, 7, 8, 4]);
        assert!(array.try_lock().is_ok());
    }
}

#[test]
fn a_worker_that_is_killed_after_its_lender_holds_up_nobody() {
    let scene = Scene::new(Array::new(&[1, 2, 3, 4]).unwrap());
    let lender = scene.lender();
    scene.set(MAY_BEGIN, 1);
    until("it is at work", || scene.get(BEGUN) == 1);
    lender.kill();
    // SAFETY: takes no pointers; it is at work, and was not reaped.
    unsafe { libc::kill(scene.get(WORKER) as libc::pid_t, libc::SIGKILL) };
    let guard = scene.array.lock().unwrap_err().into_inner();
    assert_eq!(*guard, [1, 7, 3, 4]);
}

#[test]
fn who_comes_too_late_is_refused() {
    let scene = Scene::new(Array::new(&[1, 2, 3, 4]).unwrap());
    let lender = scene.lender();
    until("the worker is there", || scene.get(WORKER) != 0);
    lender.kill();
    let mut guard = scene.array.lock().unwrap_err().into_inner();
    // Lent again, which is another loan.
    let again = guard.lend();
    scene.set(REFUSED, 2);
    scene.set(MAY_BEGIN, 1);
    scene.set(MAY_END, 1);
    until("it has tried", || scene.get(REFUSED) != 2);
    assert_eq!(scene.get(REFUSED), 1);
    again.loan().with(0..4, |part| assert_eq!(part, [1, 2, 3, 4])).unwrap();
    drop(again);
    assert_eq!(scene.get(BEGUN), 0);
}

/// Whoever was to wait for the end is killed as well.
#[test]
fn who_waits_may_die_too() {
    let scene = Scene::new(Array::new(&[1, 2, 3, 4]).unwrap());
    let lender = scene.lender();
    scene.set(MAY_BEGIN, 1);
    until("it is at work", || scene.get(BEGUN) == 1);
    lender.kill();
    for _ in 0..3 {
        let heir = Child::fork(|| scene.array.lock().is_ok());
        until("it waits", || scene.array.is_locked());
        std::thread::sleep(Duration::from_millis(2));
        heir.kill();
        assert!(matches!(scene.array.try_lock(), Err(TryLockError::WouldBlock)));
    }
    scene.set(MAY_END, 1);
    assert_eq!(*scene.array.lock().unwrap_err().into_inner(), [1, 7, 8, 4]);
}

/// The guard is a copy, and so is what it lends.
#[test]
fn a_forked_child_has_nothing_to_lend() {
    let array = Array::new(&[1, 2, 3, 4]).unwrap();
    let mut guard = array.lock().unwrap();
    Child::fork(|| guard.lend().loan().with(0..1, |part| part[0] = 5).is_err()).join();
    let lending = guard.lend();
    lending.loan().with(0..1, |part| part[0] += 1).unwrap();
    drop(lending);
    assert_eq!(*guard, [2, 2, 3, 4]);
}
