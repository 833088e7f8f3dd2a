//! A mutex among the living: exclusion, clones, timeouts, what is shown of it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{
    Arena, LockTimeoutError, Mutex, MutexGuard, PoisonCause, PoisonError, RLock, RLockGuard, TryLockError,
};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::futex::backstop_rescues;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::{Child, Slot, watchdog, woken_in_time};

const ROUNDS: u64 = 20_000;

#[test]
fn smoke() {
    let mutex = Mutex::new(1u64).unwrap();
    assert!(!mutex.is_locked());
    assert_eq!(*mutex.lock().unwrap(), 1);
    drop(mutex.lock().unwrap());
    drop(mutex.try_lock().unwrap());
    drop(mutex.lock_timeout(Duration::from_secs(1)).unwrap());
    drop(mutex.lock_until(Instant::now() + Duration::from_secs(1)).unwrap());
    assert!(!mutex.is_locked() && !mutex.is_poisoned());
    assert_eq!((mutex.holder(), mutex.poison_cause()), (None, None));
}

#[test]
fn the_guard_is_the_data() {
    let mutex = Mutex::new([1u16, 2, 3]).unwrap();
    {
        let mut guard = mutex.lock().unwrap();
        guard[1] = 20;
        guard.reverse();
        assert_eq!(guard.iter().sum::<u16>(), 24);
        assert!(mutex.is_locked());
        assert_eq!(mutex.holder(), Some(std::process::id()));
    }
    assert!(!mutex.is_locked());
    assert_eq!(*mutex.lock().unwrap(), [3, 20, 1]);
}

#[test]
fn the_data_may_be_empty_or_large_or_aligned() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C, align(32))]
    struct Aligned([u64; 4]);
    // SAFETY: an array of numbers, as large as its alignment: any bits are valid, and there is no padding.
    unsafe impl bytemuck::Zeroable for Aligned {}
    // SAFETY: as above.
    unsafe impl bytemuck::Pod for Aligned {}

    let empty = Mutex::new(()).unwrap();
    assert!(empty.try_lock().is_ok());
    let large = Mutex::new([[7u8; 1024]; 64]).unwrap();
    large.lock().unwrap()[63][1023] = 8;
    assert_eq!(
        large.lock().unwrap().as_flattened().iter().map(|byte| u32::from(*byte)).sum::<u32>(),
        458_753
    );
    let aligned = Mutex::new(Aligned([1, 2, 3, 4])).unwrap();
    let guard = aligned.lock().unwrap();
    assert_eq!((&raw const *guard).addr() % 32, 0);
    assert_eq!(*guard, Aligned([1, 2, 3, 4]));
}

#[test]
fn clones_are_one_lock() {
    let mutex = Mutex::new(5u8).unwrap();
    let clone = mutex.clone();
    let guard = mutex.lock().unwrap();
    assert!(matches!(clone.try_lock(), Err(TryLockError::WouldBlock)));
    assert!(clone.is_locked());
    drop(guard);
    *clone.lock().unwrap() += 1;
    drop(mutex);
    assert_eq!(*clone.lock().unwrap(), 6);
}

#[test]
fn mutexes_in_an_arena_are_locks_of_their_own() {
    let arena = Arena::new(2 * 128).unwrap();
    let (one, other) = (Mutex::new_in(&arena, 1u32).unwrap(), Mutex::new_in(&arena, 2u32).unwrap());
    let refused = Mutex::new_in(&arena, 3u32).unwrap_err().to_string();
    assert!(refused.contains("arena"), "{refused}");
    drop(arena);
    let held = one.lock().unwrap();
    assert!(!other.is_locked());
    assert_eq!((*held, *other.lock().unwrap()), (1, 2));
}

#[test]
fn threads_count_to_an_exact_sum() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    *mutex.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(*mutex.lock().unwrap(), 4 * ROUNDS);
}

#[test]
fn processes_count_to_an_exact_sum() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let count = || {
        for _ in 0..ROUNDS {
            *mutex.lock().unwrap() += 1;
        }
    };
    let children: Vec<_> = (0..4).map(|_| Child::run(count)).collect();
    children.into_iter().for_each(Child::join);
    assert_eq!(*mutex.lock().unwrap(), 4 * ROUNDS);
}

