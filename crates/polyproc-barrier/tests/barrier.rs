//! A barrier among the living: rounds, timeouts, abort, reset, and what is shown of it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_barrier::{Arena, Barrier, BrokenCause, MAX_PARTIES, WaitError};
use polyproc_memory::handover;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use support::{Child, Slot, Waiters, handle_interrupts, wait_until, watchdog};

const TICK: Duration = Duration::from_millis(30);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(30);

fn me() -> u32 {
    std::process::id()
}

fn cause(result: Result<polyproc_barrier::BarrierWait, WaitError>) -> BrokenCause {
    result.unwrap_err().cause().expect("a broken barrier")
}

#[test]
fn one_party_passes_at_once() {
    let barrier = Barrier::new(1).unwrap();
    for _ in 0..3 {
        let wait = barrier.wait().unwrap();
        assert_eq!((wait.index, wait.leader, wait.is_leader()), (0, true, true));
        assert!(barrier.wait_timeout(Duration::ZERO).is_ok());
        assert!(barrier.wait_until(Instant::now() - Duration::from_millis(1)).is_ok());
    }
    assert_eq!((barrier.parties(), barrier.n_waiting(), barrier.is_broken()), (1, 0, false));
}

#[test]
fn a_number_of_parties_that_cannot_be_is_refused() {
    for parties in [0, MAX_PARTIES + 1, usize::MAX] {
        let error = Barrier::new(parties).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("a barrier has 1 to 2047 parties, not {parties}"));
    }
    let barrier = Barrier::new(MAX_PARTIES).unwrap();
    assert_eq!(cause(barrier.wait_timeout(Duration::from_millis(1))), BrokenCause::TimedOut { pid: me() });
}

#[test]
fn handles_may_go_anywhere() {
    fn check<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    check::<Barrier>();
}

/// In each round, nobody is more than a step ahead: what all have done before it is there after it.
#[test]
fn five_processes_go_a_thousand_rounds_in_lock_step() {
    const ROUNDS: u64 = 1_000;
    let _watchdog = watchdog();
    let barrier = Barrier::new(5).unwrap();
    let done = [(); 5].map(|()| Slot::new());
    let [indices, leaders, rescues] = [Slot::new(), Slot::new(), Slot::new()];
    let children: Vec<_> = (0..5)
        .map(|number: usize| {
            Child::run(|| {
                for round in 0..ROUNDS {
                    done[number].set(round + 1);
                    let wait = barrier.wait().unwrap();
                    indices.add(1 << (8 * wait.index));
                    leaders.add(wait.leader.into());
                    for other in done {
                        let other = other.get();
                        assert!(other > round, "passed without another, who was at {other} in {round}");
                        assert!(other <= round + 2, "another was ahead, at {other} in {round}");
                    }
                }
                rescues.add(polyproc_sys::futex::backstop_rescues());
            })
        })
        .collect();
    children.into_iter().for_each(Child::join);
    assert_eq!((leaders.get(), rescues.get()), (ROUNDS, 0));
    // Each of the five indices came up once a round; the sums are carried from digit to digit.
    let each = ROUNDS * (1 + (1 << 8) + (1 << 16) + (1 << 24) + (1 << 32));
    assert_eq!(indices.get(), each);
}

#[test]
fn more_threads_than_seats_take_turns() {
    const THREADS: usize = 9;
    const ROUNDS: u64 = 600;
    let _watchdog = watchdog();
    // Seats for six.
    let barrier = Barrier::new(3).unwrap();
    let [passed, led] = [Slot::new(), Slot::new()];
    let go = || {
        loop {
            match barrier.wait() {
                Ok(wait) => {
                    passed.add(1);
                    led.add(wait.leader.into());
                }
                Err(error) => return assert_eq!(error.cause(), Some(BrokenCause::Aborted { pid: me() })),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(go)).collect();
        wait_until("they go round", || led.get() >= ROUNDS);
        barrier.abort();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(passed.get(), 3 * led.get());
    assert_eq!(polyproc_sys::futex::backstop_rescues(), 0);
}

#[test]
fn clones_and_received_handles_are_one_barrier() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&barrier));
    let copies: Vec<_> =
        descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned().unwrap()).collect();
    let received: Barrier = handover::receive(copies, || postcard::from_bytes(&bytes.unwrap())).unwrap();
    let clone = barrier.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| barrier.wait().unwrap());
        scope.spawn(|| clone.wait().unwrap());
        received.wait().unwrap();
    });
    assert_eq!(received.parties(), 3);
}

#[test]
fn barriers_in_an_arena_are_barriers_of_their_own() {
    let arena = Arena::new(2048).unwrap();
    let (one, other) = (Barrier::new_in(&arena, 2).unwrap(), Barrier::new_in(&arena, 1).unwrap());
    assert!(Barrier::new_in(&arena, MAX_PARTIES).is_err());
    drop(arena);
    one.abort();
    assert!(one.is_broken() && !other.is_broken());
    other.wait().unwrap();
}

