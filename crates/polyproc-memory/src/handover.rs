//! The hand-over of handles to another process: descriptors travel beside the bytes.
//!
//! A handle is more than bytes: it has a descriptor, which only the kernel can bring to another process. So a
//! handle can be serialised only while somebody gathers descriptors, which is what [`send`] does; and
//! deserialised only while somebody has received them, [`receive`]. The bytes carry the descriptor's number
//! in that list. How the list travels (`SCM_RIGHTS` on a socket, inheritance) is the caller's affair.
//!
//! Both are for the calling thread, can be nested, and end when their function returns or panics.
//!
//! # Examples
//!
//! ```
//! use polyproc_memory::{Arena, handover};
//! use std::os::fd::AsFd;
//!
//! let arena = Arena::new(4096)?;
//! let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&arena));
//! let bytes = bytes.unwrap();
//! assert_eq!(descriptors.len(), 1);
//!
//! // Here both would travel to the other process.
//! let received = descriptors
//!     .iter()
//!     .map(|descriptor| descriptor.as_fd().try_clone_to_owned())
//!     .collect::<Result<Vec<_>, _>>()?;
//! let same: Arena = handover::receive(received, || postcard::from_bytes(&bytes)).unwrap();
//! assert_eq!(same.capacity(), arena.capacity());
//!
//! // Outside of a hand-over there is no way for the descriptor.
//! assert!(postcard::to_stdvec(&arena).is_err());
//! assert_eq!(handover::take_failure().unwrap().to_string(), handover::NOT_IN_HANDOVER);
//! # Ok::<(), std::io::Error>(())
//! ```

use crate::error::AttachError;
use crate::region::Region;
use core::cell::RefCell;
use core::fmt;
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What serialising or deserialising a handle says outside of a hand-over.
pub const NOT_IN_HANDOVER: &str = "a polyproc handle travels only inside a hand-over: pass it as an argument of \
                                   Process::spawn, or send it through a Connection";

/// A descriptor on its way to another process. Cheap to clone; open as long as there is a clone.
#[derive(Clone, Debug)]
#[must_use]
pub struct Descriptor(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Region(Region),
    Owned(Arc<OwnedFd>),
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kept::Region(region) => region.as_fd(),
            Kept::Owned(descriptor) => descriptor.as_fd(),
        }
    }
}

/// Keeps the region mapped.
impl From<Region> for Descriptor {
    fn from(region: Region) -> Descriptor {
        Descriptor(Kept::Region(region))
    }
}

impl From<Arc<OwnedFd>> for Descriptor {
    fn from(descriptor: Arc<OwnedFd>) -> Descriptor {
        Descriptor(Kept::Owned(descriptor))
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Descriptor {
        Descriptor(Kept::Owned(Arc::new(descriptor)))
    }
}

/// Why a handle could not be received.
///
/// Clones share their cause, so that one can go into the deserialiser's error and one to [`take_failure`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReceiveError {
    /// There is no hand-over on this thread.
    NotInHandover,
    /// The bytes name a descriptor that did not come with them.
    NoDescriptor {
        /// Its number in the bytes.
        index: u32,
        /// How many came.
        count: usize,
    },
    /// The descriptor is not what the bytes say.
    Attach(Arc<AttachError>),
    /// The descriptor could not be duplicated.
    Duplicate(Arc<io::Error>),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInHandover => f.write_str(NOT_IN_HANDOVER),
            Self::NoDescriptor { index, count } => {
                write!(f, "the message names its descriptor number {index}, and {count} came with it")
            }
            Self::Attach(error) => error.fmt(f),
            Self::Duplicate(error) => write!(f, "the received descriptor cannot be duplicated: {error}"),
        }
    }
}

impl Error for ReceiveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Attach(error) => Some(error),
            Self::Duplicate(error) => Some(error),
            _ => None,
        }
    }
}

impl From<AttachError> for ReceiveError {
    fn from(error: AttachError) -> ReceiveError {
        ReceiveError::Attach(Arc::new(error))
    }
}

