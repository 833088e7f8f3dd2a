//! Puts and gets where anything is not as usual: the lock is not free, there is no room or no message, there
//! are many at once.

use crate::consumer::{Consumer, Front};
use crate::error::{GetRefusal, PutRefusal};
use crate::fast::{Place, Unusual, write};
use crate::layout::HEADER;
use crate::producer::{NoRoom, Producer};
use crate::raw::{FOR_NEWS, FOR_ROOM, RawQueue};
use crate::waiting::Waiting;
use core::ptr::NonNull;
use polyproc_mutex::Refusal;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// So many bytes are enough room to go on with.
const ENOUGH: u64 = 16 << 10;

impl RawQueue {
    /// [`put`](RawQueue::put), where the lock was not free.
    #[cold]
    #[inline(never)]
    pub(crate) fn put_later(
        &self,
        message: &[u8],
        deadline: Deadline,
        refusal: Refusal,
    ) -> Result<(), PutRefusal> {
        if refusal != Refusal::TimedOut {
            return Err(refusal.into());
        }
        let producer = self.produce(deadline)?;
        self.put_otherwise(message, deadline, producer)
    }

    /// [`put`](RawQueue::put), where anything is not as usual.
    #[cold]
    #[inline(never)]
    pub(crate) fn put_otherwise(
        &self,
        message: &[u8],
        deadline: Deadline,
        producer: Producer<'_>,
    ) -> Result<(), PutRefusal> {
        let (mut producer, place) = self.find_room(producer, message.len(), deadline)?;
        // SAFETY: the place was reserved for so many bytes, and nobody else has it.
        unsafe { write(message, place) };
        producer.add(message.len());
        producer.publish();
        Ok(())
    }

    /// Puts so many messages: `length` says how long each is, and `fill` puts it in its place; `more` adds
    /// those from a number on, as long as they simply fit. Returns how many were put, and why not all.
    #[inline(always)]
    pub(crate) fn put_all(
        &self,
        count: usize,
        deadline: Deadline,
        length: impl Fn(usize) -> usize,
        fill: impl Fn(usize, Place),
        more: impl Fn(&mut Producer<'_>, usize) -> usize,
    ) -> (usize, Option<PutRefusal>) {
        let mut put = 0;
        while put < count {
            let (mut producer, mut place) = match self.produce_room(length(put), deadline) {
                Ok(producer) => producer,
                Err(refusal) => return (put, Some(refusal)),
            };
            loop {
                let added = more(&mut producer, put);
                put += added;
                if added == 0 {
                    // SAFETY: the place was reserved for so many bytes, and nobody else has it.
                    fill(put, unsafe { Place::new(place, length(put)) });
                    producer.add(length(put));
                    put += 1;
                }
                if put == count {
                    break;
                }
                // Whatever is the matter with the next one, it is found out again from the start.
                let Ok(next) = producer.reserve(length(put)) else { break };
                place = next;
            }
            producer.publish();
        }
        (put, None)
    }

    /// Becomes the one who puts, with a place for a message of this length.
    #[inline(always)]
    pub(crate) fn produce_room(
        &self,
        length: usize,
        deadline: Deadline,
    ) -> Result<(Producer<'_>, NonNull<u8>), PutRefusal> {
        let producer = self.produce(deadline)?;
        self.find_room(producer, length, deadline)
    }

    fn find_room<'a>(
        &'a self,
        mut producer: Producer<'a>,
        length: usize,
        deadline: Deadline,
    ) -> Result<(Producer<'a>, NonNull<u8>), PutRefusal> {
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
        let mut wait = Waiting::new(&header.room, self.consuming(), &header.looks.0[FOR_ROOM], deadline);
        loop {
            // Before the look at the room: what changes after it is news.
            let taken = &header.taken.0;
            let position = || (taken.free.load(Ordering::SeqCst), taken.mark.position.load(Ordering::SeqCst));
            let before = position();
            let mut producer = match self.produce(deadline) {
                Ok(producer) => producer,
                Err(refusal) => {
                    wait.gives_up();
                    return Err(refusal);
                }
            };
            if self.is_closed() {
                wait.succeeded(u32::MAX);
                return Err(PutRefusal::Closed);
            }
            match producer.reserve(length) {
                Ok(place) => {
                    wait.succeeded(1);
                    return Ok((producer, place));
                }
                Err(NoRoom::Full) => drop(producer),
                Err(NoRoom::TooLarge(most)) => return Err(PutRefusal::TooLarge { length, most }),
                Err(NoRoom::OutOfMemory(error)) => {
                    wait.gives_up();
                    return Err(PutRefusal::OutOfMemory(error));
                }
            }
            if self.has_left_room()
                && let Ok(mut consumer) = self.consume(deadline)
            {
                consumer.settle();
                continue;
            }
            // Room for a single message is not worth a look at the consumers' line for each, unless that is
            // all there can be.
            let worth = if self.most == 0 { self.max_bytes / 4 } else { self.most * HEADER };
            let is_little = |_| position().1.wrapping_sub(before.1) < worth.min(ENOUGH);
            let news = || position() != before || self.is_closed();
            if !wait.wait(core::iter::empty, news, is_little) {
                return Err(PutRefusal::Full);
            }
        }
    }

