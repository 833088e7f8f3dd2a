//! Two containers share a lock: threads with the same id, in different PID namespaces, are not each other.
//!
//! Needs the right to make a PID namespace, as root or through a user namespace. Where it is missing, the tests say so
//! and pass.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_mutex::{LockTimeoutError, Mutex, PoisonCause, RLock, TryLockError};
use std::time::{Duration, Instant};
use support::{Child, Slot, kill, tid, wait_asleep, wait_for_the_end, watchdog};

/// The first process of a namespace, with id 1 there.
struct Contained {
    /// Its parent, which is in the namespace of the test.
    parent: Child,
    /// Its id in the namespace of the test.
    pid: u32,
    /// Its status once it has ended, plus one.
    status: Slot,
}

const REFUSED: u64 = u64::MAX;

/// Runs `f` as process 1 of a PID namespace of its own. `None` if this is not permitted.
fn contain(f: impl FnOnce()) -> Option<Contained> {
    let (pid, status) = (Slot::new(), Slot::new());
    let parent = Child::run(|| {
        // SAFETY: changes what the coming children are, and nothing of this process.
        let as_root = unsafe { libc::unshare(libc::CLONE_NEWPID) };
        // SAFETY: this process has one thread, which can go to a user namespace.
        if as_root != 0 && unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) } != 0 {
            return pid.set(REFUSED);
        }
        let child = Child::run(|| {
            assert_eq!((std::process::id(), tid()), (1, 1));
            f();
        });
        pid.set(child.pid().into());
        status.set(child.wait() as u64 + 1);
    });
    match pid.wait() {
        REFUSED => {
            println!("skipped: no PID namespace can be made here");
            None
        }
        pid => Some(Contained { parent, pid: pid as u32, status }),
    }
}

impl Contained {
    /// Kills it and waits until it is gone.
    fn kill(self) {
        kill(self.pid);
        self.parent.join();
        assert_eq!(self.status.get() - 1, libc::SIGKILL as u64);
    }

    /// Waits until it has ended, which must have been well.
    fn join(self) {
        self.parent.join();
        assert_eq!(self.status.get() - 1, 0, "the status of a contained process");
    }
}

#[test]
fn a_mutex_held_by_a_namesake_is_held_by_another() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let (holding, asking, got) = (Slot::new(), Slot::new(), Slot::new());
    let holder = contain(|| {
        let mut guard = mutex.lock().unwrap();
        *guard = 5;
        holding.set(1);
        wait_for_the_end();
    });
    let Some(holder) = holder else { return };
    holding.wait();
    assert_eq!(mutex.holder(), Some(1));

    let namesake = contain(|| {
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        let (start, timeout) = (Instant::now(), Duration::from_millis(30));
        assert!(matches!(mutex.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
        assert!(start.elapsed() >= timeout);
        asking.set(1);
        // The word says that thread 1 holds it. That is not this one, so it is no deadlock.
        let error = mutex.lock().unwrap_err();
        got.set(support::now());
        assert_eq!(error.cause(), PoisonCause::OwnerDied { pid: 1 });
        assert_eq!(**error.get_ref(), 5);
        mutex.clear_poison();
    })
    .unwrap();
    asking.wait();
    wait_asleep(namesake.pid);
    assert_eq!(got.get(), 0, "let in while the namesake is inside");
    let killed = support::now();
    holder.kill();
    namesake.join();
    assert!(got.get() >= killed);
    assert_eq!(*mutex.lock().unwrap(), 5);
}

#[test]
fn an_rlock_held_by_a_namesake_is_held_by_another() {
    let _watchdog = watchdog();
    let rlock = RLock::new(0u32).unwrap();
    let holding = Slot::new();
    let holder = contain(|| {
        let _guards = (rlock.lock().unwrap(), rlock.lock().unwrap());
        holding.set(1);
        wait_for_the_end();
    });
    let Some(holder) = holder else { return };
    holding.wait();

    contain(|| {
        assert_eq!(rlock.depth(), 0);
        assert!(matches!(rlock.try_lock(), Err(TryLockError::WouldBlock)));
        let (start, timeout) = (Instant::now(), Duration::from_millis(30));
        assert!(matches!(rlock.lock_timeout(timeout), Err(LockTimeoutError::TimedOut)));
        assert!(start.elapsed() >= timeout);
        assert_eq!(rlock.depth(), 0);
    })
    .unwrap()
    .join();
    assert!(rlock.is_locked());

    holder.kill();
    contain(|| {
        let error = rlock.lock().unwrap_err();
        assert_eq!((error.cause(), rlock.depth()), (PoisonCause::OwnerDied { pid: 1 }, 1));
        rlock.clear_poison();
    })
    .unwrap()
    .join();
    assert!(rlock.lock().is_ok());
}

#[test]
fn a_holder_killed_in_its_namespace_hands_over_to_those_outside() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let holding = Slot::new();
    let holder = contain(|| {
        let _guard = mutex.lock().unwrap();
        holding.set(1);
        wait_for_the_end();
    });
    let Some(holder) = holder else { return };
    holding.wait();
    assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
    holder.kill();
    // Its id there, which is what it knew itself by.
    assert_eq!(mutex.lock().unwrap_err().cause(), PoisonCause::OwnerDied { pid: 1 });
}

#[test]
fn a_waiter_killed_in_its_namespace_does_not_release_what_its_namesake_holds() {
    let _watchdog = watchdog();
    let mutex = Mutex::new(0u32).unwrap();
    let (holding, release) = (Slot::new(), Slot::new());
    let holder = contain(|| {
        let mut guard = mutex.lock().unwrap();
        holding.set(1);
        release.wait();
        *guard += 1;
    });
    let Some(holder) = holder else { return };
    holding.wait();
    for timed in [false, true] {
        let waiter = contain(|| {
            if timed {
                let _ = mutex.lock_timeout(Duration::from_secs(60));
            } else {
                let _ = mutex.lock();
            }
        })
        .unwrap();
        wait_asleep(waiter.pid);
        // The kernel looks for locks of its thread 1. There is one in its namespace's eyes, and it is not this one's.
        waiter.kill();
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)), "the lock went with a waiter");
    }
    release.set(1);
    holder.join();
    assert_eq!(*mutex.lock().unwrap(), 1);
}
