//! Models of the barrier: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-barrier --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-barrier --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use polyproc_barrier::model::{is_untouched_by, round};
use polyproc_barrier::{BarrierWait, BrokenCause, RawBarrier, Seat, WaitError};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::model::{End, Explorer, run, yield_now};
// Not the checker's: it would take part in the unwinding when a model fails.
use std::sync::Arc;
use std::time::Duration;

/// The process that may vanish.
const MORTAL: u32 = 1;
/// The process that helps out, and looks at what is left.
const OBSERVER: u32 = 9;

/// A deadline that lies ahead, which in a model runs out as soon as the thread would sleep.
fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

const MODEL: Explorer = Explorer { random: 5_000, rare: 0 };

/// A barrier with two seats more than it has parties.
type Shared<const SEATS: usize> = Arc<RawBarrier<[Seat; SEATS]>>;

fn barrier<const SEATS: usize>() -> Shared<SEATS>
where
    [Seat; SEATS]: Default,
{
    Arc::new(RawBarrier::default())
}

type Thread = checker::thread::JoinHandle<Option<Result<BarrierWait, WaitError>>>;

/// A thread of its own process that waits.
fn party<const SEATS: usize>(tid: u32, barrier: &Shared<SEATS>, deadline: Deadline) -> Thread {
    let barrier = barrier.clone();
    checker::thread::spawn(move || {
        let mut result = None;
        run(tid, None, || result = Some(wait(&*barrier, deadline)));
        result
    })
}

fn wait(barrier: &RawBarrier, deadline: Deadline) -> Result<BarrierWait, WaitError> {
    barrier.wait_until(deadline, None)
}

fn ended(thread: Thread) -> Result<BarrierWait, WaitError> {
    thread.join().unwrap().expect("only one thread is mortal")
}

/// Runs `body` as the immortal observer and returns what it does.
fn observe<T>(body: impl FnOnce() -> T) -> T {
    let mut result = None;
    run(OBSERVER, None, || result = Some(body()));
    result.unwrap()
}

/// Whatever has happened, the barrier can be used again.
fn is_as_good_as_new(barrier: &RawBarrier) {
    observe(|| {
        barrier.reset();
        assert_eq!((barrier.n_waiting(), barrier.broken_cause()), (0, None));
        let me = BrokenCause::TimedOut { pid: OBSERVER };
        assert_eq!(wait(barrier, Deadline::PAST).map_err(|error| error.cause()), Err(Some(me)));
        assert_eq!(barrier.broken_cause(), Some(me));
        barrier.reset();
        assert_eq!(barrier.broken_cause(), None);
        assert_eq!(barrier.pids(), [], "{barrier:?}");
    });
}

/// Two go through two rounds in lock step: what one did before a round, the other sees after it.
#[test]
fn two_pass_together() {
    MODEL.explore(1, || {
        let (shared, work) = (barrier::<4>(), [(); 2].map(|()| AtomicU32::new(0)));
        let work = Arc::new(work);
        let go = |tid: u32, mine: usize| {
            let (shared, work) = (shared.clone(), work.clone());
            move || {
                let mut indices = [0; 2];
                run(tid, None, || {
                    for turn in 0..2 {
                        work[mine].store(turn + 1, Ordering::Relaxed);
                        let wait = wait(&*shared, Deadline::NEVER).unwrap();
                        assert_eq!(wait.leader, wait.index == 1);
                        indices[turn as usize] = wait.index;
                        let other = work[1 - mine].load(Ordering::Relaxed);
                        assert!(other > turn && other <= 2, "the other was at {other} in round {turn}");
                    }
                });
                indices
            }
        };
        let there = checker::thread::spawn(go(2, 1));
        let here = go(1, 0)();
        let there = there.join().unwrap();
        assert!(here.iter().zip(there).all(|(here, there)| here + there == 1), "{here:?} {there:?}");
        assert_eq!(observe(|| round(&*shared)), 2);
    });
}

