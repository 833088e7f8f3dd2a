//! Kills the victim at every instruction of the operations of a condition.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_condition -- --nocapture
//! ```
//!
//! What each line says is in the docs of [`polyproc_tests::kill`].

use polyproc_condition::Condition;
use polyproc_mutex::{Mutex, MutexGuard, PoisonError, RLock};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_tests::child::{Child, Ending};
use polyproc_tests::kill::{Operation, Outcome, When};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::one_at_a_time;
use std::time::{Duration, Instant};

/// Longer than any lock that nobody holds needs to be taken, and far shorter than the backstop.
const SOON: Duration = Duration::from_millis(50);
/// Longer than anything takes that does not fail, however busy the machine.
const AT_LAST: Duration = Duration::from_secs(3);
/// Long enough to be stepped into a sleep before it is over.
const DELAY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 40 });

struct Scene {
    mutex: Mutex<u64>,
    condition: Condition,
    /// How many peers have come back from their wait.
    back: Shared<AtomicU32>,
    /// Whether somebody has notified.
    notified: Shared<AtomicU32>,
    /// The process that is to die before the victim does.
    doomed: Shared<AtomicU32>,
}

impl Scene {
    fn new() -> Scene {
        let (mutex, condition) = (Mutex::new(0).unwrap(), Condition::new().unwrap());
        Scene { mutex, condition, back: Shared::new(), notified: Shared::new(), doomed: Shared::new() }
    }

    /// The lock, poisoned or not.
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn back(&self) -> u32 {
        self.back.load(Ordering::Relaxed)
    }

    /// So that the first use of a thread is not stepped through each time, nor a look for news that is hopeless.
    fn warm_up(&self) {
        let mut guard = self.lock();
        for _ in 0..8 {
            guard = self.condition.wait_timeout(guard, Duration::from_nanos(1)).unwrap().0;
        }
    }

    /// As a survivor: the lock and the condition work, with nobody in it.
    fn survey(&self, outcome: &Outcome<'_>) {
        drop(self.lock());
        if let Some(cause) = self.mutex.poison_cause() {
            assert_eq!(cause.pid(), outcome.victim, "the wrong process is said to have died");
        }
        self.mutex.clear_poison();
        assert_eq!(self.condition.waiting(), 0, "{:?}", self.condition);
        let guard = self.mutex.lock_timeout(SOON).unwrap();
        let (guard, result) = self.condition.wait_timeout(guard, Duration::from_millis(1)).unwrap();
        assert!(result.timed_out(), "an old notification");
        drop(guard);
        outcome.heals(|| {
            let guard = self.mutex.lock().unwrap();
            assert!(!self.condition.notify_one());
            assert_eq!(self.condition.notify_all(), 0);
            drop(guard);
        });
    }
}

/// A peer that waits until it is notified. That the victim died in the lock is told to it.
fn waiter(scene: &Scene, _: &Cues) {
    let guard = scene.lock();
    drop(scene.condition.wait(guard).unwrap_or_else(PoisonError::into_inner));
    scene.back.fetch_add(1, Ordering::Relaxed);
}

/// Kills a peer.
fn kill(pid: u32) {
    // SAFETY: sends a signal to a process of this play, which nobody has waited for yet.
    let result = unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
    assert_eq!(result, 0);
}

/// A peer that waits from its cue on.
fn late(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        waiter(scene, cues);
    }
}

/// A cue that is given only after the victim's death.
const DEATH: u32 = u32::MAX;

/// Looks until it is so. That a wait was ended by its backstop only, the harness sees by itself.
fn settles(what: &str, scene: &Scene, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(
            start.elapsed() < AT_LAST,
            "not in time: {what}: {:?}, {} are back",
            scene.condition,
            scene.back()
        );
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Looks until so many wait; or one less, without the victim.
fn all_wait(scene: &Scene, cues: &Cues, waiting: u32) {
    settles("all wait", scene, || {
        let least = if cues.given() == DEATH { waiting - 1 } else { waiting };
        scene.condition.waiting() >= least
    });
}

/// A peer that notifies one when `waiting` wait; or, if the victim is dead by then, one less.
fn notifier(cue: u32, waiting: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        all_wait(scene, cues, waiting);
        scene.condition.notify_one();
        scene.notified.store(1, Ordering::Relaxed);
    }
}

