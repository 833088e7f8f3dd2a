//! What becomes of what somebody holds. As long as it lives, stopped or not, nobody takes it away, and who waits is told
//! whose it is; when its thread ends, or its process becomes another program, all of it is let go as by a death.

use polyproc::{
    Arena, Array, BoundedSemaphore, Builder, Event, JoinError, LockTimeoutError, Mutex, PoisonCause, Pool,
    Process, Queue, RLock, RwLock, Semaphore, Value, array, pipe,
};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

polyproc::init_for_tests!();

/// One of each that can be held: what is read, and what is written, by two locks.
type Things = (
    Mutex<u8>,
    RLock<u8>,
    RwLock<u8>,
    RwLock<u8>,
    Semaphore,
    BoundedSemaphore,
    Value<u8>,
    Array<u8>,
    Queue<u8>,
);

fn things() -> polyproc::Result<Things> {
    let queue = Queue::new()?;
    queue.put(7)?;
    Ok((
        Mutex::new(0)?,
        RLock::new(0)?,
        RwLock::new(0)?,
        RwLock::new(0)?,
        Semaphore::new(1)?,
        BoundedSemaphore::new(1)?,
        Value::new(0)?,
        array!('B', [0, 0])?,
        queue,
    ))
}

/// Does something while it holds all of them.
fn holding(things: &Things, then: impl FnOnce()) {
    let (mutex, rlock, read, written, semaphore, bounded, value, array, queue) = things;
    let _locks = (mutex.lock().unwrap(), rlock.lock().unwrap(), rlock.lock().unwrap());
    let _reading = (read.read().unwrap(), written.write().unwrap());
    let _permits = (semaphore.acquire(), bounded.acquire());
    let _data = (value.lock().unwrap(), array.lock().unwrap());
    let _claim = queue.claim().unwrap();
    then();
}

/// Whether the time is over, and it was not sooner.
fn in_vain<T>(what: &str, wait: impl FnOnce(Duration) -> T) -> T {
    const SOON: Duration = Duration::from_millis(10);
    let begin = Instant::now();
    let result = wait(SOON);
    let took = begin.elapsed();
    assert!(took >= SOON && took < 200 * SOON, "{what} took {took:?}");
    result
}

/// Whoever waits for one of them waits in vain, and is told that it is this process's.
fn all_are_held_by(pid: u32, things: &Things) {
    let (mutex, rlock, read, written, semaphore, bounded, value, array, queue) = things;
    let is_over = |what: &str, is_over: bool| assert!(is_over, "{what}: the time was not over");
    is_over("mutex", in_vain("mutex", |t| matches!(mutex.lock_timeout(t), Err(LockTimeoutError::TimedOut))));
    is_over("rlock", in_vain("rlock", |t| matches!(rlock.lock_timeout(t), Err(LockTimeoutError::TimedOut))));
    is_over("read", in_vain("read", |t| matches!(read.write_timeout(t), Err(LockTimeoutError::TimedOut))));
    is_over(
        "write",
        in_vain("write", |t| matches!(written.read_timeout(t), Err(LockTimeoutError::TimedOut))),
    );
    is_over("permit", in_vain("permit", |t| semaphore.acquire_timeout(t).is_err()));
    is_over("bounded", in_vain("bounded", |t| bounded.acquire_timeout(t).is_err()));
    is_over("value", in_vain("value", |t| matches!(value.lock_timeout(t), Err(LockTimeoutError::TimedOut))));
    is_over("array", in_vain("array", |t| matches!(array.lock_timeout(t), Err(LockTimeoutError::TimedOut))));
    is_over("claim", in_vain("claim", |t| queue.claim_timeout(t).is_err()));
    let holders = [mutex.holder(), rlock.holder(), written.writer(), value.holder(), array.holder()];
    assert_eq!(holders, [Some(pid); 5]);
    let named = [format!("readers: [{pid}]"), format!("holders: [{pid}]"), format!("holders: [{pid}]")];
    let shown = [format!("{read:?}"), format!("{semaphore:?}"), format!("{bounded:?}")];
    for (shown, named) in shown.iter().zip(&named) {
        assert!(shown.contains(named), "{shown}");
    }
}

