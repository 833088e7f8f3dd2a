//! What a task of tokio does to wait.
//!
//! A task tries, and if there is nothing for it, asks for the bell and waits for two things: that its own
//! descriptor of the socket becomes readable, and that anybody of this process takes something from the
//! socket, which may have been for the task. It is enlisted for both before it tries.
//!
//! If another thread is inside the gate, the task has asked for nothing. It tries again as soon as the
//! runtime lets it; but if that thread has said that it waits there, it wakes the tasks when it has left.

use crate::barrier;
use crate::connection::{Connection, is_plain};
use crate::door::{Door, RECEIVING, SENDING};
use crate::end::{End, SLICE};
use crate::error::{RecvError, SendError};
use crate::receiving::Asked;
use crate::sending::{SendRefusal, Sending, Sent};
use core::future::poll_fn;
use core::task::Poll;
use polyproc_memory::codec::Codec;
use polyproc_memory::handover;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::{fork, thread};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Waker, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What came of trying.
enum Attempt<T> {
    Done(T),
    /// Somebody will ring, or wake the tasks.
    Asleep,
    /// The same, but not surely at once: the kernel made no barrier.
    Dozing,
    /// Another thread is inside.
    Busy,
    /// The socket has no room for descriptors.
    NoRoom,
}

/// One who waits at the door as a task, until dropped.
struct Waiting<'a> {
    door: &'a Door,
    /// A descriptor of its own: a runtime takes each number only once.
    socket: AsyncFd<OwnedFd>,
}

impl<'a> Waiting<'a> {
    fn new(end: &'a End, direction: usize) -> io::Result<Waiting<'a>> {
        let socket = end.socket().try_clone_to_owned()?;
        let writes = direction == SENDING;
        let interest = if writes { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        // SAFETY: the descriptor stays open and the same until the registration drops it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, interest) }?;
        Ok(Waiting { door: &end.door, socket })
    }

    /// Nobody else's of this process as long as the descriptor is open.
    fn number(&self) -> usize {
        self.socket.get_ref().as_raw_fd() as usize
    }

    /// Ready when the socket was readable since the last time. In any case, nothing is missed from here on.
    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.door.enlist(self.number(), context.waker());
        ready!(self.socket.poll_read_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Ready when the socket may have got room since the last time.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_write_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.door.strike(self.number());
    }
}

/// Tries until it is done. If it cannot wait, `failed` makes something of that.
async fn until_done<T>(
    end: &End,
    direction: usize,
    mut attempt: impl FnMut() -> Attempt<T>,
    failed: impl FnOnce(io::Error) -> T,
) -> T {
    if let Attempt::Done(done) = attempt() {
        return done;
    }
    let waiting = match Waiting::new(end, direction) {
        Ok(waiting) => waiting,
        Err(error) => return failed(error),
    };
    let done = poll_fn(|context| {
        loop {
            let readable = waiting.poll(context);
            if let Poll::Ready(Err(error)) = readable {
                return Poll::Ready(Err(error));
            }
            match attempt() {
                Attempt::Done(done) => return Poll::Ready(Ok(done)),
                Attempt::Asleep => {}
                Attempt::Dozing => wake_soon(context.waker()),
                Attempt::Busy if end.door.is_parked(direction) => {}
                Attempt::Busy => context.waker().wake_by_ref(),
                Attempt::NoRoom => match waiting.poll_room(context) {
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => continue,
                    Poll::Pending => {}
                },
            }
            if readable.is_pending() {
                return Poll::Pending;
            }
        }
    });
    done.await.unwrap_or_else(failed)
}

/// Has a task look again in a millisecond.
fn wake_soon(waker: &Waker) {
    /// In which process, and who.
    static DOZING: fork::Mutex<(u32, Vec<Waker>)> = fork::Mutex::new((0, Vec::new()));
    fn wake_all() {
        let tasks = core::mem::take(&mut DOZING.lock().1);
        tasks.into_iter().for_each(Waker::wake);
    }
    let mut dozing = DOZING.lock();
    let process = thread::forks();
    if core::mem::replace(&mut dozing.0, process) != process {
        // Not dropped: they are those of a runtime whose threads are not here, nor is who would wake them.
        core::mem::forget(core::mem::take(&mut dozing.1));
    }
    dozing.1.push(waker.clone());
    let is_first = dozing.1.len() == 1;
    drop(dozing);
    let wakes = || {
        std::thread::sleep(SLICE);
        wake_all();
    };
    if is_first && std::thread::Builder::new().spawn(wakes).is_err() {
        wake_all();
    }
}

impl<S, R, C: Codec<R>> Connection<S, R, C> {
    /// [`recv`](Connection::recv), as a task of tokio: does not block the thread.
    ///
    /// Dropped before it is ready, it has received nothing, and nothing is lost. Several tasks and threads
    /// may wait at the same connection.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Connection::recv).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a runtime that has its I/O driver enabled.
    ///
    /// # Example
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    /// let (here, there) = polyproc_pipe::pipe::<u32, String>()?;
    /// runtime.block_on(async {
    ///     let answer = async { there.send_async(there.recv_async().await.unwrap().to_string()).await.unwrap() };
    ///     let question = async {
    ///         here.send_async(7).await.unwrap();
    ///         assert_eq!(here.recv_async().await.unwrap(), "7");
    ///     };
    ///     tokio::join!(answer, question);
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn recv_async(&self) -> Result<R, RecvError> {
        let attempt = || {
            loop {
                match self.try_recv() {
                    Err(RecvError::Empty) => match self.end.prepares_wait(Deadline::PAST) {
                        Ok(Asked::Ready) => {}
                        Ok(Asked::Waits { prompt: true }) => return Attempt::Asleep,
                        Ok(Asked::Waits { prompt: false }) => return Attempt::Dozing,
                        Ok(Asked::Busy) => return Attempt::Busy,
                        Err(error) => return Attempt::Done(Err(RecvError::Io(error))),
                    },
                    received => return Attempt::Done(received),
                }
            }
        };
        until_done(&self.end, RECEIVING, attempt, |error| Err(RecvError::Io(error))).await
    }
}

impl<S, R, C: Codec<S>> Connection<S, R, C> {
    /// [`send`](Connection::send), as a task of tokio: does not block the thread while there is no room.
    ///
    /// Dropped before it is ready, it has sent nothing: the other side never sees a part of a message, and
    /// this one is dropped. While a part of a long message is under way, others who send wait for the rest.
    ///
    /// # Errors
    ///
    /// As for [`send`](Connection::send).
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a runtime that has its I/O driver enabled.
    pub async fn send_async(&self, message: S) -> Result<(), SendError<S>> {
        let put = |bytes: &[u8]| bytes.to_vec();
        let (encoded, descriptors) = if is_plain::<S, C>() {
            (C::encode(&message, put), Vec::new())
        } else {
            handover::send(|| C::encode(&message, put))
        };
        let bytes = match encoded {
            Ok(bytes) => bytes,
            Err(error) => return Err(SendError::Encode { message, error }),
        };
        let mut outgoing = Outgoing { end: &self.end, sent: Sent::default(), is_under_way: false };
        let attempt = || {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            outgoing.go_on(&bytes, &borrowed)
        };
        let sent = until_done(&self.end, SENDING, attempt, |error| Err(SendRefusal::Io(error))).await;
        sent.map_err(|refusal| SendError::new(message, refusal))
    }
}

/// What came of asking for room: the bell rings when there is some, not surely at once, unless it is
/// `prompt`.
enum Room {
    Found,
    Awaited { prompt: bool },
}

/// A message on its way. Taken back if it is dropped half-way.
struct Outgoing<'a> {
    end: &'a End,
    sent: Sent,
    is_under_way: bool,
}

impl Outgoing<'_> {
    /// Looks for room, and asks for the bell.
    fn prepares_wait(&self, sending: &mut Sending, need: usize) -> Result<Room, SendRefusal> {
        if self.end.finds_room(sending, need)? {
            return Ok(Room::Found);
        }
        self.end.door.look(self.end.socket()).map_err(SendRefusal::Io)?;
        sending.ring.line().falls_asleep();
        let prompt = barrier::heavy();
        if sending.ring.finds_room(need)? {
            return Ok(Room::Found);
        }
        self.end.refuses()?;
        Ok(Room::Awaited { prompt })
    }