/// What the system refused keeps its kind; `NotInHandover` is `InvalidInput`; everything else is
/// `InvalidData`.
impl From<ReceiveError> for io::Error {
    fn from(error: ReceiveError) -> io::Error {
        let kind = match &error {
            ReceiveError::NotInHandover => io::ErrorKind::InvalidInput,
            ReceiveError::NoDescriptor { .. } => io::ErrorKind::InvalidData,
            ReceiveError::Attach(error) => match &**error {
                AttachError::Io(error) => error.kind(),
                _ => io::ErrorKind::InvalidData,
            },
            ReceiveError::Duplicate(error) => error.kind(),
        };
        io::Error::new(kind, error)
    }
}

/// One side of a hand-over that is under way.
enum Hand {
    Giving(Vec<Descriptor>),
    Taking(Vec<Received>),
}

/// A received descriptor, before and after somebody found out that it is a region's.
enum Received {
    Descriptor(Arc<OwnedFd>),
    Region(Region),
    /// It was thought a region's and is none. Closed.
    Refused(ReceiveError),
}

thread_local! {
    /// The hand-overs of this thread, the innermost last.
    static HANDS: RefCell<Vec<Hand>> = const { RefCell::new(Vec::new()) };
    static FAILURE: RefCell<Option<ReceiveError>> = const { RefCell::new(None) };
}

/// `None` in a thread that ends, whose own are gone already: what the destructors of its other locals send has no handles.
fn with_hands<R>(f: impl FnOnce(&mut Vec<Hand>) -> R) -> Option<R> {
    HANDS.try_with(|hands| f(&mut hands.borrow_mut())).ok()
}

/// A hand-over's place among those of its thread. Ends it when dropped, by a panic too.
struct Place {
    depth: usize,
}

