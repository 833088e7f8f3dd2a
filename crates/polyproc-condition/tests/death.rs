//! Waiters and notifiers that are killed.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_condition::Condition;
use polyproc_mutex::{Mutex, PoisonCause, PoisonError};
use polyproc_sys::futex::backstop_rescues;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::{Child, Slot, signal, state, wait_until, watchdog, woken_in_time};

/// Longer than a wake-up takes, and shorter than the backstop.
const TICK: Duration = Duration::from_millis(60);
/// No operation that does not block takes so long, on however busy a machine.
const AT_ONCE: Duration = Duration::from_millis(150);

/// What the processes of a test share.
struct Scene {
    mutex: Mutex<u64>,
    condition: Condition,
    /// How many were notified and had the lock.
    back: Slot,
    rescues: Slot,
}

impl Scene {
    fn new() -> Scene {
        let (mutex, condition) = (Mutex::new(0).unwrap(), Condition::new().unwrap());
        Scene { mutex, condition, back: Slot::new(), rescues: Slot::new() }
    }

    /// A child that waits, once all before it do.
    fn waiter(&self) -> Child {
        let before = self.condition.waiting();
        let child = Child::run(|| {
            drop(self.condition.wait(self.mutex.lock().unwrap()).unwrap());
            self.back.add(1);
            self.rescues.add(backstop_rescues());
        });
        wait_until("a child waits", || self.condition.waiting() == before + 1);
        child.wait_asleep();
        child
    }

    fn waiters(&self, count: u32) -> Vec<Child> {
        (0..count).map(|_| self.waiter()).collect()
    }

    /// Exactly so many come back, and no more.
    fn expect_back(&self, count: u64) {
        wait_until("the notified are back", || self.back.get() >= count);
        std::thread::sleep(TICK);
        assert_eq!(self.back.get(), count, "more came back than were notified");
    }
}

#[test]
fn only_the_living_are_notified() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let scene = Scene::new();
        let mut waiters = scene.waiters(5);
        waiters.remove(2).kill();
        waiters.remove(0).kill();
        assert_eq!(scene.condition.waiting(), 3);
        let start = Instant::now();
        assert_eq!(scene.condition.notify(2), 2);
        assert!(start.elapsed() < AT_ONCE);
        scene.expect_back(2);
        assert_eq!(scene.condition.waiting(), 1);
        assert_eq!(scene.condition.notify(9), 1);
        waiters.into_iter().for_each(Child::join);
        assert!(!scene.mutex.is_poisoned());
        scene.rescues.get()
    });
}

#[test]
fn the_dead_keep_no_notifier_waiting() {
    let _watchdog = watchdog();
    let scene = Scene::new();
    for _ in 0..10 {
        for child in scene.waiters(4) {
            child.kill();
        }
        let start = Instant::now();
        assert_eq!(scene.condition.notify(4), 0);
        assert_eq!(scene.condition.notify_all(), 0);
        assert!(start.elapsed() < AT_ONCE, "it took {:?}", start.elapsed());
    }
    // Nor do those that are stopped; they have been notified, and keep that.
    let stopped = scene.waiter();
    signal(stopped.pid(), libc::SIGSTOP);
    wait_until("it is stopped", || state(stopped.pid()) == Some('T'));
    let start = Instant::now();
    assert!(scene.condition.notify_one());
    assert!(!scene.condition.notify_one());
    assert!(start.elapsed() < AT_ONCE);
    signal(stopped.pid(), libc::SIGCONT);
    stopped.join();
    assert_eq!(scene.back.get(), 1);
}

