//! Children that are really forked and really killed, and what it takes to follow them.

#![allow(unused_imports, dead_code, reason = "each test binary uses its part of this")]

use polyproc_event::Event;
use polyproc_sys::futex::backstop_rescues;

pub(crate) use polyproc_testing::*;

/// Processes that wait for an event.
pub(crate) struct Waiters {
    children: Vec<Child>,
    rescues: Slot,
}

impl Waiters {
    /// Forks so many, and returns when all of them are asleep in the wait.
    #[track_caller]
    pub(crate) fn asleep(event: &Event, count: usize) -> Waiters {
        let rescues = Slot::new();
        let children = (0..count)
            .map(|_| {
                let asking = Slot::new();
                let child = Child::run(|| {
                    let before = backstop_rescues();
                    asking.set(1);
                    event.wait();
                    rescues.add(backstop_rescues() - before);
                });
                asking.wait();
                child.wait_asleep();
                child
            })
            .collect();
        Waiters { children, rescues }
    }

    /// Kills one of them.
    #[track_caller]
    pub(crate) fn kill_one(&mut self) {
        self.children.remove(0).kill();
    }

    /// Waits until all have gone on. Returns how many waits only their backstop ended.
    #[track_caller]
    pub(crate) fn join(self) -> u64 {
        self.children.into_iter().for_each(Child::join);
        self.rescues.get()
    }
}
