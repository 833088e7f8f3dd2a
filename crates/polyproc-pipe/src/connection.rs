//! [`Connection`]: the typed handle.

use crate::end::{End, Kinds, Ticket, shape};
use crate::error::{RecvError, SendError};
use crate::known;
use crate::ring::BUFFER;
use crate::sending::SendRefusal;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use polyproc_memory::codec::{Bytes, Codec, EncodeError, Postcard};
use polyproc_memory::{Object, handover};
use polyproc_sys::deadline::Deadline;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The size of each ring, if nothing else is said: at first, and at most.
const CAPACITY: [usize; 2] = [128 << 10, 1 << 20];

/// Both ends of a new pipe: what one sends, the other receives, in either direction.
///
/// It costs 260 KiB of shared memory and two descriptors. A direction whose sender finds no room gets more memory, up to
/// 1 MiB, as long as there is some; [`pipe_with_capacity`] makes pipes that do not grow.
///
/// # Errors
///
/// Out of memory, or of descriptors.
///
/// # Example
///
/// ```
/// let (here, there) = polyproc_pipe::pipe::<u32, String>()?;
/// here.send(7)?;
/// assert_eq!(there.recv()?, 7);
/// there.send("seven".to_owned())?;
/// assert_eq!(here.recv()?, "seven");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pipe<A, B>() -> io::Result<(Connection<A, B>, Connection<B, A>)> {
    Connection::pair()
}

/// [`pipe`], with rings of this many bytes and no more, rounded up to a power of two from 4 KiB to 1 MiB. Messages of any
/// size pass through rings of any size; what is larger than half the ring passes in parts.
///
/// # Errors
///
/// As for [`pipe`].
#[expect(clippy::type_complexity, reason = "a pair of ends, each the mirror of the other")]
pub fn pipe_with_capacity<A, B, C>(bytes: usize) -> io::Result<(Connection<A, B, C>, Connection<B, A, C>)> {
    let range = crate::end::CAPACITY;
    let bytes = bytes.clamp(*range.start(), *range.end()).next_power_of_two();
    Connection::pair_with_capacity([bytes; 2])
}

/// One end of a pipe: sends `S`, receives `R`.
///
/// A handle: clones, and references in several threads, are the same end; their calls take turns. Given to another
/// process, as an argument or through another connection, it goes on there; see the [crate](crate) for that, for what
/// blocks, what a death does, and what it costs.
///
/// # Example
///
/// ```
/// use polyproc_pipe::{Connection, RecvError, pipe};
///
/// let (client, server): (Connection<String, usize>, Connection<usize, String>) = pipe()?;
/// let serving = std::thread::spawn(move || {
///     while let Ok(text) = server.recv() {
///         server.send(text.len()).unwrap();
///     }
/// });
/// client.send("grüezi".to_owned())?;
/// assert_eq!(client.recv()?, 7);
/// drop(client);
/// serving.join().unwrap(); // It saw the end.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Connection<S, R, C = Postcard> {
    pub(crate) end: Arc<End>,
    /// An `S` goes in and an `R` comes out, but none lies here.
    types: PhantomData<fn(S) -> (R, C)>,
}

impl<S, R, C> Connection<S, R, C> {
    /// [`pipe`], with this codec: `Connection::<u64, u64, Raw>::pair()`.
    ///
    /// # Errors
    ///
    /// As for [`pipe`].
    #[expect(clippy::type_complexity, reason = "a pair of ends, each the mirror of the other")]
    pub fn pair() -> io::Result<(Connection<S, R, C>, Connection<R, S, C>)> {
        Connection::pair_with_capacity(CAPACITY)
    }

    #[expect(clippy::type_complexity, reason = "a pair of ends, each the mirror of the other")]
    fn pair_with_capacity(
        [first, most]: [usize; 2],
    ) -> io::Result<(Connection<S, R, C>, Connection<R, S, C>)> {
        let shape = shape(most as u64, 0).ok_or(io::ErrorKind::InvalidInput)?;
        let (first, second) = End::pair(&shape, first as u64)?;
        Ok((Connection::new(first), Connection::new(second)))
    }

    fn new(end: End) -> Connection<S, R, C> {
        let end = Arc::new(end);
        known::enter(&end);
        Connection { end, types: PhantomData }
    }

    /// Closes this end in this process: its clones too. Everything after it is [`SendError::Closed`] and
    /// [`RecvError::Closed`]. If no other process has the end, the other one sees that it is gone, after what was sent.
    ///
    /// Dropping the last clone does the same. Does not block. A thread that waits at this very end meanwhile notices within
    /// a quarter of a second.
    ///
    /// # Errors
    ///
    /// Out of descriptors. Then this end is closed, and the other learns of it when this one is dropped.
    pub fn close(&self) -> io::Result<()> {
        self.end.close()
    }

