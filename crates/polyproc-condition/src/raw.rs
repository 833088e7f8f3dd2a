//! The condition's protocol.
//!
//! # A slot for each waiter
//!
//! A waiter takes a *slot* before it releases its lock, and has it in its thread's robust list until it has the lock
//! back. So the kernel knows at any time what a dying waiter had in its hands.
//!
//! | word of a slot | meaning | a death makes it |
//! |---|---|---|
//! | `FREE` (0) | nobody's; its age is 0 | |
//! | tid, age 0 | taken, its waiter not yet in sight, or giving up | `OWNER_DIED` |
//! | tid | waits; the age is its place in the queue | `OWNER_DIED` |
//! | tid + `WAITERS` | notified, and not yet back in the lock | `OWNER_DIED` + `WAITERS`, and one is woken |
//! | `OWNER_DIED` | died without a notification: free | |
//! | `OWNER_DIED` + `WAITERS` | died with a notification: to be passed on | |
//!
//! | from | to | by | with |
//! |---|---|---|---|
//! | `FREE` | tid | who begins to wait | compare-and-swap |
//! | `OWNER_DIED` | tid + `WAITERS`, age 0, tid | who begins to wait | compare-and-swap, stores |
//! | tid | tid + `WAITERS` | a notifier | compare-and-swap |
//! | tid | `FREE` | its waiter, out of time | compare-and-swap |
//! | tid + `WAITERS` | `FREE` | its waiter, with the lock | swap |
//! | `OWNER_DIED` + `WAITERS` | tid + `WAITERS`, then `FREE` | another waiter, which notifies the oldest in between | compare-and-swap, swap |
//!
//! The `WAITERS` bit *is* the notification, and it is the very bit that has the kernel wake somebody when the slot's
//! waiter dies. `notify` sets it in the oldest slot that waits. `notify_all` sets none: it adds one to the word `all`, in
//! one step, and whoever began to wait at another value has been notified.
//!
//! # What a waiter sleeps on
//!
//! - its own *bell*, always 0, on which it is the only sleeper, and its own word, so that it does not fall asleep notified;
//! - `all`;
//! - the word of every other slot that is taken: there the kernel wakes one if a notified waiter dies;
//! - the *gate*, always 0.
//!
//! While it sleeps, and until it has looked after the dead, the gate is what the waiter has pending
//! ([`Current::begin`]). If it dies with a wake-up in its hands, the kernel therefore wakes another at the gate. Whoever is
//! woken, by whatever, looks for slots of dead waiters with a notification and passes them on.
//!
//! # Why no notification is lost
//!
//! - **The notifier dies.** It has the bell of whom it notifies pending, which is 0: the kernel rings it in its place, and
//!   its waiter looks whether it has been notified. In `notify_all` it has the gate pending; the waiter that the kernel
//!   wakes there sees that `rung` is behind `all` and wakes everybody.
//! - **A notified waiter dies**, awake or not, before it is back in the lock. All who wait sleep on its slot, or will look
//!   at it before they sleep: the kernel wakes one of them, which passes it on. That all do is because notifications go
//!   oldest first. A waiter takes its slot before its age, and looks at the other slots after it is in sight. A notifier
//!   looks twice before it decides, and so whoever waits is either preferred to the chosen one or looks after it was there.
//! - **Who passes it on dies**: if it owned the slot, the same again. Before that, it has woken another at the gate, to look
//!   as well.
//! - **Nobody else waits**: the notification is spent. The slot is freed by the next that begins to wait, before it
//!   is in sight itself.
//! - **A waiter that has the lock back and still its slot**: both are released. The next holder finds the lock poisoned, and
//!   the notification goes to another. After that it is a holder like any other.
//!
//! A slot is free for those who begin to wait as soon as it can be. If all are taken, one more waiter sleeps for a
//! millisecond at most and returns as if notified: it never misses anything, and it polls.
//!
//! # What is left
//!
//! To the backstop ([`polyproc_sys::deadline::BACKSTOP`]), nothing that is known. But if *two* die, a notified waiter and
//! the one that passes its notification on or takes its slot, there may be one wake-up too many, never one too few: if
//! the second dies between notifying the oldest and giving up the slot, or between taking a slot and clearing its age.

