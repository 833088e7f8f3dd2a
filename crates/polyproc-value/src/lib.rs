//! Numbers, arrays, and any other plain data in shared memory: behind a lock, or atomic.
//!
//! - [`Value<T>`] and [`Array<T>`] have a lock of their own, and every operation on them is one critical
//!   section: [`Value::update`] adds to a counter without losing any of it.
//! - [`RawValue<T>`] and [`RawArray<T>`] have none: every access is atomic.
//! - [`AnyValue`] and [`AnyArray`] are for types that are known only at run time, by the [`TypeCode`]s of C's
//!   types: `b B h H i I l L f d`. At compile time, [`value!`], [`array!`], [`raw_value!`] and [`raw_array!`]
//!   take them.
//!
//! # Example
//!
//! ```
//! use polyproc_value::{Array, Value, array, value};
//!
//! let counter = Value::new(0i32)?; // Or value!('i', 0).
//! std::thread::scope(|scope| {
//!     for _ in 0..4 {
//!         scope.spawn(|| {
//!             for _ in 0..1000 {
//!                 counter.update(|n| *n += 1).unwrap();
//!             }
//!         });
//!     }
//! });
//! assert_eq!(counter.get()?, 4000);
//!
//! let array = array!('i', [1, 2, 3, 4, 5])?; // Or Array::new(&[1i32, 2, 3, 4, 5]).
//! for x in array.lock().unwrap().iter_mut() {
//!     *x *= 2;
//! }
//! assert_eq!(array.to_vec()?, [2, 4, 6, 8, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A process that dies in the middle of an `update`, here started by `polyproc_process`:
//!
//! ```
//! use polyproc_process::Process;
//! use polyproc_value::Value;
//!
//! fn worker(counter: Value<i32>) {
//!     counter.update(|n| *n += 1).unwrap();
//!     let _ = counter.update(|n| {
//!         *n += 1;
//!         std::process::abort();
//!     });
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     polyproc_process::init(); // In a child: runs its function and exits.
//!     let counter = Value::new(0)?;
//!     assert!(Process::spawn(worker, (counter.clone(),))?.join().is_err());
//!     assert_eq!(counter.get()?, 1); // As if the second update had not begun.
//!     Ok(())
//! }
//! ```
//!
//! # Sharing it
//!
//! Clones of a handle are the same object. To share it with another process, give that process a clone: as an
//! argument of `polyproc_process::Process::spawn`, in a message through a `polyproc_pipe::Connection`, or by
//! `fork`. If your processes are started in some other way, `polyproc_memory::handover` makes bytes and a
//! file descriptor of a handle, and a handle of these.
//!
//! # What blocks
//!
//! Every operation of a locked object waits for the lock, except those whose names begin with `try_`, and
//! `lock_timeout` and `lock_until`, which give up. `len`, `is_locked` and the like take no lock. Raw objects
//! never wait. The lock is that of `polyproc_mutex`: not fair, not re-entrant. A thread that uses an object
//! in its own `update` or under its own guard would wait for itself; it panics instead, with a message that
//! says so.
//!
//! # What a death does
//!
//! | killed in | value | lock |
//! |---|---|---|
//! | `get`, `read`, `to_vec` | as it was | free |
//! | `set`, `update`, of a `Value` or of one element | as it was, or as it is after | free |
//! | `write`, of a range of an `Array` | half written | free, poisoned |
//! | between `lock()` and the end of its guard | as the dead left it | free, poisoned |
//! | anything of `RawValue`, `RawArray` | as it was, or as it is after | none |
//!
//! Free means at once: the kernel releases what a dead thread held. The exception is an array that its dead
//! holder had lent to the workers of a pool (`for_each_chunk`): it is free when the last of them is gone,
//! too.
//!
//! While an object is poisoned, `get`, `set`, `update` and their kin fail with [`Poisoned`], which says who
//! died, and `lock()` returns the guard in its error: repair the data, and call `clear_poison()`. A panic
//! under a guard poisons as a death does. A panic in the closure of `update` changes nothing and poisons
//! nothing.
//!
//! `update` and `set` manage that with one store. A type of 1, 2, 4 or 8 bytes is changed in a register and
//! stored at once. Any other type has a second place in shared memory: the new value is copied there, and one
//! store says that it is the one that counts.
//!
//! # What it costs
//!
//! An uncontended operation is one lock and unlock, a few nanoseconds, and the copying of the value. In
//! memory:
//!
//! | | a `T` of 1, 2, 4 or 8 bytes | any other |
//! |---|---|---|
//! | `Value<T>` | 40 bytes, and the value | 44 bytes, and twice the value |
//! | `Array<T>` | 48 bytes, and the elements | 56 bytes, and the elements and one more |
//! | `RawValue<T>`, `RawArray<T>` | the numbers | |
//!
//! An object of its own takes whole pages and one file descriptor. Put thousands of them into one [`Arena`],
//! where a number takes 128 bytes, header included.
//!
//! # Limits
//!
//! `T` is plain old data ([`bytemuck::Pod`]): no pointers, no padding. Every process that was given a handle
//! can write to the memory, and is trusted to keep to the rules. None of this is for signal handlers, except
//! the raw types. `fork` gives the child no locks: guards that it inherits, and an `update` that is under
//! way, do nothing there.

#![deny(unsafe_code)]

/// The README's example runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[doc(hidden)]
#[path = "elements.rs"]
pub mod __elements;
mod any;
#[allow(unsafe_code, reason = "the elements, behind the lock")]
mod array;
mod code;
mod error;
#[allow(unsafe_code, reason = "takes and releases the lock")]
mod hold;
#[allow(unsafe_code, reason = "elements whose lock another process holds")]
mod loan;
mod macros;
mod number;
#[allow(unsafe_code, reason = "the numbers in the mapping")]
mod raw_array;
#[allow(unsafe_code, reason = "the number in the mapping")]
mod raw_value;
mod scalar;
#[allow(unsafe_code, reason = "stores through a pointer")]
mod slot;
mod span;
#[allow(unsafe_code, reason = "the array in the mapping")]
mod table;
#[allow(unsafe_code, reason = "the value in the mapping")]
mod value;

pub use any::{AnyArray, AnyArrayError, AnyValue, AnyValueError};
pub use array::{Array, ArrayGuard};
pub use code::{TypeCode, UnknownTypeCode};
pub use error::{ArrayError, OutOfRange, Poisoned};
#[doc(hidden)]
pub use loan::{Lending, Loan};
pub use number::{Number, NumberError};
pub use polyproc_memory::{Arena, CreateError};
pub use polyproc_mutex::{LockTimeoutError, PoisonCause, PoisonError, TryLockError};
pub use raw_array::RawArray;
pub use raw_value::RawValue;
pub use scalar::{Integer, Scalar};
pub use value::{Value, ValueGuard};
