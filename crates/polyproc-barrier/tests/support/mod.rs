//! Children that are really forked and really killed, and what it takes to follow them.

#![allow(unused_imports, dead_code, reason = "each test binary uses its part of this")]

use polyproc_barrier::{Barrier, BrokenCause};
use polyproc_sys::futex::backstop_rescues;

pub(crate) use polyproc_testing::*;

/// What a child of [`Waiters`] found, as a number.
const PASSED: u64 = 1;

/// Processes that wait at a barrier.
pub(crate) struct Waiters {
    children: Vec<(Child, [Slot; 2])>,
    rescues: Slot,
}

impl Waiters {
    /// Forks so many, and returns when all of them are asleep in the wait.
    #[track_caller]
    pub(crate) fn asleep(barrier: &Barrier, count: usize) -> Waiters {
        let rescues = Slot::new();
        let children = (0..count)
            .map(|_| {
                let [asking, found, at] = [Slot::new(), Slot::new(), Slot::new()];
                let child = Child::run(|| {
                    let before = backstop_rescues();
                    asking.set(1);
                    let result = barrier.wait();
                    at.set(now());
                    found.set(match result {
                        Ok(_) => PASSED,
                        Err(error) => code(error.cause().expect("nothing but a broken barrier")),
                    });
                    rescues.add(backstop_rescues() - before);
                });
                asking.wait();
                child.wait_asleep();
                (child, [found, at])
            })
            .collect();
        Waiters { children, rescues }
    }

    /// Kills one of them, and returns its id and when.
    #[track_caller]
    pub(crate) fn kill_one(&mut self) -> (u32, u64) {
        let (child, _) = self.children.remove(0);
        let killed = (child.pid(), now());
        child.kill();
        killed
    }

    /// Sends each of them a signal.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        self.children.iter().for_each(|(child, _)| child.signal(signal));
    }

    /// Waits until all have gone on, each of which must have passed.
    #[track_caller]
    pub(crate) fn all_pass(self) {
        self.all(PASSED);
    }

    /// Waits until all have gone on, each of which must have been told this. Returns when the last of them was.
    #[track_caller]
    pub(crate) fn all_fail(self, cause: BrokenCause) -> u64 {
        self.all(code(cause))
    }

    #[track_caller]
    fn all(self, expected: u64) -> u64 {
        let mut last = 0;
        for (child, [found, at]) in self.children {
            child.join();
            assert_eq!(found.get(), expected);
            last = last.max(at.get());
        }
        assert_eq!(self.rescues.get(), 0, "waits that only their backstop ended");
        last
    }
}

/// A cause as a number.
fn code(cause: BrokenCause) -> u64 {
    let kind = match cause {
        BrokenCause::PartyDied { .. } => 2,
        BrokenCause::TimedOut { .. } => 3,
        BrokenCause::Aborted { .. } => 4,
        BrokenCause::Reset { .. } => 5,
        BrokenCause::ActionPanicked { .. } => 6,
    };
    kind << 32 | u64::from(cause.pid())
}

/// Has this process, and those that it forks, run a handler that does nothing when SIGUSR1 comes, which interrupts.
pub(crate) fn handle_interrupts() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zero is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler is async-signal-safe, as it does nothing.
    let result = unsafe { libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut()) };
    assert_eq!(result, 0);
}
