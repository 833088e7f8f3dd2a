//! Signals neither end a wait nor prolong it, whatever is waited for; and no wait asks for the time of day, which jumps.

use polyproc::{
    Barrier, Builder, Condition, Event, JoinableQueue, Mutex, Pool, Process, Queue, RwLock, Semaphore, Value,
    pipe, wait,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

polyproc::init_for_tests!();

static ALARMS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// From now on a signal each millisecond, whose handler makes no system call go on by itself.
fn interrupt_each_millisecond() {
    // SAFETY: all zeros are a sigaction without flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as *const () as usize;
    // SAFETY: the handler only touches an atomic.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }, 0);
    let each = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: each, it_value: each };
    // SAFETY: `timer` is of the right type.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }, 0);
}

const TIMEOUT: Duration = Duration::from_millis(100);

/// Runs a wait that should end with its time. What it says of itself: whether it had what it waited for.
fn takes_its_time(what: &str, wait: impl FnOnce() -> bool) {
    let (before, begin) = (ALARMS.load(Ordering::Relaxed), Instant::now());
    let had_it = wait();
    let elapsed = begin.elapsed();
    assert!(!had_it, "{what}: it was there");
    assert!(elapsed >= TIMEOUT, "{what} ended after {elapsed:?}");
    // Each interruption would have begun the time anew.
    assert!(elapsed < 20 * TIMEOUT, "{what} ended after {elapsed:?}");
    assert!(ALARMS.load(Ordering::Relaxed) > before + 5, "{what} was hardly interrupted");
}

