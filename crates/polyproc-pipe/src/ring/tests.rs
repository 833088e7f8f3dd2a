//! Both sides of one ring.

mod lies;
mod parts;

use super::*;
use polyproc_sys::atomic::Ordering;

const CAPACITY: u64 = 4096;

/// In a header: so many bytes.
const fn of(length: u64) -> u64 {
    length << LENGTH_SHIFT
}

/// The header of a run of so many messages of so many bytes.
fn run(messages: u64, length: u64) -> u64 {
    WRITTEN | RUN | of(length) | (HEADER + messages * padded(length))
}

/// A ring in private memory, and both sides of it.
struct Rig {
    place: Place,
    sender: Sender,
    receiver: Receiver,
    /// How many lines were begun as the one before, and how many were taken so.
    lines: u64,
    lines_at_once: u64,
    /// How many records followed one like them, and how many were taken so.
    followers: u64,
    records_at_once: u64,
}

/// One that uses so many bytes, of so many that it may use.
fn rig_of(capacity: u64, most: u64) -> Rig {
    // Whatever the memory was before, the first header is zero and the rest is nonsense.
    let words = vec![!0u128; (256 + most as usize + 128) / 16].leak();
    let start = words.as_mut_ptr().cast::<u8>();
    // SAFETY: within the words, which are 128 bytes more than is needed.
    let start = NonNull::new(unsafe { start.add(start.align_offset(128)) }).unwrap();
    // SAFETY: so many bytes are there.
    unsafe { start.write_bytes(0, 256) };
    // SAFETY: behind the control words.
    let bytes = unsafe { start.add(256) };
    // SAFETY: aligned, large enough, and never freed.
    let place = unsafe { Place::new(start.cast(), bytes, capacity, most) };
    place.header(START).store(0, Ordering::Relaxed);
    let sender = Sender::new(place, START, START);
    sender.initialise();
    Rig {
        place,
        sender,
        receiver: Receiver::new(place, START, 0),
        lines: 0,
        lines_at_once: 0,
        followers: 0,
        records_at_once: 0,
    }
}

fn rig() -> Rig {
    rig_of(CAPACITY, CAPACITY)
}

impl Rig {
    fn send(&mut self, bytes: &[u8]) {
        assert_eq!(self.sender.finds_room(bytes.len()), Ok(true));
        let (run, kind) = (self.sender.run(), Kind::of(bytes.len()));
        let mut may_open_line = || self.sender.may_open_line() || self.sender.allows_lines(5) == Ok(true);
        if run.is_open(kind) {
            self.sender.go_on(run, bytes);
        } else if run.is_full(kind) && may_open_line() {
            self.lines += 1;
            let run = self.sender.open_line(kind).unwrap();
            self.sender.go_on(run, bytes);
        } else if bytes.len() > RUN_MOST && self.sender.may_follow(bytes.len()) {
            self.followers += 1;
            self.sender.follow(bytes).unwrap();
        } else {
            self.sender.write(bytes, 0, true).unwrap();
            if bytes.len() > RUN_MOST {
                self.sender.allows_records(5);
            }
        }
    }

    /// Receives one of so many bytes, as one does who knows how long messages are. `None` if that is not what
    /// is in front.
    fn receive_exactly(&mut self, length: usize) -> Result<Option<Vec<u8>>, Broken> {
        let mut ready = self.receiver.ready(length);
        if ready.is_none() {
            ready = self.receiver.begin_next(length);
            self.lines_at_once += u64::from(ready.is_some() && length <= RUN_MOST);
            self.records_at_once += u64::from(ready.is_some() && length > RUN_MOST);
        }
        if ready.is_none() {
            if self.receiver.has_to_publish() {
                self.receiver.publish().unwrap();
            }
            if self.receiver.front()? == Front::Whole(length, 0) {
                ready = self.receiver.make_ready(length);
            }
        }
        Ok(ready.map(|ready| self.receiver.take_ready(ready, length, <[u8]>::to_vec)))
    }