use core::fmt;
use polyproc_mutex::Refusal;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, Futex, OWNER, OWNER_DIED, WAIT_ANY_MAX, WAITERS, Wait, Waiter, wait_any};
use polyproc_sys::robust::Node;
use polyproc_sys::thread::{self, Current};
use std::time::Duration;

/// The word of a slot that nobody has.
const FREE: u32 = 0;
/// The word of a slot whose waiter died with a notification.
const LEGACY: u32 = OWNER_DIED | WAITERS;
/// The age of a slot that does not wait.
const AGELESS: u64 = 0;
/// What a bell and the gate always show.
const SILENT: u32 = 0;

/// The bits of `places` that say how many slots are in use. The others count those who ever waited.
const USED: u64 = (1 << USED_BITS) - 1;
const USED_BITS: u32 = 12;

/// The most slots that a condition can have.
pub const MOST_SLOTS: usize = USED as usize;

/// How long one sleeps that got no slot, or has too many others to watch.
const SLICE: Duration = Duration::from_millis(1);

/// What all waiters of a condition share. All zero is a condition that nobody waits for.
#[derive(Default)]
#[repr(C)]
pub struct Queue {
    /// Where the kernel wakes one if a waiter dies that may have been woken for another.
    gate: Futex,
    /// How many `notify_all` there were.
    all: Futex,
    /// How many began to wait so far, above [`USED`]; and up to which one, slots are in use.
    places: AtomicU64,
    /// The last value of `all` for which everybody has been woken.
    rung: AtomicU32,
    patience: Patience,
    /// What the gate is announced by. Never in a list.
    node: Node,
}

/// The place of one waiter. All zero is free.
#[derive(Default)]
#[repr(C)]
pub struct Slot {
    /// Whose it is; see the table above.
    word: Futex,
    /// The waiter's process.
    pid: AtomicU32,
    /// Which in the queue it is, counted from 1; or [`AGELESS`].
    age: AtomicU64,
    /// The value of `all` when it began to wait.
    since: AtomicU32,
    padding: u32,
    node: Node,
    /// Where its waiter sleeps, alone.
    bell: Futex,
    more_padding: [u32; 5],
    /// What the bell is announced by. Never in a list.
    bell_node: Node,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    use core::mem::offset_of;
    use polyproc_sys::robust::NODE_OFFSET;
    assert!(size_of::<Queue>() == 40 && align_of::<Queue>() == 8);
    assert!(offset_of!(Queue, node) - offset_of!(Queue, gate) == NODE_OFFSET);
    assert!(size_of::<Slot>() == 80 && align_of::<Slot>() == 8);
    assert!(offset_of!(Slot, node) - offset_of!(Slot, word) == NODE_OFFSET);
    assert!(offset_of!(Slot, bell_node) - offset_of!(Slot, bell) == NODE_OFFSET);
};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a notification; or for no reason, which happens if all slots were taken.
    Notified,
    /// With its deadline.
    TimedOut,
}

/// How a sleep ended.
enum Awake {
    /// Notified, and still with its slot.
    WithSlot,
    /// Out of time when it gave its slot back.
    Without(Ended),
}

/// A condition variable in shared memory: the protocol alone, for any lock.
///
/// [`Condition`](crate::Condition) is what most programs want. To build something else, put a [`Queue`] and some
/// [`Slot`]s, one for each that waits at the same time, into memory of your own, all zero at first.
///
/// # Example
///
/// ```
/// use polyproc_condition::{Ended, Queue, RawCondition, Slot};
/// use polyproc_mutex::RawMutex;
/// use polyproc_sys::deadline::Deadline;
/// use std::time::Duration;
///
/// let (queue, slots) = (Queue::new(), [Slot::new(), Slot::new()]);
/// let condition = RawCondition::new(&queue, &slots);
/// let mutex = RawMutex::new();
/// let lock = || {
///     // SAFETY: the mutex stays where it is, to the end of this example.
///     unsafe { mutex.lock_until(Deadline::NEVER) }.unwrap();
/// };
/// lock();
/// // SAFETY: the slots stay where they are, this thread holds the lock, and nothing here panics.
/// let waited = unsafe {
///     condition.wait(Deadline::after(Duration::from_millis(1)), || mutex.unlock(), lock)
/// };
/// assert_eq!(waited, Ok(((), Ended::TimedOut))); // Nobody notified.
/// // SAFETY: locked again by `wait`.
/// unsafe { mutex.unlock() };
/// ```
#[derive(Clone, Copy)]
pub struct RawCondition<'a> {
    queue: &'a Queue,
    slots: &'a [Slot],
}

