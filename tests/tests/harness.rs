//! The harness can fail: locks and checks that are wrong on purpose, each in the way that one kind of fault is for.

use polyproc_mutex::Mutex;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::deadline::{BACKSTOP, Deadline};
use polyproc_sys::futex::{self, Futex, OWNER, WAITERS, Wait};
use polyproc_sys::robust::Node;
use polyproc_sys::thread;
use polyproc_tests::kill::{Fault, Operation, Report, When};
use polyproc_tests::shared::Shared;
use polyproc_tests::system::one_at_a_time;
use std::time::Duration;

fn has(report: &Report, is_it: impl Fn(&Fault) -> bool) -> bool {
    println!("{report}");
    report.faults().any(is_it)
}

/// A futex lock that nobody releases for the dead: 0 free, 1 held.
#[derive(Default)]
struct Plain {
    word: Futex,
}

impl Plain {
    fn lock(&self) {
        while self.word.swap(1, Ordering::Acquire) != 0 {
            self.word.wait(1, Deadline::NEVER);
        }
    }

    fn unlock(&self) {
        self.word.store(0, Ordering::Release);
        self.word.wake(1);
    }
}

#[test]
fn a_lock_that_dies_with_its_holder_is_a_hang() {
    let _turn = one_at_a_time();
    let report = Operation::new("lock and unlock, not robust", Shared::<Plain>::new)
        .victim(|lock, stage| {
            stage.begin();
            lock.lock();
            lock.unlock();
            stage.end();
        })
        .check(&["free"], |lock, _| {
            lock.lock();
            lock.unlock();
            "free"
        })
        .patience(Duration::from_millis(500))
        .run();
    assert!(has(&report, |fault| matches!(fault, Fault::Hang { .. })));
}

/// A robust lock as glibc's: the kernel releases it for the dead, and passes a swallowed wake on, but nobody keeps count
/// of who sleeps.
#[derive(Default)]
#[repr(C)]
struct Uncounted {
    word: Futex,
    padding: [u32; 5],
    node: Node,
}

impl Uncounted {
    fn lock(&self) {
        let current = thread::current();
        current.begin(&self.word, &self.node);
        let (mut others, mut rescued) = (0, false);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & OWNER == 0 {
                if rescued {
                    futex::count_backstop_rescue();
                }
                let taken = current.tid() | others;
                if self.word.compare_exchange(word, taken, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    break;
                }
                continue;
            }
            self.word.fetch_or(WAITERS, Ordering::Relaxed);
            rescued = self.word.wait(word | WAITERS, Deadline::after(BACKSTOP)) == Wait::TimedOut;
            others = WAITERS;
        }
        // SAFETY: this thread has just taken it, and nobody unmaps it before the end of the play.
        unsafe { current.link(&self.word, &self.node) };
        current.end();
    }

    fn unlock(&self) {
        let current = thread::current();
        current.begin(&self.word, &self.node);
        // SAFETY: linked by `lock`, on this thread.
        unsafe { current.unlink(&self.word, &self.node) };
        if self.word.swap(0, Ordering::Release) & WAITERS != 0 {
            self.word.wake(1);
        }
        current.end();
    }
}

/// The woken victim dies while a barger holds the lock without a mark. The same play with the real lock is in `kill`.
#[test]
fn a_lock_that_loses_wake_ups_is_rescued() {
    let _turn = one_at_a_time();
    let report = Operation::new("lock, snatched away when woken, without a census", Shared::<Uncounted>::new)
        .victim(|lock, stage| {
            lock.lock();
            lock.unlock();
            stage.begin();
            lock.lock();
            stage.end();
        })
        .peer(|lock, cues| {
            lock.lock();
            cues.wait(2);
            lock.unlock();
        })
        .peer(|lock, cues| {
            cues.wait(1);
            lock.lock();
            lock.unlock();
        })
        .peer(|lock, cues| {
            cues.wait(3);
            lock.lock();
            cues.wait(4);
            lock.unlock();
        })
        .cue(When::Asleep)
        .cue(When::Next)
        .cue(When::Next)
        .cue(When::Asleep)
        .run();
    assert!(has(&report, |fault| matches!(fault, Fault::Rescued { waits: 1, .. })));
}

#[test]
fn a_state_out_of_its_order_is_found() {
    let _turn = one_at_a_time();
    let there_and_back = |phases: &[&'static str]| {
        Operation::new("there and back", Shared::<AtomicU32>::new)
            .victim(|state, stage| {
                stage.begin();
                state.store(1, Ordering::SeqCst);
                state.store(0, Ordering::SeqCst);
                stage.end();
            })
            .check(phases, |state, _| if state.load(Ordering::SeqCst) == 0 { "here" } else { "there" })
            .thoroughly()
            .run()
    };
    assert!(has(&there_and_back(&["here", "there"]), |fault| matches!(fault, Fault::Order { .. })));
    let never =
        Operation::new("nothing", || ()).check(&["here", "beyond"], |(), _| "here").thoroughly().run();
    assert!(has(&never, |fault| *fault == Fault::Missing { phase: "beyond" }));
    let unknown = there_and_back(&["here"]);
    assert!(has(
        &unknown,
        |fault| matches!(fault, Fault::Complaint { text, .. } if text.contains("`there`"))
    ));
}

/// Two counters that ought to be the same, changed one after the other.
#[test]
fn a_state_that_is_half_changed_is_found() {
    let _turn = one_at_a_time();
    let report = Operation::new("two stores", Shared::<[AtomicU64; 2]>::new)
        .victim(|pair, stage| {
            stage.begin();
            pair[0].store(1, Ordering::SeqCst);
            pair[1].store(1, Ordering::SeqCst);
            stage.end();
        })
        .check(&["old", "new"], |pair, _| {
            let (first, second) = (pair[0].load(Ordering::SeqCst), pair[1].load(Ordering::SeqCst));
            assert_eq!(first, second, "half changed");
            if first == 0 { "old" } else { "new" }
        })
        .thoroughly()
        .run();
    let complaint =
        |fault: &Fault| matches!(fault, Fault::Complaint { text, .. } if text.contains("half changed"));
    assert!(has(&report, complaint));
    // Between the two stores, and nowhere else. Unoptimised, there is a lot between them.
    assert!(cfg!(debug_assertions) || (1..=3).contains(&report.faults().count()), "{report}");
}

#[test]
fn a_cost_that_stays_is_found() {
    let _turn = one_at_a_time();
    let report = Operation::new("a system call for ever", || ())
        .check(&["any"], |(), outcome| {
            outcome.heals(std::thread::yield_now);
            "any"
        })
        .run();
    assert!(has(&report, |fault| matches!(fault, Fault::Unhealed { calls: 8, .. })));
}

#[test]
fn a_leak_is_found() {
    let _turn = one_at_a_time();
    let report = Operation::new("a forgotten region", || std::mem::forget(Mutex::new(0u32).unwrap())).run();
    assert!(has(&report, |fault| matches!(fault, Fault::Leak { .. })));
}

#[test]
fn a_peer_that_complains_is_heard() {
    let _turn = one_at_a_time();
    let report = Operation::new("a peer that panics", || ())
        .peer(|(), cues| {
            cues.wait(1);
            panic!("out of milk");
        })
        .run();
    assert!(has(
        &report,
        |fault| matches!(fault, Fault::Complaint { text, .. } if text.contains("out of milk"))
    ));
}
