//! Children by `fork`: they run a closure, leave a complaint if it panics, and end before their test does.

use crate::shared::{Note, Shared};
use crate::system;
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::futex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ending {
    /// The end that a wait status speaks of, if it speaks of one.
    pub(crate) fn of(status: i32) -> Option<Ending> {
        if libc::WIFEXITED(status) {
            Some(Ending::Exited(libc::WEXITSTATUS(status)))
        } else if libc::WIFSIGNALED(status) {
            Some(Ending::Killed(libc::WTERMSIG(status)))
        } else {
            None
        }
    }
}

/// What a child tells before it ends.
#[derive(Debug, Default)]
struct Words {
    complaint: Note,
    /// Waits that only their backstop ended.
    rescues: AtomicU64,
}

/// A forked child. Dropped, it is killed and waited for; when the thread that forked it ends, it is killed as well.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    words: Shared<Words>,
    ending: Option<Ending>,
}

/// The code with which a child exits whose closure panicked.
pub const PANICKED: i32 = 101;

impl Child {
    /// Forks a child that runs this closure, on a copy of everything that the closure refers to.
    ///
    /// The child has one thread. What it prints may be lost.
    ///
    /// # Panics
    ///
    /// If there can be no more processes.
    pub fn fork(body: impl FnOnce()) -> Child {
        let words = Shared::<Words>::new();
        // SAFETY: getpid has no arguments and cannot fail.
        let parent = unsafe { libc::getpid() };
        // SAFETY: the child runs on its one thread: allocations, which glibc makes work there, and the closure, which
        // takes no locks of this process's other threads.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: the call takes plain numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: getppid has no arguments and cannot fail.
            let orphan = unsafe { libc::getppid() } != parent;
            let code = if orphan { PANICKED } else { run(&words, body) };
            // SAFETY: ends the child without running what the parent registered for its own end.
            unsafe { libc::_exit(code) };
        }
        Child { pid, words, ending: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// How it ended, if it has been waited for.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    pub(crate) fn ended(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// The message of its panic.
    pub fn complaint(&self) -> Option<String> {
        self.words.complaint.read()
    }

    /// How many of its waits only their backstop ended. Known when it has ended by itself.
    pub fn rescues(&self) -> u64 {
        self.words.rescues.load(Ordering::Relaxed)
    }

    /// Sends it a signal, unless it has been waited for.
    pub fn signal(&self, signal: i32) {
        if self.ending.is_none() {
            // SAFETY: the call takes plain numbers. The process has not been waited for, so the number is still its own.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    /// Kills it with `SIGKILL` and waits for its end.
    pub fn kill(&mut self) -> Ending {
        self.signal(libc::SIGKILL);
        loop {
            if let Some(ending) = self.look(0) {
                return ending;
            }
        }
    }

    /// Waits for its end. `None` if it has not come in this time.
    pub fn wait(&mut self, timeout: Duration) -> Option<Ending> {
        let start = Instant::now();
        let mut looks = 0;
        loop {
            if let Some(ending) = self.look(libc::WNOHANG) {
                return Some(ending);
            }
            if start.elapsed() > timeout {
                return None;
            }
            pause(&mut looks);
        }
    }

    /// Looks for its end, or waits for it with flags 0; a stop of a traced child is not one.
    fn look(&mut self, flags: i32) -> Option<Ending> {
        if self.ending.is_none() {
            let mut status = 0;
            // SAFETY: the status is writable.
            let result = unsafe { libc::waitpid(self.pid, &mut status, flags) };
            if result == self.pid {
                self.ending = Ending::of(status);
            } else if result < 0 {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::Interrupted, "waitpid: {error}");
            }
        }
        self.ending
    }

    /// Waits until it sleeps, or has ended. `false` if it goes on running all this time.
    pub fn settle(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        let mut looks = 0;
        while !matches!(system::state(self.pid()), Some('S' | 'Z') | None) {
            if start.elapsed() > timeout {
                return false;
            }
            pause(&mut looks);
        }
        true
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Between two looks: yields at first, and then sleeps, longer each time.
pub(crate) fn pause(looks: &mut u32) {
    *looks += 1;
    if *looks < 4 {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_micros(20 << (*looks - 4).min(4)));
    }
}

/// Kills the calling process with `SIGKILL`.
pub fn die() -> ! {
    // SAFETY: getpid has no arguments and cannot fail.
    let pid = unsafe { libc::getpid() };
    loop {
        // SAFETY: the call takes plain numbers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// In the child.
fn run(words: &Shared<Words>, body: impl FnOnce()) -> i32 {
    let before = futex::backstop_rescues();
    // The note has the message; the hook of the parent could wait for a lock that only a thread of the parent holds.
    let complaint: &'static Note = {
        // SAFETY: the child never unmaps it: it ends without dropping anything of its parent's.
        unsafe { &*core::ptr::from_ref(&words.complaint) }
    };
    std::panic::set_hook(Box::new(move |info| complaint.write(&info.to_string())));
    let result = catch_unwind(AssertUnwindSafe(body));
    words.rescues.store(futex::backstop_rescues() - before, Ordering::Relaxed);
    if result.is_ok() { 0 } else { PANICKED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_apart() {
        let mut quiet = Child::fork(|| {});
        let mut loud = Child::fork(|| panic!("out of {}", "milk"));
        let mut long = Child::fork(|| std::thread::sleep(Duration::from_secs(100)));
        assert_eq!(quiet.wait(Duration::from_secs(10)), Some(Ending::Exited(0)));
        assert_eq!(loud.wait(Duration::from_secs(10)), Some(Ending::Exited(PANICKED)));
        assert!(loud.complaint().unwrap().contains("out of milk"));
        assert_eq!(quiet.complaint(), None);
        assert!(long.settle(Duration::from_secs(10)));
        assert_eq!(long.wait(Duration::ZERO), None);
        assert_eq!(long.kill(), Ending::Killed(libc::SIGKILL));
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let pid = Child::fork(|| std::thread::sleep(Duration::from_secs(100))).pid();
        assert_eq!(system::state(pid), None);
    }
}
