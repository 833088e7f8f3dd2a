//! An event among the living: set, clear, waits, timeouts, what is shown of it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_event::{Arena, Event};
use polyproc_memory::handover;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use support::{Child, Slot, Waiters, watchdog, woken_in_time};

const TICK: Duration = Duration::from_millis(30);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn smoke() {
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    event.clear();
    assert!(!event.is_set());
    for _ in 0..3 {
        event.set();
        event.set();
        assert!(event.is_set());
        event.wait();
        event.wait();
        assert!(event.wait_timeout(LONG) && event.wait_until(Instant::now() + LONG));
        event.clear();
        event.clear();
        assert!(!event.is_set());
    }
}

#[test]
fn handles_may_go_anywhere() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    check::<Event>();
}

#[test]
fn clones_are_one_event() {
    let event = Event::new().unwrap();
    let clone = event.clone();
    event.set();
    drop(event);
    assert!(clone.is_set());
}

#[test]
fn events_in_an_arena_are_events_of_their_own() {
    let arena = Arena::new(2 * 128).unwrap();
    let (one, other) = (Event::new_in(&arena).unwrap(), Event::new_in(&arena).unwrap());
    let refused = Event::new_in(&arena).unwrap_err().to_string();
    assert!(refused.contains("arena"), "{refused}");
    drop(arena);
    one.set();
    assert!(one.is_set() && !other.is_set());
}

#[test]
fn debug_shows_the_state() {
    let event = Event::new().unwrap();
    let shows = |expected: &str| assert_eq!(format!("{event:?}"), expected);
    shows("Event { set: false, awaited: false, cleared: 0 }");
    assert!(!event.wait_timeout(Duration::from_millis(1)));
    shows("Event { set: false, awaited: true, cleared: 0 }");
    event.set();
    shows("Event { set: true, awaited: false, cleared: 0 }");
    event.clear();
    shows("Event { set: false, awaited: false, cleared: 1 }");
}

#[test]
fn a_time_that_has_passed_looks_once() {
    let _watchdog = watchdog();
    let event = Event::new().unwrap();
    let past = Instant::now() - Duration::from_millis(1);
    assert!(!event.wait_timeout(Duration::ZERO));
    assert!(!event.wait_until(past));
    event.set();
    assert!(event.wait_timeout(Duration::ZERO));
    assert!(event.wait_until(past));
}

#[test]
fn a_timeout_ends_a_wait_and_not_sooner() {
    let _watchdog = watchdog();
    let event = Event::new().unwrap();
    // Longer than the backstop, too.
    for timeout in [Duration::from_micros(1), TICK, Duration::from_millis(300)] {
        let start = Instant::now();
        assert!(!event.wait_timeout(timeout));
        assert!(start.elapsed() >= timeout);
        let deadline = Instant::now() + timeout;
        assert!(!event.wait_until(deadline));
        assert!(Instant::now() >= deadline);
    }
    // Too long to be counted is without end.
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| event.wait_timeout(Duration::MAX));
        std::thread::sleep(TICK);
        assert!(!waiter.is_finished());
        event.set();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn set_lets_everybody_go_on_and_nobody_before() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let event = Event::new().unwrap();
        let waiters = Waiters::asleep(&event, 8);
        event.set();
        let rescues = waiters.join();
        assert!(event.is_set());
        rescues
    });
}

/// However soon the clear comes: all who slept go on.
#[test]
fn a_pulse_lets_everybody_go_on_who_waited_before_it() {
    let _watchdog = watchdog();
    for pulses in [1, 2, 100] {
        woken_in_time(|| {
            let event = Event::new().unwrap();
            let waiters = Waiters::asleep(&event, 8);
            for _ in 0..pulses {
                event.set();
                event.clear();
            }
            let rescues = waiters.join();
            assert!(!event.is_set());
            rescues
        });
    }
}

#[test]
fn a_wait_with_a_timeout_is_told_of_a_pulse() {
    let _watchdog = watchdog();
    let event = Event::new().unwrap();
    let asking = Slot::new();
    let waiter = Child::run(|| {
        asking.set(1);
        let start = Instant::now();
        assert!(event.wait_timeout(LONG), "it was set, if not for long");
        assert!(start.elapsed() < LONG);
    });
    asking.wait();
    waiter.wait_asleep();
    event.set();
    event.clear();
    waiter.join();
    assert!(!event.is_set());
}

/// Two processes in turn, by two events: no set is lost, none counts twice.
#[test]
fn a_token_goes_back_and_forth() {
    let _watchdog = watchdog();
    const ROUNDS: u64 = 20_000;
    let (there, back) = (Event::new().unwrap(), Event::new().unwrap());
    let turns = Slot::new();
    let child = Child::run(|| {
        for round in 0..ROUNDS {
            there.wait();
            there.clear();
            assert_eq!(turns.get(), 2 * round + 1);
            turns.set(2 * round + 2);
            back.set();
        }
    });
    for round in 0..ROUNDS {
        assert_eq!(turns.get(), 2 * round);
        turns.set(2 * round + 1);
        there.set();
        back.wait();
        back.clear();
    }
    child.join();
    assert_eq!(turns.get(), 2 * ROUNDS);
}

/// Clear, then look: who works that way never misses what was announced before, by however many.
#[test]
fn to_clear_and_then_look_misses_nothing() {
    let _watchdog = watchdog();
    const EACH: u64 = 20_000;
    const PRODUCERS: u64 = 3;
    let event = Event::new().unwrap();
    let work = Slot::new();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            Child::run(|| {
                for _ in 0..EACH {
                    work.add(1);
                    event.set();
                }
            })
        })
        .collect();
    loop {
        assert!(event.wait_timeout(Duration::from_secs(10)), "{} of {}", work.get(), PRODUCERS * EACH);
        event.clear();
        if work.get() == PRODUCERS * EACH {
            break;
        }
    }
    producers.into_iter().for_each(Child::join);
}

#[test]
fn an_event_travels_to_another_process() {
    let event = Event::new().unwrap();
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&event));
    let bytes = bytes.unwrap();
    let duplicate = |descriptor: &handover::Descriptor| descriptor.as_fd().try_clone_to_owned().unwrap();
    let descriptors: Vec<_> = descriptors.iter().map(duplicate).collect();
    let arrived: Event = handover::receive(descriptors, || postcard::from_bytes(&bytes)).unwrap();
    arrived.set();
    assert!(event.is_set());
}

#[test]
fn outside_of_a_handover_an_event_cannot_be_serialised() {
    assert!(postcard::to_stdvec(&Event::new().unwrap()).is_err());
}
