//! The messages between a process and its parent: what to run, and what became of it.
//!
//! They pass through a `SOCK_SEQPACKET` socket pair. A message is one packet, which begins with a [`Prefix`],
//! and further packets of one byte each if there are more descriptors than a packet carries. A body that is
//! too long for a packet is in a memfd, whose descriptor comes first: so neither side ever waits for the
//! other to read.
//!
//! A message counts when all of its packets are there. A sender killed before that has sent nothing.

use crate::image::Place;
use crate::raw::{self, DESCRIPTORS_MAX};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use polyproc_memory::handover::Descriptor;
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;

/// The longest body that travels in the packet itself.
const INLINE_MAX: usize = 64 << 10;

/// What a message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    /// The body's length in bytes.
    length: u64,
    /// How many descriptors there are, the body's own included.
    descriptors: u32,
    /// Whether the first descriptor is the body.
    in_file: bool,
}

impl Prefix {
    const SIZE: usize = 16;

    fn to_bytes(self) -> [u8; Prefix::SIZE] {
        let mut bytes = [0; Prefix::SIZE];
        bytes[..8].copy_from_slice(&self.length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.descriptors.to_ne_bytes());
        bytes[12..].copy_from_slice(&u32::from(self.in_file).to_ne_bytes());
        bytes
    }

    fn split(packet: &[u8]) -> Option<(Prefix, &[u8])> {
        let (length, rest) = packet.split_first_chunk::<8>()?;
        let (descriptors, rest) = rest.split_first_chunk::<4>()?;
        let (in_file, rest) = rest.split_first_chunk::<4>()?;
        let prefix = Prefix {
            length: u64::from_ne_bytes(*length),
            descriptors: u32::from_ne_bytes(*descriptors),
            in_file: u32::from_ne_bytes(*in_file) != 0,
        };
        Some((prefix, rest))
    }
}

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What to run, and as whom. The arguments follow.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) path: Vec<u32>,
    pub(crate) daemon: bool,
    pub(crate) parent_pid: u32,
    pub(crate) parent_name: String,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The function returned. Its value follows.
    Returned,
    /// It panicked.
    Panicked { message: String, location: String },
    /// It was not called: what it should have been called with did not arrive.
    Arguments(String),
    /// It returned a value that cannot be sent.
    Value(String),
}

/// A verdict, and the value that follows it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) value: Vec<u8>,
    pub(crate) descriptors: Vec<Descriptor>,
}

impl Outcome {
    pub(crate) fn of(verdict: Verdict) -> Outcome {
        Outcome { verdict, value: Vec::new(), descriptors: Vec::new() }
    }

    pub(crate) fn arguments(what: impl ToString) -> Outcome {
        Outcome::of(Verdict::Arguments(what.to_string()))
    }

    /// The exit code of the process that ends with this.
    pub(crate) fn exit_code(&self) -> i32 {
        match self.verdict {
            Verdict::Returned => 0,
            // What a panic in `main` ends with, too.
            Verdict::Panicked { .. } => 101,
            Verdict::Arguments(_) | Verdict::Value(_) => 1,
        }
    }

    /// Sends this to the parent. If it cannot be sent, says so to the parent, and in the exit code.
    pub(crate) fn send(self, socket: BorrowedFd<'_>) -> i32 {
        let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let sent = postcard::to_stdvec(&self.verdict)
            .map_err(io::Error::other)
            .and_then(|verdict| send(socket, &[&verdict, &self.value], &descriptors));
        match sent {
            Ok(()) => self.exit_code(),
            Err(error) if is_gone(&error) => self.exit_code(),
            Err(error) => {
                let excuse = Outcome::of(Verdict::Value(error.to_string()));
                if let Ok(verdict) = postcard::to_stdvec(&excuse.verdict) {
                    // If this does not get through either, the exit code is all there is.
                    let _ = send(socket, &[&verdict], &[]);
                }
                excuse.exit_code()
            }
        }
    }
}

/// A new channel: one end for the parent and one for the child, both closed on exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Whether sending failed because nobody is left to receive.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Sends one message, whose body is these parts. Waits only if hundreds of packets lie unread.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[&[u8]],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let numbers: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    if length <= INLINE_MAX {
        let prefix = Prefix { length: length as u64, descriptors: count(&numbers)?, in_file: false };
        let prefix = prefix.to_bytes();
        let packet: Vec<_> = [&prefix[..]].iter().chain(parts).map(|part| IoSlice::new(part)).collect();
        match send_packets(socket, &packet, &numbers) {
            // The system is set to smaller socket buffers than it comes with.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
            result => return result,
        }
    }
    let file = to_file(parts)?;
    let numbers = [&[file.as_raw_fd()], &numbers[..]].concat();
    let prefix = Prefix { length: length as u64, descriptors: count(&numbers)?, in_file: true };
    send_packets(socket, &[IoSlice::new(&prefix.to_bytes())], &numbers)
}

