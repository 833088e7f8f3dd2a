//! Kills a process at every instruction of every operation of an event.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_event -- --nocapture
//! ```

use polyproc_event::Event;
use polyproc_mutex::Mutex;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::BACKSTOP;
use polyproc_testing::{forbid, wait_until};
use polyproc_tests::child::{Child, Ending};
use polyproc_tests::kill::{Operation, Outcome, When, is_full};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::one_at_a_time;
use polyproc_tests::trace::Tracee;
use std::time::{Duration, Instant};

/// Long enough to be stepped into a sleep before it is over.
const DELAY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 15 });
const LONG: Duration = Duration::from_secs(10);

struct Scene {
    event: Event,
    /// How many peers have gone on.
    passed: Shared<AtomicU32>,
    /// Whether the event was as at the beginning when all was over, so that the helper had to set it.
    helped: Shared<AtomicU32>,
    /// How it is shown at the beginning.
    beginning: String,
}

impl Scene {
    fn with(event: Event) -> Scene {
        let beginning = shown(&event);
        Scene { event, passed: Shared::new(), helped: Shared::new(), beginning }
    }

    fn new() -> Scene {
        Scene::with(Event::new().unwrap())
    }

    fn set() -> Scene {
        let event = Event::new().unwrap();
        event.set();
        Scene::with(event)
    }

    /// Somebody waited for it, and is gone.
    fn haunted() -> Scene {
        let event = Event::new().unwrap();
        assert!(!event.wait_timeout(Duration::from_micros(1)));
        Scene::with(event)
    }

    /// Looking for it before sleeping was in vain so often that waits sleep at once: fewer steps.
    fn weary() -> Scene {
        let event = Event::new().unwrap();
        for _ in 0..10 {
            assert!(!event.wait_timeout(Duration::from_micros(1)));
        }
        event.set();
        event.clear();
        Scene::with(event)
    }

    /// Nobody has set it yet, nor set and cleared it.
    fn is_as_new(&self) -> bool {
        !self.event.is_set() && shown(&self.event) == self.beginning
    }

