//! A peer that writes what cannot be, one thing at a time: it is found out, for good, and costs nobody else
//! anything.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_memory::handover::{self, Descriptor};
use polyproc_pipe::{Bytes, Connection, Raw, RecvError, SendError, pipe_with_capacity, wait};
use polyproc_testing::{Watchdog, watchdog};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

const WRITTEN: u64 = 1 << 23;
const RUN: u64 = 1 << 22;
const ABORT: u64 = 1 << 21;
const MORE: u64 = 1 << 20;
const GROWN: u64 = 1 << 19;
const CLOSED: u64 = 1 << 18;
const FINAL: u64 = 1 << 17;
/// Well below the backstop's quarter of a second.
const SOON: Duration = Duration::from_millis(100);
/// In a header: so many bytes.
const fn of(length: u64) -> u64 {
    length << 24
}

/// The header of a run of so many messages of so many bytes.
const fn run(messages: u64, length: u64) -> u64 {
    WRITTEN | RUN | of(length) | (8 + messages * length.next_multiple_of(8))
}

/// The mapping that is looked for is the last one.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

/// The ring by which the second end of the pipe that was made last sends, of 4 KiB.
fn ring() -> *mut u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("memfd:polyproc:pipe")).expect("a mapped pipe");
    let from = usize::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap();
    // Behind the page with the control words, and the first ring.
    (from as *mut u64).wrapping_add(1024)
}

/// Writes words to the ring, from a word on.
fn lie(ring: *mut u64, at: usize, words: &[u64]) {
    for (place, word) in words.iter().enumerate().rev() {
        let there = ring.wrapping_add((at + place) % 512);
        // SAFETY: within the ring of 512 words.
        unsafe { there.write_volatile(*word) };
    }
}

