//! Models of how the ends of a pipe wake each other, and of the gate: every interleaving of a few threads,
//! one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-pipe --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-pipe --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use checker::thread::spawn;
use polyproc_pipe::model::{Counter, Part, Stage, set_without};
use polyproc_sys::model::{End, Explorer, run};
use std::panic::{AssertUnwindSafe, catch_unwind};
// Not the checker's: they would take part in the unwinding when a model fails.
use std::sync::{Arc, Mutex, MutexGuard};

/// What is taken out of the protocol is the process's.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|error| error.into_inner())
}

const MODEL: Explorer = Explorer { random: 2_000, rare: 2_000 };

const MESSAGES: u64 = 2;

/// One sends to another, through a ring that has room for one message.
fn conversation() {
    converse(Stage::default(), MESSAGES);
}

/// So many that the ring comes round: the receiver looks at a record that was there before.
fn lap() {
    converse(Stage::default(), 3);
}

/// Messages that share a record, and a record that is closed before it is full.
fn runs() {
    converse(Stage::with_runs(), 3);
}

fn converse(stage: Stage, messages: u64) {
    let stage = Arc::new(stage);
    let receiver = {
        let stage = stage.clone();
        spawn(move || assert_eq!(stage.receive(messages), messages))
    };
    stage.send(messages);
    receiver.join().unwrap();
}

/// The sender vanishes: the receiver gets all that was published, and then the end.
fn mortal_sender(mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    let receiver = {
        let stage = stage.clone();
        spawn(move || run(2, None, || assert_eq!(stage.receive(MESSAGES + 1), stage.published())))
    };
    let end = run(1, mortal, || stage.send(MESSAGES));
    stage.end(true);
    assert_eq!(receiver.join().unwrap(), End::Finished);
    end
}

/// The receiver vanishes: the sender hears of it.
fn mortal_receiver(mortal: Option<u32>) -> End {
    let stage = Arc::new(Stage::default());
    let sender = {
        let stage = stage.clone();
        spawn(move || run(1, None, || stage.send(MESSAGES + 1)))
    };
    let end = run(2, mortal, || _ = stage.receive(MESSAGES));
    stage.end(false);
    assert_eq!(sender.join().unwrap(), End::Finished);
    end
}

/// The first to come owns the gate until another takes it away.
fn gate(threads: u32) {
    let counter = Arc::new(Counter::default());
    count(threads, &counter);
}

/// It may be taken away by one who does not want to come in.
fn disowned_gate() {
    let counter = Arc::new(Counter::default());
    let thief = {
        let counter = counter.clone();
        spawn(move || run(8, None, || counter.disown()))
    };
    count(2, &counter);
    assert_eq!(thief.join().unwrap(), End::Finished);
}

fn count(threads: u32, counter: &Arc<Counter>) {
    let others: Vec<_> = (2..=threads)
        .map(|tid| {
            let counter = counter.clone();
            spawn(move || run(tid, None, || counter.add()))
        })
        .collect();
    run(1, None, || (0..2).for_each(|_| counter.add()));
    for other in others {
        assert_eq!(other.join().unwrap(), End::Finished);
    }
    run(9, None, || assert_eq!(counter.get(), threads + 1, "two were inside"));
}

/// Whether the model fails, as it must without this part.
fn fails(part: Part, scenario: impl Fn() + Sync + Send + 'static) -> bool {
    set_without(Some(part));
    let result = catch_unwind(AssertUnwindSafe(|| MODEL.explore(3, scenario)));
    set_without(None);
    result.is_err()
}

#[test]
fn nobody_sleeps_while_there_is_something_to_do() {
    let _turn = one_at_a_time();
    MODEL.explore(3, conversation);
    MODEL.explore(2, lap);
    MODEL.explore(2, runs);
}

#[test]
fn a_sender_that_vanishes_leaves_what_it_has_sent_and_the_end() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, mortal_sender);
    assert!(steps >= 8, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a sender");
}

#[test]
fn a_receiver_that_vanishes_strands_nobody() {
    let _turn = one_at_a_time();
    let steps = MODEL.vanish_at_every_step(2, mortal_receiver);
    assert!(steps >= 8, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps of a receiver");
}

#[test]
fn one_thread_at_a_time_is_in_the_gate() {
    let _turn = one_at_a_time();
    MODEL.explore(3, || gate(2));
    MODEL.explore(2, || gate(3));
    MODEL.explore(2, disowned_gate);
}

// shuttle takes all accesses for sequentially consistent: it does not miss a barrier.
#[cfg(polyproc_loom)]
#[test]
fn without_the_barrier_both_miss_each_other() {
    let _turn = one_at_a_time();
    assert!(fails(Part::Barrier, conversation));
    assert!(fails(Part::Barrier, || gate(2)));
}

#[test]
fn without_the_last_look_the_message_is_slept_through() {
    let _turn = one_at_a_time();
    assert!(fails(Part::LastLook, conversation));
}

#[test]
fn without_the_bell_the_message_is_slept_through() {
    let _turn = one_at_a_time();
    assert!(fails(Part::Bell, conversation));
}

#[test]
fn without_the_end_the_dead_are_waited_for() {
    let _turn = one_at_a_time();
    assert!(fails(Part::End, || _ = mortal_sender(Some(3))));
}

#[test]
fn without_the_zero_a_message_is_received_twice() {
    let _turn = one_at_a_time();
    assert!(fails(Part::Zero, lap));
}

// shuttle takes all accesses for sequentially consistent: it does not see them out of order.
#[cfg(polyproc_loom)]
#[test]
fn without_the_order_a_header_comes_before_its_message() {
    let _turn = one_at_a_time();
    assert!(fails(Part::Order, conversation));
    assert!(fails(Part::Order, runs));
    assert!(fails(Part::OrderOfEnd, runs));
}