    /// Receives one, and publishes.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        let mut got = Vec::new();
        loop {
            let front = self.receiver.front()?;
            match front {
                Front::Nothing => return Ok(None),
                Front::Grown => self.receiver.grow(),
                _ => self.receiver.take_into(front, &mut got),
            }
            if self.receiver.has_to_publish() {
                self.receiver.publish().unwrap();
            }
            if let Front::Whole(..) | Front::Last(_) = front {
                return Ok(Some(got));
            }
        }
    }

    fn header(&self, position: u64) -> u64 {
        self.place.header(position).load(Ordering::Relaxed)
    }

    fn lie(&self, position: u64, header: u64) {
        self.place.header(position).store(header, Ordering::Relaxed);
    }
}

#[test]
fn positions_wrap_and_records_split() {
    let mut rig = rig();
    for n in 0..3_000u32 {
        let message = vec![n as u8; (n * 7 % 1_900) as usize];
        rig.send(&message);
        assert_eq!(rig.receiver.front(), Ok(Front::Whole(message.len(), 0)));
        assert_eq!(rig.receive(), Ok(Some(message)));
        assert_eq!(rig.receive(), Ok(None), "behind message {n}");
    }
    assert!(rig.sender.positions().0 < START, "the positions have not wrapped");
}

#[test]
fn what_the_ring_had_before_is_no_record() {
    // Messages of nothing but what looks like headers, at all places.
    for length in [8, 16, 24, 40, 120] {
        let mut rig = rig();
        let bytes = [(WRITTEN | of(8)).to_ne_bytes(), run(3, 8).to_ne_bytes()];
        for n in 0..2_000usize {
            let message: Vec<u8> =
                bytes[n % 2].iter().copied().cycle().take(length - 8 * (n % 3 / 2)).collect();
            rig.send(&message);
            if n % 5 == 0 {
                rig.send(b"");
            }
            assert_eq!(rig.receive(), Ok(Some(message)));
            if n % 5 == 0 {
                assert_eq!(rig.receive(), Ok(Some(Vec::new())));
            }
            assert_eq!(rig.receive(), Ok(None), "{length}, message {n}");
        }
    }
}

#[test]
fn short_messages_of_one_length_share_lines() {
    for (length, per_line) in [(1, 7), (8, 7), (9, 3), (16, 3), (20, 2), (24, 2)] {
        let mut rig = rig();
        let message = |n: usize| vec![n as u8; length];
        let begin = rig.sender.positions().0;
        // The first one does not know that others follow.
        rig.send(&message(0));
        while !rig.sender.positions().0.is_multiple_of(LINE) {
            rig.send(&message(0));
        }
        while rig.receive().unwrap().is_some() {}
        let at = rig.sender.positions().0;
        assert!(at - begin <= 2 * LINE);
        for batch in 1..40 {
            for n in 0..batch {
                rig.send(&message(n));
            }
            for n in 0..batch {
                assert_eq!(rig.receive(), Ok(Some(message(n))), "{n} of {batch}");
            }
            assert_eq!(rig.receive(), Ok(None));
        }
        let lines = (rig.sender.positions().0 - at) / LINE;
        assert_eq!(lines, (39u64 * 40 / 2).div_ceil(per_line), "{length}");
    }
}

#[test]
fn a_receiver_knows_what_came_and_how_much_between_two_waits() {
    let mut rig = rig();
    assert_eq!((rig.receiver.news(), rig.receiver.front()), (None, Ok(Front::Nothing)));
    for length in [64, 100, 0] {
        rig.send(&vec![1; length]);
        assert_eq!(rig.receiver.news(), Some(News::Record));
        rig.receive().unwrap().unwrap();
    }
    assert_eq!(rig.receive(), Ok(None));
    assert_eq!(rig.receiver.had_come(), 72 + 112 + 8);
    rig.send(&[1; 30]);
    rig.receive().unwrap().unwrap();
    assert_eq!(rig.receive(), Ok(None));
    assert_eq!(rig.receiver.had_come(), 40);
    assert_eq!(rig.receive(), Ok(None));
    assert_eq!(rig.receiver.had_come(), 0, "none since");
    // Then a run, at the latest from the next line but one on.
    for _ in 0..10 {
        rig.send(&[1; 8]);
        rig.receive().unwrap().unwrap();
    }
    assert_eq!(rig.receive(), Ok(None));
    rig.send(&[1; 8]);
    assert_eq!(rig.receiver.news(), Some(News::One));
    rig.send(&[1; 8]);
    assert_eq!(rig.receiver.news(), Some(News::Several));
}