#[test]
fn every_way_of_locking_excludes_the_others() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let second = Duration::from_secs(20);
    let by_timeout = || (0..ROUNDS).for_each(|_| *mutex.lock_timeout(second).unwrap() += 1);
    let by_deadline = || (0..ROUNDS).for_each(|_| *mutex.lock_until(Instant::now() + second).unwrap() += 1);
    let by_trying = || {
        for _ in 0..ROUNDS {
            loop {
                match mutex.try_lock() {
                    Ok(mut guard) => break *guard += 1,
                    Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let children = [Child::run(by_timeout), Child::run(by_deadline), Child::run(by_trying)];
    children.into_iter().for_each(Child::join);
    assert_eq!(*mutex.lock().unwrap(), 3 * ROUNDS);
}

#[test]
fn a_waiter_gets_the_lock_when_it_is_released() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let mutex = Mutex::new(0u32).unwrap();
        let (asking, done, rescues) = (Slot::new(), Slot::new(), Slot::new());
        let mut guard = mutex.lock().unwrap();
        let waiter = Child::run(|| {
            let before = backstop_rescues();
            asking.set(1);
            let value = *mutex.lock().unwrap();
            done.set(support::now());
            assert_eq!(value, 9);
            rescues.set(backstop_rescues() - before);
        });
        asking.wait();
        waiter.wait_asleep();
        *guard = 9;
        assert_eq!(done.get(), 0, "the waiter got a lock that is held");
        let released = support::now();
        drop(guard);
        waiter.join();
        assert!(done.get() >= released);
        rescues.get()
    });
}

#[test]
fn the_holder_is_the_process_that_holds() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let (holding, over) = (Slot::new(), Slot::new());
    let holder = Child::run(|| {
        let _guard = mutex.lock().unwrap();
        holding.set(1);
        over.wait();
    });
    holding.wait();
    assert!(mutex.is_locked());
    assert_eq!(mutex.holder(), Some(holder.pid()));
    assert_eq!(
        format!("{mutex:?}"),
        format!("Mutex {{ data: <locked>, holder: Some({}), poison: None, .. }}", holder.pid())
    );
    over.set(1);
    holder.join();
    assert_eq!((mutex.is_locked(), mutex.holder()), (false, None));
}

#[test]
fn trying_what_is_held_would_block() {
    let mutex = Mutex::new(0u32).unwrap();
    let _guard = mutex.lock().unwrap();
    // By this thread, and by another.
    assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock))));
    });
}

#[test]
fn locking_what_the_thread_holds_panics() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(3u32).unwrap();
    let guard = mutex.lock().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| drop(mutex.lock()))).unwrap_err();
    let message = panic.downcast_ref::<&str>().unwrap();
    assert!(message.contains("deadlock"), "{message}");
    // The guard was taken before and is dropped after: the lock is as if nothing had happened.
    assert!(mutex.is_locked());
    drop(guard);
    assert_eq!(*mutex.lock().unwrap(), 3);
}

#[test]
fn a_timeout_on_what_the_thread_holds_times_out() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let _guard = mutex.lock().unwrap();
    let (start, timeout) = (Instant::now(), Duration::from_millis(30));
    assert!(matches!(mutex.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
    assert!(start.elapsed() >= timeout);
    let deadline = Instant::now() + timeout;
    assert!(matches!(mutex.lock_until(deadline), Err(LockTimeoutError::TimedOut)));
    assert!(Instant::now() >= deadline);
}

#[test]
fn zero_and_past_deadlines_look_once() {
    let mutex = Mutex::new(0u32).unwrap();
    let past = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(mutex.lock_timeout(Duration::ZERO).is_ok());
    assert!(mutex.lock_until(past).is_ok());

    let _guard = mutex.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut quickest = Duration::MAX;
            for _ in 0..10 {
                let start = Instant::now();
                assert!(matches!(mutex.lock_timeout(Duration::ZERO), Err(LockTimeoutError::TimedOut)));
                assert!(matches!(mutex.lock_until(past), Err(LockTimeoutError::TimedOut)));
                quickest = quickest.min(start.elapsed());
            }
            // No sleep among them: the quickest of ten is not slowed down by what else the machine does.
            assert!(quickest < Duration::from_millis(1), "{quickest:?}");
        });
    });
}

#[test]
fn timeouts_are_never_early() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let _guard = mutex.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The last is longer than the longest sleep.
            for micros in [1, 50, 300, 1_000, 1_500, 5_000, 20_000, 600_000] {
                let (start, timeout) = (Instant::now(), Duration::from_micros(micros));
                assert!(matches!(mutex.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
                assert!(start.elapsed() >= timeout, "{timeout:?} took {:?}", start.elapsed());
                let deadline = Instant::now() + timeout;
                assert!(matches!(mutex.lock_until(deadline), Err(LockTimeoutError::TimedOut)));
                assert!(Instant::now() >= deadline, "{timeout:?}");
            }
        });
    });
}

