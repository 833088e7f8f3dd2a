//! Children that can be killed, waits that end, and hand-over without a second process.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(missing_docs, unreachable_pub)]

use polyproc_memory::handover;
use serde::{Serialize, de::DeserializeOwned};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A forked child. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

impl Child {
    /// Forks a child that runs `f`, and exits with 0 if it returns true.
    pub fn fork(f: impl FnOnce() -> bool) -> Child {
        // SAFETY: the child runs code of this crate and of the test, which takes no lock that another thread of the
        // test harness could have held, and ends with `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork failed");
        if pid == 0 {
            // A child that nobody kills ends all the same.
            // SAFETY: takes no pointers.
            unsafe { libc::alarm(60) };
            let done = catch_unwind(AssertUnwindSafe(f)).unwrap_or(false);
            // SAFETY: ends the child without the test harness's exit handlers.
            unsafe { libc::_exit(if done { 0 } else { 1 }) };
        }
        Child { pid, reaped: false }
    }

    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        // SAFETY: takes no pointers; the child has not been reaped, so the id is its own.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        assert_eq!(self.reap(), libc::SIGKILL, "the child ended before it was killed");
    }

    /// Waits for its end, and asserts that all was well.
    pub fn join(mut self) {
        assert_eq!(self.reap(), 0, "the child failed");
    }

    fn reap(&mut self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: `status` is writable; the child is ours.
        let reaped = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(reaped, self.pid);
        self.reaped = true;
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // SAFETY: as in `kill`.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            self.reap();
        }
    }
}

/// Waits, at most half a minute, until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// Sleeps until somebody kills the process.
pub fn sleep_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Runs `f` on a thread of its own, and panics if it takes longer than half a minute.
pub fn watched<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = f();
        let _ = sender.send(());
        result
    });
    let ended = receiver.recv_timeout(Duration::from_secs(30));
    assert_ne!(ended, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "hangs");
    thread.join().unwrap()
}

/// Serialises a handle and makes another from the bytes, as between two processes.
pub fn hand_over<A: Serialize, B: DeserializeOwned>(handle: &A) -> Result<B, String> {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(handle));
    receive(&bytes.map_err(|error| error.to_string())?, &descriptors)
}

/// Makes a handle from what another was serialised to.
pub fn receive<B: DeserializeOwned>(bytes: &[u8], descriptors: &[handover::Descriptor]) -> Result<B, String> {
    let received = descriptors.iter().map(|d| d.as_fd().try_clone_to_owned().unwrap()).collect();
    handover::receive(received, || postcard::from_bytes(bytes)).map_err(|error| {
        handover::take_failure().map_or_else(|| error.to_string(), |failure| failure.to_string())
    })
}

/// What a closure panics with.
pub fn panic_message<R>(f: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).err().expect("it does not panic");
    match panic.downcast_ref::<String>() {
        Some(message) => message.clone(),
        None => (*panic.downcast_ref::<&str>().expect("a panic with a message")).to_owned(),
    }
}

/// Random enough, and the same in every run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