    /// Closes this end for sending: the other side receives what was sent, and then [`RecvError::Disconnected`](crate::RecvError::Disconnected).
    /// Receiving goes on, and so does sending in the other direction. To send here is [`SendError::Closed`](crate::SendError::Closed)
    /// from then on, in another process to which this end is given, too. Done again, it does nothing.
    ///
    /// Waits only while another thread, or a task, of this process sends here. It needs no room, and does not matter to an
    /// end that is closed or whose other end is gone. A process that is killed in it has closed the end for sending, or has
    /// not; either way the other side hears of the death.
    ///
    /// # Errors
    ///
    /// [`SendError::Corrupt`](crate::SendError::Corrupt).
    ///
    /// # Example
    ///
    /// ```
    /// let (here, there) = polyproc_pipe::pipe::<u32, u32>()?;
    /// std::thread::spawn(move || {
    ///     let sum = there.iter().map(Result::unwrap).sum(); // Until nothing more comes.
    ///     there.send(sum).unwrap();
    /// });
    /// for number in 1..=4 {
    ///     here.send(number)?;
    /// }
    /// here.close_send()?;
    /// assert_eq!(here.recv()?, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close_send(&self) -> Result<(), crate::SendError<()>> {
        self.end.close_sending().map_err(|refusal| crate::SendError::new((), refusal))
    }

    /// Whether [`close`](Connection::close) was called in this process.
    pub fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// Waits until something can be received, or never will be: at the end, that is `true` as well. `false` after the
    /// timeout; zero does not wait, `None` waits without end.
    ///
    /// # Errors
    ///
    /// What poll(2) says.
    pub fn poll(&self, timeout: impl Into<Option<Duration>>) -> io::Result<bool> {
        self.end.poll(timeout.into().map_or(Deadline::NEVER, Deadline::after))
    }

    /// Before a wait at the [descriptor](AsFd) by `poll`, `epoll` or a runtime of one's own: `true` if something can be
    /// received already, or never will be. If `false`, the descriptor becomes readable with the next message, and at the
    /// end. Then receive with [`try_recv`](Connection::try_recv) until it is [`Empty`](RecvError::Empty), and begin again
    /// with this.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) says.
    pub fn prepare_wait(&self) -> io::Result<bool> {
        Ok(self.end.prepares_wait()?.unwrap_or(false))
    }

    /// Whether something has arrived: a look at memory, which says nothing of the other side's end, and makes no system
    /// call. `false` too while another thread is at it.
    pub fn has_news(&self) -> bool {
        self.end.has_news()
    }

    /// Rings the bell for messages that were sent by `send_quietly`, if the other side sleeps.
    #[doc(hidden)]
    pub fn ring(&self) {
        self.end.ring();
    }
}

impl<S, R, C: Codec<S>> Connection<S, R, C> {
    /// Sends a message, waiting for room.
    ///
    /// When it returns, the message is in memory that outlives this process: the other side receives it even if this one
    /// is killed at once.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message. If nobody is left at the other end, a message that is sent more than some thirty
    /// microseconds later is refused; for a burst of messages it may be the
    /// thirty-first.
    #[inline]
    pub fn send(&self, message: S) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::NEVER, false)
    }

    /// Sends a message if there is room for it now.
    ///
    /// A message of more than half the ring is sent only if the other side takes it fast enough: [`SendError::Full`]
    /// otherwise, and the other side never sees a part of it.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    #[inline]
    pub fn try_send(&self, message: S) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::PAST, false)
    }

    /// Sends a message, waiting for room no longer than this. Zero does not wait.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send_timeout(&self, message: S, timeout: Duration) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::after(timeout), false)
    }

    /// Sends a message, waiting for room until then.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message.
    pub fn send_until(&self, message: S, deadline: Instant) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::at(deadline), false)
    }

    /// Sends a message and does not wake whoever sleeps: [`ring`](Connection::ring) does.
    #[doc(hidden)]
    #[inline]
    pub fn send_quietly(&self, message: S) -> Result<(), SendError<S>> {
        self.send_by(message, Deadline::NEVER, true)
    }

    #[inline]
    fn send_by(&self, message: S, deadline: Deadline, quietly: bool) -> Result<(), SendError<S>> {
        let end = &*self.end;
        let encoded = if is_plain::<S, C>() {
            C::encode(&message, |bytes| end.send(bytes, deadline, quietly))
        } else {
            let put = |bytes: &[u8]| bytes.to_vec();
            let (encoded, descriptors) = handover::send(|| C::encode(&message, put));
            encoded.map(|bytes| {
                if descriptors.is_empty() {
                    end.send(&bytes, deadline, quietly)
                } else {
                    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    end.send_with(&bytes, &borrowed, deadline)
                }
            })
        };
        match encoded {
            Ok(Ok(())) => Ok(()),
            refused => Err(why_not(message, refused)),
        }
    }
}

