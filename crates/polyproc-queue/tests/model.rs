//! Models of how a queue's waits end: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-queue --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-queue --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use checker::thread::{JoinHandle, spawn};
use polyproc_queue::model::{Part, Stage, set_without};
#[cfg(polyproc_shuttle)]
use polyproc_sys::model::wake_the_last_first;
use polyproc_sys::model::{End, Explorer, run};
#[cfg(polyproc_shuttle)]
use std::panic::resume_unwind;
use std::panic::{AssertUnwindSafe, catch_unwind};
// Not the checker's: they would take part in the unwinding when a model fails.
use std::sync::{Arc, Mutex, MutexGuard};

/// What is taken out of the protocol is the process's.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|error| error.into_inner())
}

const MODEL: Explorer = Explorer { random: 500, rare: 1_500 };
/// For those with many steps.
#[cfg(polyproc_shuttle)]
const LARGE: Explorer = Explorer { random: 200, rare: 600 };

fn taker(stage: &Arc<Stage>, tid: u32) -> JoinHandle<End> {
    let stage = stage.clone();
    spawn(move || run(tid, None, || stage.take()))
}

/// One puts a message for each of those who wait, and vanishes. What it has put is taken without anybody's help.
fn mortal_holder(takers: u32, mortal: Option<u32>) -> End {
    mortal_putter(Arc::new(Stage::default()), takers, mortal)
}

/// The same, by one to whom the lock was granted.
fn mortal_owner(takers: u32, mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    run(7, None, || stage.become_owner());
    mortal_putter(stage, takers, mortal)
}

fn mortal_putter(stage: Arc<Stage>, takers: u32, mortal: Option<u32>) -> End {
    let threads: Vec<_> = (1..=takers).map(|tid| taker(&stage, tid)).collect();
    let end = run(7, mortal, || stage.put(takers));
    run(8, None, || {
        if stage.number() == 0 {
            stage.put(takers);
        }
    });
    for thread in threads {
        assert_eq!(thread.join().unwrap(), End::Finished);
    }
    end
}

/// Two wait, one of them mortal; each that has taken a message puts one for the other. If the mortal one vanishes without
/// having taken it, it is the other's, without anybody's help.
#[cfg(polyproc_shuttle)]
fn mortal_sleeper(mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    let first = {
        let stage = stage.clone();
        spawn(move || {
            run(1, mortal, || {
                stage.take();
                stage.put(1);
            })
        })
    };
    let second = {
        let stage = stage.clone();
        spawn(move || {
            run(2, None, || {
                stage.take();
                stage.put(1);
            })
        })
    };
    run(7, None, || stage.put(1));
    let end = first.join().unwrap();
    run(8, None, || {
        if end == End::Vanished && stage.taker() == 1 && stage.is_empty() {
            stage.put(1);
        }
    });
    assert_eq!(second.join().unwrap(), End::Finished);
    end
}

/// One puts two messages one after the other, and vanishes; another takes both. It may fall asleep again while it is being
/// woken.
fn mortal_putter_of_two(mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    let taker = {
        let stage = stage.clone();
        spawn(move || run(1, None, || (0..2).for_each(|_| stage.take())))
    };
    let end = run(7, mortal, || (0..2).for_each(|_| stage.put(1)));
    run(8, None, || (stage.number()..2).for_each(|_| stage.put(1)));
    assert_eq!(taker.join().unwrap(), End::Finished);
    end
}

/// One comes to put and does not; meanwhile another puts a message. One waits, or is about to.
fn one_puts_nothing() {
    let stage = Arc::new(Stage::default());
    let taker = taker(&stage, 1);
    let other = stage.clone();
    run(6, None, || {
        stage.put_nothing(|| {
            let other = spawn(move || run(7, None, || other.put(1)));
            assert_eq!(other.join().unwrap(), End::Finished);
        });
    });
    assert_eq!(taker.join().unwrap(), End::Finished);
}

/// Two put, one of them mortal, for two that wait.
#[cfg(polyproc_shuttle)]
fn mortal_among_two(mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    let takers = [1, 2].map(|tid| taker(&stage, tid));
    let other = {
        let stage = stage.clone();
        spawn(move || run(6, None, || stage.put(1)))
    };
    let end = run(7, mortal, || stage.put(1));
    other.join().unwrap();
    run(8, None, || {
        if stage.number() == 1 {
            stage.put(1);
        }
    });
    for thread in takers {
        assert_eq!(thread.join().unwrap(), End::Finished);
    }
    end
}

