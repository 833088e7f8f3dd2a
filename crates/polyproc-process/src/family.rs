//! Who this process is, who started it, and whom it has started.

use crate::raw;
use crate::running::{End, Running, is_ready};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::fork::{Guard, Mutex};
use std::fmt;
use std::io;
use std::mem;
use std::num::NonZero;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// How long a daemon has, when its parent exits, to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// What a process knows of its relatives.
#[derive(Debug)]
pub(crate) struct Family {
    /// The process that the rest is about: a forked child finds its parent's record here. 0 before the first
    /// use.
    pid: u32,
    pub(crate) name: String,
    /// The numbers in its default name.
    pub(crate) path: Vec<u32>,
    daemon: bool,
    parent: Option<Parent>,
    /// A pidfd of this process, for its children.
    itself: Option<Arc<OwnedFd>>,
    /// How many children it has started.
    count: u32,
    /// Those that have not been waited for.
    children: Vec<Arc<Running>>,
}

/// Not held while anything else is waited for, or locked, or forked: see there.
static FAMILY: Mutex<Family> = Mutex::new(Family {
    pid: 0,
    name: String::new(),
    path: Vec::new(),
    daemon: false,
    parent: None,
    itself: None,
    count: 0,
    children: Vec::new(),
});

/// Whether the exit handler is registered: 0 or 1.
static REGISTERED: AtomicU32 = AtomicU32::new(0);
/// The process whose record [`FAMILY`] is, for the exit handler: a child that was made by a bare `clone` must
/// not touch the lock, which a thread that the child does not have may have held.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// This process's family.
pub(crate) fn family() -> Guard<'static, Family> {
    let mut family = FAMILY.lock();
    family.renew();
    family
}

/// Sees to it that the children are waited for when this process exits.
pub(crate) fn await_children_at_exit() {
    // Relaxed: nothing depends on it but who registers.
    if REGISTERED.swap(1, Ordering::Relaxed) == 0 {
        raw::at_exit(exit_handler);
    }
}

/// The name of this process, for a panic hook, which must not wait.
pub(crate) fn try_name() -> Option<String> {
    FAMILY.try_lock().map(|family| family.name.clone())
}

impl Family {
    /// Begins afresh in a process that something other than this crate has forked.
    fn renew(&mut self) {
        let pid = std::process::id();
        if self.pid != pid {
            if self.pid == 0 {
                self.name = "MainProcess".into();
            }
            self.pid = pid;
            OWNER.store(pid, Ordering::Relaxed);
            self.parent = None;
            self.itself = None;
            self.count = 0;
            self.children.clear();
        }
    }

    /// Makes this process somebody's child.
    pub(crate) fn descend(&mut self, name: String, path: Vec<u32>, daemon: bool, parent: Parent) {
        *self = Family {
            pid: std::process::id(),
            name,
            path,
            daemon,
            parent: Some(parent),
            itself: None,
            count: 0,
            children: Vec::new(),
        };
        OWNER.store(self.pid, Ordering::Relaxed);
    }

    /// The path of the next child, and its default name.
    pub(crate) fn next_child(&mut self) -> (Vec<u32>, String) {
        self.count += 1;
        let path = [&self.path[..], &[self.count]].concat();
        let numbers: Vec<String> = path.iter().map(u32::to_string).collect();
        (path, format!("Process-{}", numbers.join(":")))
    }

    /// A pidfd of this process.
    pub(crate) fn itself(&mut self) -> io::Result<Arc<OwnedFd>> {
        if self.itself.is_none() {
            self.itself = Some(Arc::new(raw::open_process(self.pid as libc::pid_t)?));
        }
        Ok(Arc::clone(self.itself.as_ref().expect("made above")))
    }

    /// Strikes out a child that has been waited for.
    pub(crate) fn strike(&mut self, child: &Arc<Running>) {
        self.children.retain(|other| !Arc::ptr_eq(other, child));
    }
}

/// Enters a child that has just been started, and waits for those that have ended and that nobody else can
/// join.
pub(crate) fn enter(child: &Arc<Running>) {
    let mut family = family();
    let is_left = |child: &&Arc<Running>| Arc::strong_count(child) == 1;
    let left: Vec<_> = family.children.iter().filter(is_left).cloned().collect();
    family.children.push(Arc::clone(child));
    drop(family);
    strike_ended(&left);
}

/// Strikes out those of these children that have ended. Returns the others.
fn strike_ended(children: &[Arc<Running>]) -> Vec<Arc<Running>> {
    let (ended, others): (Vec<_>, Vec<_>) =
        children.iter().cloned().partition(|child| matches!(child.end(), Ok(Some(_))));
    if !ended.is_empty() {
        family().children.retain(|child| !ended.iter().any(|other| Arc::ptr_eq(child, other)));
    }
    others
}

