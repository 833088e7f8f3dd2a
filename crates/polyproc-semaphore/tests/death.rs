//! Processes are killed, and their permits come back, each once.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_semaphore::{BoundedSemaphore, Semaphore};
use polyproc_sys::futex::{backstop_rescues, without_waitv};
use std::time::{Duration, Instant};
use support::{Child, Slot, median, now, wait_for_the_end, watchdog, woken_in_time};

/// A child that holds so many permits, and waits to be killed.
fn holder(semaphore: &Semaphore, permits: usize) -> Child {
    let ready = Slot::new();
    let child = Child::run(|| {
        let _permits: Vec<_> = (0..permits).map(|_| semaphore.acquire()).collect();
        ready.set(1);
        wait_for_the_end();
    });
    ready.wait();
    child
}

/// A child that waits for a permit, asleep by now.
struct Waiter {
    child: Child,
    /// When it had it.
    got: Slot,
    /// How many of its waits only their backstop ended.
    rescues: Slot,
}

fn waiter(semaphore: &Semaphore) -> Waiter {
    let (asking, got, rescues) = (Slot::new(), Slot::new(), Slot::new());
    let child = Child::run(|| {
        let before = backstop_rescues();
        asking.set(1);
        let permit = semaphore.acquire();
        got.set(now());
        drop(permit);
        rescues.set(backstop_rescues() - before);
    });
    asking.wait();
    child.wait_asleep();
    Waiter { child, got, rescues }
}

impl Waiter {
    fn join(self) -> u64 {
        self.child.join();
        self.rescues.get()
    }
}

#[test]
fn killed_holders_permits_come_back() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::new(5).unwrap();
    let (one, three) = (holder(&semaphore, 1), holder(&semaphore, 3));
    assert_eq!(semaphore.available(), 1);
    let shown = format!("{semaphore:?}");
    assert!(shown.contains(&one.pid().to_string()) && shown.contains(&three.pid().to_string()), "{shown}");
    three.kill();
    assert_eq!(semaphore.available(), 4);
    one.kill();
    assert_eq!(semaphore.available(), 5);
    let permits: Vec<_> = (0..5).map(|_| semaphore.try_acquire().unwrap()).collect();
    assert!(semaphore.try_acquire().is_err());
    drop(permits);
    assert_eq!(semaphore.available(), 5);
}

#[test]
fn a_killed_holders_permits_reach_those_who_sleep() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let semaphore = Semaphore::new(3).unwrap();
        let holder = holder(&semaphore, 3);
        let waiters: Vec<_> = (0..5).map(|_| waiter(&semaphore)).collect();
        assert!(waiters.iter().all(|waiter| waiter.got.get() == 0));
        let killed = now();
        holder.kill();
        for waiter in &waiters {
            assert!(waiter.got.wait() >= killed);
        }
        let rescues = waiters.into_iter().map(Waiter::join).sum();
        assert_eq!(semaphore.available(), 3);
        rescues
    });
}

/// The kernel may wake the same sleeper for each of them: that one has to wake the next before it gives its own back.
#[test]
fn a_killed_holders_permits_reach_as_many_at_once() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let semaphore = Semaphore::new(3).unwrap();
        let holder = holder(&semaphore, 3);
        let (inside, rescues) = (Slot::new(), Slot::new());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let asking = Slot::new();
                let child = Child::run(|| {
                    let before = backstop_rescues();
                    asking.set(1);
                    let _permit = semaphore.acquire();
                    rescues.add(backstop_rescues() - before);
                    inside.add(1);
                    support::wait_until("all are inside", || inside.get() == 3);
                });
                asking.wait();
                child.wait_asleep();
                child
            })
            .collect();
        holder.kill();
        waiters.into_iter().for_each(Child::join);
        assert_eq!(semaphore.available(), 3);
        rescues.get()
    });
}

#[test]
fn killed_waiters_leave_the_permits_to_the_others() {
    let _watchdog = watchdog();
    for killed in [&[0][..], &[3], &[0, 1], &[1, 2], &[0, 1, 2]] {
        woken_in_time(|| {
            let semaphore = Semaphore::new(1).unwrap();
            let permit = semaphore.acquire();
            let mut waiters: Vec<_> = (0..4).map(|_| Some(waiter(&semaphore))).collect();
            for index in killed {
                waiters[*index].take().unwrap().child.kill();
            }
            drop(permit);
            let rescues = waiters.into_iter().flatten().map(Waiter::join).sum();
            assert_eq!(semaphore.available(), 1);
            rescues
        });
    }
}

