//! Atomics for shared memory, and the seam through which a model checker replaces them.
//!
//! Everything that lives in shared memory takes its atomics from here. In a normal build they are `core`'s
//! own; under `--cfg polyproc_loom` or `--cfg polyproc_shuttle` they are the model checker's, with a point
//! before each access at which a simulated thread may vanish.

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub use core::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering, compiler_fence, fence,
};

#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub use crate::model::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

/// A sequentially consistent fence for a place that directly follows an atomic read-modify-write.
///
/// On x86 such an instruction is a full barrier already, so that only the compiler has to be held back;
/// elsewhere, and in a model, it is a real fence.
#[inline(always)]
pub fn fence_after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(any(polyproc_loom, polyproc_shuttle))))]
    compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(any(polyproc_loom, polyproc_shuttle)))))]
    fence(Ordering::SeqCst);
}
