//! The system refuses: each system call that making something takes, with each reason that it may have. What is made then
//! is an error that keeps the reason, or does without; nobody panics or hangs, and nothing stays open.
//!
//! The refusals are made by a filter of system calls (seccomp(2)), which is the calling thread's: each try has a thread.

use polyproc::{
    Arena, Array, Barrier, BoundedSemaphore, Condition, Event, JoinableQueue, Mutex, Pool, Process, Queue,
    RLock, RwLock, Semaphore, Value, pipe, simplex,
};
use std::error::Error;
use std::os::fd::AsRawFd;
use std::sync::{self, mpsc};
use std::time::Duration;

polyproc::init_for_tests!();

/// A system call, if an argument of this index has one of these bits; all, if there are no bits.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    number: libc::c_long,
    bits: Option<(u32, u32)>,
}

const fn any(name: &'static str, number: libc::c_long) -> Call {
    Call { name, number, bits: None }
}

const fn some(name: &'static str, number: libc::c_long, argument: u32, bits: u32) -> Call {
    Call { name, number, bits: Some((argument, bits)) }
}

/// From here on, this thread and those that it makes have the call refused with this reason.
fn refuse(call: Call, errno: libc::c_int) {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let answer = |k: u32| instruction(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // `struct seccomp_data`: the number of the call, and 16 bytes in, its arguments.
    let (argument, bits) = call.bits.unwrap_or((0, u32::MAX));
    let otherwise = if call.bits.is_some() { 1 } else { 0 };
    let mut filter = [
        load(0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call.number as u32, 0, 3),
        load(16 + 8 * argument),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, 0, otherwise),
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable, and so is its filter.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}

/// What came of making something: the reason, if the system gave one, and the words.
type Outcome = Result<(), (Option<i32>, String)>;

/// The number that the system gave, as the innermost cause has it.
fn reason(error: &(dyn Error + 'static)) -> Option<i32> {
    let own = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    // An `io::Error` made of an error of ours has that as its content, and leaves it out of its sources.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    own.or_else(|| inner.and_then(|inner| reason(inner))).or_else(|| error.source().and_then(reason))
}

fn outcome<T, E: Error + 'static>(made: Result<T, E>) -> Outcome {
    made.map(drop).map_err(|error| (reason(&error), error.to_string()))
}

type Maker = fn() -> Outcome;
/// Calls, and what the system says instead.
type Refused = &'static [(Call, i32)];

/// Everything that can be made, and how.
const MAKERS: [(&str, Maker); 18] = [
    ("Arena", || outcome(Arena::new(1 << 20))),
    ("Mutex", || outcome(Mutex::new(0u64))),
    ("RLock", || outcome(RLock::new(0u64))),
    ("RwLock", || outcome(RwLock::new(0u64))),
    ("Semaphore", || outcome(Semaphore::new(1))),
    ("BoundedSemaphore", || outcome(BoundedSemaphore::new(1))),
    ("Event", || outcome(Event::new())),
    ("Condition", || outcome(Condition::new())),
    ("Barrier", || outcome(Barrier::new(2))),
    ("Value", || outcome(Value::new(0u64))),
    ("Array", || outcome(Array::<u8>::zeroed(1 << 20))),
    ("Queue", || outcome(Queue::<u8>::new())),
    ("JoinableQueue", || outcome(JoinableQueue::<u8>::new())),
    ("pipe", || outcome(pipe::<u8, u8>())),
    ("simplex", || outcome(simplex::<u8>())),
    ("Process", || outcome(Process::spawn(|| (), ()).map(|process| process.join()))),
    ("arguments", || {
        let arguments = (vec![1u8; 300_000],);
        outcome(Process::spawn(|bytes: Vec<u8>| bytes.len(), arguments).map(|process| process.join()))
    }),
    ("Pool", || outcome(Pool::new(1).map(|pool| pool.close()))),
];

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("/memfd:polyproc:")).count()
}

/// Makes one of these while the system refuses these calls.
fn try_to(make: Maker, refused: Refused) -> Outcome {
    let (done, outcome) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // What a thread finds out about itself, it has found out.
        drop(Mutex::new(0u8).unwrap().lock());
        refused.iter().for_each(|(call, errno)| refuse(*call, *errno));
        done.send(make()).unwrap();
    });
    let names = || refused.iter().map(|(call, errno)| format!("{} ({errno})", call.name)).collect::<Vec<_>>();
    match outcome.recv_timeout(Duration::from_secs(60)) {
        Ok(outcome) => {
            thread.join().unwrap();
            outcome
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{:?} refused: it hangs", names()),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{:?} refused: it panics", names()),
    }
}

/// The last threads of a pool may end a moment after it.
fn wait_until_nothing_is_left(before: (usize, usize), what: &str) {
    for _ in 0..20_000 {
        if (descriptors(), mappings()) == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}: {before:?} descriptors and mappings became {:?}", (descriptors(), mappings()));
}

