//! [`End`]: one end of a pipe, as the threads of one process share it. Bytes and descriptors, no types.

use crate::barrier;
use crate::door::Door;
use crate::gate::{Gate, Inside};
use crate::pulse::Pulse;
use crate::ring::{Broken, Control, DESCRIPTORS_MAX, Front, MESSAGE_MAX, Place, Receiver, START, Sender};
use crate::socket;
use core::alloc::Layout;
use core::mem::ManuallyDrop;
use polyproc_memory::{Kind, Object, Shape, handover};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How often a sleeper looks that cannot have the kernel's barrier.
const SLICE: Duration = Duration::from_millis(1);
/// The smallest ring, and the largest.
pub(crate) const CAPACITY: std::ops::RangeInclusive<usize> = 4096..=1 << 20;

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

impl From<Broken> for SendRefusal {
    fn from(_: Broken) -> SendRefusal {
        SendRefusal::Corrupt
    }
}

impl From<Broken> for RecvRefusal {
    fn from(_: Broken) -> RecvRefusal {
        RecvRefusal::Corrupt
    }
}

struct Sending {
    ring: Sender,
    pulse: Pulse,
    /// Of the next message with descriptors.
    serial: u64,
    is_broken: bool,
}

struct Receiving {
    ring: Receiver,
    /// What came of the message that has begun, and how many descriptors belong to it.
    torso: Vec<u8>,
    descriptors: usize,
    serial: u64,
    is_broken: bool,
}

/// One end.
pub(crate) struct End {
    object: ManuallyDrop<Object>,
    socket: ManuallyDrop<Arc<OwnedFd>>,
    side: u8,
    sending: Gate<Sending>,
    receiving: Gate<Receiving>,
    door: Door,
    news: Patience,
    room: Patience,
    is_closed: AtomicU32,
}

/// Size and alignment of what is sent, and of what is received.
pub(crate) type Kinds = [(u64, u64); 2];

/// What travels of an end beside its two descriptors.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ticket {
    side: u8,
    /// What tells the codec and its types apart, as this side has them.
    pub(crate) kinds: Kinds,
    capacity: u64,
    tail: u64,
    head_seen: u64,
    serial_sent: u64,
    head: u64,
    serial_received: u64,
}

/// What lies in the region.
pub(crate) fn shape(capacity: u64, code: u8) -> Option<Shape> {
    let size = usize::try_from(capacity).ok().filter(|size| size.is_power_of_two())?;
    if !CAPACITY.contains(&size) {
        return None;
    }
    let payload = Layout::from_size_align(2 * size_of::<Control>() + 2 * size, 128).ok()?;
    Some(Shape {
        kind: Kind::new("pipe"),
        code,
        element: Layout::new::<u8>(),
        count: capacity,
        payload,
        lock: false,
    })
}

fn places(object: &Object) -> [Place; 2] {
    let capacity = object.count();
    [0, 1].map(|ring: usize| {
        // SAFETY: the payload begins with two of them.
        let control = unsafe { object.payload().cast::<Control>().add(ring) };
        let offset = 2 * size_of::<Control>() + ring * capacity as usize;
        // SAFETY: behind them are as many bytes for each ring.
        let bytes = unsafe { object.payload().add(offset) };
        // SAFETY: the end keeps the object mapped, and drops what has the places before it.
        unsafe { Place::new(control, bytes, capacity) }
    })
}

impl End {
    /// Both ends of a new pipe.
    pub(crate) fn pair(shape: &Shape) -> io::Result<(End, End)> {
        let object = Object::create(None, shape)?;
        let (first, second) = socket::pair()?;
        let ticket = |side| Ticket {
            side,
            kinds: Kinds::default(),
            capacity: object.count(),
            tail: START,
            head_seen: START,
            serial_sent: 0,
            head: START,
            serial_received: 0,
        };
        for place in places(&object) {
            Sender::new(place, START, START).initialise();
        }
        let first = End::new(object.clone(), first, &ticket(0));
        let second = End::new(object.clone(), second, &ticket(1));
        Ok((first, second))
    }

    fn new(object: Object, socket: OwnedFd, ticket: &Ticket) -> End {
        barrier::is_registered();
        let places = places(&object);
        let own = usize::from(ticket.side & 1);
        End {
            sending: Gate::new(Sending {
                ring: Sender::new(places[own], ticket.tail, ticket.head_seen),
                pulse: Pulse::new(),
                serial: ticket.serial_sent,
                is_broken: false,
            }),
            receiving: Gate::new(Receiving {
                ring: Receiver::new(places[1 - own], ticket.head),
                torso: Vec::new(),
                descriptors: 0,
                serial: ticket.serial_received,
                is_broken: false,
            }),
            object: ManuallyDrop::new(object),
            socket: ManuallyDrop::new(Arc::new(socket)),
            side: ticket.side,
            door: Door::default(),
            news: Patience::new(),
            room: Patience::new(),
            is_closed: AtomicU32::new(0),
        }
    }

