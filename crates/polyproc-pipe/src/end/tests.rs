//! What an end does where two things happen in one moment, and what it does not believe.

use super::*;
use crate::connection::Connection;
use crate::error::{RecvError, SendError};
use crate::receiving::RecvRefusal;
use crate::{door, pipe, pipe_with_capacity};
use polyproc_memory::codec::{Bytes, Raw};
use polyproc_sys::futex::backstop_rescues;
use polyproc_testing::{tid, wait_asleep, watchdog, woken_in_time};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::mpsc;

type Both = (Connection<Vec<u8>, Vec<u8>, Bytes>, Connection<Vec<u8>, Vec<u8>, Bytes>);

fn small() -> Both {
    pipe_with_capacity(4096).unwrap()
}

/// Runs `waits` in a thread, as far as its way to sleep; then `comes` happens, which nobody tells it.
fn meanwhile(door: &door::Door, waits: impl FnOnce() + Send, comes: impl FnOnce()) -> u64 {
    let before = backstop_rescues();
    std::thread::scope(|scope| {
        let held = door.hold();
        let (sender, receiver) = mpsc::channel();
        scope.spawn(move || {
            sender.send(tid()).unwrap();
            waits();
        });
        // It has looked, and has not said that it sleeps.
        wait_asleep(receiver.recv().unwrap());
        comes();
        drop(held);
    });
    backstop_rescues() - before
}

#[test]
fn a_message_that_comes_right_before_the_receiver_says_that_it_sleeps_is_found() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let (here, there) = small();
        let waits = || assert_eq!(here.recv().unwrap(), [7; 40]);
        meanwhile(&here.end.door, waits, || there.send(vec![7; 40]).unwrap())
    });
}

#[test]
fn room_that_is_made_right_before_the_sender_says_that_it_sleeps_is_found() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let (here, there) = small();
        (0..4).for_each(|_| there.send(vec![1; 900]).unwrap());
        let waits = || there.send(vec![2; 1_500]).unwrap();
        meanwhile(&there.end.door, waits, || {
            (0..4).for_each(|_| assert_eq!(here.recv().unwrap().len(), 900));
        })
    });
}

/// Or both could sleep, each with something that the other waits for.
#[test]
fn who_has_found_nothing_more_has_said_how_far_it_is() {
    type Wait = fn(&Connection<Vec<u8>, Vec<u8>, Bytes>);
    let ways: [Wait; 3] = [
        |here| assert!(matches!(here.try_recv(), Err(RecvError::Empty))),
        |here| assert!(matches!(here.recv_timeout(Duration::from_millis(1)), Err(RecvError::Empty))),
        |here| assert!(!here.prepare_wait().unwrap()),
    ];
    for (number, wait) in ways.into_iter().enumerate() {
        let (here, there) = small();
        for _ in 0..3 {
            there.send(vec![1; 100]).unwrap();
            here.recv().unwrap();
        }
        wait(&here);
        let mut sending = there.end.sending.enter(Deadline::PAST).unwrap();
        // More than there is, so that it looks.
        assert_eq!(sending.ring.finds_room(8_000), Ok(false));
        let (tail, head_seen) = sending.ring.positions();
        assert_eq!(head_seen, tail, "way {number}");
    }
}

/// Not even what it knew to be there before; by the thread that the gate belonged to, and by others.
#[test]
fn an_end_that_is_broken_gives_out_nothing_that_was_ready() {
    for is_owner in [true, false] {
        let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
        if !is_owner {
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(matches!(here.try_recv(), Err(RecvError::Empty))));
            });
        }
        // Until several of them share a line.
        for batch in 1u64.. {
            (0..batch).for_each(|number| there.send(number).unwrap());
            let is_run = |receiving: &Receiving| receiving.ring.ready(8).is_some();
            let taken = (0..batch).find(|_| {
                here.recv().unwrap();
                is_run(&here.end.receiving.enter(Deadline::PAST).unwrap())
            });
            if taken.is_some() {
                break;
            }
            assert!(batch < 1_000);
        }
        // Another that has this end says that it is farther.
        let receiving = here.end.receiving.enter(Deadline::PAST).unwrap();
        receiving.ring.line().begin_at(START + 8);
        drop(receiving);
        assert!(here.prepare_wait().unwrap(), "it is news");
        for _ in 0..3 {
            assert!(matches!(here.recv(), Err(RecvError::Corrupt)), "its owner's: {is_owner}");
            assert!(matches!(here.try_recv(), Err(RecvError::Corrupt)));
        }
    }
}