impl Place {
    fn begin(hand: Hand) -> Place {
        take_failure();
        let count = with_hands(|hands| {
            hands.push(hand);
            hands.len()
        });
        Place { depth: count.unwrap_or(1) - 1 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is dropped outside of the borrow.
        let left = with_hands(|hands| hands.split_off(self.depth));
        drop(left);
    }
}

/// Runs `f`, usually a serialiser, and returns its result with the descriptors of the handles that were
/// serialised in it on this thread. A descriptor that was named twice is in the list once.
///
/// The descriptors stay open as long as the list. Blocks only as `f` does.
pub fn send<R>(f: impl FnOnce() -> R) -> (R, Vec<Descriptor>) {
    let place = Place::begin(Hand::Giving(Vec::new()));
    let result = f();
    let given = with_hands(|hands| match hands.get_mut(place.depth) {
        Some(Hand::Giving(given)) => core::mem::take(given),
        _ => Vec::new(),
    });
    (result, given.unwrap_or_default())
}

/// Runs `f`, usually a deserialiser, with the descriptors that came with its bytes, in the order in which
/// [`send`] gave them. Those that nobody asked for are closed at the end.
///
/// Blocks only as `f` does.
pub fn receive<R>(descriptors: Vec<OwnedFd>, f: impl FnOnce() -> R) -> R {
    let received = descriptors.into_iter().map(|one| Received::Descriptor(Arc::new(one))).collect();
    let _place = Place::begin(Hand::Taking(received));
    f()
}

/// Adds a descriptor to the innermost [`send`] of this thread and returns its number there, the same for the
/// same descriptor. `None` if the innermost hand-over is none that sends: answer with [`NOT_IN_HANDOVER`].
pub fn attach(descriptor: Descriptor) -> Option<u32> {
    let index = with_hands(|hands| {
        let Some(Hand::Giving(given)) = hands.last_mut() else {
            return None;
        };
        // Both are open, so that equal numbers mean the same descriptor.
        let number = descriptor.as_fd().as_raw_fd();
        // Newest first: an arena's objects come one after the other.
        let known = given.iter().rposition(|given| given.as_fd().as_raw_fd() == number);
        let index = known.unwrap_or(given.len());
        let index = u32::try_from(index).ok()?;
        if known.is_none() {
            given.push(descriptor);
        }
        Some(index)
    });
    let index = index.flatten();
    if index.is_none() {
        note(ReceiveError::NotInHandover);
    }
    index
}

/// The region of this number in the innermost [`receive`] of this thread. The same number gives the same
/// mapping.
///
/// # Errors
///
/// [`ReceiveError`]: there is no hand-over, no such descriptor, or it is not a region's.
pub fn region(index: u32) -> Result<Region, ReceiveError> {
    with_received(index, |received| {
        let descriptor = match core::mem::replace(received, Received::Refused(ReceiveError::NotInHandover)) {
            Received::Descriptor(descriptor) => descriptor,
            known => {
                *received = known;
                return match received {
                    Received::Region(region) => Ok(region.clone()),
                    Received::Refused(error) => Err(error.clone()),
                    Received::Descriptor(_) => unreachable!("matched above"),
                };
            }
        };
        let region = alone(descriptor).and_then(|descriptor| Ok(Region::from_fd(descriptor)?));
        *received = match &region {
            Ok(region) => Received::Region(region.clone()),
            Err(error) => Received::Refused(error.clone()),
        };
        region
    })
}

/// A duplicate of the descriptor of this number in the innermost [`receive`] of this thread: for handles that
/// are not regions. It has the close-on-exec flag.
///
/// # Errors
///
/// [`ReceiveError`]: there is no hand-over, no such descriptor, or no number left for the duplicate.
pub fn descriptor(index: u32) -> Result<OwnedFd, ReceiveError> {
    with_received(index, |received| {
        let duplicate = match received {
            Received::Descriptor(descriptor) => descriptor.try_clone(),
            Received::Region(region) => region.as_fd().try_clone_to_owned(),
            Received::Refused(error) => return Err(error.clone()),
        };
        duplicate.map_err(|error| ReceiveError::Duplicate(Arc::new(error)))
    })
}

/// The descriptor of this number in the innermost [`receive`] of this thread, for handles that are not regions and keep it: the very one
/// that came, for which there is room already. A [duplicate](descriptor) if somebody keeps that.
///
/// # Errors
///
/// As for [`descriptor`].
pub fn kept_descriptor(index: u32) -> Result<Arc<OwnedFd>, ReceiveError> {
    let kept = with_received(index, |received| match received {
        Received::Descriptor(descriptor) if Arc::strong_count(descriptor) == 1 => {
            Ok(Some(Arc::clone(descriptor)))
        }
        _ => Ok(None),
    })?;
    kept.map_or_else(|| descriptor(index).map(Arc::new), Ok)
}

/// One that is nobody else's.
fn alone(descriptor: Arc<OwnedFd>) -> Result<OwnedFd, ReceiveError> {
    Arc::try_unwrap(descriptor)
        .or_else(|shared| shared.try_clone())
        .map_err(|error| ReceiveError::Duplicate(Arc::new(error)))
}

fn with_received<R>(
    index: u32,
    f: impl FnOnce(&mut Received) -> Result<R, ReceiveError>,
) -> Result<R, ReceiveError> {
    let result = with_hands(|hands| {
        let Some(Hand::Taking(received)) = hands.last_mut() else {
            return Err(ReceiveError::NotInHandover);
        };
        let count = received.len();
        let wanted = usize::try_from(index).ok().and_then(|index| received.get_mut(index));
        f(wanted.ok_or(ReceiveError::NoDescriptor { index, count })?)
    });
    result.unwrap_or(Err(ReceiveError::NotInHandover)).map_err(note)
}

/// Why the last handle on this thread could not be serialised or deserialised, since the last hand-over
/// began. Taken out by the call.
///
/// For formats that drop the messages of errors, as postcard does.
pub fn take_failure() -> Option<ReceiveError> {
    FAILURE.try_with(RefCell::take).ok().flatten()
}

/// Keeps an error for [`take_failure`], and returns it: for handles that check what they received.
pub fn note(error: ReceiveError) -> ReceiveError {
    // A thread that ends has no place for it any more.
    _ = FAILURE.try_with(|failure| failure.replace(Some(error.clone())));
    error
}
