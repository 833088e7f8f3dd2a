//! A barrier that only the rare side pays for: see [`polyproc_sys::membarrier`].
//!
//! Who sends publishes a message and then looks whether the receiver sleeps; who goes to sleep says so and
//! then looks for messages. So the sender makes the light barrier, and the sleeper the heavy one. A sleeper
//! that cannot have the kernel's help looks again every millisecond.

pub use polyproc_sys::membarrier::without_membarrier;
pub(crate) use polyproc_sys::membarrier::{heavy, heavy_here, is_registered, light, light_here};
