//! [`wait`]: for whichever is ready first.
//!
//! Others of this process may use the same ends. So who waits here is enlisted at their [doors](crate::door),
//! as a task is, asks for the bell, and sleeps in poll(2), for the sockets and for an alarm of its own.
//!
//! | at an end | who rings the bell or the alarm |
//! |---|---|
//! | nobody | the peer, that was asked to; then whoever takes the bell from the socket |
//! | one waits at the socket, for messages or for room | the same, and only the alarm: the bell is that one's to take |
//! | one is in the gate and has said that it waits | that one, when it has taken anything from the socket, and when it leaves |
//! | one is in the gate and has not | nobody: it leaves soon, or says that it waits |
//!
//! Whoever leaves a gate in which it has waited has taken back that the bell is asked for, and so tells all
//! to ask again.

use crate::alarm::Alarm;
use crate::connection::Connection;
use crate::door::RECEIVING;
use crate::end::{End, SLICE};
use crate::known;
use crate::receiving::Asked;
use crate::simplex::Receiver;
use crate::socket;
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Something that [`wait`] waits for, where one list has several types: a connection, or a descriptor that
/// becomes readable, such as a process's sentinel.
///
/// # Example
///
/// ```
/// use polyproc_pipe::{Waitable, pipe, simplex, wait};
///
/// let (numbers, _at_numbers) = pipe::<u32, u32>()?;
/// let (sender, words) = simplex::<String>()?;
/// sender.send("ready".to_owned())?;
/// assert_eq!(wait(&[Waitable::from(&numbers), Waitable::from(&words)], None)?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Waitable<'a>(BorrowedFd<'a>);

impl fmt::Debug for Waitable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waitable").field(&self.0).finish()
    }
}

impl<'a, S, R, C> From<&'a Connection<S, R, C>> for Waitable<'a> {
    fn from(connection: &'a Connection<S, R, C>) -> Waitable<'a> {
        Waitable(connection.as_fd())
    }
}

impl<'a, T, C> From<&'a Receiver<T, C>> for Waitable<'a> {
    fn from(receiver: &'a Receiver<T, C>) -> Waitable<'a> {
        Waitable(receiver.as_fd())
    }
}

impl<'a> From<BorrowedFd<'a>> for Waitable<'a> {
    fn from(descriptor: BorrowedFd<'a>) -> Waitable<'a> {
        Waitable(descriptor)
    }
}

impl AsFd for Waitable<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

