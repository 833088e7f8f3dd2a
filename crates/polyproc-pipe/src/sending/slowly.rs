//! What an [`End`] does to send what does not go at once: with descriptors, in parts, or when there is room.

use super::{SendRefusal, Sending};
use crate::barrier;
use crate::door::SENDING;
use crate::end::{End, SLICE};
use crate::gate::Inside;
use crate::ring::{Broken, DESCRIPTORS_MAX, MESSAGE_MAX};
use crate::socket;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex;
use std::io;
use std::os::fd::BorrowedFd;

/// The most bytes in a part of a message: some of them fit into the caches of a CPU.
const PART: usize = 64 << 10;

/// What was sent of a message.
#[derive(Default)]
pub(crate) struct Sent {
    bytes: usize,
    /// Of its descriptors.
    packets: usize,
}

#[cfg(feature = "tokio")]
impl Sent {
    pub(crate) fn is_nothing(&self) -> bool {
        self.bytes == 0 && self.packets == 0
    }
}

impl End {
    #[cold]
    #[inline(never)]
    pub(super) fn send_otherwise<'a>(
        &'a self,
        mut sending: Inside<'a, Sending>,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        while sending.is_under_way {
            sending = self.enter_again(sending, deadline)?;
        }
        let result = self
            .may_send(&mut sending, bytes.len(), descriptors.len())
            .and_then(|()| self.send_records(&mut sending, bytes, descriptors, deadline));
        if let Err(SendRefusal::Corrupt) = result {
            self.break_off(&mut sending);
        }
        let has_parked = core::mem::take(&mut sending.has_parked);
        drop(sending);
        if has_parked {
            self.door.unpark(SENDING);
        }
        result
    }

    /// After a part of a task's message was seen under way.
    pub(super) fn enter_again<'a>(
        &'a self,
        sending: Inside<'a, Sending>,
        deadline: Deadline,
    ) -> Result<Inside<'a, Sending>, SendRefusal> {
        drop(sending);
        if deadline.has_passed() {
            return Err(SendRefusal::Full);
        }
        std::thread::sleep(SLICE);
        self.enter_sending(deadline)
    }

    /// Refuses what cannot be sent.
    pub(crate) fn may_send(
        &self,
        sending: &mut Sending,
        length: usize,
        descriptors: usize,
    ) -> Result<(), SendRefusal> {
        if self.is_closed() || sending.is_final {
            return Err(SendRefusal::Closed);
        }
        if sending.is_broken {
            return Err(SendRefusal::Corrupt);
        }
        if length > MESSAGE_MAX {
            return Err(SendRefusal::TooLarge(MESSAGE_MAX));
        }
        if descriptors > DESCRIPTORS_MAX {
            return Err(SendRefusal::TooLarge(DESCRIPTORS_MAX));
        }
        self.take_pulse(sending)
    }

    fn send_records(
        &self,
        sending: &mut Sending,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        let mut sent = Sent::default();
        loop {
            let need = self.next_part(sending, bytes, descriptors, &sent);
            let result = self
                .wait_for_room(sending, need, deadline)
                .and_then(|()| self.send_part(sending, bytes, descriptors, &mut sent, deadline));
            match result {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(refusal) => {
                    if matches!(refusal, SendRefusal::Full | SendRefusal::Closed | SendRefusal::Io(_)) {
                        self.take_back(sending, &sent)?;
                    }
                    return Err(refusal);
                }
            }
        }
    }

    /// How long a part is if the message passes in parts: small enough that both sides work at the same time.
    fn part(sending: &Sending) -> usize {
        (sending.ring.place().capacities().0 as usize / 8).min(PART)
    }

    /// For how many bytes there must be room.
    pub(crate) fn next_part(
        &self,
        sending: &Sending,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        sent: &Sent,
    ) -> usize {
        match sent.bytes {
            // To take back descriptors without a message needs a part with the length.
            0 if bytes.len() <= sending.ring.most() => bytes.len().max(8 * descriptors.len().min(1)),
            // With the length of all.
            0 => End::part(sending) + 8,
            sent => End::part(sending).min(bytes.len() - sent),
        }
    }

    /// Sends the message, or the next part of it, for which there is room. Whether it is whole now.
    pub(crate) fn send_part(
        &self,
        sending: &mut Sending,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        sent: &mut Sent,
        deadline: Deadline,
    ) -> Result<bool, SendRefusal> {
        let begin = sent.bytes;
        let is_whole = begin == 0 && bytes.len() <= sending.ring.most();
        let part =
            if is_whole { bytes } else { &bytes[begin..][..End::part(sending).min(bytes.len() - begin)] };
        if begin == 0 && !descriptors.is_empty() {
            self.send_descriptors(sending, descriptors, &mut sent.packets, deadline)?;
        }
        let is_last = begin + part.len() == bytes.len();
        match begin {
            _ if is_whole => sending.ring.write(part, descriptors.len(), false),
            0 => sending.ring.write_first(bytes.len(), part, descriptors.len()),
            _ => sending.ring.write_next(part, is_last),
        }?;
        sent.bytes += part.len();
        self.hear(sending, false);
        Ok(is_last)
    }

    /// Sends what is left of the descriptors of the next message.
    fn send_descriptors(
        &self,
        sending: &mut Sending,
        descriptors: &[BorrowedFd<'_>],
        packets: &mut usize,
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        while let Some(packet) = descriptors.chunks(socket::PACKET_DESCRIPTORS).nth(*packets) {
            // The number is used up only by a message that comes, or is taken back: the receiver counts
            // those.
            let Err(error) = socket::send_descriptors(self.socket(), sending.serial + 1, packet) else {
                *packets += 1;
                continue;
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if deadline.has_passed() => return Err(SendRefusal::Full),
                io::ErrorKind::WouldBlock => {
                    self.parks(sending);
                    // The backstop is for a thread that closes the end meanwhile.
                    socket::wait_writable(self.socket(), deadline.or_backstop()).map_err(SendRefusal::Io)?;
                }
                _ if self.is_closed() => return Err(SendRefusal::Closed),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    return Err(SendRefusal::Disconnected);
                }
                _ => return Err(SendRefusal::Io(error)),
            }
        }
        sending.serial += 1;
        Ok(())
    }

    /// Takes back a message of which a part was sent, if one was; or some of its descriptors, and none of its
    /// bytes.
    pub(crate) fn take_back(&self, sending: &mut Sending, sent: &Sent) -> Result<(), SendRefusal> {
        if sent.bytes == 0 {
            if sent.packets == 0 {
                return Ok(());
            }
            sending.serial += 1;
            sending.ring.write_first(1, &[], 1)?;
        }
        sending.ring.write_abort()?;
        self.hear(sending, false);
        Ok(())
    }

    /// Says at the door that this thread is about to wait.
    fn parks(&self, sending: &mut Sending) {
        if !core::mem::replace(&mut sending.has_parked, true) {
            self.door.park(SENDING);
        }
    }

    fn wait_for_room(
        &self,
        sending: &mut Sending,
        length: usize,
        deadline: Deadline,
    ) -> Result<(), SendRefusal> {
        let mut is_forgotten = false;
        loop {
            if self.finds_room(sending, length)? {
                if is_forgotten {
                    futex::count_backstop_rescue();
                }
                return Ok(());
            }
            if deadline == Deadline::PAST {
                self.refuses()?;
                return Err(SendRefusal::Full);
            }
            let ring = &mut sending.ring;
            let look = || ring.finds_room(length).is_ok_and(|has_room| has_room).then_some(());
            if self.room.look(look).is_some() {
                return Ok(());
            }
            self.parks(sending);
            sending.ring.line().falls_asleep();
            let is_prompt = barrier::heavy();
            if sending.ring.finds_room(length)? {
                sending.ring.line().is_awake();
                return Ok(());
            }
            self.refuses()?;
            if deadline.has_passed() {
                sending.ring.line().is_awake();
                return Err(SendRefusal::Full);
            }
            let until = if is_prompt { deadline } else { deadline.min(Deadline::after(SLICE)) };
            let is_awake = || !sending.ring.line().is_asleep();
            is_forgotten = !self.door.wait(self.socket(), until, is_awake).map_err(SendRefusal::Io)?;
            sending.ring.line().is_awake();
        }
    }

    /// Whether a record of so many bytes fits now. Has the ring grow when it can and would help.
    pub(crate) fn finds_room(&self, sending: &mut Sending, length: usize) -> Result<bool, Broken> {
        let has_room = sending.ring.finds_room(length)?;
        // Whoever waits holds nothing back.
        if !has_room && sending.ring.lets_go() {
            self.hear(sending, false);
        }
        if !sending.ring.is_about_to_grow() {
            return Ok(has_room);
        }
        match self.allocate_more(self.side, sending.ring.place()) {
            Ok(()) => sending.ring.grow()?,
            Err(_) => sending.ring.gives_up_growing(),
        }
        sending.ring.finds_room(length)
    }

    /// Whether waiting for room makes no sense.
    pub(crate) fn refuses(&self) -> Result<(), SendRefusal> {
        if self.is_closed() {
            Err(SendRefusal::Closed)
        } else if self.door.has_ended() || socket::is_gone(self.socket()) {
            Err(SendRefusal::Disconnected)
        } else {
            Ok(())
        }
    }
}
