//! Descriptors that come with a message, and find no room in the process that receives it.
//!
//! Each test is in a child: the limit holds for a whole process.

#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, Raw, RecvError, SendError, pipe, pipe_with_capacity, wait};
use polyproc_testing::{Child, Slot, Watchdog, watchdog};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// A forked child has all descriptors of its parent, those of other tests too.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

fn set_limit(limit: u64) {
    // SAFETY: all zero is a limit.
    let mut limits: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: there is room for the limits.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) }, 0);
    limits.rlim_cur = limit.min(limits.rlim_max);
    // SAFETY: the limits are there.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) }, 0);
}

/// As many as a test needs.
const PLENTY: u64 = 1024;

/// Runs `f` with room for so many descriptors more, and looks whether it has left any.
fn with_room_for<T>(count: usize, f: impl FnOnce() -> T) -> T {
    let spare: Vec<_> = (0..=count).map(|_| null()).collect();
    let limit = spare[count].as_raw_fd();
    drop(spare);
    let before = open();
    set_limit(limit as u64);
    let result = f();
    set_limit(PLENTY);
    assert_eq!(open(), before, "descriptors are left");
    result
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn open() -> Vec<i32> {
    // SAFETY: takes a number only.
    (0..PLENTY as i32).filter(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0).collect()
}

#[track_caller]
fn assert_no_room<T>(received: Result<T, RecvError>) {
    match received {
        Err(RecvError::Io(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was received"),
    }
}

/// However it is received, asleep or not, and if there is room for a part of them.
#[test]
fn those_without_room_stay_with_their_message_until_there_is_some() {
    let _alone = alone();
    type Handle = Connection<u32, u32>;
    type Message = (u32, Option<Handle>);
    type Call = fn(&Connection<u32, Message>) -> Result<Message, RecvError>;
    let calls: [Call; 4] = [
        |end| end.recv(),
        |end| end.recv_timeout(Duration::from_secs(50)),
        |end| {
            assert!(end.poll(None).unwrap());
            end.try_recv()
        },
        |end| {
            assert_eq!(wait(&[end], None).unwrap(), [0]);
            end.try_recv()
        },
    ];
    // A handle has two.
    for (call, room) in calls.iter().flat_map(|call| [0, 1, 2].map(|room| (call, room))) {
        let (here, there) = pipe::<(u32, Option<Handle>), u32>().unwrap();
        let (kept, given) = pipe::<u32, u32>().unwrap();
        let (is_ready, are_sent) = (Slot::new(), Slot::new());
        let child = Child::run(|| {
            assert!(here.close().is_ok() && kept.close().is_ok() && given.close().is_ok());
            let first = |room| {
                with_room_for(room, || {
                    is_ready.add(1);
                    let first = call(&there);
                    if room == 2 {
                        first.map(|(n, handle)| assert!(n == 0 && handle.is_some()))
                    } else {
                        assert_no_room(first);
                        assert_no_room(there.try_recv());
                        assert_no_room(there.recv());
                        Ok(())
                    }
                })
            };
            first(room).unwrap();
            are_sent.wait();
            if room != 2 {
                // Others are behind them now; and it may be that nobody waits any more.
                first(0).unwrap();
                let (n, handle) = there.recv().unwrap();
                assert_eq!(n, 0);
                handle.unwrap().send(7).unwrap();
            }
            with_room_for(0, || assert!(matches!(there.recv(), Ok((1, None)))));
            let (n, handle) = there.recv().unwrap();
            assert_eq!(n, 2);
            handle.unwrap().send(8).unwrap();
            with_room_for(0, || assert!(matches!(there.recv(), Err(RecvError::Disconnected))));
        });
        drop(there);
        is_ready.wait();
        child.wait_asleep();
        here.send((0, Some(given))).unwrap();
        let (other_kept, other_given) = pipe::<u32, u32>().unwrap();
        here.send((1, None)).unwrap();
        here.send((2, Some(other_given))).unwrap();
        drop(here);
        are_sent.set(1);
        if room != 2 {
            assert_eq!(kept.recv().unwrap(), 7);
        }
        assert_eq!(other_kept.recv().unwrap(), 8);
        child.join();
    }
}

/// Of handles that this process has not had before: what comes with a message is all that they need.
#[test]
fn handles_need_no_more_room_than_what_comes_with_them() {
    let _alone = alone();
    type Handle = Connection<u32, u32>;
    type Message = (u32, Handle, Handle);
    let (here, there) = pipe::<Message, u32>().unwrap();
    let child = Child::run(|| {
        here.close().unwrap();
        for room in 0..=4 {
            with_room_for(room, || match there.recv() {
                Ok((n, first, second)) => {
                    assert_eq!((n, room), (0, 4), "what was refused before comes first");
                    first.send(1).unwrap();
                    second.send(2).unwrap();
                }
                refused => {
                    assert!(room < 4);
                    assert_no_room(refused);
                }
            });
        }
        // Twice the same end: each has a descriptor of its own, for which there has to be room; and for a
        // close.
        with_room_for(5, || {
            let (n, sender, receiver) = there.recv().unwrap();
            assert_eq!(n, 1);
            sender.close().unwrap();
            assert_eq!(receiver.recv().unwrap(), 3);
            assert_eq!(wait(&[&receiver], Duration::ZERO).unwrap(), []);
        });
    });
    drop(there);
    let ((first, at_first), (second, at_second)) = (pipe().unwrap(), pipe().unwrap());
    here.send((0, at_first, at_second)).unwrap();
    assert_eq!((first.recv().unwrap(), second.recv().unwrap()), (1, 2));
    let (third, at_third) = pipe::<u32, u32>().unwrap();
    third.send(3).unwrap();
    here.send((1, at_third.clone(), at_third)).unwrap();
    child.join();
}

#[test]
fn a_long_message_waits_for_them_whole() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let message: Vec<u8> = (0..100_000u32).map(|n| (n * 31) as u8).collect();
    let child = Child::run(|| {
        here.close().unwrap();
        let mut received = Vec::new();
        for room in 0..3 {
            with_room_for(room, || assert_no_room(there.recv_with(&mut received)));
        }
        let descriptors = with_room_for(3, || {
            // Those that are counted before are gone after.
            let descriptors = there.recv_with(&mut received).unwrap();
            descriptors.len()
        });
        assert_eq!((descriptors, &received), (3, &message));
        assert_eq!(there.recv().unwrap(), [1]);
    });
    drop(there);
    let null = null();
    here.send_with(&message, &[null.as_fd(); 3]).unwrap();
    here.send(vec![1]).unwrap();
    child.join();
}

#[test]
fn hundreds_stay_with_their_message() {
    let _alone = alone();
    let (here, there): (End, End) = Connection::pair().unwrap();
    let child = Child::run(|| {
        here.close().unwrap();
        set_limit(PLENTY);
        let mut received = Vec::new();
        let before = open().len();
        // The first of three packets has room for its own.
        set_limit(before as u64 + 300);
        assert_no_room(there.recv_with(&mut received));
        assert_no_room(there.try_recv_with(&mut received));
        set_limit(PLENTY);
        assert_eq!(there.recv_with(&mut received).unwrap().len(), 600);
        assert_eq!(received, b"many");
        assert_eq!(open().len(), before);
    });
    drop(there);
    let null = null();
    here.send_with(b"many", &[null.as_fd(); 600]).unwrap();
    child.join();
}

/// Of a message that is taken back.
#[test]
fn those_that_are_not_wanted_need_no_room() {
    let _alone = alone();
    type Handle = Connection<u32, u32>;
    let (here, there) =
        pipe_with_capacity::<(Vec<u8>, Option<Handle>), (), polyproc_pipe::Postcard>(4096).unwrap();
    let (kept, given) = pipe::<u32, u32>().unwrap();
    let (is_sent, is_received) = (Slot::new(), Slot::new());
    let child = Child::run(|| {
        assert!(here.close().is_ok() && kept.close().is_ok() && given.close().is_ok());
        is_sent.wait();
        with_room_for(0, || {
            assert_eq!(there.recv().unwrap().0, [2]);
            assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
        });
        is_received.set(1);
        let (bytes, handle) = there.recv().unwrap();
        assert_eq!(bytes, [3]);
        handle.unwrap().send(9).unwrap();
    });
    drop(there);
    let Err(SendError::Full((_, given))) =
        here.send_timeout((vec![1; 9_000], Some(given)), Duration::from_millis(1))
    else {
        panic!("there was room")
    };
    here.send((vec![2], None)).unwrap();
    is_sent.set(1);
    is_received.wait();
    here.send((vec![3], given)).unwrap();
    assert_eq!(kept.recv().unwrap(), 9);
    child.join();
}

/// A sender's attempt that ran into its deadline leaves some on the socket. Nobody can look behind them.
#[test]
fn those_of_no_message_keep_nobody_from_anything() {
    let _alone = alone();
    let (here, there) = pipe_with_capacity::<u64, u64, Raw>(4096).unwrap();
    let (are_sent, is_full, is_over) = (Slot::new(), Slot::new(), Slot::new());
    let child = Child::run(|| {
        here.close().unwrap();
        are_sent.wait();
        with_room_for(0, || {
            // Messages that need no room are received, and sent; who would wait for one is told.
            for n in 0..100 {
                assert_eq!(there.recv().unwrap(), n);
            }
            assert_no_room(there.try_recv());
            assert_no_room(there.recv());
            assert_no_room(there.recv_timeout(Duration::from_secs(10)));
            assert!(there.poll(None).unwrap() && there.prepare_wait().unwrap());
            assert_eq!(wait(&[&there], None).unwrap(), [0]);
            assert_no_room(there.recv());
            let mut n = 0;
            while there.try_send(n).is_ok() {
                n += 1;
            }
            is_full.set(n);
            there.send(n).unwrap();
            is_over.wait();
            // The end is behind them, too.
            assert!(matches!(there.recv_timeout(Duration::from_secs(10)), Err(RecvError::Disconnected)));
            assert!(matches!(there.send(1), Err(SendError::Disconnected(1))));
        });
    });
    drop(there);
    announce(&here, 5);
    for n in 0..100 {
        here.send(n).unwrap();
    }
    are_sent.set(1);
    let sent = is_full.wait();
    child.wait_asleep();
    for n in 0..=sent {
        assert_eq!(here.recv().unwrap(), n);
    }
    drop(here);
    is_over.set(1);
    child.join();
}

/// At each end one thread waits for messages, and another for room: they take from the socket what is the
/// other's.
#[test]
fn they_pass_between_the_bells_of_others() {
    let _alone = alone();
    polyproc_testing::woken_in_time(|| {
        let before = polyproc_sys::futex::backstop_rescues();
        let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
        let null = null();
        let count = |n: usize| if n.is_multiple_of(3) { n % 5 } else { 0 };
        std::thread::scope(|scope| {
            for end in [&here, &there] {
                scope.spawn(|| {
                    for n in 0..5_000 {
                        end.send_with(&vec![n as u8; n % 900], &vec![null.as_fd(); count(n)]).unwrap();
                    }
                });
                scope.spawn(|| {
                    for n in 0..5_000 {
                        if n % 1_000 == 0 {
                            // The other side falls asleep meanwhile.
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        let mut received = Vec::new();
                        assert_eq!(end.recv_with(&mut received).unwrap().len(), count(n), "{n}");
                        assert!(received == vec![n as u8; n % 900]);
                    }
                });
            }
        });
        polyproc_sys::futex::backstop_rescues() - before
    });
}

/// What a sender puts on the socket before a message with a descriptor; the message does not follow.
fn announce(end: &impl AsFd, serial: u64) {
    let null = null();
    let mut bytes = [b'd'; 9];
    bytes[1..].copy_from_slice(&serial.to_ne_bytes());
    // The header of a control message: its length, level and type; and then the number.
    let kind = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
    let mut control = [20, kind, null.as_raw_fd() as u64];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 9 };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = 24;
    let socket = end.as_fd().as_raw_fd();
    // SAFETY: one byte is there.
    let noticed = unsafe { libc::send(socket, c"n".as_ptr().cast(), 1, 0) };
    // SAFETY: all that the message refers to is alive.
    let sent = unsafe { libc::sendmsg(socket, &message, 0) };
    assert_eq!((noticed, sent), (1, 9), "{}", io::Error::last_os_error());
}

/// A process that may not wait for anything gets the kernel's error, and what it has sent of the message is
/// taken back.
#[test]
fn an_error_in_the_middle_of_a_long_message_takes_it_back() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let sent =
        with_limit_of_none(|| here.send_timeout(vec![1; 10_000], std::time::Duration::from_millis(50)));
    assert!(matches!(sent, Err(polyproc_pipe::SendError::Io { .. })), "{sent:?}");
    assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
    here.send(vec![2; 100]).unwrap();
    assert_eq!(there.recv().unwrap(), [2; 100]);
}

fn with_limit_of_none<T>(f: impl FnOnce() -> T) -> T {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: there is room for the limits.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut before) };
    set_limit(0);
    let result = f();
    set_limit(before.rlim_cur);
    result
}

