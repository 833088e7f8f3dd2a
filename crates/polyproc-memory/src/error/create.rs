//! Why no shared memory could be had.

use crate::memfd;
use core::fmt;
use std::error::Error;
use std::io;

/// Why a region or an object in one could not be made, or memory in a reserve not be had.
///
/// The functions that make things return [`io::Error`]; this is what stands in it, and
/// [`get_ref`](io::Error::get_ref) and a downcast bring it out. What the system said is its `source`.
///
/// | variant | [`io::ErrorKind`] |
/// |---|---|
/// | `TooLarge`, `Label`, `Align`, `Lock`, `Reserve` | `InvalidInput` |
/// | `Memory`, `Mapping` | `OutOfMemory` |
/// | `FileSize` | `FileTooLarge` |
/// | `ArenaFull` | `StorageFull` |
/// | `Descriptors` | what the system's own error has |
#[derive(Debug)]
#[non_exhaustive]
pub enum CreateError {
    /// The size is beyond what 64 bits can count.
    TooLarge,
    /// The label has a NUL character, or is longer than a name can be.
    Label {
        /// The longest possible label, in bytes.
        longest: usize,
    },
    /// The payload's alignment is more than its place can give.
    Align {
        /// What was asked for, in bytes.
        requested: usize,
        /// The most there is: 64 in an arena, a page in a region of its own.
        most: usize,
    },
    /// The payload is said to begin with a lock, and is too small for one.
    Lock {
        /// The payload's size in bytes.
        size: usize,
    },
    /// What is to be allocated or given back is not whole pages within the reserve.
    Reserve {
        /// Where it begins in the reserve, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
        /// How long the reserve is, in bytes. 0 if the object has none.
        reserve: u64,
    },
    /// There is not as much memory.
    Memory {
        /// What was asked for, in bytes.
        requested: u64,
        /// What there was: free and reclaimable memory, and swap. `None` if the system refused by itself.
        available: Option<u64>,
        /// The system's refusal.
        source: Option<io::Error>,
    },
    /// There is no room for one more mapping in this process's address space.
    Mapping {
        /// What was asked for, in bytes.
        requested: u64,
        /// The system's refusal.
        source: io::Error,
    },
    /// The process may not make files as large (`RLIMIT_FSIZE`, `ulimit -f`), and memory files count.
    FileSize {
        /// What was asked for, in bytes.
        requested: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The process, or the system, has as many descriptors as it may have.
    Descriptors {
        /// The system's refusal.
        source: io::Error,
    },
    /// The arena has no room for the object.
    ArenaFull {
        /// What the object takes, its header included, in bytes.
        requested: u64,
        /// What is left, in bytes.
        remaining: u64,
        /// The arena's capacity, in bytes.
        capacity: u64,
    },
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the size of the shared memory overflows"),
            Self::Label { longest } => {
                write!(f, "a label has at most {longest} bytes, none of them NUL")
            }
            Self::Align { requested, most } => {
                write!(
                    f,
                    "the payload is to be aligned to {requested} bytes, and at most {most} are possible here"
                )
            }
            Self::Lock { size } => write!(f, "a payload of {size} bytes is too small to begin with a lock"),
            Self::Reserve { offset, length, reserve } => {
                let page = memfd::page_size();
                write!(
                    f,
                    "{length} bytes from {offset} on are not whole pages of {page} bytes \
                     within a reserve of {reserve}"
                )
            }
            Self::Memory { requested, available: Some(available), .. } => {
                write!(f, "not enough memory for {requested} bytes to share: {available} bytes are available")
            }
            Self::Memory { requested, .. } => {
                write!(f, "not enough memory for {requested} bytes to share")
            }
            Self::Mapping { requested, .. } => write!(
                f,
                "no room in the address space to map {requested} bytes (ulimit -v), or too many mappings \
                 (vm.max_map_count): place many objects in one Arena"
            ),
            Self::FileSize { requested, limit } => {
                write!(f, "{requested} bytes are above the limit of {limit} for a file (ulimit -f)")
            }
            Self::Descriptors { source } if source.raw_os_error() == Some(libc::ENFILE) => {
                write!(f, "the system has no file descriptor left: place many objects in one Arena")
            }
            Self::Descriptors { .. } => {
                let limit = memfd::descriptor_limit();
                write!(
                    f,
                    "this process has no file descriptor left of its {limit} (ulimit -n): \
                     place many objects in one Arena"
                )
            }
            Self::ArenaFull { requested, remaining, capacity } => write!(
                f,
                "the arena is full: the object takes {requested} bytes, \
                 {remaining} of {capacity} are left"
            ),
        }
    }
}

impl Error for CreateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory { source, .. } => source.as_ref().map(|error| error as &(dyn Error + 'static)),
            Self::Mapping { source, .. } | Self::Descriptors { source } => Some(source),
            _ => None,
        }
    }
}

impl From<CreateError> for io::Error {
    fn from(error: CreateError) -> io::Error {
        use io::ErrorKind;
        let kind = match &error {
            CreateError::TooLarge
            | CreateError::Label { .. }
            | CreateError::Align { .. }
            | CreateError::Lock { .. }
            | CreateError::Reserve { .. } => ErrorKind::InvalidInput,
            CreateError::Memory { .. } | CreateError::Mapping { .. } => ErrorKind::OutOfMemory,
            CreateError::FileSize { .. } => ErrorKind::FileTooLarge,
            CreateError::ArenaFull { .. } => ErrorKind::StorageFull,
            CreateError::Descriptors { source } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