impl Queue {
    /// A queue with nobody in it.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> Queue {
        Queue {
            gate: Futex::new(SILENT),
            all: Futex::new(0),
            places: AtomicU64::new(0),
            rung: AtomicU32::new(0),
            patience: Patience::new(),
            node: Node::new(),
        }
    }
}

impl Slot {
    /// A slot that is free.
    #[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
    pub const fn new() -> Slot {
        Slot {
            word: Futex::new(FREE),
            pid: AtomicU32::new(0),
            age: AtomicU64::new(AGELESS),
            since: AtomicU32::new(0),
            padding: 0,
            node: Node::new(),
            bell: Futex::new(SILENT),
            more_padding: [0; 5],
            bell_node: Node::new(),
        }
    }

    /// Whether somebody has it, or left a notification in it.
    fn is_used(&self) -> bool {
        !matches!(self.word.load(Ordering::Acquire), FREE | OWNER_DIED)
    }

    /// The word and the age, if its waiter is in sight and has no notification.
    fn waits(&self, all: u32) -> Option<(u32, u64)> {
        let word = self.word.load(Ordering::Acquire);
        // Acquire: pairs with the Release in `appear`; what stands before it there is of the same waiter.
        let age = self.age.load(Ordering::Acquire);
        let waits = word & OWNER == word && word != FREE && age != AGELESS;
        (waits && self.since.load(Ordering::Relaxed) == all).then_some((word, age))
    }
}

