//! Parties are killed: the others are told at once, and who was through harms nobody.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_barrier::{Barrier, BrokenCause};
use std::time::Duration;
use support::{Child, Slot, Waiters, now, wait_for_the_end, wait_until, watchdog};

#[test]
fn a_party_killed_in_its_wait_breaks_it_for_all_at_once() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(5).unwrap();
    let mut took = Vec::new();
    for _ in 0..5 {
        let mut waiters = Waiters::asleep(&barrier, 4);
        let (pid, killed) = waiters.kill_one();
        let told = waiters.all_fail(BrokenCause::PartyDied { pid });
        took.push(Duration::from_nanos(told - killed));
        assert_eq!(barrier.broken_cause(), Some(BrokenCause::PartyDied { pid }));
        assert_eq!(barrier.wait().unwrap_err().cause(), barrier.broken_cause());
        barrier.reset();
    }
    took.sort();
    println!("from the kill until the last of three was told: {took:?}");
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
}

#[test]
fn it_is_used_again_after_a_death() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    for _ in 0..20 {
        let mut waiters = Waiters::asleep(&barrier, 2);
        let (pid, _) = waiters.kill_one();
        waiters.all_fail(BrokenCause::PartyDied { pid });
        barrier.reset();
        let waiters = Waiters::asleep(&barrier, 2);
        assert_eq!(barrier.wait().unwrap().index, 2);
        waiters.all_pass();
    }
}

/// Nobody sleeps who could notice: the last to come does.
#[test]
fn the_last_to_come_finds_the_dead() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(2).unwrap();
    let mut waiters = Waiters::asleep(&barrier, 1);
    let (pid, _) = waiters.kill_one();
    let cause = BrokenCause::PartyDied { pid };
    assert_eq!(barrier.wait().unwrap_err().cause(), Some(cause));
    assert_eq!(cause.to_string(), format!("process {pid} died at it"));
}

#[test]
fn all_killed_at_once_leave_a_barrier_that_a_reset_mends() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(4).unwrap();
    let mut waiters = Waiters::asleep(&barrier, 3);
    // Those who are woken by the death of another do not get far.
    waiters.signal(libc::SIGSTOP);
    (0..3).for_each(|_| _ = waiters.kill_one());
    assert!(matches!(barrier.wait().unwrap_err().cause(), Some(BrokenCause::PartyDied { .. })));
    barrier.reset();
    let waiters = Waiters::asleep(&barrier, 3);
    barrier.wait().unwrap();
    waiters.all_pass();
}

#[test]
fn who_dies_after_its_round_breaks_nobody_elses() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    for _ in 0..10 {
        let through = Slot::new();
        let dying = Child::run(|| {
            barrier.wait().unwrap();
            through.set(1);
            wait_for_the_end();
        });
        let waiters = Waiters::asleep(&barrier, 1);
        barrier.wait().unwrap();
        waiters.all_pass();
        through.wait();
        let others = Waiters::asleep(&barrier, 1);
        dying.kill();
        let more = Waiters::asleep(&barrier, 1);
        barrier.wait().unwrap();
        others.all_pass();
        more.all_pass();
    }
}

/// A process that ends by itself while one of its threads waits is dead to the others as if it were killed.
#[test]
fn a_process_that_ends_while_its_thread_waits_breaks_it() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let waiters = Waiters::asleep(&barrier, 1);
    let leaving = Child::run(|| {
        let inner = barrier.clone();
        std::thread::spawn(move || inner.wait());
        wait_until("the thread waits", || barrier.n_waiting() == 2);
    });
    let pid = leaving.pid();
    leaving.join();
    waiters.all_fail(BrokenCause::PartyDied { pid });
}

/// Processes that go round after round are killed at any moment. The others are told each time, or pass; then they go on.
#[test]
fn parties_killed_at_any_moment_strand_nobody() {
    let _watchdog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    for turn in 0..60u64 {
        let [rounds, told] = [Slot::new(), Slot::new()];
        let go = || {
            loop {
                match barrier.wait() {
                    Ok(_) => rounds.add(1),
                    Err(error) => {
                        told.set(u64::from(error.cause().unwrap().pid()));
                        return;
                    }
                }
            }
        };
        let dying = Child::run(go);
        let others = [Child::run(go), Child::run(go)];
        wait_until("they go", || rounds.get() > 10);
        let until = now() + turn * 3_000;
        while now() < until {
            std::hint::spin_loop();
        }
        let pid = dying.pid();
        dying.kill();
        // It may have died between two rounds: then the others wait for somebody who comes.
        let stranger = Child::run(go);
        let before = rounds.get();
        wait_until("a death is told or a stranger has joined", || {
            told.get() != 0 || rounds.get() > before + 30
        });
        if told.get() == 0 {
            barrier.abort();
        } else {
            assert_eq!(told.get(), u64::from(pid));
        }
        others.into_iter().chain([stranger]).for_each(Child::join);
        barrier.reset();
    }
}
