//! The kernel's barriers. A compiler's barrier on one side and the kernel's on all CPUs on the other order
//! what a fence on each side orders.

use super::atomic::fence;
use core::sync::atomic::Ordering;

/// See the real one.
pub fn is_registered() -> bool {
    true
}

/// See the real one.
pub fn light() {
    fence(Ordering::SeqCst);
}

/// See the real one.
pub fn heavy() -> bool {
    fence(Ordering::SeqCst);
    true
}
