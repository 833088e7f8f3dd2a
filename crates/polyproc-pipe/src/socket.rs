//! The socket pair behind a connection: doorbell, end-of-file, and courier of descriptors.
//!
//! Packets are of three kinds: one byte is the bell; nine bytes are the serial number of a message whose
//! descriptors come along; before each of these is one byte more, the notice. Who has taken a notice looks at
//! the next packet before taking it: the kernel closes the descriptors for which a process has no room, and
//! from a packet that is only looked at it duplicates them. See unix(7), recvmsg(2).

use polyproc_sys::deadline::Deadline;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// The most descriptors that a packet can carry: the kernel's `SCM_MAX_FD`.
pub(crate) const PACKET_DESCRIPTORS: usize = 253;
/// How long a [`receive`] that waits does so: for a thread that closes the end meanwhile.
const PATIENCE: Duration = polyproc_sys::deadline::BACKSTOP;
const BELL: u8 = b'b';
const NOTICE: u8 = b'n';
const COURIER: u8 = b'd';
/// What the kernel adds to each packet if somebody has set `SO_PASSPIDFD`: whoever has this socket, too, or
/// had it before.
const SCM_PIDFD: libc::c_int = 4;

/// Room for the control message of one packet.
#[repr(C, align(8))]
struct Control([u8; 1_040]);

/// What a packet was.
pub(crate) enum Packet {
    /// None is there.
    Nothing,
    /// A signal handler ran: a reason to look again.
    Interrupted,
    /// The bell, or something that makes no sense and is taken for it.
    Bell,
    /// The next one but bells brings descriptors.
    Notice,
    /// Descriptors of the message with this serial number.
    Descriptors(u64, Vec<OwnedFd>),
    /// One that brings descriptors for which this process has no room. It stays where it is.
    NoRoom,
    /// The last copy of the other end is gone.
    End,
}

/// Both ends of a new pair.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: there is room for both numbers.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let first = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let second = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    for end in [&first, &second] {
        let patience = libc::timeval { tv_sec: 0, tv_usec: PATIENCE.subsec_micros().into() };
        // SAFETY: a timeval is there, as the size says.
        let result = unsafe {
            libc::setsockopt(
                end.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                size_of_val(&patience) as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok((first, second))
}

/// Whether the descriptor is a socket of the kind that [`pair`] makes.
pub(crate) fn is_ours(socket: BorrowedFd<'_>) -> bool {
    let option = |name| {
        let mut value: libc::c_int = 0;
        let mut size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: there is room for a number, as the size says.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut size,
            )
        };
        (result == 0).then_some(value)
    };
    option(libc::SO_DOMAIN) == Some(libc::AF_UNIX) && option(libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET)
}

/// Rings the bell at the other end. A full buffer has rung it already; nobody there hears nothing.
#[cold]
#[inline(never)]
pub(crate) fn ring(socket: BorrowedFd<'_>) {
    _ = send_byte(socket, BELL);
}

fn send_byte(socket: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: one byte is there to be sent.
    let sent = unsafe { libc::send(socket.as_raw_fd(), (&raw const byte).cast(), 1, flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the last copy of the other end is gone, or has been shut down, so that no bell rings any more.
#[cold]
#[inline(never)]
pub(crate) fn is_gone(socket: BorrowedFd<'_>) -> bool {
    ends(socket).unwrap_or(false)
}

/// The same, if poll(2) can be asked: not where a process may have no descriptors at all.
fn ends(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let events = poll(socket, libc::POLLRDHUP, Deadline::PAST)?;
    Ok(events & (libc::POLLHUP | libc::POLLERR | libc::POLLRDHUP) != 0)
}

/// Waits until something has come, or the other end is gone. `false` after the deadline.
pub(crate) fn wait_readable(socket: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    Ok(poll(socket, libc::POLLIN, deadline)? != 0)
}

/// poll(2) of one descriptor. A signal handler ends it with nothing.
fn poll(socket: BorrowedFd<'_>, events: libc::c_short, deadline: Deadline) -> io::Result<libc::c_short> {
    let mut polled = [libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 }];
    poll_all(&mut polled, deadline)?;
    Ok(polled[0].revents)
}

/// ppoll(2). Returns how many have events; a signal handler ends it with none.
pub(crate) fn poll_all(polled: &mut [libc::pollfd], deadline: Deadline) -> io::Result<usize> {
    let timeout = match deadline {
        Deadline::PAST => Some(Duration::ZERO),
        _ => deadline.remaining(),
    };
    let timeout = timeout.map(|left| libc::timespec {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: so many entries are there, and the timeout is null or a live timespec.
    let count =
        unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout, core::ptr::null()) };
    if count >= 0 {
        return Ok(count as usize);
    }
    let error = io::Error::last_os_error();
    polled.iter_mut().for_each(|one| one.revents = 0);
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

/// Sends some descriptors, at most [`PACKET_DESCRIPTORS`], of the message with this serial number.
///
/// # Errors
///
/// `WouldBlock`, or what sendmsg(2) says: `BrokenPipe` if nobody is there, or too many descriptors on their
/// way.
pub(crate) fn send_descriptors(
    socket: BorrowedFd<'_>,
    serial: u64,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_byte(socket, NOTICE)?;
    send_packet(socket, serial, descriptors)
}

/// Waits until there is room on the socket, or the other end is gone. Not always: who cares tries again.
pub(crate) fn wait_writable(socket: BorrowedFd<'_>, deadline: Deadline) -> io::Result<()> {
    poll(socket, libc::POLLOUT, deadline).map(drop)
}

fn send_packet(socket: BorrowedFd<'_>, serial: u64, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut bytes = [COURIER; 9];
    bytes[1..].copy_from_slice(&serial.to_ne_bytes());
    let mut control = Control([0; 1_040]);
    let numbers: Vec<libc::c_int> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let length = size_of_val(numbers.as_slice());
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(length as u32) } as usize;
    assert!(message.msg_controllen <= control.0.len());
    // SAFETY: the message has a control buffer with room for a header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: within the control buffer, which is aligned for it.
    let described = unsafe { &mut *header };
    described.cmsg_level = libc::SOL_SOCKET;
    described.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: arithmetic only.
    described.cmsg_len = unsafe { libc::CMSG_LEN(length as u32) } as usize;
    // SAFETY: arithmetic on a header within the buffer.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: `CMSG_SPACE` left room for so many bytes.
    unsafe { core::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), data, length) };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all that the message refers to is alive.
    if unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The next packet; [`Packet::Nothing`] if there is none, at once or, if it `waits`, after [`PATIENCE`].
/// Descriptors that come unexpectedly are closed, and those for which there is no room are lost.
pub(crate) fn receive(socket: BorrowedFd<'_>, waits: bool) -> io::Result<Packet> {
    Ok(receive_message(socket, if waits { 0 } else { libc::MSG_DONTWAIT })?.0)
}

/// The next packet, after a notice: [`Packet::NoRoom`] if there is no room for its descriptors, unless they
/// are of a message up to the one that is `done`, and wanted no longer. Nobody else may take packets
/// meanwhile.
pub(crate) fn receive_noticed(socket: BorrowedFd<'_>, done: u64) -> io::Result<Packet> {
    let (packet, is_cut) = receive_message(socket, libc::MSG_DONTWAIT | libc::MSG_PEEK)?;
    match packet {
        Packet::Nothing | Packet::Interrupted | Packet::End => return Ok(packet),
        Packet::Descriptors(serial, _) if is_cut && serial > done => return Ok(Packet::NoRoom),
        _ => {}
    }
    let mut byte = 0u8;
    // Those that this process has are duplicates: without room for any, the kernel closes those in the
    // packet. SAFETY: there is room for a byte; the rest of the packet is dropped.
    unsafe { libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) };
    Ok(packet)
}

