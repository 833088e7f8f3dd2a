//! [`Queue`]: the handle.

#[allow(unsafe_code)]
mod get;
mod put;

pub use get::Iter;

use crate::consumer::Consumer;
use crate::error::{GetManyError, PutError, PutManyError, PutRefusal};
use crate::fast::Place;
use crate::producer::Producer;
use crate::raw::RawQueue;
use crate::run::Run;
use core::fmt;
use core::marker::PhantomData;
use polyproc_memory::Object;
use polyproc_memory::codec::{Codec, DecodeError, EncodeError, Postcard};
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Up to this size, messages are moved through registers.
const SMALL: usize = 64;

/// The kind of its memory.
const KIND: &str = "queue";

/// Messages from any number of processes to any number of processes, first in, first out.
///
/// This is a handle: clones are the same queue, and so is a clone that is given to another process. See the
/// [crate](crate) for what blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_queue::Queue;
///
/// let queue = Queue::<(u32, String)>::new()?;
/// queue.put((1, "one".into())).unwrap();
/// queue.put((2, "two".into())).unwrap();
/// queue.close();
/// assert_eq!(queue.get().unwrap(), (1, "one".into()));
/// for message in queue.iter() {
///     assert_eq!(message.unwrap(), (2, "two".into()));
/// } // Ends because it is closed and drained.
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Queue<T, C = Postcard> {
    raw: RawQueue,
    /// A `T` goes in and comes out again, but never lies here.
    message: PhantomData<fn(T) -> (T, C)>,
}

impl<T, C: Codec<T>> Queue<T, C> {
    /// Makes an empty queue that takes any number of messages, up to a quarter of the system's memory; less
    /// where the process may not have that many addresses (`ulimit -v`) or such a large file (`ulimit -f`).
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left; `Unsupported` where the threads' robust lists are not glibc's (another C library, some
    /// sandboxes).
    pub fn new() -> io::Result<Queue<T, C>> {
        Queue::create(KIND, 0, default_bytes(), 0)
    }

    /// Makes an empty queue that takes at most `messages` messages at a time.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero; else as for [`new`](Queue::new).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::{PutError, Queue};
    ///
    /// let queue = Queue::<u32>::bounded(2)?;
    /// queue.put(1).unwrap();
    /// queue.put(2).unwrap();
    /// assert!(queue.is_full());
    /// assert!(matches!(queue.try_put(3), Err(PutError::Full(3))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bounded(messages: usize) -> io::Result<Queue<T, C>> {
        Queue::create(KIND, at_least_one(messages)?, default_bytes(), 0)
    }

    /// Makes an empty queue that takes any number of messages, up to `bytes` bytes together, at least 64 KiB.
    /// These are addresses at first, and become memory when they are needed.
    ///
    /// # Errors
    ///
    /// As for [`new`](Queue::new).
    pub fn with_max_bytes(bytes: u64) -> io::Result<Queue<T, C>> {
        Queue::create(KIND, 0, bytes, 0)
    }

    /// An empty queue whose positions begin at `start`: for tests of what happens when they wrap.
    #[doc(hidden)]
    pub fn starting_at(start: u64, messages: u64, bytes: u64) -> io::Result<Queue<T, C>> {
        Queue::create(KIND, messages, bytes, start & !7)
    }

    pub(crate) fn create(
        kind: &'static str,
        messages: u64,
        bytes: u64,
        start: u64,
    ) -> io::Result<Queue<T, C>> {
        let raw = RawQueue::new(kind, C::CODE, C::element(), messages, bytes, start)?;
        Ok(Queue { raw, message: PhantomData })
    }