/// The others learn of the death, or it came after their round, or a third can take the place of the dead.
fn vanish_beside<const SEATS: usize>(mortal: Option<u32>) -> End
where
    [Seat; SEATS]: Default,
{
    let shared = barrier::<SEATS>();
    let others = SEATS as u32 - 3;
    let threads: Vec<_> = (0..others).map(|index| party(2 + index, &shared, Deadline::NEVER)).collect();
    let end = run(MORTAL, mortal, || {
        let wait = wait(&*shared, Deadline::NEVER).expect("nobody else dies");
        assert_eq!(wait.leader, wait.index == others as usize);
    });
    let replaced = observe(|| {
        let untouched = is_untouched_by(&*shared, MORTAL);
        assert!(!untouched || end == End::Vanished);
        untouched.then(|| wait(&*shared, Deadline::NEVER))
    });
    let mut results: Vec<_> = threads.into_iter().map(ended).collect();
    results.extend(replaced);
    if results.iter().all(Result::is_ok) {
        let mut indices: Vec<_> = results.iter().map(|result| result.as_ref().unwrap().index).collect();
        indices.sort();
        indices.dedup();
        assert_eq!(indices.len(), results.len());
    } else {
        let cause = BrokenCause::PartyDied { pid: MORTAL };
        assert!(results.iter().all(|result| *result == Err(WaitError::from(cause))), "{results:?}");
        assert_eq!((end, replaced), (End::Vanished, None));
    }
    is_as_good_as_new(&*shared);
    end
}

#[test]
fn a_party_that_vanishes_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(1, vanish_beside::<4>);
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of two parties");
}

#[test]
#[cfg(polyproc_shuttle)]
fn a_party_that_vanishes_among_three_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(1, vanish_beside::<5>);
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of three parties");
}

/// Who vanishes while it breaks a round has broken it for all, or not at all.
#[test]
fn who_vanishes_in_an_abort_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(2, |mortal| {
        let shared = barrier::<4>();
        let thread = party(2, &shared, Deadline::NEVER);
        let end = run(MORTAL, mortal, || shared_raw(&shared).abort());
        observe(|| {
            if shared_raw(&shared).broken_cause().is_none() {
                assert_eq!(end, End::Vanished);
                shared_raw(&shared).abort();
            }
        });
        let cause = ended(thread).unwrap_err().cause().unwrap();
        assert!(matches!(cause, BrokenCause::Aborted { pid: MORTAL | OBSERVER }), "{cause}");
        is_as_good_as_new(&*shared);
        end
    });
    assert!(steps >= 6, "the mortal thread had only {steps} steps");
}

fn shared_raw<const SEATS: usize>(shared: &Shared<SEATS>) -> &RawBarrier {
    &**shared
}

/// Who vanishes in a reset leaves the barrier as it was, broken, or as new; who waited never takes it for completion.
#[test]
fn who_vanishes_in_a_reset_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(1, |mortal| {
        let shared = barrier::<4>();
        let thread = party(2, &shared, Deadline::NEVER);
        while shared_raw(&shared).n_waiting() == 0 {
            yield_now();
        }
        let end = run(MORTAL, mortal, || shared_raw(&shared).reset());
        observe(|| {
            let raw = shared_raw(&shared);
            if round(raw) == 0 && raw.broken_cause().is_none() {
                assert_eq!(end, End::Vanished);
                raw.reset();
            }
        });
        let cause = ended(thread).unwrap_err().cause().unwrap();
        assert!(matches!(cause, BrokenCause::Reset { pid: MORTAL | OBSERVER }), "{cause}");
        is_as_good_as_new(&*shared);
        end
    });
    assert!(steps >= 6, "the mortal thread had only {steps} steps");
}

/// A reset beside two who pass: either both have passed, or neither has.
#[test]
fn a_reset_and_a_completion_do_not_mix() {
    MODEL.explore(1, || {
        let shared = barrier::<4>();
        let other = party(2, &shared, soon());
        let resetter = {
            let shared = shared.clone();
            checker::thread::spawn(move || run(3, None, || shared_raw(&shared).reset()))
        };
        let mut here = None;
        run(1, None, || here = Some(wait(&*shared, soon())));
        let (here, there) = (here.unwrap(), ended(other));
        resetter.join().unwrap();
        match (here, there) {
            (Ok(here), Ok(there)) => assert_eq!(here.index + there.index, 1),
            (Err(_), Err(_)) => {}
            mixed => panic!("{mixed:?}"),
        }
    });
}