/// Three wait, one of them mortal, and two put a message for each of them. What the mortal one has not taken is more than
/// enough for the others.
#[cfg(polyproc_shuttle)]
fn mortal_among_three(mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    let first = {
        let stage = stage.clone();
        spawn(move || run(1, mortal, || stage.take()))
    };
    let others = [2, 3].map(|tid| taker(&stage, tid));
    let putter = {
        let stage = stage.clone();
        spawn(move || run(6, None, || stage.put(1)))
    };
    run(7, None, || (0..2).for_each(|_| stage.put(1)));
    putter.join().unwrap();
    let end = first.join().unwrap();
    for thread in others {
        assert_eq!(thread.join().unwrap(), End::Finished);
    }
    end
}

#[test]
fn a_holder_that_vanishes_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, |mortal| mortal_holder(1, mortal));
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a holder, one asleep");
}

#[test]
fn a_holder_that_vanishes_at_the_second_message_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, mortal_putter_of_two);
    assert!(steps >= 20, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a holder, two messages");
}

#[test]
fn one_that_comes_and_puts_nothing_strands_nobody() {
    let _turn = one_at_a_time();
    MODEL.explore(3, one_puts_nothing);
}

#[test]
fn a_holder_that_vanishes_beside_two_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(1, |mortal| mortal_holder(2, mortal));
    println!("vanished at {steps} steps of a holder, two asleep");
}

#[test]
#[cfg(polyproc_shuttle)]
fn a_sleeper_that_vanishes_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(1, mortal_sleeper);
    assert!(steps >= 40, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a sleeper");
}

#[test]
#[cfg(polyproc_shuttle)]
fn one_of_two_holders_that_vanishes_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(1, mortal_among_two);
    assert!(steps >= 10, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of one of two holders");
}

#[test]
#[cfg(polyproc_shuttle)]
fn one_of_three_sleepers_that_vanishes_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = LARGE.vanish_at_every_step(1, mortal_among_three);
    assert!(steps >= 20, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of one of three sleepers");
}

/// Two sleepers of which the one that came last is woken first.
#[test]
#[cfg(polyproc_shuttle)]
fn a_sleeper_that_vanishes_with_another_s_wake_strands_nobody() {
    let _turn = one_at_a_time();
    wake_the_last_first(true);
    let result = catch_unwind(|| MODEL.vanish_at_every_step(1, mortal_sleeper));
    wake_the_last_first(false);
    assert!(result.unwrap() >= 40);
}

/// An owner and somebody else put a message each, or two; one of them may vanish. No message is lost, and nobody waits for
/// ever; a third comes afterwards.
fn rivals(owner: Option<u32>, other: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    run(7, None, || stage.become_owner());
    let acknowledged = Arc::new(Mutex::new(0));
    let put = |stage: &Stage, acknowledged: &Mutex<u64>| {
        stage.put(1);
        *acknowledged.lock().unwrap() += 1;
    };
    let start = |tid, mortal, times| {
        let (stage, acknowledged) = (stage.clone(), acknowledged.clone());
        spawn(move || run(tid, mortal, || (0..times).for_each(|_| put(&stage, &acknowledged))))
    };
    let threads = [start(7, owner, 2), start(8, other, 1)];
    let ends = threads.map(|thread| thread.join().unwrap());
    let end = if ends.contains(&End::Vanished) { End::Vanished } else { End::Finished };
    run(9, None, || put(&stage, &acknowledged));
    // One that has vanished may have put a message and not said so.
    let (acknowledged, number) = (*acknowledged.lock().unwrap(), stage.number());
    let more = u64::from(end == End::Vanished);
    assert!((acknowledged..=acknowledged + more).contains(&number), "{acknowledged} said, {number} there");
    end
}

#[test]
fn an_owner_and_another_exclude_each_other() {
    let _turn = one_at_a_time();
    MODEL.explore(3, || _ = rivals(None, None));
}

#[test]
fn an_owner_that_vanishes_stops_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, |mortal| rivals(mortal, None));
    assert!(steps >= 12, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of an owner");
}