/// What comes of making each of them while these calls are refused.
fn try_all(refused: Refused) -> impl Iterator<Item = (&'static str, Outcome)> {
    MAKERS.into_iter().map(move |(name, make)| {
        let before = (descriptors(), mappings());
        let outcome = try_to(make, refused);
        wait_until_nothing_is_left(before, &format!("{name} without {}", refused[0].0.name));
        (name, outcome)
    })
}

const MEMFD: Call = any("memfd_create", libc::SYS_memfd_create);
const ALLOCATE: Call = any("fallocate", libc::SYS_fallocate);
const MODE: Call = any("fchmod", libc::SYS_fchmod);
/// The commands for seals, and none that makes duplicates.
const SEAL: Call = some("F_ADD_SEALS", libc::SYS_fcntl, 1, 0x8);
const MAP: Call = some("a shared mmap", libc::SYS_mmap, 3, libc::MAP_SHARED as u32);
const SIZE: Call = any("ftruncate", libc::SYS_ftruncate);
const ADVISE: Call = any("madvise", libc::SYS_madvise);
const SOCKETS: Call = any("socketpair", libc::SYS_socketpair);
const OPTION: Call = any("setsockopt", libc::SYS_setsockopt);
const PIDFD: Call = any("pidfd_open", libc::SYS_pidfd_open);
const SEND: Call = any("sendmsg", libc::SYS_sendmsg);
const EPOLL: Call = any("epoll_create1", libc::SYS_epoll_create1);
const EVENTFD: Call = any("eventfd2", libc::SYS_eventfd2);
const CONTROL: Call = any("epoll_ctl", libc::SYS_epoll_ctl);
const CLONE3: Call = any("clone3", libc::SYS_clone3);
const CLONE: Call = any("clone", libc::SYS_clone);
/// Where clone3 is unknown, threads are made like this, and processes without the flag.
const THREAD: Call = some("clone", libc::SYS_clone, 0, libc::CLONE_THREAD as u32);
const BARRIER: Call = any("membarrier", libc::SYS_membarrier);
const WAITV: Call = any("futex_waitv", libc::SYS_futex_waitv);
const CLOSE: Call = any("close_range", libc::SYS_close_range);
const ROBUST: Call = any("get_robust_list", libc::SYS_get_robust_list);

const REGIONS: &str = "Arena Mutex RLock RwLock Semaphore BoundedSemaphore Event Condition Barrier Value Array Queue \
                       JoinableQueue pipe simplex Pool";
const LOCKS: &str =
    "Mutex RLock RwLock Semaphore BoundedSemaphore Condition Barrier Value Array Queue JoinableQueue";
const PROCESSES: &str = "Process arguments Pool";

/// What is refused, and what cannot be made without it. The last reason is the one that is told.
const REFUSALS: [(Refused, &str); 41] = [
    (&[(MEMFD, libc::EMFILE)], REGIONS),
    (&[(MEMFD, libc::ENFILE)], REGIONS),
    (&[(MEMFD, libc::ENOMEM)], REGIONS),
    (&[(MEMFD, libc::EMFILE)], "arguments"),
    (&[(ALLOCATE, libc::ENOSPC)], REGIONS),
    (&[(ALLOCATE, libc::ENOMEM)], REGIONS),
    (&[(ALLOCATE, libc::EIO)], REGIONS),
    (&[(MODE, libc::EPERM)], REGIONS),
    (&[(MODE, libc::EPERM)], "arguments"),
    (&[(SEAL, libc::EPERM)], REGIONS),
    (&[(SEAL, libc::EPERM)], "arguments"),
    (&[(MAP, libc::ENOMEM)], REGIONS),
    (&[(MAP, libc::EPERM)], REGIONS),
    (&[(SIZE, libc::ENOSPC)], "Queue JoinableQueue pipe simplex Pool"),
    (&[(ADVISE, libc::ENOMEM)], "Queue JoinableQueue pipe simplex Pool"),
    (&[(SOCKETS, libc::EMFILE)], "pipe simplex Process arguments Pool"),
    (&[(SOCKETS, libc::ENFILE)], "pipe simplex Process arguments Pool"),
    (&[(SOCKETS, libc::ENOMEM)], "pipe simplex Process arguments Pool"),
    (&[(OPTION, libc::ENOMEM)], "pipe simplex Pool"),
    (&[(PIDFD, libc::EMFILE)], PROCESSES),
    (&[(PIDFD, libc::ENFILE)], PROCESSES),
    (&[(PIDFD, libc::ENOMEM)], PROCESSES),
    (&[(SEND, libc::ETOOMANYREFS)], PROCESSES),
    (&[(SEND, libc::ENOBUFS)], PROCESSES),
    (&[(EPOLL, libc::EMFILE)], "Pool"),
    (&[(EPOLL, libc::ENFILE)], "Pool"),
    (&[(EPOLL, libc::ENOMEM)], "Pool"),
    (&[(EVENTFD, libc::EMFILE)], "Pool"),
    (&[(EVENTFD, libc::ENFILE)], "Pool"),
    (&[(EVENTFD, libc::ENOMEM)], "Pool"),
    (&[(CONTROL, libc::ENOSPC)], "Pool"),
    (&[(CONTROL, libc::ENOMEM)], "Pool"),
    (&[(CLONE3, libc::EAGAIN), (CLONE, libc::EAGAIN)], PROCESSES),
    (&[(CLONE3, libc::ENOMEM), (CLONE, libc::ENOMEM)], PROCESSES),
    (&[(CLONE3, libc::ENOSYS), (THREAD, libc::EAGAIN)], "Pool"),
    // Without these it works.
    (&[(CLONE3, libc::ENOSYS)], ""),
    (&[(BARRIER, libc::ENOSYS)], ""),
    (&[(BARRIER, libc::EPERM)], ""),
    (&[(WAITV, libc::ENOSYS)], ""),
    (&[(WAITV, libc::EPERM)], ""),
    (&[(CLOSE, libc::ENOSYS)], ""),
];