#[test]
fn a_stream_is_received_line_by_line() {
    for length in [1usize, 8, 13, 16, 24, 20, 40, 64] {
        let mut rig = rig();
        let message = |n: u64| vec![n as u8; length];
        let (mut sent, mut received) = (0, 0);
        // As many at a time as fill lines, or do not.
        for batch in (1..40).cycle().take(400) {
            for _ in 0..batch {
                if rig.sender.finds_room(length).unwrap() {
                    rig.send(&message(sent));
                    sent += 1;
                }
            }
            // Something else in between, now and then, which is received in another way.
            let other = batch % 13 == 0 && rig.sender.finds_room(100).unwrap();
            if other {
                rig.send(&[7; 100]);
            }
            while received < sent {
                // Around the end of the ring.
                let got = match rig.receive_exactly(length).unwrap() {
                    Some(got) => got,
                    None => rig.receive().unwrap().unwrap(),
                };
                assert_eq!(got, message(received), "message {received} of {length} bytes");
                received += 1;
            }
            assert_eq!(rig.receive_exactly(length), Ok(None));
            if other {
                assert_eq!(rig.receive(), Ok(Some(vec![7; 100])));
            }
        }
        assert!(rig.sender.positions().0 - START > 10 * CAPACITY, "it came round too rarely");
        let is_short = length <= RUN_MOST;
        assert_eq!(rig.lines > 100, is_short, "{length}: {} lines were begun at once", rig.lines);
        assert_eq!(rig.lines_at_once > 100, is_short, "{length}: {} taken at once", rig.lines_at_once);
        assert_eq!(rig.followers > 100, !is_short, "{length}: {} followed", rig.followers);
        assert_eq!(rig.records_at_once > 100, !is_short, "{length}: {} taken so", rig.records_at_once);
    }
}

/// However many are allowed: nothing is written over that was not received, nor over the room for the last
/// records.
#[test]
fn records_follow_only_while_there_is_room() {
    for length in RUN_MOST + 1..=256 {
        let mut rig = rig();
        for round in 0..5 {
            rig.sender.write(&vec![round; length], 0, true).unwrap();
            let allowed = rig.sender.allows_records(u64::MAX);
            let mut followed = 0;
            while rig.sender.may_follow(length) {
                rig.sender.follow(&vec![round; length]).unwrap();
                followed += 1;
            }
            assert!(followed == allowed && followed >= 10, "{length}: {followed} of {allowed}");
            let (tail, head) = rig.sender.positions();
            assert!(tail - head + 3 * HEADER <= CAPACITY, "{length}: no room for an abort and the end");
            for _ in 0..=followed {
                // One that lies around the end of the ring is taken otherwise.
                let got = rig.receive_exactly(length).unwrap();
                assert_eq!(got.or_else(|| rig.receive().unwrap()), Some(vec![round; length]));
            }
            assert_eq!(rig.receive(), Ok(None));
            rig.receiver.publish().unwrap();
            assert_eq!(rig.sender.finds_room(CAPACITY as usize - 4 * HEADER as usize), Ok(true));
        }
        assert_eq!(rig.sender.write_final(), Ok(()));
        assert_eq!(rig.receiver.front(), Ok(Front::Final));
    }
}

/// Its header says the same.
#[test]
fn the_last_part_of_a_message_is_not_taken_for_a_record_like_the_one_before() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.sender.write(&[1; 56], 0, true).unwrap();
        assert_eq!(rig.receive_exactly(56), Ok(Some(vec![1; 56])));
        rig.sender.write_first(100, &[2; 44], 0).unwrap();
        rig.sender.write_next(&[3; 56], true).unwrap();
        let mut got = Vec::new();
        let front = rig.receiver.front().unwrap();
        rig.receiver.take_into(front, &mut got);
        assert_eq!(rig.receive_exactly(56), Ok(None), "it is a part");
        assert_eq!(rig.receiver.front(), Ok(Front::Last(56)));
        rig.receiver.take_into(Front::Last(56), &mut got);
        assert_eq!(got, [[2; 44].as_slice(), &[3; 56]].concat());
    }
}