/// Whatever is tried, it is corrupt, at once, and stays so.
fn is_found_out(here: &End, what: &str) {
    let begin = Instant::now();
    for _ in 0..2 {
        assert!(matches!(here.recv(), Err(RecvError::Corrupt)), "{what}");
        assert!(matches!(here.try_recv(), Err(RecvError::Corrupt)), "{what}");
        assert!(matches!(here.recv_bytes(3), Err(RecvError::Corrupt)), "{what}");
        assert!(matches!(here.recv_timeout(Duration::from_secs(9)), Err(RecvError::Corrupt)), "{what}");
        assert!(here.poll(None).unwrap() && here.prepare_wait().unwrap(), "{what}: it is news");
        assert_eq!(wait(&[here], None).unwrap(), [0], "{what}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{what}");
    // From another thread, too.
    std::thread::scope(|scope| {
        let other = scope.spawn(|| matches!(here.recv(), Err(RecvError::Corrupt)));
        assert!(other.join().unwrap(), "{what}");
    });
    here.send(vec![1]).unwrap();
}

#[test]
fn a_header_that_cannot_be_is_found_out() {
    let _alone = alone();
    let headers = [
        of(8),
        of(1),
        1,
        ABORT | of(8),
        MORE | of(16),
        WRITTEN | of(4_088),
        WRITTEN | of(1 << 39),
        WRITTEN | ABORT,
        WRITTEN | FINAL | of(8),
        WRITTEN | FINAL | 1,
        WRITTEN | GROWN,
        WRITTEN | MORE,
        WRITTEN | MORE | of(7),
        WRITTEN | MORE | CLOSED | of(16),
        WRITTEN | MORE | FINAL | of(16),
        WRITTEN | MORE | (1 << 16) | of(16),
        WRITTEN | CLOSED | of(8),
        WRITTEN | RUN,
        WRITTEN | RUN | of(8),
        run(0, 8),
        run(1, 0),
        run(1, 25),
        run(8, 8),
        run(1, 8) + 4,
        run(1, 16) + 8,
        run(1, 8) | MORE,
    ];
    for header in headers {
        let (here, _there): (End, End) = pipe_with_capacity(4096).unwrap();
        lie(ring(), 0, &[header, 100, 0]);
        is_found_out(&here, &format!("{header:#x}"));
    }
}

/// Behind the first part of a message of 100 bytes, of which 8 have come.
#[test]
fn a_part_that_cannot_be_is_found_out() {
    let _alone = alone();
    let headers = [
        WRITTEN | ABORT | of(8),
        WRITTEN | MORE,
        WRITTEN | MORE | of(92),
        WRITTEN | MORE | of(200),
        WRITTEN,
        WRITTEN | of(8),
        WRITTEN | of(91),
        WRITTEN | of(93),
        WRITTEN | FINAL,
        WRITTEN | GROWN,
        run(1, 8),
        MORE | of(8),
        of(92),
    ];
    for header in headers {
        let (here, _there): (End, End) = pipe_with_capacity(4096).unwrap();
        lie(ring(), 0, &[WRITTEN | MORE | of(16), 100, 7, header, 0]);
        is_found_out(&here, &format!("{header:#x} in the middle"));
    }
    for total in [0, 8, (1 << 30) + 1, 1 << 63, u64::MAX] {
        let (here, _there): (End, End) = pipe_with_capacity(4096).unwrap();
        lie(ring(), 0, &[WRITTEN | MORE | of(16), total, 7, 0]);
        is_found_out(&here, &format!("{total} bytes in all"));
    }
}

#[test]
fn a_run_that_becomes_something_else_is_found_out() {
    let _alone = alone();
    let run = |messages| run(messages, 8);
    let lies = [
        0,
        run(1),
        run(1) | CLOSED,
        run(8),
        run(2) + 4,
        run(3) ^ of(16),
        run(3) ^ RUN,
        run(3) ^ WRITTEN,
        WRITTEN | of(8),
    ];
    for lie_of_it in lies {
        let (here, _there): (End, End) = pipe_with_capacity(4096).unwrap();
        lie(ring(), 0, &[run(2), 1, 2, 3, 4, 5, 6, 7, 0]);
        assert_eq!(here.recv().unwrap(), 1u64.to_ne_bytes());
        assert_eq!(here.recv().unwrap(), 2u64.to_ne_bytes());
        assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
        lie(ring(), 0, &[lie_of_it]);
        is_found_out(&here, &format!("{lie_of_it:#x} instead of {:#x}", run(2)));
    }
}

/// Also if the other side mends it.
#[test]
fn what_was_corrupt_once_is_so_for_good() {
    let _alone = alone();
    let (here, _there): (End, End) = pipe_with_capacity(4096).unwrap();
    lie(ring(), 0, &[WRITTEN | ABORT, 7, 0]);
    assert!(matches!(here.recv(), Err(RecvError::Corrupt)));
    lie(ring(), 0, &[WRITTEN | of(8), 7, 0]);
    is_found_out(&here, "mended");

    let (here, there) = pipe_with_capacity::<u64, u64, Raw>(4096).unwrap();
    for number in 0..20 {
        there.send(number).unwrap();
        assert_eq!(here.recv().unwrap(), number);
    }
    let (here, _there) = pipe_with_capacity::<u64, u64, Raw>(4096).unwrap();
    lie(ring(), 0, &[WRITTEN | of(8), 1, WRITTEN | of(8), 2, WRITTEN | ABORT]);
    assert_eq!((here.recv().unwrap(), here.recv().unwrap()), (1, 2));
    assert!(matches!(here.recv(), Err(RecvError::Corrupt)));
    lie(ring(), 4, &[WRITTEN | of(8), 3, 0]);
    for _ in 0..3 {
        assert!(matches!(here.recv(), Err(RecvError::Corrupt)));
        assert!(matches!(here.try_recv(), Err(RecvError::Corrupt)));
    }
}

#[test]
fn what_was_sent_stays_received_and_sending_goes_on_its_own_way() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    there.send(vec![1; 10]).unwrap();
    there.send(vec![2; 100]).unwrap();
    // Behind 8 + 16 and 8 + 104 bytes.
    lie(ring(), 17, &[WRITTEN | ABORT, 0]);
    assert_eq!(here.recv().unwrap(), [1; 10]);
    assert_eq!(here.recv().unwrap(), [2; 100]);
    is_found_out(&here, "an end of nothing");
    assert_eq!(there.recv().unwrap(), [1]);
}

