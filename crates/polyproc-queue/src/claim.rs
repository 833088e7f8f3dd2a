//! Messages that stay in the queue's memory until somebody is done with them: [`Claim`], [`MessageRef`]; and
//! messages that are made there: [`Reservation`].

use crate::error::{GetError, PutError, PutRefusal};
use crate::producer::Producer;
use crate::queue::Queue;
use crate::raw::{Claimed, RawQueue};
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use polyproc_memory::codec::{Bytes, Codec};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::thread;
use std::time::Duration;

impl<T, C: Codec<T>> Queue<T, C> {
    /// Gets the next message, waiting for it for as long as it takes, and keeps it in the queue until the
    /// claim is [acknowledged](Claim::ack). If this process dies before that, the message is delivered again,
    /// marked as such, before all others.
    ///
    /// At most 32 messages are claimed at a time, in all processes.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Empty`. A message that cannot be decoded is acknowledged, and the error has its
    /// bytes.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::Queue;
    ///
    /// let queue = Queue::<String>::new()?;
    /// queue.put("work".into()).unwrap();
    /// let claim = queue.claim().unwrap();
    /// assert_eq!(*claim, "work");
    /// drop(claim); // Not done: somebody else shall have it.
    /// let claim = queue.claim().unwrap();
    /// assert!(claim.is_redelivered());
    /// claim.ack();
    /// assert!(queue.is_empty());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn claim(&self) -> Result<Claim<'_, T>, GetError> {
        self.claim_deadline(Deadline::NEVER)
    }

    /// [`claim`](Queue::claim), without waiting.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    pub fn try_claim(&self) -> Result<Claim<'_, T>, GetError> {
        self.claim_deadline(Deadline::PAST)
    }

    /// [`claim`](Queue::claim), waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// Any [`GetError`].
    pub fn claim_timeout(&self, timeout: Duration) -> Result<Claim<'_, T>, GetError> {
        self.claim_deadline(Deadline::after(timeout))
    }

    fn claim_deadline(&self, deadline: Deadline) -> Result<Claim<'_, T>, GetError> {
        let held = Held::new(self.raw(), deadline)?;
        match C::decode(C::copy(held.bytes())) {
            Ok(message) => Ok(Claim { message, held }),
            Err(error) => {
                held.acknowledge();
                Err(error.into())
            }
        }
    }

    /// Gives the next message's bytes, as they travel, to be read where they lie: nothing is copied. Waits
    /// for the message as [`get`](Queue::get) does.
    ///
    /// The message is taken when the `MessageRef` is dropped. If this process dies before that, it is
    /// delivered again. Meanwhile it counts as a [claim](Queue::claim).
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Empty` and `Decode`.
    pub fn get_ref(&self) -> Result<MessageRef<'_>, GetError> {
        Ok(MessageRef { held: ManuallyDrop::new(Held::new(self.raw(), Deadline::NEVER)?) })
    }

    /// [`get_ref`](Queue::get_ref), without waiting.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Decode`.
    pub fn try_get_ref(&self) -> Result<MessageRef<'_>, GetError> {
        Ok(MessageRef { held: ManuallyDrop::new(Held::new(self.raw(), Deadline::PAST)?) })
    }

    /// [`get_ref`](Queue::get_ref), waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// Any [`GetError`] but `Decode`.
    pub fn get_ref_timeout(&self, timeout: Duration) -> Result<MessageRef<'_>, GetError> {
        Ok(MessageRef { held: ManuallyDrop::new(Held::new(self.raw(), Deadline::after(timeout))?) })
    }
}

impl Queue<Vec<u8>, Bytes> {
    /// Makes a place in the queue for a message of `length` bytes, to be written where it will lie: nothing
    /// is copied. Waits for room as [`put`](Queue::put) does. The place may hold any bytes at first.
    ///
    /// The message is put by [`commit`](Reservation::commit). Without that, or if this process dies before
    /// it, nothing is put. Until then nobody else can put anything: they wait, or their timeouts run out, or
    /// `try_put` says that the queue is full. A thread that waits for room while it has a place would wait
    /// for itself: it panics.
    ///
    /// # Errors
    ///
    /// Any [`PutError`] but `Full`, with the length in the message's place.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::{Bytes, Queue};
    ///
    /// let queue = Queue::<Vec<u8>, Bytes>::new()?;
    /// let mut place = queue.reserve(1 << 20).unwrap();
    /// place.fill(7);
    /// place.commit();
    /// let message = queue.get_ref().unwrap();
    /// assert!(message.iter().all(|byte| *byte == 7));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reserve(&self, length: usize) -> Result<Reservation<'_>, PutError<usize>> {
        self.reserve_deadline(length, Deadline::NEVER)
    }

    /// [`reserve`](Queue::reserve), without waiting.
    ///
    /// # Errors
    ///
    /// Any [`PutError`], with the length in the message's place.
    pub fn try_reserve(&self, length: usize) -> Result<Reservation<'_>, PutError<usize>> {
        self.reserve_deadline(length, Deadline::PAST)
    }

    /// [`reserve`](Queue::reserve), waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// Any [`PutError`], with the length in the message's place.
    pub fn reserve_timeout(
        &self,
        length: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_>, PutError<usize>> {
        self.reserve_deadline(length, Deadline::after(timeout))
    }

    fn reserve_deadline(
        &self,
        length: usize,
        deadline: Deadline,
    ) -> Result<Reservation<'_>, PutError<usize>> {
        let refused = |refusal: PutRefusal| PutError::new(length, refusal);
        let (producer, place) = self.raw().produce_room(length, deadline).map_err(refused)?;
        Ok(Reservation { producer: ManuallyDrop::new(producer), place, length, forks: thread::forks() })
    }
}

