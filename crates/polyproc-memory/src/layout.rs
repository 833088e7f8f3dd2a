//! The headers in shared memory, and the private copies that decisions are made on.
//!
//! ```text
//! 0         64                base                                    base + capacity     reserve   size
//! | region  | (padding)       | object  | payload …  | object | …     | (to the page's end) | …       |
//! | header  |                 | header  | to 64      | header |       |                     |         |
//! ```
//!
//! The reserve begins with the first page that has no room for objects, and is what is left of the size: most
//! regions have none. So its length stands in the header without a number of its own, and cannot contradict
//! the others.
//!
//! `base` is 64, except in a region of one object that wants more than 64 bytes of alignment: there it is 64
//! bytes before the payload's place.

use crate::error::AttachError;
use crate::shape::{Kind, Shape};
use core::alloc::Layout;
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};

/// What headers and payloads are aligned to, and how long a header is.
pub(crate) const LINE: u64 = 64;

/// The layout's version: raised whenever a header changes.
pub(crate) const VERSION: u32 = 1;

/// How a region begins, in any byte order.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"polyproc");

/// Tells a machine's byte order.
pub(crate) const BYTE_ORDER: u32 = 0x0102_0304;

/// Marks an object header that is complete.
pub(crate) const OBJECT: u64 = u64::from_ne_bytes(*b"\xffobject\xff");

/// An object header's flag: the payload begins with a lock.
const LOCK: u32 = 1;

/// How a region begins. All but `used` is written once, before anybody else can see it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RegionHeader {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) byte_order: AtomicU32,
    /// In bits.
    pub(crate) pointer_width: AtomicU32,
    pub(crate) page_size: AtomicU32,
    pub(crate) size: AtomicU64,
    pub(crate) base: AtomicU64,
    pub(crate) capacity: AtomicU64,
    /// How much of the capacity is taken: only ever grows.
    pub(crate) used: AtomicU64,
    /// When the region was made, in nanoseconds since 1970: tells apart files with the same inode number,
    /// which kernels before 5.9 give out again after four thousand million files.
    pub(crate) made: AtomicU64,
}

/// How an object begins. Written once, `mark` last.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ObjectHeader {
    mark: AtomicU64,
    kind: AtomicU64,
    code: AtomicU32,
    flags: AtomicU32,
    element_size: AtomicU64,
    element_align: AtomicU32,
    payload_align: AtomicU32,
    count: AtomicU64,
    payload_size: AtomicU64,
    reserved: AtomicU64,
}

// A model checker's atomics are larger; its programs share no memory with another process.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(size_of::<RegionHeader>() as u64 == LINE && align_of::<RegionHeader>() == 8);
    assert!(offset_of!(RegionHeader, size) == 24 && offset_of!(RegionHeader, used) == 48);
    assert!(size_of::<ObjectHeader>() as u64 == LINE && align_of::<ObjectHeader>() == 8);
    assert!(offset_of!(ObjectHeader, count) == 40 && offset_of!(ObjectHeader, payload_size) == 48);
};

/// Where what is in a region. Private to the process: what a peer writes into the header later changes
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) size: u64,
    pub(crate) base: u64,
    pub(crate) capacity: u64,
    pub(crate) made: u64,
}

impl Geometry {
    /// The room that objects may take ends here.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.capacity
    }

    /// Where the reserve begins, and how long it is: whole pages.
    pub(crate) fn reserve(&self, page_size: u32) -> (u64, u64) {
        let page = u64::from(page_size);
        // A header of somebody else's may have objects up to the end of a broken page: then there is none.
        let start = self.end().checked_next_multiple_of(page).map_or(self.size, |start| start.min(self.size));
        (start, (self.size - start) / page * page)
    }

    /// Writes the header of a region that nobody else can see yet.
    pub(crate) fn write(&self, header: &RegionHeader, page_size: u32) {
        // Relaxed: whoever reads it got the descriptor from this process, and the hand-over orders memory.
        header.version.store(VERSION, Ordering::Relaxed);
        header.byte_order.store(BYTE_ORDER, Ordering::Relaxed);
        header.pointer_width.store(usize::BITS, Ordering::Relaxed);
        header.page_size.store(page_size, Ordering::Relaxed);
        header.size.store(self.size, Ordering::Relaxed);
        header.base.store(self.base, Ordering::Relaxed);
        header.capacity.store(self.capacity, Ordering::Relaxed);
        header.made.store(self.made, Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Relaxed);
    }

    /// Judges a private copy of a header, of a file of `size` bytes.
    pub(crate) fn judge(
        header: &[u8; LINE as usize],
        size: u64,
        page_size: u32,
    ) -> Result<Geometry, AttachError> {
        let half = |at: usize| u32::from_ne_bytes(core::array::from_fn(|index| header[at + index]));
        let full = |at: usize| u64::from_ne_bytes(core::array::from_fn(|index| header[at + index]));
        if full(0) != MAGIC {
            return Err(AttachError::Foreign);
        }
        if half(12) != BYTE_ORDER {
            return Err(AttachError::ByteOrder { found: half(12) });
        }
        differ(half(8), VERSION, |found, expected| AttachError::Version { found, expected })?;
        differ(half(16), usize::BITS, |found, expected| AttachError::PointerWidth { found, expected })?;
        differ(half(20), page_size, |found, expected| AttachError::PageSize { found, expected })?;
        let expected = full(24);
        if size < expected {
            return Err(AttachError::Truncated { found: size, expected });
        }
        differ(size, expected, |found, expected| AttachError::Oversized { found, expected })?;
        let (base, capacity) = (full(32), full(40));
        let inside = base.checked_add(capacity).is_some_and(|end| end <= size);
        if base < LINE || !base.is_multiple_of(LINE) || !capacity.is_multiple_of(LINE) || !inside {
            return Err(AttachError::Geometry { base, capacity, size });
        }
        Ok(Geometry { size, base, capacity, made: full(56) })
    }
}