/// A sender's own line is not another's to write: the end is broken for whoever sends, whichever thread that
/// is.
#[test]
fn a_position_that_moves_by_itself_breaks_the_end_for_all_threads() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    for number in 0..100u8 {
        there.send(vec![number; 40]).unwrap();
        assert_eq!(here.recv().unwrap(), [number; 40]);
    }
    // Twins of this end, which do not know of each other.
    let (bytes, descriptors) = send(&there);
    let twin: End = receive(&bytes, &descriptors).unwrap();
    twin.send(vec![1; 40]).unwrap();
    for _ in 0..3 {
        assert!(matches!(there.send(vec![2; 40]), Err(SendError::Corrupt(message)) if message == [2; 40]));
        assert!(matches!(there.try_send(vec![2; 8]), Err(SendError::Corrupt(_))));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| matches!(there.send(vec![3; 40]), Err(SendError::Corrupt(_))));
            assert!(other.join().unwrap());
        });
        assert!(matches!(there.close_send(), Err(SendError::Corrupt(()))));
    }
    // The other's message is there, and whole.
    assert_eq!(here.recv().unwrap(), [1; 40]);
    assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
    // A receiver notices when it has received much.
    let (bytes, descriptors) = send(&here);
    let other: End = receive(&bytes, &descriptors).unwrap();
    for _ in 0..50 {
        twin.send(vec![4; 40]).unwrap();
        assert_eq!(other.recv().unwrap(), [4; 40]);
    }
    let mut more = 0;
    let refused = loop {
        match here.recv_timeout(Duration::from_millis(50)) {
            Ok(_) => more += 1,
            Err(error) => break error,
        }
        assert!(more <= 50);
    };
    assert!(matches!(refused, RecvError::Corrupt), "{refused}");
    is_found_out(&here, "another has received");
}

/// Whatever it is that a twin of the sender is refused: it has not written over what the other one has sent.
#[test]
fn who_is_refused_as_a_twin_leaves_what_the_other_has_sent() {
    let _alone = alone();
    for how in 0..5 {
        let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
        for _ in 0..100 {
            there.send(vec![1; 16]).unwrap();
            assert_eq!(here.recv().unwrap(), [1; 16]);
        }
        let (bytes, descriptors) = send(&there);
        let twin: End = receive(&bytes, &descriptors).unwrap();
        (0..3).for_each(|number| twin.send(vec![number; 16]).unwrap());
        let refused = match how {
            // In a record, in a run, in parts.
            0 => there.send(vec![2; 100]),
            1 => there.send(vec![2; 16]),
            2 => there.send(vec![2; 100_000]),
            3 => there.send(vec![2; 1]),
            _ => there.close_send().map_err(|error| error.map(|()| Vec::new())),
        };
        assert!(matches!(refused, Err(SendError::Corrupt(_))), "{how}");
        (0..3).for_each(|number| assert_eq!(here.recv().unwrap(), [number; 16], "{how}"));
        assert!(matches!(here.try_recv(), Err(RecvError::Empty)), "{how}");
        twin.send(vec![3; 500]).unwrap();
        assert_eq!(here.recv().unwrap(), [3; 500], "{how}");
    }
}

/// Descriptors that a message announces, and that do not come, or come with another's number.
#[test]
fn descriptors_that_do_not_come_are_found_out() {
    let _alone = alone();
    for announced in [1, 2, 300, 0xffff] {
        let (here, _there): (End, End) = pipe_with_capacity(4096).unwrap();
        lie(ring(), 0, &[WRITTEN | of(8) | announced, 7, 0]);
        is_found_out(&here, &format!("{announced} descriptors"));
    }
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    there.send_with(b"12345678", &[there.as_fd()]).unwrap();
    lie(ring(), 0, &[WRITTEN | of(8) | 2]);
    is_found_out(&here, "one more than came");
}

