//! [`Door`]: the threads of one process that wait at one socket.
//!
//! The bell does not say for whom it rings: a message, or room. If two threads waited at the socket, one could take the
//! bell of the other. So one waits at the socket, and the others wait for that one: when it has taken anything from the
//! socket, all look again at what they wait for.

use crate::socket::{self, Packet};
use polyproc_sys::deadline::Deadline;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The most descriptors that are kept for messages that have not come yet.
const KEPT: usize = 1 << 17;
/// The most packets that are taken at a time: a peer that rings without end keeps nobody past a deadline.
const PACKETS: usize = 64;

#[derive(Default)]
struct State {
    /// Whether somebody waits at the socket.
    is_attended: bool,
    /// Whether somebody waits for that one.
    has_others: bool,
    has_ended: bool,
    inbox: VecDeque<(u64, OwnedFd)>,
    /// Descriptors came that nobody has announced, more than are kept.
    is_flooded: bool,
}

/// Where the threads of this process wait for one connection's socket.
#[derive(Default)]
pub(crate) struct Door {
    state: Mutex<State>,
    turn: Condvar,
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the bell, unless `ready`, or until the deadline. `Ok(false)` if nothing came, only the backstop: who finds
    /// news then was forgotten.
    pub(crate) fn wait(
        &self,
        socket: BorrowedFd<'_>,
        deadline: Deadline,
        ready: impl Fn() -> bool,
    ) -> io::Result<bool> {
        let mut state = self.state();
        if ready() || state.has_ended {
            return Ok(true);
        }
        if deadline.has_passed() {
            return Ok(true);
        }
        if state.is_attended {
            state.has_others = true;
            let _state = match deadline.remaining() {
                Some(left) => {
                    let waited = self.turn.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.turn.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            return Ok(true);
        }
        state.is_attended = true;
        drop(state);
        let packet = Door::wait_for_packet(socket, deadline);
        let mut state = self.state();
        state.is_attended = false;
        let has_others = core::mem::take(&mut state.has_others);
        let is_forgotten = deadline == Deadline::NEVER && matches!(packet, Ok(Packet::Nothing));
        let result = packet.map(|packet| state.take(packet));
        drop(state);
        if has_others {
            self.turn.notify_all();
        }
        result.map(|()| !is_forgotten)
    }

    fn wait_for_packet(socket: BorrowedFd<'_>, deadline: Deadline) -> io::Result<Packet> {
        if deadline == Deadline::NEVER {
            return socket::receive(socket, true);
        }
        // The backstop is for a thread that closes the end meanwhile.
        socket::wait_readable(socket, deadline.or_backstop())?;
        socket::receive(socket, false)
    }

    /// Takes what has come, without waiting. Whether the other end is gone.
    pub(crate) fn look(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut state = self.state();
        state.take_packets(socket)?;
        let has_ended = state.has_ended;
        let has_others = core::mem::take(&mut state.has_others);
        drop(state);
        if has_others {
            self.turn.notify_all();
        }
        Ok(has_ended)
    }

    /// Whether the other end was seen to be gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().has_ended
    }

    /// Whether more descriptors came than were announced.
    pub(crate) fn is_flooded(&self) -> bool {
        self.state().is_flooded
    }

    /// The descriptors of the message with this serial number; those of earlier ones are closed. As many as are there.
    pub(crate) fn take_descriptors(&self, serial: u64) -> Vec<OwnedFd> {
        let mut state = self.state();
        let mut taken = Vec::new();
        while state.inbox.front().is_some_and(|(of, _)| *of <= serial) {
            if let Some((of, descriptor)) = state.inbox.pop_front()
                && of == serial
            {
                taken.push(descriptor);
            }
        }
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().inbox.is_empty()
    }
}

impl State {
    fn take_packets(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        for _ in 0..PACKETS {
            match socket::receive(socket, false)? {
                Packet::Nothing => break,
                Packet::End => {
                    self.has_ended = true;
                    break;
                }
                packet => self.take(packet),
            }
        }
        Ok(())
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Nothing | Packet::Bell => {}
            Packet::End => self.has_ended = true,
            Packet::Descriptors(serial, descriptors) => {
                self.inbox.extend(descriptors.into_iter().map(|descriptor| (serial, descriptor)));
                if self.inbox.len() > KEPT {
                    self.inbox.clear();
                    self.is_flooded = true;
                }
            }
        }
    }
}
