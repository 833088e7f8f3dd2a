//! [`End`]: one end of a pipe, as the threads of one process share it. Bytes and descriptors, no types.

use crate::barrier;
use crate::door::Door;
use crate::gate::Gate;
use crate::known;
use crate::pulse::Pulse;
use crate::receiving::Receiving;
use crate::ring::{Control, Place, Receiver, START, Sender};
use crate::sending::Sending;
use crate::socket;
use core::alloc::Layout;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use polyproc_memory::{CreateError, Kind, Object, Shape, handover};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How often a sleeper looks that cannot have the kernel's barrier.
pub(crate) const SLICE: Duration = Duration::from_millis(1);
/// The smallest ring, and the largest.
pub(crate) const CAPACITY: std::ops::RangeInclusive<usize> = 4096..=1 << 20;

/// A multiple of every size of pages.
const PAGE: u64 = 64 << 10;

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
    /// Whether something came that was not there a moment before: see [`Pulse`].
    pub(crate) heard: AtomicU32,
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
    /// How many bytes the rings use, the one that it sends by and the other, and how many they may use.
    capacities: [u64; 2],
    most: u64,
    tail: u64,
    head_seen: u64,
    serial_sent: u64,
    /// Nothing more is sent.
    is_final: bool,
    head: u64,
    /// So many messages of what begins there are received.
    taken: u64,
    serial_received: u64,
    /// Descriptors were announced that are still on the socket.
    has_notice: bool,
}

/// What lies in the region; the bytes of the rings are its reserve.
pub(crate) fn shape(most: u64, code: u8) -> Option<Shape> {
    let size = usize::try_from(most).ok().filter(|size| size.is_power_of_two())?;
    if !CAPACITY.contains(&size) {
        return None;
    }
    let payload = Layout::from_size_align(2 * size_of::<Control>(), 128).ok()?;
    Some(Shape {
        kind: Kind::new("pipe"),
        code,
        element: Layout::new::<u8>(),
        count: most,
        payload,
        lock: false,
    })
}

/// The control words of a ring: that of side 0 or of side 1.
fn control(object: &Object, side: u8) -> &Control {
    // SAFETY: the payload begins with two of them.
    let control = unsafe { object.payload().cast::<Control>().add(usize::from(side & 1)) };
    // SAFETY: mapped as long as the object is, and nothing but atomics.
    unsafe { control.as_ref() }
}

/// Where a ring is that uses so many bytes: that of side 0 or of side 1.
fn place(object: &Object, side: u8, capacity: u64) -> Place {
    let ring = usize::from(side & 1);
    let most = object.count();
    let control = NonNull::from(control(object, side));
    // SAFETY: the reserve has as many bytes for each ring; that it is so large is checked on receipt.
    let bytes = unsafe { object.reserve().0.add(ring * most as usize) };
    // SAFETY: the end keeps the object mapped, and drops what has the places before it. So many were
    // allocated, by who made it or by the ring's sender and receiver.
    unsafe { Place::new(control, bytes, capacity, most) }
}

/// Makes `length` bytes of a ring memory, from `offset` on.
fn allocate(object: &Object, side: u8, offset: u64, length: u64) -> io::Result<()> {
    let begin = u64::from(side & 1) * object.count() + offset;
    // Whole pages, whatever a page is.
    let from = begin / PAGE * PAGE;
    let to = (begin + length).next_multiple_of(PAGE).min(object.reserve().1 as u64);
    object.allocate(from as usize, (to - from) as usize)
}

impl End {
    /// Both ends of a new pipe, whose rings use so many bytes at first.
    pub(crate) fn pair(shape: &Shape, capacity: u64) -> io::Result<(End, End)> {
        // Whoever sends or receives is known by what a thread knows of itself.
        robust::check()?;
        let object = Object::with_reserve(shape, 2 * shape.count as usize)?;
        let (first, second) = socket::pair().map_err(CreateError::of_call)?;
        let ticket = |side| Ticket {
            side,
            kinds: Kinds::default(),
            capacities: [capacity; 2],
            most: object.count(),
            tail: START,
            head_seen: START,
            serial_sent: 0,
            is_final: false,
            head: START,
            taken: 0,
            serial_received: 0,
            has_notice: false,
        };
        for side in [0, 1] {
            allocate(&object, side, 0, capacity)?;
            Sender::new(place(&object, side, capacity), START, START).initialise();
        }
        let first = End::new(object.clone(), first.into(), &ticket(0));
        let second = End::new(object.clone(), second.into(), &ticket(1));
        Ok((first, second))
    }

