//! [`Connection`]: the typed handle.

mod bytes;
mod receive;
mod send;
mod travel;

use crate::end::{End, shape};
use crate::known;
use crate::receiving::Asked;
use core::fmt;
use core::marker::PhantomData;
use polyproc_memory::codec::{Codec, Postcard};
use polyproc_sys::deadline::Deadline;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// The size of each ring, if nothing else is said: at first, and at most.
const CAPACITY: [usize; 2] = [128 << 10, 1 << 20];

/// Both ends of a new pipe: what one sends, the other receives, in either direction.
///
/// It costs 260 KiB of shared memory, and two descriptors an end; while one process has both, three in all. A
/// direction whose sender finds no room, or sends messages in parts faster than they are received, gets more
/// memory, up to 1 MiB, as long as there is some; [`pipe_with_capacity`] makes pipes that do not grow.
///
/// # Errors
///
/// Out of memory, or of descriptors; `Unsupported` where threads have no robust lists, see
/// [`polyproc_sys::robust::check`].
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

/// [`pipe`], with rings of this many bytes and no more, rounded up to a power of two from 4 KiB to 1 MiB.
/// Messages of any size pass through rings of any size; what is larger than half the ring passes in parts.
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
/// A handle: clones, and references in several threads, are the same end; their calls take turns. Given to
/// another process, as an argument or through another connection, it goes on there; see the [crate](crate)
/// for that, for what blocks, what a death does, and what it costs.
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

    /// Closes this end in this process: its clones too. Everything after it is
    /// [`SendError::Closed`](crate::SendError::Closed) and [`RecvError::Closed`](crate::RecvError::Closed).
    /// If no other process has the end, the other one sees that it is gone, after what was sent.
    ///
    /// Dropping the last clone does the same. Does not block. A thread that waits at this very end meanwhile
    /// notices within a quarter of a second.
    ///
    /// # Errors
    ///
    /// Out of descriptors. Then this end is closed, and the other learns of it when this one is dropped.
    pub fn close(&self) -> io::Result<()> {
        self.end.close()
    }

    /// Closes this end for sending: the other side receives what was sent, and then
    /// [`RecvError::Disconnected`](crate::RecvError::Disconnected). Receiving goes on, and so does sending in
    /// the other direction. To send here is [`SendError::Closed`](crate::SendError::Closed) from then on, in
    /// another process to which this end is given, too. Done again, it does nothing.
    ///
    /// Waits only while another thread, or a task, of this process sends here. It needs no room, and does not
    /// matter to an end that is closed or whose other end is gone. A process that is killed in it has closed
    /// the end for sending, or has not; either way the other side hears of the death.
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

    /// Waits until something can be received, or never will be: at the end, that is `true` as well. `false`
    /// after the timeout; zero does not wait, `None` waits without end.
    ///
    /// The beginning of a long message that passes in parts is something, too. What its sender has taken back
    /// is not.
    ///
    /// # Errors
    ///
    /// What poll(2) says.
    pub fn poll(&self, timeout: impl Into<Option<Duration>>) -> io::Result<bool> {
        self.end.poll(timeout.into().map_or(Deadline::NEVER, Deadline::after))
    }

    /// Before a wait at the [descriptor](AsFd) by `poll`, `epoll` or a runtime of one's own: `true` if
    /// something can be received already, or never will be. If `false`, the descriptor becomes readable with
    /// the next message, and at the end. Then receive with [`try_recv`](Connection::try_recv) until it is
    /// [`Empty`](crate::RecvError::Empty), and begin again with this.
    ///
    /// For one thread at a time that waits at this end: another that receives here, or sends and finds no
    /// room, takes the bell, and then the descriptor need not become readable. [`wait`](crate::wait()) and
    /// `recv_async` are told by the other. Where membarrier(2) is missing in this process only, as in a
    /// sandbox, a message that comes in this very moment may not ring: look again every millisecond, as those
    /// do.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) says.
    pub fn prepare_wait(&self) -> io::Result<bool> {
        Ok(matches!(self.end.prepares_wait(Deadline::PAST)?, Asked::Ready))
    }

    /// Whether something has arrived: a look at memory, which says nothing of the other side's end, and makes
    /// no system call. `false` too while another thread is at it.
    pub fn has_news(&self) -> bool {
        self.end.has_news()
    }

    /// Rings the bell for messages that were sent by `send_quietly`, if the other side sleeps.
    #[doc(hidden)]
    pub fn ring(&self) {
        self.end.ring();
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

/// For `poll`, `epoll` and runtimes: see [`prepare_wait`](Connection::prepare_wait). Nothing may be read from
/// it.
impl<S, R, C> AsFd for Connection<S, R, C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.socket()
    }
}