    /// Gets one message, where anything is not as [usual](RawQueue::take_usual).
    #[inline(always)]
    pub(crate) fn take_otherwise<R>(
        &self,
        deadline: Deadline,
        unusual: Unusual,
        copy: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, GetRefusal> {
        let (mut consumer, front) = self.otherwise(deadline, unusual)?;
        // SAFETY: a message is in front as long as the lock is held.
        let copied = copy(unsafe { front.message() });
        consumer.take(&front);
        consumer.commit();
        Ok(copied)
    }

    #[cold]
    #[inline(never)]
    fn otherwise(&self, deadline: Deadline, unusual: Unusual) -> Result<(Consumer<'_>, Front), GetRefusal> {
        let consumer = match unusual {
            // SAFETY: locked by `usual_front`, and left to it.
            Unusual::Locked => unsafe { Consumer::new(self) },
            Unusual::Refused(Refusal::TimedOut) if self.empty_at().is_some() => {
                return self.wait_for_news(deadline);
            }
            Unusual::Refused(Refusal::TimedOut) => self.consume(deadline)?,
            Unusual::Refused(refusal) => return Err(refusal.into()),
        };
        self.find_front(consumer, deadline)
    }

    /// Gets at least one message and at most so many, which are more than none, waiting for the first. `copy`
    /// takes any message to `sink`; `more` takes those that come next, as long as they are nothing special.
    /// Returns how many: the sink may have more, which are in the queue yet.
    ///
    /// If a codec panics, and nothing is out of the queue yet, nor is `kept` what came from it before, the
    /// panic goes on. Else what is out of the queue is what was got, and the panic is left to the next call.
    #[inline(always)]
    pub(crate) fn get_all<S>(
        &self,
        most: usize,
        deadline: Deadline,
        sink: &mut S,
        copy: impl Fn(&mut S, &[u8]),
        more: impl Fn(&mut Consumer<'_>, &mut S, usize) -> usize,
        kept: bool,
    ) -> Result<usize, GetRefusal> {
        let (mut consumer, mut front) = self.consume_front(deadline)?;
        let mut left = most;
        let got = catch_unwind(AssertUnwindSafe(|| {
            loop {
                // SAFETY: as in `get`.
                copy(sink, unsafe { front.message() });
                consumer.take(&front);
                left -= 1;
                left -= more(&mut consumer, sink, left);
                match if left == 0 { None } else { consumer.front() } {
                    Some(next) => front = next,
                    None => break,
                }
            }
        }));
        if let Err(panic) = got {
            let committed = most - left - consumer.uncommitted();
            drop(consumer);
            if committed == 0 && !kept {
                resume_unwind(panic);
            }
            return Ok(committed);
        }
        consumer.commit();
        Ok(most - left)
    }

    /// Becomes the one who gets, with the message that comes next.
    #[inline(always)]
    pub(crate) fn consume_front(&self, deadline: Deadline) -> Result<(Consumer<'_>, Front), GetRefusal> {
        let consumer = self.consume(deadline)?;
        self.find_front(consumer, deadline)
    }

    fn find_front<'a>(
        &'a self,
        mut consumer: Consumer<'a>,
        deadline: Deadline,
    ) -> Result<(Consumer<'a>, Front), GetRefusal> {
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
        let mut wait = Waiting::new(&header.news, self.producing(), &header.looks.0[FOR_NEWS], deadline);
        loop {
            // Before the look at the queue: it closes after its last message.
            let closed = self.is_closed();
            // SeqCst: after it, `announce_claims` changes the door.
            let has_claims = header.settings.0.has_claims.load(Ordering::SeqCst) != 0;
            let head = match self.empty_at() {
                Some(head) => head,
                None => {
                    let mut consumer = match self.consume(deadline) {
                        Ok(consumer) => consumer,
                        Err(refusal) => {
                            wait.gives_up();
                            return Err(refusal);
                        }
                    };
                    if let Some(front) = consumer.front() {
                        wait.succeeded(0);
                        consumer.has_slept(wait.sleeper.take());
                        return Ok((consumer, front));
                    }
                    header.taken.0.mark.position.load(Ordering::Relaxed)
                }
            };
            // A claimed message may come back yet; whoever has it sees to that.
            if closed && header.consumers.claims.load(Ordering::Relaxed) == 0 {
                wait.succeeded(u32::MAX);
                return Err(GetRefusal::Closed);
            }
            let seen = Seen { closed, has_claims, head };
            let news = || self.has_news_since(&seen);
            // Several at the first look: they come faster than the looks.
            if !wait.wait(|| self.claims(), news, |looks| looks == 1 && self.len() > 1) {
                return Err(GetRefusal::Empty);
            }
        }
    }

    /// Whether there is something else to be found now.
    fn has_news_since(&self, seen: &Seen) -> bool {
        let header = self.header();
        // Whatever was taken since has come since.
        header.put.0.position.load(Ordering::SeqCst) != seen.head
            || (self.is_closed() && !seen.closed)
            || self.dead_claims() != 0
            // By their words, which are slept on: how many there are is said only after the last one is gone.
            || (seen.closed && header.claims.iter().all(|slot| !slot.robust.is_taken()))
            || (header.settings.0.has_claims.load(Ordering::SeqCst) != 0) != seen.has_claims
    }
}

/// What somebody has seen who has found nothing to get.
#[derive(Clone, Copy)]
struct Seen {
    closed: bool,
    has_claims: bool,
    /// Where it was empty.
    head: u64,
}

#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests {
    use super::*;
    use crate::{Queue, Raw};

