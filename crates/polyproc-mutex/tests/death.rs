//! A holder dies, and the lock goes on: to the next, with word of who died.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{Arena, LockTimeoutError, Mutex, PoisonCause, RLock, TryLockError};
use polyproc_sys::futex::backstop_rescues;
use std::time::Duration;
use support::{Child, Slot, kill, median, now, shared_page, wait_for_the_end, watchdog, woken_in_time};

/// A child that holds the mutex, with the data set to this, until it is killed.
fn hold(mutex: &Mutex<u64>, data: u64) -> Child {
    let holding = Slot::new();
    let child = Child::run(|| {
        let mut guard = mutex.lock().unwrap();
        *guard = data;
        holding.set(1);
        wait_for_the_end();
    });
    holding.wait();
    child
}

#[test]
fn killed_holder_hands_the_lock_over() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let mut latencies = Vec::new();
    for round in 1..10 {
        let holder = hold(&mutex, round);
        let (died, asking, got) = (holder.pid(), Slot::new(), Slot::new());
        let waiter = Child::run(|| {
            asking.set(1);
            let error = mutex.lock().unwrap_err();
            got.set(now());
            assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: died });
            let mut guard = error.into_inner();
            assert_eq!(*guard, round, "the data is not as the dead left it");
            *guard = 100 + round;
            mutex.clear_poison();
        });
        asking.wait();
        waiter.wait_asleep();
        assert_eq!(got.get(), 0, "the waiter got a lock that is held");
        let killed = now();
        assert_eq!(holder.kill(), died);
        waiter.join();
        assert!(got.get() >= killed);
        latencies.push(got.get() - killed);
        assert!(!mutex.is_locked());
        assert_eq!(*mutex.lock().unwrap(), 100 + round);
    }
    let latency = median(latencies);
    assert!(latency < Duration::from_millis(50), "{latency:?}");
}

#[test]
fn the_lock_of_the_dead_is_free_at_once() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let died = |pid| PoisonCause::OwnerDied { pid };

    let pid = hold(&mutex, 1).kill();
    assert!(!mutex.is_locked());
    assert!(matches!(mutex.try_lock(), Err(TryLockError::Poisoned(error)) if error.cause() == died(pid)));
    mutex.clear_poison();

    let pid = hold(&mutex, 2).kill();
    let taken = mutex.lock_timeout(Duration::ZERO);
    assert!(matches!(taken, Err(LockTimeoutError::Poisoned(error)) if error.cause() == died(pid)));
    mutex.clear_poison();

    let pid = hold(&mutex, 3).kill();
    assert_eq!(format!("{mutex:?}"), format!("Mutex {{ data: 3, poison: Some({:?}), .. }}", died(pid)));
    let error = mutex.lock().unwrap_err();
    assert_eq!(error.to_string(), format!("poisoned lock: process {pid} died while it held the lock"));
    assert_eq!(format!("{error:?}"), format!("PoisonError {{ cause: OwnerDied {{ pid: {pid} }}, .. }}"));
}

#[test]
fn the_last_death_is_the_one_told_of() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let first = hold(&mutex, 1).kill();
    let holding = Slot::new();
    let second = Child::run(|| {
        let error = mutex.lock().unwrap_err();
        assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: first });
        holding.set(1);
        wait_for_the_end();
    });
    holding.wait();
    let second = second.kill();
    assert_eq!(mutex.lock().unwrap_err().cause(), PoisonCause::OwnerDied { pid: second });
}

#[test]
fn every_waiter_of_a_killed_holder_gets_the_lock() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let round = || {
        let holder = hold(&mutex, 0);
        let rescues = Slot::new();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let asking = Slot::new();
                let waiter = Child::run(|| {
                    let before = backstop_rescues();
                    asking.set(1);
                    let mut guard = mutex.lock().unwrap_or_else(|error| error.into_inner());
                    *guard += 1;
                    drop(guard);
                    rescues.add(backstop_rescues() - before);
                });
                asking.wait();
                waiter.wait_asleep();
                waiter
            })
            .collect();
        holder.kill();
        waiters.into_iter().for_each(Child::join);
        assert_eq!(*mutex.lock().unwrap_err().into_inner(), 4);
        mutex.clear_poison();
        rescues.get()
    };
    (0..10).for_each(|_| woken_in_time(round));
}

