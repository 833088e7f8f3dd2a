//! Forked processes that start together and report their times through shared memory.

use polyproc_memory::{Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::Futex;
use std::alloc::Layout;
use std::time::{Duration, Instant};

/// The most processes of one run.
const MOST: usize = 64;

/// What they share.
#[repr(C)]
struct Shared {
    ready: Futex,
    go: Futex,
    begun: [AtomicU64; MOST],
    ended: [AtomicU64; MOST],
    figures: [AtomicU64; MOST],
}

/// A set of processes that each run the same function.
#[derive(Debug)]
pub struct Processes {
    pids: Vec<libc::pid_t>,
    object: Object,
    /// The same instant in all of them.
    epoch: Instant,
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
        let mut processes = Processes { pids: Vec::new(), object, epoch: Instant::now() };
        for index in 0..count {
            // SAFETY: the benches' programs have one thread where they fork.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
            if pid == 0 {
                let ok =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| processes.child(index, &f)));
                // SAFETY: ends the child without the parent's exit handlers.
                unsafe { libc::_exit(if ok.is_ok() { 0 } else { 1 }) };
            }
            processes.pids.push(pid);
        }
        processes
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the payload is as large as a `Shared`, zeroed, and accessed through atomics only.
        unsafe { self.object.payload().cast().as_ref() }
    }

    fn child(&self, index: usize, f: impl Fn(usize) -> u64) {
        let shared = self.shared();
        shared.ready.fetch_add(1, Ordering::SeqCst);
        shared.ready.wake_all();
        while shared.go.load(Ordering::SeqCst) == 0 {
            shared.go.wait(0, Deadline::NEVER);
        }
        let start = self.now();
        let figure = f(index);
        shared.begun[index].store(start, Ordering::SeqCst);
        shared.ended[index].store(self.now(), Ordering::SeqCst);
        shared.figures[index].store(figure, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Lets them go, and waits until all have ended.
    ///
    /// # Panics
    ///
    /// If one of them failed.
    pub fn run(self) -> Timed {
        let shared = self.shared();
        let count = self.pids.len();
        loop {
            let ready = shared.ready.load(Ordering::SeqCst);
            if ready as usize == count {
                break;
            }
            shared.ready.wait(ready, Deadline::NEVER);
        }
        shared.go.store(1, Ordering::SeqCst);
        shared.go.wake_all();
        for pid in &self.pids {
            let mut status = 0;
            // SAFETY: waits for a child that was forked above.
            let waited = unsafe { libc::waitpid(*pid, &mut status, 0) };
            assert_eq!((waited, status), (*pid, 0), "a process of the bench failed");
        }
        let load = |values: &[AtomicU64]| -> Vec<u64> {
            values[..count].iter().map(|value| value.load(Ordering::SeqCst)).collect()
        };
        let (begun, ended) = (load(&shared.begun), load(&shared.ended));
        let total = ended.iter().max().unwrap() - begun.iter().min().unwrap();
        let each = begun.iter().zip(&ended).map(|(begun, ended)| Duration::from_nanos(ended - begun));
        Timed { total: Duration::from_nanos(total), each: each.collect(), figures: load(&shared.figures) }
    }
}