/// Runs when the process exits: ends the daemons, waits for all children.
extern "C" fn exit_handler() {
    // Relaxed: a process sees its own store.
    if OWNER.load(Ordering::Relaxed) == std::process::id() {
        end_children();
    }
}

/// Ends the daemons, waits for all children.
pub(crate) fn end_children() {
    loop {
        let children = mem::take(&mut family().children);
        if children.is_empty() {
            return;
        }
        let (daemons, others): (Vec<_>, Vec<_>) = children.into_iter().partition(|child| child.daemon);
        for daemon in &daemons {
            let _ = daemon.signal(libc::SIGTERM);
        }
        for child in &others {
            let _ = child.wait(Deadline::NEVER);
        }
        let deadline = Deadline::after(GRACE);
        for daemon in &daemons {
            if !matches!(daemon.wait(deadline), Ok(Some(_))) {
                let _ = daemon.signal(libc::SIGKILL);
                let _ = daemon.wait(Deadline::NEVER);
            }
        }
    }
}

/// This process, as polyproc knows it.
#[derive(Clone, Debug)]
pub struct CurrentProcess {
    pid: u32,
    name: String,
    daemon: bool,
    parent: Option<u32>,
}

/// This process: its name, its id, and the id of the process that started it.
///
/// Does not block.
///
/// # Example
///
/// ```
/// assert_eq!(polyproc_process::current_process().name(), "MainProcess");
/// assert_eq!(polyproc_process::current_process().pid(), std::process::id());
/// ```
pub fn current_process() -> CurrentProcess {
    let family = family();
    CurrentProcess {
        pid: family.pid,
        name: family.name.clone(),
        daemon: family.daemon,
        parent: family.parent.as_ref().map(Parent::pid),
    }
}

impl CurrentProcess {
    /// The name that [`Builder::name`](crate::Builder::name) gave it, or `Process-1`, `Process-2:1` and so
    /// on, by the order in which each parent started its children; `MainProcess` if polyproc did not start
    /// it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The id of the process that started it through polyproc, which may be dead by now: [`parent_process`]
    /// knows.
    pub fn parent_pid(&self) -> Option<u32> {
        self.parent
    }

    /// Whether it ends with its parent: see [`Builder::daemon`](crate::Builder::daemon).
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }
}

/// The process that started this one. Knows when it ends.
///
/// It goes by a pidfd that the parent sent along, so it is never another process that has got the same id
/// since.
#[derive(Clone)]
pub struct Parent(Arc<Ancestor>);

struct Ancestor {
    pid: u32,
    name: String,
    process: OwnedFd,
}

/// The process that started this one through polyproc; `None` in a main process.
///
/// In a process that came out of a `fork` that polyproc knows nothing of, `None` too.
///
/// # Example
///
/// ```
/// # use polyproc_process::{Process, parent_process};
/// fn parent() -> (u32, bool) {
///     let parent = parent_process().unwrap();
///     (parent.pid(), parent.is_alive())
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// polyproc_process::init();
/// assert!(parent_process().is_none());
/// assert_eq!(Process::spawn(parent, ())?.join()?, (std::process::id(), true));
/// # Ok(())
/// # }
/// ```
pub fn parent_process() -> Option<Parent> {
    family().parent.clone()
}

impl Parent {
    pub(crate) fn new(pid: u32, name: String, process: OwnedFd) -> Parent {
        Parent(Arc::new(Ancestor { pid, name, process }))
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it still runs. Does not block.
    pub fn is_alive(&self) -> bool {
        matches!(is_ready(self.sentinel(), Deadline::PAST), Ok(false))
    }

    /// Blocks until it has ended.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot wait.
    pub fn wait(&self) -> io::Result<()> {
        is_ready(self.sentinel(), Deadline::NEVER).map(drop)
    }

    /// Blocks until it has ended, but no longer than `timeout`. Returns whether it has ended. A timeout of
    /// zero looks once.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot wait.
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<bool> {
        is_ready(self.sentinel(), Deadline::after(timeout))
    }

    /// A descriptor that becomes readable when it ends, for `poll`, `epoll` and async runtimes.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.0.process.as_fd()
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parent").field("pid", &self.pid()).field("name", &self.name()).finish_non_exhaustive()
    }
}

/// A child of this process, whatever its function returns.
#[derive(Clone)]
pub struct Child(Arc<Running>);

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}

