//! What an [`End`] does to receive.

use crate::barrier;
use crate::door::RECEIVING;
use crate::end::{End, SLICE};
use crate::gate::Inside;
use crate::ring::{Broken, Front, Receiver};
use crate::socket;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex;
use std::io;
use std::os::fd::OwnedFd;

/// Why nothing was received.
#[derive(Debug)]
pub(crate) enum RecvRefusal {
    Empty,
    Disconnected,
    TooLong(usize),
    Corrupt,
    Closed,
    Io(io::Error),
}

impl From<Broken> for RecvRefusal {
    fn from(_: Broken) -> RecvRefusal {
        RecvRefusal::Corrupt
    }
}

/// What the one who receives has.
pub(crate) struct Receiving {
    pub(crate) ring: Receiver,
    /// What came of the message that has begun, and how many descriptors belong to it.
    pub(crate) torso: Vec<u8>,
    pub(crate) descriptors: usize,
    pub(crate) serial: u64,
    pub(crate) is_broken: bool,
    /// Whoever is inside has said at the door that it waits.
    pub(crate) has_parked: bool,
}

impl End {
    /// Receives one message of the size of `to`, if it is the usual case: `None` if not, and then [`recv`](End::recv) does
    /// it.
    #[inline(always)]
    pub(crate) fn recv_exact(&self, to: &mut [u8], deadline: Deadline) -> Option<()> {
        let mut receiving = self.receiving.enter(deadline)?;
        if receiving.is_broken || self.is_closed() {
            return None;
        }
        let front = match receiving.ring.front() {
            Ok(Front::Nothing) if deadline != Deadline::PAST => {
                let ring = &mut receiving.ring;
                self.news.look(|| ring.front().ok().filter(|front| *front != Front::Nothing))?
            }
            front => front.ok()?,
        };
        if front != Front::Whole(to.len(), 0) {
            return None;
        }
        receiving.ring.take_exactly(to);
        self.taken(&mut receiving);
        Some(())
    }

    /// Whether something is in front.
    pub(crate) fn has_news(&self) -> bool {
        let receiving = self.receiving.enter(Deadline::PAST);
        receiving.is_some_and(|mut receiving| receiving.ring.front() != Ok(Front::Nothing))
    }

    /// After something was taken.
    #[inline(always)]
    fn taken(&self, receiving: &mut Receiving) {
        if receiving.ring.has_to_publish() {
            self.publish_head(receiving);
        }
    }

    #[cold]
    #[inline(never)]
    fn publish_head(&self, receiving: &mut Receiving) {
        match receiving.ring.publish() {
            Ok(true) => socket::ring(self.socket()),
            Ok(false) => {}
            // What was received was whole; whatever comes next is not trusted.
            Err(Broken) => receiving.is_broken = true,
        }
    }

    /// Receives one message, of at most so many bytes: appends it to `to`, and returns its descriptors. A longer one stays
    /// where it is.
    pub(crate) fn recv(
        &self,
        to: &mut Vec<u8>,
        max: usize,
        deadline: Deadline,
    ) -> Result<Vec<OwnedFd>, RecvRefusal> {
        let mut receiving = self.receiving.enter(deadline).ok_or(RecvRefusal::Empty)?;
        let result = self.recv_records(&mut receiving, to, max, deadline);
        if let Err(RecvRefusal::Corrupt) = result {
            receiving.is_broken = true;
        }
        self.leave_receiving(receiving);
        result
    }

    /// Lets the tasks look that found somebody inside who waited.
    fn leave_receiving(&self, mut receiving: Inside<'_, Receiving>) {
        let has_parked = core::mem::take(&mut receiving.has_parked);
        drop(receiving);
        if has_parked {
            self.door.unpark(RECEIVING);
        }
    }

    fn recv_records(
        &self,
        receiving: &mut Receiving,
        to: &mut Vec<u8>,
        max: usize,
        deadline: Deadline,
    ) -> Result<Vec<OwnedFd>, RecvRefusal> {
        loop {
            let front = self.wait_for_news(receiving, deadline)?;
            match front {
                Front::Nothing => continue,
                Front::Whole(length, _) | Front::First(length, _) if length > max => {
                    return Err(RecvRefusal::TooLong(length));
                }
                Front::Whole(_, descriptors) => {
                    // Before it is taken: what does not arrive with it is missed.
                    let descriptors = self.take_descriptors(receiving, descriptors)?;
                    receiving.ring.take_into(front, to);
                    self.taken(receiving);
                    return Ok(descriptors);
                }
                Front::First(_, descriptors) => {
                    // The caller's memory, if it has some to spare: fresh memory costs more than the copy.
                    receiving.torso = if to.is_empty() { core::mem::take(to) } else { Vec::new() };
                    receiving.descriptors = descriptors;
                    receiving.take_part(front);
                }
                Front::Next(_) => receiving.take_part(front),
                Front::Abort => {
                    receiving.take_part(front);
                    receiving.torso = Vec::new();
                    // The descriptors of what is not to come.
                    if receiving.descriptors != 0 {
                        drop(self.take_descriptors(receiving, receiving.descriptors));
                    }
                }
                Front::Last(_) => {
                    receiving.take_part(front);
                    self.taken(receiving);
                    let descriptors = self.take_descriptors(receiving, receiving.descriptors)?;
                    let torso = core::mem::take(&mut receiving.torso);
                    if to.is_empty() {
                        *to = torso;
                    } else {
                        to.extend_from_slice(&torso);
                    }
                    return Ok(descriptors);
                }
            }
            self.taken(receiving);
        }
    }