impl<'a> RawCondition<'a> {
    /// The condition that is made of these.
    ///
    /// # Panics
    ///
    /// If there are more slots than [`MOST_SLOTS`].
    pub fn new(queue: &'a Queue, slots: &'a [Slot]) -> RawCondition<'a> {
        assert!(slots.len() <= MOST_SLOTS, "a condition has at most {MOST_SLOTS} slots");
        RawCondition { queue, slots }
    }

    /// Calls `release`, waits for a notification, and calls `retake`. Returns what that did, and how the wait ended.
    ///
    /// Whoever notifies after `release` has begun to release the lock, with the lock held or not, notifies this waiter
    /// too.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooManyLocks`]: nothing was done, the lock is still held.
    ///
    /// # Safety
    ///
    /// The queue and the slots stay mapped, at this address, until the call has returned or the thread has ended.
    /// `release` and `retake` do not panic, and leave the thread with as many locks as it had.
    pub unsafe fn wait<R>(
        self,
        deadline: Deadline,
        release: impl FnOnce(),
        retake: impl FnOnce() -> R,
    ) -> Result<(R, Ended), Refusal> {
        let current = thread::current();
        // The slot takes the place of the lock, which is free again while this thread sleeps, for a dead waiter's slot.
        if !current.has_room() {
            return Err(Refusal::TooManyLocks);
        }
        let all = self.queue.all.load(Ordering::SeqCst);
        // SAFETY: the caller's.
        let Some(own) = (unsafe { self.appear(current, all) }) else {
            current.end();
            release();
            self.queue.all.wait(all, deadline.min(Deadline::after(SLICE)));
            let notified = self.queue.all.load(Ordering::Acquire) != all || !deadline.has_passed();
            return Ok((retake(), if notified { Ended::Notified } else { Ended::TimedOut }));
        };
        release();
        // SAFETY: `appear` took the slot for this thread.
        let awake = unsafe { self.sleep(current, own, all, deadline) };
        let retaken = retake();
        let ended = match awake {
            Awake::Without(ended) => ended,
            Awake::WithSlot => {
                // SAFETY: as above, and `sleep` says that it still has it.
                unsafe { self.vacate(current, own) };
                Ended::Notified
            }
        };
        Ok((retaken, ended))
    }

    /// Notifies those `count` that have waited longest, or as many as wait. Returns how many it notified. Never blocks.
    ///
    /// Who begins to wait after the call has begun is not among them.
    pub fn notify(self, count: u32) -> u32 {
        // Relaxed: whoever waits has been seen with the lock, or came at the same time.
        let places = self.queue.places.load(Ordering::Relaxed);
        if places & USED == 0 {
            return 0;
        }
        let current = thread::current();
        // Who is notified and waits again meanwhile is not one of those who waited: else this might never end.
        let last = places >> USED_BITS;
        (0..count).take_while(|_| self.notify_oldest(current, last)).count() as u32
    }

    /// Notifies all who wait. Returns how many those were. Never blocks.
    pub fn notify_all(self) -> u32 {
        let waiting = self.waiting();
        if waiting == 0 {
            return 0;
        }
        let current = thread::current();
        let outer = current.begin_inside(&self.queue.gate, &self.queue.node);
        // The commit. SeqCst: before the wake.
        let all = self.queue.all.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.queue.all.wake_all();
        self.queue.rung.store(all, Ordering::Relaxed);
        if let Some(outer) = outer {
            current.end_inside(outer);
        }
        waiting
    }

    /// How many wait that have not been notified. By the time the caller looks at the answer, it may be another.
    pub fn waiting(self) -> u32 {
        self.waiters().count() as u32
    }

    /// The processes of those who wait and have not been notified.
    pub fn waiters(self) -> impl Iterator<Item = u32> + use<'a> {
        let all = self.queue.all.load(Ordering::SeqCst);
        let waiting = self.used().iter().filter(move |slot| slot.waits(all).is_some());
        waiting.map(|slot| slot.pid.load(Ordering::Relaxed))
    }

    /// How many have been notified one by one, and are not yet back in their lock.
    pub fn returning(self) -> u32 {
        let notified = |slot: &&Slot| {
            let word = slot.word.load(Ordering::Relaxed);
            word & WAITERS != 0 && word & OWNER != 0
        };
        self.used().iter().filter(notified).count() as u32
    }

    /// The slots that may be in use.
    fn used(self) -> &'a [Slot] {
        let used = (self.queue.places.load(Ordering::Acquire) & USED) as usize;
        &self.slots[..used.min(self.slots.len())]
    }

    /// Takes a slot and comes into sight. `None` if all are taken.
    ///
    /// # Safety
    ///
    /// As for [`wait`](RawCondition::wait).
    unsafe fn appear(self, current: Current, all: u32) -> Option<&'a Slot> {
        // Out of sight still: what the dead left is for those who waited then, or for nobody.
        self.settle(current);
        // SAFETY: the caller's.
        let (index, slot) = unsafe { self.claim(current) }?;
        slot.pid.store(current.pid(), Ordering::Relaxed);
        slot.since.store(all, Ordering::Relaxed);
        // SeqCst: after the slot was taken, before it is in sight.
        let mut places = self.queue.places.load(Ordering::Relaxed);
        loop {
            let used = (places & USED).max(index as u64 + 1);
            let next = ((places & !USED) + USED + 1) | used;
            match self.queue.places.compare_exchange(places, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => places = other,
            }
        }
        // Release: pairs with the Acquire in `waits`.
        slot.age.store((places >> USED_BITS) + 1, Ordering::Release);
        Some(slot)
    }

    /// Takes a free slot, and enters it in the thread's list. Its age is 0.
    ///
    /// # Safety
    ///
    /// As for [`wait`](RawCondition::wait).
    unsafe fn claim(self, current: Current) -> Option<(usize, &'a Slot)> {
        for (index, slot) in self.slots.iter().enumerate() {
            let word = slot.word.load(Ordering::Relaxed);
            if !matches!(word, FREE | OWNER_DIED) {
                continue;
            }
            current.begin(&slot.word, &slot.node);
            // The age of the dead is still there. A slot that seems to be notified is let alone by notifiers.
            let taken = if word == FREE { current.tid() } else { current.tid() | WAITERS };
            if slot.word.compare_exchange(word, taken, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                // SAFETY: taken just now; the caller keeps it mapped.
                unsafe { current.link(&slot.word, &slot.node) };
                if word != FREE {
                    slot.age.store(AGELESS, Ordering::SeqCst);
                    slot.word.store(current.tid(), Ordering::SeqCst);
                }
                return Some((index, slot));
            }
        }
        None
    }

    /// Sleeps until `own` is notified, or the deadline.
    ///
    /// # Safety
    ///
    /// The slot is this thread's.
    unsafe fn sleep(self, current: Current, own: &Slot, all: u32, deadline: Deadline) -> Awake {
        let is_notified = || {
            own.word.load(Ordering::Acquire) != current.tid() || self.queue.all.load(Ordering::Acquire) != all
        };
        let mut expired = deadline == Deadline::PAST;
        if !expired {
            self.queue.patience.look(|| is_notified().then_some(()));
        }
        let mut rescued = false;
        loop {
            // From here on another is woken if this thread dies with what it may have been woken for.
            current.begin(&self.queue.gate, &self.queue.node);
            self.settle(current);
            if is_notified() {
                if rescued {
                    futex::count_backstop_rescue();
                }
                current.end();
                return Awake::WithSlot;
            }
            if expired {
                // SAFETY: the caller's.
                return unsafe { self.give_up(current, own, all) };
            }
            rescued = false;
            if self.doze(current, own, all, deadline) == Wait::TimedOut {
                expired = deadline.has_passed();
                rescued = !expired;
            }
        }
    }

    /// Sleeps until something happens that a waiter has to look at.
    fn doze(self, current: Current, own: &Slot, all: u32, deadline: Deadline) -> Wait {
        let mut words: [Waiter<'_>; WAIT_ANY_MAX] = [(&own.bell, SILENT); WAIT_ANY_MAX];
        words[1] = (&own.word, current.tid());
        words[2] = (&self.queue.all, all);
        words[3] = (&self.queue.gate, SILENT);
        let mut count = 4;
        let mut deadline = deadline.or_backstop();
        let mut crowded = false;
        // Pairs with the fence in `oldest`: either the notifier sees that this thread waits, or this thread sees every
        // slot that the notifier saw.
        fence(Ordering::SeqCst);
        for slot in self.used().iter().filter(|slot| !core::ptr::eq(*slot, own)) {
            let word = slot.word.load(Ordering::Acquire);
            if word == LEGACY {
                return Wait::Changed;
            }
            if word & OWNER == 0 {
                continue;
            }
            if count == WAIT_ANY_MAX {
                crowded = true;
                deadline = deadline.min(Deadline::after(SLICE));
                break;
            }
            words[count] = (&slot.word, word);
            count += 1;
        }
        match wait_any(&words[..count], deadline) {
            Wait::TimedOut if crowded => Wait::Changed,
            wait => wait,
        }
    }

    /// Out of time: gives the slot back, unless it has been notified.
    ///
    /// # Safety
    ///
    /// The slot is this thread's.
    #[cold]
    unsafe fn give_up(self, current: Current, own: &Slot, all: u32) -> Awake {
        current.begin(&own.word, &own.node);
        // SAFETY: `claim` entered it.
        unsafe { current.unlink(&own.word, &own.node) };
        own.age.store(AGELESS, Ordering::SeqCst);
        let free = own.word.compare_exchange(current.tid(), FREE, Ordering::SeqCst, Ordering::Relaxed);
        if free.is_err() {
            // SAFETY: still this thread's; taken out of the list above.
            unsafe { current.link(&own.word, &own.node) };
            current.end();
            return Awake::WithSlot;
        }
        current.end();
        // Whoever saw it wait has committed before it was free.
        let notified = self.queue.all.load(Ordering::SeqCst) != all;
        Awake::Without(if notified { Ended::Notified } else { Ended::TimedOut })
    }

    /// Frees a slot that this thread owns.
    ///
    /// # Safety
    ///
    /// It is in the thread's list.
    unsafe fn vacate(self, current: Current, slot: &Slot) {
        current.begin(&slot.word, &slot.node);
        // SAFETY: the caller's.
        unsafe { current.unlink(&slot.word, &slot.node) };
        slot.age.store(AGELESS, Ordering::SeqCst);
        slot.word.swap(FREE, Ordering::SeqCst);
        current.end();
    }

    /// Notifies the one that has waited longest, if its age is not beyond `last`.
    fn notify_oldest(self, current: Current, last: u64) -> bool {
        loop {
            let Some((slot, word, age)) = self.oldest().filter(|(_, _, age)| *age <= last) else {
                return false;
            };
            // From here on the kernel rings if this thread dies.
            let outer = current.begin_inside(&slot.bell, &slot.bell_node);
            let notified =
                slot.word.compare_exchange(word, word | WAITERS, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            if notified {
                // The same thread waits again, in the same slot: somebody may not have looked at it since.
                if slot.age.load(Ordering::SeqCst) != age {
                    self.queue.gate.wake_all();
                }
                slot.bell.wake(1);
            }
            if let Some(outer) = outer {
                current.end_inside(outer);
            }
            if notified {
                return true;
            }
        }
    }

    /// The slot that has waited longest, its word and its age.
    fn oldest(self) -> Option<(&'a Slot, u32, u64)> {
        let mut chosen = None;
        loop {
            let (slot, word, age) = self.look_for_oldest()?;
            if chosen == Some(age) {
                return Some((slot, word, age));
            }
            chosen = Some(age);
            // Pairs with the fence in `doze`, see there: the second look is the one that counts.
            fence(Ordering::SeqCst);
        }
    }

    /// One look at all slots. Notes how many are in use, if those are fewer than it seemed.
    fn look_for_oldest(self) -> Option<(&'a Slot, u32, u64)> {
        let places = self.queue.places.load(Ordering::SeqCst);
        let all = self.queue.all.load(Ordering::SeqCst);
        let mut oldest: Option<(&Slot, u32, u64)> = None;
        let mut used = 0;
        let slots = &self.slots[..((places & USED) as usize).min(self.slots.len())];
        for (index, slot) in slots.iter().enumerate() {
            if slot.is_used() {
                used = index as u64 + 1;
            }
            if let Some((word, age)) = slot.waits(all)
                && oldest.is_none_or(|(_, _, oldest)| age < oldest)
            {
                oldest = Some((slot, word, age));
            }
        }
        if used < places & USED {
            // Fails if anybody has come into sight since.
            let fewer = (places & !USED) | used;
            let _ = self.queue.places.compare_exchange(places, fewer, Ordering::SeqCst, Ordering::Relaxed);
        }
        oldest
    }

    /// Does what dead waiters and dead notifiers left undone.
    fn settle(self, current: Current) {
        for slot in self.used() {
            if slot.word.load(Ordering::Acquire) == LEGACY {
                self.pass_on(current, slot);
            }
        }
        // Acquire: pairs with the commit of `notify_all`.
        let all = self.queue.all.load(Ordering::Acquire);
        if self.queue.rung.load(Ordering::Relaxed) != all {
            self.queue.all.wake_all();
            self.queue.rung.store(all, Ordering::Relaxed);
        }
    }

    /// Passes on the notification that a dead waiter left in its slot. Leaves the gate pending.
    #[cold]
    fn pass_on(self, current: Current, slot: &Slot) {
        // For the instruction between the next two, in which a death would go unseen: somebody else knows as well.
        self.queue.gate.wake(1);
        current.begin(&slot.word, &slot.node);
        let own = current.tid() | WAITERS;
        if slot.word.compare_exchange(LEGACY, own, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            // SAFETY: taken just now; the caller of `wait` keeps it mapped.
            unsafe { current.link(&slot.word, &slot.node) };
            // Everybody who waited when it was notified has been notified since, if `all` is another.
            if slot.since.load(Ordering::Relaxed) == self.queue.all.load(Ordering::SeqCst) {
                self.notify_oldest(current, u64::MAX);
            }
            // SAFETY: entered above.
            unsafe { self.vacate(current, slot) };
        }
        current.begin(&self.queue.gate, &self.queue.node);
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("all", &self.all.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Slot")
            .field("waiter", &Some(word & OWNER).filter(|tid| *tid != 0))
            .field("notified", &(word & WAITERS != 0))
            .field("died", &(word & OWNER_DIED != 0))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RawCondition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCondition")
            .field("waiters", &self.waiters().collect::<Vec<_>>())
            .field("returning", &self.returning())
            .field("slots", &self.slots.len())
            .finish()
    }
}
