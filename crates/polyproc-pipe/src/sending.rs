//! What an [`End`] does to send.

use crate::barrier;
use crate::end::{End, SLICE};
use crate::gate::Inside;
use crate::pulse::Pulse;
use crate::ring::{Broken, DESCRIPTORS_MAX, MESSAGE_MAX, Sender};
use crate::socket;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex;
use std::io;
use std::os::fd::BorrowedFd;

/// Why nothing was sent.
#[derive(Debug)]
pub(crate) enum SendRefusal {
    Full,
    Disconnected,
    TooLarge(usize),
    Corrupt,
    Closed,
    Io(io::Error),
}

impl From<Broken> for SendRefusal {
    fn from(_: Broken) -> SendRefusal {
        SendRefusal::Corrupt
    }
}

/// What the one who sends has.
pub(crate) struct Sending {
    pub(crate) ring: Sender,
    pub(crate) pulse: Pulse,
    /// Of the next message with descriptors.
    pub(crate) serial: u64,
    pub(crate) is_broken: bool,
}

impl End {
    /// Sends one message, by [`Sender`]. Rings the bell if the receiver sleeps, unless `quietly`.
    #[inline(always)]
    pub(crate) fn send(&self, bytes: &[u8], deadline: Deadline, quietly: bool) -> Result<(), SendRefusal> {
        let mut sending = self.enter_sending(deadline)?;
        if bytes.len() <= sending.ring.most()
            && sending.ring.has_room(bytes.len()).is_ok_and(|has_room| has_room)
            && !sending.is_broken
            && !self.is_closed()
        {
            self.check_pulse(&mut sending)?;
            sending.ring.write(bytes, 0);
            return self.publish(&mut sending, quietly);
        }
        self.send_otherwise(&mut sending, bytes, &[], deadline)
    }

    /// Sends one message with descriptors.
    pub(crate) fn send_with(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        let mut sending = self.enter_sending(deadline)?;
        self.send_otherwise(&mut sending, bytes, descriptors, deadline)
    }

    #[inline(always)]
    fn enter_sending(&self, deadline: Deadline) -> Result<Inside<'_, Sending>, SendRefusal> {
        self.sending.enter(deadline).ok_or(SendRefusal::Full)
    }

    #[inline(always)]
    fn publish(&self, sending: &mut Sending, quietly: bool) -> Result<(), SendRefusal> {
        if sending.ring.publish().is_err() {
            sending.is_broken = true;
            return Err(SendRefusal::Corrupt);
        }
        if !quietly && sending.ring.has_to_ring() {
            socket::ring(self.socket());
        }
        Ok(())
    }

    /// Rings the bell for what was sent quietly.
    pub(crate) fn ring(&self) {
        if let Some(sending) = self.sending.enter(Deadline::NEVER)
            && sending.ring.has_to_ring()
        {
            socket::ring(self.socket());
        }
    }

    /// Asks from time to time whether anybody is left.
    #[inline(always)]
    fn check_pulse(&self, sending: &mut Sending) -> Result<(), SendRefusal> {
        if sending.ring.hears_farewell() || sending.pulse.is_due() {
            self.take_pulse(sending)
        } else {
            Ok(())
        }
    }

    #[cold]
    #[inline(never)]
    fn take_pulse(&self, sending: &mut Sending) -> Result<(), SendRefusal> {
        if socket::is_gone(self.socket()) {
            return Err(SendRefusal::Disconnected);
        }
        sending.pulse.is_alive();
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn send_otherwise(
        &self,
        sending: &mut Sending,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        if self.is_closed() {
            return Err(SendRefusal::Closed);
        }
        if sending.is_broken {
            return Err(SendRefusal::Corrupt);
        }
        if bytes.len() > MESSAGE_MAX {
            return Err(SendRefusal::TooLarge(MESSAGE_MAX));
        }
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(SendRefusal::TooLarge(DESCRIPTORS_MAX));
        }
        self.take_pulse(sending)?;
        let result = self.send_records(sending, bytes, descriptors, deadline);
        if let Err(SendRefusal::Corrupt) = result {
            sending.is_broken = true;
        }
        result
    }

    fn send_records(
        &self,
        sending: &mut Sending,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        let is_whole = bytes.len() <= sending.ring.most();
        // A part is small enough that both sides work at the same time.
        let part = if is_whole { bytes.len() } else { self.capacity() as usize / 8 };
        let (first, mut rest) = bytes.split_at(part);
        self.wait_for_room(sending, part + 8, deadline)?;
        if !descriptors.is_empty() {
            sending.serial += 1;
            let sent = socket::send_descriptors(self.socket(), sending.serial, descriptors, deadline);
            sent.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => SendRefusal::Full,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SendRefusal::Disconnected,
                _ => SendRefusal::Io(error),
            })?;
        }
        if is_whole {
            sending.ring.write(first, descriptors.len());
            return self.publish(sending, false);
        }
        sending.ring.write_first(bytes.len(), first, descriptors.len());
        self.publish(sending, false)?;
        while !rest.is_empty() {
            let (next, after) = rest.split_at(part.min(rest.len()));
            if let Err(refusal) = self.wait_for_room(sending, next.len(), deadline) {
                if matches!(refusal, SendRefusal::Full | SendRefusal::Closed) {
                    sending.ring.write_abort();
                    self.publish(sending, false)?;
                }
                return Err(refusal);
            }
            sending.ring.write_next(next, after.is_empty());
            self.publish(sending, false)?;
            rest = after;
        }
        Ok(())
    }

    fn wait_for_room(
        &self,
        sending: &mut Sending,
        length: usize,
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        let mut is_forgotten = false;
        loop {
            if sending.ring.has_room(length)? {
                if is_forgotten {
                    futex::count_backstop_rescue();
                }
                return Ok(());
            }
            if deadline != Deadline::PAST {
                let ring = &mut sending.ring;
                if self
                    .room
                    .look(|| ring.has_room(length).is_ok_and(|has_room| has_room).then_some(()))
                    .is_some()
                {
                    return Ok(());
                }
            }
            sending.ring.falls_asleep();
            let is_prompt = barrier::heavy();
            if sending.ring.has_room(length)? {
                sending.ring.is_awake();
                return Ok(());
            }
            let until = if is_prompt { deadline } else { deadline.min(Deadline::after(SLICE)) };
            if self.is_closed() {
                return Err(SendRefusal::Closed);
            }
            if self.door.has_ended() || socket::is_gone(self.socket()) {
                return Err(SendRefusal::Disconnected);
            }
            if deadline.has_passed() {
                sending.ring.is_awake();
                return Err(SendRefusal::Full);
            }
            let is_awake = || !sending.ring.is_asleep();
            is_forgotten = !self.door.wait(self.socket(), until, is_awake).map_err(SendRefusal::Io)?;
            sending.ring.is_awake();
        }
    }
}