/// All of them can be had, and whoever changes something under a lock has left it poisoned, if it `died` there.
fn all_are_free(died: Option<u32>, things: &Things) {
    const LONG: Duration = Duration::from_secs(20);
    fn cause<G>(locked: Result<G, LockTimeoutError<G>>) -> Option<PoisonCause> {
        match locked {
            Ok(_) => None,
            Err(LockTimeoutError::Poisoned(error)) => Some(error.cause()),
            Err(LockTimeoutError::TimedOut) => panic!("still held"),
            Err(LockTimeoutError::TooManyLocks) => panic!("too many locks"),
        }
    }
    let (mutex, rlock, read, written, semaphore, bounded, value, array, queue) = things;
    let causes = [
        cause(mutex.lock_timeout(LONG)),
        cause(rlock.lock_timeout(LONG)),
        cause(written.read_timeout(LONG)),
        cause(value.lock_timeout(LONG)),
        cause(array.lock_timeout(LONG)),
    ];
    assert_eq!(causes, [died.map(|pid| PoisonCause::OwnerDied { pid }); 5]);
    assert_eq!(cause(read.write_timeout(LONG)), None, "a reader changes nothing");
    for _ in 0..2 {
        // Once, and once again: it has come back, and to its place.
        assert!(semaphore.acquire_timeout(LONG).is_ok() && bounded.acquire_timeout(LONG).is_ok());
    }
    assert_eq!((semaphore.available(), bounded.available()), (1, 1));
    let claim = queue.claim_timeout(LONG).unwrap();
    assert!(claim.is_redelivered());
    assert_eq!(claim.ack(), 7);
    assert!(queue.is_empty());
}

/// Ends with this process, also if a test has failed.
fn daemon() -> Builder {
    Process::<()>::builder().daemon(true)
}