/// Who gives up breaks the barrier for the other, or both pass.
#[test]
fn a_party_that_times_out_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(1, |mortal| {
        let shared = barrier::<4>();
        let thread = party(2, &shared, Deadline::NEVER);
        let mut mine = None;
        let end = run(MORTAL, mortal, || mine = Some(wait(&*shared, soon())));
        observe(|| {
            if is_untouched_by(&*shared, MORTAL) {
                assert_eq!(end, End::Vanished);
                shared_raw(&shared).abort();
            }
        });
        match (ended(thread), mine) {
            (Ok(_), Some(Ok(_)) | None) => {}
            (Err(theirs), Some(Err(mine))) => {
                assert_eq!((theirs, mine.cause()), (mine, Some(BrokenCause::TimedOut { pid: MORTAL })));
            }
            (Err(theirs), None) => assert_ne!(theirs.cause().unwrap().pid(), 2),
            mixed => panic!("{mixed:?}"),
        }
        is_as_good_as_new(&*shared);
        end
    });
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
}

/// The action has run, once and to its end, before anybody passes; if its thread vanished in it, nobody passes.
#[test]
fn a_leader_that_vanishes_in_the_action_strands_nobody() {
    let steps = MODEL.vanish_at_every_step(1, |mortal| {
        let (shared, log) = (barrier::<4>(), Arc::new([(); 2].map(|()| AtomicU32::new(0))));
        shared_raw(&shared).announce_action();
        let go = |tid, mortal| {
            let (shared, log) = (shared.clone(), log.clone());
            move || {
                let mut result = None;
                let end = run(tid, mortal, || {
                    let action = || {
                        log[0].fetch_add(1, Ordering::Relaxed);
                        log[1].fetch_add(1, Ordering::Relaxed);
                    };
                    let wait = shared_raw(&shared).wait_until(Deadline::NEVER, Some(&action));
                    if wait.is_ok() {
                        let log = [0, 1].map(|index: usize| log[index].load(Ordering::Relaxed));
                        assert_eq!(log, [1, 1]);
                    }
                    result = Some(wait);
                });
                (end, result)
            }
        };
        let thread = checker::thread::spawn(go(2, None));
        let (end, mine) = go(MORTAL, mortal)();
        let replaced = is_untouched_by(&*shared, MORTAL).then(|| go(OBSERVER, None)().1.unwrap());
        let theirs = thread.join().unwrap().1.expect("only one thread is mortal");
        match (theirs, replaced, mine) {
            (Ok(_), Some(Ok(_)), None) | (Ok(_), None, _) => {}
            (Err(error), None, None) => {
                assert_eq!(error.cause(), Some(BrokenCause::PartyDied { pid: MORTAL }));
            }
            mixed => panic!("{mixed:?}"),
        }
        end
    });
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
}

/// One vanishes when it has broken the round and woken nobody yet; and so does the sleeper that the kernel wakes in its
/// place, at any step on its way to wake the others.
#[test]
#[cfg(polyproc_shuttle)]
fn two_that_vanish_strand_nobody() {
    for aborter in 0..20 {
        for sleeper in 0..60 {
            let scenario = move || {
                let shared = barrier::<5>();
                let dying = {
                    let shared = shared.clone();
                    let wait = move || _ = wait(&*shared, Deadline::NEVER);
                    checker::thread::spawn(move || run(3, Some(sleeper), wait))
                };
                let living = party(2, &shared, Deadline::NEVER);
                run(MORTAL, Some(aborter), || shared_raw(&shared).abort());
                // No third party will come.
                observe(|| {
                    if shared_raw(&shared).broken_cause().is_none() {
                        shared_raw(&shared).abort();
                    }
                });
                dying.join().unwrap();
                assert!(ended(living).is_err());
                is_as_good_as_new(&*shared);
            };
            shuttle::check_random(scenario, 50);
        }
    }
}
