//! Signals neither end a wait nor prolong it, whatever is waited for.

use polyproc::{
    Barrier, Condition, Event, JoinableQueue, Mutex, Process, Queue, RwLock, Semaphore, Value, pipe, wait,
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
