//! Why a descriptor, or a place in a region, is not what the receiver expects.

use crate::memfd::SEALS;
use crate::shape::Kind;
use core::fmt;
use std::error::Error;
use std::io;

/// Why a received descriptor is not a region of ours, or a place in it not the expected object.
///
/// Nothing was mapped and nothing in it was used. Converts to [`io::Error`], as `InvalidData` with this as
/// its source.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// The descriptor is not of a memory file: a pipe, a socket, a device.
    NotAFile,
    /// Seals are missing, so that a peer could cut the memory off under the reader.
    NotSealed {
        /// The missing seals, as in fcntl(2): `F_SEAL_SEAL` is 1, `F_SEAL_SHRINK` 2, `F_SEAL_GROW` 4.
        missing: u32,
    },
    /// The file is shorter than its header says, or too short for a header.
    Truncated {
        /// The file's bytes.
        found: u64,
        /// The bytes that there should be.
        expected: u64,
    },
    /// The file is longer than its header says.
    Oversized {
        /// The file's bytes.
        found: u64,
        /// The bytes that there should be.
        expected: u64,
    },
    /// It does not begin as a region does.
    Foreign,
    /// It was made by a version with another layout.
    Version {
        /// The region's.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// It was made on a machine with the other byte order.
    ByteOrder {
        /// How the mark `0x01020304` reads here.
        found: u32,
    },
    /// It was made by a program with pointers of another width.
    PointerWidth {
        /// The region's, in bits.
        found: u32,
        /// This program's, in bits.
        expected: u32,
    },
    /// It was made on a kernel with another page size.
    PageSize {
        /// The region's, in bytes.
        found: u32,
        /// This kernel's, in bytes.
        expected: u32,
    },
    /// Its header puts objects where none can be.
    Geometry {
        /// Where its objects begin.
        base: u64,
        /// The bytes for objects.
        capacity: u64,
        /// The region's size in bytes.
        size: u64,
    },
    /// An object of another kind.
    Kind {
        /// What it is.
        found: Kind,
        /// What was asked for.
        expected: Kind,
    },
    /// Elements with another type code. 0 means none.
    TypeCode {
        /// The object's.
        found: u32,
        /// The one asked for.
        expected: u32,
    },
    /// Elements of another size.
    ElementSize {
        /// The object's, in bytes.
        found: u64,
        /// The one asked for, in bytes.
        expected: u64,
    },
    /// Elements of another alignment.
    ElementAlign {
        /// The object's, in bytes.
        found: u32,
        /// The one asked for, in bytes.
        expected: u32,
    },
    /// Another number of elements.
    Count {
        /// The object's.
        found: u64,
        /// The one asked for.
        expected: u64,
    },
    /// More elements than memory can hold, or than the asked-for type can have.
    ImpossibleCount {
        /// The object's number of elements.
        found: u64,
    },
    /// A payload of another size: the same elements, laid out otherwise.
    PayloadSize {
        /// The object's, in bytes.
        found: u64,
        /// The one asked for, in bytes.
        expected: u64,
    },
    /// A payload of another alignment.
    PayloadAlign {
        /// The object's, in bytes.
        found: u32,
        /// The one asked for, in bytes.
        expected: u32,
    },
    /// Other flags: one side has a lock where the other has none.
    Flags {
        /// The object's. Bit 0: it begins with a lock.
        found: u32,
        /// Those asked for.
        expected: u32,
    },
    /// The offset is not a place for an object.
    Offset {
        /// The offset in the region.
        offset: u64,
        /// Objects lie from here.
        from: u64,
        /// To here.
        to: u64,
    },
    /// The offset is a place for an object, and there is none.
    NoObject {
        /// The offset in the region.
        offset: u64,
    },
    /// The offset is not aligned as the object has to be.
    Misaligned {
        /// The offset in the region.
        offset: u64,
        /// What the payload, 64 bytes further, is to be aligned to.
        align: u32,
    },
    /// The system refused to look at the descriptor, or to map it.
    Io(io::Error),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFile => write!(f, "the descriptor is not of a memory file"),
            Self::NotSealed { missing } => {
                write!(f, "the memory is not sealed against changes of its size: ")?;
                let names = SEALS.iter().filter(|(seal, _)| missing & seal != 0).map(|(_, name)| *name);
                write!(f, "{} missing", names.collect::<Vec<_>>().join(", "))
            }
            Self::Truncated { found, expected } => {
                write!(f, "the memory has {found} bytes and should have {expected}: it was truncated")
            }
            Self::Oversized { found, expected } => {
                write!(f, "the memory has {found} bytes and should have {expected}")
            }
            Self::Foreign => write!(f, "the memory is not a region of polyproc"),
            Self::Version { found, expected } => {
                write!(f, "the region has layout version {found}, this program uses version {expected}")
            }
            Self::ByteOrder { found } => {
                write!(f, "the region has another byte order: its mark reads {found:#010x}, not 0x01020304")
            }
            Self::PointerWidth { found, expected } => {
                write!(f, "the region is of a {found}-bit program, this is a {expected}-bit one")
            }
            Self::PageSize { found, expected } => {
                write!(f, "the region has pages of {found} bytes, this kernel's have {expected}")
            }
            Self::Geometry { base, capacity, size } => {
                write!(
                    f,
                    "the region of {size} bytes says that its objects take {capacity} bytes from {base} on"
                )
            }
            Self::Kind { found, expected } => {
                write!(f, "the object is of kind '{found}', not '{expected}'")
            }
            Self::TypeCode { found, expected } => {
                write!(f, "the object has {}, not {}", Code(*found), Code(*expected))
            }
            Self::ElementSize { found, expected } => {
                write!(f, "the object's elements have {found} bytes each, not {expected}")
            }
            Self::ElementAlign { found, expected } => {
                write!(f, "the object's elements are aligned to {found} bytes, not {expected}")
            }
            Self::Count { found, expected } => write!(f, "the object has {found} elements, not {expected}"),
            Self::ImpossibleCount { found } => {
                write!(f, "the object says that it has {found} elements, more than there can be")
            }
            Self::PayloadSize { found, expected } => {
                write!(f, "the object's payload has {found} bytes, not {expected}")
            }
            Self::PayloadAlign { found, expected } => {
                write!(f, "the object's payload is aligned to {found} bytes, not {expected}")
            }
            Self::Flags { found, expected } => {
                write!(f, "the object has the flags {found:#x}, not {expected:#x} (1: it begins with a lock)")
            }
            Self::Offset { offset, from, to } => {
                write!(f, "an object at offset {offset} does not fit the region's room from {from} to {to}")
            }
            Self::NoObject { offset } => write!(f, "there is no object at offset {offset} of the region"),
            Self::Misaligned { offset, align } => {
                write!(f, "an object at offset {offset} of the region is not aligned to {align} bytes")
            }
            Self::Io(error) => write!(f, "the descriptor cannot be attached: {error}"),
        }
    }
}

/// A type code as a sentence has it.
struct Code(u32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u8::try_from(self.0) {
            Ok(0) => write!(f, "no type code"),
            Ok(code) => write!(f, "type code '{}'", code.escape_ascii()),
            Err(_) => write!(f, "type code {:#x}", self.0),
        }
    }
}

impl Error for AttachError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for AttachError {
    fn from(error: io::Error) -> AttachError {
        AttachError::Io(error)
    }
}

/// What the system refused keeps its kind; everything else is `InvalidData`.
impl From<AttachError> for io::Error {
    fn from(error: AttachError) -> io::Error {
        let kind = match &error {
            AttachError::Io(error) => error.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