/// What was thrown away may have been wanted.
#[test]
fn who_was_sent_descriptors_without_end_believes_none() {
    let (here, there) = small();
    let null = File::open("/dev/null").unwrap();
    let one = [null.as_fd()];
    for number in 0..=door::KEPT as u64 {
        // Of messages that are not to come soon.
        socket::send_descriptors(there.end.socket(), 100 + number, &one).unwrap();
        if number % 32 == 0 {
            assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
        }
    }
    there.send_with(b"with one", &one).unwrap();
    for _ in 0..2 {
        assert!(matches!(here.recv_with(&mut Vec::new()), Err(RecvError::Corrupt)));
    }
    assert!(here.end.door.is_empty(), "and they are closed");
}

/// Else the first one that runs out of memory would be who reads it.
#[test]
fn a_receiver_has_memory_put_where_a_sender_says_that_it_is() {
    use std::os::unix::fs::MetadataExt;
    let (here, there) = pipe::<u8, u8>().unwrap();
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&here));
    bytes.unwrap();
    let files = descriptors.iter().map(|one| File::from(one.as_fd().try_clone_to_owned().unwrap()));
    let files: Vec<_> = files.collect();
    let memory = || files.iter().map(|file| file.metadata().unwrap().blocks() * 512).sum::<u64>();
    let before = memory();
    there.end.sending.enter(Deadline::PAST).unwrap().ring.grow().unwrap();
    assert_eq!(memory(), before);
    assert!(matches!(here.try_recv(), Err(RecvError::Empty)));
    assert_eq!(memory(), before + (128 << 10));
    there.send(1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
}

#[test]
fn a_ticket_with_a_number_that_cannot_be_is_refused() {
    const MOST: u64 = 64 << 10;
    let shape = shape(MOST, 0).unwrap();
    let object = |reserve| Object::with_reserve(&shape, reserve as usize).unwrap();
    let attach = |reserve: u64, change: fn(&mut Ticket)| {
        let mut ticket = Ticket {
            side: 1,
            kinds: Kinds::default(),
            capacities: [4096, 8192],
            most: MOST,
            tail: START + 4096,
            head_seen: START,
            serial_sent: 0,
            is_final: false,
            head: START,
            taken: 0,
            serial_received: 0,
            has_notice: false,
        };
        change(&mut ticket);
        let (socket, other) = socket::pair().unwrap();
        drop(other);
        let number = socket.as_raw_fd();
        let end = End::from_ticket(&ticket, object(reserve), socket.into());
        assert!(end.as_ref().is_none_or(|end| end.socket().as_raw_fd() == number));
        end.is_some()
    };
    assert!(attach(2 * MOST, |_| {}));
    assert!(attach(2 * MOST, |ticket| (ticket.side, ticket.capacities) = (0, [MOST; 2])));
    assert!(!attach(2 * MOST - (64 << 10), |_| {}), "a region that is too small");
    let changes: [fn(&mut Ticket); 18] = [
        |ticket| ticket.side = 2,
        |ticket| ticket.side = 255,
        |ticket| ticket.most /= 2,
        |ticket| ticket.most *= 2,
        |ticket| ticket.capacities[0] = 2048 + 4096,
        |ticket| ticket.capacities[1] = 2048,
        |ticket| ticket.capacities[1] = 0,
        |ticket| ticket.capacities[1] = 2 * MOST,
        |ticket| ticket.capacities[1] = 1 << 63,
        |ticket| ticket.tail += 8,
        |ticket| ticket.head_seen += 4104,
        |ticket| ticket.tail -= 4,
        |ticket| ticket.head_seen += 1,
        |ticket| ticket.head += 4,
        |ticket| ticket.head += 1,
        |ticket| ticket.serial_sent = u64::MAX,
        |ticket| ticket.serial_received = 1 << 63,
        |ticket| (ticket.tail, ticket.head_seen) = (START + 4, START + 4),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(!attach(2 * MOST, change), "change {number}");
    }
}

