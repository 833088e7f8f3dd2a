//! A peer that lies, or two that use one end.

use super::*;

#[test]
fn growth_that_cannot_be_is_refused() {
    let mut full = rig();
    full.lie(START, WRITTEN | GROWN);
    assert_eq!(full.receiver.front(), Err(Broken), "beyond what it may use");
    for header in [WRITTEN | GROWN | of(8), WRITTEN | GROWN | MORE, GROWN, WRITTEN | GROWN | 1] {
        let mut rig = rig_of(CAPACITY, 2 * CAPACITY);
        rig.lie(START, header);
        assert_eq!(rig.receiver.front(), Err(Broken), "{header:#x}");
    }
    // In the second lap, and while what was not published yet is in another lap than the header.
    for begin in [START + CAPACITY, START + 2 * CAPACITY - 64] {
        let mut rig = rig_of(CAPACITY, 2 * CAPACITY);
        rig.receiver = Receiver::new(rig.place, begin, 0);
        rig.lie(begin, if begin.is_multiple_of(CAPACITY) { WRITTEN | GROWN } else { WRITTEN | of(120) });
        rig.lie(begin + 128, WRITTEN | GROWN);
        let first = rig.receiver.front();
        let second = first.and_then(|front| {
            rig.receiver.take_into(front, &mut Vec::new());
            rig.receiver.front()
        });
        assert_eq!(second, Err(Broken));
    }
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    let headers = [
        of(8), // Not written.
        run(1, 8) & !WRITTEN,
        WRITTEN | (1 << 16),
        WRITTEN | FINAL | of(8),
        WRITTEN | FINAL | MORE,
        WRITTEN | FINAL | 1,
        run(1, 8) | FINAL,
        WRITTEN | CLOSED,
        WRITTEN | of(CAPACITY - 8), // No room for the zero behind it.
        WRITTEN | of(1 << 39),
        WRITTEN | of((1 << 40) - 1),
        WRITTEN | ABORT,        // Of nothing.
        WRITTEN | ABORT | MORE, // As well.
        WRITTEN | MORE,         // Without room for its total.
        WRITTEN | MORE | of(7),
        WRITTEN | RUN,         // Of nothing.
        WRITTEN | RUN | of(8), // As well.
        run(0, 8),             // Without a message.
        run(1, 0),             // Of empty messages.
        run(1, 8) | of(1 << 39),
        run(8, 8),  // Beyond its line.
        run(3, 24), // As well.
        run(1, 25),
        run(1, 8) + 1,  // Of a part of a message.
        run(1, 16) + 8, // As well.
        run(1, 24) + 8,
        run(1, 8) | (1 << 15),
        run(1, 8) | MORE,
        run(1, 8) | ABORT,
        run(1, 8) | GROWN,
    ];
    for header in headers {
        let mut rig = rig();
        rig.lie(START, header);
        assert_eq!(rig.receiver.front(), Err(Broken), "{header:#x}");
    }
    let mut rig = rig();
    rig.lie(START, WRITTEN | of(CAPACITY - 16));
    assert_eq!(rig.receiver.front(), Ok(Front::Whole(CAPACITY as usize - 16, 0)));
}

#[test]
fn a_header_is_read_once() {
    let mut rig = rig();
    rig.send(b"12345678");
    assert_eq!(rig.receiver.front(), Ok(Front::Whole(8, 0)));
    rig.lie(START, WRITTEN | of(1_000));
    assert_eq!(rig.receiver.front(), Ok(Front::Whole(8, 0)));
    assert_eq!(rig.receive(), Ok(Some(b"12345678".to_vec())));
}

#[test]
fn a_run_that_changes_is_refused() {
    let run = |messages: u64| run(messages, 8);
    let lies = [
        0,
        run(1),
        run(8),
        run(2) + 4,
        run(3) ^ of(16),
        run(3) ^ RUN,
        run(3) ^ WRITTEN,
        run(3) | MORE,
        run(1) | CLOSED,
        run(8) | CLOSED,
    ];
    for lie in lies {
        let mut rig = rig();
        rig.lie(START, run(2));
        for _ in 0..2 {
            assert!(rig.receive().unwrap().is_some());
        }
        assert_eq!(rig.receive(), Ok(None));
        rig.lie(START, lie);
        assert_eq!(rig.receiver.front(), Err(Broken), "{lie:#x}");
    }
    // More, and closed at once, is one of two truths.
    let mut rig = rig();
    rig.lie(START, run(2));
    rig.lie(START + LINE, 0);
    for _ in 0..2 {
        assert!(rig.receive().unwrap().is_some());
    }
    rig.lie(START, run(4) | CLOSED);
    for _ in 0..2 {
        assert!(rig.receive().unwrap().is_some());
    }
    assert_eq!(rig.receive(), Ok(None));
    // The end of the line: closed or not makes no difference.
    rig.lie(START + LINE, run(7));
    for _ in 0..7 {
        assert!(rig.receive().unwrap().is_some());
    }
    rig.lie(START + LINE, 0);
    rig.lie(START + 2 * LINE, 0);
    assert_eq!(rig.receive(), Ok(None));
}