#[test]
fn a_line_that_is_not_as_the_one_before_it_is_judged() {
    let full = run(7, 8);
    let lies = [full + of(1), full + 1, full + 8, full | MORE, full & !WRITTEN, full | GROWN];
    for lie in lies {
        let mut rig = rig();
        rig.lie(START, full);
        for _ in 0..7 {
            assert!(rig.receive_exactly(8).unwrap().is_some());
        }
        rig.lie(START + LINE, lie);
        assert!(rig.receiver.begin_line(8).is_none(), "{lie:#x}");
        assert_eq!(rig.receive_exactly(8), Err(Broken), "{lie:#x}");
    }
    // As usual, but another one looked at it in the meantime; or of another length; or what was read is not
    // said for long.
    let mut rig = rig();
    rig.lie(START, full);
    for line in 1..=3 {
        for _ in 0..7 {
            assert!(rig.receive_exactly(8).unwrap().is_some());
        }
        assert!(rig.receiver.begin_line(16).is_none());
        rig.lie(START + line * LINE, if line == 2 { 0 } else { full });
        if line == 2 {
            assert_eq!(rig.receiver.front(), Ok(Front::Nothing));
            rig.lie(START + line * LINE, full);
            assert_eq!(rig.receiver.front(), Ok(Front::Whole(8, 0)));
            assert!(rig.receiver.begin_line(8).is_none(), "it has begun");
        }
    }
    for line in 4.. {
        for _ in 0..7 {
            let ready = rig.receiver.ready(8).or_else(|| rig.receiver.begin_line(8)).unwrap();
            rig.receiver.take_ready(ready, 8, <[u8]>::len);
        }
        rig.lie(START + line * LINE, full);
        if line * LINE == CAPACITY / 4 {
            break;
        }
    }
    assert!(rig.receiver.begin_line(8).is_none(), "it is time to publish");
    assert!(rig.receive_exactly(8).unwrap().is_some());
    assert_eq!(rig.lines_at_once, 1);
}

/// What is taken is said late, but not so late that a message has to wait that fits into half of the ring.
#[test]
fn who_has_received_everything_leaves_room_for_the_longest_record() {
    let (mut most_unsaid, mut lines_at_once) = (0, 0);
    for length in [8usize, 16, 24, 40, 56, 64] {
        // So many words before the stream, in records of one or two.
        for words in 0..24 {
            let mut rig = rig();
            (0..words / 2).for_each(|_| rig.send(&[1; 8]));
            (0..words % 2).for_each(|_| rig.send(b""));
            while rig.receive().unwrap().is_some() {}
            for batch in 0..60 {
                // One of another length, now and then, and in some batches so many at once that lines are
                // full.
                let lengths = (0..1 + batch % 4 * 8).map(|n| if n == 20 { 8 } else { length });
                lengths.clone().for_each(|length| rig.send(&vec![2; length]));
                for length in lengths {
                    if rig.receive_exactly(length).unwrap().is_none() {
                        // Around the end of the ring.
                        assert_eq!(rig.receive(), Ok(Some(vec![2; length])));
                    }
                }
                let said = rig.place.control().receiver.position();
                most_unsaid = most_unsaid.max(rig.sender.positions().0.wrapping_sub(said));
                assert_eq!(rig.sender.finds_room(rig.sender.most()), Ok(true), "{length} {words} {batch}");
            }
            lines_at_once += rig.lines_at_once;
        }
    }
    assert!(lines_at_once > 1_000, "{lines_at_once}");
    assert!((CAPACITY / 4..CAPACITY / 4 + 2 * LINE).contains(&most_unsaid), "{most_unsaid}");
}

#[test]
fn a_run_ends_when_something_else_follows() {
    let mut rig = rig();
    for n in 0..3_000u64 {
        let lengths = [8, 8, 8, 16, 16, 8, 8, 100, 0, 0, 24, 24, 24, 24];
        let length = lengths[(n % 14) as usize];
        let message = vec![n as u8; length];
        rig.send(&message);
        if n % 4 == 3 {
            for n in n - 3..=n {
                assert_eq!(rig.receive(), Ok(Some(vec![n as u8; lengths[(n % 14) as usize]])));
            }
            assert_eq!(rig.receive(), Ok(None));
        }
    }
}