fn count(numbers: &[RawFd]) -> io::Result<u32> {
    u32::try_from(numbers.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn send_packets(socket: BorrowedFd<'_>, first: &[IoSlice<'_>], numbers: &[RawFd]) -> io::Result<()> {
    let mut batches = numbers.chunks(DESCRIPTORS_MAX);
    send_packet(socket, first, batches.next().unwrap_or_default())?;
    for batch in batches {
        send_packet(socket, &[IoSlice::new(&[0])], batch)?;
    }
    Ok(())
}

fn send_packet(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], numbers: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(numbers)];
    let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    raw::retry(|| Ok(sendmsg::<()>(socket.as_raw_fd(), parts, rights, MsgFlags::MSG_NOSIGNAL, None)?))?;
    Ok(())
}

/// The parts in a file of memory that nobody can change any more.
///
/// `EFBIG` if the process may not make files as large: the write would answer with a signal that kills.
fn to_file(parts: &[&[u8]]) -> io::Result<OwnedFd> {
    /// `MFD_NOEXEC_SEAL`, of Linux 6.3 and later.
    const NOEXEC: MFdFlags = MFdFlags::from_bits_retain(0x8);
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length as u64 > raw::file_size_limit() {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = match memfd_create(c"polyproc:message", flags | NOEXEC) {
        Err(nix::Error::EINVAL) => memfd_create(c"polyproc:message", flags)?,
        result => result?,
    };
    let mut file = File::from(file);
    // Born with mode 0777, and open(2) of /proc/PID/fd/N goes by the mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    for part in parts {
        file.write_all(part)?;
    }
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file.into())
}

