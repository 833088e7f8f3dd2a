//! `Arena`: one region for many objects.

use crate::handover;
use crate::layout::LINE;
use crate::region::{ARENA, Region};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;

/// One region for many objects: one descriptor, however many they are.
///
/// One region for each object is simple, and each is freed by itself; but it takes a descriptor, of which a
/// process often has 1,024, and a page. An object in an arena takes its payload, rounded up to a multiple of
/// 64 bytes, and 64 bytes of header, and is made in less than a microsecond. For `n` objects with a payload
/// of `size` bytes each, the capacity is `n * (size.next_multiple_of(64) + 64)`.
///
/// All the memory is allocated when the arena is made. Objects are added by any process that has the arena,
/// without a lock; nothing is given back before the last user of the arena, or of an object in it, is gone.
/// If a process is killed in the middle of adding an object, the arena loses that object's bytes, and nothing
/// else.
///
/// # Examples
///
/// ```
/// use polyproc_memory::Arena;
///
/// let arena = Arena::labelled("counters", 100 * 128)?;
/// assert_eq!(arena.capacity(), 12_800);
/// assert_eq!(arena.remaining(), 12_800);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Arena {
    region: Region,
}

impl Arena {
    /// Makes an arena with this many bytes for objects, rounded up to a multiple of 64.
    ///
    /// # Errors
    ///
    /// [`CreateError`](crate::CreateError) in an [`io::Error`] if no memory, address space or file descriptor
    /// is left, or if it would be larger than memory.
    pub fn new(bytes: usize) -> io::Result<Arena> {
        Ok(Arena { region: Region::create("arena", LINE, bytes as u64, 0)? })
    }

    /// Makes an arena whose label shows in `/proc/PID/maps`, as `polyproc:arena:<label>`.
    ///
    /// # Errors
    ///
    /// As [`new`](Arena::new), and `InvalidInput` for a label with a NUL character or of more than 234 bytes.
    pub fn labelled(label: &str, bytes: usize) -> io::Result<Arena> {
        Ok(Arena { region: Region::create(&format!("{ARENA}{label}"), LINE, bytes as u64, 0)? })
    }

    /// How many bytes it has for objects, with their headers.
    pub fn capacity(&self) -> usize {
        // Below: what is mapped fits.
        self.region.mapping().geometry().capacity as usize
    }

    /// How many of them are taken.
    pub fn used(&self) -> usize {
        self.region.mapping().used() as usize
    }

    /// How many are left. Other processes may take them at any moment.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.used()
    }

    /// The region that it is.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

/// Inside [`handover::send`] only.
impl Serialize for Arena {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = handover::attach(self.region.clone().into());
        let index = index.ok_or_else(|| serde::ser::Error::custom(handover::NOT_IN_HANDOVER))?;
        index.serialize(serializer)
    }
}

/// Inside [`handover::receive`] only.
impl<'de> Deserialize<'de> for Arena {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Arena, D::Error> {
        let index = u32::deserialize(deserializer)?;
        let region = handover::region(index).map_err(D::Error::custom)?;
        Ok(Arena { region })
    }
}