/// Another thread that waits at the socket might be about to bring them.
#[test]
fn descriptors_that_do_not_come_keep_nobody_past_a_deadline() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let ring = ring();
    there.send(vec![7; 40]).unwrap();
    while here.try_send(vec![1; 900]).is_ok() {}
    std::thread::scope(|scope| {
        scope.spawn(|| here.send_timeout(vec![1; 900], Duration::from_millis(600)));
        std::thread::sleep(Duration::from_millis(50));
        lie(ring, 0, &[WRITTEN | of(40) | 1]);
        let mut bytes = Vec::new();
        for wait in [Duration::ZERO, Duration::from_millis(20)] {
            let begin = Instant::now();
            assert!(matches!(here.recv_timeout(wait), Err(RecvError::Empty)), "it may still come");
            assert!((wait..wait + SOON).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        }
        // The last word is spoken when nobody is about to bring them.
        assert!(matches!(here.recv_with(&mut bytes), Err(RecvError::Corrupt)));
    });
}

/// Descriptors that nobody has announced are closed, with a bell and without one.
#[test]
fn descriptors_that_come_unasked_are_closed() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for number in 0..200u64 {
        let serial = [&b"d"[..], &(1 + number % 2).to_ne_bytes()].concat();
        for packet in [&b"b"[..], b"nonsense", &serial] {
            smuggle(there.as_fd(), packet);
        }
        assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
        there.send_with(b"x", &[there.as_fd()]).unwrap();
        assert_eq!(here.recv_with(&mut Vec::new()).unwrap().len(), 1);
    }
    drop(here);
    assert!(count() < before, "{} descriptors are left", count() - before);
}

/// Bells pile up where a receiver finds what it looks for in the moment in which it wants to sleep: that is
/// no lie.
#[test]
fn descriptors_behind_many_bells_arrive() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    for round in 0..3u8 {
        let mut bells = 0;
        for _ in 0..200 {
            // SAFETY: one byte is there to be sent.
            let sent = unsafe {
                libc::send(
                    there.as_fd().as_raw_fd(),
                    b"b".as_ptr().cast(),
                    1,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            bells += sent.max(0);
        }
        assert_eq!(bells, 200, "the socket has no room for so many, and the test no point");
        there.send_with(&[round], &[there.as_fd()]).unwrap();
        let mut message = Vec::new();
        assert_eq!(here.recv_with(&mut message).unwrap().len(), 1, "round {round}");
        assert_eq!(message, [round]);
    }
}

/// Sends a packet with a descriptor beside it.
fn smuggle(socket: BorrowedFd<'_>, packet: &[u8]) {
    let mut iov = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
    let mut control = [0u64; 4];
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as usize;
    // SAFETY: there is room for a header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: as above, and nobody else has it.
    let header = unsafe { &mut *header };
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: arithmetic only.
    header.cmsg_len = unsafe { libc::CMSG_LEN(4) } as usize;
    // SAFETY: there is room for a number behind the header.
    let place = unsafe { libc::CMSG_DATA(header) }.cast::<i32>();
    // SAFETY: as above.
    unsafe { place.write_unaligned(socket.as_raw_fd()) };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all that the message refers to is alive.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    assert_eq!(sent, packet.len() as isize);
}

#[test]
fn an_empty_packet_is_not_the_end() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    // SAFETY: nothing is to be read.
    unsafe { libc::send(there.as_fd().as_raw_fd(), [0u8; 1].as_ptr().cast(), 0, libc::MSG_NOSIGNAL) };
    assert!(matches!(here.recv_timeout(Duration::from_millis(20)), Err(RecvError::Empty)));
    assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
    there.send(vec![1]).unwrap();
    assert_eq!(here.recv().unwrap(), [1]);
}

/// A handle's bytes, and the descriptors that go with them.
fn send(handle: &impl Serialize) -> (Vec<u8>, Vec<Descriptor>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(handle));
    (bytes.unwrap(), descriptors)
}

/// Another handle made of them.
fn receive<'a, B: Deserialize<'a>>(bytes: &'a [u8], descriptors: &[Descriptor]) -> Result<B, String> {
    let duplicates = descriptors.iter().map(|one| one.as_fd().try_clone_to_owned().unwrap()).collect();
    receive_with(bytes, duplicates)
}