/// A private copy of an object's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) kind: Kind,
    pub(crate) code: u32,
    flags: u32,
    pub(crate) element_size: u64,
    pub(crate) element_align: u32,
    pub(crate) payload_align: u32,
    pub(crate) count: u64,
    pub(crate) payload_size: u64,
}

impl Description {
    /// What a header says of an object of this shape, `None` if an alignment is beyond all reason.
    pub(crate) fn of(shape: &Shape) -> Option<Description> {
        let align = |layout: Layout| u32::try_from(layout.align()).ok();
        Some(Description {
            kind: shape.kind,
            code: shape.code.into(),
            flags: if shape.lock { LOCK } else { 0 },
            element_size: shape.element.size() as u64,
            element_align: align(shape.element)?,
            payload_align: align(shape.payload)?,
            count: shape.count,
            payload_size: shape.payload.size() as u64,
        })
    }

    pub(crate) fn has_lock(&self) -> bool {
        self.flags & LOCK != 0
    }

    /// The bytes that the object takes in its region, header included. `None` if no region is that large.
    pub(crate) fn extent(&self) -> Option<u64> {
        self.payload_size.checked_next_multiple_of(LINE)?.checked_add(LINE)
    }

    /// Writes the header of an object that nobody else can see yet.
    pub(crate) fn write(&self, header: &ObjectHeader) {
        header.kind.store(self.kind.to_bits(), Ordering::Relaxed);
        header.code.store(self.code, Ordering::Relaxed);
        header.flags.store(self.flags, Ordering::Relaxed);
        header.element_size.store(self.element_size, Ordering::Relaxed);
        header.element_align.store(self.element_align, Ordering::Relaxed);
        header.payload_align.store(self.payload_align, Ordering::Relaxed);
        header.count.store(self.count, Ordering::Relaxed);
        header.payload_size.store(self.payload_size, Ordering::Relaxed);
        // Release: pairs with the Acquire in `read`, for those who find the header by walking the region.
        header.mark.store(OBJECT, Ordering::Release);
    }

    /// Copies a header out. `None` if there is none, or none yet.
    pub(crate) fn read(header: &ObjectHeader) -> Option<Description> {
        // Acquire: pairs with the Release in `write`, so that a marked header is a complete one.
        if header.mark.load(Ordering::Acquire) != OBJECT {
            return None;
        }
        Some(Description {
            kind: Kind::from_bits(header.kind.load(Ordering::Relaxed)),
            code: header.code.load(Ordering::Relaxed),
            flags: header.flags.load(Ordering::Relaxed),
            element_size: header.element_size.load(Ordering::Relaxed),
            element_align: header.element_align.load(Ordering::Relaxed),
            payload_align: header.payload_align.load(Ordering::Relaxed),
            count: header.count.load(Ordering::Relaxed),
            payload_size: header.payload_size.load(Ordering::Relaxed),
        })
    }

    /// Compares what was found (`self`) with what is expected, field by field.
    pub(crate) fn compare(&self, expected: &Description) -> Result<(), AttachError> {
        use AttachError as Differs;
        differ(self.kind, expected.kind, |found, expected| Differs::Kind { found, expected })?;
        differ(self.code, expected.code, |found, expected| Differs::TypeCode { found, expected })?;
        differ(self.element_size, expected.element_size, |found, expected| Differs::ElementSize {
            found,
            expected,
        })?;
        differ(self.element_align, expected.element_align, |found, expected| Differs::ElementAlign {
            found,
            expected,
        })?;
        differ(self.count, expected.count, |found, expected| Differs::Count { found, expected })?;
        differ(self.payload_size, expected.payload_size, |found, expected| Differs::PayloadSize {
            found,
            expected,
        })?;
        differ(self.payload_align, expected.payload_align, |found, expected| Differs::PayloadAlign {
            found,
            expected,
        })?;
        differ(self.flags, expected.flags, |found, expected| Differs::Flags { found, expected })
    }
}

fn differ<T: PartialEq>(
    found: T,
    expected: T,
    error: impl FnOnce(T, T) -> AttachError,
) -> Result<(), AttachError> {
    if found == expected { Ok(()) } else { Err(error(found, expected)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_the_whole_pages_behind_the_objects() {
        let reserve = |size, base, capacity| Geometry { size, base, capacity, made: 0 }.reserve(4096);
        assert_eq!(reserve(4096, 64, 128), (4096, 0));
        assert_eq!(reserve(4096, 64, 4032), (4096, 0));
        assert_eq!(reserve(8192, 64, 4032), (4096, 4096));
        assert_eq!(reserve(12_288, 64, 4096), (8192, 4096));
        assert_eq!(reserve(8192, 64, 0), (4096, 4096));
        // Nobody's region, but what a header may say.
        assert_eq!(reserve(8191, 64, 128), (4096, 0));
        assert_eq!(reserve(4100, 64, 4032), (4096, 0));
        assert_eq!(reserve(4200, 64, 4096), (4200, 0));
        assert_eq!(reserve(u64::MAX, 64, u64::MAX - 127), (u64::MAX, 0));
    }
}
