//! A lock's holder is killed: how long until the process that waits for the lock has it?

use polyproc::{Mutex, PoisonCause};
use polyproc_benches::{Events, is_test, pin_to, spreads};
use polyproc_memory::{Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, backstop_rescues};
use std::alloc::Layout;
use std::time::{Duration, Instant};

/// What the three processes tell each other.
#[repr(C)]
struct Signals {
    /// The round whose lock is held.
    held: Futex,
    /// The round in which the waiter goes to wait.
    waiting: Futex,
    /// The round in which the waiter got the lock.
    got: Futex,
    padding: u32,
    /// When, in nanoseconds since the epoch.
    at: AtomicU64,
}

impl Signals {
    fn tell(word: &Futex, round: u32) {
        word.store(round, Ordering::SeqCst);
        word.wake_all();
    }

    fn hear(word: &Futex, round: u32) {
        loop {
            let now = word.load(Ordering::SeqCst);
            if now == round {
                return;
            }
            word.wait(now, Deadline::NEVER);
        }
    }
}

fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the program has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        child();
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn reap(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    status
}

fn main() {
    let rounds: u32 = if is_test() { 3 } else { 1000 };
    let times = Events::of(|| kills(rounds));
    spreads("a killed holder's lock reaches the waiter", "nothing", &[("polyproc Mutex", times)]);
}

/// From each kill to the lock in the hands of who waits for it.
fn kills(rounds: u32) -> Vec<f64> {
    let layout = Layout::new::<Signals>();
    let shape =
        Shape { kind: Kind::new("bench"), code: 0, element: layout, count: 1, payload: layout, lock: false };
    let object = Object::create(None, &shape).expect("memory");
    // SAFETY: the payload is a zeroed `Signals`, accessed through atomics only; `object` lives as long as `main`.
    let signals: &Signals = unsafe { object.payload().cast().as_ref() };
    let mutex = Mutex::new(0u32).expect("a mutex");
    let epoch = Instant::now();

    pin_to(1);
    let waiter = fork(|| {
        for round in 1..=rounds {
            Signals::hear(&signals.held, round);
            Signals::tell(&signals.waiting, round);
            let error = mutex.lock().expect_err("poisoned by the dead");
            signals.at.store(epoch.elapsed().as_nanos() as u64, Ordering::SeqCst);
            assert!(matches!(error.cause(), PoisonCause::OwnerDied { .. }));
            mutex.clear_poison();
            drop(error);
            Signals::tell(&signals.got, round);
        }
        assert_eq!(backstop_rescues(), 0);
    });
    pin_to(0);
    let mut times = Vec::new();
    for round in 1..=rounds {
        let holder = fork(|| {
            let _guard = mutex.lock().expect("not poisoned");
            Signals::tell(&signals.held, round);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Signals::hear(&signals.waiting, round);
        // Time to fall asleep on the lock: that is the slow case.
        std::thread::sleep(Duration::from_micros(300));
        let killed = epoch.elapsed().as_nanos() as u64;
        // SAFETY: the child that was forked above, not reaped yet.
        unsafe { libc::kill(holder, libc::SIGKILL) };
        reap(holder);
        Signals::hear(&signals.got, round);
        times.push((signals.at.load(Ordering::SeqCst) - killed) as f64);
    }
    assert_eq!(reap(waiter), 0, "the waiter failed");
    times
}
