//! Futexes: sleep on a 32-bit word in shared memory, and wake whoever sleeps there, in whatever process.
//!
//! All of them are *shared* futexes. The private ones that `std` and most libraries use are found by the
//! address in one process, and never wake another.
//!
//! See futex(2).

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::deadline::Deadline;
use core::mem::MaybeUninit;
use std::time::Duration;

/// In a lock word: somebody may be asleep on it.
pub const WAITERS: u32 = libc::FUTEX_WAITERS;
/// In a lock word: the kernel released it for a thread that died.
pub const OWNER_DIED: u32 = libc::FUTEX_OWNER_DIED;
/// In a lock word: the bits of the owner's thread id.
pub const OWNER: u32 = libc::FUTEX_TID_MASK;

/// A 32-bit atomic word on which threads of any process can sleep.
///
/// Whether a wait slept or not, its caller looks at the word again: that is the only thing that counts.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Futex(AtomicU32);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A wake ended it.
    Woken,
    /// It did not begin: the word did not have the expected value.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

impl Futex {
    /// A word with this value.
    pub const fn new(value: u32) -> Futex {
        Futex(AtomicU32::new(value))
    }

    /// The word's value.
    #[inline(always)]
    pub fn load(&self, ordering: Ordering) -> u32 {
        self.0.load(ordering)
    }

    /// Sets the word. Wakes nobody.
    #[inline(always)]
    pub fn store(&self, value: u32, ordering: Ordering) {
        self.0.store(value, ordering);
    }

    /// Sets the word and returns what it was.
    #[inline(always)]
    pub fn swap(&self, value: u32, ordering: Ordering) -> u32 {
        self.0.swap(value, ordering)
    }

    /// Sets the word to `new` if it is `current`.
    ///
    /// # Errors
    ///
    /// The word's value, if it is another.
    #[inline(always)]
    pub fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(current, new, success, failure)
    }

    /// Adds to the word, wrapping, and returns what it was.
    #[inline(always)]
    pub fn fetch_add(&self, value: u32, ordering: Ordering) -> u32 {
        self.0.fetch_add(value, ordering)
    }

    /// Subtracts from the word, wrapping, and returns what it was.
    #[inline(always)]
    pub fn fetch_sub(&self, value: u32, ordering: Ordering) -> u32 {
        self.0.fetch_sub(value, ordering)
    }

    /// Sets bits of the word and returns what it was.
    #[inline(always)]
    pub fn fetch_or(&self, bits: u32, ordering: Ordering) -> u32 {
        self.0.fetch_or(bits, ordering)
    }

    /// Keeps only these bits of the word and returns what it was.
    #[inline(always)]
    pub fn fetch_and(&self, bits: u32, ordering: Ordering) -> u32 {
        self.0.fetch_and(bits, ordering)
    }

    /// Sleeps until a [`wake`](Futex::wake), a signal or the deadline, unless the word differs from
    /// `expected`.
    pub fn wait(&self, expected: u32, deadline: Deadline) -> Wait {
        if deadline == Deadline::PAST {
            return if self.load(Ordering::Relaxed) == expected { Wait::TimedOut } else { Wait::Changed };
        }
        let timeout = deadline.timespec();
        let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
        // FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock; plain FUTEX_WAIT a relative one.
        // SAFETY: the word is valid for the duration of the call, the timeout is null or a live timespec, and
        // the second address is not used by this operation.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT_BITSET,
                expected,
                timeout,
                core::ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        };
        if result == 0 { Wait::Woken } else { failed_wait() }
    }

    /// Wakes up to `count` sleepers and returns how many. One system call, however many.
    pub fn wake(&self, count: u32) -> u32 {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        // SAFETY: the kernel does not touch the word for a wake; it only takes its address.
        let woken = unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE, count) };
        debug_assert!(woken >= 0, "futex wake: {}", std::io::Error::last_os_error());
        woken.max(0) as u32
    }

    /// Wakes everybody who sleeps on the word and returns how many.
    pub fn wake_all(&self) -> u32 {
        self.wake(u32::MAX)
    }

    /// Sets a bit of the word and wakes everybody who sleeps on it. One system call does both, so no death
    /// comes between: either nothing happened, or all of it. Whoever sees the bit acquires what the caller
    /// did before.
    ///
    /// Async-signal-safe. `false`, and nothing was done, where a sandbox forbids the operation
    /// (FUTEX_WAKE_OP).
    #[must_use = "where it is forbidden, there has to be another way"]
    pub fn set_bit_and_wake_all(&self, bit: u32) -> bool {
        debug_assert!(bit.is_power_of_two());
        let set = libc::FUTEX_OP_OR | libc::FUTEX_OP_OPARG_SHIFT;
        // The comparison decides about sleepers of a second word, which is the same word here: there are none
        // left.
        let operation = libc::FUTEX_OP(set, bit.trailing_zeros() as i32, libc::FUTEX_OP_CMP_EQ, 0);
        // SAFETY: errno is the thread's own.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the pointer is valid as long as the thread.
        let before = unsafe { *errno };
        // The kernel changes the word with an atomic instruction that is a barrier, as FUTEX_WAKE_OP has to
        // be one. SAFETY: both words are this one, which is valid and writable for the duration of the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE_OP,
                i32::MAX,
                0usize,
                self.0.as_ptr(),
                operation,
            )
        };
        if result < 0 {
            // SAFETY: as above.
            unsafe { *errno = before };
        }
        result >= 0
    }
}