#[test]
fn a_timeout_breaks_the_barrier_for_all() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(4).unwrap();
    let waiters = Waiters::asleep(&barrier, 2);
    assert_eq!(barrier.n_waiting(), 2);
    let start = Instant::now();
    let cause = cause(barrier.wait_timeout(TICK));
    assert!(start.elapsed() >= TICK, "after {:?}", start.elapsed());
    assert_eq!(cause, BrokenCause::TimedOut { pid: me() });
    waiters.all_fail(cause);
    assert_eq!((barrier.n_waiting(), barrier.broken_cause()), (0, Some(cause)));
    // And for whoever comes later, at once, without taking the blame.
    assert_eq!(barrier.wait(), Err(WaitError::from(cause)));
    assert_eq!(barrier.wait_timeout(Duration::ZERO), Err(WaitError::from(cause)));
}

#[test]
fn a_wait_until_a_time_that_has_passed_breaks_it_at_once() {
    let barrier = Barrier::new(2).unwrap();
    assert_eq!(cause(barrier.wait_until(Instant::now())), BrokenCause::TimedOut { pid: me() });
    barrier.reset();
    let start = Instant::now();
    assert!(barrier.wait_until(start + TICK).is_err());
    assert!(start.elapsed() >= TICK);
}

#[test]
fn a_timeout_that_is_not_needed_breaks_nothing() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(2).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| barrier.wait_timeout(LONG).unwrap());
        let index = barrier.wait_timeout(Duration::MAX).unwrap().index;
        assert_eq!(index + other.join().unwrap().index, 1);
    });
}

#[test]
fn an_abort_ends_all_waits_until_a_reset() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let waiters = Waiters::asleep(&barrier, 2);
    barrier.abort();
    let cause = BrokenCause::Aborted { pid: me() };
    waiters.all_fail(cause);
    assert_eq!(barrier.wait(), Err(WaitError::from(cause)));
    // The first cause counts.
    Child::run(|| barrier.abort()).join();
    assert_eq!(barrier.broken_cause(), Some(cause));
    barrier.reset();
    assert_eq!(barrier.broken_cause(), None);
    let waiters = Waiters::asleep(&barrier, 2);
    barrier.wait().unwrap();
    waiters.all_pass();
}

#[test]
fn a_reset_ends_all_waits_and_the_next_round_is_whole() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    barrier.reset();
    for _ in 0..3 {
        let waiters = Waiters::asleep(&barrier, 2);
        barrier.reset();
        assert_eq!((barrier.n_waiting(), barrier.is_broken()), (0, false));
        let others = Waiters::asleep(&barrier, 2);
        waiters.all_fail(BrokenCause::Reset { pid: me() });
        assert_eq!(barrier.wait().unwrap().index, 2);
        others.all_pass();
    }
}

/// Waits that handlers interrupt go on, and timeouts are neither shorter nor longer for it.
#[test]
fn signals_interrupt_no_wait() {
    let _watchdog = watchdog();
    handle_interrupts();
    let barrier = Barrier::new(3).unwrap();
    let waiters = Waiters::asleep(&barrier, 2);
    let start = Instant::now();
    while start.elapsed() < TICK {
        waiters.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(barrier.n_waiting(), 2);
    barrier.wait().unwrap();
    waiters.all_pass();

    let patient = Child::run(|| {
        let start = Instant::now();
        let pair = Barrier::new(2).unwrap();
        assert!(pair.wait_timeout(4 * TICK).is_err());
        assert!(start.elapsed() >= 4 * TICK);
    });
    let start = Instant::now();
    while start.elapsed() < 2 * TICK {
        patient.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_micros(300));
    }
    patient.join();
}

#[test]
fn what_is_shown_says_who_waits() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(2).unwrap();
    let pid = Slot::new();
    let other = Child::run(|| {
        pid.set(u64::from(me()));
        barrier.wait().unwrap();
    });
    wait_until("the other waits", || barrier.n_waiting() == 1);
    let shown = format!("{barrier:?}");
    let pid = pid.get();
    assert_eq!(shown, format!("Barrier {{ parties: 2, n_waiting: 1, waiting: [{pid}], broken: None, .. }}"));
    barrier.wait().unwrap();
    other.join();
    barrier.abort();
    let shown = format!("{barrier:?}");
    assert!(shown.contains(&format!("waiting: [], broken: Some(Aborted {{ pid: {} }})", me())), "{shown}");
}

#[test]
fn errors_say_what_happened() {
    let barrier = Barrier::new(2).unwrap();
    barrier.abort();
    let error = barrier.wait().unwrap_err();
    assert_eq!(error.to_string(), format!("broken barrier: process {} aborted it", me()));
    let WaitError::Broken(broken) = error else { panic!("{error:?}") };
    assert_eq!(broken.cause().pid(), me());
}

/// On kernels without futex_waitv, deaths and the end of a round are found as well. The switch is the process's: a child.
#[test]
fn old_kernels_will_do() {
    let _watchdog = watchdog();
    Child::run(|| {
        polyproc_sys::futex::without_waitv(true);
        let barrier = Barrier::new(3).unwrap();
        let mut waiters = Waiters::asleep(&barrier, 2);
        let (pid, _) = waiters.kill_one();
        waiters.all_fail(BrokenCause::PartyDied { pid });
        barrier.reset();
        let waiters = Waiters::asleep(&barrier, 2);
        barrier.wait().unwrap();
        waiters.all_pass();
    })
    .join();
}
