//! Subject: a producer and a consumer, one of whom is killed at some moment and replaced. Do further messages pass?

use crate::Shared;
use crate::channel::{Get, Put};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Who is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Victim {
    /// The one that puts.
    Producer,
    /// The one that gets.
    Consumer,
}

/// How many messages have to pass after the death, more than a channel holds, and for how long they may take.
const FURTHER: u64 = 2_000;
const WITHIN: Duration = Duration::from_secs(1);
/// The most messages that a channel may hold.
pub const SLOTS: usize = 1024;

/// A child that works until it is killed.
struct Child(libc::pid_t);

impl Child {
    fn new(work: impl FnOnce()) -> Child {
        // SAFETY: the benches have one thread where they fork.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // It says what is wrong, and is then as good as dead.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(1) };
        }
        Child(pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child that is not reaped yet.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: the same; its status is not needed.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

/// Whether further messages passed.
pub fn trial<P: Put<64>, G: Get<64>>(
    victim: Victim,
    after: Duration,
    put: impl Fn() -> P,
    get: impl Fn() -> G,
) -> bool {
    let passed = Shared::<AtomicU64>::new();
    // SAFETY: mapped as long as `passed` lives, all nought, and only used as an atomic.
    let passed = unsafe { &*passed.at() };
    let has_passed = |count: u64, within: Duration| {
        let deadline = Instant::now() + within;
        while passed.load(Ordering::SeqCst) < count {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    };
    let producer = || {
        Child::new(|| {
            let mut end = put();
            loop {
                end.put(&[7; 64]);
            }
        })
    };
    let consumer = || {
        Child::new(|| {
            let mut end = get();
            let mut buffer = [0; 64];
            loop {
                assert_eq!(end.get(&mut buffer, |message| message[63]), 7);
                passed.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let (producing, consuming) = (producer(), consumer());
    assert!(has_passed(FURTHER, Duration::from_secs(10)), "nothing passes, though nobody is dead");
    std::thread::sleep(after);
    let (_survivor, _replacement) = match victim {
        Victim::Producer => {
            drop(producing);
            (consuming, producer())
        }
        Victim::Consumer => {
            drop(consuming);
            (producing, consumer())
        }
    };
    let before = passed.load(Ordering::SeqCst);
    has_passed(before + FURTHER, WITHIN)
}

/// In how many of so many trials further messages did not pass: each with a channel of its own, and another moment.
pub fn failures(trials: u64, mut trial: impl FnMut(Duration) -> bool) -> u64 {
    // Any sequence of moments, the same for all.
    let mut seed = 1u64;
    let mut moment = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros(seed >> 33 & 0xfff)
    };
    (0..trials).filter(|_| !trial(moment())).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::{ours, pipe};

    /// A pipe whose ends lock a plain mutex while they work: who is killed in there keeps it.
    struct Locked<T>(T, std::rc::Rc<crate::adapters::posix::Pthread>);

    impl<T: Put<64>> Put<64> for Locked<T> {
        fn put(&mut self, message: &[u8; 64]) {
            let (end, lock) = (&mut self.0, &self.1);
            lock.within(|| end.put(message));
        }
    }

    #[test]
    fn a_lock_that_dies_with_its_holder_is_noticed() {
        let unlocked = failures(3, |after| {
            let queue = ours::Plain::<64>::bounded(SLOTS as u64);
            trial(Victim::Producer, after, || queue.clone(), || queue.clone())
        });
        assert_eq!(unlocked, 0);
        let is_noticed = (0..20).any(|_| {
            let (put, get) = pipe::ends();
            let lock = std::rc::Rc::new(crate::adapters::posix::Pthread::new(false));
            let producer = || Locked(put.try_clone().unwrap(), lock.clone());
            !trial(Victim::Producer, Duration::from_micros(500), producer, || get.try_clone().unwrap())
        });
        assert!(is_noticed, "of 20 none was killed while it held the lock");
    }
}
