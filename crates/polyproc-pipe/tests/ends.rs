//! How ends end, and how they travel: by the thread that an end belongs to, too, which looks at as little as
//! it can.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_memory::handover;
use polyproc_pipe::{Bytes, Connection, Raw, RecvError, SendError, pipe, pipe_with_capacity, simplex};
use polyproc_testing::{Child, Watchdog, watchdog};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Numbers = Connection<u64, u64, Raw>;
type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// A forked child has all descriptors of its parent, those of other tests too, and keeps their ends alive.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

/// Both ends belong to the calling thread, and messages share lines.
fn own(here: &Numbers, there: &Numbers) {
    for number in 0..100 {
        here.send(number).unwrap();
        there.send(number).unwrap();
        assert_eq!((there.recv().unwrap(), here.recv().unwrap()), (number, number));
    }
    (0..20).for_each(|number| here.send(number).unwrap());
    (0..20).for_each(|number| there.send(number).unwrap());
    (0..18).for_each(|number| assert_eq!((there.recv().unwrap(), here.recv().unwrap()), (number, number)));
}

#[test]
fn after_a_close_its_owner_neither_sends_nor_receives() {
    let _alone = alone();
    let (here, there) = Numbers::pair().unwrap();
    own(&here, &there);
    here.close().unwrap();
    for _ in 0..20 {
        assert!(matches!(here.send(1), Err(SendError::Closed(1))));
        assert!(matches!(here.try_send(1), Err(SendError::Closed(1))));
        assert!(matches!(here.recv(), Err(RecvError::Closed)));
        assert!(matches!(here.try_recv(), Err(RecvError::Closed)));
        // The first one, too, is told so.
        assert!(matches!(there.send(1), Err(SendError::Disconnected(1))));
    }
    assert_eq!((there.recv().unwrap(), there.recv().unwrap()), (18, 19));
    assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
    assert!(matches!(there.try_recv(), Err(RecvError::Disconnected)));
}

#[test]
fn after_the_end_of_a_direction_its_owner_sends_nothing_here_or_elsewhere() {
    let _alone = alone();
    let (mut here, there) = Numbers::pair().unwrap();
    own(&here, &there);
    here.close_send().unwrap();
    for _ in 0..3 {
        for _ in 0..20 {
            assert!(matches!(here.send(1), Err(SendError::Closed(1))));
            assert!(matches!(here.try_send(1), Err(SendError::Closed(1))));
        }
        here = travels(&here).unwrap();
    }
    assert_eq!((there.recv().unwrap(), there.recv().unwrap()), (18, 19));
    assert!(matches!(there.recv(), Err(RecvError::Disconnected)));
    assert_eq!((here.recv().unwrap(), here.recv().unwrap()), (18, 19));
    there.send(5).unwrap();
    assert_eq!(here.recv().unwrap(), 5);
}

/// An end as another process would have it.
fn travels<C: serde::Serialize + serde::de::DeserializeOwned>(end: &C) -> Result<C, String> {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(end));
    let bytes = bytes.map_err(|error| error.to_string())?;
    let descriptors: Vec<OwnedFd> =
        descriptors.iter().map(|one| one.as_fd().try_clone_to_owned().unwrap()).collect();
    handover::receive(descriptors, || postcard::from_bytes(&bytes)).map_err(|error| error.to_string())
}

/// A death that nobody announces: there is no farewell of a process that was killed.
#[test]
fn who_sends_hears_of_a_death_by_itself() {
    let _alone = alone();
    for burst in [1, 100] {
        let (here, there) = Numbers::pair().unwrap();
        let child = Child::run(|| {
            here.close().unwrap();
            for number in there.iter() {
                there.send(number.unwrap()).unwrap();
            }
        });
        drop(there);
        for number in 0..50 {
            (0..burst).for_each(|_| here.send(number).unwrap());
            (0..burst).for_each(|_| assert_eq!(here.recv().unwrap(), number));
        }
        child.kill();
        let begin = Instant::now();
        let mut sent = 0;
        while begin.elapsed() < Duration::from_micros(200) {
            sent += u32::from(here.send(7).is_ok());
        }
        assert!(matches!(here.send(7), Err(SendError::Disconnected(7))), "{sent} were sent to nobody");
    }
}