/// A ticket may say that more of a run was received than there is: see what is judged with it in the ring's
/// own tests.
#[test]
fn a_ticket_that_has_received_too_much_is_found_out() {
    let (here, there) = small();
    there.send(vec![1; 40]).unwrap();
    let (ticket, object, _) = here.end.ticket(Kinds::default()).unwrap();
    let (socket, _other) = socket::pair().unwrap();
    let end = End::from_ticket(&Ticket { taken: 1, ..ticket }, object, socket.into()).unwrap();
    let received = end.recv(&mut Vec::new(), usize::MAX, Deadline::PAST);
    assert!(matches!(received, Err(RecvRefusal::Corrupt)));
}

/// Whoever goes on with it would send into the middle of a task's message, or lose descriptors for which it
/// has no room.
#[test]
fn a_ticket_says_what_was_announced_and_is_not_made_while_something_is_under_way() {
    let (here, _there) = small();
    here.end.sending.enter(Deadline::PAST).unwrap().is_under_way = true;
    assert!(here.end.ticket(Kinds::default()).is_none());
    here.end.sending.enter(Deadline::PAST).unwrap().is_under_way = false;
    for is_announced in [false, true] {
        let (ticket, object, _) = here.end.ticket(Kinds::default()).unwrap();
        let (socket, _other) = socket::pair().unwrap();
        // As one who had no room for what comes behind it.
        let ticket = Ticket { has_notice: is_announced, ..ticket };
        let end = End::from_ticket(&ticket, object, socket.into()).unwrap();
        assert_eq!(end.door.has_notice(), is_announced);
        let (again, ..) = end.ticket(Kinds::default()).unwrap();
        assert_eq!(again.has_notice, is_announced);
    }
}

/// Else tasks that find somebody inside would wait for one who has left long ago.
#[test]
fn who_has_waited_is_not_said_to_wait_any_more_however_that_ended() {
    let _watchdog = watchdog();
    let is_parked = |end: &Connection<Vec<u8>, Vec<u8>, Bytes>| {
        [door::SENDING, door::RECEIVING].map(|way| end.end.door.is_parked(way))
    };
    let moment = Duration::from_millis(5);
    // While `waits` does so, it says it; then `ends` happens.
    let waiting = |end: &Connection<Vec<u8>, Vec<u8>, Bytes>,
                   way: usize,
                   waits: &(dyn Fn() + Sync),
                   ends: &dyn Fn()| {
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || {
                sender.send(tid()).unwrap();
                waits();
            });
            wait_asleep(receiver.recv().unwrap());
            assert!(is_parked(end)[way]);
            ends();
        });
        assert_eq!(is_parked(end), [false; 2]);
    };
    let (here, there) = small();
    assert!(matches!(here.recv_timeout(moment), Err(RecvError::Empty)));
    assert!(!here.poll(moment).unwrap());
    assert_eq!(is_parked(&here), [false; 2]);
    waiting(&here, door::RECEIVING, &|| assert_eq!(here.recv().unwrap(), [1]), &|| {
        there.send(vec![1]).unwrap()
    });
    waiting(&here, door::RECEIVING, &|| assert!(here.poll(None).unwrap()), &|| there.send(vec![2]).unwrap());
    assert_eq!(here.recv().unwrap(), [2]);
    while here.try_send(vec![3; 900]).is_ok() {}
    for length in [900, 9_000] {
        assert!(matches!(here.send_timeout(vec![3; length], moment), Err(SendError::Full(_))));
        assert_eq!(is_parked(&here), [false; 2]);
    }
    let refused = || assert!(matches!(here.send(vec![3; 9_000]), Err(SendError::Closed(_))));
    waiting(&here, door::SENDING, &refused, &|| here.close().unwrap());
    while there.recv().is_ok() {}
    assert_eq!(is_parked(&there), [false; 2]);
    let (here, there) = small();
    waiting(
        &here,
        door::RECEIVING,
        &|| assert!(matches!(here.recv(), Err(RecvError::Disconnected))),
        &|| there.close().unwrap(),
    );
    let (here, there) = small();
    let refused = || assert!(matches!(here.send(vec![3; 9_000]), Err(SendError::Disconnected(_))));
    waiting(&here, door::SENDING, &refused, &|| there.close().unwrap());
}
