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
        /// Whether many of its kind can share a mapping, in an [`Arena`](crate::Arena): it has no reserve.
        has_arena: bool,
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
        /// Whether many of its kind can share a descriptor, in an [`Arena`](crate::Arena): it has no reserve.
        has_arena: bool,
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

impl CreateError {
    /// `Descriptors` if that is what the system has said of something that no arena has; any other error as
    /// it is.
    #[doc(hidden)]
    pub fn of_call(source: io::Error) -> io::Error {
        match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => CreateError::Descriptors { has_arena: false, source }.into(),
            _ => source,
        }
    }

    /// With advice where there is some, if it is for whoever reads it.
    fn say(&self, f: &mut fmt::Formatter<'_>, is_for_maker: bool) -> fmt::Result {
        let advice = |has_arena: bool| match has_arena && is_for_maker {
            true => ": place many objects in one Arena",
            false => "",
        };
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
            Self::Mapping { requested, has_arena, .. } => write!(
                f,
                "no room in the address space to map {requested} bytes (ulimit -v), or too many mappings \
                 (vm.max_map_count){}",
                advice(*has_arena)
            ),
            Self::FileSize { requested, limit } => {
                write!(f, "{requested} bytes are above the limit of {limit} for a file (ulimit -f)")
            }
            Self::Descriptors { has_arena, source } => write!(f, "{}{}", Said(source), advice(*has_arena)),
            Self::ArenaFull { requested, remaining, capacity } => write!(
                f,
                "the arena is full: the object takes {requested} bytes, \
                 {remaining} of {capacity} are left"
            ),
        }
    }
}

/// What the system has said; of descriptors, whose are at an end, and how many these are. Of shared memory,
/// what it is without advice that whoever made something out of it cannot follow.
#[doc(hidden)]
#[derive(Debug)]
pub struct Said<'a>(pub &'a io::Error);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.0.get_ref().and_then(|cause| cause.downcast_ref());
        match (self.0.raw_os_error(), cause) {
            (Some(libc::EMFILE), _) => {
                let limit = memfd::descriptor_limit();
                write!(f, "this process has no file descriptor left of its {limit} (ulimit -n)")
            }
            (Some(libc::ENFILE), _) => f.write_str("the system has no file descriptor left"),
            (_, Some(cause)) => CreateError::say(cause, f, false),
            _ => self.0.fmt(f),
        }
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.say(f, true)
    }
}

impl Error for CreateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Memory { source, .. } => source.as_ref().map(|error| error as &(dyn Error + 'static)),
            Self::Mapping { source, .. } | Self::Descriptors { source, .. } => Some(source),
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
            CreateError::Descriptors { source, .. } => source.kind(),
        };
        io::Error::new(kind, error)
    }
}
