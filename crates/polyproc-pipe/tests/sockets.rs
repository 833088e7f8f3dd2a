//! What comes of it when somebody does to a connection's socket what the connection itself never does, or
//! when the system refuses descriptors or memory.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, RecvError, SendError, pipe_with_capacity, wait};
use polyproc_testing::{Child, Slot, Watchdog, watchdog};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// A forked child has all descriptors of its parent, those of other tests too.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

fn pair() -> (End, End) {
    pipe_with_capacity(4096).unwrap()
}

/// How long the calling thread has worked.
fn worked() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs `f`, which waits for at least as long as it may work.
fn at_rest<T>(f: impl FnOnce() -> T) -> T {
    let (begin, before) = (Instant::now(), worked());
    let result = f();
    let (worked, passed) = (worked() - before, begin.elapsed());
    assert!(worked < passed / 4 + Duration::from_millis(20), "worked {worked:?} of {passed:?}");
    result
}

/// No bell rings any more; and a socket that is shut down is readable for ever.
#[test]
fn a_peer_that_shuts_its_socket_down_is_gone() {
    let _alone = alone();
    for how in [libc::SHUT_WR, libc::SHUT_RDWR] {
        let (here, there) = pair();
        there.send(vec![1]).unwrap();
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::shutdown(there.as_fd().as_raw_fd(), how) }, 0);
        assert_eq!(here.recv().unwrap(), [1]);
        let late = Duration::from_secs(10);
        at_rest(|| assert!(matches!(here.recv_timeout(late), Err(RecvError::Disconnected)), "{how}"));
        assert!(matches!(here.recv(), Err(RecvError::Disconnected)));
        assert!(matches!(here.send(vec![2]), Err(SendError::Disconnected(_))));
        assert_eq!(wait(&[&here], late).unwrap(), [0]);
    }
    // Who only hears nothing is rung for in vain, and that is all.
    let (here, there) = pair();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::shutdown(there.as_fd().as_raw_fd(), libc::SHUT_RD) }, 0);
    at_rest(|| assert!(matches!(here.recv_timeout(Duration::from_millis(50)), Err(RecvError::Empty))));
    here.send(vec![3]).unwrap();
    assert_eq!(there.try_recv().unwrap(), [3]);
}

/// Nor can poll(2) be asked by a process that may have none.
#[test]
fn who_may_have_no_descriptors_hears_of_the_end() {
    let _alone = alone();
    let (here, there) = pair();
    let is_asked = Slot::new();
    let child = Child::run(|| {
        here.close().unwrap();
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limits are there.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) }, 0);
        is_asked.set(1);
        assert_eq!(there.recv().unwrap(), [1]);
        at_rest(|| assert!(matches!(there.recv(), Err(RecvError::Disconnected))));
    });
    drop(there);
    is_asked.wait();
    here.send(vec![1]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    drop(here);
    child.join();
}

/// So many messages with a descriptor that no more fit on the socket.
fn fill(end: &End) -> usize {
    let null = null();
    (0..).take_while(|_| end.try_send_with(b"", &[null.as_fd()]).is_ok()).count()
}

fn null() -> std::fs::File {
    std::fs::File::open("/dev/null").unwrap()
}

/// In a call that has no deadline.
#[test]
fn who_waits_for_room_for_descriptors_hears_of_a_close_and_of_the_end() {
    let _alone = alone();
    for closes in [true, false] {
        let (here, there) = pair();
        assert!(fill(&here) > 0);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| at_rest(|| here.send_with(b"one more", &[null().as_fd()])));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!sending.is_finished());
            if closes {
                here.close().unwrap();
                assert!(matches!(sending.join().unwrap(), Err(SendError::Closed(()))));
            } else {
                drop(there);
                assert!(matches!(sending.join().unwrap(), Err(SendError::Disconnected(()))));
            }
        });
    }
}

/// Some of its descriptors were sent: they are closed at the other side, and the next message has its own.
#[test]
fn descriptors_of_a_message_for_which_there_was_no_room_are_taken_back() {
    let _alone = alone();
    let (here, there) = pair();
    let most = fill(&here);
    let take = |count: usize| {
        for _ in 0..count {
            assert_eq!(there.recv_with(&mut Vec::new()).unwrap().len(), 1);
        }
    };
    take(most);
    let null = null();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..3 {
        // Room for one packet more.
        (1..most).for_each(|_| here.try_send_with(b"", &[null.as_fd()]).unwrap());
        let sent = here.try_send_with(b"two packets", &[null.as_fd(); 254]);
        assert!(matches!(sent, Err(SendError::Full(()))));
        take(most - 1);
        assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
        assert_eq!(open(), before);
    }
    here.send_with(b"two packets", &[null.as_fd(); 254]).unwrap();
    assert_eq!(there.recv_with(&mut Vec::new()).unwrap().len(), 254);
}

/// Whoever had an end before may have kept its socket, and may have the kernel add what nobody asked for.
#[test]
fn what_the_kernel_adds_to_a_packet_is_closed() {
    const SO_PASSPIDFD: libc::c_int = 76;
    let _alone = alone();
    let (here, there) = pair();
    let on: libc::c_int = 1;
    // SAFETY: a number is there, as the size says.
    let result = unsafe {
        libc::setsockopt(
            here.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return; // Before Linux 6.5.
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for n in 0..10 {
        assert!(!here.prepare_wait().unwrap());
        there.send(vec![n]).unwrap();
        assert_eq!(here.recv().unwrap(), [n]);
    }
    assert!(!here.prepare_wait().unwrap());
    assert_eq!(open(), before);
    let null = std::fs::File::open("/dev/null").unwrap();
    there.send_with(b"one", &[null.as_fd()]).unwrap();
    assert_eq!(here.recv_with(&mut Vec::new()).unwrap().len(), 1);
    assert_eq!(open(), before + 1);
}

/// Limits the addresses of this process to so many bytes more than it has.
fn limit_memory(more: Option<u64>) {
    // SAFETY: all zero is a limit.
    let mut limits: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: there is room for the limits.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limits) }, 0);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: takes a number only.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    limits.rlim_cur = more.map_or(limits.rlim_max, |more| pages * page + more);
    // SAFETY: the limits are there.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limits) }, 0);
}

/// It is received when there is.
#[test]
fn a_message_for_which_there_is_no_memory_is_an_error_and_stays() {
    let _alone = alone();
    // More than an allocator has addresses for.
    let length = 100 << 20;
    for more in [300_000, 30 << 20] {
        let (here, there) = Connection::<Vec<u8>, Vec<u8>, Bytes>::pair().unwrap();
        let child = Child::run(|| {
            here.close().unwrap();
            // Whatever has to be allocated once.
            assert_eq!(there.recv().unwrap(), [1]);
            limit_memory(Some(more));
            for _ in 0..3 {
                match there.recv() {
                    Err(RecvError::Io(error)) => assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory),
                    received => panic!("{:?}", received.map(|message| message.len())),
                }
            }
            there.send(vec![3]).unwrap();
            limit_memory(None);
            assert!(there.recv().unwrap() == vec![2; length]);
        });
        drop(there);
        here.send(vec![1]).unwrap();
        here.send(vec![2; length]).unwrap();
        assert_eq!(here.recv().unwrap(), [3]);
        child.join();
    }
}