#[test]
fn a_run_in_the_middle_of_a_message_is_refused() {
    let mut rig = rig();
    rig.sender.write_first(24, b"12345678", 0).unwrap();
    let front = rig.receiver.front().unwrap();
    rig.receiver.take_into(front, &mut Vec::new());
    rig.lie(rig.sender.positions().0, run(1, 8));
    assert_eq!(rig.receiver.front(), Err(Broken));
}

#[test]
fn a_total_that_cannot_be_is_refused() {
    for total in [0, 8, MESSAGE_MAX as u64 + 1, 1 << 63, u64::MAX] {
        let mut rig = rig();
        rig.sender.write_first(total as usize, b"12345678", 0).unwrap();
        assert_eq!(rig.receiver.front(), Err(Broken), "{total:#x}");
    }
}

#[test]
fn parts_that_do_not_add_up_are_refused() {
    // Too much, too little at the end, nothing at all, and one that is not over.
    for (bytes, is_last) in [(24, true), (8, true), (0, false), (16, false), (4_000, false)] {
        let mut rig = rig();
        rig.sender.write_first(24, b"12345678", 0).unwrap();
        let front = rig.receiver.front().unwrap();
        assert_eq!(front, Front::First(24, 0));
        let mut got = Vec::new();
        rig.receiver.take_into(front, &mut got);
        rig.sender.write_next(&vec![1; bytes], is_last).unwrap();
        assert_eq!(rig.receiver.front(), Err(Broken), "{bytes} {is_last}");
    }
}

#[test]
fn a_claim_of_a_gigabyte_takes_no_gigabyte() {
    let mut rig = rig();
    rig.sender.write_first(MESSAGE_MAX, b"12345678", 0).unwrap();
    let front = rig.receiver.front().unwrap();
    let mut got = Vec::new();
    rig.receiver.take_into(front, &mut got);
    assert!(got.capacity() <= 8 << 20, "{}", got.capacity());
}

#[test]
fn a_head_that_cannot_be_is_refused() {
    for head in [START - 8, START + 512, START + 4, 0] {
        let mut rig = rig();
        for _ in 0..3 {
            rig.send(&[1; 100]);
        }
        rig.place.control().receiver.begin_at(head);
        assert_eq!(rig.sender.finds_room(CAPACITY as usize), Err(Broken), "{head:#x}");
    }
}

#[test]
fn a_position_that_somebody_else_moved_is_noticed() {
    let mut rig = rig();
    rig.place.control().sender.begin_at(START + 8);
    assert_eq!(rig.sender.write(b"1", 0, false), Err(Broken));
    assert_eq!(rig.header(START), 0, "nothing is published");
    rig.place.control().receiver.begin_at(START + 8);
    assert_eq!(rig.receiver.publish(), Err(Broken));
}

#[test]
fn two_that_send_at_one_end_are_noticed() {
    let mut rig = rig();
    let mut other = Sender::new(rig.place, START, START);
    rig.send(b"12345678");
    assert_eq!(other.write(b"12345678", 0, true), Err(Broken));
    // In a run, at the latest when it is over.
    let mut rig = self::rig();
    (0..3).for_each(|_| rig.send(b"12345678"));
    let (tail, head) = rig.sender.positions();
    let mut other = Sender::new(rig.place, tail, head);
    (0..2).for_each(|_| rig.send(b"12345678"));
    other.write(b"12345678", 0, true).unwrap();
    let refused = (0..7).any(|_| {
        let run = rig.sender.run();
        let goes_on = run.is_open(Kind::of(8));
        if goes_on {
            rig.sender.go_on(run, b"12345678")
        };
        !goes_on && rig.sender.write(b"12345678", 0, true).is_err()
    });
    assert!(refused);
}

/// Whatever comes after what it has begun: it is refused before it is written.
#[test]
fn who_finds_another_there_writes_over_nothing() {
    type Write = fn(&mut Sender) -> Result<(), Broken>;
    let ways: [Write; 5] = [
        |sender| sender.write_next(&[2; 504], false),
        |sender| sender.write_next(&[2; 100], true),
        |sender| sender.write_abort(),
        |sender| sender.write_final(),
        |sender| sender.grow(),
    ];
    for (number, write) in ways.into_iter().enumerate() {
        let mut rig = rig_of(CAPACITY, 2 * CAPACITY);
        rig.sender.write_first(2_000, &[1; 504], 0).unwrap();
        let (tail, head) = rig.sender.positions();
        Sender::new(rig.place, tail, head).write(&[7; 1_000], 0, false).unwrap();
        let words = |rig: &Rig| (0..200).map(|word| rig.header(tail + 8 * word)).collect::<Vec<_>>();
        let before = words(&rig);
        assert_eq!(write(&mut rig.sender), Err(Broken), "way {number}");
        assert!(words(&rig) == before, "way {number} has written over it");
    }
}