    /// Sends what there is room for.
    fn go_on(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Attempt<Result<(), SendRefusal>> {
        let end = self.end;
        let Some(mut sending) = end.sending.enter(Deadline::PAST) else {
            let is_lost = end.sending.is_lost();
            return if is_lost { Attempt::Done(Err(SendRefusal::Corrupt)) } else { Attempt::Busy };
        };
        if sending.is_under_way && !self.is_under_way {
            return Attempt::Asleep;
        }
        let result = loop {
            if let Err(refusal) = end.may_send(&mut sending, bytes.len(), descriptors.len()) {
                break Err(refusal);
            }
            let need = end.next_part(&sending, bytes, descriptors, &self.sent);
            match self.prepares_wait(&mut sending, need) {
                Ok(Room::Found) => {}
                Ok(Room::Awaited { prompt: true }) => return Attempt::Asleep,
                Ok(Room::Awaited { prompt: false }) => return Attempt::Dozing,
                Err(refusal) => break Err(refusal),
            }
            let part = end.send_part(&mut sending, bytes, descriptors, &mut self.sent, Deadline::PAST);
            let has_room = match part {
                Ok(true) => break Ok(()),
                Ok(false) => true,
                Err(SendRefusal::Full) => false,
                Err(refusal) => break Err(refusal),
            };
            if !self.is_under_way && !self.sent.is_nothing() {
                self.is_under_way = true;
                sending.is_under_way = true;
                end.sending.disown();
            }
            if !has_room {
                return Attempt::NoRoom;
            }
        };
        if let Err(SendRefusal::Corrupt) = result {
            end.break_off(&mut sending);
        }
        if matches!(result, Err(SendRefusal::Closed | SendRefusal::Io(_))) {
            _ = end.take_back(&mut sending, &self.sent);
        }
        if core::mem::take(&mut self.is_under_way) {
            sending.is_under_way = false;
            drop(sending);
            end.door.wake_all();
        }
        Attempt::Done(result)
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        if !self.is_under_way {
            return;
        }
        if let Some(mut sending) = self.end.sending.enter(Deadline::NEVER) {
            sending.is_under_way = false;
            if self.end.take_back(&mut sending, &self.sent).is_err() {
                self.end.break_off(&mut sending);
            }
        }
        self.end.door.wake_all();
    }
}