/// Also who sends rarely, after a long burst in which the other side died.
#[test]
fn who_has_sent_a_long_burst_hears_of_a_death_before_two_hundred_messages_more() {
    let _alone = alone();
    let (here, there) = Numbers::pair().unwrap();
    let child = Child::run(|| {
        here.close().unwrap();
        there.iter().for_each(|number| _ = number.unwrap());
    });
    drop(there);
    (0..100_000).for_each(|number| here.send(number).unwrap());
    child.kill();
    let refused = (0..210).position(|_| {
        std::thread::sleep(Duration::from_micros(100));
        matches!(here.send(7), Err(SendError::Disconnected(7)))
    });
    assert!(refused.is_some());
}

#[test]
fn an_end_travels_only_between_messages_and_before_it_is_closed() {
    let _alone = alone();
    let (courier, at_courier) = simplex::<End>().unwrap();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    // Its descriptors have come, and the message is not received: they could not go along.
    there.send_with(b"x", &[there.as_fd()]).unwrap();
    assert!(here.prepare_wait().unwrap());
    let Err(SendError::Encode { message: here, error }) = courier.send(here) else { panic!("it went") };
    assert!(error.to_string().contains("encode") || !error.to_string().is_empty());
    let mut bytes = Vec::new();
    assert_eq!(here.recv_with(&mut bytes).unwrap().len(), 1);
    assert_eq!(bytes, b"x");
    // Now it can.
    courier.send(here).unwrap();
    let here = at_courier.recv().unwrap();
    there.send(vec![1, 2]).unwrap();
    assert_eq!(here.recv().unwrap(), [1, 2]);
    here.close().unwrap();
    let Err(SendError::Encode { message: here, .. }) = courier.send(here) else { panic!("it went") };
    assert!(here.is_closed());
    assert!(at_courier.try_recv().is_err());
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let [one, other] = [one, other].map(|fd| {
        let file = std::fs::File::from(fd.try_clone_to_owned().unwrap()).metadata().unwrap();
        (file.dev(), file.ino())
    });
    one == other
}

#[test]
fn the_descriptors_of_a_message_that_was_taken_back_are_nobody_elses() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let (first, second) = (tempfile(), tempfile());
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    for round in 0..50u8 {
        let taken_back = here.try_send_with(&[1; 20_000], &[first.as_fd(), first.as_fd()]);
        assert!(matches!(taken_back, Err(SendError::Full(()))));
        here.try_send_with(&[round], &[second.as_fd()]).unwrap();
        let mut bytes = Vec::new();
        let descriptors = there.recv_with(&mut bytes).unwrap();
        assert_eq!((bytes, descriptors.len()), (vec![round], 1));
        assert!(is_same(descriptors[0].as_fd(), second.as_fd()), "another message's descriptor");
    }
    assert!(fds() <= before, "{} descriptors are left", fds() - before);
}

/// A file without a name.
fn tempfile() -> OwnedFd {
    // SAFETY: the name is a string.
    let number = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(number >= 0);
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }
}

#[test]
fn more_descriptors_than_a_message_can_have_are_refused() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let many = vec![here.as_fd(); 65_536];
    for _ in 0..3 {
        let refused = here.send_with(b"x", &many).unwrap_err();
        assert!(matches!(refused, SendError::TooLarge { message: (), most: 65_535 }));
        assert_eq!(refused.to_string(), "the message has more descriptors than any can have, at most 65535");
        assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
    }
    here.send(vec![1]).unwrap();
    assert_eq!(there.recv().unwrap(), [1]);
}

/// The first send after a close, and after a drop, is told so, in the middle of a burst too.
#[test]
fn the_first_send_after_a_close_is_told_so() {
    let _alone = alone();
    for round in 0..100 {
        let (here, there) = Numbers::pair().unwrap();
        (0..round).for_each(|number| here.send(number).unwrap());
        there.close().unwrap();
        assert!(matches!(here.send(9), Err(SendError::Disconnected(9))), "round {round}");
    }
    let (here, there) = pipe::<String, String>().unwrap();
    here.send("kept".into()).unwrap();
    there.close().unwrap();
    assert!(matches!(here.send("back".into()), Err(SendError::Disconnected(text)) if text == "back"));
}