#[cold]
fn why_not<S>(message: S, refused: Result<Result<(), SendRefusal>, EncodeError>) -> SendError<S> {
    match refused {
        Ok(Err(refusal)) => SendError::new(message, refusal),
        Err(error) => SendError::Encode { message, error },
        Ok(Ok(())) => unreachable!("it was sent"),
    }
}

impl<S, R, C: Codec<R>> Connection<S, R, C> {
    /// Receives a message, waiting for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Disconnected`] when everything is drained and nobody is left at the other end, at once if that one
    /// was killed; else [`RecvError`].
    #[inline]
    pub fn recv(&self) -> Result<R, RecvError> {
        self.recv_by(Deadline::NEVER)
    }

    /// Receives a message that is there.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    #[inline]
    pub fn try_recv(&self) -> Result<R, RecvError> {
        self.recv_by(Deadline::PAST)
    }

    /// Receives a message, waiting no longer than this. Zero does not wait.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<R, RecvError> {
        self.recv_by(Deadline::after(timeout))
    }

    /// Receives a message, waiting until then.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    pub fn recv_until(&self, deadline: Instant) -> Result<R, RecvError> {
        self.recv_by(Deadline::at(deadline))
    }

    #[inline]
    fn recv_by(&self, deadline: Deadline) -> Result<R, RecvError> {
        let size = C::element().size();
        if C::IS_PLAIN
            && size <= BUFFER
            && let Some(copied) = self.end.recv_exact(size, deadline, C::copy)
        {
            return C::decode(copied).map_err(RecvError::Decode);
        }
        self.recv_copied(deadline)
    }

    fn recv_copied(&self, deadline: Deadline) -> Result<R, RecvError> {
        let mut bytes = Vec::new();
        let received = self.end.recv(&mut bytes, usize::MAX, deadline);
        let descriptors = received.map_err(|refusal| RecvError::new(refusal, usize::MAX))?;
        let decoded = if is_plain::<R, C>() {
            C::decode(C::own(bytes))
        } else {
            handover::receive(descriptors, || C::decode(C::own(bytes)))
        };
        decoded.map_err(RecvError::Decode)
    }

    /// The messages, until the other end is gone and all are drained, or something is wrong for good: a message that
    /// cannot be decoded is one `Err`, and the next one follows.
    pub fn iter(&self) -> impl Iterator<Item = Result<R, RecvError>> {
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            match self.recv() {
                Err(RecvError::Disconnected | RecvError::Closed) => None,
                Err(error) => {
                    is_over = !matches!(error, RecvError::Decode(_));
                    Some(Err(error))
                }
                message => Some(message),
            }
        })
    }
}

impl<R> Connection<Vec<u8>, R, Bytes> {
    /// Sends bytes, and descriptors beside them, if there is room for them now. The other end gets duplicates.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_pipe::{Bytes, Connection};
    /// use std::os::fd::AsFd;
    ///
    /// let (here, there) = Connection::<Vec<u8>, Vec<u8>, Bytes>::pair()?;
    /// let null = std::fs::File::open("/dev/null")?;
    /// here.try_send_with(b"read this", &[null.as_fd()])?;
    /// let mut message = Vec::new();
    /// let descriptors = there.recv_with(&mut message)?;
    /// assert_eq!((&message[..], descriptors.len()), (&b"read this"[..], 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError<()>> {
        self.send_raw(bytes, descriptors, Deadline::PAST)
    }

    /// [`try_send_with`](Connection::try_send_with), waiting for room.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), SendError<()>> {
        self.send_raw(bytes, descriptors, Deadline::NEVER)
    }

    fn send_raw(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), SendError<()>> {
        let sent = if descriptors.is_empty() {
            self.end.send(bytes, deadline, false)
        } else {
            self.end.send_with(bytes, descriptors, deadline)
        };
        sent.map_err(|refusal| SendError::new((), refusal))
    }
}

impl<S> Connection<S, Vec<u8>, Bytes> {
    /// Receives a message, waiting for one: appends its bytes to `to`, and returns the descriptors that came with it.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Connection::recv).
    pub fn recv_with(&self, to: &mut Vec<u8>) -> Result<Vec<OwnedFd>, RecvError> {
        self.recv_raw(to, Deadline::NEVER)
    }

    /// [`recv_with`](Connection::recv_with) of a message that is there.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`], or as for [`recv`](Connection::recv).
    pub fn try_recv_with(&self, to: &mut Vec<u8>) -> Result<Vec<OwnedFd>, RecvError> {
        self.recv_raw(to, Deadline::PAST)
    }