/// Waits until at least one is ready: has a message to receive, has nobody left at the other end, or is
/// readable. Returns the numbers of all that are ready, in order; none after the timeout. Zero does not wait,
/// `None` waits without end.
///
/// What is waited for is whatever has a descriptor: references to connections, to receivers, to processes. A
/// list of several types is one of their descriptors, `[connection.as_fd(), process.sentinel()]`, or of
/// [`Waitable`]s.
///
/// Costs a system call, and another two a connection, whether it waits or not: for hundreds at once; and a
/// descriptor while it sleeps. Other threads may wait for the same connections meanwhile, in any way; one
/// that receives may take what made its connection ready.
///
/// # Errors
///
/// What poll(2) says: more descriptors than the process may have, for instance.
///
/// # Example
///
/// ```
/// use polyproc_pipe::{pipe, wait};
/// use std::time::Duration;
///
/// let (a, at_a) = pipe::<u8, u8>()?;
/// let (b, at_b) = pipe::<u8, u8>()?;
/// assert!(wait(&[&at_a, &at_b], Duration::ZERO)?.is_empty());
/// b.send(1)?;
/// assert_eq!(wait(&[&at_a, &at_b], None)?, [1]);
/// drop(a); // The end counts.
/// assert_eq!(wait(&[&at_a, &at_b], None)?, [0, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait<W: AsFd>(waitables: &[W], timeout: impl Into<Option<Duration>>) -> io::Result<Vec<usize>> {
    let deadline = timeout.into().map_or(Deadline::NEVER, Deadline::after);
    let ends: Vec<_> = waitables.iter().map(|one| known::end_of(one.as_fd())).collect();
    let listener = Listener::new(&ends);
    let mut is_forgotten = false;
    loop {
        let is_last = deadline.has_passed();
        let backstop = deadline.or_backstop();
        let mut until = if is_last { Deadline::PAST } else { backstop };
        let mut polled: Vec<_> = waitables.iter().map(|one| look_for(one.as_fd().as_raw_fd())).collect();
        let mut ready = vec![false; ends.len()];
        for (index, end) in listener.ends() {
            let watch = listener.watch(end, deadline)?;
            ready[index] = watch.is_ready;
            if !watch.polls {
                polled[index].fd = NONE;
            }
            if watch.is_ready {
                until = Deadline::PAST;
            } else if watch.looks_again {
                until = until.min(Deadline::after(SLICE));
            }
        }
        if is_forgotten && ready.contains(&true) {
            futex::count_backstop_rescue();
        }
        polled.push(look_for(NONE));
        if until != Deadline::PAST && listener.ends().next().is_some() {
            let is_rung = listener.alarm.make();
            polled[ready.len()].fd = listener.alarm.descriptor().unwrap_or(NONE);
            if is_rung {
                until = Deadline::PAST;
            } else if listener.alarm.descriptor().is_none() {
                // There is no room for it.
                until = until.min(Deadline::after(SLICE));
            }
        }
        let count = socket::poll_all(&mut polled, until)?;
        is_forgotten = count == 0 && until == backstop && until != deadline && until.has_passed();
        listener.strike();
        for index in (0..ready.len()).filter(|index| polled[*index].revents != 0) {
            // Connections that are ready need not be readable, and the bell of those that are not may have
            // been another's.
            ready[index] |= match &ends[index] {
                Some(end) => matches!(end.prepares_wait(Deadline::PAST)?, Asked::Ready),
                None => true,
            };
        }
        if is_last || ready.contains(&true) {
            return Ok((0..ready.len()).filter(|index| ready[*index]).collect());
        }
        if polled[ready.len()].revents != 0 {
            listener.alarm.silence();
        }
    }
}

fn look_for(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Not polled.
const NONE: RawFd = -1;

/// How one learns of an end's news.
struct Watch {
    is_ready: bool,
    /// By its descriptor. Else somebody else takes what comes there, or has to leave first, and then rings
    /// the alarm.
    polls: bool,
    /// Perhaps by nobody.
    looks_again: bool,
}

/// What a thread has that waits here: others of its process take what it polls for.
struct Listener<'a> {
    ends: &'a [Option<Arc<End>>],
    alarm: Arc<Alarm>,
    waker: Waker,
}

impl<'a> Listener<'a> {
    fn new(ends: &'a [Option<Arc<End>>]) -> Listener<'a> {
        let alarm = Arc::new(Alarm::default());
        let waker = Arc::clone(&alarm).into();
        Listener { ends, alarm, waker }
    }

    /// Nobody else's of this process as long as this is there: an address is no descriptor's number.
    fn number(&self) -> usize {
        Arc::as_ptr(&self.alarm).addr()
    }

    fn ends(&self) -> impl Iterator<Item = (usize, &Arc<End>)> {
        self.ends.iter().enumerate().filter_map(|(index, end)| Some((index, end.as_ref()?)))
    }

    /// Asks for the bell. Enlisted before: nothing is missed from there on.
    fn watch(&self, end: &End, deadline: Deadline) -> io::Result<Watch> {
        let is_attended = end.door.enlist(self.number(), &self.waker);
        let mut asked = end.prepares_wait(Deadline::PAST)?;
        if matches!(asked, Asked::Busy) && !end.door.is_parked(RECEIVING) {
            // It leaves soon, and tells only who waits for that.
            asked = end.prepares_wait(deadline.min(Deadline::after(SLICE)))?;
        }
        Ok(match asked {
            Asked::Ready => Watch { is_ready: true, polls: true, looks_again: false },
            Asked::Waits { prompt } => Watch { is_ready: false, polls: !is_attended, looks_again: !prompt },
            Asked::Busy => {
                Watch { is_ready: false, polls: false, looks_again: !end.door.is_parked(RECEIVING) }
            }
        })
    }

    fn strike(&self) {
        self.ends().for_each(|(_, end)| end.door.strike(self.number()));
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.strike();
    }
}