/// A ticket may say so, of an end that another process has had.
#[test]
fn more_of_a_run_than_it_has_cannot_be_received() {
    let front = |taken, header| {
        let rig = rig_of(CAPACITY, 2 * CAPACITY);
        rig.lie(START, header);
        rig.lie(START + 8, 100);
        Receiver::new(rig.place, START, taken).front()
    };
    let run = |messages: u64| run(messages, 8);
    assert_eq!(front(2, run(3)), Ok(Front::Whole(8, 0)));
    assert_eq!(front(3, run(3)), Ok(Front::Nothing));
    for taken in [4, 7, 8, 1 << 32, u64::MAX] {
        assert_eq!(front(taken, run(3)), Err(Broken), "{taken}");
    }
    // Of what is no run, nothing can have been.
    for header in [WRITTEN | of(8), WRITTEN | MORE | of(16), WRITTEN | FINAL, WRITTEN | GROWN] {
        assert!(front(0, header).is_ok(), "{header:#x}");
        for taken in [1, 8, u64::MAX] {
            assert_eq!(front(taken, header), Err(Broken), "{header:#x} of which {taken}");
        }
    }
}

/// No honest sender writes there: it does not know yet that the line is free.
#[test]
fn a_run_in_a_line_that_was_not_given_free_is_refused() {
    for unsaid in [CAPACITY - 2 * LINE, CAPACITY - LINE] {
        let mut rig = rig();
        for record in 0..unsaid / 128 {
            rig.lie(START + 128 * record, WRITTEN | of(120));
        }
        if !unsaid.is_multiple_of(128) {
            rig.lie(START + unsaid - LINE, WRITTEN | of(56));
        }
        rig.lie(START + unsaid, run(1, 8));
        // Nothing is published meanwhile.
        let mut got = Vec::new();
        while rig.receiver.position().unwrap().0 != START + unsaid {
            let front = rig.receiver.front().unwrap();
            rig.receiver.take_into(front, &mut got);
        }
        let is_free = unsaid + LINE < CAPACITY;
        let expected = if is_free { Ok(Front::Whole(8, 0)) } else { Err(Broken) };
        assert_eq!(rig.receiver.front(), expected, "behind {unsaid} bytes");
    }
}

/// Of two of 24 bytes, or of three of 16, there is room a word later, too; whatever comes of it stays within
/// its lines.
#[test]
fn a_full_run_that_begins_a_word_late_stays_in_its_lines() {
    for (length, messages) in [(24, 2), (16, 3)] {
        let mut rig = rig();
        rig.lie(START, WRITTEN);
        rig.receiver.front().unwrap();
        rig.receiver.take_into(Front::Whole(0, 0), &mut Vec::new());
        for line in 0..CAPACITY / LINE / 4 {
            rig.lie(START + LINE * line + HEADER, run(messages, length));
            (2..8).for_each(|word| rig.lie(START + LINE * line + 8 * word, 100 * line + word));
        }
        let mut got = Vec::new();
        while rig.receiver.position().unwrap().0 < START + CAPACITY / 8 {
            got.extend(rig.receive_exactly(length as usize).unwrap().unwrap());
        }
        let words: Vec<_> = got.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let expected = (0..).flat_map(|line| (2..8).map(move |word| 100 * line + word));
        assert!(words.iter().copied().eq(expected.take(words.len())), "{words:?}");
        assert!(words.len() > 40);
    }
}

/// Who only looks whether a message was taken back looks no further than there can be something, and not
/// where there is no memory.
#[test]
fn what_was_taken_back_is_looked_for_within_the_ring() {
    let never = |_: &Place| -> bool { panic!("it cannot grow") };
    let mut rig = rig();
    rig.sender.write_first(100, b"12345678", 0).unwrap();
    assert!(!rig.receiver.is_taken_back(never));
    rig.sender.write_abort().unwrap();
    assert!(rig.receiver.is_taken_back(never));
    let behind = START + 3 * HEADER;
    for header in [
        WRITTEN | MORE | of((1 << 40) - 1),
        WRITTEN | MORE | of(CAPACITY),
        WRITTEN | GROWN,
        WRITTEN | FINAL,
        WRITTEN | of(8),
        ABORT,
    ] {
        rig.lie(behind, header);
        assert!(!rig.receiver.is_taken_back(never), "{header:#x}");
    }
    // An endless chain.
    (0..CAPACITY).step_by(8).for_each(|at| rig.lie(START + at, WRITTEN | MORE));
    assert!(!rig.receiver.is_taken_back(never));
    let mut growing = rig_of(CAPACITY, 2 * CAPACITY);
    growing.sender.write_first(10_000, &[1; 2_000], 0).unwrap();
    growing.sender.grow().unwrap();
    growing.sender.write_next(&[1; 4_000], false).unwrap();
    growing.sender.write_abort().unwrap();
    assert!(!growing.receiver.is_taken_back(|_| false));
    assert!(growing.receiver.is_taken_back(|place| place.capacities() == (CAPACITY, 2 * CAPACITY)));
    assert_eq!(growing.receiver.front(), Ok(Front::First(10_000, 0)), "it was only looked at");
}