    fn recv_raw(&self, to: &mut Vec<u8>, deadline: Deadline) -> Result<Vec<OwnedFd>, RecvError> {
        self.end.recv(to, usize::MAX, deadline).map_err(|refusal| RecvError::new(refusal, usize::MAX))
    }
}

/// Messages as bytes, whatever the connection's types: each is one message, as long as it is.
///
/// Where the other side receives by [`recv`](Connection::recv), these are the bytes that its codec decodes; where it sends by
/// [`send`](Connection::send), those that its codec made.
impl<S, R, C> Connection<S, R, C> {
    /// Sends these bytes as one message, waiting for room. None are a message, too.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    ///
    /// # Example
    ///
    /// ```
    /// let (here, there) = polyproc_pipe::pipe::<(), ()>()?;
    /// here.send_bytes(b"as it is")?;
    /// assert!(there.recv_bytes(4).is_err()); // Too long for that; it is still there.
    /// assert_eq!(there.recv_bytes(64)?, b"as it is");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<(), SendError<()>> {
        self.end.send(bytes, Deadline::NEVER, false).map_err(|refusal| SendError::new((), refusal))
    }

    /// Receives a message of at most so many bytes, waiting for one.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooLong`] if it is longer: it stays in front, and the connection goes on. Else as for
    /// [`recv`](Connection::recv).
    pub fn recv_bytes(&self, max: usize) -> Result<Vec<u8>, RecvError> {
        let mut bytes = Vec::new();
        self.recv_bytes_into(&mut bytes, max)?;
        Ok(bytes)
    }

    /// Appends a message of at most so many bytes to `to`, whose memory is used again, and returns its length.
    ///
    /// # Errors
    ///
    /// As for [`recv_bytes`](Connection::recv_bytes).
    pub fn recv_bytes_into(&self, to: &mut Vec<u8>, max: usize) -> Result<usize, RecvError> {
        let before = to.len();
        let received = self.end.recv(to, max, Deadline::NEVER);
        received.map_err(|refusal| RecvError::new(refusal, max))?;
        Ok(to.len() - before)
    }
}

/// Whether no handle can be in a message, so that nothing travels beside it.
#[inline(always)]
pub(crate) fn is_plain<T, C: Codec<T>>() -> bool {
    C::IS_PLAIN || C::CODE == b'b'
}

impl<S, R, C> Clone for Connection<S, R, C> {
    fn clone(&self) -> Connection<S, R, C> {
        Connection { end: Arc::clone(&self.end), types: PhantomData }
    }
}

impl<S, R, C> fmt::Debug for Connection<S, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("capacity", &self.end.capacity())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

/// For `poll`, `epoll` and runtimes: see [`prepare_wait`](Connection::prepare_wait). Nothing may be read from it.
impl<S, R, C> AsFd for Connection<S, R, C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.socket()
    }
}

fn kinds(sends: Layout, receives: Layout) -> Kinds {
    [sends, receives].map(|layout| (layout.size() as u64, layout.align() as u64))
}

/// The region, as part of a larger message.
struct Region(Object);

impl Serialize for Region {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Region, D::Error> {
        Object::deserialize(deserializer, |capacity| shape(capacity, 0)).map(Region)
    }
}

const IN_USE: &str =
    "a Connection travels between two messages only, while no other thread uses it, before it is closed";

/// Only in a hand-over: as an argument of a process, or in a message of another connection.
impl<S, R, C: Codec<S> + Codec<R>> Serialize for Connection<S, R, C> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let kinds = kinds(<C as Codec<S>>::element(), <C as Codec<R>>::element());
        let code = <C as Codec<S>>::CODE;
        let Some((ticket, object, socket)) = self.end.ticket(kinds) else {
            return Err(T::Error::custom(IN_USE));
        };
        let socket = socket.ok_or_else(|| T::Error::custom(handover::NOT_IN_HANDOVER))?;
        (Region(object), socket, code, ticket).serialize(serializer)
    }
}

impl<'de, S, R, C: Codec<S> + Codec<R>> Deserialize<'de> for Connection<S, R, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Connection<S, R, C>, D::Error> {
        let (Region(object), socket, code, ticket) = <(Region, u32, u8, Ticket)>::deserialize(deserializer)?;
        if code != <C as Codec<S>>::CODE
            || ticket.kinds != kinds(<C as Codec<S>>::element(), <C as Codec<R>>::element())
        {
            return Err(D::Error::custom("a connection with another codec, or messages of another size"));
        }
        let socket = handover::descriptor(socket).map_err(D::Error::custom)?;
        let end = End::from_ticket(&ticket, object, socket);
        end.map(Connection::new).ok_or_else(|| D::Error::custom("this is no connection's ticket"))
    }
}