/// Killed between its wake-up and its lock: `notify` chooses the oldest, which is killed on its way.
fn killed_on_the_way_back(kill: usize, waiters: u32, notify: u32) -> u64 {
    let scene = Scene::new();
    let mut children = scene.waiters(waiters);
    let guard = scene.mutex.lock().unwrap();
    assert_eq!(scene.condition.notify(notify), notify);
    // They are awake, and wait for the lock.
    std::thread::sleep(TICK / 3);
    assert_eq!(scene.condition.waiting(), waiters - notify);
    for child in children.drain(..kill) {
        child.kill();
    }
    // Who has been given it waits for the lock as well.
    let left = waiters - notify - (kill as u32).min(waiters - notify);
    wait_until("the notifications are passed on", || scene.condition.waiting() == left);
    assert_eq!(scene.back.get(), 0);
    drop(guard);
    scene.expect_back(u64::from(waiters - kill as u32 - left));
    assert_eq!(scene.condition.notify_all(), left);
    children.into_iter().for_each(Child::join);
    assert!(!scene.mutex.is_poisoned());
    scene.rescues.get()
}

#[test]
fn a_notified_waiter_that_is_killed_hands_on() {
    let _watchdog = watchdog();
    woken_in_time(|| killed_on_the_way_back(1, 3, 1));
}

#[test]
fn several_notified_waiters_that_are_killed_hand_on() {
    let _watchdog = watchdog();
    woken_in_time(|| killed_on_the_way_back(3, 8, 3));
    woken_in_time(|| killed_on_the_way_back(2, 3, 2));
}

/// One dies with the notification, then the one that it was passed on to, and so on.
#[test]
fn a_notification_survives_one_death_after_the_other() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let scene = Scene::new();
        let mut children = scene.waiters(5);
        let guard = scene.mutex.lock().unwrap();
        assert!(scene.condition.notify_one());
        for left in (1..=3).rev() {
            children.remove(0).kill();
            wait_until("it is passed on", || scene.condition.waiting() == left);
        }
        drop(guard);
        scene.expect_back(1);
        assert_eq!(scene.condition.notify_all(), 1);
        children.into_iter().for_each(Child::join);
        scene.rescues.get()
    });
}

#[test]
fn a_notification_that_dies_with_nobody_else_there_is_spent() {
    let _watchdog = watchdog();
    let scene = Scene::new();
    let child = scene.waiter();
    let guard = scene.mutex.lock().unwrap();
    assert!(scene.condition.notify_one());
    child.kill();
    drop(guard);
    // Whoever comes later waits for its own.
    let start = Instant::now();
    let (guard, result) = scene.condition.wait_timeout(scene.mutex.lock().unwrap(), TICK).unwrap();
    assert!(result.timed_out() && start.elapsed() >= TICK);
    drop(guard);
    let next = scene.waiter();
    scene.expect_back(0);
    assert!(scene.condition.notify_one());
    next.join();
}

/// As a holder it is like any other: the lock is poisoned, and that is how the others know.
#[test]
fn a_waiter_that_is_killed_with_its_lock_back_poisons() {
    let _watchdog = watchdog();
    let scene = Scene::new();
    let inside = Slot::new();
    let child = Child::run(|| {
        let _guard = scene.condition.wait(scene.mutex.lock().unwrap()).unwrap();
        inside.set(1);
        support::wait_for_the_end();
    });
    wait_until("it waits", || scene.condition.waiting() == 1);
    let other = Child::run(|| {
        let error = scene.condition.wait(scene.mutex.lock().unwrap()).unwrap_err();
        assert!(matches!(error.cause(), PoisonCause::OwnerDied { .. }));
    });
    wait_until("another waits", || scene.condition.waiting() == 2);
    assert!(scene.condition.notify_one());
    inside.wait();
    let pid = child.kill();
    let error = scene.mutex.lock().unwrap_err();
    assert_eq!(error.cause(), PoisonCause::OwnerDied { pid });
    assert_eq!(scene.condition.waiting(), 1, "its notification was its own");
    drop(error.into_inner());
    assert!(scene.condition.notify_one());
    other.join();
}

