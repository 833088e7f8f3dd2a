//! `Object`: one thing in a region, with a header that says what it is.

use crate::arena::Arena;
use crate::error::{AttachError, CreateError};
use crate::handover::{self, ReceiveError};
use crate::layout::{Description, LINE};
use crate::mapping::{LOCK_SIZE, Payload};
use crate::memfd;
use crate::region::Region;
use crate::shape::Shape;
use core::fmt;
use core::ptr::NonNull;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;

/// One thing in shared memory: a primitive's state, behind a header that says what it is.
///
/// The primitives are built on it. It is a handle: `Clone`, `Send`, `Sync`, three words wide; it keeps the
/// region mapped. Making one costs a region (seven system calls, one descriptor, at least one page), or in an
/// [`Arena`] its payload rounded up to 64 bytes, and 64. Nothing in here blocks.
///
/// An object that grows has a reserve behind it, [`with_reserve`](Object::with_reserve): addresses that
/// become memory when it wants them.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use core::sync::atomic::{AtomicU64, Ordering};
/// use polyproc_memory::{Kind, Object, Shape};
///
/// let layout = Layout::new::<u64>();
/// let kind = Kind::new("counter");
/// let shape = Shape { kind, code: 0, element: layout, count: 1, payload: layout, lock: false };
/// let object = Object::create(None, &shape)?;
/// // SAFETY: the payload has room for a u64, is aligned to 64 and zero, and `object` keeps it mapped.
/// let counter = unsafe { AtomicU64::from_ptr(object.payload().cast().as_ptr()) };
/// assert_eq!(counter.fetch_add(1, Ordering::Relaxed), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Object {
    region: Region,
    payload: Payload,
    count: u64,
}

impl Object {
    /// Makes an object in the arena, or in a region of its own. Its payload is zero.
    ///
    /// The place of an object in an arena is taken in one step and filled in the next: if a process is killed
    /// between the two, the arena loses these bytes, and nothing else.
    ///
    /// # Errors
    ///
    /// [`CreateError`] in an [`io::Error`]: out of memory, out of descriptors, the arena is full, the layout
    /// is larger than memory, or aligned to more than 64 bytes in an arena, or to more than a page.
    pub fn create(arena: Option<&Arena>, shape: &Shape) -> io::Result<Object> {
        Object::make(arena, shape, 0)
    }

    /// As [`create`](Object::create); the region of its own has a reserve of this many bytes.
    pub(crate) fn make(arena: Option<&Arena>, shape: &Shape, reserve: u64) -> io::Result<Object> {
        let page = memfd::page_size() as usize;
        let (requested, most) = (shape.payload.align(), if arena.is_some() { LINE as usize } else { page });
        if requested > most {
            return Err(CreateError::Align { requested, most }.into());
        }
        if shape.lock && shape.payload.size() < LOCK_SIZE {
            return Err(CreateError::Lock { size: shape.payload.size() }.into());
        }
        let description = Description::of(shape).ok_or(CreateError::TooLarge)?;
        let extent = description.extent().ok_or(CreateError::TooLarge)?;
        let region = match arena {
            Some(arena) => arena.region().clone(),
            // The header ends where the payload begins, which is at its alignment.
            None => Region::create(&label(shape), (requested as u64).max(2 * LINE) - LINE, extent, reserve)?,
        };
        let mapping = region.mapping();
        let Some(offset) = mapping.allocate(extent) else {
            let capacity = mapping.geometry().capacity;
            let remaining = capacity - mapping.used();
            return Err(CreateError::ArenaFull { requested: extent, remaining, capacity }.into());
        };
        if shape.lock {
            mapping.note_lock();
        }
        description.write(mapping.object(offset));
        let payload = mapping.payload(offset);
        Ok(Object { payload, count: shape.count, region })
    }

    /// The object at `offset` in the region, if it is what is expected there.
    ///
    /// `shape` is called with the number of elements in the header, and says what an object with that many
    /// looks like; `None` if there is none. Everything else in the header is compared with the answer.
    ///
    /// # Errors
    ///
    /// [`AttachError`], which says exactly what differs.
    pub fn attach(
        region: &Region,
        offset: u64,
        shape: impl FnOnce(u64) -> Option<Shape>,
    ) -> Result<Object, AttachError> {
        let mapping = region.mapping();
        let geometry = mapping.geometry();
        let outside = || AttachError::Offset { offset, from: geometry.base, to: geometry.end() };
        if !mapping.is_place(offset) {
            return Err(outside());
        }
        let found = Description::read(mapping.object(offset)).ok_or(AttachError::NoObject { offset })?;
        let impossible = AttachError::ImpossibleCount { found: found.count };
        let Some(expected) = shape(found.count).as_ref().and_then(Description::of) else {
            return Err(impossible);
        };
        found.compare(&expected)?;
        let extent = expected.extent().ok_or(impossible)?;
        if extent > geometry.end() - offset {
            return Err(outside());
        }
        // The mapping begins on a page, so no place in it is known to be aligned to more.
        let align = u64::from(expected.payload_align);
        if align > memfd::page_size().into() || !(offset + LINE).is_multiple_of(align) {
            return Err(AttachError::Misaligned { offset, align: expected.payload_align });
        }
        if expected.has_lock() {
            mapping.note_lock();
        }
        Ok(Object { region: region.clone(), payload: mapping.payload(offset), count: expected.count })
    }

    /// Where its payload is: aligned as the shape says, and to 64 at least, mapped as long as a handle to the
    /// object or its region is there.
    ///
    /// Peers write there too. What may be done with it is the primitive's to know.
    #[inline(always)]
    pub fn payload(&self) -> NonNull<u8> {
        self.payload.0
    }

    /// How many elements it has. This handle's own copy: nobody can change it.
    #[inline(always)]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The region that it is in.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Where in the region it is.
    pub fn offset(&self) -> u64 {
        self.region.mapping().offset(self.payload)
    }

    /// Whether both are handles to the same object.
    pub fn same_object(&self, other: &Object) -> bool {
        self.payload == other.payload
    }

    /// Serialises the handle, inside [`handover::send`]: the number of its region's descriptor, and its
    /// offset.
    ///
    /// # Errors
    ///
    /// [`handover::NOT_IN_HANDOVER`] outside, and the serialiser's own.
    pub fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = handover::attach(self.region.clone().into());
        let index = index.ok_or_else(|| serde::ser::Error::custom(handover::NOT_IN_HANDOVER))?;
        (index, self.offset()).serialize(serializer)
    }

    /// What [`serialize`](Object::serialize) wrote, inside [`handover::receive`]. For `shape` see
    /// [`attach`](Object::attach).
    ///
    /// # Errors
    ///
    /// The message of a [`ReceiveError`], and the deserialiser's own. If the format drops messages,
    /// [`handover::take_failure`] has it.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
        shape: impl FnOnce(u64) -> Option<Shape>,
    ) -> Result<Object, D::Error> {
        let (index, offset) = <(u32, u64)>::deserialize(deserializer)?;
        let region = handover::region(index).map_err(D::Error::custom)?;
        Object::attach(&region, offset, shape)
            .map_err(|error| D::Error::custom(handover::note(ReceiveError::from(error))))
    }
}

/// What comes behind `polyproc:` in the name of a region for one object.
fn label(shape: &Shape) -> String {
    let kind = shape.kind;
    match shape.code {
        0 => kind.to_string(),
        code => format!("{kind}:{}", code.escape_ascii()),
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("region", &self.region)
            .field("offset", &self.offset())
            .field("count", &self.count)
            .finish()
    }
}