/// A peer that, after the victim's death, sees to it that each of the `others` comes back. If the victim had the lock, it
/// may have used up its notification, and all are told by the poison. If not, one of the others has it.
fn executor(others: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(DEATH);
        settles("somebody has been notified", scene, || scene.notified.load(Ordering::Relaxed) == 1);
        settles("one has the notification", scene, || {
            drop(scene.lock());
            scene.back() == 1 || scene.mutex.is_poisoned()
        });
        settles("the others wait", scene, || scene.back() + scene.condition.waiting() == others);
        scene.condition.notify_all();
    }
}

/// What is left after all: nothing, or the victim's poison.
fn poisoned(others: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        assert_eq!(scene.back(), others);
        scene.survey(outcome);
        "any"
    }
}

/// The victim waits.
fn waiting(name: &str) -> Operation<Scene> {
    Operation::new(name, Scene::new).victim(|scene, stage| {
        scene.warm_up();
        stage.begin();
        let guard = scene.lock();
        let guard = scene.condition.wait(guard);
        stage.end();
        drop(guard);
    })
}

#[test]
fn wait_that_ends_in_vain() {
    let _turn = one_at_a_time();
    Operation::new("wait_timeout, not notified", Scene::new)
        .victim(|scene, stage| {
            scene.warm_up();
            let guard = scene.lock();
            stage.begin();
            let result = scene.condition.wait_timeout(guard, DELAY);
            stage.end();
            assert!(result.unwrap().1.timed_out());
        })
        .check(&["any"], poisoned(0))
        .thinly(7)
        .run()
        .assert_clean();
}

#[test]
fn wait_that_is_notified() {
    let _turn = one_at_a_time();
    waiting("wait, notified while asleep")
        .peer(notifier(1, 1))
        .cue(When::Asleep)
        .check(&["any"], poisoned(0))
        .thinly(7)
        .run()
        .assert_clean();
}