    fn new(object: Object, socket: Arc<OwnedFd>, ticket: &Ticket) -> End {
        barrier::is_registered();
        let side = ticket.side;
        let [sends_by, receives_by] = ticket.capacities;
        let sends_by = place(&object, side, sends_by);
        let receives_by = place(&object, 1 - side, receives_by);
        let end = End {
            sending: Gate::new(Sending {
                ring: Sender::new(sends_by, ticket.tail, ticket.head_seen),
                pulse: Pulse::new(),
                serial: ticket.serial_sent,
                is_broken: false,
                is_final: ticket.is_final,
                is_under_way: false,
                has_parked: false,
            }),
            receiving: Gate::new(Receiving {
                ring: Receiver::new(receives_by, ticket.head, ticket.taken),
                pause: 0,
                sent: ticket.tail,
                torso: Vec::new(),
                descriptors: 0,
                serial: ticket.serial_received,
                is_broken: false,
                has_parked: false,
            }),
            object: ManuallyDrop::new(object),
            socket: ManuallyDrop::new(socket),
            side,
            door: Door::new(ticket.serial_received, ticket.has_notice),
            news: Patience::new(),
            room: Patience::new(),
            heard: AtomicU32::new(0),
            is_closed: AtomicU32::new(0),
        };
        if ticket.is_final {
            end.sending.disown();
        }
        end
    }

    /// What travels to another process, with the region's and the socket's descriptors. `None` in the middle
    /// of something.
    pub(crate) fn ticket(&self, kinds: Kinds) -> Option<(Ticket, Object, Option<u32>)> {
        let mut sending = self.sending.enter(Deadline::PAST)?;
        let mut receiving = self.receiving.enter(Deadline::PAST)?;
        // What was taken back is in nobody's way; what is broken is found again.
        _ = self.settle(&mut receiving);
        let (head, taken) = receiving.ring.position()?;
        if !self.door.is_empty() || sending.is_under_way || self.is_closed() {
            return None;
        }
        // Whoever goes on with it takes it from what is published.
        if receiving.ring.publish().ok()? {
            socket::ring(self.socket());
        }
        sending.ring.close_run();
        let (tail, head_seen) = sending.ring.positions();
        let ticket = Ticket {
            side: self.side,
            kinds,
            capacities: [sending.ring.place(), receiving.ring.place()].map(|place| place.capacities().0),
            most: self.object.count(),
            tail,
            head_seen,
            serial_sent: sending.serial,
            is_final: sending.is_final,
            head,
            taken,
            serial_received: receiving.serial,
            has_notice: self.door.has_notice(),
        };
        let socket = handover::attach(Arc::clone(&self.socket).into());
        Some((ticket, Object::clone(&self.object), socket))
    }

    /// What [`ticket`](End::ticket) made. `None` if the numbers cannot be.
    pub(crate) fn from_ticket(ticket: &Ticket, object: Object, socket: Arc<OwnedFd>) -> Option<End> {
        let on_their_way = ticket.tail.wrapping_sub(ticket.head_seen);
        let is_capacity = |capacity: u64| {
            capacity.is_power_of_two() && (*CAPACITY.start() as u64..=ticket.most).contains(&capacity)
        };
        let is_sane = ticket.side < 2
            && ticket.most == object.count()
            && object.reserve().1 as u64 >= 2 * ticket.most
            && ticket.capacities.into_iter().all(is_capacity)
            && on_their_way <= ticket.capacities[0]
            && [ticket.serial_sent, ticket.serial_received].iter().all(|serial| *serial < 1 << 63)
            && [ticket.tail, ticket.head_seen, ticket.head].iter().all(|position| position.is_multiple_of(8))
            && socket::is_ours(socket.as_fd());
        is_sane.then(|| End::new(object, socket, ticket))
    }

    /// How far this side has sent, as it says itself.
    #[inline(always)]
    pub(crate) fn sent(&self) -> u64 {
        control(&self.object, self.side).sent()
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How many bytes the rings may use.
    pub(crate) fn capacity(&self) -> u64 {
        self.object.count()
    }

    /// Puts memory behind the ring of a side, as much as it uses.
    pub(crate) fn allocate_more(&self, side: u8, place: &Place) -> io::Result<()> {
        let (capacity, most) = place.capacities();
        debug_assert!(capacity < most);
        allocate(&self.object, side, capacity, capacity)
    }

    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) != 0
    }

    /// Nothing is sent or received here any more. If this was the last copy of the end, the other one hears
    /// of it. Threads of this process that wait here notice within the backstop's time.
    pub(crate) fn close(&self) -> io::Result<()> {
        if self.is_closed.swap(1, Ordering::SeqCst) == 0 {
            self.sending.disown();
            self.receiving.disown();
            let result = socket::let_go(self.socket());
            self.door.wake_all();
            result?;
            self.say_farewell();
        }
        Ok(())
    }

    /// In a child that was forked just now, by its one thread: what a thread of the parent was at stays that
    /// one's.
    pub(crate) fn begin_anew(&self) {
        let has_door = self.door.begin_anew();
        self.sending.begin_anew(|sending| has_door && !sending.is_under_way);
        self.receiving.begin_anew(|_| has_door);
    }

    fn say_farewell(&self) {
        let (own, other) =
            [self.side, 1 - self.side].map(|side| place(&self.object, side, *CAPACITY.start() as u64)).into();
        Sender::new(own, 0, 0).line().say_farewell();
        Receiver::new(other, 0, 0).line().say_farewell();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        known::leave(self.socket());
        // The socket first: who hears the farewell then finds it gone.
        // SAFETY: not used again.
        drop(unsafe { ManuallyDrop::take(&mut self.socket) });
        self.say_farewell();
        // SAFETY: not used again; nobody has the places any more.
        drop(unsafe { ManuallyDrop::take(&mut self.object) });
    }
}

#[cfg(test)]
mod tests;
