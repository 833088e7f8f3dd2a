//! Children that are really forked and really killed, and what it takes to follow them.
//!
//! For the tests of the primitives' crates, each of which uses its part of it.

#![allow(
    missing_docs,
    missing_debug_implementations,
    reason = "what a test needs is said where it is not plain"
)]
#![allow(clippy::missing_panics_doc, reason = "this is how tests fail")]
#![allow(
    clippy::new_without_default,
    reason = "a slot is a page that stays mapped: nothing to be made by the way"
)]

use polyproc_sys::atomic::{AtomicU64, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a test waits for something before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test may hang in a call that has no timeout. Two hundred workers on a busy machine take their time.
const WATCH: Duration = Duration::from_secs(100);

/// Ends the whole test process if a test outlives its watchdog.
#[must_use]
pub struct Watchdog {
    /// Closed by the drop.
    _over: mpsc::Sender<()>,
}

/// A watchdog for the calling test.
pub fn watchdog() -> Watchdog {
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
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Nanoseconds on the monotonic clock, the same for all processes.
pub fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    assert_eq!(result, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs a round, which returns how many waits only their backstop ended, and fails if it is never none.
///
/// On a busy machine a wait may last so long that its backstop ends just while the lock is handed to another, which
/// counts as well. A wake-up that is lost is lost each time.
#[track_caller]
pub fn woken_in_time(mut round: impl FnMut() -> u64) {
    assert!((0..4).any(|_| round() == 0), "waiters were woken by their backstop only");
}

/// The number in the middle.
pub fn median(mut numbers: Vec<u64>) -> Duration {
    numbers.sort_unstable();
    Duration::from_nanos(numbers[numbers.len() / 2])
}

/// Shared, writable memory of one page, zero. Never unmapped.
pub fn shared_page() -> *mut u8 {
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
    page.cast()
}

/// A number that a test shares with its children, zero at first.
#[derive(Clone, Copy)]
pub struct Slot(&'static AtomicU64);

impl Slot {
    pub fn new() -> Slot {
        // SAFETY: the page is aligned, zero, shared memory that stays mapped.
        Slot(unsafe { AtomicU64::from_ptr(shared_page().cast()) })
    }

    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }

    pub fn add(self, value: u64) {
        self.0.fetch_add(value, Ordering::SeqCst);
    }

    pub fn get(self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until it is not zero, and returns it.
    #[track_caller]
    pub fn wait(self) -> u64 {
        wait_until("a process gets to its next step", || self.get() != 0);
        self.get()
    }
}

/// A forked process. Killed and reaped when dropped.
pub struct Child {
    /// Zero once it is reaped.
    pid: libc::pid_t,
}

impl Child {
    /// Forks a child that runs `f` and ends, with 0 if it returned.
    ///
    /// What `f` owns stays in the parent too, and is dropped there: a guard must be borrowed by it.
    #[track_caller]
    pub fn run(f: impl FnOnce()) -> Child {
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

    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Waits until the child, which has said that it is about to wait for something, sleeps.
    #[track_caller]
    pub fn wait_asleep(&self) {
        wait_until("a process falls asleep", || state(self.pid()) == Some('S'));
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        crate::signal(self.pid(), signal);
    }

    /// Kills it and waits until it is gone. Returns its id.
    #[track_caller]
    pub fn kill(self) -> u32 {
        let pid = self.pid();
        kill(pid);
        assert_eq!(self.wait(), libc::SIGKILL, "the status of a killed process");
        pid
    }

    /// Waits until it has ended, which must have been well.
    #[track_caller]
    pub fn join(self) {
        assert_eq!(self.wait(), 0, "the status of a child that should have ended well");
    }

    /// Waits until it has ended, and returns its status as waitpid(2) does.
    #[track_caller]
    pub fn wait(mut self) -> i32 {
        self.reap()
    }

    #[track_caller]
    fn reap(&mut self) -> i32 {
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
            kill(self.pid());
            // SAFETY: waits for a child that was just killed; its status is not wanted.
            unsafe { libc::waitpid(self.pid, core::ptr::null_mut(), 0) };
        }
    }
}

/// Sends a signal to a process that is not reaped yet.
pub fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: sends a signal to a process of this test.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
}

/// Kills a process that is not reaped yet.
pub fn kill(pid: u32) {
    signal(pid, libc::SIGKILL);
}

/// The calling thread's id.
pub fn tid() -> u32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// Waits until the thread, which has said that it is about to wait for something, sleeps.
#[track_caller]
pub fn wait_asleep(tid: u32) {
    wait_until("a thread falls asleep", || state(tid) == Some('S'));
}

/// From here on, this system call fails with `EPERM` in this thread and what it starts, as in a sandbox whose list is older
/// than the call; if an argument is given, only with that as its second one.
pub fn forbid(call: libc::c_long, argument: Option<libc::c_int>) {
    let line = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let equal = |k: u32, jf: u8| line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, jf);
    let answer = |k: u32| line(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // `struct seccomp_data`: the number of the call at 0, the lower half of its second argument at 24.
    let mut filter = vec![load(0), equal(call as u32, if argument.is_some() { 3 } else { 1 })];
    if let Some(argument) = argument {
        filter.extend([load(24), equal(argument as u32, 1)]);
    }
    filter.push(answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable, and so is its filter.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}

/// Waits for the kill that is to come.
pub fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: sleeps until a signal.
        unsafe { libc::pause() };
    }
}

/// What a process or thread does, as its `stat` says: `S` is asleep.
pub fn state(tid: u32) -> Option<char> {
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