#[test]
fn one_that_takes_the_lock_away_and_vanishes_stops_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, |mortal| rivals(None, mortal));
    assert!(steps >= 12, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of one that takes it away");
}

#[test]
fn an_owner_that_vanishes_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, |mortal| mortal_owner(1, mortal));
    assert!(steps >= 8, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of an owner, one asleep");
}

#[test]
fn an_owner_that_vanishes_beside_two_strands_nobody() {
    let _turn = one_at_a_time();
    MODEL.vanish_at_every_step(1, |mortal| mortal_owner(2, mortal));
}

/// Without this part, the scenario finds two inside at once, or a thread that waits for ever.
fn is_needed_by_rivals(part: Part, message: &str, scenario: impl FnOnce()) {
    let _turn = one_at_a_time();
    set_without(Some(part));
    let result = catch_unwind(AssertUnwindSafe(scenario));
    set_without(None);
    let error = result.expect_err("the model did not find anything wrong");
    let found = error.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(found.to_lowercase().contains(message), "it failed, but of something else: {found}");
}

/// shuttle's memory is sequentially consistent. (That the sleeper's barrier is needed cannot be shown: in a model, the
/// owner's half is a real fence, and the sleeper has one of its own before it looks at the lock.)
#[test]
#[cfg(polyproc_loom)]
fn without_the_barrier_two_are_inside() {
    is_needed_by_rivals(Part::Barrier, "said", || MODEL.explore(3, || _ = rivals(None, None)));
}

#[test]
fn without_the_look_at_leaving_who_waits_is_not_called() {
    is_needed_by_rivals(Part::Call, "deadlock", || MODEL.explore(3, || _ = rivals(None, None)));
}

#[test]
fn an_owner_that_is_not_pending_stops_the_others() {
    is_needed_by_rivals(Part::Pending, "deadlock", || {
        MODEL.vanish_at_every_step(2, |mortal| rivals(mortal, None));
    });
}

/// Without this part, the scenario finds a thread that sleeps for ever.
fn is_needed(part: Part, scenario: impl FnOnce()) {
    let _turn = one_at_a_time();
    set_without(Some(part));
    let result = catch_unwind(AssertUnwindSafe(scenario));
    set_without(None);
    let error = result.expect_err("the model did not find the lost wake-up");
    let message = error.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.to_lowercase().contains("deadlock"), "it failed, but of something else: {message}");
}

#[test]
fn without_the_herald_the_wake_up_is_lost() {
    is_needed(Part::Herald, || _ = MODEL.vanish_at_every_step(2, |mortal| mortal_holder(1, mortal)));
}

#[test]
fn without_the_zero_at_the_door_the_wake_up_is_lost() {
    is_needed(Part::Zero, || _ = MODEL.vanish_at_every_step(2, |mortal| mortal_holder(1, mortal)));
}

#[test]
fn without_the_last_look_the_wake_up_is_lost() {
    is_needed(Part::LastLook, || MODEL.explore(2, || _ = mortal_holder(1, None)));
}

#[test]
fn without_the_mark_the_wake_up_is_lost() {
    is_needed(Part::Mark, || MODEL.explore(2, || _ = mortal_holder(1, None)));
}

#[test]
#[cfg(polyproc_shuttle)]
fn without_passing_on_the_wake_up_is_lost() {
    is_needed(Part::PassOn, || _ = MODEL.vanish_at_every_step(1, |mortal| mortal_holder(2, mortal)));
}

#[test]
#[cfg(polyproc_shuttle)]
fn without_places_the_wake_up_is_lost() {
    is_needed(Part::Place, || _ = MODEL.vanish_at_every_step(1, mortal_sleeper));
}

#[test]
#[cfg(polyproc_shuttle)]
fn without_marking_a_raised_door_the_wake_up_is_lost() {
    is_needed(Part::Came, || _ = LARGE.vanish_at_every_step(1, mortal_among_three));
}

#[test]
#[cfg(polyproc_shuttle)]
fn without_waking_one_that_is_overtaken_the_wake_up_is_lost() {
    is_needed(Part::Overtaken, || {
        wake_the_last_first(true);
        let result = catch_unwind(|| _ = MODEL.vanish_at_every_step(1, mortal_sleeper));
        wake_the_last_first(false);
        if let Err(error) = result {
            resume_unwind(error);
        }
    });
}
