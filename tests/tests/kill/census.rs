//! The census of waiters, and how it is taken anew when the dead are still counted.

use crate::scene::{ADDING, Scene, added, late, poisoned};
use polyproc_tests::child::Child;
use polyproc_tests::kill::{Operation, When, is_full};
use polyproc_tests::shared::Cues;
use polyproc_tests::system::one_at_a_time;
use std::time::Duration;

/// A mutex whose census counts somebody who is dead, after so many unlocks that woke nobody.
fn haunted(useless: u32) -> Scene {
    let scene = Scene::new();
    let cues = polyproc_tests::shared::Shared::<Cues>::new();
    let mut holder = Child::fork(|| {
        let guard = scene.lock();
        cues.wait(1);
        drop(guard);
        for _ in 1..useless {
            drop(scene.lock());
        }
    });
    assert!(holder.settle(Duration::from_secs(5)));
    let mut ghost = Child::fork(|| scene.pass());
    assert!(ghost.settle(Duration::from_secs(5)));
    ghost.kill();
    cues.give_all();
    assert!(holder.wait(Duration::from_secs(5)).is_some());
    scene
}

/// After 16 wakes for nobody, the next holder takes the census anew.
#[test]
fn lock_that_begins_a_new_census() {
    let _turn = one_at_a_time();
    for useless in [15, 16, 17] {
        Operation::new(format!("lock and unlock, after {useless} useless wakes"), move || haunted(useless))
            .victim(|scene, stage| {
                // The first use of the thread, but not of the lock.
                drop(Scene::new().lock());
                stage.begin();
                *scene.lock() += 1;
                stage.end();
            })
            .check(&ADDING, added(0))
            .run()
            .assert_clean();
    }
}

/// The census is taken anew while the victim is about to sleep, and counted itself in the old one, or sleeps already.
#[test]
fn lock_across_a_new_census() {
    let _turn = one_at_a_time();
    let across = |name: String| {
        Operation::new(name, || haunted(14))
            .victim(|scene, stage| {
                drop(Scene::new().lock());
                stage.begin();
                let guard = scene.lock();
                stage.end();
                drop(guard);
            })
            .peer(|scene, cues| {
                let mut guard = scene.lock();
                cues.wait(1);
                for _ in 0..4 {
                    drop(guard);
                    guard = scene.lock();
                }
                cues.wait(3);
                drop(guard);
            })
            .peer(late(2))
    };
    let steps =
        across("lock, held".to_owned()).cue(When::Asleep).cue(When::Next).cue(When::Next).run().first_sleep();
    let stride = if is_full() { 1 } else { steps / 12 + 1 };
    for step in (0..=steps).step_by(stride as usize) {
        across(format!("lock, a new census after step {step}"))
            .cue(When::Step(step))
            .cue(When::Next)
            .thinly(5)
            .cue(When::Asleep)
            .check(&["clean", "poisoned"], poisoned(1))
            .run()
            .assert_clean();
    }
}