/// The victim has waited longer than another. Whenever it dies, the one notification is not lost.
#[test]
fn wait_before_another_that_inherits() {
    let _turn = one_at_a_time();
    waiting("wait, another asleep behind, notified while asleep")
        .peer(late(1))
        .peer(notifier(2, 2))
        .peer(executor(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .check(&["any"], poisoned(1))
        .thinly(7)
        .run()
        .assert_clean();
}

/// The same with a lock that is taken when the victim is woken, so that it sleeps on its way back.
#[test]
fn wait_before_another_with_the_lock_taken() {
    let _turn = one_at_a_time();
    waiting("wait, another asleep behind, lock taken when notified")
        .peer(late(1))
        .peer(|scene, cues| {
            cues.wait(2);
            all_wait(scene, cues, 2);
            let guard = scene.lock();
            scene.condition.notify_one();
            scene.notified.store(1, Ordering::Relaxed);
            cues.wait(3);
            drop(guard);
        })
        .peer(executor(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .cue(When::Asleep)
        .check(&["any"], poisoned(1))
        .thinly(19)
        .run()
        .assert_clean();
}

/// The victim sleeps behind one that is notified and not killed: it stays asleep, and is notified of all.
#[test]
fn wait_behind_another_until_all_are_notified() {
    let _turn = one_at_a_time();
    waiting("wait, another asleep before, all notified while asleep")
        .peer(waiter)
        .peer(|scene, cues| {
            cues.wait(1);
            settles("the other waits", scene, || scene.condition.waiting() >= 1);
            scene.condition.notify_all();
        })
        .cue(When::Asleep)
        .check(&["any"], poisoned(1))
        .thinly(7)
        .run()
        .assert_clean();
}

/// One that was notified is killed, and the victim, next in the queue, is the one that the kernel wakes. It passes the
/// notification on, to itself. If it dies in that, or on its way to the lock, a third has it.
#[test]
fn wait_that_inherits_before_another() {
    let _turn = one_at_a_time();
    waiting("wait, one notified and killed before, another asleep behind")
        .doomed_peer(|scene, cues| {
            scene.doomed.store(std::process::id(), Ordering::Relaxed);
            waiter(scene, cues);
        })
        .peer(late(1))
        .peer(|scene, cues| {
            cues.wait(2);
            all_wait(scene, cues, 3);
            let guard = scene.lock();
            assert!(scene.condition.notify_one());
            kill(scene.doomed.load(Ordering::Relaxed));
            scene.notified.store(1, Ordering::Relaxed);
            drop(guard);
        })
        .peer(executor(1))
        .cue(When::Asleep)
        .cue(When::Next)
        .check(&["any"], poisoned(1))
        .thinly(7)
        .run()
        .assert_clean();
}

/// A scene in which a waiter died notified, with nobody else there.
fn with_a_legacy() -> Scene {
    let scene = Scene::new();
    let mut child = Child::fork(|| waiter(&scene, &Cues::default()));
    while scene.condition.waiting() == 0 {
        std::thread::yield_now();
    }
    let guard = scene.lock();
    assert!(scene.condition.notify_one());
    assert_eq!(child.kill(), Ending::Killed(libc::SIGKILL));
    drop(guard);
    scene
}

/// The victim comes to wait and finds what the dead one left. It is not for the victim.
#[test]
fn wait_where_one_died_notified() {
    let _turn = one_at_a_time();
    Operation::new("wait_timeout, in the slot of one that died notified", with_a_legacy)
        .victim(|scene, stage| {
            scene.warm_up();
            stage.begin();
            let guard = scene.lock();
            let result = scene.condition.wait_timeout(guard, DELAY);
            stage.end();
            assert!(result.unwrap().1.timed_out());
        })
        .check(&["any"], poisoned(0))
        .thinly(7)
        .run()
        .assert_clean();
}

/// The victim notifies some of those who wait. Whoever has been notified comes back, without any help; nobody is waited
/// for.
fn notifying(name: &str, others: u32, notify: fn(&Scene)) {
    let mut operation = Operation::new(name, Scene::new).victim(move |scene, stage| {
        scene.warm_up();
        stage.begin();
        notify(scene);
        stage.end();
    });
    for _ in 0..others {
        operation = operation.peer(waiter);
    }
    operation
        .peer(move |scene, cues| {
            cues.wait(DEATH);
            settles("whoever was notified is back", scene, || {
                scene.back() + scene.condition.waiting() == others
            });
            scene.condition.notify(others);
        })
        .check(&["any"], poisoned(others))
        .run()
        .assert_clean();
}

#[test]
fn notify_one() {
    let _turn = one_at_a_time();
    notifying("notify_one, two asleep", 2, |scene| assert!(scene.condition.notify_one()));
}

#[test]
fn notify_several() {
    let _turn = one_at_a_time();
    notifying("notify(2), three asleep", 3, |scene| assert_eq!(scene.condition.notify(2), 2));
}

#[test]
fn notify_with_the_lock() {
    let _turn = one_at_a_time();
    notifying("lock, notify_one, unlock, two asleep", 2, |scene| {
        let _guard = scene.lock();
        assert!(scene.condition.notify_one());
    });
}

#[test]
fn notify_all() {
    let _turn = one_at_a_time();
    notifying("notify_all, three asleep", 3, |scene| assert_eq!(scene.condition.notify_all(), 3));
}

#[test]
fn notify_nobody() {
    let _turn = one_at_a_time();
    notifying("notify, nobody there", 0, |scene| {
        assert_eq!(scene.condition.notify(2) + scene.condition.notify_all(), 0);
    });
}

/// All levels of an `RLock` go and come back, or die with the victim.
#[test]
fn wait_with_a_nested_rlock() {
    let _turn = one_at_a_time();
    struct Nested {
        lock: RLock<()>,
        condition: Condition,
    }
    let setup = || Nested { lock: RLock::new(()).unwrap(), condition: Condition::new().unwrap() };
    Operation::new("RLock, held twice: wait, notified while asleep", setup)
        .victim(|nested, stage| {
            let outer = nested.lock.lock().unwrap();
            let mut inner = nested.lock.lock().unwrap();
            for _ in 0..8 {
                inner = nested.condition.wait_timeout(inner, Duration::from_nanos(1)).unwrap().0;
            }
            stage.begin();
            let inner = nested.condition.wait(inner).unwrap();
            stage.end();
            drop((inner, outer));
        })
        .peer(|nested, cues| {
            cues.wait(1);
            let guard = nested.lock.lock();
            nested.condition.notify_one();
            drop(guard);
        })
        .cue(When::Asleep)
        .check(&["any"], |nested, outcome| {
            if let Some(cause) = nested.lock.poison_cause() {
                assert_eq!(cause.pid(), outcome.victim);
            }
            nested
                .lock
                .lock_timeout(SOON)
                .map_or_else(|error| assert!(nested.lock.is_poisoned(), "{error}"), drop);
            nested.lock.clear_poison();
            let guards = (nested.lock.lock().unwrap(), nested.lock.lock().unwrap());
            assert_eq!((nested.lock.depth(), nested.condition.waiting()), (2, 0));
            drop(guards);
            outcome.heals(|| drop(nested.lock.lock().unwrap()));
            "any"
        })
        .thinly(7)
        .run()
        .assert_clean();
}
