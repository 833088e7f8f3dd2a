//! Signal handlers set an event, whatever they interrupt, and signals neither end nor prolong a wait.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_event::Event;
use polyproc_sys::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use support::{Child, Slot, Waiters, forbid, watchdog, woken_in_time};

/// What the handler sets. Each test has it in a child of its own.
static EVENT: OnceLock<Event> = OnceLock::new();
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn set(_: libc::c_int) {
    if let Some(event) = EVENT.get() {
        event.set();
    }
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn ignore(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Without SA_RESTART, so that system calls are interrupted.
fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zero is a valid action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: the handlers above touch atomics and an event, which is async-signal-safe.
    let result = unsafe { libc::sigaction(signal, &action, core::ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// `SIGALRM` again and again; zero ends it.
fn alarm_every(interval: Duration) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval.as_micros() as libc::suseconds_t };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is readable.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, core::ptr::null_mut()) };
    assert_eq!(result, 0);
}

const STORM: Duration = Duration::from_micros(60);
const LONG: Duration = Duration::from_secs(30);

/// The thread that waits is the one whose handler sets.
#[test]
fn a_handler_ends_the_wait_that_it_interrupts() {
    let _watchdog = watchdog();
    let asking = Slot::new();
    let child = Child::run(|| {
        let event = EVENT.get_or_init(|| Event::new().unwrap());
        handle(libc::SIGUSR1, set);
        asking.set(1);
        event.wait();
        assert!(event.is_set());
    });
    asking.wait();
    child.wait_asleep();
    child.signal(libc::SIGUSR1);
    child.join();
}

#[test]
fn a_handler_sets_in_the_middle_of_everything() {
    let _watchdog = watchdog();
    let event = Event::new().unwrap();
    // Others wait meanwhile, so that the handler makes its system call too.
    let pulses = Slot::new();
    let other = Child::run(|| {
        loop {
            event.wait();
            pulses.add(1);
        }
    });
    let storm = Child::run(|| {
        let event = EVENT.get_or_init(|| event.clone());
        handle(libc::SIGALRM, set);
        alarm_every(STORM);
        let start = Instant::now();
        // Nobody but the handler sets it: it interrupts waits asleep and awake, clears, and looks.
        while start.elapsed() < Duration::from_millis(300) {
            assert!(event.wait_timeout(LONG));
            event.clear();
            for _ in 0..500 {
                event.is_set();
                event.clear();
            }
        }
        // And here it interrupts the same call of its own thread.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            for _ in 0..500 {
                event.set();
                event.clear();
            }
        }
        alarm_every(Duration::ZERO);
        assert!(HANDLED.load(Ordering::Relaxed) > 100, "{} signals", HANDLED.load(Ordering::Relaxed));
    });
    storm.join();
    assert!(pulses.get() > 0);
    other.kill();
    // Killed and interrupted as it was, it works.
    woken_in_time(|| {
        event.clear();
        let waiters = Waiters::asleep(&event, 2);
        event.set();
        waiters.join()
    });
}

#[test]
fn signals_neither_end_nor_prolong_a_wait() {
    let _watchdog = watchdog();
    Child::run(|| {
        handle(libc::SIGALRM, ignore);
        let event = Event::new().unwrap();
        alarm_every(Duration::from_micros(500));
        let timeout = Duration::from_millis(100);
        let start = Instant::now();
        assert!(!event.wait_timeout(timeout));
        let took = start.elapsed();
        alarm_every(Duration::ZERO);
        assert!(took >= timeout && took < Duration::from_secs(10), "{took:?}");
        assert!(HANDLED.load(Ordering::Relaxed) > 10);
    })
    .join();
}

/// A sandbox in which FUTEX_WAKE_OP fails: the event works there too, and the handler's caller keeps its errno.
#[test]
fn set_works_where_a_sandbox_forbids_to_set_and_wake_in_one() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let event = Event::new().unwrap();
        let waiters = Waiters::asleep(&event, 3);
        Child::run(|| {
            forbid(libc::SYS_futex, Some(libc::FUTEX_WAKE_OP));
            // SAFETY: errno is the thread's own.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: the pointer is valid as long as the thread.
            unsafe { *errno = libc::EXDEV };
            event.set();
            // SAFETY: as above.
            assert_eq!(unsafe { *errno }, libc::EXDEV);
        })
        .join();
        assert!(event.is_set());
        waiters.join()
    });
}