fn receive_with<'a, B: Deserialize<'a>>(bytes: &'a [u8], descriptors: Vec<OwnedFd>) -> Result<B, String> {
    handover::receive(descriptors, || postcard::from_bytes(bytes))
        .map_err(|error| handover::take_failure().map_or(error.to_string(), |failure| failure.to_string()))
}

/// What the last numbers of a connection in its travelling form are, from the end: see `Ticket`.
#[test]
fn a_ticket_that_cannot_be_is_refused() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let (bytes, descriptors) = send(&here);
    let again: End = receive(&bytes, &descriptors).unwrap();
    drop(again);
    // Each byte of it, each value: whatever attaches can be used, and does not crash.
    let mut attached = 0;
    for at in 0..bytes.len() {
        for value in [0, 1, 2, 3, 5, 0x10, 0x3f, 0x7f, 0x80, 0x81, 0xff] {
            let mut forged = bytes.clone();
            forged[at] = value;
            if let Ok(end) = receive::<End>(&forged, &descriptors) {
                attached += 1;
                assert!(!matches!(end.try_recv(), Ok(message) if message.len() > 4096));
                _ = end.try_send(vec![1; 100]);
                _ = end.recv_timeout(Duration::ZERO);
            }
        }
    }
    assert!(attached > 0);
    // Another thing's descriptor in the place of the socket, or of the memory.
    let null: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    for place in 0..descriptors.len() {
        let mut others: Vec<OwnedFd> =
            descriptors.iter().map(|one| one.as_fd().try_clone_to_owned().unwrap()).collect();
        others[place] = null.try_clone().unwrap();
        receive_with::<End>(&bytes, others).unwrap_err();
    }
    drop(there);
}

/// Who gives an end away says how far it is, and a sender that sleeps hears the bell: it is told once.
#[test]
fn an_end_that_travels_wakes_who_waits_for_room() {
    let _alone = alone();
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let rescues = polyproc_sys::futex::backstop_rescues();
    (0..4).for_each(|_| here.send(vec![1; 900]).unwrap());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| here.send(vec![2; 2_000]).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!sending.is_finished());
        there.recv().unwrap();
        let (bytes, descriptors) = send(&there);
        let there: End = receive(&bytes, &descriptors).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        (0..3).for_each(|_| assert_eq!(there.recv().unwrap().len(), 900));
        sending.join().unwrap();
        assert_eq!(there.recv().unwrap(), [2; 2_000]);
    });
    assert_eq!(polyproc_sys::futex::backstop_rescues(), rescues, "it was forgotten");
}

/// Who receives finds it when it says how far it is, before it sleeps, and does not sleep on it.
#[test]
fn a_position_that_was_overwritten_is_found_before_a_sleep() {
    let _alone = alone();
    let mut late = Vec::new();
    for how in 0..5 {
        let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
        // How far `here` is, as it says: the last of the four positions among the control words, all of them
        // the same yet.
        let page = ring().wrapping_sub(1024);
        // SAFETY: within the page with the control words.
        let words = (0..512).map(|index| unsafe { page.wrapping_add(index).read_volatile() });
        let begin = u64::MAX - ((1 << 21) - 1);
        let places: Vec<_> = words.enumerate().filter(|(_, word)| *word == begin).collect();
        assert_eq!(places.len(), 4);
        there.send(vec![1; 8]).unwrap();
        here.recv().unwrap();
        // SAFETY: as above.
        unsafe { page.wrapping_add(places[3].0).write_volatile(begin + 64) };
        let begin = Instant::now();
        let what = format!("by {how}");
        match how {
            0 => assert!(matches!(here.recv(), Err(RecvError::Corrupt)), "{what}"),
            1 => assert!(matches!(here.recv_timeout(9 * SOON), Err(RecvError::Corrupt)), "{what}"),
            2 => assert!(matches!(here.try_recv(), Err(RecvError::Corrupt)), "{what}"),
            3 => assert!(here.poll(9 * SOON).unwrap(), "{what}"),
            _ => assert_eq!(wait(&[&here], 9 * SOON).unwrap(), [0], "{what}"),
        }
        late.push(begin.elapsed());
        is_found_out(&here, &what);
    }
    assert!(late.iter().all(|late| *late < SOON), "{late:?}");
}