/// Receives one message. `None` if the sender is gone without having sent all of one; with `MSG_DONTWAIT` in
/// `flags`, also if it has not sent all of one yet.
pub(crate) fn receive(socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Option<Message>> {
    let Some(packet) = receive_packet(socket, flags)? else { return Ok(None) };
    let (prefix, inline) = Prefix::split(&packet.bytes).ok_or_else(malformed)?;
    let expected = prefix.descriptors as usize;
    let mut descriptors = packet.descriptors;
    while descriptors.len() < expected {
        let Some(more) = receive_packet(socket, flags)? else { return Ok(None) };
        if more.descriptors.is_empty() {
            return Err(malformed());
        }
        descriptors.extend(more.descriptors);
    }
    if descriptors.len() != expected || (prefix.in_file && descriptors.is_empty()) {
        return Err(malformed());
    }
    let body = if prefix.in_file {
        from_file(descriptors.remove(0), prefix.length)?
    } else if inline.len() as u64 == prefix.length {
        let mut body = packet.bytes;
        body.drain(..Prefix::SIZE);
        body
    } else {
        return Err(malformed());
    };
    Ok(Some(Message { body, descriptors }))
}

fn receive_packet(socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<Option<raw::Packet>> {
    loop {
        match raw::receive(socket, flags) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The peer closed its end before it had read everything. Reported once; what it sent is still
            // there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            result => return result,
        }
    }
}

fn from_file(file: OwnedFd, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    if file.metadata()?.len() != length {
        return Err(malformed());
    }
    let length = usize::try_from(length).map_err(|_| malformed())?;
    let mut body = Vec::new();
    // A file may be said to be of any length, and take no memory.
    body.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // The offset is where the sender stopped writing. Nobody else uses it.
    file.rewind()?;
    file.read_to_end(&mut body)?;
    if body.len() == length { Ok(body) } else { Err(malformed()) }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message between a process and its parent")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends and receives, and returns the body and the number of descriptors.
    fn round_trip(parts: &[&[u8]], descriptors: usize) -> (Vec<u8>, usize) {
        let (ours, theirs) = pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); descriptors];
        send(ours.as_fd(), parts, &many).unwrap();
        drop(many);
        drop(ours);
        let message = receive(theirs.as_fd(), 0).unwrap().unwrap();
        assert!(receive(theirs.as_fd(), libc::MSG_DONTWAIT).unwrap().is_none());
        (message.body, message.descriptors.len())
    }

    #[test]
    fn bodies_of_all_sizes_arrive() {
        for length in [0, 1, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 3 << 20] {
            let body: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let (front, back) = body.split_at(length / 3);
            assert_eq!(round_trip(&[front, back], 0), (body.clone(), 0), "{length} bytes");
            assert_eq!(round_trip(&[front, back], 2), (body.clone(), 2), "{length} bytes");
        }
    }

    #[test]
    fn any_number_of_descriptors_arrives() {
        for number in [0, 1, 252, 253, 254, 505, 506, 507] {
            assert_eq!(round_trip(&[b"body"], number), (b"body".to_vec(), number));
        }
    }

    #[test]
    fn a_small_socket_buffer_is_no_limit() {
        let (ours, theirs) = pair().unwrap();
        nix::sys::socket::setsockopt(&ours, nix::sys::socket::sockopt::SndBuf, &1).unwrap();
        let body = vec![7; INLINE_MAX];
        send(ours.as_fd(), &[&body], &[]).unwrap();
        assert_eq!(receive(theirs.as_fd(), 0).unwrap().unwrap().body, body);
    }

    #[test]
    fn half_a_message_is_none() {
        let (ours, theirs) = pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let prefix = Prefix { length: 0, descriptors: 2, in_file: false }.to_bytes();
        send_packet(ours.as_fd(), &[IoSlice::new(&prefix)], &[null.as_raw_fd()]).unwrap();
        assert!(receive(theirs.as_fd(), libc::MSG_DONTWAIT).unwrap().is_none());
        send_packet(ours.as_fd(), &[IoSlice::new(&prefix)], &[null.as_raw_fd()]).unwrap();
        drop(ours);
        assert!(receive(theirs.as_fd(), 0).unwrap().is_none());
    }

    #[test]
    fn malformed_messages_are_errors() {
        let prefix = |length, descriptors, in_file| Prefix { length, descriptors, in_file }.to_bytes();
        let cases: [(&str, Vec<u8>, usize); 6] = [
            ("no room for a prefix", vec![1; 15], 0),
            ("shorter than it says", prefix(1, 0, false).to_vec(), 0),
            ("a body of absurd length", prefix(u64::MAX, 0, false).to_vec(), 0),
            ("a file that is no descriptor", prefix(0, 0, true).to_vec(), 0),
            ("a file of another length", prefix(u64::MAX, 1, true).to_vec(), 1),
            ("more descriptors than it says", prefix(0, 1, false).to_vec(), 2),
        ];
        for (what, packet, descriptors) in cases {
            let (ours, theirs) = pair().unwrap();
            let null = File::open("/dev/null").unwrap();
            let numbers = vec![null.as_raw_fd(); descriptors];
            send_packet(ours.as_fd(), &[IoSlice::new(&packet)], &numbers).unwrap();
            let error = receive(theirs.as_fd(), 0).expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
        }
        // Packets that should bring the missing descriptors, and bring none.
        let (ours, theirs) = pair().unwrap();
        send_packet(ours.as_fd(), &[IoSlice::new(&prefix(0, 1, false))], &[]).unwrap();
        send_packet(ours.as_fd(), &[IoSlice::new(&[0])], &[]).unwrap();
        assert_eq!(receive(theirs.as_fd(), 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_long_body_is_for_its_owner_and_cannot_be_changed() {
        let file = File::from(to_file(&[b"part", b"part"]).unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(file.set_len(4).is_err() && file.set_len(9).is_err());
        assert!((&file).write_all(b"other").is_err());
        assert_eq!(from_file(file.into(), 8).unwrap(), b"partpart");
    }

    /// Its length is whatever somebody has said, and nothing is behind it.
    #[test]
    fn a_body_larger_than_memory_is_an_error() {
        let file = File::from(memfd_create(c"large", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(1 << 60).unwrap();
        let (ours, theirs) = pair().unwrap();
        let prefix = Prefix { length: 1 << 60, descriptors: 1, in_file: true }.to_bytes();
        send_packet(ours.as_fd(), &[IoSlice::new(&prefix)], &[file.as_raw_fd()]).unwrap();
        assert_eq!(receive(theirs.as_fd(), 0).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }

    #[test]
    fn nobody_there_is_not_a_signal() {
        let (ours, theirs) = pair().unwrap();
        drop(theirs);
        assert!(is_gone(&send(ours.as_fd(), &[b"body"], &[]).unwrap_err()));
        assert!(receive(ours.as_fd(), 0).unwrap().is_none());
    }
}
