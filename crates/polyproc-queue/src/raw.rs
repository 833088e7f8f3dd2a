//! The queue of bytes: its memory, its two locks, and what is asked and said beside putting and getting.

use crate::biased::Side;
use crate::consumer::{Consumer, Front};
use crate::error::{GetRefusal, PutRefusal};
use crate::layout::{ClaimSlot, HEADER, Header, OPEN, SEGMENTS, SMALLEST};
use crate::producer::Producer;
use crate::ring::{is_before, segment_offset, segment_size};
use crate::waiting::Waiting;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use polyproc_memory::{Kind, Object, Shape};
use polyproc_mutex::Refusal;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{OWNER, Waiter};
use polyproc_sys::{robust, thread};
use std::io;
use std::time::Duration;

/// How long an operation that does not wait waits for another process's copy that is under way.
const BUSY: Duration = Duration::from_millis(1);

/// How often somebody who counts begins again because others have taken something meanwhile.
const LOOKS: u32 = 100;

/// In `looks`: whose it is.
pub(crate) const FOR_NEWS: usize = 0;
pub(crate) const FOR_ROOM: usize = 1;
pub(crate) const FOR_REST: usize = 2;

/// A queue of bytes, as one process sees it. What does not change, it has copied.
#[derive(Clone)]
pub(crate) struct RawQueue {
    object: Object,
    header: NonNull<Header>,
    ring: NonNull<u8>,
    pub(crate) segments: u32,
    /// The most messages, zero for any number.
    pub(crate) most: u64,
    pub(crate) max_bytes: u64,
    /// The largest message.
    pub(crate) largest: usize,
}

// SAFETY: all that is shared is made of atomics, or guarded by the two locks; the pointers are into the
// mapping that `object` keeps.
unsafe impl Send for RawQueue {}
// SAFETY: as above.
unsafe impl Sync for RawQueue {}

/// What a queue is, for whoever attaches to one.
fn shape(kind: &'static str, code: u8, element: Layout) -> Shape {
    let payload = Layout::new::<Header>();
    Shape { kind: Kind::new(kind), code, element, count: 1, payload, lock: false }
}

impl RawQueue {
    /// An empty queue. `start` is the first position.
    pub(crate) fn new(
        kind: &'static str,
        code: u8,
        element: Layout,
        most: u64,
        max_bytes: u64,
        start: u64,
    ) -> io::Result<RawQueue> {
        robust::check()?;
        let max_bytes = max_bytes.clamp(SMALLEST, 1 << 46);
        // As many segments as hold so much together.
        let segments = (1..SEGMENTS as u32).find(|count| segment_offset(*count) >= max_bytes);
        let segments = segments.unwrap_or(SEGMENTS as u32);
        let object = Object::with_reserve(&shape(kind, code, element), segment_offset(segments) as usize)?;
        let queue = RawQueue::at(object, most, max_bytes);
        let header = queue.header();
        header.settings.0.most.store(most, Ordering::Relaxed);
        header.settings.0.max_bytes.store(max_bytes, Ordering::Relaxed);
        header.settings.0.shrink_after.store(1, Ordering::Relaxed);
        header.put.0.init(start);
        header.taken.0.mark.init(start);
        header.taken.0.free.store(start, Ordering::Relaxed);
        header.producers.free_seen.store(start, Ordering::Relaxed);
        header.consumers.tail_seen.store(start, Ordering::Relaxed);
        header.segments.0[0].base.store(start, Ordering::Relaxed);
        header.segments.0[0].end.store(OPEN, Ordering::Relaxed);
        queue.allocate(0, SMALLEST)?;
        header.segments.0[0].backed.store(SMALLEST, Ordering::Release);
        Ok(queue)
    }

    fn at(object: Object, most: u64, max_bytes: u64) -> RawQueue {
        let header = object.payload().cast();
        let (ring, length) = object.reserve();
        // The last segment ends where the reserve does.
        let segments = (1..=SEGMENTS as u32).rev().find(|count| segment_offset(*count) <= length as u64);
        let segments = segments.unwrap_or(1);
        let largest = max_bytes.min(segment_size(segments - 1)) - HEADER;
        RawQueue { object, header, ring, segments, most, max_bytes, largest: largest as usize }
    }