fn signal(process: &Process<()>, signal: libc::c_int) {
    // SAFETY: sends a signal to a child that nobody has waited for.
    assert_eq!(unsafe { libc::kill(process.pid() as libc::pid_t, signal) }, 0);
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The letter for what a process does; `None` if it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn what_a_stopped_process_holds_stays_its_own_and_names_it() -> polyproc::Result<()> {
    fn hold(things: Things, held: Event, go: Event) {
        holding(&things, || {
            held.set();
            go.wait();
        });
    }
    let (things, held, go) = (things()?, Event::new()?, Event::new()?);
    let process = daemon().spawn(hold, (things.clone(), held.clone(), go.clone()))?;
    held.wait();
    signal(&process, libc::SIGSTOP);
    wait_until("it is stopped", || state(process.pid()) == Some('T'));
    all_are_held_by(process.pid(), &things);
    go.set();
    // Whatever has happened, it is not this process that decides what the other one has.
    all_are_held_by(process.pid(), &things);
    signal(&process, libc::SIGCONT);
    process.join()?;
    all_are_free(None, &things);
    Ok(())
}

#[test]
fn what_a_process_held_that_is_killed_while_it_is_stopped_is_free() -> polyproc::Result<()> {
    fn hold(things: Things, held: Event) {
        holding(&things, || {
            held.set();
            Event::new().unwrap().wait();
        });
    }
    let (things, held) = (things()?, Event::new()?);
    let process = daemon().spawn(hold, (things.clone(), held.clone()))?;
    held.wait();
    signal(&process, libc::SIGSTOP);
    process.kill()?;
    all_are_free(Some(process.pid()), &things);
    assert!(matches!(process.join(), Err(JoinError::Signaled(libc::SIGKILL))));
    Ok(())
}

#[test]
fn what_a_thread_held_is_free_when_it_has_ended() -> polyproc::Result<()> {
    let (things, held) = (things()?, Event::new()?);
    let theirs = (things.clone(), held.clone());
    std::thread::spawn(move || {
        holding(&theirs.0, || {
            theirs.1.set();
            // Nobody is left to drop the guards.
            // SAFETY: ends this thread and nothing else.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
    });
    held.wait();
    all_are_free(Some(std::process::id()), &things);
    Ok(())
}

#[test]
fn a_process_that_becomes_another_program_holds_nothing_and_takes_nothing_along() -> polyproc::Result<()> {
    /// A function runs on its process's first thread: of another one that does the same, see the limits.
    fn become_another(things: Things, held: Event) {
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.apply(|n: u8| n + 1, (1u8,)).unwrap(), 2);
        let _ends = (pipe::<u8, u8>().unwrap(), Process::spawn(|| (), ()).unwrap());
        let _memory = (Arena::new(4096).unwrap(), Queue::<u8>::new().unwrap());
        holding(&things, || {
            held.set();
            let arguments = [c"sleep".as_ptr(), c"600".as_ptr(), std::ptr::null()];
            // SAFETY: strings that live as long as the program, and the null that ends them.
            unsafe { libc::execvp(c"sleep".as_ptr(), arguments.as_ptr()) };
            panic!("there is no program named sleep");
        });
    }
    let (things, held) = (things()?, Event::new()?);
    let process = daemon().spawn(become_another, (things.clone(), held.clone()))?;
    held.wait();
    all_are_free(Some(process.pid()), &things);
    assert!(process.is_alive());
    let open = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    // All but the three that every program has were closed with the program before.
    wait_until("it is another program", || {
        std::fs::read_to_string(format!("/proc/{}/comm", process.pid())).is_ok_and(|name| name == "sleep\n")
    });
    assert_eq!(open(), ["0", "1", "2"].map(String::from).into());
    process.kill()?;
    assert!(process.join().is_err());
    Ok(())
}

/// Lets the next process of this PID namespace have this id, in a namespace where nobody else makes any.
fn next_is(pid: u32) {
    std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
}

/// As the first process of a namespace: processes that come after the dead, with their ids.
fn meet_namesakes(things: Things) {
    const ID: u32 = 1000;
    let hold = |things: Things, held: Event, go: Event| {
        holding(&things, || {
            held.set();
            go.wait();
        })
    };
    let look = |things: Things, never: Event| {
        // It has not got anything of the dead.
        assert_eq!((std::process::id(), things.1.depth()), (ID, 0));
        all_are_free(Some(ID), &things);
        never.wait();
    };
    let (held, never) = (Event::new().unwrap(), Event::new().unwrap());
    next_is(ID);
    let dead = daemon().spawn(hold, (things.clone(), held.clone(), never.clone())).unwrap();
    assert_eq!(dead.pid(), ID);
    held.wait();
    dead.kill().unwrap();
    let mut status = 0;
    // Somebody else in the program waits for whatever child there is: from here on the id is free.
    // SAFETY: the status is writable.
    assert_eq!(unsafe { libc::waitpid(-1, &raw mut status, 0) }, ID as libc::pid_t);

    next_is(ID);
    let namesake = daemon().spawn(look, (things.clone(), never.clone())).unwrap();
    assert_eq!(namesake.pid(), ID);
    // Whatever is asked of the dead one, the other does not hear of it.
    for ask in [Process::kill, Process::terminate, Process::interrupt] {
        let _ = ask(&dead);
    }
    assert!(!dead.is_alive() && namesake.is_alive());
    assert!(dead.join().is_err());
    never.set();
    namesake.join().unwrap();
}

#[test]
fn who_has_the_id_of_a_dead_process_is_another() -> polyproc::Result<()> {
    /// `None` where that is not permitted.
    fn in_a_namespace(things: Things) -> Option<()> {
        // SAFETY: changes what the coming children are, and nothing of this process.
        let as_root = unsafe { libc::unshare(libc::CLONE_NEWPID) };
        if as_root != 0 {
            return None;
        }
        Process::spawn(meet_namesakes, (things,)).unwrap().join().unwrap();
        Some(())
    }
    let things = things()?;
    if Process::spawn(in_a_namespace, (things,))?.join()?.is_none() {
        println!("skipped: no PID namespace can be made here");
    }
    Ok(())
}

/// What there is in the places where a family of processes could leave something.
fn files() -> BTreeSet<std::path::PathBuf> {
    let folders = ["/dev/shm".into(), std::env::temp_dir()];
    let entries = folders.into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Kills a parent that uses everything. The files that are there since.
fn kill_a_family() -> polyproc::Result<Vec<std::path::PathBuf>> {
    fn live(things: Things, pids: Queue<u32>) {
        let pool = Pool::new(2).unwrap();
        let (here, there) = pipe::<Vec<u8>, u8>().unwrap();
        let child = daemon().spawn(hold_out, (there,)).unwrap();
        here.send(vec![1; 300_000]).unwrap();
        let array = Array::<u64>::zeroed(100_000).unwrap();
        for worker in pool.stats().workers {
            pids.put(worker.pid).unwrap();
        }
        pids.put(child.pid()).unwrap();
        holding(&things, || {
            pids.put(std::process::id()).unwrap();
            let lent = &mut array.lock().unwrap();
            let _ = pool.for_each_chunk(lent, 1000, |_: &mut [u64]| Event::new().unwrap().wait());
        });
    }
    fn hold_out(end: polyproc::Connection<u8, Vec<u8>>) {
        end.recv().unwrap();
        Event::new().unwrap().wait();
    }
    let (before, pids) = (files(), Queue::new()?);
    let things = things()?;
    let process = daemon().spawn(live, (things.clone(), pids.clone()))?;
    let family: Vec<u32> = (0..4).map(|_| pids.get().unwrap()).collect();
    process.kill()?;
    all_are_free(Some(process.pid()), &things);
    assert!(process.join().is_err());
    for pid in family {
        wait_until("nobody of them is left", || matches!(state(pid), None | Some('Z' | 'X')));
    }
    Ok(files().difference(&before).cloned().collect())
}

#[test]
fn a_family_that_is_killed_leaves_no_file_and_no_process() -> polyproc::Result<()> {
    // Other programs use these places too. What they leave there meanwhile, they do not leave there three times.
    let mut left = Vec::new();
    for _ in 0..3 {
        left = kill_a_family()?;
        if left.is_empty() {
            return Ok(());
        }
    }
    panic!("there are new files each time: {left:?}");
}
