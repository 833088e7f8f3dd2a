//! Long messages, in parts that are held back, or not.

use super::*;
use crate::ring::sender::{HELD, WIDE};

/// A message in parts, as one sends it.
struct Parts {
    message: Vec<u8>,
    sent: usize,
    part: usize,
}

impl Parts {
    /// So many bytes that no two places have the same, in parts of so many.
    fn new(seed: u64, length: usize, part: usize) -> Parts {
        let words = (0..).map(|word: u64| (seed << 32 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let message = words.flat_map(u64::to_ne_bytes).take(length).collect();
        Parts { message, sent: 0, part }
    }

    fn is_whole(&self) -> bool {
        self.sent == self.message.len()
    }
}

impl Rig {
    /// One with so much room that parts are held back, in which the receiver is behind by a message of 1's.
    fn behind() -> Rig {
        let mut rig = rig_of(WIDE, WIDE);
        rig.send(&[1; 40_000]);
        rig
    }

    fn send_part(&mut self, parts: &mut Parts) {
        let part = &parts.message[parts.sent..];
        let part = &part[..part.len().min(parts.part)];
        assert_eq!(self.sender.finds_room(part.len() + 8), Ok(true));
        if parts.sent == 0 {
            self.sender.write_first(parts.message.len(), part, 0).unwrap();
        } else {
            self.sender.write_next(part, parts.sent + part.len() == parts.message.len()).unwrap();
        }
        parts.sent += part.len();
    }

    /// How many records are published from there on.
    fn published_from(&self, mut position: u64) -> usize {
        let mut count = 0;
        while self.header(position) != 0 {
            position = position.wrapping_add(HEADER + padded(length(self.header(position))));
            count += 1;
        }
        count
    }
}

#[test]
fn parts_are_held_back_from_a_receiver_that_is_behind() {
    let mut rig = Rig::behind();
    let begin = rig.sender.positions().0;
    // Of a length that is no multiple of eight.
    let mut parts = Parts::new(1, 19_950, 998);
    for written in 1..20 {
        rig.send_part(&mut parts);
        assert_eq!(rig.published_from(begin), written - written.min(HELD), "{written} written");
    }
    rig.send_part(&mut parts);
    assert!(parts.is_whole());
    assert_eq!(rig.published_from(begin), 20);
    assert_eq!(rig.receive().unwrap().unwrap(), [1; 40_000]);
    assert!(rig.receive().unwrap().unwrap() == parts.message);
    assert_eq!(rig.receive(), Ok(None));
}

#[test]
fn parts_are_not_held_back_from_who_is_not_behind_or_in_a_small_ring() {
    let mut at_rest = Rig::behind();
    assert_eq!(at_rest.receive().unwrap().unwrap(), [1; 40_000]);
    // Less than what it says at once.
    at_rest.send(&[2; 10_000]);
    assert_eq!(at_rest.receive().unwrap().unwrap(), [2; 10_000]);
    let mut small = rig_of(WIDE / 2, WIDE / 2);
    small.send(&[1; 40_000]);
    for rig in [&mut at_rest, &mut small] {
        let begin = rig.sender.positions().0;
        let mut parts = Parts::new(1, 19_000, 1_000);
        for written in 1..20 {
            rig.send_part(&mut parts);
            assert_eq!(rig.published_from(begin), written);
        }
    }
}

#[test]
fn a_ring_grows_for_parts_behind_others() {
    let mut rig = rig_of(WIDE / 2, WIDE);
    rig.send(&[1; 10_000]);
    rig.send_part(&mut Parts::new(1, 300_000, 1_000));
    assert!(!rig.sender.is_about_to_grow());
    let mut rig = rig_of(WIDE / 2, WIDE);
    rig.send(&[1; 40_000]);
    rig.send_part(&mut Parts::new(1, 300_000, 1_000));
    assert!(rig.sender.is_about_to_grow());
}

/// It waits for no more than two parts, and gets further behind until as many are held as can be.
#[test]
fn a_receiver_that_waits_gets_one_part_for_two() {
    let mut rig = Rig::behind();
    let begin = rig.sender.positions().0;
    assert_eq!(rig.receive().unwrap().unwrap(), [1; 40_000]);
    rig.send(&[1; 40_000]);
    let mut parts = Parts::new(1, 60_000, 1_000);
    let (mut got, mut waits, mut taken) = (Vec::new(), 0, 0);
    for written in 1..60 {
        rig.send_part(&mut parts);
        let before = taken;
        while let front @ (Front::Whole(..) | Front::First(..) | Front::Next(_)) =
            rig.receiver.front().unwrap()
        {
            rig.receiver.take_into(front, &mut got);
            rig.receiver.publish().unwrap();
            taken += 1;
        }
        waits = if taken == before { waits + 1 } else { 0 };
        assert!(waits < 2, "after {written} parts");
    }
    // The first of them was the message before.
    assert_eq!(taken - 1, 59 - HELD, "held back: {}", 60 - taken);
    assert!(rig.published_from(begin) > 0);
    rig.send_part(&mut parts);
    while rig.receiver.front().unwrap() != Front::Nothing {
        let front = rig.receiver.front().unwrap();
        rig.receiver.take_into(front, &mut got);
    }
    assert!(got[..40_000] == [1; 40_000] && got[40_000..] == parts.message);
}

#[test]
fn whoever_sleeps_or_takes_back_or_begins_anew_gets_what_was_held_back() {
    for what in 0..3 {
        let mut rig = Rig::behind();
        let begin = rig.sender.positions().0;
        let mut parts = Parts::new(1, 20_000, 1_000);
        (0..3).for_each(|_| rig.send_part(&mut parts));
        assert_eq!(rig.published_from(begin), 0);
        match what {
            0 => {
                rig.receiver.line().falls_asleep();
                rig.send_part(&mut parts);
                assert_eq!(rig.published_from(begin), 4);
                rig.receiver.line().is_awake();
                while !parts.is_whole() {
                    rig.send_part(&mut parts);
                }
            }
            1 => {
                rig.sender.write_abort().unwrap();
                assert_eq!(rig.published_from(begin), 4);
                rig.send(&parts.message);
            }
            _ => {
                assert!(rig.sender.lets_go());
                assert!(!rig.sender.lets_go());
                assert_eq!(rig.published_from(begin), 3);
                continue;
            }
        }
        assert_eq!(rig.receive().unwrap().unwrap(), [1; 40_000]);
        let mut got = Vec::new();
        loop {
            match rig.receiver.front().unwrap() {
                Front::Nothing => break,
                Front::Abort => {
                    rig.receiver.take_into(Front::Abort, &mut got);
                    assert!(got == parts.message[..3_000]);
                    got.clear();
                }
                front => rig.receiver.take_into(front, &mut got),
            }
        }
        assert!(got == parts.message, "{what}");
    }
}

/// What a receiver has got, record by record.
#[derive(Default)]
struct Got {
    torso: Vec<u8>,
    messages: Vec<Vec<u8>>,
}

impl Got {
    /// Takes the record in front, or says that there is none.
    fn take(&mut self, receiver: &mut Receiver) -> bool {
        let front = receiver.front().unwrap();
        receiver.take_into(front, &mut self.torso);
        if receiver.has_to_publish() {
            receiver.publish().unwrap();
        }
        if let Front::Whole(..) | Front::Last(_) = front {
            self.messages.push(core::mem::take(&mut self.torso));
        }
        front != Front::Nothing
    }
}

#[test]
fn short_and_long_messages_pass_in_turn_however_fast_they_are_received() {
    let mut rig = rig_of(WIDE, WIDE);
    let (mut got, mut sent) = (Got::default(), Vec::new());
    let mut held = 0;
    for round in 0..84u64 {
        // So many records are taken for one that is sent; with none, whatever is there when there is no room.
        let pace = [0, 1, 2][round as usize / 7 % 3];
        // Full lines, which the next short message would go on from, and others.
        for number in 0..round % 16 {
            let short = (round << 8 | number).to_ne_bytes();
            if !rig.sender.finds_room(8).unwrap() {
                while got.take(&mut rig.receiver) {}
            }
            rig.send(&short);
            sent.push(short.to_vec());
        }
        let mut parts = Parts::new(round, [600_000, 100_001, 70_000, 1_200_007][round as usize % 4], 65_536);
        while !parts.is_whole() {
            let begin = rig.sender.positions().0;
            if rig.sender.finds_room(parts.part + 8).unwrap() {
                rig.send_part(&mut parts);
                held += u64::from(rig.published_from(begin) == 0);
                (0..pace).for_each(|_| _ = got.take(&mut rig.receiver));
            } else {
                rig.sender.lets_go();
                assert!(got.take(&mut rig.receiver), "neither room nor anything to receive");
            }
        }
        sent.push(parts.message);
        if round % 5 == 0 {
            while got.take(&mut rig.receiver) {}
            assert!(got.messages == sent, "round {round}");
            (got, sent) = Default::default();
        }
    }
    assert!(held > 200, "only {held} parts were held back");
    assert!(rig.sender.positions().0 < START, "the positions have not wrapped");
}
