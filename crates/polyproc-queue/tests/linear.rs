//! That the queue is a queue, whoever looks: histories of several processes, recorded with the times of call and return,
//! and a search for an order of their operations, in keeping with those times, that a queue in one piece could have had
//! (after Wing and Gong). Calls of the killed have no return: they have taken effect at some time, or never.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_queue::{GetError, PutError, Queue, Raw};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Put(u64),
    /// `try_put` that said that it was full.
    Full,
    /// What was got. `None` for a call that did not return: then it is not known.
    Got(Option<u64>),
    Empty,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    what: What,
    begin: u64,
    /// `u64::MAX` if it did not return.
    end: u64,
}

/// Whether there is an order.
fn is_linearizable(calls: &[Call], bound: usize) -> bool {
    let mut seen = HashSet::new();
    search(calls, bound, vec![false; calls.len()], VecDeque::new(), &mut seen)
}

fn search(
    calls: &[Call],
    bound: usize,
    done: Vec<bool>,
    queue: VecDeque<u64>,
    seen: &mut HashSet<(Vec<bool>, VecDeque<u64>)>,
) -> bool {
    let open = || calls.iter().zip(&done).filter(|(_, done)| !**done).map(|(call, _)| call);
    if open().all(|call| call.end == u64::MAX) {
        return true; // Those that are left never took effect.
    }
    if !seen.insert((done.clone(), queue.clone())) {
        return false;
    }
    // What begins after another has ended comes after it.
    let first_end = open().map(|call| call.end).min().unwrap_or(u64::MAX);
    for (index, call) in calls.iter().enumerate().filter(|(index, _)| !done[*index]) {
        if call.begin > first_end {
            continue;
        }
        let mut next = queue.clone();
        let fits = match call.what {
            What::Put(number) => {
                next.push_back(number);
                next.len() <= bound
            }
            What::Full => next.len() == bound,
            What::Got(Some(number)) => next.pop_front() == Some(number),
            What::Got(None) => next.pop_front().is_some(),
            What::Empty => next.is_empty(),
        };
        let mut then = done.clone();
        then[index] = true;
        if fits && search(calls, bound, then, next, seen) {
            return true;
        }
    }
    false
}

fn call(what: What, begin: u64, end: u64) -> Call {
    Call { what, begin, end }
}

#[test]
fn the_search_tells_right_from_wrong() {
    use What::{Empty, Full, Got, Put};
    let end = u64::MAX;
    assert!(is_linearizable(&[call(Put(1), 0, 1), call(Put(2), 2, 3), call(Got(Some(1)), 4, 5)], 2));
    // Out of order; twice; from nowhere; empty though it was not; full though it was not; beyond its bound.
    for wrong in [
        vec![call(Put(1), 0, 1), call(Put(2), 2, 3), call(Got(Some(2)), 4, 5)],
        vec![call(Put(1), 0, 1), call(Got(Some(1)), 2, 3), call(Got(Some(1)), 4, 5)],
        vec![call(Got(Some(1)), 0, 1), call(Put(1), 2, 3)],
        vec![call(Put(1), 0, 1), call(Empty, 2, 3), call(Got(Some(1)), 4, 5)],
        vec![call(Put(1), 0, 1), call(Full, 2, 3)],
        vec![call(Put(1), 0, 1), call(Put(2), 2, 3), call(Put(3), 4, 5)],
    ] {
        assert!(!is_linearizable(&wrong, 2), "{wrong:?}");
    }
    // At the same time, either may come first.
    assert!(is_linearizable(&[call(Put(1), 0, 9), call(Put(2), 1, 8), call(Got(Some(2)), 10, 11)], 2));
    // The dead one's put may have taken effect, and late, or not at all; so may its get.
    assert!(is_linearizable(&[call(Put(1), 0, end), call(Empty, 1, 2), call(Got(Some(1)), 3, 4)], 2));
    assert!(is_linearizable(&[call(Put(1), 0, end), call(Empty, 1, 2)], 2));
    assert!(is_linearizable(&[call(Put(1), 0, 1), call(Got(None), 2, end), call(Empty, 3, 4)], 2));
    assert!(!is_linearizable(&[call(Put(1), 5, end), call(Got(Some(1)), 3, 4)], 2));
}

/// What processes that are forked write down, each for itself, so that what the killed have noted is there.
#[allow(unsafe_code)]
mod notes {
    use super::{Call, What};
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(super) const MOST: usize = 8;
    const WORDS: usize = 4;

