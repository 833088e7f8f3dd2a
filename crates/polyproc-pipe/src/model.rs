//! What the models see: two lines and a bell between a sender and a receiver of messages that are only counted, and a gate
//! with a number. And what they can take out of the protocol, to show that each part is needed.

use crate::barrier;
use crate::gate::Gate;
use crate::line::Line;
use core::fmt;
use polyproc_sys::atomic::{AtomicU32, Ordering};
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

/// A ring of two messages, that wait for each other.
#[derive(Default)]
pub struct Stage {
    sender: Line,
    receiver: Line,
    /// At which the receiver waits, and the sender.
    news: Socket,
    room: Socket,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").finish_non_exhaustive()
    }
}

/// How many messages have room.
const ROOM: u64 = 1;

impl Stage {
    /// Sends so many messages, waiting for room. Returns early at the receiver's end.
    pub fn send(&self, messages: u64) {
        for sent in 0..messages {
            let has_room = || sent - self.receiver.position() < ROOM;
            if !sleep_until(has_room, &self.sender, &self.room) {
                return;
            }
            self.sender.publish(sent, sent + 1).unwrap();
            if self.receiver.hears_of_sleep() {
                self.news.ring();
            }
        }
    }

    /// Receives so many messages, or until the end. Returns how many there were.
    pub fn receive(&self, messages: u64) -> u64 {
        for received in 0..messages {
            let has_news = || self.sender.position() != received;
            if !sleep_until(has_news, &self.receiver, &self.news) {
                return received;
            }
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
        self.sender.position()
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

    /// The number.
    pub fn get(&self) -> u32 {
        self.0.enter(Deadline::NEVER).unwrap().load(Ordering::Relaxed)
    }
}