#[test]
fn slots_of_the_dead_are_used_again() {
    let _watchdog = watchdog();
    let (mutex, condition) = (Mutex::new(0u64).unwrap(), Condition::with_slots(2).unwrap());
    for round in 0..10 {
        let children: Vec<_> =
            (0..2).map(|_| Child::run(|| drop(condition.wait(mutex.lock().unwrap()).unwrap()))).collect();
        wait_until("both have a slot", || condition.waiting() == 2);
        // With and without a notification, which the other would inherit.
        if round % 2 == 0 {
            let _guard = mutex.lock().unwrap();
            assert_eq!(condition.notify(2), 2);
            children.into_iter().for_each(|child| {
                child.kill();
            });
        } else {
            children.into_iter().for_each(|child| {
                child.kill();
            });
        }
        assert_eq!(condition.waiting(), 0);
    }
}

#[test]
fn an_inherited_guard_does_not_wait() {
    let _watchdog = watchdog();
    let scene = Scene::new();
    let mut guard = Some(scene.mutex.lock().unwrap());
    Child::run(|| {
        let guard = guard.take().unwrap();
        let waited = catch_unwind(AssertUnwindSafe(|| drop(scene.condition.wait(guard))));
        assert!(waited.is_err());
    })
    .join();
    assert!(scene.mutex.is_locked() && !scene.mutex.is_poisoned());
    drop(guard);
}

/// A bounded buffer by hand.
struct Buffer {
    state: Mutex<State>,
    not_full: Condition,
    not_empty: Condition,
    /// How many puts and gets were completed.
    done: [Slot; 2],
}

const CAPACITY: u64 = 4;

/// How many were put in and taken out so far. Each changes with one store, so a death leaves it whole.
type State = [u64; 2];

impl Buffer {
    fn put(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.not_full.wait_while(state, |[put, got]| *put - *got == CAPACITY);
        let mut state = match waited {
            Ok(state) => state,
            // Somebody died inside: look again.
            Err(error) => return drop(error.into_inner()),
        };
        state[0] += 1;
        self.not_empty.notify_one();
        self.done[0].add(1);
    }

    fn get(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.not_empty.wait_while(state, |[put, got]| *put == *got);
        let mut state = match waited {
            Ok(state) => state,
            Err(error) => return drop(error.into_inner()),
        };
        state[1] += 1;
        self.not_full.notify_one();
        self.done[1].add(1);
    }

    fn producer(&self) -> Child {
        Child::run(|| {
            loop {
                self.put();
            }
        })
    }

    fn consumer(&self) -> Child {
        Child::run(|| {
            loop {
                self.get();
            }
        })
    }
}

#[test]
fn a_bounded_buffer_goes_on_whoever_is_killed() {
    let _watchdog = watchdog();
    let buffer = Buffer {
        state: Mutex::new([0; 2]).unwrap(),
        not_full: Condition::new().unwrap(),
        not_empty: Condition::new().unwrap(),
        done: [Slot::new(), Slot::new()],
    };
    let mut producers: Vec<_> = (0..4).map(|_| buffer.producer()).collect();
    let mut consumers: Vec<_> = (0..4).map(|_| buffer.consumer()).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let victim = (random >> 8) as usize % 4;
        if random & 1 == 0 {
            std::mem::replace(&mut producers[victim], buffer.producer()).kill();
        } else {
            std::mem::replace(&mut consumers[victim], buffer.consumer()).kill();
        }
        // A dead holder poisons, and a put or get that was in its hands may be without its notification: the one who is
        // told of the poison makes up for it.
        if buffer.state.is_poisoned() {
            let _state = buffer.state.lock().unwrap_or_else(PoisonError::into_inner);
            buffer.state.clear_poison();
            buffer.not_full.notify_all();
            buffer.not_empty.notify_all();
        }
        let before = [buffer.done[0].get(), buffer.done[1].get()];
        wait_until("the buffer goes on", || {
            if buffer.state.is_poisoned() {
                let _state = buffer.state.lock().unwrap_or_else(PoisonError::into_inner);
                buffer.state.clear_poison();
                buffer.not_full.notify_all();
                buffer.not_empty.notify_all();
            }
            buffer.done[0].get() > before[0] && buffer.done[1].get() > before[1]
        });
    }
    producers.into_iter().chain(consumers).for_each(|child| {
        child.kill();
    });
    let [put, got] = *buffer.state.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(got <= put && put - got <= CAPACITY, "{put} put, {got} got");
}