#[test]
fn a_thread_that_ends_with_the_lock_loses_it() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut guard = mutex.lock().unwrap();
            *guard = 4;
            core::mem::forget(guard);
        });
    });
    // The scope does not wait until the thread is gone for the kernel, so this may wait for it.
    let error = mutex.lock().unwrap_err();
    assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: std::process::id() });
    assert_eq!(*error.into_inner(), 4);
}

#[test]
fn a_process_that_exits_with_the_lock_loses_it() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let child = Child::run(|| core::mem::forget(mutex.lock().unwrap()));
    let pid = child.pid();
    child.join();
    assert_eq!(mutex.lock().unwrap_err().cause(), PoisonCause::OwnerDied { pid });
}

#[test]
fn a_process_that_becomes_another_program_loses_its_locks() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let holding = Slot::new();
    let child = Child::run(|| {
        core::mem::forget(mutex.lock().unwrap());
        holding.set(1);
        let arguments = [c"sleep".as_ptr(), c"600".as_ptr(), core::ptr::null()];
        // SAFETY: strings that live as long as the program, and the null that ends them.
        unsafe { libc::execvp(c"sleep".as_ptr(), arguments.as_ptr()) };
        panic!("there is no program named sleep");
    });
    holding.wait();
    let error = mutex.lock().unwrap_err();
    assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: child.pid() });
    // It lives on, without the lock.
    child.kill();
}

#[test]
fn a_process_killed_outside_of_the_critical_section_poisons_nothing() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u64).unwrap();
    let done = Slot::new();
    let child = Child::run(|| {
        *mutex.lock().unwrap() = 3;
        done.set(1);
        wait_for_the_end();
    });
    done.wait();
    child.kill();
    assert_eq!(*mutex.lock().unwrap(), 3);
}

#[test]
fn all_locks_of_the_dead_are_released() {
    let _watchdog = watchdog();
    let arena = Arena::new(1 << 20).unwrap();
    let mutexes: Vec<_> = (0..100u64).map(|number| Mutex::new_in(&arena, number).unwrap()).collect();
    let rlock = RLock::new(0u8).unwrap();
    let holding = Slot::new();
    let child = Child::run(|| {
        let mut guards: Vec<_> = mutexes.iter().map(|mutex| mutex.lock().unwrap()).collect();
        let _nested = (rlock.lock().unwrap(), rlock.lock().unwrap());
        // The list with holes, and in another order than that of the locks.
        guards.swap(3, 60);
        guards.truncate(50);
        drop(guards.remove(20));
        holding.set(1);
        wait_for_the_end();
    });
    holding.wait();
    let cause = PoisonCause::OwnerDied { pid: child.kill() };
    for (number, mutex) in mutexes.iter().enumerate() {
        let held = (number < 50 || number == 60) && number != 3 && number != 20;
        match mutex.try_lock() {
            Ok(_) => assert!(!held, "{number} was not held by the dead"),
            Err(TryLockError::Poisoned(error)) => {
                assert!(held, "{number} was held by the dead");
                assert_eq!(error.cause(), cause);
            }
            Err(error) => panic!("{number}: {error}"),
        }
    }
    assert_eq!(rlock.lock().unwrap_err().cause(), cause);
}

