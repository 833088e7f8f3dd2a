//! Typed values and arrays in shared memory, locked or atomic, for the type codes b B h H i I l L f d and any Pod type.

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "the elements, behind the lock")]
mod array;
mod code;
mod error;
#[allow(unsafe_code, reason = "takes and releases the lock")]
mod hold;
mod lock_error;
#[allow(unsafe_code, reason = "stores through a pointer")]
mod slot;
mod span;
#[allow(unsafe_code, reason = "the array in the mapping")]
mod table;
#[allow(unsafe_code, reason = "the value in the mapping")]
mod value;

pub use array::{Array, ArrayGuard};
pub use code::{TypeCode, UnknownTypeCode};
pub use error::{ArrayError, OutOfRange, Poisoned};
pub use lock_error::{LockTimeoutError, PoisonError, TryLockError};
pub use polyproc_memory::Arena;
pub use polyproc_mutex::PoisonCause;
pub use value::{Value, ValueGuard};
