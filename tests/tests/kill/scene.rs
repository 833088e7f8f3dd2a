//! A mutex, and who plays around it.

use polyproc_mutex::{LockTimeoutError, Mutex, MutexGuard, PoisonError};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_tests::kill::Outcome;
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::kernel_is_at_least;
use std::time::Duration;

/// Longer than any lock that nobody holds needs to be taken, and far shorter than the backstop.
pub(crate) const SOON: Duration = Duration::from_millis(50);

pub(crate) struct Scene {
    pub(crate) mutex: Mutex<u64>,
    /// How many peers had the lock.
    pub(crate) passed: Shared<AtomicU32>,
    /// The process that is to die before the victim does.
    pub(crate) doomed: Shared<AtomicU32>,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene { mutex: Mutex::new(0).unwrap(), passed: Shared::new(), doomed: Shared::new() }
    }

    /// So that the first use of a thread is not stepped through each time.
    pub(crate) fn warm_up(&self) {
        drop(self.lock());
    }

    /// The lock, poisoned or not.
    pub(crate) fn lock(&self) -> MutexGuard<'_, u64> {
        self.mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of a peer that gets the lock sooner or later.
    pub(crate) fn pass(&self) {
        let guard = self.lock();
        self.passed.fetch_add(1, Ordering::Relaxed);
        drop(guard);
    }

    /// Takes the lock at once, as a survivor, and declares it repaired. What the data was, and who poisoned it.
    pub(crate) fn look(&self) -> (u64, Option<u32>) {
        let found = match self.mutex.lock_timeout(SOON) {
            Ok(guard) => (*guard, None),
            Err(LockTimeoutError::Poisoned(error)) => (**error.get_ref(), Some(error.cause().pid())),
            Err(error) => panic!("{error}, after {SOON:?}: {:?}", self.mutex),
        };
        self.mutex.clear_poison();
        found
    }

    /// As a survivor: everybody else got through, and the lock is as it was when it was new. What the data was, and
    /// whether the victim poisoned it.
    pub(crate) fn survey(&self, peers: u32, outcome: &Outcome<'_>) -> (u64, bool) {
        assert_eq!(self.passed.load(Ordering::Relaxed), peers, "not all peers had the lock");
        let (value, poisoner) = self.look();
        if let Some(pid) = poisoner {
            assert_eq!(pid, outcome.victim, "the wrong process is said to have died");
        }
        assert!(!self.mutex.is_locked());
        assert_eq!(self.mutex.holder(), None);
        outcome.heals(|| drop(self.mutex.lock().unwrap()));
        (value, poisoner.is_some())
    }
}

/// The check of operations that leave the data alone and may poison it: `peers` others had the lock.
pub(crate) fn poisoned(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| match scene.survey(peers, outcome) {
        (0, false) => "clean",
        (0, true) => "poisoned",
        other => panic!("{other:?}"),
    }
}

/// What a survivor may find of a victim that adds one to the data, once.
pub(crate) const ADDING: [&str; 4] = ["old", "old and poisoned", "new and poisoned", "new"];

/// The check of [`ADDING`]: `peers` others had the lock.
pub(crate) fn added(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| match scene.survey(peers, outcome) {
        (0, false) => "old",
        (0, true) => "old and poisoned",
        (1, true) => "new and poisoned",
        (1, false) => "new",
        other => panic!("{other:?}"),
    }
}

/// A peer that holds the lock until its first cue.
pub(crate) fn holder(scene: &Scene, cues: &Cues) {
    let guard = scene.lock();
    cues.wait(1);
    drop(guard);
}

/// A peer that waits for the lock.
pub(crate) fn waiter(scene: &Scene, _: &Cues) {
    scene.pass();
}

/// A peer that waits for the lock from its cue on.
pub(crate) fn late(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        scene.pass();
    }
}

/// A peer that takes the lock at one cue and releases it at another.
pub(crate) fn barger(takes: u32, releases: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(takes);
        let guard = scene.lock();
        scene.passed.fetch_add(1, Ordering::Relaxed);
        cues.wait(releases);
        drop(guard);
    }
}

/// Whether two deaths in a row may strand a third: the kernel passes a wake-up on for a dead sleeper only if the word is
/// zero, and a dead holder's is not.
pub(crate) fn kernel_drops_wakes_of_dead_locks() -> bool {
    !kernel_is_at_least(6, 2)
}