#[test]
fn robust_pthread_mutexes_held_beside_are_released_too() {
    let _watchdog = watchdog();
    let (older, newer) = (Mutex::new(1u64).unwrap(), Mutex::new(2u64).unwrap());
    let theirs = robust_pthread_mutex();
    // SAFETY: the mutex is initialised, and stays.
    let lock_theirs = || unsafe { libc::pthread_mutex_lock(theirs) };
    // SAFETY: the mutex is held by the thread that calls this.
    let unlock_theirs = || unsafe { libc::pthread_mutex_unlock(theirs) };
    // Which of the three are released again before the kill: they leave the thread's list at its ends and between.
    for released in 0..8 {
        let is_released = |number: u32| released & (1 << number) != 0;
        let holding = Slot::new();
        let child = Child::run(|| {
            let mut first = Some(older.lock().unwrap());
            assert_eq!(lock_theirs(), 0);
            let mut last = Some(newer.lock().unwrap());
            if is_released(0) {
                first = None;
            }
            if is_released(1) {
                assert_eq!(unlock_theirs(), 0);
            }
            if is_released(2) {
                last = None;
            }
            holding.set(1);
            let _held = (first, last);
            wait_for_the_end();
        });
        holding.wait();
        let cause = PoisonCause::OwnerDied { pid: child.kill() };
        let of_the_dead = |mutex: &Mutex<u64>| match mutex.try_lock() {
            Ok(_) => false,
            Err(TryLockError::Poisoned(error)) => error.cause() == cause,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(of_the_dead(&older), !is_released(0), "{released:#b}");
        assert_eq!(of_the_dead(&newer), !is_released(2), "{released:#b}");
        assert_eq!(lock_theirs(), if is_released(1) { 0 } else { libc::EOWNERDEAD }, "{released:#b}");
        // SAFETY: the mutex is held, after its holder may have died: else this is refused.
        unsafe { libc::pthread_mutex_consistent(theirs) };
        assert_eq!(unlock_theirs(), 0);
        older.clear_poison();
        newer.clear_poison();
    }
}

/// A robust pthread mutex between processes. Never freed.
fn robust_pthread_mutex() -> *mut libc::pthread_mutex_t {
    let mutex: *mut libc::pthread_mutex_t = shared_page().cast();
    let mut attributes = core::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: initialises the attributes.
    assert_eq!(unsafe { libc::pthread_mutexattr_init(attributes) }, 0);
    // SAFETY: the attributes are initialised.
    let robust = unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
    // SAFETY: as above.
    let shared = unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
    // SAFETY: as above; the mutex has a page of its own.
    assert_eq!((robust, shared, unsafe { libc::pthread_mutex_init(mutex, attributes) }), (0, 0, 0));
    mutex
}

#[test]
fn holder_and_waiter_killed_together_strand_nobody() {
    let _watchdog = watchdog();
    for _ in 0..10 {
        let mutex = Mutex::new(0u64).unwrap();
        let holder = hold(&mutex, 0);
        let got = Slot::new();
        let wait = || {
            let asking = Slot::new();
            let waiter = Child::run(|| {
                asking.set(1);
                let _guard = mutex.lock().unwrap_or_else(|error| error.into_inner());
                got.add(1);
            });
            asking.wait();
            waiter.wait_asleep();
            waiter
        };
        let (unlucky, lucky) = (wait(), wait());
        let start = std::time::Instant::now();
        // At once: the waiter that the kernel wakes for the one dies with the other.
        kill(holder.pid());
        kill(unlucky.pid());
        lucky.join();
        // Two deaths in one instant are the case that the backstop is for.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!((1..=2).contains(&got.get()));
        assert!(mutex.is_poisoned());
    }
}

/// Whether the memory of this name is mapped in this process.
fn is_mapped(name: &str) -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains(name)
}

#[test]
fn a_lock_whose_guard_was_forgotten_stays_mapped() {
    let _watchdog = watchdog();
    let thread = std::thread::spawn(|| {
        let other = Mutex::new(0u32).unwrap();
        for (name, forget) in [("dropped-guard", false), ("forgotten-guard", true)] {
            let arena = Arena::labelled(name, 4096).unwrap();
            let (mutex, rlock) = (Mutex::new_in(&arena, 0u32).unwrap(), RLock::new_in(&arena, 0u32).unwrap());
            let guards = (mutex.lock().unwrap(), rlock.lock().unwrap());
            if forget {
                core::mem::forget(guards);
            } else {
                drop(guards);
            }
            assert!(is_mapped(name));
            drop((mutex, rlock, arena));
            assert_eq!(is_mapped(name), forget);
            // Linked beside the forgotten ones, if they are still in the thread's list.
            *other.lock().unwrap() += 1;
        }
        assert_eq!(*other.lock().unwrap(), 2);
    });
    // The kernel walks the list at the thread's end.
    thread.join().unwrap();
    // Nor does the process that is forked have it in its list.
    Child::run(|| drop(Mutex::new(0u32).unwrap().lock().unwrap())).join();
}