/// A claimed message. Dropped, it is handed back, to be delivered again.
struct Held<'a> {
    queue: &'a RawQueue,
    claimed: Claimed,
    forks: u32,
}

impl<'a> Held<'a> {
    fn new(queue: &'a RawQueue, deadline: Deadline) -> Result<Held<'a>, GetError> {
        match queue.claim(deadline)? {
            Some(claimed) => Ok(Held { queue, claimed, forks: thread::forks() }),
            None => Err(GetError::TooManyClaims),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: claimed, until this is dropped.
        unsafe { self.claimed.front.message() }
    }

    fn acknowledge(self) {
        let this = ManuallyDrop::new(self);
        if this.forks == thread::forks() {
            // SAFETY: claimed by this thread, since it is not `Send`, in this process, and not acknowledged
            // before.
            unsafe { this.queue.acknowledge(&this.claimed) };
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // In a child made by `fork`, it is the parent's.
        if self.forks == thread::forks() {
            // SAFETY: claimed by this thread, since it is not `Send`, in this process, and not acknowledged.
            unsafe { self.queue.hand_back(&self.claimed) };
        }
    }
}

/// A message that belongs to this thread until it is [acknowledged](Claim::ack): see [`Queue::claim`].
///
/// If the claim is dropped without that, by a panic for instance, the message is delivered again. It stays
/// with its thread; in a child made by `fork` it does nothing.
#[must_use = "dropped, the message is delivered again"]
pub struct Claim<'a, T> {
    message: T,
    held: Held<'a>,
}

impl<T> Claim<'_, T> {
    /// Says that the message is done with: it is gone from the queue. Returns it.
    ///
    /// If this process is killed in the middle of it, the message is either gone or delivered again.
    pub fn ack(self) -> T {
        self.held.acknowledge();
        self.message
    }

    /// Whether somebody had it before, and died or handed it back.
    pub fn is_redelivered(&self) -> bool {
        self.held.claimed.front.again
    }
}

impl<T> Deref for Claim<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T: fmt::Debug> fmt::Debug for Claim<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("message", &self.message)
            .field("redelivered", &self.is_redelivered())
            .finish_non_exhaustive()
    }
}

/// A message, where it lies: see [`Queue::get_ref`]. It is taken when this is dropped. It stays with its
/// thread.
#[must_use = "dropped, the message is gone"]
pub struct MessageRef<'a> {
    held: ManuallyDrop<Held<'a>>,
}

impl MessageRef<'_> {
    /// Takes the message out of the queue, as dropping does.
    pub fn release(self) {}

    /// Whether somebody had it before, and died or handed it back.
    pub fn is_redelivered(&self) -> bool {
        self.held.claimed.front.again
    }
}

impl Deref for MessageRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.held.bytes()
    }
}

impl Drop for MessageRef<'_> {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used after it.
        let held = unsafe { ManuallyDrop::take(&mut self.held) };
        if std::thread::panicking() {
            // Not read to the end, perhaps.
            drop(held);
        } else {
            held.acknowledge();
        }
    }
}

impl fmt::Debug for MessageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageRef").field("length", &self.len()).finish_non_exhaustive()
    }
}

/// A place for a message that is being written: see [`Queue::reserve`]. It stays with its thread.
#[must_use = "dropped, nothing is put"]
pub struct Reservation<'a> {
    producer: ManuallyDrop<Producer<'a>>,
    place: NonNull<u8>,
    length: usize,
    forks: u32,
}

impl Reservation<'_> {
    /// Puts the message. In a child made by `fork`, where the place is the parent's, it does nothing.
    pub fn commit(mut self) {
        if self.forks == thread::forks() {
            let length = self.length;
            self.producer.add(length);
            self.producer.publish();
        }
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: reserved for this message, mapped, and any bytes are bytes.
        unsafe { core::slice::from_raw_parts(self.place.as_ptr(), self.length) }
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; nobody else has the place while the lock is held, and this is borrowed
        // exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.place.as_ptr(), self.length) }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.forks == thread::forks() {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.producer) };
        }
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("length", &self.length).finish_non_exhaustive()
    }
}
