//! Futexes with the kernel's rules: compare and sleep are one step, wakes go first come first served.

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

/// A word, and the kernel's queue of those that sleep on it.
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
    let first = if super::wakes_the_last_first() { queue.len() - woken } else { 0 };
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