#[test]
fn an_end_goes_on_in_the_middle_of_a_run() {
    for taken in 0..6u64 {
        let mut rig = rig();
        (0..10u64).for_each(|n| rig.send(&n.to_ne_bytes()));
        for n in 0..1 + taken {
            assert_eq!(rig.receive(), Ok(Some(n.to_ne_bytes().to_vec())));
        }
        // As a ticket says it: of both sides.
        let (head, skipped) = rig.receiver.position().unwrap();
        rig.receiver.publish().unwrap();
        rig.sender.close_run();
        let (tail, head_seen) = rig.sender.positions();
        rig.receiver = Receiver::new(rig.place, head, skipped);
        rig.sender = Sender::new(rig.place, tail, head_seen);
        (10..20u64).for_each(|n| rig.send(&n.to_ne_bytes()));
        for n in 1 + taken..20 {
            assert_eq!(rig.receive(), Ok(Some(n.to_ne_bytes().to_vec())), "after {taken}");
        }
        assert_eq!(rig.receive(), Ok(None));
    }
}

#[test]
fn a_ring_grows_without_losing_its_place() {
    let mut rig = rig_of(CAPACITY, 8 * CAPACITY);
    let (mut sent, mut received) = (0u64, 0u64);
    let message = |n: u64| vec![n as u8; [8, 8, 8, 700, 300, 1_300, 24, 24][(n % 8) as usize]];
    while received < 3_000 {
        // Fills it, and takes some.
        loop {
            let next = message(sent);
            if rig.sender.is_about_to_grow() {
                rig.sender.grow().unwrap();
            }
            if !rig.sender.finds_room(next.len()).unwrap() && !rig.sender.is_about_to_grow() {
                break;
            }
            if rig.sender.finds_room(next.len()).unwrap() {
                rig.send(&next);
                sent += 1;
            }
        }
        for _ in 0..1 + received % 5 {
            if let Some(got) = rig.receive().unwrap() {
                assert_eq!(got, message(received), "message {received}");
                received += 1;
            }
        }
    }
    assert_eq!(rig.sender.place().capacities(), (8 * CAPACITY, 8 * CAPACITY));
    assert_eq!(rig.receiver.place().capacities(), (8 * CAPACITY, 8 * CAPACITY));
}

#[test]
fn nothing_comes_after_the_last_record_which_is_not_taken() {
    let mut rig = rig();
    rig.send(&[1; 8]);
    rig.send(&[2; 8]);
    rig.sender.write_final().unwrap();
    assert_eq!(rig.receive().unwrap().unwrap(), [1; 8]);
    assert_eq!(rig.receive().unwrap().unwrap(), [2; 8]);
    for _ in 0..3 {
        assert_eq!(rig.receiver.front(), Ok(Front::Final));
        rig.receiver.take_into(Front::Final, &mut Vec::new());
    }
    // Whoever gets the receiver's end finds it, too.
    let (head, taken) = rig.receiver.position().unwrap();
    assert_eq!(Receiver::new(rig.place, head, taken).front(), Ok(Front::Final));
}

#[test]
fn the_last_record_fits_into_a_full_ring() {
    let mut rig = rig();
    let mut sent = 0;
    while rig.sender.finds_room(40).unwrap() {
        rig.send(&[sent; 40]);
        sent += 1;
    }
    rig.sender.write_final().unwrap();
    for number in 0..sent {
        assert_eq!(rig.receive().unwrap().unwrap(), [number; 40]);
    }
    assert_eq!(rig.receiver.front(), Ok(Front::Final));
}

