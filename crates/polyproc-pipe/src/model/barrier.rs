//! The barriers, under a model checker: a compiler's barrier on one side and the kernel's on all CPUs on the
//! other order what a fence on each side orders.

use super::model::{Part, is_without};
use polyproc_sys::atomic::{Ordering, fence};

pub(crate) fn is_registered() -> bool {
    true
}

pub(crate) fn light() {
    light_here();
}

pub(crate) fn light_here() {
    fence(Ordering::SeqCst);
}

pub(crate) fn heavy() -> bool {
    heavy_here();
    true
}

pub(crate) fn heavy_here() {
    if !is_without(Part::Barrier) {
        fence(Ordering::SeqCst);
    }
}