/// What errno says after a wait that was not woken.
fn failed_wait() -> Wait {
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Wait::Changed,
        Some(libc::ETIMEDOUT) => Wait::TimedOut,
        Some(libc::EINTR) => Wait::Interrupted,
        // A word that is not mapped, not aligned, or no futex at all: a bug of the caller's, who would spin
        // for ever.
        error => panic!("futex wait failed with errno {error:?}"),
    }
}

/// One of several words to sleep on: the word, and the value that it has to have.
pub type Waiter<'a> = (&'a Futex, u32);

/// The most words that [`wait_any`] sleeps on; others it looks at every [`WAIT_ANY_SLICE`].
pub const WAIT_ANY_MAX: usize = 128;

/// How often [`wait_any`] looks at the words that it does not sleep on.
pub const WAIT_ANY_SLICE: Duration = Duration::from_millis(1);

/// Whether futex_waitv(2) is known to be missing, or forbidden: 0 or 1.
static WAITV_MISSING: AtomicU32 = AtomicU32::new(0);

/// Makes [`wait_any`] do without futex_waitv(2), as on kernels before 5.16: for tests of the fallback.
#[doc(hidden)]
pub fn without_waitv(without: bool) {
    WAITV_MISSING.store(without.into(), Ordering::Relaxed);
}

/// Sleeps until one of the words is woken, a signal or the deadline, unless one differs from its expected
/// value.
///
/// One system call, for up to [`WAIT_ANY_MAX`] words. Of more words, a wake of the first 128 ends the sleep
/// at once, and the others are looked at every millisecond; so put those first that matter most. Kernels
/// before 5.16, and sandboxes that forbid futex_waitv(2), sleep on one word only: there, that holds for all
/// words but the first.
///
/// # Panics
///
/// If there is no word.
pub fn wait_any(words: &[Waiter<'_>], deadline: Deadline) -> Wait {
    wait_any_and_last(words, deadline).0
}

/// [`wait_any`], and whether it was a wake of the last word that ended it, alone or among others.
///
/// # Panics
///
/// If there is no word.
pub fn wait_any_and_last(words: &[Waiter<'_>], deadline: Deadline) -> (Wait, bool) {
    assert!(!words.is_empty(), "wait_any takes a word at least");
    let changed = || words.iter().any(|(word, expected)| word.load(Ordering::SeqCst) != *expected);
    if changed() {
        return (Wait::Changed, false);
    }
    if deadline == Deadline::PAST {
        return (Wait::TimedOut, false);
    }
    if words.len() <= WAIT_ANY_MAX
        && let Some((wait, index)) = waitv(words, deadline)
    {
        return (wait, wait == Wait::Woken && index == words.len() - 1);
    }
    loop {
        let slice = deadline.min(Deadline::after(WAIT_ANY_SLICE));
        let (first, expected) = words[0];
        let wait = match waitv(&words[..words.len().min(WAIT_ANY_MAX)], slice) {
            Some((wait, _)) => wait,
            None => first.wait(expected, slice),
        };
        if changed() {
            return (Wait::Changed, false);
        }
        if wait != Wait::TimedOut || deadline.has_passed() {
            return (wait, wait == Wait::Woken && words.len() == 1);
        }
    }
}

/// futex_waitv(2), and the index of the last word that was woken; `None` where the kernel does not have it,
/// or a sandbox forbids it.
fn waitv(words: &[Waiter<'_>], deadline: Deadline) -> Option<(Wait, usize)> {
    /// `struct futex_waitv`.
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Entry {
        value: u64,
        address: u64,
        flags: u32,
        reserved: u32,
    }
    /// The flag of a 32-bit word. Shared is the absence of the private flag.
    const SIZE_U32: u32 = 2;

    if WAITV_MISSING.load(Ordering::Relaxed) != 0 {
        return None;
    }
    // Not initialised beyond what is used: mostly that is a few of them.
    let mut entries = [const { MaybeUninit::<Entry>::uninit() }; WAIT_ANY_MAX];
    for (entry, (word, expected)) in entries.iter_mut().zip(words) {
        let address = word.0.as_ptr().expose_provenance() as u64;
        entry.write(Entry { value: u64::from(*expected), address, flags: SIZE_U32, reserved: 0 });
    }
    let timeout = deadline.timespec();
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the entries are initialised up to the given count, their words are valid for the duration of
    // the call, and the timeout is null or a live timespec.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            entries.as_ptr(),
            words.len() as u32,
            0u32,
            timeout,
            libc::CLOCK_MONOTONIC,
        )
    };
    if result >= 0 {
        return Some((Wait::Woken, result as usize));
    }
    // EPERM: a sandbox whose list of allowed calls is older than this one.
    if matches!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
        WAITV_MISSING.store(1, Ordering::Relaxed);
        return None;
    }
    Some((failed_wait(), 0))
}

