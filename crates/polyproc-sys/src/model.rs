//! The same names under a model checker: threads that can vanish, and a kernel that cleans up after them.
//!
//! A simulated thread is one thread of one process of its own. Before each access to shared memory and each
//! system call it passes a [`step`]; a *mortal* thread vanishes at the step that its test chose, in the
//! middle of whatever it does, without running another line. Then the simulated kernel does what the real one
//! does: it walks the thread's robust list and its pending slot, by the rules of kernels from 5.4 on, which
//! are the strictest: a thread that vanishes with a lock pending has its swallowed wake passed on only if the
//! word is exactly zero.
//!
//! Timers run out at once: a wait with a deadline registers, looks at its word, and times out. There is no
//! backstop.
//!
//! | a simulated thread | its tid | its fuel | its list and its pending slot |
//! |---|---|---|---|
//! | before [`run`] | 0 | `None` | empty |
//! | in `run`, immortal | set | `None` | the locks that it holds, and the one that it is at |
//! | in `run`, mortal | set | the steps left | the same |
//! | vanished, or done | set | `None` | empty: the kernel has released what was there |
//!
//! The modules below have the names of the real ones.

pub mod atomic;
pub mod futex;
pub mod membarrier;
mod number;
pub mod robust;
pub mod thread;

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

pub use number::Number;

use core::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
// Not the checker's: they see more than one run.
use std::sync::{Arc, Mutex};

/// What a vanishing thread unwinds with.
struct Vanished;

/// A simulated thread.
struct Record {
    tid: Cell<u32>,
    /// How many steps are left to live. `None` is immortal.
    fuel: Cell<Option<u32>>,
    pending: Cell<*const futex::Futex>,
    list: RefCell<Vec<*const futex::Futex>>,
}

checker::thread_local! {
    static RECORD: Record = Record {
        tid: Cell::new(0),
        fuel: Cell::new(None),
        pending: Cell::new(core::ptr::null()),
        list: RefCell::new(Vec::new()),
    };
}

/// How a simulated thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ran to its end.
    Finished,
    /// It vanished on the way.
    Vanished,
}

/// Runs `f` as the thread `tid`, that vanishes before its step number `mortal`, and has the kernel clean up
/// after it.
///
/// The locks that `f` uses must outlive this call.
pub fn run(tid: u32, mortal: Option<u32>, f: impl FnOnce()) -> End {
    RECORD.with(|record| {
        record.tid.set(tid);
        record.fuel.set(mortal);
    });
    let end = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => End::Finished,
        Err(payload) if payload.is::<Vanished>() => End::Vanished,
        Err(payload) => resume_unwind(payload),
    };
    RECORD.with(|record| {
        record.fuel.set(None);
        bury(record);
    });
    end
}

/// How a crate's models are explored. loom tries every interleaving up to a number of preemptions; shuttle
/// tries so many that it draws by lot.
#[derive(Clone, Copy, Debug)]
pub struct Explorer {
    /// Schedules in which shuttle draws each switch.
    pub random: usize,
    /// Schedules with few switches at places that it draws, so that others are asleep when the one that
    /// matters comes.
    pub rare: usize,
}

impl Explorer {
    /// Runs `f` in all interleavings with so many preemptions, or in shuttle's.
    #[cfg(polyproc_loom)]
    pub fn explore(self, preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.max_branches = 20_000;
        model.check(f);
    }

    /// Runs `f` in all interleavings with so many preemptions, or in shuttle's.
    #[cfg(polyproc_shuttle)]
    pub fn explore(self, _: usize, f: impl Fn() + Sync + Send + 'static) {
        let f = Arc::new(f);
        let other = f.clone();
        shuttle::check_random(move || other(), self.random);
        if self.rare != 0 {
            shuttle::check_pct(move || f(), self.rare, 3);
        }
    }

    /// Explores `scenario` with a mortal thread that vanishes before step 0, before step 1, and so on, until
    /// it no longer gets that far. Returns at how many steps it could vanish.
    pub fn vanish_at_every_step(
        self,
        preemptions: usize,
        scenario: impl Fn(Option<u32>) -> End + Sync + Send + Copy + 'static,
    ) -> u32 {
        for step in 0.. {
            let vanished = Arc::new(Mutex::new(false));
            let seen = vanished.clone();
            self.explore(preemptions, move || {
                if scenario(Some(step)) == End::Vanished {
                    *seen.lock().unwrap() = true;
                }
            });
            if !*vanished.lock().unwrap() {
                return step;
            }
        }
        unreachable!()
    }
}

/// Lets the other threads go on: for a loop that waits for one of them without sleeping on a word.
pub fn yield_now() {
    checker::thread::yield_now();
}

/// Not the checker's: it is set before a model begins.
static SANDBOX: Mutex<bool> = Mutex::new(false);

/// Whether the models are in a sandbox that forbids FUTEX_WAKE_OP.
pub fn in_sandbox(sandbox: bool) {
    *SANDBOX.lock().unwrap() = sandbox;
}

/// Not the checker's, as above.
static LAST_FIRST: Mutex<bool> = Mutex::new(false);

/// Whether who came last to a futex is woken first, as the kernel does if that thread has the higher
/// priority.
pub fn wake_the_last_first(last_first: bool) {
    *LAST_FIRST.lock().unwrap() = last_first;
}

/// What [`wake_the_last_first`] was told.
pub fn wakes_the_last_first() -> bool {
    *LAST_FIRST.lock().unwrap()
}

/// A point at which the thread may vanish.
pub(crate) fn step() {
    let vanishes = RECORD.with(|record| match record.fuel.get() {
        None => false,
        Some(0) => true,
        Some(left) => {
            record.fuel.set(Some(left - 1));
            false
        }
    });
    if vanishes {
        resume_unwind(Box::new(Vanished));
    }
}

/// What the kernel does with the robust list of a thread that is gone (`exit_robust_list` in kernel/futex).
fn bury(record: &Record) {
    let pending = record.pending.replace(core::ptr::null());
    for word in record.list.take().into_iter().rev() {
        // SAFETY: the caller of `run` keeps the locks of the thread alive.
        unsafe { &*word }.linked.store(false, core::sync::atomic::Ordering::Relaxed);
        if word != pending {
            // SAFETY: the caller of `run` keeps the locks of the thread alive.
            unsafe { &*word }.release_for_the_dead(record.tid.get(), false);
        }
    }
    if !pending.is_null() {
        // SAFETY: as above.
        unsafe { &*pending }.release_for_the_dead(record.tid.get(), true);
    }
}
