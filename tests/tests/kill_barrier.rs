//! Kills a process at every instruction of every operation of a barrier.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_barrier -- --nocapture
//! ```

use polyproc_barrier::{Barrier, BarrierWait, BrokenCause, WaitError};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_tests::child::die;
use polyproc_tests::kill::{Operation, Outcome, When};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::one_at_a_time;
use std::sync::Arc;
use std::time::Duration;

/// Long enough to be stepped into a sleep before it is over.
const DELAY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 100 });

/// How a wait can end, as the survivor names it. Broken are those that the victim's death has broken, and those that the
/// helper has because the victim had not come.
const ENDS: [&str; 4] = ["passed", "broken", "timed out", "reset"];

struct Scene {
    barrier: Barrier,
    /// How many peers' waits have ended in each of the [`ENDS`].
    ends: Shared<[AtomicU32; ENDS.len()]>,
    /// Who was said to have died.
    blamed: Shared<AtomicU32>,
    /// A process that is to die in the action.
    doomed: Arc<Shared<AtomicU32>>,
}

impl Scene {
    fn new(parties: usize) -> Scene {
        Scene::weary(Barrier::new(parties).unwrap(), Arc::new(Shared::new()))
    }

    /// With an action, in which one who is doomed dies.
    fn with_action(parties: usize) -> Scene {
        let doomed = Arc::new(Shared::<AtomicU32>::new());
        let whose = doomed.clone();
        let action = move || {
            if whose.load(Ordering::Relaxed) == std::process::id() {
                die();
            }
        };
        Scene::weary(Barrier::with_action(parties, action).unwrap(), doomed)
    }

    /// To look at the barrier before sleeping was in vain so often that waits sleep at once: fewer steps.
    fn weary(barrier: Barrier, doomed: Arc<Shared<AtomicU32>>) -> Scene {
        for _ in 0..10 {
            let _ = barrier.wait_timeout(Duration::from_nanos(1));
            barrier.reset();
        }
        Scene { barrier, ends: Shared::new(), blamed: Shared::new(), doomed }
    }

    /// Notes how a wait ended.
    fn note(&self, result: Result<BarrierWait, WaitError>) {
        let end = match result.map_err(|error| error.cause().expect("a broken barrier")) {
            Ok(_) => 0,
            Err(BrokenCause::PartyDied { pid }) => {
                self.blamed.store(pid, Ordering::Relaxed);
                1
            }
            Err(BrokenCause::TimedOut { .. }) => 2,
            Err(BrokenCause::Aborted { .. }) => 1,
            Err(BrokenCause::Reset { .. }) => 3,
            Err(cause) => panic!("{cause}"),
        };
        self.ends[end].fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self) -> u32 {
        self.ends.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Whether just these wait, and nothing has happened.
    fn only_wait(&self, peers: u32) -> bool {
        self.ended() == 0 && !self.barrier.is_broken() && self.barrier.n_waiting() as u32 == peers
    }

    /// As a survivor: all peers' waits have ended alike, and the barrier works. How they ended.
    fn survey(&self, peers: u32, outcome: &Outcome<'_>) -> &'static str {
        let ends: Vec<u32> = self.ends.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let end = ends.iter().position(|count| *count == peers);
        let end = end.unwrap_or_else(|| panic!("{peers} waits ended in {ENDS:?}: {ends:?}"));
        let blamed = self.blamed.load(Ordering::Relaxed);
        if blamed != 0 {
            let doomed = self.doomed.load(Ordering::Relaxed);
            assert!(blamed == outcome.victim || blamed == doomed, "the wrong process is said to have died");
        }
        self.works();
        ENDS[end]
    }

    /// As a survivor: it can be reset, arrived at, and passed.
    fn works(&self) {
        self.barrier.reset();
        assert_eq!((self.barrier.n_waiting(), self.barrier.broken_cause()), (0, None));
        let parties = self.barrier.parties();
        if parties > 1 {
            let mine = BrokenCause::TimedOut { pid: std::process::id() };
            let error = self.barrier.wait_timeout(Duration::ZERO).unwrap_err();
            assert_eq!(error.cause(), Some(mine));
            self.barrier.reset();
        }
        std::thread::scope(|scope| {
            for _ in 1..parties {
                scope.spawn(|| self.barrier.wait().unwrap());
            }
            self.barrier.wait().unwrap();
        });
        let shown = format!("{:?}", self.barrier);
        assert!(shown.contains("waiting: [], broken: None"), "{shown}");
    }
}

fn survey(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| scene.survey(peers, outcome)
}

/// A peer that waits.
fn waiter(scene: &Scene, _: &Cues) {
    scene.note(scene.barrier.wait());
}

/// A peer that comes last, when the victim is gone or done, and ends the wait of the others if it left no trace.
fn helper(peers: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(u32::MAX);
        if scene.only_wait(peers) {
            scene.barrier.abort();
        }
    }
}

/// A peer that is the last party, after these and the victim, at its cue. If the victim has not come, it aborts.
fn last(peers: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(1);
        if scene.only_wait(peers) {
            scene.barrier.abort();
        }
        scene.note(scene.barrier.wait());
    }
}

