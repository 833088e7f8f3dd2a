//! Taking over the lock of one who died: the victim is the one who takes over, and a third does it then.

use crate::scene::{Scene, kernel_drops_wakes_of_dead_locks, late};
use polyproc_sys::atomic::Ordering;
use polyproc_tests::kill::{Operation, Outcome, When};
use polyproc_tests::shared::Cues;
use polyproc_tests::system::one_at_a_time;

/// Takes the lock, and dies with it at its cue.
fn predecessor(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        scene.doomed.store(std::process::id(), Ordering::Relaxed);
        let mut guard = scene.lock();
        *guard = 1;
        cues.wait(cue);
        std::mem::forget(guard);
    }
}

/// The data is poisoned by the predecessor, and by the victim for as long as that is inside.
fn whose(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        assert_eq!(scene.passed.load(Ordering::Relaxed), peers, "not all peers had the lock");
        let (value, poisoner) = scene.look();
        outcome.heals(|| drop(scene.mutex.lock().unwrap()));
        let predecessors = poisoner == Some(scene.doomed.load(Ordering::Relaxed));
        assert!(predecessors || poisoner == Some(outcome.victim), "poisoned by {poisoner:?}");
        match (value, predecessors) {
            (1, true) => "old, the predecessor's",
            (1, false) => "old, the victim's",
            (2, false) => "new, the victim's",
            (2, true) => "new, the predecessor's",
            other => panic!("{other:?}"),
        }
    }
}

const WHOSE: [&str; 4] =
    ["old, the predecessor's", "old, the victim's", "new, the victim's", "new, the predecessor's"];

fn recovering(name: &str) -> Operation<Scene> {
    Operation::new(name, Scene::new).victim(|scene, stage| {
        scene.warm_up();
        stage.begin();
        *scene.mutex.lock().unwrap_err().into_inner() += 1;
        stage.end();
    })
}

#[test]
fn lock_whose_holder_is_dead() {
    let _turn = one_at_a_time();
    recovering("lock of a dead one").doomed_peer(predecessor(0)).check(&WHOSE, whose(0)).run().assert_clean();
}

#[test]
fn lock_whose_holder_dies_while_the_victim_sleeps() {
    let _turn = one_at_a_time();
    recovering("lock of one who dies while asleep")
        .doomed_peer(predecessor(1))
        .cue(When::Asleep)
        .check(&WHOSE, whose(0))
        .run()
        .assert_clean();
}

/// The kernel wakes the victim for the dead holder, and has to wake the other if the victim dies with that.
#[test]
fn lock_whose_holder_dies_while_the_victim_and_another_sleep() {
    let _turn = one_at_a_time();
    recovering("lock of one who dies while this and another sleep")
        .doomed_peer(predecessor(2))
        .peer(late(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .allow_rescues(kernel_drops_wakes_of_dead_locks())
        .check(&WHOSE, whose(1))
        .run()
        .assert_clean();
}
