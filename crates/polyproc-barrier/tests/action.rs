//! The action: once a round, before anybody passes; panics; handles that do not know it.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_barrier::{Arena, Barrier, BrokenCause, WaitError};
use polyproc_memory::handover;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use support::{Child, Slot, Waiters, wait_for_the_end, wait_until, watchdog};

/// The handle as it arrives in another process: without the action.
fn sent(barrier: &Barrier) -> Barrier {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(barrier));
    let copies: Vec<_> =
        descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned().unwrap()).collect();
    handover::receive(copies, || postcard::from_bytes(&bytes.unwrap())).unwrap()
}

#[test]
fn it_runs_once_a_round_before_anybody_passes() {
    const ROUNDS: u64 = 300;
    let _watchdog = watchdog();
    let [begun, done] = [Slot::new(), Slot::new()];
    let barrier = Barrier::with_action(3, move || {
        begun.add(1);
        std::thread::yield_now();
        done.add(1);
    })
    .unwrap();
    let leaders = Slot::new();
    let children: Vec<_> = (0..3)
        .map(|_| {
            Child::run(|| {
                for round in 1..=ROUNDS {
                    let wait = barrier.wait().unwrap();
                    leaders.add(wait.leader.into());
                    assert_eq!(wait.leader, wait.index == 2);
                    let (begun, done) = (begun.get(), done.get());
                    assert!(done >= round, "passed before the action of {round}, which was at {done}");
                    assert!(begun <= round + 1, "{begun} actions in {round}");
                }
            })
        })
        .collect();
    children.into_iter().for_each(Child::join);
    assert_eq!((leaders.get(), begun.get(), done.get()), (ROUNDS, ROUNDS, ROUNDS));
}

#[test]
fn while_it_runs_all_wait() {
    let _watchdog = watchdog();
    let [running, finish] = [Slot::new(), Slot::new()];
    let barrier = Barrier::with_action(3, move || {
        running.set(1);
        finish.wait();
    })
    .unwrap();
    let waiters = Waiters::asleep(&barrier, 2);
    let leader = Child::run(|| assert!(barrier.wait().unwrap().leader));
    running.wait();
    assert_eq!(barrier.n_waiting(), 3);
    // One more is for the next round.
    let late = Waiters::asleep(&barrier, 1);
    assert_eq!(barrier.n_waiting(), 3);
    finish.set(1);
    waiters.all_pass();
    leader.join();
    wait_until("the late one is in the next round", || barrier.n_waiting() == 1);
    barrier.abort();
    late.all_fail(BrokenCause::Aborted { pid: std::process::id() });
}

#[test]
fn a_panic_breaks_the_barrier_and_goes_on() {
    let _watchdog = watchdog();
    let fails = Slot::new();
    fails.set(1);
    let barrier = Barrier::with_action(3, move || assert_eq!(fails.get(), 0, "no more milk")).unwrap();
    let waiters = Waiters::asleep(&barrier, 2);
    let panic = catch_unwind(AssertUnwindSafe(|| barrier.wait())).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("no more milk"));
    let cause = BrokenCause::ActionPanicked { pid: std::process::id() };
    waiters.all_fail(cause);
    assert_eq!(barrier.wait().unwrap_err().cause(), Some(cause));
    assert_eq!(cause.to_string(), format!("the action panicked in process {}", std::process::id()));
    fails.set(0);
    barrier.reset();
    let waiters = Waiters::asleep(&barrier, 2);
    barrier.wait().unwrap();
    waiters.all_pass();
}

#[test]
fn a_leader_killed_in_it_breaks_the_barrier() {
    let _watchdog = watchdog();
    let running = Slot::new();
    let barrier = Barrier::with_action(3, move || {
        running.set(1);
        wait_for_the_end();
    })
    .unwrap();
    let waiters = Waiters::asleep(&barrier, 2);
    let leader = Child::run(|| _ = barrier.wait());
    running.wait();
    let pid = leader.pid();
    leader.kill();
    waiters.all_fail(BrokenCause::PartyDied { pid });
}