    fn take_descriptors(&self, receiving: &mut Receiving, count: usize) -> Result<Vec<OwnedFd>, RecvRefusal> {
        if count == 0 {
            return Ok(Vec::new());
        }
        receiving.serial += 1;
        // They were sent before the message was published.
        let fetched = self.door.fetch_descriptors(self.socket(), receiving.serial, count);
        let descriptors = fetched.map_err(RecvRefusal::Io)?;
        if descriptors.len() == count && !self.door.is_flooded() {
            Ok(descriptors)
        } else {
            Err(RecvRefusal::Corrupt)
        }
    }

    fn wait_for_news(&self, receiving: &mut Receiving, deadline: Deadline) -> Result<Front, RecvRefusal> {
        let mut is_forgotten = false;
        loop {
            if self.is_closed() {
                return Err(RecvRefusal::Closed);
            }
            if receiving.is_broken {
                return Err(RecvRefusal::Corrupt);
            }
            let front = receiving.ring.front()?;
            if front != Front::Nothing {
                if is_forgotten {
                    futex::count_backstop_rescue();
                }
                return Ok(front);
            }
            if deadline != Deadline::PAST {
                let ring = &mut receiving.ring;
                let seen = self.news.look(|| Some(ring.front()).filter(|front| *front != Ok(Front::Nothing)));
                if let Some(front) = seen {
                    return Ok(front?);
                }
            }
            self.publish_head(receiving);
            let mut is_prompt = false;
            if deadline != Deadline::PAST {
                receiving.has_parked = true;
                self.door.park(RECEIVING);
                receiving.ring.line().falls_asleep();
                is_prompt = barrier::heavy();
            }
            // Who does not sleep asks the socket now; who sleeps does so there, and comes back.
            let ended = if deadline == Deadline::PAST {
                self.door.look(self.socket()).map_err(RecvRefusal::Io)?
            } else {
                self.door.has_ended()
            };
            // What was published before the end is here.
            let front = receiving.ring.front()?;
            if front != Front::Nothing {
                if deadline != Deadline::PAST {
                    receiving.ring.line().is_awake();
                }
                return Ok(front);
            }
            if self.is_closed() {
                return Err(RecvRefusal::Closed);
            }
            if ended {
                return Err(RecvRefusal::Disconnected);
            }
            if deadline == Deadline::PAST {
                // A task may be asleep.
                return Err(RecvRefusal::Empty);
            }
            if deadline.has_passed() {
                receiving.ring.line().is_awake();
                return Err(RecvRefusal::Empty);
            }
            let until = if is_prompt { deadline } else { deadline.min(Deadline::after(SLICE)) };
            let is_awake = || !receiving.ring.line().is_asleep();
            is_forgotten = !self.door.wait(self.socket(), until, is_awake).map_err(RecvRefusal::Io)?;
            receiving.ring.line().is_awake();
        }
    }

    /// Waits until there is something to receive, or will never be: both are `true`. `false` after the deadline.
    pub(crate) fn poll(&self, deadline: Deadline) -> io::Result<bool> {
        let Some(mut receiving) = self.receiving.enter(deadline) else { return Ok(false) };
        let news = self.wait_for_news(&mut receiving, deadline);
        self.leave_receiving(receiving);
        match news {
            Err(RecvRefusal::Empty) => Ok(false),
            Err(RecvRefusal::Io(error)) => Err(error),
            _ => Ok(true),
        }
    }

    /// Before somebody waits at the socket in ways of his own: whether there is something to receive, or will never be.
    /// If not, the next message makes the socket readable. `None` if another thread is inside.
    pub(crate) fn prepares_wait(&self) -> io::Result<Option<bool>> {
        let Some(mut receiving) = self.receiving.enter(Deadline::PAST) else { return Ok(None) };
        self.door.look(self.socket())?;
        if self.is_closed() || receiving.is_broken || self.door.has_ended() {
            return Ok(Some(true));
        }
        self.publish_head(&mut receiving);
        receiving.ring.line().falls_asleep();
        barrier::heavy();
        Ok(Some(receiving.ring.front() != Ok(Front::Nothing)))
    }
}

impl Receiving {
    fn take_part(&mut self, front: Front) {
        self.ring.take_into(front, &mut self.torso);
    }
}