fn all_can_be_made() {
    for (name, make) in MAKERS {
        assert_eq!(make(), Ok(()), "{name}");
    }
}

/// The tests count what this process has open.
fn alone() -> sync::MutexGuard<'static, ()> {
    static TURN: sync::Mutex<()> = sync::Mutex::new(());
    TURN.lock().unwrap_or_else(sync::PoisonError::into_inner)
}

#[test]
fn whatever_the_system_refuses_is_an_error_with_its_reason() {
    let _alone = alone();
    // What is made once is made now.
    all_can_be_made();
    for (refused, needed) in REFUSALS {
        let (call, errno) = refused[refused.len() - 1];
        for (name, outcome) in try_all(refused) {
            match outcome {
                Ok(()) => {
                    let needs_it = needed.split_whitespace().any(|one| one == name);
                    assert!(!needs_it, "{name} was made without {}", call.name);
                }
                Err((reason, said)) => {
                    assert_ne!(needed, "", "{name} was not made without {}: {said}", call.name);
                    assert_eq!(reason, Some(errno), "{name} without {}: {said}", call.name);
                }
            }
        }
    }
    // In a sandbox that keeps robust lists to itself there are no locks, and that is said beforehand.
    for (name, outcome) in try_all(&[(ROBUST, libc::EPERM)]) {
        let is_lock = LOCKS.split_whitespace().any(|one| one == name);
        match outcome {
            Ok(()) => assert!(!is_lock, "{name} was made"),
            Err((_, said)) => assert!(said.contains("get_robust_list failed"), "{name}: {said}"),
        }
    }
    // What was refused is not remembered.
    all_can_be_made();
}

/// From here on, this process opens no descriptors with this number or above.
fn limit_descriptors(limit: usize) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid to be written.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) }, 0);
    limits.rlim_cur = limit as u64;
    // SAFETY: the struct is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) }, 0);
}

/// What can lie in an `Arena`.
const PLACEABLE: &str =
    "Arena Mutex RLock RwLock Semaphore BoundedSemaphore Event Condition Barrier Value Array";

/// The limit is the process's, so it is one of its own.
#[test]
fn who_is_out_of_descriptors_is_told_so_with_the_limit_and_of_an_arena_only_where_one_helps() {
    fn tries_all() -> usize {
        all_can_be_made();
        // A number that is free is below none that is taken.
        let null = || std::fs::File::open("/dev/null").unwrap();
        let highest = std::fs::read_dir("/proc/self/fd").unwrap();
        let highest = highest.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).max();
        let mut filling = vec![null()];
        while (filling[filling.len() - 1].as_raw_fd() as usize) < highest.unwrap_or(0usize) {
            filling.push(null());
        }
        let taken = descriptors() - 1;
        let mut refused = 0;
        for spare in 0..12 {
            let limit = taken + spare;
            for (name, make) in MAKERS {
                limit_descriptors(limit);
                let made = make();
                limit_descriptors(1024);
                let Err((reason, said)) = made else {
                    assert_ne!(spare, 0, "{name} needs no descriptor");
                    continue;
                };
                refused += 1;
                let words = format!("this process has no file descriptor left of its {limit} (ulimit -n)");
                let is_placeable = PLACEABLE.split_whitespace().any(|one| one == name);
                let advice = if is_placeable { ": place many objects in one Arena" } else { "" };
                assert!(said.ends_with(&format!("{words}{advice}")), "{name} with {spare} to spare: {said}");
                assert_eq!(reason, Some(libc::EMFILE), "{name} with {spare} to spare");
            }
        }
        refused
    }
    let _alone = alone();
    let refused = Process::spawn(tries_all, ()).unwrap().join().unwrap();
    assert!(refused >= MAKERS.len() + 10, "{refused}");
}