/// From now on, whoever waits for a time of day, and not for one that only goes forward, dies of it.
fn forbid_the_time_of_day() {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    // How many of the next instructions are left out, if it is so and if not.
    let equal = |k: u32, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let any_bit = |k: u32, jt, jf| instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, k, jt, jf);
    let answer = |k: u32| instruction(libc::BPF_RET | libc::BPF_K, k, 0, 0);
    // `struct seccomp_data`: the number of the call, and 16 bytes in, its arguments.
    let argument = |index: u32| load(16 + 8 * index);
    let mut filter = [
        load(0),
        equal(libc::SYS_futex as u32, 4, 0),
        equal(libc::SYS_futex_waitv as u32, 7, 0),
        equal(libc::SYS_timerfd_settime as u32, 9, 0),
        equal(libc::SYS_semtimedop as u32, 8, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        argument(1),
        any_bit(libc::FUTEX_CLOCK_REALTIME as u32, 0, 4),
        // Without a time, as the C library's own waits are, the clock does not matter.
        argument(3),
        equal(0, 2, 3),
        argument(4),
        equal(libc::CLOCK_MONOTONIC as u32, 0, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is readable, and so is its filter.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
}

/// In a process of its own: the signals are for its only thread.
fn waits(rwlock: RwLock<u8>, written: RwLock<u8>) {
    let (semaphore, event, condition) =
        (Semaphore::new(0).unwrap(), Event::new().unwrap(), Condition::new().unwrap());
    let (mutex, barrier) = (Mutex::new(0u8).unwrap(), Barrier::new(2).unwrap());
    let (queue, tasks) = (Queue::<u8>::bounded(1).unwrap(), JoinableQueue::<u8>::new().unwrap());
    let (here, there) = pipe::<Vec<u8>, u8>().unwrap();
    interrupt_each_millisecond();
    takes_its_time("a semaphore", || semaphore.acquire_timeout(TIMEOUT).is_ok());
    takes_its_time("an event", || event.wait_timeout(TIMEOUT));
    takes_its_time("a condition", || {
        let (_guard, result) = condition.wait_timeout(mutex.lock().unwrap(), TIMEOUT).unwrap();
        !result.timed_out()
    });
    takes_its_time("a barrier", || barrier.wait_timeout(TIMEOUT).is_ok());
    takes_its_time("a writer", || rwlock.write_timeout(TIMEOUT).is_ok());
    takes_its_time("a reader", || written.read_timeout(TIMEOUT).is_ok());
    takes_its_time("a get", || queue.get_timeout(TIMEOUT).is_ok());
    queue.put(1).unwrap();
    takes_its_time("a put", || queue.put_timeout(2, TIMEOUT).is_ok());
    tasks.put(1).unwrap();
    takes_its_time("a join of tasks", || tasks.join_timeout(TIMEOUT));
    takes_its_time("a receiver", || here.recv_timeout(TIMEOUT).is_ok());
    takes_its_time("a poll", || here.poll(TIMEOUT).unwrap());
    takes_its_time("a wait for several", || !wait(&[&here], TIMEOUT).unwrap().is_empty());
    while here.try_send(vec![0; 50_000]).is_ok() {}
    takes_its_time("a sender", || here.send_timeout(vec![0; 400_000], TIMEOUT).is_ok());
    drop(there);
}

#[test]
fn signals_neither_end_nor_prolong_a_wait() -> polyproc::Result<()> {
    let (rwlock, written) = (RwLock::new(0u8)?, RwLock::new(0u8)?);
    let (_reading, _writing) = (rwlock.read()?, written.write()?);
    Process::spawn(waits, (rwlock.clone(), written.clone()))?.join()?;
    Ok(())
}

/// The same, and some more, where no wait may ask for the time of day.
fn waits_by_a_steady_clock(rwlock: RwLock<u8>, written: RwLock<u8>, held: Mutex<u8>) {
    let never = Event::new().unwrap();
    let pool = Pool::new(1).unwrap();
    // Ends with this process, also if that dies of a wait.
    let process = Builder::new().daemon(true).spawn(|never: Event| never.wait(), (never.clone(),)).unwrap();
    forbid_the_time_of_day();
    waits(rwlock, written);
    takes_its_time("a lock", || held.lock_timeout(TIMEOUT).is_ok());
    takes_its_time("a process", || process.join_timeout(TIMEOUT).is_ok());
    let result = pool.apply_async(|never: Event| never.wait(), (never.clone(),));
    takes_its_time("a result", || result.get_timeout(TIMEOUT).is_ok());
    pool.close();
    takes_its_time("a pool", || pool.join_timeout(TIMEOUT).is_ok());
    never.set();
    process.join().unwrap();
    pool.join().unwrap();
}

#[test]
fn no_wait_asks_for_the_time_of_day() -> polyproc::Result<()> {
    let (rwlock, written, held) = (RwLock::new(0u8)?, RwLock::new(0u8)?, Mutex::new(0u8)?);
    let (_reading, _writing, _locked) = (rwlock.read()?, written.write()?, held.lock()?);
    let handles = (rwlock.clone(), written.clone(), held.clone());
    Process::spawn(waits_by_a_steady_clock, handles)?.join()?;
    Ok(())
}

/// Takes what the parent gives at last, interrupted all the while.
fn takes(
    event: Event,
    semaphore: Semaphore,
    queue: Queue<u8>,
    mutex: Mutex<u8>,
    barrier: Barrier,
    done: Value<u8>,
) {
    interrupt_each_millisecond();
    event.wait();
    semaphore.acquire().forget();
    assert_eq!(queue.get().unwrap(), 7);
    *mutex.lock().unwrap() += 1;
    barrier.wait().unwrap();
    done.set(1).unwrap();
}

#[test]
fn signals_do_not_end_a_wait_without_timeout() -> polyproc::Result<()> {
    let (event, semaphore, queue) = (Event::new()?, Semaphore::new(0)?, Queue::new()?);
    let (mutex, barrier, done) = (Mutex::new(0u8)?, Barrier::new(2)?, Value::new(0u8)?);
    let guard = mutex.lock()?;
    let handles =
        (event.clone(), semaphore.clone(), queue.clone(), mutex.clone(), barrier.clone(), done.clone());
    let process = Process::spawn(takes, handles)?;
    let pause = || std::thread::sleep(Duration::from_millis(40));
    pause();
    event.set();
    pause();
    semaphore.release(1)?;
    pause();
    queue.put(7)?;
    pause();
    drop(guard);
    pause();
    assert_eq!(done.get()?, 0, "it waits at the barrier");
    barrier.wait()?;
    process.join()?;
    assert_eq!((done.get()?, *mutex.lock()?), (1, 1));
    Ok(())
}