/// recvmsg(2): the next packet, and whether it had more descriptors than those that are here.
fn receive_message(socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<(Packet, bool)> {
    let mut bytes = [0u8; 16];
    let mut control = Control([0; 1_040]);
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: there is room for what the message says.
    let length =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) };
    if length < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock => Ok((Packet::Nothing, false)),
            io::ErrorKind::Interrupted => Ok((Packet::Interrupted, false)),
            io::ErrorKind::ConnectionReset => Ok((Packet::End, false)),
            _ => Err(error),
        };
    }
    let descriptors = take_descriptors(&message);
    let packet = match (length, bytes[0]) {
        // An empty packet looks the same; that a peer of ours never sends.
        (0, _) if ends(socket).unwrap_or(true) => Packet::End,
        (1, NOTICE) => Packet::Notice,
        (9, COURIER) => {
            let mut serial = [0; 8];
            serial.copy_from_slice(&bytes[1..9]);
            Packet::Descriptors(u64::from_ne_bytes(serial), descriptors)
        }
        _ => Packet::Bell,
    };
    Ok((packet, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// What lies in front on the socket, as somebody sees it who must not take it.
#[derive(PartialEq)]
pub(crate) enum InFront {
    /// Nothing, or a byte.
    Byte,
    /// Descriptors.
    Courier,
    /// The other end is gone.
    End,
}

/// Looks at what is in front, and leaves it there.
pub(crate) fn in_front(socket: BorrowedFd<'_>) -> InFront {
    let mut bytes = [0u8; 2];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: there is room for two bytes.
    match unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) } {
        0 => InFront::End,
        2 => InFront::Courier,
        _ => InFront::Byte,
    }
}

/// Waits until the deadline, or until the last copy of the other end is gone. Not always: who cares looks
/// again.
pub(crate) fn wait_for_the_end(socket: BorrowedFd<'_>, deadline: Deadline) {
    _ = poll(socket, 0, deadline);
}

/// The descriptors that came with a message. What the kernel added is closed.
fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled in the control buffer, which is alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header within the buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        let is_sent = header.cmsg_type == libc::SCM_RIGHTS;
        if header.cmsg_level == libc::SOL_SOCKET && (is_sent || header.cmsg_type == SCM_PIDFD) {
            // SAFETY: arithmetic only.
            let length = header.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: arithmetic on a header within the buffer.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<libc::c_int>();
            for index in 0..length / size_of::<libc::c_int>() {
                // SAFETY: so many numbers are there.
                let place = unsafe { data.add(index) };
                // SAFETY: as above; the place may be unaligned.
                let number = unsafe { place.read_unaligned() };
                if number < 0 {
                    continue; // An error, instead of one that was added.
                }
                // SAFETY: the kernel made it for this process just now.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                if is_sent {
                    descriptors.push(descriptor);
                }
            }
        }
        // SAFETY: the header is one of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}

/// Lets go of the socket, but not of its number: others may be about to use it. They find a socket whose
/// other end is gone.
pub(crate) fn let_go(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (dead, other) = pair()?;
    drop(other);
    // SAFETY: takes numbers only; what the number stood for is closed, and its owner owns what it stands for
    // now.
    let result = unsafe { libc::dup3(dead.as_raw_fd(), socket.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
