//! [`End`]: one end of a pipe, as the threads of one process share it. Bytes and descriptors, no types.

use crate::barrier;
use crate::door::Door;
use crate::gate::Gate;
use crate::pulse::Pulse;
use crate::receiving::Receiving;
use crate::ring::{Control, Place, Receiver, START, Sender};
use crate::sending::Sending;
use crate::socket;
use core::alloc::Layout;
use core::mem::ManuallyDrop;
use polyproc_memory::{Kind, Object, Shape, handover};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How often a sleeper looks that cannot have the kernel's barrier.
pub(crate) const SLICE: Duration = Duration::from_millis(1);
/// The smallest ring, and the largest.
pub(crate) const CAPACITY: std::ops::RangeInclusive<usize> = 4096..=1 << 20;

/// One end.
pub(crate) struct End {
    pub(crate) object: ManuallyDrop<Object>,
    pub(crate) socket: ManuallyDrop<Arc<OwnedFd>>,
    pub(crate) side: u8,
    pub(crate) sending: Gate<Sending>,
    pub(crate) receiving: Gate<Receiving>,
    pub(crate) door: Door,
    pub(crate) news: Patience,
    pub(crate) room: Patience,
    pub(crate) is_closed: AtomicU32,
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
                is_under_way: false,
                has_parked: false,
            }),
            receiving: Gate::new(Receiving {
                ring: Receiver::new(places[1 - own], ticket.head),
                torso: Vec::new(),
                descriptors: 0,
                serial: ticket.serial_received,
                is_broken: false,
                has_parked: false,
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
        if !self.door.is_empty() || sending.is_under_way || self.is_closed() {
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
            let result = socket::let_go(self.socket());
            self.door.wake_all();
            result?;
            self.say_farewell();
        }
        Ok(())
    }

    fn say_farewell(&self) {
        let places = places(&self.object);
        let own = usize::from(self.side & 1);
        Sender::new(places[own], 0, 0).line().say_farewell();
        Receiver::new(places[1 - own], 0).line().say_farewell();
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