/// The children of this process that still run, in the order in which they were started.
///
/// It includes those whose [`Process`](crate::Process) has been dropped. Does not block. Children that have
/// ended are waited for on the way, so that none stays behind as a zombie; those can be joined all the same.
///
/// # Example
///
/// ```
/// # use polyproc_process::{Builder, active_children};
/// fn sleep() {
///     std::thread::sleep(std::time::Duration::from_secs(60));
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// polyproc_process::init();
/// let sleeper = Builder::new().name("sleeper").spawn(sleep, ())?;
/// let children = active_children();
/// assert_eq!(children.len(), 1);
/// assert_eq!((children[0].name(), children[0].pid()), ("sleeper", sleeper.pid()));
/// children[0].kill()?;
/// assert_eq!(sleeper.join().unwrap_err().to_string(), "killed by SIGKILL");
/// assert!(active_children().is_empty());
/// # Ok(())
/// # }
/// ```
pub fn active_children() -> Vec<Child> {
    let children = family().children.clone();
    strike_ended(&children).into_iter().map(Child).collect()
}

impl Child {
    /// Its id.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it ends with its parent: see [`Builder::daemon`](crate::Builder::daemon).
    pub fn is_daemon(&self) -> bool {
        self.0.daemon
    }

    /// Whether it still runs. Does not block.
    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// How it ended; `None` if it still runs. Does not block.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        exit_status(&self.0)
    }

    /// Asks it to end, by `SIGTERM`. Without effect if it has ended.
    ///
    /// # Errors
    ///
    /// What the system says if the signal cannot be sent.
    pub fn terminate(&self) -> io::Result<()> {
        self.0.signal(libc::SIGTERM)
    }

    /// Ends it, by `SIGKILL`. Without effect if it has ended.
    ///
    /// # Errors
    ///
    /// What the system says if the signal cannot be sent.
    pub fn kill(&self) -> io::Result<()> {
        self.0.signal(libc::SIGKILL)
    }

    /// Interrupts it as Ctrl-C does, by `SIGINT`. Without effect if it has ended.
    ///
    /// # Errors
    ///
    /// What the system says if the signal cannot be sent.
    pub fn interrupt(&self) -> io::Result<()> {
        self.0.signal(libc::SIGINT)
    }

    /// A descriptor that becomes readable when it ends, for `poll`, `epoll` and async runtimes.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.0.sentinel()
    }
}

/// How a child ended, struck out of the family if it has.
pub(crate) fn exit_status(child: &Arc<Running>) -> Option<ExitStatus> {
    let end = child.end().ok()??;
    family().strike(child);
    match end {
        End::Status(status) => Some(status),
        End::Unknown => None,
    }
}

/// How many CPUs this process may use: at least 1.
///
/// Its affinity counts, and so does the quota of its cgroup: the number is right in a container. Does not
/// block.
///
/// # Example
///
/// ```
/// assert!(polyproc_process::cpu_count() >= 1);
/// ```
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
#[allow(unsafe_code, reason = "a child that hangs is to end")]
mod tests {
    use super::*;
    use polyproc_testing::{Child as Forked, watchdog};
    use std::sync::mpsc;

    /// While another thread has what `hold` returns, forks a child that does what a program does, and ends in
    /// time.
    fn fork_beside<G>(hold: impl FnOnce() -> G + Send, child: impl FnOnce()) {
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let held = hold();
                sender.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                drop(held);
            });
            receiver.recv().unwrap();
            let forked = Forked::run(|| {
                // SAFETY: takes a number. Nobody handles the signal, so it ends a child that waits for ever.
                unsafe { libc::alarm(10) };
                child();
            });
            forked.join();
        });
    }

    #[test]
    fn a_child_that_was_forked_while_another_thread_looked_at_the_family_has_one_of_its_own() {
        let _dog = watchdog();
        fork_beside(family, || {
            assert_eq!(current_process().pid(), std::process::id());
            assert!(active_children().is_empty() && parent_process().is_none());
            assert_eq!(try_name(), Some("MainProcess".into()));
        });
    }

    #[test]
    fn a_child_that_was_forked_while_another_thread_asked_how_a_process_ended_can_ask() {
        let _dog = watchdog();
        let sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = raw::open_process(sleeper.id() as libc::pid_t).unwrap();
        let running = Arc::new(Running::new(sleeper.id(), "sleeper".into(), false, process));
        fork_beside(
            || running.hold_end(),
            || {
                assert!(exit_status(&running).is_none() && running.is_alive());
                running.signal(libc::SIGKILL).unwrap();
                assert!(running.wait(Deadline::NEVER).unwrap().is_some());
                assert!(exit_status(&running).is_none(), "it is its parent that is told");
            },
        );
        assert!(running.wait(Deadline::NEVER).unwrap().is_some());
        assert!(exit_status(&running).is_some());
        drop(sleeper);
    }
}