/// A task whose socket fails while a part of its message is under way: as above.
#[cfg(feature = "tokio")]
#[test]
fn an_error_in_the_middle_of_a_tasks_long_message_takes_it_back() {
    let _alone = alone();
    let replaces = |end: &End, with: &OwnedFd| {
        // SAFETY: both numbers are of open descriptors; that of the end stays the end's, and open.
        assert!(unsafe { libc::dup2(with.as_raw_fd(), end.as_fd().as_raw_fd()) } >= 0);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let kept = here.as_fd().try_clone_to_owned().unwrap();
    let null = null();
    runtime.block_on(async {
        let mut sending = std::pin::pin!(here.send_async(vec![1; 100_000]));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(sending.as_mut().poll(&mut context).is_pending());
        // The other side has the beginning, and not more.
        assert!(matches!(there.recv_timeout(Duration::from_millis(1)), Err(RecvError::Empty)));
        assert!(sending.as_mut().poll(&mut context).is_pending());
        replaces(&here, &null);
        let sent = sending.await;
        replaces(&here, &kept);
        let Err(SendError::Io { message, error }) = sent else { panic!("{sent:?}") };
        assert_eq!((message.len(), error.raw_os_error()), (100_000, Some(libc::ENOTSOCK)));
    });
    here.send(vec![2]).unwrap();
    assert_eq!(there.recv().unwrap(), [2]);
}