/// How many signals the process has handled.
static ALARMS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_alarm(_: libc::c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// From here on, interrupts every system call of this process each millisecond.
fn interrupt_each_millisecond() {
    let mut action = core::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zero is a valid action: no flags, so that calls are interrupted, and an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = count_alarm as *const () as libc::sighandler_t;
    // SAFETY: the handler is async-signal-safe, and the old action is not wanted.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, action, core::ptr::null_mut()) }, 0);
    let each = libc::timeval { tv_sec: 0, tv_usec: 1_000 };
    let timer = libc::itimerval { it_interval: each, it_value: each };
    // SAFETY: the timer is a live value, and the old one is not wanted.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, core::ptr::null_mut()) }, 0);
}

#[test]
fn signals_neither_end_nor_prolong_a_timeout() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let _guard = mutex.lock().unwrap();
    // A process of its own: the signals are for its only thread.
    let waiter = Child::run(|| {
        interrupt_each_millisecond();
        let (start, timeout) = (Instant::now(), Duration::from_millis(300));
        assert!(matches!(mutex.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
        let elapsed = start.elapsed();
        assert!(elapsed >= timeout, "ended after {elapsed:?}");
        // Each of the hundreds of interruptions would have begun the time anew.
        assert!(elapsed < 10 * timeout, "ended after {elapsed:?}");
        let alarms = ALARMS.load(Ordering::Relaxed);
        assert!(alarms > 20, "only {alarms} signals");
    });
    waiter.join();
}

#[test]
fn signals_do_not_end_a_wait_without_timeout() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let (interrupted, done) = (Slot::new(), Slot::new());
    let guard = mutex.lock().unwrap();
    let waiter = Child::run(|| {
        interrupt_each_millisecond();
        interrupted.set(1);
        drop(mutex.lock().unwrap());
        done.set(support::now());
        assert!(ALARMS.load(Ordering::Relaxed) > 0);
    });
    interrupted.wait();
    std::thread::sleep(Duration::from_millis(50));
    let released = support::now();
    drop(guard);
    waiter.join();
    assert!(done.get() >= released);
}

#[test]
fn debug_shows_the_data_or_that_it_is_locked() {
    let mutex = Mutex::new(7i32).unwrap();
    assert_eq!(format!("{mutex:?}"), "Mutex { data: 7, poison: None, .. }");
    let guard = mutex.lock().unwrap();
    assert_eq!((format!("{guard:?}"), format!("{guard}")), ("7".to_owned(), "7".to_owned()));
    let pid = std::process::id();
    let locked = format!("Mutex {{ data: <locked>, holder: Some({pid}), poison: None, .. }}");
    assert_eq!(format!("{mutex:?}"), locked);
    drop(guard);
    assert!(!mutex.is_locked());
}

#[test]
fn refusals_say_what_is_the_matter() {
    type Try = TryLockError<()>;
    type Timeout = LockTimeoutError<()>;
    let too_many = "this thread holds 2048 locks, as many as the kernel releases when a thread dies";
    assert_eq!(Try::WouldBlock.to_string(), "the lock is held");
    assert_eq!(Try::TooManyLocks.to_string(), too_many);
    assert_eq!(Timeout::TimedOut.to_string(), "the lock was still held when the time was over");
    assert_eq!(Timeout::TooManyLocks.to_string(), too_many);
    assert_eq!(format!("{:?} {:?}", Try::WouldBlock, Try::TooManyLocks), "WouldBlock TooManyLocks");
    assert_eq!(format!("{:?} {:?}", Timeout::TimedOut, Timeout::TooManyLocks), "TimedOut TooManyLocks");
    assert!(Try::WouldBlock.source().is_none() && Timeout::TimedOut.source().is_none());
    assert_eq!(
        (PoisonCause::OwnerDied { pid: 12 }.to_string(), PoisonCause::Panicked { pid: 34 }.to_string()),
        (
            "process 12 died while it held the lock".into(),
            "process 34 panicked while it held the lock".into()
        )
    );
}

#[test]
fn handles_and_errors_go_to_other_threads() {
    fn goes<T: Send + Sync>() {}
    goes::<Mutex<u64>>();
    goes::<RLock<u64>>();
    goes::<TryLockError<()>>();
    goes::<LockTimeoutError<()>>();
    goes::<PoisonError<()>>();
    fn is_shared<T: Sync>() {}
    is_shared::<MutexGuard<'_, u64>>();
    is_shared::<RLockGuard<'_, u64>>();
}

/// Names something that a `Send` type has twice, so that it compiles for others only.
macro_rules! is_not_send {
    ($type:ty) => {
        const _: fn() = || {
            trait Ambiguous<A> {
                fn name() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + Send> Ambiguous<u8> for T {}
            <$type as Ambiguous<_>>::name();
        };
    };
}

is_not_send!(MutexGuard<'static, u64>);
is_not_send!(RLockGuard<'static, u64>);