    /// The queue that is this object.
    pub(crate) fn attach(object: Object) -> RawQueue {
        let mut queue = RawQueue::at(object, 0, SMALLEST);
        let settings = &queue.header().settings.0;
        let (most, max_bytes) =
            (settings.most.load(Ordering::Relaxed), settings.max_bytes.load(Ordering::Relaxed));
        queue = RawQueue::at(queue.object, most, max_bytes.max(SMALLEST));
        queue
    }

    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    pub(crate) fn shape(kind: &'static str, code: u8, element: Layout) -> Shape {
        shape(kind, code, element)
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: points to the payload that `object` keeps mapped, which was checked to be a queue's; all of
        // it is atomic.
        unsafe { self.header.as_ref() }
    }

    /// The place in a segment.
    ///
    /// # Safety
    ///
    /// The segment exists, and is longer than the offset.
    #[inline(always)]
    pub(crate) unsafe fn at_offset(&self, index: u32, offset: u64) -> NonNull<u8> {
        // SAFETY: the caller's; the reserve has room for all segments.
        unsafe { self.ring.add((segment_offset(index) + offset) as usize) }
    }

    pub(crate) fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.object.allocate(offset as usize, length as usize)
    }

    /// Gives a segment's memory back. If the system refuses, it stays, and is used again some day.
    pub(crate) fn give_back(&self, index: u32) {
        let _ = self.object.give_back(segment_offset(index) as usize, segment_size(index) as usize);
    }

    /// The producers' lock.
    #[inline(always)]
    pub(crate) fn producing(&self) -> Side<'_> {
        let header = self.header();
        Side { lock: &header.producers.lock, slots: &header.producer_slots }
    }

    /// The consumers' lock.
    #[inline(always)]
    pub(crate) fn consuming(&self) -> Side<'_> {
        let header = self.header();
        Side { lock: &header.consumers.lock, slots: &header.consumer_slots }
    }

    /// Takes a lock, waiting until the deadline; one that has passed waits for a copy under way, and not for
    /// long.
    #[inline(always)]
    fn lock(&self, side: Side<'_>, deadline: Deadline) -> Result<(), Refusal> {
        // SAFETY: `Producer` and `Consumer` unlock it, and borrow the queue, which keeps it mapped.
        match unsafe { side.lock_until(Deadline::PAST) } {
            Err(Refusal::TimedOut) => self.lock_slowly(side, deadline),
            other => other,
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slowly(&self, side: Side<'_>, deadline: Deadline) -> Result<(), Refusal> {
        let deadline = if deadline.has_passed() { Deadline::after(BUSY) } else { deadline };
        // SAFETY: as in `lock`.
        unsafe { side.lock_until(deadline) }
    }

    /// Becomes the one who puts.
    #[inline(always)]
    pub(crate) fn produce(&self, deadline: Deadline) -> Result<Producer<'_>, PutRefusal> {
        match self.lock(self.producing(), deadline) {
            // SAFETY: locked just now.
            Ok(()) => Ok(unsafe { Producer::new(self) }),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Becomes the one who gets.
    #[inline(always)]
    pub(crate) fn consume(&self, deadline: Deadline) -> Result<Consumer<'_>, GetRefusal> {
        match self.lock(self.consuming(), deadline) {
            // SAFETY: locked just now.
            Ok(()) => Ok(unsafe { Consumer::new(self) }),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The claims' words, to sleep on: the kernel wakes when a claimer dies.
    pub(crate) fn claims(&self) -> impl Iterator<Item = Waiter<'_>> {
        let header = self.header();
        let any = header.settings.0.has_claims.load(Ordering::Relaxed) != 0;
        let slots = if any { &header.claims[..] } else { &[] };
        slots.iter().map(|slot| {
            let word = &slot.robust.word;
            (word, word.load(Ordering::Relaxed))
        })
    }

    /// How many messages there are whose claimers died.
    pub(crate) fn dead_claims(&self) -> u64 {
        let header = self.header();
        if header.consumers.claims.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let is_dead = |slot: &&ClaimSlot| {
            let word = slot.robust.word.load(Ordering::Acquire);
            // One that was not taken before its claimer died is still in the queue.
            let position = slot.position.load(Ordering::Relaxed);
            let taken = header.taken.0.mark.position.load(Ordering::Acquire);
            word != 0 && word & OWNER == 0 && is_before(position, taken)
        };
        header.claims.iter().filter(is_dead).count() as u64
    }

    /// Where it ends, if there is nothing to get. Asks nobody.
    pub(crate) fn empty_at(&self) -> Option<u64> {
        let header = self.header();
        if header.consumers.claims.load(Ordering::Relaxed) != 0 {
            return None;
        }
        // What was taken first: it never overtakes what was put. So if they are the same, it was empty at the
        // second look.
        let head = header.taken.0.mark.position.load(Ordering::Acquire);
        (header.put.0.position.load(Ordering::SeqCst) == head).then_some(head)
    }

    /// Whether it looks as if a dead consumer had not said all that is free.
    pub(crate) fn has_left_room(&self) -> bool {
        let header = self.header();
        let claims = header.consumers.claims.load(Ordering::Relaxed);
        if claims == 0 {
            let taken = &header.taken.0;
            return taken.free.load(Ordering::Relaxed) != taken.mark.position.load(Ordering::Relaxed);
        }
        header.claims.iter().filter(|slot| slot.robust.is_taken()).count() as u32 != claims
    }

    /// As a consumer that has taken all it knows of, up to `head`, in a segment that is not the smallest:
    /// whether it is drained, and time to go back to that. Counts.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_time_to_shrink(&self, head: u64) -> bool {
        let header = self.header();
        // Relaxed: asked again with both locks held. Before that, because who comes for the producers' lock
        // holds them up.
        if header.put.0.position.load(Ordering::Relaxed) != head {
            return false;
        }
        let consumers = &header.consumers;
        let drains = consumers.drains.load(Ordering::Relaxed).wrapping_add(1);
        consumers.drains.store(drains, Ordering::Relaxed);
        drains >= header.settings.0.shrink_after.load(Ordering::Relaxed)
            && consumers.claims.load(Ordering::Relaxed) == 0
    }

    /// As one who was woken for news: if there is more, wakes another.
    #[cold]
    pub(crate) fn pass_on_news(&self) {
        if self.len() != 0 {
            self.header().news.pass_on(1);
        }
    }

    #[inline(always)]
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: whoever sees it closed sees its last message.
        self.header().settings.0.closed.load(Ordering::Acquire) != 0
    }

    /// Nothing more comes in. Wakes everybody.
    pub(crate) fn close(&self) -> Result<(), Refusal> {
        let header = self.header();
        // With both locks held: whoever put something before it has done so, whoever comes after it sees it,
        // and if this thread dies on the way, one of each kind hears of it, and tells the others.
        self.lock(self.producing(), Deadline::NEVER)?;
        if let Err(refusal) = self.lock(self.consuming(), Deadline::NEVER) {
            // SAFETY: locked above.
            unsafe { self.producing().unlock() };
            return Err(refusal);
        }
        let (mut news, mut room) = (header.news.raise(), header.room.raise());
        header.settings.0.closed.store(1, Ordering::SeqCst);
        news.announce();
        room.announce();
        // SAFETY: locked above.
        unsafe { self.consuming().unlock() };
        // SAFETY: locked above.
        unsafe { self.producing().unlock() };
        room.wake(u32::MAX);
        news.wake(u32::MAX);
        Ok(())
    }

    /// Claims the message that comes next. `None` if there are too many claims.
    pub(crate) fn claim(&self, deadline: Deadline) -> Result<Option<Claimed>, GetRefusal> {
        let (mut consumer, front) = self.consume_front(deadline)?;
        // Beside the consumers' lock.
        if !thread::current().has_room() {
            return Err(GetRefusal::TooManyLocks);
        }
        Ok(consumer.claim(&front).map(|slot| Claimed { slot, front }))
    }

    /// The claimed message is done with.
    ///
    /// # Safety
    ///
    /// The calling thread has claimed it, in this process, and not given it up since.
    pub(crate) unsafe fn acknowledge(&self, claimed: &Claimed) {
        match self.consume(Deadline::NEVER) {
            // SAFETY: the caller's.
            Ok(mut consumer) => unsafe { consumer.acknowledge(claimed.slot) },
            // More locks than can be, though the claim is one of them: it goes to somebody who can.
            // SAFETY: the caller's.
            Err(_) => unsafe { self.hand_back(claimed) },
        }
    }

    /// The claimed message is to be delivered again: the same as if the claimer had died.
    ///
    /// # Safety
    ///
    /// As for [`acknowledge`](RawQueue::acknowledge).
    pub(crate) unsafe fn hand_back(&self, claimed: &Claimed) {
        // SAFETY: the caller's.
        unsafe { self.header().claims[claimed.slot].robust.abandon(thread::current()) };
    }

    /// Counts a task that is done. `false` if all are done already.
    pub(crate) fn task_done(&self) -> Result<bool, Refusal> {
        let header = self.header();
        self.lock(self.consuming(), Deadline::NEVER)?;
        let done = header.done.0.load(Ordering::Relaxed);
        let put = header.put.0.number();
        let mut herald = None;
        if done != put {
            if header.rest.is_occupied() {
                herald = Some(header.rest.raise());
            }
            header.done.0.store(done.wrapping_add(1), Ordering::SeqCst);
            herald = herald.filter(|_| done.wrapping_add(1) == put);
            if let Some(herald) = &mut herald {
                herald.announce();
            }
        }
        // SAFETY: locked above.
        unsafe { self.consuming().unlock() };
        if let Some(herald) = herald {
            herald.wake(u32::MAX);
        }
        Ok(done != put)
    }

    /// How many tasks were put and are not done.
    pub(crate) fn unfinished(&self) -> u64 {
        let header = self.header();
        difference(|| header.put.0.number(), || header.done.0.load(Ordering::SeqCst))
    }

    /// Waits until all tasks are done. Returns whether they are.
    pub(crate) fn join(&self, deadline: Deadline) -> bool {
        let header = self.header();
        let is_over = || self.unfinished() == 0;
        if is_over() {
            return true;
        }
        let mut wait = Waiting::new(&header.rest, self.consuming(), &header.looks.0[FOR_REST], deadline);
        while wait.wait(core::iter::empty, is_over, |_| false) {
            if is_over() {
                wait.succeeded(u32::MAX);
                return true;
            }
        }
        is_over()
    }

    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header();
        f.debug_struct(name)
            .field("len", &self.len())
            .field("capacity", &Some(self.most).filter(|most| *most != 0))
            .field("closed", &self.is_closed())
            .field("producer", &header.producers.lock.mutex.owner())
            .field("consumer", &header.consumers.lock.mutex.owner())
            .field("claims", &header.consumers.claims.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }

    /// How many messages are in it, now or a moment ago.
    pub(crate) fn len(&self) -> u64 {
        let header = self.header();
        let there = difference(|| header.put.0.number(), || header.taken.0.mark.number());
        // More than it takes, if others were quicker than whoever counts.
        let there = if self.most == 0 { there } else { there.min(self.most) };
        there + self.dead_claims()
    }
}

/// How much more was put than has gone, which never overtakes it: as it is at one moment, unless others never
/// rest. Then it may be too much.
fn difference(put: impl Fn() -> u64, gone: impl Fn() -> u64) -> u64 {
    let mut before = gone();
    for _ in 0..LOOKS {
        let (put, after) = (put(), gone());
        if after == before {
            return put.wrapping_sub(before);
        }
        before = after;
    }
    put().wrapping_sub(before)
}

/// A message that somebody has claimed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    slot: usize,
    pub(crate) front: Front,
}
