//! The same names under a model checker: threads that can vanish, and a kernel that cleans up after them.
//!
//! A simulated thread is one thread of one process of its own. Before each access to shared memory and each system call
//! it passes a [`step`]; a *mortal* thread vanishes at the step that its test chose, in the middle of whatever it does,
//! without running another line. Then the simulated kernel does what the real one does: it walks the thread's robust
//! list and its pending slot, by the rules of kernels from 5.4 on, which are the strictest: a thread that vanishes with
//! a lock pending has its swallowed wake passed on only if the word is exactly zero.
//!
//! Timers run out at once: a wait with a deadline registers, looks at its word, and times out. There is no backstop.

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

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

/// Runs `f` as the thread `tid`, that vanishes before its step number `mortal`, and has the kernel clean up after it.
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

/// How a crate's models are explored. loom tries every interleaving up to a number of preemptions; shuttle tries so many
/// that it draws by lot.
#[derive(Clone, Copy, Debug)]
pub struct Explorer {
    /// Schedules in which shuttle draws each switch.
    pub random: usize,
    /// Schedules with few switches at places that it draws, so that others are asleep when the one that matters comes.
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

    /// Explores `scenario` with a mortal thread that vanishes before step 0, before step 1, and so on, until it no longer
    /// gets that far. Returns at how many steps it could vanish.
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

/// Whether who came last to a futex is woken first, as the kernel does if that thread has the higher priority.
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

/// The checker's atomics, with a step before each access.
pub mod atomic {
    use super::{checker, step};
    pub use core::sync::atomic::Ordering;

    /// The checker's fence.
    pub fn fence(ordering: Ordering) {
        checker::sync::atomic::fence(ordering);
    }

    /// The checkers do not model the compiler.
    pub fn compiler_fence(_: Ordering) {}