    /// Each thing by itself, as it comes right before somebody sleeps.
    #[test]
    fn whatever_there_is_to_find_is_news() {
        let queue = Queue::<u64, Raw>::new().unwrap();
        let raw = queue.raw();
        let header = raw.header();
        let look = || Seen {
            closed: raw.is_closed(),
            has_claims: header.settings.0.has_claims.load(Ordering::SeqCst) != 0,
            head: header.taken.0.mark.position.load(Ordering::Relaxed),
        };
        let news = |seen: &Seen| raw.has_news_since(seen);
        let empty = look();
        assert!(!news(&empty));
        queue.put(1).unwrap();
        assert!(news(&empty), "a message");
        queue.get().unwrap();
        assert!(news(&empty), "another has got it");
        queue.put(2).unwrap();
        let claim = queue.claim().unwrap();
        let before = Seen { has_claims: false, ..look() };
        assert!(news(&before), "from now on there are claims to sleep on");
        let claimed = look();
        assert!(!news(&claimed), "it is somebody's");
        drop(claim);
        assert!(news(&claimed), "nobody's any more");
        let claim = queue.claim().unwrap();
        assert!(!news(&claimed));
        queue.close();
        assert!(news(&claimed), "closed");
        let closed = look();
        assert!(!news(&closed), "which is known");
        claim.ack();
        assert!(news(&closed), "and nothing is left that could come back");
    }
}
