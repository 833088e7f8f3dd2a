//! What somebody tries who does not believe it yet.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{
    Bytes, Connection, Raw, RecvError, SendError, Waitable, pipe, pipe_with_capacity, simplex, wait,
};
use polyproc_testing::{Child, watchdog};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const GIB: usize = 1 << 30;

/// A forked child has all descriptors of its parent, those of other tests too, and keeps their ends alive.
fn alone() -> (MutexGuard<'static, ()>, polyproc_testing::Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

#[test]
fn a_message_of_a_gibibyte_passes_and_one_byte_more_does_not() {
    let _alone = alone();
    let available = std::fs::read_to_string("/proc/meminfo").unwrap();
    let available = available.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    let available: u64 = available.trim().trim_end_matches(" kB").parse().unwrap();
    if available < 6 << 20 {
        println!("left out: {available} kB of memory are too few");
        return;
    }
    let (here, there) = Connection::<Vec<u8>, Vec<u8>, Bytes>::pair().unwrap();
    let mut message = vec![1; GIB + 1];
    (message[12_345], message[GIB - 1]) = (2, 3);
    let Err(SendError::TooLarge { message: back, most }) = here.send(message) else { panic!("it was sent") };
    assert_eq!((back.len(), most), (GIB + 1, GIB));
    message = back;
    message.truncate(GIB);
    std::thread::scope(|scope| {
        scope.spawn(|| here.send(message).unwrap());
        assert!(matches!(there.recv_bytes(GIB - 1), Err(RecvError::TooLong { length: GIB, .. })));
        let got = there.recv().unwrap();
        assert_eq!((got.len(), got[0], got[12_345], got[GIB - 1]), (GIB, 1, 2, 3));
    });
    here.send(vec![7]).unwrap();
    assert_eq!(there.recv().unwrap(), [7]);
}

#[test]
fn messages_of_nothing_are_messages() {
    let _alone = alone();
    let (here, there) = pipe::<(), Option<()>>().unwrap();
    assert!(!there.poll(Duration::ZERO).unwrap());
    for _ in 0..3 {
        here.send(()).unwrap();
        there.send(None).unwrap();
    }
    for _ in 0..3 {
        assert!(there.poll(Duration::ZERO).unwrap());
        there.recv().unwrap();
        assert!(here.poll(None).unwrap());
        assert_eq!(here.recv().unwrap(), None);
    }
    assert!(!there.poll(Duration::ZERO).unwrap() && !here.poll(Duration::ZERO).unwrap());
    let (here, there) = Connection::<[u8; 0], [u8; 0], Raw>::pair().unwrap();
    (0..100_000).for_each(|_| _ = here.try_send([]));
    drop(here);
    assert!(there.iter().map(Result::unwrap).count() > 1_000);
}

#[test]
fn the_longest_times_are_no_different_from_none() {
    let _alone = alone();
    let (here, there) = pipe::<u32, u32>().unwrap();
    here.send_timeout(1, Duration::MAX).unwrap();
    assert!(there.poll(Duration::MAX).unwrap());
    assert_eq!(wait(&[&there], Duration::MAX).unwrap(), [0]);
    assert_eq!(there.recv_timeout(Duration::MAX).unwrap(), 1);
    // They do wait.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            assert!(there.poll(Duration::MAX).unwrap());
            assert_eq!(there.recv().unwrap(), 2);
            assert_eq!(wait(&[&there], Duration::from_secs(u64::MAX)).unwrap(), [0]);
            assert_eq!(there.recv().unwrap(), 3);
            there.recv_timeout(Duration::MAX).unwrap()
        });
        for number in 2..5 {
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waiting.is_finished());
            here.send(number).unwrap();
        }
        assert_eq!(waiting.join().unwrap(), 4);
    });
    let begin = Instant::now();
    assert!(matches!(there.recv_timeout(Duration::from_nanos(1)), Err(RecvError::Empty)));
    assert!(matches!(there.recv_until(Instant::now() - Duration::from_secs(1)), Err(RecvError::Empty)));
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_wait_for_nothing_for_the_same_and_for_the_dead() {
    let _alone = alone();
    let none: [BorrowedFd<'_>; 0] = [];
    assert!(wait(&none, Duration::ZERO).unwrap().is_empty());
    let begin = Instant::now();
    assert!(wait(&none, Duration::from_millis(20)).unwrap().is_empty());
    assert!(begin.elapsed() >= Duration::from_millis(20));

    let (here, there) = pipe::<u8, u8>().unwrap();
    let (sender, receiver) = simplex::<u8>().unwrap();
    let same: [Waitable<'_>; 4] = [(&there).into(), (&receiver).into(), (&there).into(), (&there).into()];
    assert!(wait(&same, Duration::from_millis(5)).unwrap().is_empty());
    here.send(1).unwrap();
    assert_eq!(wait(&same, None).unwrap(), [0, 2, 3]);
    there.recv().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&same, None).unwrap());
        std::thread::sleep(Duration::from_millis(10));
        sender.send(1).unwrap();
        assert_eq!(waiting.join().unwrap(), [1]);
    });
    receiver.recv().unwrap();

    // The end of a process that has ended already, and is reaped by then.
    let child = Child::run(|| {});
    // SAFETY: takes numbers only.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, child.pid(), 0) };
    assert!(number >= 0);
    // SAFETY: a new descriptor that nobody else owns.
    let sentinel = unsafe { OwnedFd::from_raw_fd(number as i32) };
    child.join();
    for timeout in [Some(Duration::ZERO), Some(Duration::MAX), None] {
        let all: [Waitable<'_>; 2] = [(&there).into(), sentinel.as_fd().into()];
        assert_eq!(wait(&all, timeout).unwrap(), [1]);
    }
    // An end that is closed here, and one whose other end is gone.
    drop(sender);
    there.close().unwrap();
    assert_eq!(wait(&[there.as_fd(), receiver.as_fd()], None).unwrap(), [0, 1]);
    assert!(there.poll(None).unwrap());
    assert!(matches!(there.recv(), Err(RecvError::Closed)));
}

