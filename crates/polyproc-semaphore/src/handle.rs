//! What both semaphores are: a handle to a head and its cells in shared memory.

use crate::cell::{Cell, Head};
use crate::permit::Permit;
use crate::raw::{RawSemaphore, Refusal};
use crate::{MAX_HOLDERS, MAX_PERMITS};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::robust;
use serde::{Deserializer, Serializer};
use std::io;

/// So many cells fit into the page that a semaphore of its own takes in any case.
pub(crate) const CELLS_OF_A_PAGE: u32 = 60;

/// So many cells a semaphore in an arena has at least.
pub(crate) const CELLS_IN_ARENA: u32 = 4;

/// With permits beyond these, the cells are not as many as the permits unless asked for.
pub(crate) const MOST_CELLS: u32 = 4096;

/// How many handles this process has made: each has a number.
static HANDLES: AtomicU32 = AtomicU32::new(0);

/// See the module.
pub(crate) struct Handle {
    object: Object,
    head: NonNull<Head>,
    cells: NonNull<Cell>,
    /// The cell to look at first: the one in which the last permit was found.
    hint: AtomicU32,
    number: u32,
}

// SAFETY: the pointers are into the mapping that `object` keeps, to atomics.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// What a semaphore with so many cells is, and where its cells begin.
fn shape(kind: Kind, cells: u64) -> Option<(Shape, usize)> {
    let count = u32::try_from(cells).ok().filter(|count| *count <= MAX_HOLDERS)?;
    let element = Layout::new::<Cell>();
    let cells_layout = Layout::array::<Cell>(count as usize).ok()?;
    let (payload, offset) = Layout::new::<Head>().extend(cells_layout).ok()?;
    Some((Shape { kind, code: 0, element, count: cells, payload, lock: false }, offset))
}

impl Handle {
    pub(crate) fn create(
        arena: Option<&Arena>,
        kind: Kind,
        permits: u32,
        most: u32,
        cells: u32,
    ) -> io::Result<Handle> {
        robust::check()?;
        if permits > MAX_PERMITS {
            let message = format!("a semaphore has at most {MAX_PERMITS} permits, not {permits}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let Some((shape, _)) = shape(kind, cells.into()).filter(|_| cells > 0) else {
            let message = format!("a semaphore has 1 to {MAX_HOLDERS} cells, not {cells}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let handle = Handle::at(Object::create(arena, &shape)?);
        handle.raw().set_up(permits, most);
        // Only now is it known which cells have permits.
        Ok(handle.with_hint())
    }

    fn at(object: Object) -> Handle {
        let head = object.payload().cast::<Head>();
        // The cells follow the head, which is as large as its alignment.
        // SAFETY: the payload has a head and its cells.
        let cells = unsafe { head.add(1) }.cast::<Cell>();
        // Relaxed: only a number.
        let number = HANDLES.fetch_add(1, Ordering::Relaxed);
        Handle { object, head, cells, hint: AtomicU32::new(0), number }.with_hint()
    }

    /// Each process begins with another cell, so that they do not fight for the first.
    fn with_hint(self) -> Handle {
        let known = self.raw().known().max(1) as u32;
        self.hint.store((std::process::id() ^ self.number) % known, Ordering::Relaxed);
        self
    }

    pub(crate) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        kind: Kind,
        deserializer: D,
    ) -> Result<Handle, D::Error> {
        let shape = |count| Some(shape(kind, count).filter(|_| count > 0)?.0);
        Ok(Handle::at(Object::deserialize(deserializer, shape)?))
    }

    #[inline(always)]
    pub(crate) fn raw(&self) -> RawSemaphore<'_> {
        // SAFETY: points into the mapping that `object` keeps, to a head that was checked to be one when
        // attached; it is made of atomics only.
        let head = unsafe { self.head.as_ref() };
        // SAFETY: as for the head; there are as many cells as the object has elements.
        let cells = unsafe { core::slice::from_raw_parts(self.cells.as_ptr(), self.object.count() as usize) };
        RawSemaphore::new(head, cells)
    }

    #[inline(always)]
    pub(crate) fn acquire(&self, deadline: Deadline) -> Result<Permit<'_>, Refusal> {
        let raw = self.raw();
        // Relaxed, also below: a hint.
        let hint = self.hint.load(Ordering::Relaxed);
        // SAFETY: the permit borrows the handle, whose object keeps the semaphore mapped; a handle whose
        // permit was forgotten by `mem::forget` keeps it mapped for good, see `drop`.
        let index = unsafe { raw.acquire_until(hint, deadline) }?;
        if index != hint {
            self.hint.store(index, Ordering::Relaxed);
        }
        Ok(Permit::new(raw, index, self.number))
    }

    pub(crate) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw();
        f.debug_struct(name)
            .field("available", &raw.available())
            .field("room", &raw.room())
            .field("holders", &raw.holders().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        Handle::at(self.object.clone())
    }
}

impl Drop for Handle {
    /// Somebody may have called `mem::forget` with a permit: its thread's robust list leads through the cell,
    /// which has to stay where it is.
    fn drop(&mut self) {
        let (raw, process) = (self.raw(), std::process::id());
        if raw.cells[..raw.known()].iter().any(|cell| cell.is_lent_by(process, self.number)) {
            core::mem::forget(self.object.clone());
        }
    }
}
