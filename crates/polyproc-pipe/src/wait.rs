//! [`wait`]: for whichever is ready first.

use crate::connection::Connection;
use crate::end::End;
use crate::simplex::Receiver;
use crate::socket;
use polyproc_sys::deadline::Deadline;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Something that [`wait`] waits for: a connection, or a descriptor that becomes readable, such as a process's sentinel.
#[derive(Clone, Copy)]
pub struct Waitable<'a>(What<'a>);

#[derive(Clone, Copy)]
enum What<'a> {
    End(&'a End),
    Descriptor(BorrowedFd<'a>),
}

impl fmt::Debug for Waitable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waitable").field(&self.descriptor()).finish()
    }
}

impl<'a, S, R, C> From<&'a Connection<S, R, C>> for Waitable<'a> {
    fn from(connection: &'a Connection<S, R, C>) -> Waitable<'a> {
        Waitable(What::End(&connection.end))
    }
}

impl<'a, T, C> From<&'a Receiver<T, C>> for Waitable<'a> {
    fn from(receiver: &'a Receiver<T, C>) -> Waitable<'a> {
        Waitable::from(&receiver.0)
    }
}

impl<'a> From<BorrowedFd<'a>> for Waitable<'a> {
    fn from(descriptor: BorrowedFd<'a>) -> Waitable<'a> {
        Waitable(What::Descriptor(descriptor))
    }
}

impl<'a> Waitable<'a> {
    fn descriptor(&self) -> BorrowedFd<'a> {
        match self.0 {
            What::End(end) => end.socket(),
            What::Descriptor(descriptor) => descriptor,
        }
    }
}

/// Waits until at least one is ready: has a message to receive, has nobody left at the other end, or is readable. Returns
/// the numbers of all that are ready, in order; none after the timeout. Zero does not wait, `None` waits without end.
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
/// assert!(wait(&[(&at_a).into(), (&at_b).into()], Some(Duration::ZERO))?.is_empty());
/// b.send(1)?;
/// assert_eq!(wait(&[(&at_a).into(), (&at_b).into()], None)?, [1]);
/// drop(a); // The end counts.
/// assert_eq!(wait(&[(&at_a).into(), (&at_b).into()], None)?, [0, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait(waitables: &[Waitable<'_>], timeout: Option<Duration>) -> io::Result<Vec<usize>> {
    let deadline = timeout.map_or(Deadline::NEVER, Deadline::after);
    let mut polled: Vec<_> = waitables
        .iter()
        .map(|one| libc::pollfd { fd: one.descriptor().as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    loop {
        let mut ready = vec![false; waitables.len()];
        for (is_ready, waitable) in ready.iter_mut().zip(waitables) {
            if let What::End(end) = waitable.0 {
                *is_ready = end.prepares_wait()?.unwrap_or(false);
            }
        }
        let until = if ready.contains(&true) { Deadline::PAST } else { deadline };
        // Connections that are ready need not be readable, and the bell of those that are not may have been another's.
        socket::poll_all(&mut polled, until.or_backstop())?;
        for ((is_ready, waitable), polled) in ready.iter_mut().zip(waitables).zip(&polled) {
            if polled.revents != 0 {
                *is_ready |= match waitable.0 {
                    What::End(end) => end.prepares_wait()?.unwrap_or(false),
                    What::Descriptor(_) => true,
                };
            }
        }
        if ready.contains(&true) || deadline.has_passed() {
            return Ok((0..ready.len()).filter(|index| ready[*index]).collect());
        }
    }
}