/// Whatever is left behind the part, as little as a sender leaves.
#[test]
fn the_last_record_fits_behind_a_message_that_was_taken_back() {
    for length in (0..256).step_by(8) {
        let mut rig = rig();
        rig.send(&vec![7; length]);
        assert_eq!(rig.sender.finds_room(100 + 8), Ok(true));
        rig.sender.write_first(10_000, &[1; 100], 0).unwrap();
        while rig.sender.finds_room(120).unwrap() {
            rig.sender.write_next(&[2; 120], false).unwrap();
        }
        rig.sender.write_abort().unwrap();
        rig.sender.write_final().unwrap();
        let front = rig.receiver.front();
        assert_eq!(front, Ok(Front::Whole(length, 0)), "the first message is of {length} bytes");
        rig.receiver.take_into(front.unwrap(), &mut Vec::new());
        let mut torso = Vec::new();
        loop {
            match rig.receiver.front().unwrap() {
                Front::Final => break,
                Front::Nothing => panic!("there is an end"),
                front => rig.receiver.take_into(front, &mut torso),
            }
        }
    }
}

#[test]
fn an_end_in_the_middle_of_a_message_is_refused() {
    let mut rig = rig();
    rig.sender.write_first(100, &[0; 50], 0).unwrap();
    rig.sender.write_final().unwrap();
    let mut torso = Vec::new();
    let front = rig.receiver.front().unwrap();
    rig.receiver.take_into(front, &mut torso);
    assert_eq!(rig.receiver.front(), Err(Broken));
}

/// As [`Connection::send_bytes`](crate::Connection::send_bytes) and `recv_bytes`, beside one who knows how
/// long messages are; the end is given to another now and then, on either side.
#[test]
fn messages_of_any_lengths_pass_in_any_order_whoever_sends_and_receives() {
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut grown, mut lines, mut lines_at_once, mut followers, mut records_at_once) = (0, 0, 0, 0, 0);
    for round in 0..60u64 {
        let mut rig = rig_of(CAPACITY, if round % 2 == 0 { CAPACITY } else { 8 * CAPACITY });
        let mut waiting = std::collections::VecDeque::new();
        let (mut usual, mut number) = (8, 0u64);
        while rig.sender.positions().0.wrapping_sub(START) < 40 * CAPACITY {
            // Streams of one length, with others in between, and sometimes anything.
            match next(40) {
                0 => usual = next(33) as usize,
                1 => usual = [8, 16, 24, 7, 9, 17, 23][next(7) as usize],
                _ => {}
            }
            let length = if next(25) == 0 { next(33) as usize } else { usual };
            number += 1;
            let message: Vec<u8> = (0..length as u64).map(|index| (number * 31 + index * 7) as u8).collect();
            let mut has_room = rig.sender.finds_room(length).unwrap();
            if rig.sender.is_about_to_grow() && next(3) == 0 {
                rig.sender.grow().unwrap();
                grown += 1;
                has_room = rig.sender.finds_room(length).unwrap();
            }
            if has_room {
                if next(20) == 0 {
                    // In no burst.
                    rig.sender.write(&message, 0, false).unwrap();
                } else {
                    rig.send(&message);
                }
                waiting.push_back(message);
            }
            if next(200) == 0 {
                rig.sender.close_run();
                let place = *rig.sender.place();
                let (tail, head) = rig.sender.positions();
                rig.sender = Sender::new(place, tail, head);
            }
            let take = if has_room { next(3) * next(2) } else { next(30) };
            for _ in 0..take {
                if next(100) == 0 {
                    rig.receiver.publish().unwrap();
                    let (head, taken) = rig.receiver.position().unwrap();
                    rig.receiver = Receiver::new(*rig.receiver.place(), head, taken);
                }
                let Some(expected) = waiting.pop_front() else { break };
                if next(4) != 0
                    && let Some(got) = rig.receive_exactly(expected.len()).unwrap()
                {
                    assert_eq!(got, expected, "round {round}");
                    continue;
                }
                assert_eq!(rig.receive(), Ok(Some(expected)), "round {round}");
            }
            if waiting.is_empty() {
                assert_eq!(rig.receive(), Ok(None), "round {round}");
            }
        }
        lines += rig.lines;
        lines_at_once += rig.lines_at_once;
        followers += rig.followers;
        records_at_once += rig.records_at_once;
    }
    assert!(followers > 500 && records_at_once > 200, "{followers} {records_at_once}");
    assert!(grown > 50 && lines > 5_000 && lines_at_once > 500, "{grown} {lines} {lines_at_once}");
}
