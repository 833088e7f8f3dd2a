//! Waiters and setters are killed, and nobody is kept waiting for it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_event::Event;
use std::time::{Duration, Instant};
use support::{Child, Slot, Waiters, wait_for_the_end, watchdog, woken_in_time};

/// Python's event hangs for ever in `set` if somebody who waited was killed.
#[test]
fn killed_waiters_keep_nobody_waiting() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let event = Event::new().unwrap();
        let mut waiters = Waiters::asleep(&event, 6);
        waiters.kill_one();
        waiters.kill_one();
        let start = Instant::now();
        event.set();
        assert!(start.elapsed() < Duration::from_secs(5), "the setter waited for the dead");
        waiters.join()
    });
}

#[test]
fn waiters_all_of_whom_are_killed_leave_an_event_as_good_as_new() {
    let _watchdog = watchdog();
    let event = Event::new().unwrap();
    let mut waiters = Waiters::asleep(&event, 2);
    waiters.kill_one();
    waiters.kill_one();
    assert!(!event.is_set());
    event.set();
    event.clear();
    assert_eq!(format!("{event:?}"), "Event { set: false, awaited: false, cleared: 1 }");
    assert!(!event.wait_timeout(Duration::from_millis(5)));
}

#[test]
fn an_event_that_the_dead_have_set_stays_set() {
    let _watchdog = watchdog();
    let event = Event::new().unwrap();
    let done = Slot::new();
    let setter = Child::run(|| {
        event.set();
        done.set(1);
        wait_for_the_end();
    });
    done.wait();
    setter.kill();
    assert!(event.is_set());
    event.wait();
}

/// Processes that set and clear as fast as they can are killed at any moment, with others asleep: whoever waited goes
/// on, woken, and the event works as before.
#[test]
fn setters_killed_at_any_moment_keep_nobody_waiting() {
    let _watchdog = watchdog();
    for round in 0..40u32 {
        let event = Event::new().unwrap();
        woken_in_time(|| {
            let waiters = Waiters::asleep(&event, 3);
            let busy = Slot::new();
            let setter = Child::run(|| {
                loop {
                    event.set();
                    busy.add(1);
                    event.clear();
                }
            });
            busy.wait();
            std::thread::sleep(Duration::from_micros(u64::from(round) * 7));
            setter.kill();
            // It has pulsed once at least since they slept.
            let rescues = waiters.join();
            event.clear();
            rescues
        });
        assert!(!event.wait_timeout(Duration::from_millis(1)));
    }
}