    macro_rules! atomic {
        ($name:ident, $number:ty) => {
            /// An atomic of the checker.
            #[derive(Debug)]
            pub struct $name(pub(super) checker::sync::atomic::$name);

            impl Default for $name {
                fn default() -> $name {
                    $name::new(0)
                }
            }

            #[allow(missing_docs, clippy::missing_errors_doc)]
            impl $name {
                pub fn new(value: $number) -> $name {
                    $name(checker::sync::atomic::$name::new(value))
                }
                pub fn load(&self, ordering: Ordering) -> $number {
                    step();
                    self.0.load(ordering)
                }
                pub fn store(&self, value: $number, ordering: Ordering) {
                    step();
                    self.0.store(value, ordering);
                }
                pub fn swap(&self, value: $number, ordering: Ordering) -> $number {
                    step();
                    self.0.swap(value, ordering)
                }
                pub fn fetch_add(&self, value: $number, ordering: Ordering) -> $number {
                    step();
                    self.0.fetch_add(value, ordering)
                }
                pub fn fetch_sub(&self, value: $number, ordering: Ordering) -> $number {
                    step();
                    self.0.fetch_sub(value, ordering)
                }
                pub fn fetch_or(&self, value: $number, ordering: Ordering) -> $number {
                    step();
                    self.0.fetch_or(value, ordering)
                }
                pub fn fetch_and(&self, value: $number, ordering: Ordering) -> $number {
                    step();
                    self.0.fetch_and(value, ordering)
                }
                pub fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    step();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}

/// Futexes with the kernel's rules: compare and sleep are one step, wakes go first come first served.
pub mod futex {
    use super::{atomic::AtomicU32, checker, step};
    use crate::deadline::Deadline;
    use checker::sync::{Condvar, Mutex};
    use core::sync::atomic::Ordering;
    use std::collections::VecDeque;
    use std::sync::Arc;

    /// See the real one.
    pub const WAITERS: u32 = 0x8000_0000;
    /// See the real one.
    pub const OWNER_DIED: u32 = 0x4000_0000;
    /// See the real one.
    pub const OWNER: u32 = 0x3fff_ffff;
    /// See the real one.
    pub const WAIT_ANY_MAX: usize = 128;

    /// How a wait ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[allow(missing_docs)]
    pub enum Wait {
        Woken,
        Changed,
        TimedOut,
        Interrupted,
    }

    /// A word, and the kernel's queue of who sleeps on it.
    #[derive(Debug)]
    pub struct Futex {
        word: AtomicU32,
        queue: Mutex<VecDeque<Arc<Sleeper>>>,
        /// Not the checker's: whether its links are in use.
        pub(super) linked: std::sync::atomic::AtomicBool,
    }

    /// A thread asleep, on one word or several.
    #[derive(Debug)]
    struct Sleeper {
        woken: Mutex<bool>,
        bell: Condvar,
    }

    /// See the real one.
    pub type Waiter<'a> = (&'a Futex, u32);

    /// See the real one.
    pub fn wait_any(words: &[Waiter<'_>], deadline: Deadline) -> Wait {
        wait_any_and_last(words, deadline).0
    }

    /// See the real one.
    pub fn wait_any_and_last(words: &[Waiter<'_>], deadline: Deadline) -> (Wait, bool) {
        step();
        let last = words[words.len() - 1].0;
        // In one order for all, so that two do not wait for each other.
        let mut words = words.to_vec();
        words.sort_by_key(|(word, _)| core::ptr::from_ref(*word));
        let mut queues: Vec<_> = words.iter().map(|(word, _)| word.queue.lock().unwrap()).collect();
        if words.iter().any(|(word, expected)| word.latest() != *expected) {
            return (Wait::Changed, false);
        }
        if deadline != Deadline::NEVER {
            return (Wait::TimedOut, false);
        }
        let sleeper = Arc::new(Sleeper { woken: Mutex::new(false), bell: Condvar::new() });
        for queue in &mut queues {
            queue.push_back(sleeper.clone());
        }
        drop(queues);
        let mut woken = sleeper.woken.lock().unwrap();
        while !*woken {
            woken = sleeper.bell.wait(woken).unwrap();
        }
        drop(woken);
        let mut last_woken = true;
        if words.len() > 1 {
            for (word, _) in words {
                let mut queue = word.queue.lock().unwrap();
                let before = queue.len();
                queue.retain(|other| !Arc::ptr_eq(other, &sleeper));
                last_woken &= !(core::ptr::eq(word, last) && queue.len() < before);
            }
        }
        // Here a thread dies that a wake was spent on.
        step();
        (Wait::Woken, last_woken)
    }

    impl Default for Futex {
        fn default() -> Futex {
            Futex::new(0)
        }
    }

    #[allow(missing_docs, clippy::missing_errors_doc)]
    impl Futex {
        pub fn new(value: u32) -> Futex {
            Futex { word: AtomicU32::new(value), queue: Mutex::new(VecDeque::new()), linked: false.into() }
        }
        pub fn load(&self, ordering: Ordering) -> u32 {
            self.word.load(ordering)
        }
        pub fn store(&self, value: u32, ordering: Ordering) {
            self.word.store(value, ordering);
        }
        pub fn swap(&self, value: u32, ordering: Ordering) -> u32 {
            self.word.swap(value, ordering)
        }
        pub fn fetch_add(&self, value: u32, ordering: Ordering) -> u32 {
            self.word.fetch_add(value, ordering)
        }
        pub fn fetch_sub(&self, value: u32, ordering: Ordering) -> u32 {
            self.word.fetch_sub(value, ordering)
        }
        pub fn fetch_or(&self, bits: u32, ordering: Ordering) -> u32 {
            self.word.fetch_or(bits, ordering)
        }
        pub fn fetch_and(&self, bits: u32, ordering: Ordering) -> u32 {
            self.word.fetch_and(bits, ordering)
        }
        pub fn compare_exchange(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            self.word.compare_exchange(current, new, success, failure)
        }

        pub fn wait(&self, expected: u32, deadline: Deadline) -> Wait {
            wait_any(&[(self, expected)], deadline)
        }

        pub fn wake(&self, count: u32) -> u32 {
            step();
            self.kernel_wake(count)
        }

        pub fn wake_all(&self) -> u32 {
            self.wake(u32::MAX)
        }

        pub fn set_bit_and_wake_all(&self, bit: u32) -> bool {
            step();
            if *super::SANDBOX.lock().unwrap() {
                return false;
            }
            super::atomic::fence(Ordering::SeqCst);
            let mut queue = self.queue.lock().unwrap();
            self.word.0.fetch_or(bit, Ordering::SeqCst);
            wake(&mut queue, u32::MAX);
            true
        }

        /// What the kernel reads, between its barriers: never an old value, as a load of the checker's may be.
        fn latest(&self) -> u32 {
            super::atomic::fence(Ordering::SeqCst);
            self.word.0.fetch_add(0, Ordering::SeqCst)
        }

        fn kernel_wake(&self, count: u32) -> u32 {
            super::atomic::fence(Ordering::SeqCst);
            wake(&mut self.queue.lock().unwrap(), count)
        }

        /// `handle_futex_death` in kernel/futex.
        pub(super) fn release_for_the_dead(&self, tid: u32, pending: bool) {
            let mut value = self.latest();
            loop {
                if pending && value == 0 {
                    self.kernel_wake(1);
                    return;
                }
                if value & OWNER != tid {
                    return;
                }
                let released = (value & WAITERS) | OWNER_DIED;
                match self.word.0.compare_exchange(value, released, Ordering::SeqCst, Ordering::SeqCst) {
                    Err(other) => value = other,
                    Ok(_) => break,
                }
            }
            if value & WAITERS != 0 {
                self.kernel_wake(1);
            }
        }
    }

    /// Wakes the first in the queue, or the last.
    fn wake(queue: &mut VecDeque<Arc<Sleeper>>, count: u32) -> u32 {
        let woken = queue.len().min(count as usize);
        let first = if *super::LAST_FIRST.lock().unwrap() { queue.len() - woken } else { 0 };
        for sleeper in queue.drain(first..first + woken) {
            *sleeper.woken.lock().unwrap() = true;
            sleeper.bell.notify_all();
        }
        woken as u32
    }

    /// There is no backstop in a model.
    pub fn count_backstop_rescue() {
        unreachable!("no wait in a model has a backstop");
    }
}

/// The robust list, without addresses.
pub mod robust {
    use super::{RECORD, futex::Futex, step, thread::Current};

    /// See the real one.
    pub const NODE_OFFSET: usize = 24;

    /// See the real one.
    #[must_use]
    #[derive(Debug)]
    pub struct Outer(*const Futex);

    /// A lock's links: in a model, nothing.
    #[derive(Debug, Default)]
    pub struct Node;

    #[allow(missing_docs, clippy::missing_safety_doc)]
    impl Node {
        pub fn new() -> Node {
            Node
        }
    }

    #[allow(missing_docs, clippy::missing_safety_doc)]
    impl Current {
        pub fn begin(self, word: &Futex, _: &Node) {
            RECORD.with(|record| record.pending.set(word));
        }
        pub fn end(self) {
            step();
            RECORD.with(|record| record.pending.set(core::ptr::null()));
        }
        pub fn begin_inside(self, word: &Futex, node: &Node) -> Option<Outer> {
            let outer = RECORD.with(|record| record.pending.get());
            if !outer.is_null() && !RECORD.with(|record| record.list.borrow().contains(&outer)) {
                return None;
            }
            self.begin(word, node);
            Some(Outer(outer))
        }
        pub fn end_inside(self, outer: Outer) {
            step();
            RECORD.with(|record| record.pending.set(outer.0));
        }
        pub fn has_room(self) -> bool {
            true
        }
        pub fn holds_none(self) -> bool {
            RECORD.with(|record| record.list.borrow().is_empty())
        }
        pub fn holds_only(self, word: &Futex, node: &Node) -> bool {
            let announced = RECORD.with(|record| core::ptr::eq(record.pending.get(), word));
            announced && self.holds(word, node) && RECORD.with(|record| record.list.borrow().len() == 1)
        }
        pub unsafe fn link_only(self, word: &Futex, node: &Node) {
            // SAFETY: the caller's.
            unsafe { self.link(word, node) };
        }
        pub unsafe fn unlink_only(self, word: &Futex, node: &Node) {
            // SAFETY: the caller's.
            unsafe { self.unlink(word, node) };
        }
        pub unsafe fn link(self, word: &Futex, _: &Node) {
            step();
            // One set of links: in one thread's list at a time.
            assert!(
                !word.linked.swap(true, core::sync::atomic::Ordering::Relaxed),
                "it is in a list already"
            );
            RECORD.with(|record| record.list.borrow_mut().push(word));
        }
        pub unsafe fn unlink(self, word: &Futex, _: &Node) {
            step();
            word.linked.store(false, core::sync::atomic::Ordering::Relaxed);
            RECORD.with(|record| record.list.borrow_mut().retain(|other| !core::ptr::eq(*other, word)));
        }
        pub fn holds(self, word: &Futex, _: &Node) -> bool {
            RECORD.with(|record| record.list.borrow().iter().any(|other| core::ptr::eq(*other, word)))
        }
    }
}

/// The kernel's barriers. A compiler's barrier on one side and the kernel's on all CPUs on the other order what a fence on
/// each side orders.
pub mod membarrier {
    use super::atomic::fence;
    use core::sync::atomic::Ordering;

    /// See the real one.
    pub fn is_registered() -> bool {
        true
    }

    /// See the real one.
    pub fn light() {
        fence(Ordering::SeqCst);
    }

    /// See the real one.
    pub fn heavy() -> bool {
        fence(Ordering::SeqCst);
        true
    }
}

/// The simulated thread's identity.
pub mod thread {
    use super::RECORD;

    /// The calling thread.
    #[derive(Clone, Copy, Debug)]
    pub struct Current(u32);

    /// The calling thread.
    pub fn current() -> Current {
        Current(RECORD.with(|record| record.tid.get()))
    }

    /// The calling thread.
    #[allow(clippy::missing_safety_doc)]
    pub unsafe fn registered() -> Current {
        current()
    }

    /// The calling thread's process: it is alone there.
    pub fn pid() -> u32 {
        current().0
    }

    /// The calling thread's token.
    pub fn token() -> u64 {
        current().token()
    }

    /// Nobody forks in a model.
    pub fn forks() -> u32 {
        0
    }

    #[allow(missing_docs)]
    impl Current {
        pub fn tid(self) -> u32 {
            self.0
        }
        pub fn pid(self) -> u32 {
            self.0
        }
        pub fn token(self) -> u64 {
            u64::from(self.0)
        }
    }
}