    /// As a survivor: all peers have gone on, and the event works and costs no system calls. What became of it.
    fn survey(&self, peers: u32, outcome: &Outcome<'_>) -> &'static str {
        assert_eq!(self.passed.load(Ordering::Relaxed), peers, "not all peers have gone on");
        let phase = if self.helped.load(Ordering::Relaxed) == 1 || self.is_as_new() {
            "unset"
        } else if self.event.is_set() {
            "set"
        } else {
            "cleared"
        };
        self.event.clear();
        assert!(!self.event.wait_timeout(Duration::from_micros(1)));
        outcome.heals(|| {
            self.event.set();
            self.event.wait();
            self.event.clear();
            assert!(!self.event.is_set());
        });
        phase
    }
}

/// What is shown of it, but for whether somebody waits.
fn shown(event: &Event) -> String {
    format!("{event:?}").replace("awaited: true", "awaited: false")
}

fn survey(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| scene.survey(peers, outcome)
}

/// A peer that waits.
fn waiter(scene: &Scene, _: &Cues) {
    scene.event.wait();
    scene.passed.fetch_add(1, Ordering::Relaxed);
}

/// A peer that comes last, and sets the event only if the victim has not: who should be woken by the dead is not by it.
fn helper(scene: &Scene, cues: &Cues) {
    cues.wait(u32::MAX);
    if scene.is_as_new() {
        scene.helped.store(1, Ordering::Relaxed);
        scene.event.set();
    }
}

/// A peer that sets it at its cue.
fn setter(scene: &Scene, cues: &Cues) {
    cues.wait(1);
    scene.event.set();
}

/// A peer that sets and clears it at its cue.
fn pulser(scene: &Scene, cues: &Cues) {
    cues.wait(1);
    scene.event.set();
    scene.event.clear();
}

fn operation(name: impl Into<String>, setup: fn() -> Scene, act: fn(&Event)) -> Operation<Scene> {
    Operation::new(name, setup).victim(move |scene, stage| {
        stage.begin();
        act(&scene.event);
        stage.end();
    })
}

#[test]
fn set_and_clear_alone() {
    let _turn = one_at_a_time();
    operation("set", Scene::new, Event::set).check(&["unset", "set"], survey(0)).run().assert_clean();
    operation("set, a waiter was killed", Scene::haunted, Event::set)
        .check(&["unset", "set"], survey(0))
        .run()
        .assert_clean();
    operation("set, already set", Scene::set, Event::set).check(&["set"], survey(0)).run().assert_clean();
    operation("clear", Scene::set, Event::clear).check(&["set", "cleared"], survey(0)).run().assert_clean();
    operation("clear, not set", Scene::new, Event::clear).check(&["unset"], survey(0)).run().assert_clean();
    operation("set and clear", Scene::new, |event| {
        event.set();
        event.clear();
    })
    .check(&["unset", "set", "cleared"], survey(0))
    .run()
    .assert_clean();
}

#[test]
fn set_with_others_asleep() {
    let _turn = one_at_a_time();
    for waiters in 1..=3 {
        let mut operation = operation(format!("set, {waiters} asleep"), Scene::new, Event::set);
        for _ in 0..waiters {
            operation = operation.peer(waiter);
        }
        operation.peer(helper).check(&["unset", "set"], survey(waiters)).run().assert_clean();
    }
}

#[test]
fn set_and_clear_with_others_asleep() {
    let _turn = one_at_a_time();
    let mut operation = operation("set and clear, 3 asleep", Scene::new, |event| {
        event.set();
        event.clear();
    });
    for _ in 0..3 {
        operation = operation.peer(waiter);
    }
    operation.peer(helper).check(&["unset", "set", "cleared"], survey(3)).run().assert_clean();
}

/// A waiter comes at every step of the setter.
#[test]
fn set_with_a_waiter_that_comes_at_any_time() {
    let _turn = one_at_a_time();
    let late = |scene: &Scene, cues: &Cues| {
        cues.wait(1);
        waiter(scene, cues);
    };
    let pulse = |event: &Event| {
        event.set();
        event.clear();
        event.set();
    };
    let steps = operation("set, clear, set", Scene::new, pulse).run().steps();
    let stride = if is_full() { 1 } else { steps / 12 + 1 };
    for step in (0..steps).step_by(stride as usize) {
        operation(format!("set, clear, set, one comes after step {step}"), Scene::new, pulse)
            .peer(waiter)
            .peer(late)
            .peer(|scene, cues| {
                // Whoever came after a pulse waits for the next set, which the dead owe nobody.
                cues.wait(u32::MAX);
                while scene.passed.load(Ordering::Relaxed) < 1 && !scene.is_as_new() {
                    std::thread::yield_now();
                }
                scene.event.set();
            })
            .cue(When::Step(step))
            .thinly(5)
            .check(&["set"], survey(2))
            .run()
            .assert_clean();
    }
}

/// Another sets it at every step of the setter, which finds it set, or with waiters gone.
#[test]
fn set_beside_another_setter() {
    let _turn = one_at_a_time();
    let steps = operation("set, one asleep", Scene::new, Event::set).peer(waiter).peer(helper).run().steps();
    let stride = if is_full() { 1 } else { steps / 12 + 1 };
    for step in (0..steps).step_by(stride as usize) {
        operation(format!("set, another sets after step {step}"), Scene::new, Event::set)
            .peer(waiter)
            .peer(waiter)
            .peer(setter)
            .cue(When::Step(step))
            .check(&["set"], survey(2))
            .run()
            .assert_clean();
    }
}

/// The event is set and cleared by another at every step of the setter: it is set in the end, or cleared.
#[test]
fn set_beside_a_pulse() {
    let _turn = one_at_a_time();
    let steps = operation("set, one asleep", Scene::new, Event::set).peer(waiter).peer(helper).run().steps();
    let stride = if is_full() { 1 } else { steps / 12 + 1 };
    for step in (0..steps).step_by(stride as usize) {
        operation(format!("set, another sets and clears after step {step}"), Scene::new, Event::set)
            .peer(waiter)
            .peer(waiter)
            .peer(pulser)
            .cue(When::Step(step))
            .check(&["cleared", "set"], survey(2))
            .run()
            .assert_clean();
    }
}

#[test]
fn wait() {
    let _turn = one_at_a_time();
    operation("wait, set", Scene::set, Event::wait).check(&["set"], survey(0)).run().assert_clean();
    operation("wait, set while asleep, the first", Scene::new, Event::wait)
        .peer(setter)
        .cue(When::Asleep)
        .thinly(100)
        .check(&["set"], survey(0))
        .run()
        .assert_clean();
    operation("wait, set while asleep", Scene::weary, Event::wait)
        .peer(setter)
        .cue(When::Asleep)
        .check(&["set"], survey(0))
        .run()
        .assert_clean();
    operation("wait, set while asleep, others asleep", Scene::weary, Event::wait)
        .peer(waiter)
        .peer(waiter)
        .peer(setter)
        .cue(When::Asleep)
        .check(&["set"], survey(2))
        .run()
        .assert_clean();
    operation("wait, set and cleared while asleep, others asleep", Scene::weary, Event::wait)
        .peer(waiter)
        .peer(waiter)
        .peer(pulser)
        .cue(When::Asleep)
        .check(&["cleared"], survey(2))
        .run()
        .assert_clean();
}

/// The event is set and cleared at every step of the wait on its way to sleep.
#[test]
fn wait_beside_a_pulse() {
    let _turn = one_at_a_time();
    let asleep = operation("wait", Scene::weary, Event::wait).peer(setter).cue(When::Asleep).run();
    let steps = asleep.first_sleep();
    let stride = if is_full() { 1 } else { steps / 12 + 1 };
    for step in (0..steps).step_by(stride as usize) {
        operation(format!("wait, set and cleared after step {step}"), Scene::weary, |event| {
            let _ = event.wait_timeout(DELAY);
        })
        .peer(waiter)
        .peer(pulser)
        .cue(When::Step(step))
        .thinly(3)
        .check(&["cleared"], survey(1))
        .run()
        .assert_clean();
    }
}

#[test]
fn wait_timeout() {
    let _turn = one_at_a_time();
    operation("wait_timeout of zero, not set", Scene::weary, |event| {
        let _ = event.wait_timeout(Duration::ZERO);
    })
    .check(&["unset"], survey(0))
    .run()
    .assert_clean();
    operation("wait_timeout, never set", Scene::weary, |event| {
        let _ = event.wait_timeout(DELAY);
    })
    .check(&["unset"], survey(0))
    .run()
    .assert_clean();
    operation("wait_timeout, set while asleep", Scene::weary, |event| {
        let _ = event.wait_timeout(LONG);
    })
    .peer(waiter)
    .peer(setter)
    .cue(When::Asleep)
    .check(&["set"], survey(1))
    .run()
    .assert_clean();
}

/// As long as they sleep: one call of the system for all of them, none for nobody.
#[test]
fn many_waiters_are_woken_by_one_system_call() {
    let _turn = one_at_a_time();
    for (count, calls) in [(0, 0), (1, 1), (64, 1)] {
        let scene = Scene::new();
        let mut waiters: Vec<_> = (0..count)
            .map(|_| {
                let child = Child::fork(|| waiter(&scene, &Cues::default()));
                assert!(child.settle(LONG));
                child
            })
            .collect();
        let mut tracee = Tracee::fork(|stage| {
            stage.begin();
            scene.event.set();
            stage.end();
        });
        tracee.go(LONG).unwrap();
        assert_eq!(scene.passed.load(Ordering::Relaxed), 0);
        assert_eq!(tracee.count_system_calls(LONG), Ok(calls), "{count} asleep");
        for child in &mut waiters {
            assert_eq!(child.wait(LONG), Some(Ending::Exited(0)));
            assert_eq!(child.rescues(), 0);
        }
        assert_eq!(scene.passed.load(Ordering::Relaxed), count);
    }
}

/// In a sandbox, set and wake are two steps. Killed between them, the setter leaves the sleepers to their backstop, but not
/// longer.
#[test]
fn set_in_a_sandbox() {
    let _turn = one_at_a_time();
    let (mut unset, mut set, mut late) = (0, 0, 0);
    for step in (0..).step_by(if is_full() { 1 } else { 2 }) {
        let scene = Scene::new();
        let mut tracee = Tracee::fork(|stage| {
            forbid(libc::SYS_futex, Some(libc::FUTEX_WAKE_OP));
            stage.begin();
            scene.event.set();
            stage.end();
        });
        tracee.go(LONG).unwrap();
        let mut waiters = [(); 2].map(|()| {
            let child = Child::fork(|| waiter(&scene, &Cues::default()));
            assert!(child.settle(LONG));
            child
        });
        let stepped = (0..step).all(|_| tracee.step() == polyproc_tests::trace::Event::Stepped);
        tracee.kill();
        if scene.is_as_new() {
            unset += 1;
            assert_eq!(scene.passed.load(Ordering::Relaxed), 0);
            scene.event.set();
        } else {
            set += 1;
        }
        let start = Instant::now();
        for child in &mut waiters {
            assert_eq!(child.wait(LONG), Some(Ending::Exited(0)), "stranded, at step {step}");
        }
        assert!(start.elapsed() < 4 * BACKSTOP, "{:?}, at step {step}", start.elapsed());
        late += u32::from(start.elapsed() > BACKSTOP / 4);
        if !stepped {
            break;
        }
    }
    println!(
        "set in a sandbox: {unset} kills before it was set, {set} after, {late} of them left to the backstop"
    );
    assert!(unset > 10 && set > 10);
}

/// A handler sets the event in the middle of the lock operations of its own thread, and they are none the worse: neither
/// lock nor event is left behind by a kill.
#[test]
fn a_handler_sets_in_the_middle_of_a_lock_operation() {
    let _turn = one_at_a_time();
    for round in 0..20u64 {
        let (event, mutex) = (Event::new().unwrap(), Mutex::new(0u64).unwrap());
        let passed = Shared::<AtomicU32>::new();
        let mut waiter = Child::fork(|| {
            loop {
                event.wait();
                passed.fetch_add(1, Ordering::Relaxed);
                event.clear();
            }
        });
        let mut victim = Child::fork(|| {
            storm::begin(&event);
            loop {
                *mutex.lock().unwrap() += 1;
            }
        });
        let mut rival = Child::fork(|| {
            for _ in 0..100 {
                *mutex.lock().unwrap() += 1;
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        assert_eq!(rival.wait(LONG), Some(Ending::Exited(0)), "{:?}", rival.complaint());
        wait_until("the handler has set the event", || passed.load(Ordering::Relaxed) > 0);
        std::thread::sleep(Duration::from_micros(round * 13));
        victim.kill();
        let before = passed.load(Ordering::Relaxed);
        // The lock is free, poisoned or not, and the event works.
        drop(mutex.lock_timeout(Duration::from_millis(50)).map_err(|error| match error {
            polyproc_mutex::LockTimeoutError::Poisoned(_) => {}
            other => panic!("{other}"),
        }));
        event.set();
        wait_until("the waiter goes on", || passed.load(Ordering::Relaxed) != before);
        waiter.kill();
    }
}

/// Signals in quick succession, whose handler sets an event.
#[allow(unsafe_code, reason = "signal handlers")]
mod storm {
    use polyproc_event::Event;
    use std::sync::OnceLock;

    static EVENT: OnceLock<Event> = OnceLock::new();

    extern "C" fn set(_: libc::c_int) {
        if let Some(event) = EVENT.get() {
            event.set();
        }
    }

    /// In this process, from here on.
    pub(crate) fn begin(event: &Event) {
        EVENT.get_or_init(|| event.clone());
        let handler: extern "C" fn(libc::c_int) = set;
        // SAFETY: the handler sets an event, which is async-signal-safe.
        unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
        let interval = libc::timeval { tv_sec: 0, tv_usec: 60 };
        let timer = libc::itimerval { it_interval: interval, it_value: interval };
        // SAFETY: the timer is readable.
        let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, core::ptr::null_mut()) };
        assert_eq!(result, 0);
    }
}