fn operation(
    name: impl Into<String>,
    setup: impl Fn() -> Scene + 'static,
    act: impl Fn(&Barrier) + 'static,
) -> Operation<Scene> {
    Operation::new(name, setup).victim(move |scene, stage| {
        stage.begin();
        act(&scene.barrier);
        stage.end();
    })
}

/// With so many peers that wait.
fn with_waiters(mut operation: Operation<Scene>, peers: u32) -> Operation<Scene> {
    for _ in 0..peers {
        operation = operation.peer(waiter);
    }
    operation
}

fn wait(barrier: &Barrier) {
    let _ = barrier.wait();
}

/// The victim completes the round.
#[test]
fn wait_as_the_last() {
    let _turn = one_at_a_time();
    for peers in [1, 3] {
        let setup = move || Scene::new(peers as usize + 1);
        with_waiters(operation(format!("wait, the last after {peers}"), setup, wait), peers)
            .peer(helper(peers))
            .check(&["broken", "passed"], survey(peers))
            .run()
            .assert_clean();
    }
}

#[test]
fn wait_as_the_last_with_an_action() {
    let _turn = one_at_a_time();
    let setup = || Scene::with_action(3);
    with_waiters(operation("wait with an action, the last after 2", setup, wait), 2)
        .peer(helper(2))
        .check(&["broken", "passed"], survey(2))
        .run()
        .assert_clean();
}

/// The victim waits, alone or with others, and is released.
#[test]
fn wait_and_be_released() {
    let _turn = one_at_a_time();
    for peers in [0, 2] {
        let setup = move || Scene::new(peers as usize + 2);
        with_waiters(operation(format!("wait, {peers} asleep before it"), setup, wait), peers)
            .peer(last(peers))
            .cue(When::Asleep)
            .check(&["broken", "passed"], survey(peers + 1))
            .thinly(5)
            .run()
            .assert_clean();
    }
}

/// The first wait, which looks for the end before it sleeps.
#[test]
fn wait_full_of_hope() {
    let _turn = one_at_a_time();
    let setup = || Scene {
        barrier: Barrier::new(3).unwrap(),
        ends: Shared::new(),
        blamed: Shared::new(),
        doomed: Arc::new(Shared::new()),
    };
    with_waiters(operation("wait, looking for long", setup, wait), 1)
        .peer(last(1))
        .cue(When::Asleep)
        .thinly(100)
        .check(&["broken", "passed"], survey(2))
        .run()
        .assert_clean();
}

#[test]
fn wait_and_break_it_by_a_timeout() {
    let _turn = one_at_a_time();
    let wait = |barrier: &Barrier| _ = barrier.wait_timeout(DELAY);
    with_waiters(operation("wait_timeout, 2 asleep", || Scene::new(4), wait), 2)
        .peer(helper(2))
        // On a busy machine the time may be over before the sleep: the ends come in no order.
        .check(&["over"], |scene, outcome| match scene.survey(2, outcome) {
            "broken" | "timed out" => "over",
            other => panic!("{other}"),
        })
        .thinly(9)
        .run()
        .assert_clean();
    let wait = |barrier: &Barrier| _ = barrier.wait_timeout(Duration::ZERO);
    with_waiters(operation("wait_timeout of zero, 2 asleep", || Scene::new(4), wait), 2)
        .peer(helper(2))
        .check(&["broken", "timed out"], survey(2))
        .thinly(9)
        .run()
        .assert_clean();
}