    /// Puts messages one after the other, with one lock and one wake for as many as there is room for,
    /// waiting for room as often as necessary. Messages of other processes may come between two of them where
    /// it had to wait, or where the queue grew. If this process is killed meanwhile, the first so many are in
    /// the queue.
    ///
    /// # Errors
    ///
    /// If a message could not be put: the error has it, and those after it. Those before it are in the queue.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::Queue;
    ///
    /// let queue = Queue::<String>::new()?;
    /// queue.put_many(["one", "two"].map(String::from)).unwrap();
    /// assert_eq!(queue.len(), 2);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn put_many(&self, messages: impl IntoIterator<Item = T>) -> Result<(), PutManyError<T>> {
        self.put_many_deadline(messages.into_iter().collect(), Deadline::NEVER)
    }

    /// [`put_many`](Queue::put_many), without waiting for room.
    ///
    /// # Errors
    ///
    /// As for [`put_many`](Queue::put_many).
    pub fn try_put_many(&self, messages: impl IntoIterator<Item = T>) -> Result<(), PutManyError<T>> {
        self.put_many_deadline(messages.into_iter().collect(), Deadline::PAST)
    }

    /// [`put_many`](Queue::put_many), waiting at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// As for [`put_many`](Queue::put_many).
    pub fn put_many_timeout(
        &self,
        messages: impl IntoIterator<Item = T>,
        timeout: Duration,
    ) -> Result<(), PutManyError<T>> {
        self.put_many_deadline(messages.into_iter().collect(), Deadline::after(timeout))
    }

    fn put_many_deadline(&self, mut messages: Vec<T>, deadline: Deadline) -> Result<(), PutManyError<T>> {
        let (put, refusal, unencoded) = if C::IS_PLAIN {
            let fill = |message: &T, mut place: Place| _ = C::encode(message, |bytes| place.fill(bytes));
            let put = self.raw.put_owned(&messages, fill);
            if put == messages.len() {
                return Ok(());
            }
            let left = &messages[put..];
            let one = |index: usize, place: Place| fill(&left[index], place);
            let more = |producer: &mut Producer<'_>, from: usize| producer.add_plain(&left[from..], fill);
            let (more, refusal) = self.raw.put_all(left.len(), deadline, |_| size_of::<T>(), one, more);
            (put + more, refusal, None)
        } else {
            self.put_encoded(&messages, deadline)
        };
        if put == messages.len() {
            return Ok(());
        }
        let rest = messages.split_off(put + 1);
        let Some(message) = messages.pop() else { return Ok(()) };
        let error = match (refusal, unencoded) {
            (Some(refusal), _) => PutError::new(message, refusal),
            (None, Some(error)) => PutError::Encode { message, error },
            (None, None) => return Ok(()),
        };
        Err(PutManyError { put, error, rest })
    }

    /// Encodes them before the queue is locked: that is the caller's own code, which may do anything.
    fn put_encoded(
        &self,
        messages: &[T],
        deadline: Deadline,
    ) -> (usize, Option<PutRefusal>, Option<EncodeError>) {
        let mut bytes = Vec::with_capacity(size_of_val(messages));
        let mut ends = Vec::with_capacity(messages.len() + 1);
        ends.push(0);
        let mut unencoded = None;
        for message in messages {
            if let Err(error) = C::encode(message, |encoded| bytes.extend_from_slice(encoded)) {
                unencoded = Some(error);
                break;
            }
            ends.push(bytes.len());
        }
        let length = |index: usize| ends[index + 1] - ends[index];
        let fill = |index: usize, mut place: Place| place.fill(&bytes[ends[index]..ends[index + 1]]);
        let count = ends.len() - 1;
        let more = |producer: &mut Producer<'_>, from: usize| {
            producer.add_run(count - from, |nth| length(from + nth), |nth, place| fill(from + nth, place))
        };
        let (put, refusal) = self.raw.put_all(count, deadline, length, fill, more);
        (put, refusal, unencoded)
    }

    /// Gets the next messages, at most `most` of them. It waits for one, for as long as it takes, and takes
    /// with it what else is there, with one lock. If `most` is zero, it does not wait.
    ///
    /// # Errors
    ///
    /// Any [`GetManyError`] but `Empty`. If messages cannot be decoded, it has them, and those that can.
    ///
    /// # Panics
    ///
    /// If the codec panics while it copies: then everything is still in the queue, or this call returns what
    /// is not, and the next one panics. A panic of the codec while it decodes is an error, and the message is
    /// gone.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::{Queue, Raw};
    ///
    /// let queue = Queue::<u64, Raw>::new()?;
    /// queue.put_many([1, 2, 3]).unwrap();
    /// assert_eq!(queue.get_many(2).unwrap(), [1, 2]);
    /// assert_eq!(queue.get_many(100).unwrap(), [3]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn get_many(&self, most: usize) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_deadline(most, Deadline::NEVER)
    }

    /// [`get_many`](Queue::get_many), without waiting.
    ///
    /// # Errors
    ///
    /// As for [`get_many`](Queue::get_many), and `Empty`.
    pub fn try_get_many(&self, most: usize) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_deadline(most, Deadline::PAST)
    }

    /// [`get_many`](Queue::get_many), waiting at most `timeout` for the first.
    ///
    /// # Errors
    ///
    /// As for [`get_many`](Queue::get_many), and `Empty`.
    pub fn get_many_timeout(&self, most: usize, timeout: Duration) -> Result<Vec<T>, GetManyError<T>> {
        self.get_many_deadline(most, Deadline::after(timeout))
    }

    fn get_many_deadline(&self, most: usize, deadline: Deadline) -> Result<Vec<T>, GetManyError<T>> {
        if most == 0 {
            return Ok(Vec::new());
        }
        if C::IS_PLAIN {
            return self.get_plain(most, deadline);
        }
        let mut copied = Vec::with_capacity(most.min(1024));
        let copy = |copied: &mut Vec<_>, bytes: &[u8]| copied.push(C::copy(bytes));
        let more = |consumer: &mut Consumer<'_>, copied: &mut _, left| {
            consumer.take_run(left, |bytes| copy(copied, bytes))
        };
        let got = self.raw.get_all(most, deadline, &mut copied, copy, more, false)?;
        copied.truncate(got);
        let mut messages = Vec::with_capacity(copied.len());
        let mut copied = copied.into_iter();
        // They are out of the queue: a panic at one is not to cost the others.
        let first = catch_unwind(AssertUnwindSafe(|| decode_to::<T, C>(&mut copied, &mut messages)));
        let Err(first) = first.unwrap_or_else(|_| Err(panicked())) else { return Ok(messages) };
        let mut all: Vec<_> = messages.into_iter().map(Ok).collect();
        all.push(Err(first));
        all.extend(copied.map(|copied| {
            catch_unwind(AssertUnwindSafe(|| C::decode(copied))).unwrap_or_else(|_| Err(panicked()))
        }));
        Err(GetManyError::Decode(all))
    }

    fn get_plain(&self, most: usize, deadline: Deadline) -> Result<Vec<T>, GetManyError<T>> {
        let mut sink = (Vec::with_capacity(most.min(1024)), Vec::new());
        let copy = |(messages, others): &mut (Vec<T>, Vec<_>), bytes: &[u8]| {
            if let Err(error) = C::append(bytes, messages) {
                others.push((messages.len() + others.len(), error));
            }
        };
        // The same, for those of the size that all have: the compiler sees that nothing can be wrong with
        // them.
        let take = |sink: &mut (Vec<T>, Vec<_>), run: Run<'_, T>| {
            if size_of::<T>() <= SMALL {
                let read = |bytes| C::read(bytes).expect("a codec says that it is plain, and is not");
                sink.0.extend(run.messages().map(read));
                return;
            }
            for bytes in run.messages() {
                if C::append(bytes, &mut sink.0).is_err() {
                    copy(sink, bytes);
                }
            }
        };
        let more = |consumer: &mut Consumer<'_>, sink: &mut _, left| {
            consumer.take_plain(left, |run| take(sink, run))
        };
        let room = sink.0.capacity();
        let (taken, is_more) = self.raw.get_owned(most.min(room), |run| take(&mut sink, run));
        let mut got = taken;
        if taken == 0 {
            got = self.raw.get_all(most, deadline, &mut sink, copy, more, false)?;
        } else if is_more && taken != most {
            // What is there is in several pieces, or of another kind. If somebody else gets it, that is as
            // well.
            let more = self.raw.get_all(most - taken, Deadline::PAST, &mut sink, copy, more, true);
            got = taken + more.unwrap_or(0);
        }
        let (mut messages, mut others) = sink;
        others.retain(|(index, _)| *index < got);
        messages.truncate(got - others.len());
        if others.is_empty() {
            return Ok(messages);
        }
        let mut all: Vec<_> = messages.into_iter().map(Ok).collect();
        for (index, error) in others {
            all.insert(index, Err(error));
        }
        Err(GetManyError::Decode(all))
    }

    /// How many messages are in the queue. The answer may be out of date by the time the caller looks at it.
    ///
    /// It is exact while nobody is at work: `try_get` finds a message if it is not zero, and none if it is.
    pub fn len(&self) -> usize {
        self.raw.len() as usize
    }

    /// Whether there is no message in the queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are as many messages in the queue as it takes; never, if it takes any number.
    pub fn is_full(&self) -> bool {
        self.raw.most != 0 && self.raw.len() >= self.raw.most
    }

    /// How many messages it takes at a time; `None` for any number.
    pub fn capacity(&self) -> Option<usize> {
        Some(self.raw.most as usize).filter(|most| *most != 0)
    }

    /// Closes the queue, for everybody. From now on nothing can be put, and whoever waits for room is told
    /// so. What is in it can be got; after that `get` says that the queue is closed, and so it does to those
    /// who wait. Closing it again does nothing. If this process is killed meanwhile, the queue is closed and
    /// everybody hears of it, or it is not closed.
    ///
    /// # Panics
    ///
    /// If the calling thread holds 2,048 locks, or has a [`Reservation`](crate::Reservation).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::{GetError, PutError, Queue};
    ///
    /// let queue = Queue::<u32>::new()?;
    /// queue.put(1).unwrap();
    /// queue.close();
    /// assert!(matches!(queue.put(2), Err(PutError::Closed(2))));
    /// assert_eq!(queue.get().unwrap(), 1);
    /// assert!(matches!(queue.get(), Err(GetError::Closed)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn close(&self) {
        if let Err(refusal) = self.raw.close() {
            refusal.panic();
        }
    }

    /// Whether it is closed. There may still be messages in it.
    pub fn is_closed(&self) -> bool {
        self.raw.is_closed()
    }

    pub(crate) fn receive<'de, D: Deserializer<'de>>(
        deserializer: D,
        kind: &'static str,
    ) -> Result<Queue<T, C>, D::Error> {
        let object =
            Object::deserialize(deserializer, |_| Some(RawQueue::shape(kind, C::CODE, C::element())))?;
        Ok(Queue { raw: RawQueue::attach(object), message: PhantomData })
    }
}

