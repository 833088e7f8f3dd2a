//! A region mapped into this process: the one place that turns its bytes into headers and pointers.

use crate::error::CreateError;
use crate::layout::{Description, Geometry, LINE, ObjectHeader, RegionHeader};
use crate::memfd;
use core::ptr::NonNull;
use memmap2::{Advice, MmapOptions, MmapRaw};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::futex;
use std::fs::File;
use std::io;

/// Device, inode, and when it was made: what tells one region from another.
pub(crate) type Identity = (u64, u64, u64);

/// The beginning of a payload with a lock, as [`polyproc_sys::robust`] lays it out.
#[repr(C)]
struct Lock {
    word: AtomicU32,
    own: AtomicU32,
    holder: AtomicU32,
}

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () =
    assert!(core::mem::offset_of!(Lock, holder) == 8 && size_of::<Lock>() == 12 && align_of::<Lock>() == 4);

/// The bytes at which a lock has its links end: no payload with a lock is smaller.
pub(crate) const LOCK_SIZE: usize = 40;

/// Where an object's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) NonNull<u8>);

// SAFETY: it is an address; whoever dereferences it answers for how. An `Object` keeps what is there mapped.
unsafe impl Send for Payload {}
// SAFETY: as above.
unsafe impl Sync for Payload {}

/// A region in this process's address space. There is one for each memory file, see [`crate::registry`].
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: MmapRaw,
    file: File,
    geometry: Geometry,
    identity: Identity,
    /// How many `Region`s there are. It goes to zero, and from zero, under the registry's lock only.
    pub(crate) handles: AtomicU64,
    /// Whether this process has had objects with locks in it: 0 or 1.
    locks: AtomicU32,
}

impl Mapping {
    /// Maps a file whose size is the geometry's, and cannot change. With one handle, the caller's.
    pub(crate) fn new(file: File, identity: Identity, geometry: Geometry) -> io::Result<Mapping> {
        let too_large = || CreateError::TooLarge;
        let size = usize::try_from(geometry.size).map_err(|_| too_large())?;
        let (start, length) = geometry.reserve(memfd::page_size());
        let no_room = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                CreateError::Mapping { requested: geometry.size, has_arena: length == 0, source: error }
                    .into()
            }
            _ => error,
        };
        // Shared memory counts when it is allocated, not when it is mapped: a large reserve costs addresses
        // only.
        let memory = MmapOptions::new().len(size).map_raw(&file).map_err(no_room)?;
        if length > 0 {
            // A core dump reads all that it is to contain, and so would allocate what it reads.
            memory.advise_range(Advice::DontDump, start as usize, length as usize).map_err(no_room)?;
        }
        let (handles, locks) = (AtomicU64::new(1), AtomicU32::new(0));
        Ok(Mapping { memory, file, geometry, identity, handles, locks })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Writes the header of a region that this process has just made.
    pub(crate) fn initialise(&self) {
        self.geometry.write(self.header(), memfd::page_size());
    }

    /// Where the reserve is in this process, and how long it is.
    pub(crate) fn reserve(&self) -> (NonNull<u8>, usize) {
        let (start, length) = self.geometry.reserve(memfd::page_size());
        let address = self.memory.as_mut_ptr().wrapping_add(start as usize);
        (NonNull::new(address).expect("a mapping does not end at null"), length as usize)
    }

    fn header(&self) -> &RegionHeader {
        // SAFETY: the mapping begins on a page and has at least one; it is sealed at its size and stays
        // mapped as long as `self`; the header is all atomics, for which every bit pattern is valid and which
        // peers may write.
        unsafe { &*self.memory.as_mut_ptr().cast::<RegionHeader>() }
    }

    /// Whether an object header can lie at this offset.
    pub(crate) fn is_place(&self, offset: u64) -> bool {
        let Geometry { base, .. } = self.geometry;
        let end = self.geometry.end();
        offset.is_multiple_of(LINE) && offset >= base && offset <= end && end - offset >= LINE
    }

    /// The object header at an offset, which is a [place](Self::is_place) for one.
    pub(crate) fn object(&self, offset: u64) -> &ObjectHeader {
        assert!(self.is_place(offset), "an object at offset {offset}");
        let header = self.memory.as_mut_ptr().wrapping_add(offset as usize).cast::<ObjectHeader>();
        // SAFETY: the offset was checked: 64 bytes from there are in the mapping, and the address is a
        // multiple of 64. The header is all atomics, as in `header`.
        unsafe { &*header }
    }

    /// The payload of the object at an offset, which is a place for one.
    pub(crate) fn payload(&self, offset: u64) -> Payload {
        let address = self.memory.as_mut_ptr().wrapping_add((offset + LINE) as usize);
        Payload(NonNull::new(address).expect("a mapping is not at null"))
    }

    /// Where in the region a payload's object begins.
    pub(crate) fn offset(&self, payload: Payload) -> u64 {
        (payload.0.as_ptr().addr() - self.memory.as_mut_ptr().addr()) as u64 - LINE
    }

    /// How many bytes are taken.
    pub(crate) fn used(&self) -> u64 {
        // A peer may have written anything.
        self.header().used.load(Ordering::Relaxed).min(self.geometry.capacity)
    }

    /// Takes `extent` bytes, a multiple of 64, and returns where they begin. They are zero. `None` if that
    /// many are not left.
    pub(crate) fn allocate(&self, extent: u64) -> Option<u64> {
        let used = &self.header().used;
        // Relaxed, and below: the bytes have been zero since the region was made, so nothing rides on the
        // number.
        let mut taken = used.load(Ordering::Relaxed);
        loop {
            let end = taken.checked_add(extent)?;
            if end > self.geometry.capacity || !taken.is_multiple_of(LINE) {
                return None;
            }
            match used.compare_exchange(taken, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(self.geometry.base + taken),
                Err(other) => taken = other,
            }
        }
    }

    /// Notes that this process has an object with a lock here.
    pub(crate) fn note_lock(&self) {
        // Relaxed: read by the last handle, whose drop comes after those of all others.
        self.locks.store(1, Ordering::Relaxed);
    }

    /// Whether a thread of this process holds a lock in the region, although no handle is left: its guard was
    /// forgotten. Walks the objects. Where a creator was killed before its header was complete there are
    /// zeros, which are skipped line by line.
    pub(crate) fn holds_lock(&self) -> bool {
        if self.locks.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let end = self.geometry.base + self.used();
        let mut offset = self.geometry.base;
        while offset < end && self.is_place(offset) {
            let object = Description::read(self.object(offset));
            let Some((object, extent)) = object.and_then(|object| Some((object, object.extent()?))) else {
                offset += LINE;
                continue;
            };
            let Some(next) = offset.checked_add(extent).filter(|next| *next <= end) else {
                offset += LINE;
                continue;
            };
            if object.has_lock() && object.payload_size >= LOCK_SIZE as u64 && self.is_held(offset) {
                return true;
            }
            offset = next;
        }
        false
    }

    /// Whether this process holds the lock of the object at an offset, which has one within the mapping.
    fn is_held(&self, offset: u64) -> bool {
        let lock = self.payload(offset).0.cast::<Lock>();
        // SAFETY: the caller found an object whose payload is larger than a lock and ends within the mapping;
        // payloads are aligned to 64; all fields are atomics.
        let lock = unsafe { lock.as_ref() };
        // Relaxed: a lock that this process holds was written by this process, before the handles went.
        lock.word.load(Ordering::Relaxed) & futex::OWNER != 0
            && lock.holder.load(Ordering::Relaxed) == std::process::id()
    }
}
