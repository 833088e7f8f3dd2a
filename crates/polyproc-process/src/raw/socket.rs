//! The control socket: packets with descriptors off it, and how a child knows it. See unix(7), recvmsg(2),
//! fstat(2).

use super::{checked, retry};
use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors that one message can carry: the kernel's `SCM_MAX_FD`.
pub(crate) const DESCRIPTORS_MAX: usize = 253;

/// One packet off a socket, with the descriptors that came with it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The bytes that control messages with the most descriptors there can be take.
const ANCILLARY: usize = 1056;

/// The control messages of one packet, aligned.
#[repr(C, align(8))]
struct Ancillary([u8; ANCILLARY]);

// SAFETY: computes a size from a size.
const _: () =
    assert!(unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) } as usize <= ANCILLARY);

/// The next packet of a `SOCK_SEQPACKET` socket, of any length; `None` at the end. With `MSG_DONTWAIT` in
/// `flags`, `WouldBlock` if none is there. Its descriptors are closed on exec. `EMFILE` if there was no room
/// for all of them.
pub(crate) fn receive(socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Option<Packet>> {
    let peek = libc::MSG_PEEK | libc::MSG_TRUNC;
    let length = retry(|| {
        // SAFETY: a buffer of no length is not written; MSG_TRUNC makes the result the packet's length.
        checked(unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), 0, flags | peek) } as libc::c_long)
    })? as usize;
    if length == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let mut ancillary = Ancillary([0; ANCILLARY]);
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = ancillary.0.as_mut_ptr().cast();
    header.msg_controllen = ancillary.0.len();
    let received = retry(|| {
        // SAFETY: the header points to a buffer and to room for control messages, both of the lengths that it
        // gives.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags | libc::MSG_CMSG_CLOEXEC) };
        checked(count as libc::c_long)
    })? as usize;
    let descriptors = take_descriptors(&header);
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if received != length || header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(Packet { bytes, descriptors }))
}

/// The descriptors that the kernel has just put into this header's control messages.
fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the header was filled in by recvmsg, and its control messages are alive.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so the macros have found a whole header within the control messages, which are
        // aligned.
        let this = unsafe { ptr::read(message) };
        if (this.cmsg_level, this.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above.
            let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
            // SAFETY: computes a size from a size.
            let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (this.cmsg_len - overhead) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the message's length says that so many numbers follow.
                let slot = unsafe { data.add(index) };
                // SAFETY: as above; the kernel writes all of them.
                let number = unsafe { ptr::read_unaligned(slot) };
                // SAFETY: the kernel has just made this descriptor for us, and nobody else has seen it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: the header is the one that the message is from.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    descriptors
}

/// What makes a socket this one and no other: the device and inode numbers of fstat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The identity of the socket with this number; `None` if it is no socket, or not open.
pub(crate) fn identify(number: RawFd) -> Option<Identity> {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the struct is valid to be written; the number need not even be open.
    let result = unsafe { libc::fstat(number, &mut stat) };
    (result == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
        .then_some(Identity { device: stat.st_dev, inode: stat.st_ino })
}

/// Takes charge of the socket that the start of this process left open for it, if it is this one, and lets no
/// other program inherit it. To be called once.
pub(crate) fn adopt(number: RawFd, identity: Identity) -> Option<OwnedFd> {
    if identify(number) != Some(identity) {
        return None;
    }
    // SAFETY: sets the flags of a number that is open.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: the descriptor is open. It was opened by the parent for this purpose alone, and nobody who did
    // not look for it as the caller does, once, knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