#[test]
fn a_party_killed_while_it_runs_breaks_the_barrier() {
    let _watchdog = watchdog();
    let [running, finish] = [Slot::new(), Slot::new()];
    let barrier = Barrier::with_action(3, move || {
        running.set(1);
        finish.wait();
    })
    .unwrap();
    let mut waiters = Waiters::asleep(&barrier, 2);
    let cause = Slot::new();
    let leader = Child::run(|| {
        let error = barrier.wait().unwrap_err();
        cause.set(u64::from(error.cause().unwrap().pid()));
    });
    running.wait();
    let (pid, _) = waiters.kill_one();
    // The other party is told at once, the leader when it is done.
    waiters.all_fail(BrokenCause::PartyDied { pid });
    finish.set(1);
    leader.join();
    assert_eq!(cause.get(), u64::from(pid));
}

#[test]
fn a_timeout_and_an_abort_end_waits_while_it_runs() {
    let _watchdog = watchdog();
    let [running, finish] = [Slot::new(), Slot::new()];
    let barrier = Barrier::with_action(2, move || {
        running.set(1);
        finish.wait();
    })
    .unwrap();
    for abort in [false, true] {
        running.set(0);
        finish.set(0);
        let waiters = abort.then(|| Waiters::asleep(&barrier, 1));
        let timed = (!abort).then(|| {
            Child::run(|| {
                let error = barrier.wait_timeout(Duration::from_millis(50)).unwrap_err();
                assert_eq!(error.cause(), Some(BrokenCause::TimedOut { pid: std::process::id() }));
            })
        });
        wait_until("one waits", || barrier.n_waiting() == 1);
        let leader = Child::run(|| _ = barrier.wait().unwrap_err());
        running.wait();
        if let Some(waiters) = waiters {
            barrier.abort();
            waiters.all_fail(BrokenCause::Aborted { pid: std::process::id() });
        }
        timed.into_iter().for_each(Child::join);
        finish.set(1);
        leader.join();
        barrier.reset();
    }
}

#[test]
fn a_handle_that_does_not_know_it_says_so_and_breaks_nothing() {
    let _watchdog = watchdog();
    let runs = Slot::new();
    let action = move || runs.add(1);
    let barrier = Barrier::with_action(2, action).unwrap();
    let mut received = sent(&barrier);
    assert_eq!(received.wait(), Err(WaitError::NoAction));
    assert_eq!(received.wait_timeout(Duration::ZERO), Err(WaitError::NoAction));
    assert!(!barrier.is_broken());
    assert_eq!(barrier.n_waiting(), 0);
    received.attach_action(action);
    let waiters = Waiters::asleep(&barrier, 1);
    received.clone().wait().unwrap();
    waiters.all_pass();
    assert_eq!(runs.get(), 1);
}

#[test]
fn an_action_that_only_a_handle_knows_is_not_run() {
    let mut barrier = Barrier::new(1).unwrap();
    barrier.attach_action(|| unreachable!("the barrier was made without one"));
    barrier.wait().unwrap();
    let arena = Arena::new(4096).unwrap();
    let runs = Slot::new();
    let barrier = Barrier::with_action_in(&arena, 1, move || runs.add(1)).unwrap();
    barrier.wait().unwrap();
    assert_eq!(runs.get(), 1);
}

/// It may use the barrier, but for waiting at it; and it may fork: its child is nobody at the barrier.
#[test]
fn it_may_abort_and_fork() {
    let _watchdog = watchdog();
    let slot: Slot = Slot::new();
    let handle = std::sync::Arc::new(std::sync::OnceLock::<Barrier>::new());
    let inner = handle.clone();
    let barrier = Barrier::with_action(1, move || inner.get().unwrap().abort()).unwrap();
    handle.set(barrier.clone()).unwrap();
    let cause = BrokenCause::Aborted { pid: std::process::id() };
    assert_eq!(barrier.wait().unwrap_err().cause(), Some(cause));

    let barrier = Barrier::with_action(1, move || {
        // SAFETY: the child does nothing but what a forked child may, and ends below.
        if unsafe { libc::fork() } == 0 {
            slot.add(100);
        }
        slot.add(1);
    })
    .unwrap();
    Child::run(|| {
        let parent = std::process::id();
        barrier.wait().unwrap();
        if std::process::id() == parent {
            // SAFETY: the status is not wanted.
            unsafe { libc::wait(core::ptr::null_mut()) };
        }
    })
    .join();
    assert_eq!(slot.get(), 102);
    assert!(!barrier.is_broken());
    assert_eq!(format!("{barrier:?}"), "Barrier { parties: 1, n_waiting: 0, waiting: [], broken: None, .. }");
}
