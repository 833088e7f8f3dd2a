//! The queue of bytes: its memory, its two locks, and how long to wait.

use crate::error::{GetRefusal, PutRefusal};
use crate::layout::{HEADER, Header, OPEN, SEGMENTS, SMALLEST};
use crate::ring::{Consumer, Front, NoRoom, Producer, segment_offset, segment_size};
use crate::waitroom::{Sleeper, Waitroom};
use core::alloc::Layout;
use core::ptr::NonNull;
use polyproc_memory::{Kind, Object, Shape};
use polyproc_mutex::{RawMutex, Refusal};
use polyproc_sys::atomic::Ordering;
use polyproc_sys::backoff::Patience;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{self, OWNER, Wait, Waiter};
use polyproc_sys::robust;
use std::io;
use std::time::Duration;

/// How long an operation that does not wait waits for another process's copy that is under way.
const BUSY: Duration = Duration::from_millis(1);

/// In `patience`: whose it is.
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

// SAFETY: all that is shared is made of atomics, or guarded by the two locks; the pointers are into the mapping that
// `object` keeps.
unsafe impl Send for RawQueue {}
// SAFETY: as above.
unsafe impl Sync for RawQueue {}

/// What a queue is, for whoever attaches to one.
fn shape(kind: &'static str) -> Shape {
    let layout = Layout::new::<Header>();
    Shape { kind: Kind::new(kind), code: 0, element: Layout::new::<u8>(), count: 1, payload: layout, lock: false }
}