impl<T, C> Queue<T, C> {
    pub(crate) fn raw(&self) -> &RawQueue {
        &self.raw
    }

    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt_as(name, f)
    }
}

/// Decodes them until one is an error.
#[inline(always)]
fn decode_to<T, C: Codec<T>>(
    copied: &mut impl Iterator<Item = C::Copied>,
    messages: &mut Vec<T>,
) -> Result<(), DecodeError> {
    for copied in copied {
        messages.push(C::decode(copied)?);
    }
    Ok(())
}

#[cold]
fn panicked() -> DecodeError {
    DecodeError::new(Vec::new(), "the codec panicked")
}

/// A quarter of the memory that there is, or less where the process may not have such a large file, or as
/// many addresses: the parts of a queue take up to twice its bytes.
pub(crate) fn default_bytes() -> u64 {
    (polyproc_memory::physical_memory() / 4).min(polyproc_memory::modest_region() / 2)
}

/// The bound of a queue.
pub(crate) fn at_least_one(messages: usize) -> io::Result<u64> {
    if messages == 0 {
        let message =
            "a queue that takes no message at all is of no use; `new` makes one that takes any number";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(messages as u64)
}

impl<T, C> Clone for Queue<T, C> {
    fn clone(&self) -> Queue<T, C> {
        Queue { raw: self.raw.clone(), message: PhantomData }
    }
}

impl<T, C> fmt::Debug for Queue<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("Queue", f)
    }
}

impl<T, C> Serialize for Queue<T, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.object().serialize(serializer)
    }
}

impl<'de, T, C: Codec<T>> Deserialize<'de> for Queue<T, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Queue<T, C>, D::Error> {
        Queue::receive(deserializer, KIND)
    }
}
