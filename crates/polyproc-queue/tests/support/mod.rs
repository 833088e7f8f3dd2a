//! Children that are really forked and really killed, and what it takes to follow them.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use polyproc_memory::handover::{self, Descriptor};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a test waits for something before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test may hang in a call that has no timeout.
const WATCH: Duration = Duration::from_secs(60);

/// How much longer than it should something may take on a busy machine.
const MARGIN: Duration = Duration::from_secs(5);

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

/// Runs a round, which returns how many waits only their backstop ended, and fails if it is never none.
///
/// On a busy machine a wait may last so long that its backstop ends just while the news comes, which counts as well. A
/// wake-up that is lost is lost each time.
#[track_caller]
pub(crate) fn woken_in_time(mut round: impl FnMut() -> u64) {
    assert!((0..4).any(|_| round() == 0), "waiters were woken by their backstop only");
}

/// How long it took, which was at least so long, and not much longer.
#[track_caller]
pub(crate) fn takes<R>(least: Duration, f: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = f();
    let elapsed = start.elapsed();
    assert!(elapsed >= least, "{elapsed:?} is less than {least:?}");
    assert!(elapsed < least + MARGIN, "{elapsed:?} is much more than {least:?}");
    result
}

/// The handle's bytes, and the descriptors that go with them.
pub(crate) fn send(handle: &impl Serialize) -> (Vec<u8>, Vec<Descriptor>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_allocvec(handle));
    (bytes.unwrap(), descriptors)
}

/// Another handle made of them, or why not.
pub(crate) fn receive<B: DeserializeOwned>(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<B, String> {
    handover::receive(descriptors, || match postcard::from_bytes(bytes) {
        Ok(handle) => Ok(handle),
        Err(error) => Err(handover::take_failure().map_or(error.to_string(), |failure| failure.to_string())),
    })
}

/// The handle, as another process gets it.
pub(crate) fn hand_over<B: DeserializeOwned>(handle: &impl Serialize) -> Result<B, String> {
    let (bytes, descriptors) = send(handle);
    let descriptors = descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned().unwrap());
    receive(&bytes, descriptors.collect())
}

/// The bytes of memory that the queue takes, whoever uses them.
pub(crate) fn memory_of(queue: &impl Serialize) -> u64 {
    let (_, descriptors) = send(queue);
    let file = File::from(descriptors[0].as_fd().try_clone_to_owned().unwrap());
    file.metadata().unwrap().blocks() * 512
}

/// Shared, writable memory of one page, zero. Never unmapped.
pub(crate) fn shared_page() -> *mut u8 {
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
pub(crate) struct Slot(&'static AtomicU64);

impl Slot {
    pub(crate) fn new() -> Slot {
        // SAFETY: the page is aligned, zero, shared memory that stays mapped.
        Slot(unsafe { AtomicU64::from_ptr(shared_page().cast()) })
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
    ///
    /// What `f` owns stays in the parent too, and is dropped there: a guard must be borrowed by it.
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

    /// Kills it and waits until it is gone. Returns its id.
    #[track_caller]
    pub(crate) fn kill(self) -> u32 {
        let pid = self.pid();
        kill(pid);
        assert_eq!(self.wait(), libc::SIGKILL, "the status of a killed process");
        pid
    }

    /// Waits until it has ended, which must have been well.
    #[track_caller]
    pub(crate) fn join(self) {
        assert_eq!(self.wait(), 0, "the status of a child that should have ended well");
    }

    /// Waits until it has ended, and returns its status as waitpid(2) does.
    #[track_caller]
    pub(crate) fn wait(mut self) -> i32 {
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

/// Kills a process that is not reaped yet.
pub(crate) fn kill(pid: u32) {
    // SAFETY: sends a signal to a process of this test.
    let result = unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
    assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
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