#[test]
fn waiters_killed_in_the_moment_of_the_release_strand_nobody() {
    let _watchdog = watchdog();
    for round in 0..30 {
        woken_in_time(|| {
            let semaphore = Semaphore::new(1).unwrap();
            let permit = semaphore.acquire();
            let (first, second) = (waiter(&semaphore), waiter(&semaphore));
            match round % 3 {
                0 => drop(permit),
                1 => semaphore.release(1).unwrap(),
                _ => {
                    permit.forget();
                    semaphore.release(1).unwrap();
                }
            }
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            drop(first);
            second.join()
        });
    }
}

/// Many small processes that are killed at any time, each with a permit or on its way to or from one.
#[test]
fn nothing_is_lost_when_many_are_killed() {
    let _watchdog = watchdog();
    let semaphore = Semaphore::new(2).unwrap();
    let bounded = BoundedSemaphore::new(2).unwrap();
    let start = Instant::now();
    for round in 0..300u32 {
        let child = Child::run(|| {
            loop {
                let permits = (semaphore.acquire(), bounded.acquire());
                drop(permits);
                let (first, second) = (semaphore.acquire(), semaphore.acquire());
                drop(first);
                drop(second);
            }
        });
        while start.elapsed() < Duration::from_micros(u64::from(round) * 700) {
            std::hint::spin_loop();
        }
        child.kill();
        assert_eq!((semaphore.available(), bounded.available()), (2, 2));
    }
}

/// The same for permits that nobody owns: what there is in all does not change, but by the one that was forgotten and not
/// released.
#[test]
fn nothing_is_lost_when_many_are_killed_between_forgetting_and_releasing() {
    let _watchdog = watchdog();
    let bounded = BoundedSemaphore::new(2).unwrap();
    for round in 0..300u32 {
        let child = Child::run(|| {
            loop {
                bounded.acquire().forget();
                bounded.release(1).unwrap();
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(100 + u64::from(round) * 3) {
            std::hint::spin_loop();
        }
        child.kill();
        let missing = 2 - bounded.available();
        assert!(missing <= 1, "{missing} are gone after round {round}");
        assert!(bounded.release(missing + 1).is_err());
        bounded.release(missing).unwrap();
        let permits = (bounded.try_acquire().unwrap(), bounded.try_acquire().unwrap());
        assert!(bounded.try_acquire().is_err());
        drop(permits);
    }
}

/// From the kill of a holder until the one who sleeps has the permit, of so many that are held.
fn latency(kills: usize, permits: u32) -> Vec<u64> {
    (0..kills)
        .map(|_| {
            let semaphore = Semaphore::new(permits).unwrap();
            let _others: Vec<_> = (1..permits).map(|_| semaphore.acquire()).collect();
            let holder = holder(&semaphore, 1);
            let waiter = waiter(&semaphore);
            let killed = now();
            support::kill(holder.pid());
            let took = waiter.got.wait() - killed;
            let _ = waiter.join();
            took
        })
        .collect()
}

#[test]
fn a_death_is_known_at_once() {
    let _watchdog = watchdog();
    let took = (0..3).map(|_| median(latency(50, 3))).min().unwrap();
    println!("from a death to the next holder: {took:?}");
    assert!(took < Duration::from_millis(1), "{took:?}");
}

#[test]
fn a_death_beyond_the_cells_that_can_be_slept_on_is_known_soon() {
    let _watchdog = watchdog();
    let took = median(latency(9, 300));
    println!("300 cells: {took:?}");
    assert!(took < Duration::from_millis(20), "{took:?}");
}

/// Three sleep before there is any cell. The first gets the permit, the second is woken for nothing and goes; the third
/// must have heard of the cell, to hear of the first one's death.
#[test]
fn a_cell_that_comes_while_one_sleeps_is_watched() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let semaphore = Semaphore::new(0).unwrap();
        let held = Slot::new();
        let first = Child::run(|| {
            let _permit = semaphore.acquire();
            held.set(1);
            wait_for_the_end();
        });
        first.wait_asleep();
        // Mostly in vain. Should it be quicker than the first, it gives the permit back at once.
        let second = Child::run(|| drop(semaphore.acquire_timeout(Duration::from_millis(100))));
        second.wait_asleep();
        let third = waiter(&semaphore);
        semaphore.release(1).unwrap();
        held.wait();
        second.join();
        first.kill();
        third.join()
    });
}

/// Kernels before 5.16.
#[test]
fn without_the_kernels_help_a_death_is_known_soon() {
    let _watchdog = watchdog();
    Child::run(|| {
        without_waitv(true);
        let took = median(latency(9, 3));
        assert!(took < Duration::from_millis(20), "{took:?}");
        let semaphore = Semaphore::new(0).unwrap();
        let waiters = [waiter(&semaphore), waiter(&semaphore)];
        semaphore.release(2).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join(), 0);
        }
    })
    .join();
}