impl RawQueue {
    /// An empty queue. `start` is the first position.
    pub(crate) fn new(kind: &'static str, most: u64, max_bytes: u64, start: u64) -> io::Result<RawQueue> {
        robust::check()?;
        let max_bytes = max_bytes.clamp(SMALLEST, 1 << 46);
        // As many segments as hold so much together.
        let segments = (1..SEGMENTS as u32).find(|count| segment_offset(*count) >= max_bytes);
        let segments = segments.unwrap_or(SEGMENTS as u32);
        let object = Object::with_reserve(&shape(kind), segment_offset(segments) as usize)?;
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

    pub(crate) fn shape(kind: &'static str) -> Shape {
        shape(kind)
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: points to the payload that `object` keeps mapped, which was checked to be a queue's; all of it is atomic.
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

    /// Takes a lock, waiting until the deadline; one that has passed waits for a copy under way, and not for long.
    #[inline(always)]
    fn lock(&self, lock: &RawMutex, deadline: Deadline) -> Result<(), Refusal> {
        // SAFETY: `Producer` and `Consumer` unlock it, and borrow the queue, which keeps it mapped.
        match unsafe { lock.try_lock() } {
            Err(Refusal::WouldBlock) => self.lock_slowly(lock, deadline),
            other => other,
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slowly(&self, lock: &RawMutex, deadline: Deadline) -> Result<(), Refusal> {
        let deadline = if deadline.has_passed() { Deadline::after(BUSY) } else { deadline };
        // SAFETY: as in `lock`.
        unsafe { lock.lock_until(deadline) }
    }

    /// Becomes the one who puts.
    #[inline(always)]
    pub(crate) fn produce(&self, deadline: Deadline) -> Result<Producer<'_>, PutRefusal> {
        let header = self.header();
        match self.lock(&header.producers.lock, deadline) {
            // SAFETY: locked just now.
            Ok(()) => Ok(unsafe { Producer::new(self) }),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Becomes the one who gets.
    #[inline(always)]
    pub(crate) fn consume(&self, deadline: Deadline) -> Result<Consumer<'_>, GetRefusal> {
        let header = self.header();
        match self.lock(&header.consumers.lock, deadline) {
            // SAFETY: locked just now.
            Ok(()) => Ok(unsafe { Consumer::new(self) }),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Puts one message of this length, that `write` writes to its place.
    #[inline(always)]
    pub(crate) fn put(
        &self,
        length: usize,
        deadline: Deadline,
        write: impl FnOnce(NonNull<u8>),
    ) -> Result<(), PutRefusal> {
        let mut producer = self.produce_room(length, deadline)?;
        write(producer.1);
        producer.0.add(length);
        producer.0.publish();
        Ok(())
    }

    /// Becomes the one who puts, with a place for a message of this length.
    #[inline(always)]
    pub(crate) fn produce_room(
        &self,
        length: usize,
        deadline: Deadline,
    ) -> Result<(Producer<'_>, NonNull<u8>), PutRefusal> {
        let mut producer = self.produce(deadline)?;
        if self.is_closed() {
            return Err(PutRefusal::Closed);
        }
        match producer.reserve(length) {
            Ok(place) => Ok((producer, place)),
            Err(NoRoom::Full) => {
                drop(producer);
                self.wait_for_room(length, deadline)
            }
            Err(NoRoom::TooLarge(most)) => Err(PutRefusal::TooLarge { length, most }),
            Err(NoRoom::OutOfMemory(error)) => Err(PutRefusal::OutOfMemory(error)),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_room(
        &self,
        length: usize,
        deadline: Deadline,
    ) -> Result<(Producer<'_>, NonNull<u8>), PutRefusal> {
        let header = self.header();
        let mut wait = Waiting::new(&header.room, &header.consumers.lock, &header.patience[FOR_ROOM], deadline);
        loop {
            // Before the look at the room: what changes after it is news.
            let taken = &header.taken.0;
            let position = || (taken.free.load(Ordering::SeqCst), taken.mark.position.load(Ordering::SeqCst));
            let before = position();
            let mut producer = self.produce(deadline)?;
            if self.is_closed() {
                return Err(PutRefusal::Closed);
            }
            match producer.reserve(length) {
                Ok(place) => {
                    wait.succeeded();
                    return Ok((producer, place));
                }
                Err(NoRoom::Full) => drop(producer),
                Err(NoRoom::TooLarge(most)) => return Err(PutRefusal::TooLarge { length, most }),
                Err(NoRoom::OutOfMemory(error)) => return Err(PutRefusal::OutOfMemory(error)),
            }
            if !wait.wait(core::iter::empty, || position() != before || self.is_closed()) {
                return Err(PutRefusal::Full);
            }
        }
    }

    /// Gets one message, which `copy` copies out of its place.
    #[inline(always)]
    pub(crate) fn get<R>(
        &self,
        deadline: Deadline,
        copy: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetRefusal> {
        let (mut consumer, front) = self.consume_front(deadline)?;
        // SAFETY: the message is whole, and nobody writes to it before it is taken, which takes the lock that is held.
        let copied = copy(unsafe { core::slice::from_raw_parts(front.place.as_ptr(), front.length) });
        consumer.take(&front);
        consumer.commit();
        Ok(copied)
    }

    /// Becomes the one who gets, with the message that comes next.
    #[inline(always)]
    pub(crate) fn consume_front(&self, deadline: Deadline) -> Result<(Consumer<'_>, Front), GetRefusal> {
        let mut consumer = self.consume(deadline)?;
        match consumer.front() {
            Some(front) => Ok((consumer, front)),
            None => {
                drop(consumer);
                self.wait_for_news(deadline)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_news(&self, deadline: Deadline) -> Result<(Consumer<'_>, Front), GetRefusal> {
        let header = self.header();
        let mut wait = Waiting::new(&header.news, &header.producers.lock, &header.patience[FOR_NEWS], deadline);
        loop {
            // Before the look at the queue: it closes after its last message.
            let closed = self.is_closed();
            let mut consumer = self.consume(deadline)?;
            if let Some(front) = consumer.front() {
                wait.succeeded();
                return Ok((consumer, front));
            }
            let head = header.taken.0.mark.position.load(Ordering::Relaxed);
            drop(consumer);
            // A claimed message may come back yet; whoever has it sees to that.
            if closed && header.consumers.claims.load(Ordering::Relaxed) == 0 {
                return Err(GetRefusal::Closed);
            }
            let news = || {
                header.put.0.position.load(Ordering::SeqCst) != head
                    || (self.is_closed() && !closed)
                    || self.has_dead_claim()
                    || header.taken.0.mark.position.load(Ordering::Relaxed) != head
            };
            if !wait.wait(|| self.claims(), news) {
                return Err(GetRefusal::Empty);
            }
        }
    }

    /// The claims' words, to sleep on: the kernel wakes when a claimer dies.
    fn claims(&self) -> impl Iterator<Item = Waiter<'_>> {
        let header = self.header();
        let any = header.settings.0.has_claims.load(Ordering::Relaxed) != 0;
        let slots = if any { &header.claims[..] } else { &[] };
        slots.iter().map(|slot| {
            let word = &slot.robust.word;
            (word, word.load(Ordering::Relaxed))
        })
    }

    fn has_dead_claim(&self) -> bool {
        self.claims().any(|(_, word)| word != 0 && word & OWNER == 0)
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: whoever sees it closed sees its last message.
        self.header().settings.0.closed.load(Ordering::Acquire) != 0
    }

    /// Nothing more comes in. Wakes everybody.
    pub(crate) fn close(&self) -> Result<(), Refusal> {
        let header = self.header();
        // With the producers' lock held: whoever put something before it has done so, whoever comes after it sees it.
        self.lock(&header.producers.lock, Deadline::NEVER)?;
        header.news.raise();
        header.settings.0.closed.store(1, Ordering::SeqCst);
        header.news.ring(u32::MAX);
        // SAFETY: locked above.
        unsafe { header.producers.lock.unlock() };
        self.wake_putters()
    }

    /// After it was closed: those who wait for room need not any more.
    fn wake_putters(&self) -> Result<(), Refusal> {
        let header = self.header();
        self.lock(&header.consumers.lock, Deadline::NEVER)?;
        header.room.raise();
        header.room.ring(u32::MAX);
        // SAFETY: locked above.
        unsafe { header.consumers.lock.unlock() };
        Ok(())
    }

    /// How many messages are in it, now or a moment ago.
    pub(crate) fn len(&self) -> u64 {
        let header = self.header();
        // What was taken first: it never overtakes what was put.
        let taken = header.taken.0.mark.number();
        let put = header.put.0.number();
        let dead = if header.consumers.claims.load(Ordering::Relaxed) == 0 {
            0
        } else {
            self.claims().filter(|(_, word)| *word != 0 && word & OWNER == 0).count() as u64
        };
        put.wrapping_sub(taken) + dead
    }
}

/// One who waits in a waitroom: looks for a while, then sleeps, again and again.
pub(crate) struct Waiting<'a> {
    room: &'a Waitroom,
    lock: &'a RawMutex,
    patience: &'a Patience,
    sleeper: Option<Sleeper<'a>>,
    deadline: Deadline,
    expired: bool,
    rescued: bool,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(
        room: &'a Waitroom,
        lock: &'a RawMutex,
        patience: &'a Patience,
        deadline: Deadline,
    ) -> Waiting<'a> {
        let expired = deadline.has_passed();
        Waiting { room, lock, patience, sleeper: None, deadline, expired, rescued: false }
    }

    /// Waits until there is news, or something that looks like it. `false` if the deadline has passed.
    pub(crate) fn wait<'b, I: Iterator<Item = Waiter<'b>>>(
        &mut self,
        others: impl Fn() -> I,
        news: impl Fn() -> bool,
    ) -> bool {
        if self.expired {
            return false;
        }
        self.rescued = false;
        if self.sleeper.is_none() && self.patience.look(|| news().then_some(())).is_some() {
            return true;
        }
        let sleeper = self.sleeper.get_or_insert_with(|| self.room.enter());
        if sleeper.sleep(self.lock, others(), self.deadline, &news) == Wait::TimedOut {
            self.expired = self.deadline.has_passed();
            self.rescued = !self.expired && !sleeper.is_without_place();
        }
        true
    }

    /// It found what it waited for.
    pub(crate) fn succeeded(&self) {
        if self.rescued {
            futex::count_backstop_rescue();
        }
    }
}
