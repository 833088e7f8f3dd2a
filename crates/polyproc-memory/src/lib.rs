//! Shared memory that cannot leak: sealed memfd regions, arenas, and handles that travel between processes.
//!
//! This is what the primitives of polyproc are built on. Their users meet one of its types, [`Arena`], and
//! its errors. The rest is for building primitives of your own.
//!
//! | type | what it is | what it costs |
//! |---|---|---|
//! | [`Region`] | memory that processes share | a descriptor, whole pages, seven system calls |
//! | [`Object`] | one thing in a region, with a header that says what it is | 64 bytes and its payload, rounded up to 64 |
//! | [`Arena`] | a region for many objects | one region, however many they are |
//! | [`handover`] | how handles get into another process | serialising two numbers |
//!
//! # A region
//!
//! A region is a memory file (memfd_create(2)): it has no name in any file system, so nothing is left behind
//! however its users end, and nobody else can open it. It is allocated to the last byte when it is made, so
//! that running out of memory is an error then and not a signal later; it is sealed at its size, so that no
//! peer can truncate it under a reader; and it is for its owner only (mode 0600, close-on-exec, never
//! executable). `/proc/PID/maps` shows it as `polyproc:<kind>`, with the type code or the label behind it.
//!
//! An object that grows gets a region with a *reserve* ([`Object::with_reserve`]): addresses behind the
//! object, the same pages for all that share it, which are not memory before somebody allocates them
//! ([`Object::allocate`]), and which can be given back ([`Object::give_back`]). A reserve of many gibibytes
//! costs nothing but addresses.
//!
//! Nothing here waits for another process. Making, receiving and dropping regions takes a lock of this
//! process, for as long as a look-up takes; when a region is received for the first time, for as long as it
//! takes to map it.
//!
//! # What a death does
//!
//! Nothing that others would notice: the kernel frees a region with its last user. If a process is killed
//! while it adds an object to an arena, the arena loses that object's bytes.
//!
//! # What is checked
//!
//! A received descriptor is judged before it is mapped: a memory file, sealed, of the size that its header
//! says, of the same layout version, byte order, pointer width and page size. An object in it is judged
//! before it is used: kind, type code, size and alignment of its elements, their number, and where it lies.
//! [`AttachError`] says which of these differs, and both values. What is checked is a private copy: a peer
//! that writes later changes nothing.
//!
//! That guards against mistakes, and against a peer that sends the wrong thing. It does not guard against a
//! peer that was given a region and writes nonsense into it: whoever has a region is trusted with what is in
//! it.
//!
//! # After a fork
//!
//! A child made by `fork` has its parent's handles, and they work. A child that starts another program gets
//! them by [`handover`].
//!
//! # Example
//!
//! A thousand counters in one region, and how one of them gets to another process.
//!
//! ```
//! use core::alloc::Layout;
//! use polyproc_memory::{Arena, Kind, Object, Shape, handover};
//! use serde::{Deserialize, Deserializer, Serialize, Serializer};
//! use std::os::fd::AsFd;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! struct Counter(Object);
//!
//! impl Counter {
//!     const SHAPE: Shape = Shape {
//!         kind: Kind::new("counter"),
//!         code: 0,
//!         element: Layout::new::<AtomicU64>(),
//!         count: 1,
//!         payload: Layout::new::<AtomicU64>(),
//!         lock: false,
//!     };
//!
//!     fn new_in(arena: &Arena) -> std::io::Result<Counter> {
//!         Object::create(Some(arena), &Self::SHAPE).map(Counter)
//!     }
//!
//!     fn value(&self) -> &AtomicU64 {
//!         // SAFETY: an object of this shape has room and alignment for an `AtomicU64`, for which every bit
//!         // pattern is valid and which peers may write; it stays mapped as long as `self.0`.
//!         unsafe { self.0.payload().cast().as_ref() }
//!     }
//! }
//!
//! impl Serialize for Counter {
//!     fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
//!         self.0.serialize(serializer)
//!     }
//! }
//!
//! impl<'de> Deserialize<'de> for Counter {
//!     fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Counter, D::Error> {
//!         // Any other number of elements is an error of its own.
//!         Object::deserialize(deserializer, |_count| Some(Self::SHAPE)).map(Counter)
//!     }
//! }
//!
//! let arena = Arena::new(1000 * 128)?;
//! let counters = (0..1000).map(|_| Counter::new_in(&arena)).collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(arena.remaining(), 0);
//!
//! let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&counters[7]).unwrap());
//! // The bytes and the descriptors travel; here they stay.
//! let copies = descriptors.iter().map(|one| one.as_fd().try_clone_to_owned());
//! let descriptors = copies.collect::<Result<_, _>>()?;
//! let received: Counter = handover::receive(descriptors, || postcard::from_bytes(&bytes).unwrap());
//!
//! received.value().fetch_add(1, Ordering::Relaxed);
//! assert_eq!(counters[7].value().load(Ordering::Relaxed), 1);
//! # Ok::<(), std::io::Error>(())
//! ```

#![deny(unsafe_code)]

mod arena;
mod available;
#[allow(unsafe_code, reason = "system calls")]
mod claim;
mod error;
mod layout;
#[allow(unsafe_code, reason = "dereferences the mapping: the headers in it, and the locks")]
mod mapping;
#[allow(unsafe_code, reason = "system calls")]
mod memfd;
mod object;
mod region;
mod registry;
mod reserve;
mod shape;

#[cfg(feature = "codec")]
pub mod codec;
pub mod handover;

pub use arena::Arena;
pub use available::{modest_region, physical_memory};
pub use claim::{Claim, Claimant};
#[doc(hidden)]
pub use error::Said;
pub use error::{AttachError, CreateError};
#[doc(hidden)]
pub use memfd::without_noexec_seal;
pub use object::Object;
pub use region::Region;
pub use shape::{Kind, Shape};

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
