//! A ring between this side and one that does what a fuzzer says.

use crate::ring::{
    Broken, CLOSED, Control, Front, GROWN, Kind, LENGTH_SHIFT, Place, RUN, RUN_MOST, Receiver, START, Sender,
    WRITTEN,
};
use core::ptr::NonNull;
use polyproc_sys::atomic::{AtomicU64, Ordering};

const CAPACITY: u64 = 4096;
const CONTROL: usize = size_of::<Control>();
/// How many words of eight bytes the ring and its control words have.
const WORDS: usize = (CONTROL + CAPACITY as usize) / 8;
/// Where the sender says how far it is, to itself, and the receiver.
const TAIL: usize = 0;
const HEAD: usize = CONTROL / 2 / 8;
/// How many bytes the ring uses at first.
const AT_FIRST: u64 = CAPACITY / 4;

/// How long messages are for who knows it: most of them share lines.
const LENGTHS: [usize; 8] = [8, 16, 24, 8, 5, 20, 40, 64];

/// What of a script is left.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    /// So many bytes as a number.
    fn next(&mut self, bytes: usize) -> Option<u64> {
        let (now, later) = self.0.split_at_checked(bytes)?;
        self.0 = later;
        Some(now.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// Memory that the other side can write to as it likes.
struct Memory {
    words: Vec<AtomicU64>,
    start: usize,
}

impl Memory {
    fn new() -> Memory {
        let words: Vec<_> = (0..WORDS + 16).map(|_| AtomicU64::new(0)).collect();
        let start = words.as_ptr().align_offset(align_of::<Control>());
        Memory { words, start }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words[self.start + index % WORDS]
    }

    /// Where the header of a record is that begins there.
    fn record(&self, position: u64) -> &AtomicU64 {
        self.word(CONTROL / 8 + (position % CAPACITY) as usize / 8)
    }

    fn place(&self) -> Place {
        let control = NonNull::from(self.word(0)).cast();
        let bytes = NonNull::from(self.word(CONTROL / 8)).cast();
        // SAFETY: zeroed, aligned, large enough; nobody has the place when the memory is freed.
        unsafe { Place::new(control, bytes, AT_FIRST, CAPACITY) }
    }
}

/// Sends and receives, with a peer that does in between what the script says: writes records that make sense
/// and such that do not, anywhere.
///
/// # Panics
///
/// If something comes of it that may not: more bytes than were published, or an end that goes on after it
/// found the other one out.
pub fn ring(script: &[u8]) {
    let mut script = Script(script);
    let memory = Memory::new();
    let mut sender = Sender::new(memory.place(), START, START);
    sender.initialise();
    let mut receiver = Receiver::new(memory.place(), START, 0);
    let mut tail = START;
    let (mut message, mut published) = (Vec::new(), 0);
    while let Some(step) = script.next(1) {
        let Some(()) = (match step % 8 {
            0 => step_of_a_sender(&mut sender, &mut script, &mut tail),
            1 => script.next(2).zip(script.next(8)).map(|(index, value)| {
                memory.word(index as usize).store(value, Ordering::SeqCst);
            }),
            // A record of any kind, with a length and a total that may be, where the next one begins; mostly
            // with zero behind it.
            2 => script.next(6).map(|what| {
                let length = what & 0x3ff;
                let kind = match what >> 16 & 0xf {
                    0..=5 => 0,
                    6 => GROWN,
                    // A run, with a length and a number that may be.
                    7..=9 => RUN | ((what >> 10 & 1) * CLOSED),
                    kind => (kind & 3) << 20 | (kind >> 2 & 1) << 22,
                };
                let length = if kind & RUN != 0 {
                    length % 26
                } else if kind == GROWN {
                    length / 1_000
                } else {
                    length
                };
                let end = tail.wrapping_add(8 + length.next_multiple_of(8));
                let end = if kind & RUN != 0 { (tail & !63).wrapping_add(64) } else { end };
                if what >> 24 & 7 != 0 {
                    memory.record(end).store(0, Ordering::SeqCst);
                }
                let total = what >> 24 << (what >> 21 & 7);
                if kind & RUN == 0 {
                    memory.record(tail.wrapping_add(8)).store(total, Ordering::SeqCst);
                }
                // Descriptors, or where a run ends, mostly behind a message.
                let low = what >> 40 & 0xf;
                let low = if kind & RUN != 0 { low * 8 + (what >> 44 & 15 == 0) as u64 } else { low };
                let header = WRITTEN | kind | length << LENGTH_SHIFT | low;
                memory.record(tail).store(header, Ordering::SeqCst);
                tail = end;
            }),
            3 | 4 => script.next(2).map(|ahead| {
                tail = if step % 8 == 3 {
                    tail.wrapping_add(ahead & !7)
                } else {
                    tail.wrapping_sub(ahead & 0xff8)
                };
            }),
            // What is in front changes.
            5 => script.next(1).zip(script.next(2)).map(|(at, bits)| {
                let word = memory.record(tail.wrapping_sub(at * 8));
                word.fetch_xor((bits & 0xff) << 16 | bits >> 8, Ordering::SeqCst);
            }),
            6 => script.next(8).map(|value| {
                let word = if value & 1 == 0 { HEAD } else { TAIL };
                memory.word(word).store(value & !1, Ordering::SeqCst);
            }),
            _ => {
                let received = match LENGTHS.get(usize::from((step >> 3) as u8)) {
                    Some(length) => receive_exactly(&mut receiver, *length, &mut published),
                    None => receive(&mut receiver, &mut message, &mut published),
                };
                if received == Err(Broken) {
                    return;
                }
                Some(())
            }
        }) else {
            break;
        };
    }
    _ = receive(&mut receiver, &mut message, &mut published);
}

/// A message by the rules, if it has room.
fn step_of_a_sender(sender: &mut Sender, script: &mut Script<'_>, tail: &mut u64) -> Option<()> {
    let what = script.next(2)? as usize;
    let length = if what >> 15 != 0 { what % 26 } else { what % sender.most() };
    match sender.finds_room(length) {
        Ok(true) => {
            let message = vec![length as u8; length];
            let is_burst = what >> 14 & 1 != 0;
            let (run, kind) = (sender.run(), Kind::of(length));
            let sent = if run.is_open(kind) {
                sender.go_on(run, &message);
                Ok(())
            } else if is_burst
                && run.is_full(kind)
                && (sender.may_open_line() || sender.allows_lines(1 + what as u64 % 5) == Ok(true))
            {
                sender.open_line(kind).map(|run| sender.go_on(run, &message))
            } else if is_burst && sender.may_follow(length) && length > RUN_MOST {
                sender.follow(&message)
            } else {
                let written = sender.write(&message, 0, is_burst);
                if is_burst && length > RUN_MOST && written.is_ok() {
                    sender.allows_records(what as u64 % 5);
                }
                written
            };
            if sent.is_ok() {
                *tail = sender.positions().0;
            }
        }
        Ok(false) if sender.is_about_to_grow() => {
            if sender.grow().is_ok() {
                *tail = sender.positions().0;
            }
        }
        Ok(false) => {}
        Err(Broken) => {
            assert_eq!(sender.finds_room(CAPACITY as usize), Err(Broken), "it has found the other one out")
        }
    }
    Some(())
}

/// Takes what is there and of this length, as one does who knows how long messages are. The last of that is
/// published later.
fn receive_exactly(receiver: &mut Receiver, length: usize, taken: &mut u64) -> Result<(), Broken> {
    for _ in 0..=CAPACITY / 8 {
        let mut ready = receiver.ready(length).or_else(|| receiver.begin_next(length));
        if ready.is_none() {
            if receiver.has_to_publish() {
                receiver.publish()?;
            }
            if receiver.front()? == Front::Whole(length, 0) {
                ready = receiver.make_ready(length);
            }
        }
        let Some(ready) = ready else { break };
        let got = receiver.take_ready(ready, length, <[u8]>::len);
        assert_eq!(got, length);
        *taken += length as u64;
    }
    Ok(())
}

/// Takes what is there. Whoever writes on, or left no zero behind what it wrote, is not waited for.
fn receive(receiver: &mut Receiver, message: &mut Vec<u8>, taken: &mut u64) -> Result<(), Broken> {
    for _ in 0..=CAPACITY / 8 {
        let front = receiver.front()?;
        if receiver.has_to_publish() {
            receiver.publish()?;
        }
        match front {
            Front::Nothing | Front::Final => break,
            Front::Grown => receiver.grow(),
            _ => {}
        }
        assert!(receiver.place().capacities().0 <= CAPACITY, "more than it may use");
        let before = message.len();
        receiver.take_into(front, message);
        let more = (message.len() - before) as u64;
        assert!(more <= CAPACITY, "more than the ring has");
        *taken += more;
        if let Front::Whole(..) | Front::Last(_) | Front::Abort = front {
            message.clear();
            message.shrink_to(CAPACITY as usize);
        }
        assert!(message.capacity() as u64 <= (4 << 20) + 2 * CAPACITY + 2 * *taken, "memory for a claim");
    }
    if receiver.has_to_publish() { receiver.publish().map(drop) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_other_side_does(script in prop::collection::vec(any::<u8>(), 0..600)) {
            super::ring(&script);
        }

        /// Mostly by the rules, so that it gets far.
        #[test]
        fn one_lie_among_truths(
            steps in prop::collection::vec((prop::sample::select(vec![0u8, 0, 0, 2, 2, 7, 7 + 8, 7 + 16, 71, 71, 4, 5]), any::<[u8; 6]>()), 0..200),
            lie in any::<[u8; 10]>(),
            at in any::<prop::sample::Index>(),
        ) {
            let mut script: Vec<u8> = steps.iter().flat_map(|(step, rest)| {
                let length = match step { 7.. => 0, 2 => 6, 5 => 3, _ => 2 };
                std::iter::once(*step).chain(rest[..length].iter().copied())
            }).collect();
            let at = at.index(script.len() + 1);
            script.splice(at..at, lie);
            super::ring(&script);
        }
    }
}
