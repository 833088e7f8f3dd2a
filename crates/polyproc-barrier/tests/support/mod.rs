//! Children that are really forked and really killed, and what it takes to follow them.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use polyproc_barrier::{Barrier, BrokenCause};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::futex::backstop_rescues;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a test waits for something before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test may hang in a call that has no timeout.
const WATCH: Duration = Duration::from_secs(60);

/// Ends the whole test process if a test outlives its watchdog.
pub(crate) struct Watchdog {
    /// Closed by the drop.
    _over: mpsc::Sender<()>,
}

/// A watchdog for the calling test.
pub(crate) fn watchdog() -> Watchdog {
    let (sender, receiver) = mpsc::channel::<()>();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if receiver.recv_timeout(WATCH) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs");
            std::process::abort();
        }
    });
    Watchdog { _over: sender }
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A number that a test shares with its children, zero at first. Its page is never unmapped.
#[derive(Clone, Copy)]
pub(crate) struct Slot(&'static AtomicU64);

impl Slot {
    pub(crate) fn new() -> Slot {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: the page is aligned, zero, shared memory that stays mapped.
        Slot(unsafe { AtomicU64::from_ptr(page.cast()) })
    }

    pub(crate) fn set(self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }

    pub(crate) fn add(self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    pub(crate) fn get(self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until it is not zero, and returns it.
    #[track_caller]
    pub(crate) fn wait(self) -> u64 {
        wait_until("a process gets to its next step", || self.get() != 0);
        self.get()
    }
}

/// A forked process. Killed and reaped when dropped.
pub(crate) struct Child {
    /// Zero once it is reaped.
    pid: libc::pid_t,
}

impl Child {
    /// Forks a child that runs `f` and ends, with 0 if it returned.
    #[track_caller]
    pub(crate) fn run(f: impl FnOnce()) -> Child {
        // SAFETY: the child has one thread, runs `f`, and ends. Of the locks that other threads of this process may
        // hold now, glibc takes care of its own, and a child that behaves does not use those of stdio and of panics.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: has no effect but that this process is killed when the thread that forked it ends.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let code = match catch_unwind(AssertUnwindSafe(f)) {
                Ok(()) => 0,
                Err(payload) => {
                    complain(&*payload);
                    101
                }
            };
            // SAFETY: ends the child without the exit handlers of the test harness.
            unsafe { libc::_exit(code) };
        }
        Child { pid }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Waits until the child, which has said that it is about to wait for something, sleeps.
    #[track_caller]
    pub(crate) fn wait_asleep(&self) {
        wait_until("a process falls asleep", || state(self.pid()) == Some('S'));
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: sends a signal to a process of this test that is not reaped yet.
        let result = unsafe { libc::kill(self.pid, signal) };
        assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
    }

    /// Kills it and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.wait(), libc::SIGKILL, "the status of a killed process");
    }

    /// Waits until it has ended, which must have been well.
    #[track_caller]
    pub(crate) fn join(self) {
        assert_eq!(self.wait(), 0, "the status of a child that should have ended well");
    }

    /// Waits until it has ended, and returns its status as waitpid(2) does.
    #[track_caller]
    pub(crate) fn wait(mut self) -> i32 {
        let mut status = 0;
        let pid = self.pid;
        wait_until("a process ends", || {
            // SAFETY: `status` is writable.
            let result = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
            assert!(result >= 0, "waitpid: {}", std::io::Error::last_os_error());
            result == pid
        });
        self.pid = 0;
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.pid != 0 {
            self.signal(libc::SIGKILL);
            // SAFETY: waits for a child that was just killed; its status is not wanted.
            unsafe { libc::waitpid(self.pid, core::ptr::null_mut(), 0) };
        }
    }
}

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

/// Nanoseconds on a clock that all processes share.
pub(crate) fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    assert_eq!(result, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
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

/// Waits for the kill that is to come.
pub(crate) fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: sleeps until a signal.
        unsafe { libc::pause() };
    }
}

/// What a process or thread does, as its `stat` says: `S` is asleep.
fn state(tid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Tells why a child panicked, past the locks of stdio.
fn complain(payload: &(dyn core::any::Any + Send)) {
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(message), _) => message,
        (_, Some(message)) => message.as_str(),
        _ => "a panic",
    };
    let line = format!("child {}: {message}\n", std::process::id());
    // SAFETY: the line is readable for its length.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