    /// What travels to another process, with the region's and the socket's descriptors. `None` in the middle of something.
    pub(crate) fn ticket(&self, kinds: Kinds) -> Option<(Ticket, Object, Option<u32>)> {
        let sending = self.sending.enter(Deadline::PAST)?;
        let mut receiving = self.receiving.enter(Deadline::PAST)?;
        let head = receiving.ring.position()?;
        if !self.door.is_empty() || self.is_closed() {
            return None;
        }
        // Whoever goes on with it takes it from what is published.
        receiving.ring.publish().ok()?;
        let (tail, head_seen) = sending.ring.positions();
        let ticket = Ticket {
            side: self.side,
            kinds,
            capacity: self.object.count(),
            tail,
            head_seen,
            serial_sent: sending.serial,
            head,
            serial_received: receiving.serial,
        };
        let socket = handover::attach(Arc::clone(&self.socket).into());
        Some((ticket, Object::clone(&self.object), socket))
    }

    /// What [`ticket`](End::ticket) made. `None` if the numbers cannot be.
    pub(crate) fn from_ticket(ticket: &Ticket, object: Object, socket: OwnedFd) -> Option<End> {
        let on_their_way = ticket.tail.wrapping_sub(ticket.head_seen);
        let is_sane = ticket.side < 2
            && ticket.capacity == object.count()
            && on_their_way <= ticket.capacity
            && [ticket.tail, ticket.head_seen, ticket.head].iter().all(|position| position.is_multiple_of(8))
            && socket::is_ours(socket.as_fd());
        is_sane.then(|| End::new(object, socket, ticket))
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.object.count()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) != 0
    }

    /// Nothing is sent or received here any more. If this was the last copy of the end, the other one hears of it. Threads
    /// of this process that wait here notice within the backstop's time.
    pub(crate) fn close(&self) -> io::Result<()> {
        if self.is_closed.swap(1, Ordering::SeqCst) == 0 {
            socket::let_go(self.socket())?;
            self.say_farewell();
        }
        Ok(())
    }

    fn say_farewell(&self) {
        let places = places(&self.object);
        let own = usize::from(self.side & 1);
        Sender::new(places[own], 0, 0).say_farewell();
        Receiver::new(places[1 - own], 0).say_farewell();
    }

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
        result
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
                    receiving.torso = Vec::new();
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
        // They were sent before the message was published.
        let packets = count.div_ceil(socket::PACKET_DESCRIPTORS);
        for _ in 0..=packets {
            self.door.look(self.socket()).map_err(RecvRefusal::Io)?;
        }
        receiving.serial += 1;
        let descriptors = self.door.take_descriptors(receiving.serial);
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
                receiving.ring.falls_asleep();
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
                receiving.ring.is_awake();
                return Ok(front);
            }
            if self.is_closed() {
                return Err(RecvRefusal::Closed);
            }
            if ended {
                return Err(RecvRefusal::Disconnected);
            }
            if deadline.has_passed() {
                receiving.ring.is_awake();
                return Err(RecvRefusal::Empty);
            }
            let until = if is_prompt { deadline } else { deadline.min(Deadline::after(SLICE)) };
            let is_awake = || !receiving.ring.is_asleep();
            is_forgotten = !self.door.wait(self.socket(), until, is_awake).map_err(RecvRefusal::Io)?;
            receiving.ring.is_awake();
        }
    }

    /// Waits until there is something to receive, or will never be: both are `true`. `false` after the deadline.
    pub(crate) fn poll(&self, deadline: Deadline) -> io::Result<bool> {
        let Some(mut receiving) = self.receiving.enter(deadline) else { return Ok(false) };
        match self.wait_for_news(&mut receiving, deadline) {
            Err(RecvRefusal::Empty) => Ok(false),
            Err(RecvRefusal::Io(error)) => Err(error),
            _ => Ok(true),
        }
    }

    /// Before somebody waits at the socket in ways of his own: whether there is something to receive, or will never be.
    /// If not, the next message makes the socket readable.
    pub(crate) fn prepares_wait(&self) -> io::Result<bool> {
        let Some(mut receiving) = self.receiving.enter(Deadline::PAST) else { return Ok(false) };
        self.door.look(self.socket())?;
        if self.is_closed() || receiving.is_broken || self.door.has_ended() {
            return Ok(true);
        }
        self.publish_head(&mut receiving);
        receiving.ring.falls_asleep();
        barrier::heavy();
        Ok(receiving.ring.front() != Ok(Front::Nothing))
    }
}

impl Receiving {
    fn take_part(&mut self, front: Front) {
        self.ring.take_into(front, &mut self.torso);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // The socket first: who hears the farewell then finds it gone.
        // SAFETY: not used again.
        drop(unsafe { ManuallyDrop::take(&mut self.socket) });
        self.say_farewell();
        // SAFETY: not used again; nobody has the places any more.
        drop(unsafe { ManuallyDrop::take(&mut self.object) });
    }
}
