//! How a value is replaced so that a death at any instruction leaves the old one or the new one.
//!
//! A type of 1, 2, 4 or 8 bytes is *single*: it is aligned to its size, and one store replaces it. Any other
//! is written to a second place first, and then one store says so; `Value` and `Array` differ in what that
//! store is.

use bytemuck::Pod;
use core::alloc::Layout;
use polyproc_sys::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Whether one store replaces a `T`.
pub(crate) const fn is_single<T>() -> bool {
    matches!(size_of::<T>(), 1 | 2 | 4 | 8)
}

/// The layout of a place for a `T`: a single one is aligned to its size.
pub(crate) const fn layout<T>() -> Layout {
    let layout = Layout::new::<T>();
    if is_single::<T>() {
        // A single type's size is a power of two, so this does not fail.
        match layout.align_to(size_of::<T>()) {
            Ok(layout) => layout,
            Err(_) => layout,
        }
    } else {
        layout
    }
}

/// Replaces a single `T` with one store.
///
/// # Safety
///
/// `place` is valid for writes, aligned to the size of `T`, which is single, and nobody else accesses it
/// meanwhile other than atomically.
#[inline(always)]
pub(crate) unsafe fn store<T: Pod>(place: *mut T, value: T) {
    // Relaxed: the lock orders it for others, and the compiler fences of `Hold::commit` for a death. Atomic
    // so that it is one store.
    match size_of::<T>() {
        1 => {
            // SAFETY: the caller's.
            let cell = unsafe { AtomicU8::from_ptr(place.cast()) };
            cell.store(bytemuck::cast(value), Ordering::Relaxed);
        }
        2 => {
            // SAFETY: the caller's.
            let cell = unsafe { AtomicU16::from_ptr(place.cast()) };
            cell.store(bytemuck::cast(value), Ordering::Relaxed);
        }
        4 => {
            // SAFETY: the caller's.
            let cell = unsafe { AtomicU32::from_ptr(place.cast()) };
            cell.store(bytemuck::cast(value), Ordering::Relaxed);
        }
        8 => {
            // SAFETY: the caller's.
            let cell = unsafe { AtomicU64::from_ptr(place.cast()) };
            cell.store(bytemuck::cast(value), Ordering::Relaxed);
        }
        _ => unreachable!("only single types are stored at once"),
    }
}
