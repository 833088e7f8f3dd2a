//! Forked processes that start together and report their times through shared memory.
//!
//! Who fails, or does not end, fails the run and takes the others with it: what is measured may be wrong, or not safe against
//! a death.

use polyproc_memory::{Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::Futex;
use std::alloc::Layout;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The most processes of one run.
const MOST: usize = 64;
/// How long a run may take: much longer than any does.
const LONGEST: Duration = Duration::from_secs(60);

/// What they share.
#[repr(C)]
struct Shared {
    ready: Futex,
    go: Futex,
    over: Futex,
    begun: [AtomicU64; MOST],
    ended: [AtomicU64; MOST],
    figures: [AtomicU64; MOST],
    /// The CPU that each was pinned to in the end, counted from 1; 0 is any.
    pins: [AtomicU64; MOST],
}

/// A set of processes that each run the same function.
#[derive(Debug)]
pub struct Processes {
    children: Vec<Child>,
    object: Object,
    /// The same instant in all of them.
    epoch: Instant,
}

/// A process that was forked, and is not yet waited for.
#[derive(Debug)]
struct Child {
    pid: libc::pid_t,
    /// Readable when it has ended.
    end: OwnedFd,
}

impl Child {
    fn new(pid: libc::pid_t) -> Child {
        // SAFETY: the child is not reaped before `wait`.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
        assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        // SAFETY: a descriptor that nobody else knows.
        Child { pid, end: unsafe { OwnedFd::from_raw_fd(fd) } }
    }

    /// Waits for its end: whether it ended well.
    fn wait(self) -> bool {
        let mut status = 0;
        // SAFETY: waits for a child that was forked by `fork`.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        (waited, status) == (self.pid, 0)
    }
}

/// What a set of processes took.
#[derive(Debug)]
pub struct Timed {
    /// From the first that began to the last that ended.
    pub total: Duration,
    /// Each one's own time.
    pub each: Vec<Duration>,
    /// The figure that each returned.
    pub figures: Vec<u64>,
}

impl Processes {
    /// Forks `count` processes that run `f` with their index, all at once when [`run`](Processes::run) says so.
    ///
    /// # Panics
    ///
    /// If a fork fails, or the count is above 64.
    pub fn fork(count: usize, f: impl Fn(usize) -> u64) -> Processes {
        let f = &f;
        Processes::prepared(count, |index| move || f(index))
    }

    /// As [`fork`](Processes::fork), for those who have to get ready, each in its own process, before the time counts: each
    /// runs what `prepare` returns. What that holds lives until all have ended.
    ///
    /// # Panics
    ///
    /// As `fork`.
    pub fn prepared<R: FnMut() -> u64>(count: usize, prepare: impl Fn(usize) -> R) -> Processes {
        assert!(count <= MOST);
        let layout = Layout::new::<Shared>();
        let shape = Shape {
            kind: Kind::new("bench"),
            code: 0,
            element: layout,
            count: 1,
            payload: layout,
            lock: false,
        };
        let object = Object::create(None, &shape).expect("memory for the benches");
        let mut processes = Processes { children: Vec::new(), object, epoch: Instant::now() };
        for index in 0..count {
            // SAFETY: the benches' programs have one thread where they fork; what the tests do in a child libc allows.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
            if pid == 0 {
                let child = || processes.child(index, count, &prepare);
                let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
                // SAFETY: ends the child without the parent's exit handlers.
                unsafe { libc::_exit(if ok.is_ok() { 0 } else { 1 }) };
            }
            processes.children.push(Child::new(pid));
        }
        processes
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the payload is as large as a `Shared`, zeroed, and accessed through atomics only.
        unsafe { self.object.payload().cast().as_ref() }
    }

    fn child<R: FnMut() -> u64>(&self, index: usize, count: usize, prepare: impl Fn(usize) -> R) {
        let shared = self.shared();
        let mut run = prepare(index);
        shared.ready.fetch_add(1, Ordering::SeqCst);
        shared.ready.wake_all();
        while shared.go.load(Ordering::SeqCst) == 0 {
            shared.go.wait(0, Deadline::NEVER);
        }
        let start = self.now();
        let figure = run();
        shared.begun[index].store(start, Ordering::SeqCst);
        shared.ended[index].store(self.now(), Ordering::SeqCst);
        shared.figures[index].store(figure, Ordering::SeqCst);
        let pin = crate::cpu::own_pin().map_or(0, |cpu| cpu as u64 + 1);
        shared.pins[index].store(pin, Ordering::SeqCst);
        // What it holds may still be needed by the others.
        shared.over.fetch_add(1, Ordering::SeqCst);
        shared.over.wake_all();
        loop {
            let over = shared.over.load(Ordering::SeqCst);
            if over as usize == count {
                return;
            }
            shared.over.wait(over, Deadline::NEVER);
        }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Lets them go, and waits until all have ended.
    ///
    /// # Panics
    ///
    /// If one of them failed, or had not ended after a minute: the others are killed.
    pub fn run(mut self) -> Timed {
        let count = self.children.len();
        let deadline = Instant::now() + LONGEST;
        loop {
            let shared = self.shared();
            let ready = shared.ready.load(Ordering::SeqCst);
            if ready as usize == count {
                break;
            }
            // None has ended unless it failed.
            assert!(self.ended(Duration::ZERO).is_none(), "a process of the bench failed");
            assert!(Instant::now() < deadline, "a process of the bench is not ready");
            shared.ready.wait(ready, Deadline::after(Duration::from_millis(10)));
        }
        let shared = self.shared();
        shared.go.store(1, Ordering::SeqCst);
        shared.go.wake_all();
        while !self.children.is_empty() {
            let index = self.ended(deadline.saturating_duration_since(Instant::now()));
            let child = self.children.swap_remove(index.expect("a process of the bench did not end"));
            assert!(child.wait(), "a process of the bench failed");
        }
        let shared = self.shared();
        let load = |values: &[AtomicU64]| -> Vec<u64> {
            values[..count].iter().map(|value| value.load(Ordering::SeqCst)).collect()
        };
        for pin in load(&shared.pins) {
            crate::cpu::note_pin(pin.checked_sub(1).map(|cpu| cpu as usize));
        }
        let (begun, ended) = (load(&shared.begun), load(&shared.ended));
        let total = ended.iter().max().unwrap() - begun.iter().min().unwrap();
        let each = begun.iter().zip(&ended).map(|(begun, ended)| Duration::from_nanos(ended - begun));
        Timed { total: Duration::from_nanos(total), each: each.collect(), figures: load(&shared.figures) }
    }

    /// One that has ended, if one does in this time.
    fn ended(&self, within: Duration) -> Option<usize> {
        let fd = |child: &Child| libc::pollfd { fd: child.end.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds: Vec<_> = self.children.iter().map(fd).collect();
        // SAFETY: as many as there are, writable.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, within.as_millis() as i32) };
        fds.iter().position(|fd| fd.revents != 0)
    }
}

impl Drop for Processes {
    /// Kills who is left of a run that failed.
    fn drop(&mut self) {
        for child in self.children.drain(..) {
            // SAFETY: a child that is not reaped yet.
            unsafe { libc::kill(child.pid, libc::SIGKILL) };
            child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn all_run_and_tell_their_figures() {
        let timed = Processes::fork(3, |index| index as u64 + 1).run();
        assert_eq!(timed.figures, [1, 2, 3]);
        assert_eq!(timed.each.len(), 3);
    }

    #[test]
    fn getting_ready_takes_no_time() {
        let pause = Duration::from_millis(300);
        let timed = Processes::prepared(2, |_| {
            std::thread::sleep(pause);
            || 0
        })
        .run();
        assert!(timed.total < pause);
    }

    #[test]
    fn who_fails_takes_the_others_with_it() {
        for is_early in [false, true] {
            let failed = catch_unwind(|| {
                Processes::prepared(2, |index| {
                    assert!(!is_early || index == 0, "not ready");
                    move || {
                        assert_eq!(index, 0, "wrong");
                        // Until it is killed.
                        loop {
                            std::thread::park();
                        }
                    }
                })
                .run()
            });
            assert!(failed.is_err());
        }
    }
}
