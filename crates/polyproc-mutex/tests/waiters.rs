//! Waiters are killed, and the others still get the lock, woken by an unlock and not by their backstop.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::Mutex;
use polyproc_sys::deadline::BACKSTOP;
use polyproc_sys::futex::backstop_rescues;
use std::time::{Duration, Instant};
use support::{Child, Slot, kill, median, now, watchdog, woken_in_time};

/// A child that waits for the mutex, asleep by now.
struct Waiter {
    child: Child,
    /// When it got the lock.
    got: Slot,
    /// How many of its waits only their backstop ended.
    rescues: Slot,
}

/// A child that prepares, waits for the mutex, and is asleep when this returns.
fn wait_for(mutex: &Mutex<u64>, prepare: impl FnOnce()) -> Waiter {
    let (asking, got, rescues) = (Slot::new(), Slot::new(), Slot::new());
    let child = Child::run(|| {
        prepare();
        let before = backstop_rescues();
        asking.set(1);
        let mut guard = mutex.lock().unwrap_or_else(|error| error.into_inner());
        got.set(now());
        *guard += 1;
        drop(guard);
        rescues.set(backstop_rescues() - before);
    });
    asking.wait();
    child.wait_asleep();
    Waiter { child, got, rescues }
}

impl Waiter {
    /// Waits until it has had the lock and ended. Returns how many of its waits only their backstop ended.
    fn join(self) -> u64 {
        self.child.join();
        self.rescues.get()
    }
}

#[test]
fn a_killed_waiter_leaves_the_lock_to_the_others() {
    let _watchdog = watchdog();
    // Which of four waiters, in the order in which they fell asleep, are killed.
    for killed in [&[0][..], &[3], &[0, 1], &[1, 2], &[0, 1, 2]] {
        woken_in_time(|| {
            let mutex = Mutex::new(0u64).unwrap();
            let guard = mutex.lock().unwrap();
            let mut waiters: Vec<_> = (0..4).map(|_| Some(wait_for(&mutex, || ()))).collect();
            for index in killed {
                let waiter = waiters[*index].take().unwrap();
                waiter.child.kill();
                assert_eq!(waiter.got.get(), 0);
            }
            drop(guard);
            let rescues = waiters.into_iter().flatten().map(Waiter::join).sum();
            // A dead waiter has nothing half changed.
            assert_eq!(*mutex.lock().unwrap(), 4 - killed.len() as u64);
            rescues
        });
    }
}

#[test]
fn waiters_killed_in_the_moment_of_the_unlock_strand_nobody() {
    let _watchdog = watchdog();
    for round in 0..30 {
        woken_in_time(|| {
            let mutex = Mutex::new(0u64).unwrap();
            let guard = mutex.lock().unwrap();
            let (first, second) = (wait_for(&mutex, || ()), wait_for(&mutex, || ()));
            drop(guard);
            // The first has been woken: it dies before it has the lock, while it has it, or after.
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            drop(first);
            second.join()
        });
    }
}

#[test]
fn a_wait_that_outlasts_its_backstop_and_ends_with_a_wake_is_no_rescue() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let mutex = Mutex::new(0u64).unwrap();
        let guard = mutex.lock().unwrap();
        let waiter = wait_for(&mutex, || ());
        // Two backstops, and half a third, so that the release meets the end of none.
        std::thread::sleep(BACKSTOP * 5 / 2);
        assert_eq!(waiter.got.get(), 0);
        drop(guard);
        waiter.join()
    });
}

/// The CPUs that the calling thread may run on.
fn cpus() -> libc::cpu_set_t {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the set is as large as is said.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) }, 0);
    set
}

/// Lets the calling thread run on these CPUs only.
fn run_on(set: &libc::cpu_set_t) {
    // SAFETY: the set is as large as is said.
    assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(set), set) }, 0);
}

/// The CPU that the calling thread runs on, and no other.
fn this_cpu() -> libc::cpu_set_t {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: sched_getcpu has no arguments.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
    // SAFETY: the number of a CPU of this machine.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    set
}

/// Makes the calling process one that does not push another off its CPU when it is woken.
fn wait_politely() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are a live value.
    assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) }, 0);
}

/// The wake-up that robust mutexes elsewhere lose: the unlock wakes a waiter, the lock is taken again before that
/// waiter runs, without knowledge of the second waiter, and then the first is killed. It has swallowed the only
/// wake-up. The next unlock must find the second by itself.
///
/// Returns after how many nanoseconds the second had the lock, and whether it was woken in time. `None` if something
/// else happened.
fn overtake(anywhere: &libc::cpu_set_t) -> Option<(u64, u64)> {
    let mutex = Mutex::new(0u64).unwrap();
    // The first waiter is kept from running by having to share its CPU with the thread that wakes it.
    run_on(&this_cpu());
    let guard = mutex.lock().unwrap();
    let began = now();
    let woken = wait_for(&mutex, wait_politely);
    let stranded = wait_for(&mutex, || run_on(anywhere));
    drop(guard);
    let barger = mutex.try_lock();
    kill(woken.child.pid());
    run_on(anywhere);
    // Gone before the lock is released again: else the kernel passes its wake-up on.
    woken.child.wait();
    let barger = barger.ok()?;
    if woken.got.get() != 0 {
        return None;
    }
    let released = now();
    drop(barger);
    let got = stranded.got;
    let rescues = stranded.join();
    assert!(got.get() >= released);
    // On a machine that is too busy a backstop may have ended, which wakes whom the test wants asleep.
    (released - began < 200_000_000).then(|| (got.get() - released, rescues))
}

#[test]
fn a_waiter_that_was_woken_and_killed_while_another_took_the_lock_strands_nobody() {
    const ROUNDS: usize = 20;
    let _watchdog = watchdog();
    let anywhere = cpus();
    let (mut latencies, start) = (Vec::new(), Instant::now());
    while latencies.len() < ROUNDS && start.elapsed() < Duration::from_secs(20) {
        woken_in_time(|| match overtake(&anywhere) {
            Some((latency, rescues)) => {
                latencies.push(latency);
                rescues
            }
            None => 0,
        });
    }
    assert!(latencies.len() >= ROUNDS / 4, "only {} rounds went as they should", latencies.len());
    let latency = median(latencies);
    assert!(latency < Duration::from_millis(50), "{latency:?}");
}