#[test]
fn abort() {
    let _turn = one_at_a_time();
    for peers in [0, 2] {
        // What the helper does and what the victim does are not told apart: all wake.
        let setup = move || Scene::new(peers as usize + 1);
        with_waiters(operation(format!("abort, {peers} asleep"), setup, Barrier::abort), peers)
            .peer(helper(peers))
            .check(&[if peers == 0 { "passed" } else { "broken" }], survey(peers))
            .run()
            .assert_clean();
    }
}

#[test]
fn reset() {
    let _turn = one_at_a_time();
    for peers in [1, 2] {
        let setup = move || Scene::new(peers as usize + 1);
        with_waiters(operation(format!("reset, {peers} asleep"), setup, Barrier::reset), peers)
            .peer(helper(peers))
            .check(&["broken", "reset"], survey(peers))
            .run()
            .assert_clean();
    }
    let setup = || {
        let scene = Scene::new(2);
        scene.barrier.abort();
        scene
    };
    operation("reset, broken", setup, Barrier::reset)
        .check(&["broken", "whole"], |scene, _| {
            let broken = scene.barrier.is_broken();
            scene.works();
            if broken { "broken" } else { "whole" }
        })
        .run()
        .assert_clean();
}

/// Others sleep in the round after the one that the victim completes: its death there is none of theirs.
#[test]
fn wait_as_the_last_and_be_killed_in_the_next_round() {
    let _turn = one_at_a_time();
    let twice = |scene: &Scene, _: &Cues| {
        let first = scene.barrier.wait();
        scene.note(first);
        if first.is_ok() {
            let second = scene.barrier.wait().expect_err("nobody comes");
            assert!(matches!(second.cause(), Some(BrokenCause::Aborted { .. })), "{second}");
        }
    };
    operation("wait, others come again", || Scene::new(3), wait)
        .peer(twice)
        .peer(twice)
        .peer(|scene, cues| {
            helper(2)(scene, cues);
            // All have ended their first round: by the helper, or the victim's death, or they are in the second.
            while scene.ended() < 2 {
                std::thread::yield_now();
            }
            if scene.ends[0].load(Ordering::Relaxed) == 2 {
                while scene.barrier.n_waiting() < 2 {
                    assert!(!scene.barrier.is_broken(), "{:?}", scene.barrier);
                    std::thread::yield_now();
                }
                scene.barrier.abort();
            }
        })
        .check(&["broken", "passed"], survey(2))
        .run()
        .assert_clean();
}

/// A party dies beside the victim, which is the first that is woken, and is killed while it tells the others.
#[test]
fn find_the_dead() {
    let _turn = one_at_a_time();
    let late = |scene: &Scene, cues: &Cues| {
        cues.wait(1);
        scene.note(scene.barrier.wait());
    };
    let doomed = |scene: &Scene, cues: &Cues| {
        cues.wait(2);
        // If the victim has not come, the others may be on their way.
        while scene.barrier.n_waiting() < 2 && !scene.barrier.is_broken() {
            std::thread::yield_now();
        }
        if scene.only_wait(2) {
            scene.barrier.abort();
            return;
        }
        scene.doomed.store(std::process::id(), Ordering::Relaxed);
        let _ = scene.barrier.wait();
    };
    operation("wait, and tell of a death", || Scene::with_action(4), wait)
        .peer(late)
        .peer(late)
        .doomed_peer(doomed)
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(5)
        .check(&["broken"], survey(2))
        .run()
        .assert_clean();
}

#[test]
fn alone() {
    let _turn = one_at_a_time();
    operation("wait, the only party", || Scene::new(1), wait)
        .check(&["passed"], survey(0))
        .run()
        .assert_clean();
    operation("reset, nothing to do", || Scene::new(2), Barrier::reset)
        .check(&["passed"], survey(0))
        .run()
        .assert_clean();
}