#[test]
fn two_threads_send_at_once_and_no_message_is_torn() {
    let _alone = alone();
    let (here, there) = pipe_with_capacity::<Vec<u8>, (), Bytes>(4096).unwrap();
    const EACH: usize = 2_000;
    let length = |number: usize| [3, 3, 3, 24, 900, 5_000, 0][number % 7];
    std::thread::scope(|scope| {
        for thread in 0..2u8 {
            let here = &here;
            scope.spawn(move || {
                for number in 0..EACH {
                    let mut message = vec![thread; 5 + length(number)];
                    message[1..5].copy_from_slice(&(number as u32).to_ne_bytes());
                    here.send(message).unwrap();
                }
            });
        }
        let mut next = [0; 2];
        for _ in 0..2 * EACH {
            let message = there.recv().unwrap();
            let thread = usize::from(message[0]);
            assert_eq!(message[1..5], (next[thread] as u32).to_ne_bytes());
            assert_eq!(message.len(), 5 + length(next[thread]));
            assert!(message[5..].iter().all(|byte| usize::from(*byte) == thread));
            next[thread] += 1;
        }
    });
    assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
}

#[test]
fn who_drops_an_end_wakes_whoever_blocks_at_the_other() {
    let _alone = alone();
    let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(4096).unwrap();
    let rescues = polyproc_sys::futex::backstop_rescues();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| here.recv());
        let polling = {
            let here = here.clone();
            scope.spawn(move || wait(&[&here], None))
        };
        let sending = scope.spawn(|| here.send(vec![1; 100_000]));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!receiving.is_finished() && !polling.is_finished() && !sending.is_finished());
        let begin = Instant::now();
        drop(there);
        assert!(matches!(receiving.join().unwrap(), Err(RecvError::Disconnected)));
        assert!(
            matches!(sending.join().unwrap(), Err(SendError::Disconnected(back)) if back.len() == 100_000)
        );
        assert_eq!(polling.join().unwrap().unwrap(), [0]);
        assert!(begin.elapsed() < Duration::from_secs(5));
    });
    assert_eq!(polyproc_sys::futex::backstop_rescues(), rescues);
}

#[derive(Debug, Serialize, Deserialize)]
enum Parcel {
    End(Connection<Parcel, Parcel>),
    Text(String),
}

