//! `Region`: memory that processes share.

use crate::error::{AttachError, CreateError};
use crate::layout::{Geometry, LINE};
use crate::mapping::Mapping;
use crate::{memfd, registry};
use core::fmt;
use polyproc_sys::atomic::Ordering;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The bytes that the name of a memory file may have.
const NAME_MAX: usize = 249;

/// How every name begins.
const PREFIX: &str = "polyproc:";

/// How that of an arena with a label goes on: the only names of which a user chooses a part.
pub(crate) const ARENA: &str = "arena:";

/// Memory that processes share: an anonymous file of fixed size, mapped into this process.
///
/// This is a handle: cloning it changes two counters, and the memory stays mapped while there is a clone, or
/// an [`Object`](crate::Object) or [`Arena`](crate::Arena) in it. When the last one in the last process is
/// gone, however that process ended, the kernel frees the memory.
///
/// A process maps a region once: if it made the region itself, or received it twice, the address is the same
/// each time.
#[must_use]
pub struct Region {
    mapping: Arc<Mapping>,
}

impl Region {
    /// A region with room for `capacity` bytes of objects from `base` on, and behind it `reserve` bytes that
    /// are not allocated. Named `polyproc:<label>`.
    pub(crate) fn create(label: &str, base: u64, capacity: u64, reserve: u64) -> io::Result<Region> {
        let longest = NAME_MAX - PREFIX.len();
        let name = CString::new(format!("{PREFIX}{label}"))
            .ok()
            .filter(|_| label.len() <= longest)
            .ok_or(CreateError::Label { longest: longest - ARENA.len() })?;
        let capacity = capacity.checked_next_multiple_of(LINE).ok_or(CreateError::TooLarge)?;
        let end = base.checked_add(capacity).ok_or(CreateError::TooLarge)?;
        let page = u64::from(memfd::page_size());
        let allocated = end.checked_next_multiple_of(page).ok_or(CreateError::TooLarge)?;
        let reserve = reserve.checked_next_multiple_of(page).ok_or(CreateError::TooLarge)?;
        let size = allocated.checked_add(reserve).ok_or(CreateError::TooLarge)?;
        let file = memfd::create(&name, allocated, size)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let geometry = Geometry { size, base, capacity, made: now.as_nanos() as u64 };
        let mapping = registry::enter(file, geometry)?;
        Ok(Region { mapping })
    }

    /// The region behind a received descriptor, mapped unless it is already.
    ///
    /// The descriptor is checked before anything is mapped: its seals, its size, and its header. Every
    /// process that holds a region can write all of it, so it is for peers that are trusted with it.
    ///
    /// # Errors
    ///
    /// [`AttachError`], which says what is wrong with it. The descriptor is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use polyproc_memory::{Arena, AttachError, Region};
    /// use std::os::fd::AsFd;
    ///
    /// let arena = Arena::new(4096)?;
    /// let descriptor = arena.region().as_fd().try_clone_to_owned()?;
    /// let region = Region::from_fd(descriptor)?;
    /// assert!(region.is_same(arena.region()));
    ///
    /// let null = std::fs::File::open("/dev/null")?;
    /// assert!(matches!(Region::from_fd(null.into()), Err(AttachError::NotAFile)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_fd(descriptor: OwnedFd) -> Result<Region, AttachError> {
        Ok(Region { mapping: registry::attach(File::from(descriptor))? })
    }

    /// Its size in bytes, headers, reserve and all: whole pages, never zero.
    #[expect(clippy::len_without_is_empty, reason = "no region is empty")]
    pub fn len(&self) -> u64 {
        self.mapping.geometry().size
    }

    /// Whether both are handles to the same memory.
    pub fn is_same(&self, other: &Region) -> bool {
        Arc::ptr_eq(&self.mapping, &other.mapping)
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

impl Clone for Region {
    fn clone(&self) -> Region {
        // Relaxed: the clone is made from a handle, so that the number is not zero and cannot become it
        // meanwhile.
        self.mapping.handles.fetch_add(1, Ordering::Relaxed);
        Region { mapping: Arc::clone(&self.mapping) }
    }
}

/// The last handle unmaps the region and closes the descriptor.
///
/// One exception: if a thread of this process holds a lock in the region, because its guard was forgotten
/// ([`core::mem::forget`]), the region stays mapped for the life of the process. The kernel keeps track of
/// the thread's locks by their addresses.
impl Drop for Region {
    fn drop(&mut self) {
        registry::release(&self.mapping);
    }
}

/// The memory file, for those who pass it to another process by hand.
impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mapping.file().as_fd()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len()).field("fd", &self.as_fd()).finish()
    }
}
