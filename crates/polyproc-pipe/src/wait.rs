//! [`wait`]: for whichever is ready first.

use crate::connection::Connection;
use crate::known;
use crate::simplex::Receiver;
use crate::socket;
use polyproc_sys::deadline::Deadline;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Something that [`wait`] waits for, where one list has several types: a connection, or a descriptor that becomes readable,
/// such as a process's sentinel.
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

/// Waits until at least one is ready: has a message to receive, has nobody left at the other end, or is readable. Returns
/// the numbers of all that are ready, in order; none after the timeout. Zero does not wait, `None` waits without end.
///
/// What is waited for is whatever has a descriptor: references to connections, to receivers, to processes. A list of several
/// types is one of their descriptors, `[connection.as_fd(), process.sentinel()]`, or of [`Waitable`]s.
///
/// Costs a system call, and another two a connection, whether it waits or not: for hundreds at once. A thread that
/// receives from one of the connections meanwhile may take what made it ready.
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
    let mut polled: Vec<_> = waitables
        .iter()
        .map(|one| libc::pollfd { fd: one.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    loop {
        let mut ready = vec![false; waitables.len()];
        for (is_ready, end) in ready.iter_mut().zip(&ends) {
            if let Some(end) = end {
                *is_ready = end.prepares_wait()?.unwrap_or(false);
            }
        }
        let until = if ready.contains(&true) { Deadline::PAST } else { deadline };
        // Connections that are ready need not be readable, and the bell of those that are not may have been another's.
        socket::poll_all(&mut polled, until.or_backstop())?;
        for ((is_ready, end), polled) in ready.iter_mut().zip(&ends).zip(&polled) {
            if polled.revents != 0 {
                *is_ready |= match end {
                    Some(end) => end.prepares_wait()?.unwrap_or(false),
                    None => true,
                };
            }
        }
        if ready.contains(&true) || deadline.has_passed() {
            return Ok((0..ready.len()).filter(|index| ready[*index]).collect());
        }
    }
}