/// Each end may go through the other pipe, or through a clone of its own other end.
#[test]
fn ends_travel_through_ends() {
    let _alone = alone();
    let (here, there) = pipe::<Parcel, Parcel>().unwrap();
    let (own, given) = pipe::<Parcel, Parcel>().unwrap();
    own.send(Parcel::Text("before".into())).unwrap();
    here.send(Parcel::End(given)).unwrap();
    let child = Child::run(|| {
        // The fork has copies of the others' ends.
        here.close().unwrap();
        own.close().unwrap();
        let Parcel::End(end) = there.recv().unwrap() else { panic!("a text") };
        let Parcel::Text(text) = end.recv().unwrap() else { panic!("an end") };
        end.send(Parcel::Text(text + ", after")).unwrap();
        // It goes back through another, which went through it.
        let (kept, other) = pipe().unwrap();
        end.send(Parcel::End(other)).unwrap();
        kept.send(Parcel::End(end)).unwrap();
    });
    drop(there);
    let Parcel::Text(text) = own.recv().unwrap() else { panic!("an end") };
    assert_eq!(text, "before, after");
    let Parcel::End(other) = own.recv().unwrap() else { panic!("a text") };
    let Parcel::End(end) = other.recv().unwrap() else { panic!("a text") };
    child.join();
    end.send(Parcel::Text("home".into())).unwrap();
    assert!(matches!(own.recv().unwrap(), Parcel::Text(text) if text == "home"));
    assert!(matches!(here.send(Parcel::Text(String::new())), Err(SendError::Disconnected(_))));
}

/// Nobody can use an end that went to its own other side while the sender keeps it; both find that out.
#[test]
fn an_end_sent_through_itself_is_an_error_and_no_more() {
    let _alone = alone();
    let (here, there) = pipe::<Parcel, Parcel>().unwrap();
    here.send(Parcel::End(here.clone())).unwrap();
    let Parcel::End(twin) = there.recv().unwrap() else { panic!("a text") };
    let text = || Parcel::Text("x".into());
    let refused = twin.send(text()).is_err() || here.send(text()).is_err();
    assert!(refused, "two used one end, and nobody was told");
    assert!(matches!(there.try_recv(), Err(RecvError::Empty | RecvError::Corrupt) | Ok(Parcel::Text(_))));
    drop((here, twin));
    while there.try_recv().is_ok() {}
}

#[test]
fn the_error_of_too_few_descriptors_says_so() {
    let _alone = alone();
    Child::run(|| {
        let limit = libc::rlimit { rlim_cur: 100, rlim_max: 100 };
        // SAFETY: `limit` is of the right type.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        for _ in 0..3 {
            let mut pipes = Vec::new();
            let error = loop {
                match pipe::<usize, usize>() {
                    Ok(pipe) => pipes.push(pipe),
                    Err(error) => break error,
                }
                assert!(pipes.len() <= 100);
            };
            assert!(pipes.len() > 25, "only {} pipes", pipes.len());
            let said = error.to_string();
            assert!(said.contains("descriptor") || said.contains("open files"), "{said:?}");
            for (number, (here, there)) in pipes.iter().enumerate() {
                here.send(number).unwrap();
                assert_eq!(there.recv().unwrap(), number);
            }
        }
    })
    .join();
}

/// Nothing of a pipe is left to a program that this one becomes.
/// Whatever of the thread's own is gone by then.
#[test]
fn what_a_thread_leaves_behind_may_still_send_and_receive() {
    struct Last(Connection<String, String>);
    impl Drop for Last {
        fn drop(&mut self) {
            assert_eq!(self.0.recv().unwrap(), "there");
            self.0.send("last".to_owned()).unwrap();
            assert!(wait(&[&self.0], Duration::ZERO).unwrap().is_empty());
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }
    let _alone = alone();
    for is_first in [true, false] {
        let (here, there) = pipe::<String, String>().unwrap();
        here.send("there".to_owned()).unwrap();
        let leaves = move || {
            if is_first {
                LAST.with_borrow_mut(|_| {});
            }
            there.send("first".to_owned()).unwrap();
            LAST.set(Some(Last(there)));
        };
        std::thread::spawn(leaves).join().unwrap();
        assert_eq!(here.recv().unwrap(), "first");
        assert_eq!(here.recv().unwrap(), "last");
        assert!(matches!(here.recv(), Err(RecvError::Disconnected)));
    }
}

#[test]
fn no_descriptor_survives_an_exec() {
    let _alone = alone();
    let stays = |fd: BorrowedFd<'_>| {
        // SAFETY: takes numbers only.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC == 0 }
    };
    let (here, there) = Connection::<Vec<u8>, Vec<u8>, Bytes>::pair().unwrap();
    assert!(!stays(here.as_fd()) && !stays(there.as_fd()));
    here.send_with(b"x", &[here.as_fd()]).unwrap();
    let descriptors = there.recv_with(&mut Vec::new()).unwrap();
    assert!(!stays(descriptors[0].as_fd()));
    here.close().unwrap();
    assert!(!stays(here.as_fd()), "of an end that is closed");
}