/// See [`backstop_rescues`].
static RESCUES: AtomicU64 = AtomicU64::new(0);

/// Counts a wait whose [backstop](crate::deadline::BACKSTOP) ended and that then found it could go on.
#[cold]
pub fn count_backstop_rescue() {
    RESCUES.fetch_add(1, Ordering::Relaxed);
}

/// How many waits of this process went on only because their [backstop](crate::deadline::BACKSTOP) ended.
///
/// The protocols promise that none does. A test that kills processes and sees a number other than zero has
/// found a lost wake-up, or a lock that happened to be released in the instant in which the backstop ended.
pub fn backstop_rescues() -> u64 {
    RESCUES.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const TICK: Duration = Duration::from_millis(30);

    #[test]
    fn a_wake_counts_who_slept() {
        let word = Futex::new(0);
        assert_eq!(word.wake(1), 0);
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = (0..3).map(|_| scope.spawn(|| word.wait(0, Deadline::NEVER))).collect();
            let mut woken = 0;
            while woken < 3 {
                woken += word.wake(1);
            }
            for sleeper in sleepers {
                assert_eq!(sleeper.join().unwrap(), Wait::Woken);
            }
        });
        assert_eq!(word.wake_all(), 0);
    }

    #[test]
    fn a_bit_is_set_and_everybody_woken() {
        for bit in [0, 7, 12, 30, 31] {
            let word = Futex::new(1 << 5);
            assert!(word.set_bit_and_wake_all(1 << bit));
            assert_eq!(word.load(Ordering::Relaxed), 1 << 5 | 1 << bit);
            word.store(3 << 8, Ordering::Relaxed);
            std::thread::scope(|scope| {
                let sleepers: Vec<_> =
                    (0..3).map(|_| scope.spawn(|| word.wait(3 << 8, Deadline::NEVER))).collect();
                std::thread::sleep(TICK);
                assert!(sleepers.iter().all(|sleeper| !sleeper.is_finished()));
                assert!(word.set_bit_and_wake_all(1 << bit));
                for sleeper in sleepers {
                    assert!(matches!(sleeper.join().unwrap(), Wait::Woken | Wait::Changed));
                }
            });
            assert_eq!(word.load(Ordering::Relaxed), 3 << 8 | 1 << bit);
        }
    }

    #[test]
    fn a_deadline_ends_a_wait_and_not_sooner() {
        let word = Futex::new(1);
        let start = Instant::now();
        assert_eq!(word.wait(1, Deadline::after(TICK)), Wait::TimedOut);
        assert!(start.elapsed() >= TICK);
        assert_eq!(word.wait(1, Deadline::PAST), Wait::TimedOut);
        assert_eq!(word.wait(0, Deadline::PAST), Wait::Changed);
        assert_eq!(word.wait(0, Deadline::NEVER), Wait::Changed);
    }

    /// `wait_any` with and without the kernel's help. One test, because the switch is the process's.
    #[test]
    fn any_word_ends_a_wait_for_several() {
        for without in [false, true] {
            without_waitv(without);
            let words = [Futex::new(0), Futex::new(0), Futex::new(0)];
            let waiters = [(&words[0], 0), (&words[1], 0), (&words[2], 0)];
            let start = Instant::now();
            assert_eq!(wait_any(&waiters, Deadline::after(TICK)), Wait::TimedOut);
            assert!(start.elapsed() >= TICK);
            assert_eq!(wait_any(&waiters, Deadline::PAST), Wait::TimedOut);
            for word in &words {
                std::thread::scope(|scope| {
                    let sleeper = scope.spawn(|| wait_any(&waiters, Deadline::NEVER));
                    std::thread::sleep(TICK);
                    assert!(!sleeper.is_finished());
                    word.store(1, Ordering::SeqCst);
                    word.wake_all();
                    assert!(matches!(sleeper.join().unwrap(), Wait::Woken | Wait::Changed));
                });
                assert_eq!(wait_any(&waiters, Deadline::NEVER), Wait::Changed);
                word.store(0, Ordering::SeqCst);
            }
        }
        without_waitv(false);
    }

    /// More than the kernel takes at once: the last one is noticed too, if later.
    #[test]
    fn any_of_very_many_words_ends_a_wait() {
        let words: Vec<_> = (0..WAIT_ANY_MAX + 2).map(|_| Futex::new(0)).collect();
        let waiters: Vec<_> = words.iter().map(|word| (word, 0)).collect();
        let start = Instant::now();
        assert_eq!(wait_any(&waiters, Deadline::after(TICK)), Wait::TimedOut);
        assert!(start.elapsed() >= TICK);
        for word in [&words[0], words.last().unwrap()] {
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| wait_any(&waiters, Deadline::NEVER));
                std::thread::sleep(TICK);
                assert!(!sleeper.is_finished());
                word.store(1, Ordering::SeqCst);
                word.wake_all();
                assert_eq!(sleeper.join().unwrap(), Wait::Changed);
            });
            word.store(0, Ordering::SeqCst);
        }
    }
}
