//! What the models see: a ring of two records, two lines and a bell between a sender and a receiver of
//! messages that are their own numbers, and a gate with a number. And what they can take out of the protocol,
//! to show that each part is needed.

use crate::barrier;
use crate::gate::Gate;
use crate::line::Line;
use core::fmt;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::Futex;
use std::sync::Mutex;

/// A part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The barrier of who goes to sleep, or takes a gate away.
    Barrier,
    /// A sleeper's last look.
    LastLook,
    /// The bell.
    Bell,
    /// The socket's end-of-file.
    End,
    /// The zero behind the last record.
    Zero,
    /// That the message is there before its header says so.
    Order,
    /// The same, when the header says that no more comes to the run.
    OrderOfEnd,
}

/// Not the checker's: set before a model begins.
static WITHOUT: Mutex<Option<Part>> = Mutex::new(None);

/// Takes a part out, or none.
pub fn set_without(part: Option<Part>) {
    *WITHOUT.lock().unwrap_or_else(|error| error.into_inner()) = part;
}

pub(crate) fn is_without(part: Part) -> bool {
    *WITHOUT.lock().unwrap_or_else(|error| error.into_inner()) == Some(part)
}

const END: u32 = 1;
const BELL: u32 = 2;

/// The receiver's end of the socket: how many bells lie in it, and whether the other end is gone.
#[derive(Default)]
struct Socket(Futex);

impl Socket {
    fn ring(&self) {
        if !is_without(Part::Bell) {
            self.0.fetch_add(BELL, Ordering::SeqCst);
            self.0.wake(1);
        }
    }

    fn end(&self) {
        if !is_without(Part::End) {
            self.0.fetch_or(END, Ordering::SeqCst);
            self.0.wake_all();
        }
    }

    fn has_ended(&self) -> bool {
        self.0.load(Ordering::SeqCst) & END != 0
    }

    /// Takes a packet, or finds the end.
    fn wait(&self) {
        loop {
            let state = self.0.load(Ordering::SeqCst);
            if state & END != 0 {
                return;
            }
            if state >= BELL {
                self.0.fetch_sub(BELL, Ordering::SeqCst);
                return;
            }
            self.0.wait(state, Deadline::NEVER);
        }
    }
}

/// A record that may be a run.
#[derive(Default)]
struct Record {
    /// How many messages it has.
    header: AtomicU64,
    messages: [AtomicU64; 2],
}

/// A ring of two records, and those that wait for each other there.
#[derive(Default)]
pub struct Stage {
    sender: Line,
    receiver: Line,
    records: [Record; 2],
    /// Whether a record has two messages, or one.
    has_runs: bool,
    /// Not the checker's: what was published, and by then nothing else.
    published: Mutex<u64>,
    /// At which the receiver waits, and the sender.
    news: Socket,
    room: Socket,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").finish_non_exhaustive()
    }
}

/// In a header: no more messages come to the run.
const CLOSED: u64 = 1 << 58;

/// How many messages have room.
const ROOM: u64 = 1;

impl Stage {
    /// One with records of two messages.
    pub fn with_runs() -> Stage {
        Stage { has_runs: true, ..Stage::default() }
    }

    /// The record that has message `number`, and the one behind it, and which of its messages that is.
    fn place(&self, number: u64) -> (&Record, &Record, usize) {
        let (record, index) = if self.has_runs { (number / 2, number % 2) } else { (number, 0) };
        let at = |record: u64| &self.records[(record % 2) as usize];
        (at(record), at(record + 1), index as usize)
    }

    /// Publishes a message for which there is room.
    fn publish(&self, number: u64) {
        let (record, behind, index) = self.place(number);
        let order = if is_without(Part::Order) { Ordering::Relaxed } else { Ordering::Release };
        record.messages[index].store(number + 1, Ordering::Relaxed);
        if index == 0 && !is_without(Part::Zero) {
            behind.header.store(0, Ordering::Relaxed);
        }
        record.header.store(index as u64 + 1, order);
        *self.published.lock().unwrap_or_else(|error| error.into_inner()) += 1;
    }

    /// Says that the run has no messages behind this one.
    fn close(&self, number: u64) {
        let (record, _, index) = self.place(number);
        let order = if is_without(Part::OrderOfEnd) { Ordering::Relaxed } else { Ordering::Release };
        record.header.store(CLOSED | (index as u64 + 1), order);
    }

    /// Sends so many messages, waiting for room, and closes the run. Returns early at the receiver's end.
    pub fn send(&self, messages: u64) {
        for sent in 0..messages {
            let has_room = || sent - self.receiver.position() < ROOM;
            if !sleep_until(has_room, &self.sender, &self.room) {
                return;
            }
            self.publish(sent);
            // Right behind it: the light barrier orders more here than it does in a process.
            if self.has_runs && sent + 1 == messages && !messages.is_multiple_of(2) {
                self.close(sent);
            }
            if self.receiver.hears_of_sleep() {
                self.news.ring();
            }
        }
    }

    /// Receives so many messages, or until the end. Returns how many there were.
    pub fn receive(&self, messages: u64) -> u64 {
        for received in 0..messages {
            let (record, _, index) = self.place(received);
            let has_news = || record.header.load(Ordering::Acquire) & !CLOSED > index as u64;
            if !sleep_until(has_news, &self.receiver, &self.news) {
                return received;
            }
            let message = record.messages[index].load(Ordering::Relaxed);
            assert_eq!(message, received + 1, "this is not the next message");
            self.receiver.publish(received, received + 1).unwrap();
            if self.sender.hears_of_sleep() {
                self.room.ring();
            }
        }
        messages
    }

    /// As the kernel, when the sender, or the receiver, is gone.
    pub fn end(&self, sender: bool) {
        if sender { self.news.end() } else { self.room.end() }
    }

    /// How many messages were published.
    pub fn published(&self) -> u64 {
        *self.published.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// What an end does to wait: `true` when it is ready, `false` at the other one's end.
fn sleep_until(is_ready: impl Fn() -> bool, mine: &Line, socket: &Socket) -> bool {
    loop {
        if is_ready() {
            return true;
        }
        mine.falls_asleep();
        barrier::heavy();
        let has_ended = socket.has_ended();
        if (!is_without(Part::LastLook) || has_ended) && is_ready() {
            mine.is_awake();
            return true;
        }
        if has_ended {
            return false;
        }
        if mine.is_asleep() {
            socket.wait();
        }
        mine.is_awake();
    }
}

/// A gate with a number that only one thread at a time may add to.
pub struct Counter(Gate<AtomicU32>);

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").finish_non_exhaustive()
    }
}

impl Default for Counter {
    fn default() -> Counter {
        Counter(Gate::new(AtomicU32::new(0)))
    }
}

impl Counter {
    /// Adds one, in two steps.
    pub fn add(&self) {
        let number = self.0.enter(Deadline::NEVER).unwrap();
        let before = number.load(Ordering::Relaxed);
        number.store(before + 1, Ordering::Relaxed);
    }

    /// Takes the gate away from whoever owns it, and does not come in.
    pub fn disown(&self) {
        self.0.disown();
    }

    /// The number.
    pub fn get(&self) -> u32 {
        self.0.enter(Deadline::NEVER).unwrap().load(Ordering::Relaxed)
    }
}