    /// Of one process: for each call what it is, what came of it, when it began and when it ended.
    pub(super) struct Notes(&'static [AtomicU64]);

    impl Notes {
        pub(super) fn new() -> Notes {
            let length = MOST * WORDS * 8;
            // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
            let at = unsafe {
                libc::mmap(
                    core::ptr::null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            assert_ne!(at, libc::MAP_FAILED);
            // SAFETY: mapped, zero, aligned to a page, and never unmapped.
            Notes(unsafe { core::slice::from_raw_parts(at.cast(), MOST * WORDS) })
        }

        /// Notes a call: what it is if it never returns, and what it was.
        pub(super) fn record(&self, nth: usize, unknown: What, act: impl FnOnce() -> What) {
            let words = &self.0[nth * WORDS..][..WORDS];
            let (code, number) = encode(unknown);
            words[0].store(code, Ordering::SeqCst);
            words[1].store(number, Ordering::SeqCst);
            words[2].store(now(), Ordering::SeqCst);
            let (code, number) = encode(act());
            let end = now();
            // In this order, a kill in between leaves what is right: the first kind, of a call that did not return.
            words[1].store(number, Ordering::SeqCst);
            words[0].store(code, Ordering::SeqCst);
            words[3].store(end, Ordering::SeqCst);
        }

        pub(super) fn calls(&self) -> Vec<Call> {
            let calls = self.0.chunks_exact(WORDS).map(|words| words.loaded());
            calls
                .filter(|[_, _, begin, _]| *begin != 0)
                .map(|[code, number, begin, end]| {
                    let end = if end == 0 { u64::MAX } else { end };
                    // One killed between what it knew and when: it is known what came of it.
                    Call { what: decode(code, number), begin, end }
                })
                .collect()
        }

        pub(super) fn clear(&self) {
            self.0.iter().for_each(|word| word.store(0, Ordering::SeqCst));
        }
    }

    trait Loaded {
        fn loaded(&self) -> [u64; WORDS];
    }

    impl Loaded for [AtomicU64] {
        fn loaded(&self) -> [u64; WORDS] {
            core::array::from_fn(|index| self[index].load(Ordering::SeqCst))
        }
    }

    fn encode(what: What) -> (u64, u64) {
        match what {
            What::Put(number) => (1, number),
            What::Full => (2, 0),
            What::Got(Some(number)) => (3, number),
            What::Got(None) => (4, 0),
            What::Empty => (5, 0),
        }
    }

    fn decode(code: u64, number: u64) -> What {
        match code {
            1 => What::Put(number),
            2 => What::Full,
            3 => What::Got(Some(number)),
            4 => What::Got(None),
            _ => What::Empty,
        }
    }

    pub(super) fn now() -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writable.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    /// Forks a child that runs this.
    pub(super) fn fork(body: impl FnOnce()) -> i32 {
        // SAFETY: the child runs the closure on its one thread, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: plain numbers.
            unsafe { libc::alarm(20) };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(result.is_err())) };
        }
        child
    }

    pub(super) fn kill(child: i32) {
        // SAFETY: plain numbers; the child has not been waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }

    /// Whether it ended well, or was killed with `SIGKILL`.
    pub(super) fn wait(child: i32) -> bool {
        let mut status = 0;
        // SAFETY: the status is writable.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        status == 0 || libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL
    }
}

/// So long at least took a call that gave up because another was at work: what it says of the queue is not exact.
const BUSY: Duration = Duration::from_millis(1);

#[test]
fn histories_are_those_of_a_queue() {
    const BOUND: usize = 2;
    let (mut calls, mut unreturned) = (0, 0);
    let notes: Vec<_> = (0..6).map(|_| notes::Notes::new()).collect();
    for round in 0..300u64 {
        let queue = Queue::<u64, Raw>::bounded(BOUND).unwrap();
        let start = notes::now() + 300_000;
        notes.iter().for_each(notes::Notes::clear);
        let children: Vec<i32> = notes
            .iter()
            .enumerate()
            .map(|(place, notes)| {
                notes::fork(|| {
                    while notes::now() < start {}
                    for nth in 0..5 {
                        let number = place as u64 * 100 + nth;
                        // Two of three put and get at once or not at all; the others wait a little.
                        let timeout = if place % 3 == 0 { Duration::from_millis(3) } else { Duration::ZERO };
                        if place < 3 {
                            notes.record(nth as usize, What::Put(number), || {
                                match queue.put_timeout(number, timeout) {
                                    Ok(()) => What::Put(number),
                                    Err(PutError::Full(_)) => What::Full,
                                    Err(error) => panic!("{error}"),
                                }
                            });
                        } else {
                            notes.record(nth as usize, What::Got(None), || {
                                match queue.get_timeout(timeout) {
                                    Ok(number) => What::Got(Some(number)),
                                    Err(GetError::Empty) => What::Empty,
                                    Err(error) => panic!("{error}"),
                                }
                            });
                        }
                    }
                })
            })
            .collect();
        if round % 2 == 0 {
            let victim = (round / 2 % 6) as usize;
            while notes::now() < start + round * 7_919 % 400_000 {}
            notes::kill(children[victim]);
        }
        for child in children {
            assert!(notes::wait(child), "a child failed in round {round}");
        }
        let history: Vec<Call> = notes.iter().flat_map(notes::Notes::calls).collect();
        calls += history.len();
        unreturned += history.iter().filter(|call| call.end == u64::MAX).count();
        let mut exact = history;
        // Timed out: it was so at the end at the latest, unless somebody was at work for all of a millisecond.
        exact.retain(|call| {
            let gave_up = matches!(call.what, What::Full | What::Empty);
            !gave_up || call.end - call.begin < BUSY.as_nanos() as u64
        });
        assert!(is_linearizable(&exact, BOUND), "round {round}: {exact:#?}");
    }
    println!("{calls} calls, {unreturned} without a return");
    assert!(calls > 3_000 && unreturned > 0, "{calls} calls, {unreturned} without a return");
}
