//! Copies to and from memory that a peer may write at any time.
//!
//! No reference and no plain access of Rust's touches that memory: a race with a peer would be undefined. What is short
//! goes word by word, as atomics. What is long goes by one string instruction, which the compiler does not look into,
//! where there is one. What arrives may be torn, and is judged in private memory, after the copy.

use core::ptr::NonNull;
use polyproc_sys::atomic::{AtomicU64, Ordering};

/// From here on, the string instruction is faster.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 256;

fn word(place: NonNull<u8>, index: usize) -> NonNull<AtomicU64> {
    // SAFETY: the callers stay within what they may access.
    unsafe { place.add(index * 8) }.cast()
}

/// Copies `bytes` to shared memory.
///
/// # Safety
///
/// `place` is aligned to 8, and `bytes.len()` bytes from there, rounded up to a multiple of 8, are mapped.
#[inline(always)]
pub(crate) unsafe fn to_shared(bytes: &[u8], place: NonNull<u8>) {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= LONG {
        // SAFETY: the caller's; the instruction reads and writes these bytes and nothing else.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") bytes.len() => _,
                inout("rsi") bytes.as_ptr() => _,
                inout("rdi") place.as_ptr() => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in words.iter().enumerate() {
        // SAFETY: mapped and aligned, as the caller says.
        let word = unsafe { word(place, index).as_ref() };
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: as above; the rounding up leaves room for a whole word.
        let word = unsafe { word(place, words.len()).as_ref() };
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Copies `length` bytes from shared memory to `to`, which is private.
///
/// # Safety
///
/// `place` is aligned to 8, `length` bytes from there, rounded up to a multiple of 8, are mapped, and `to` has room for
/// `length` bytes.
#[inline(always)]
pub(crate) unsafe fn from_shared(place: NonNull<u8>, to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    if length >= LONG {
        // SAFETY: the caller's; the instruction reads and writes these bytes and nothing else.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") length => _,
                inout("rsi") place.as_ptr() => _,
                inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    for index in 0..length / 8 {
        // SAFETY: mapped and aligned, as the caller says.
        let bytes = unsafe { word(place, index).as_ref() }.load(Ordering::Relaxed).to_ne_bytes();
        // SAFETY: within the room at `to`.
        let to = unsafe { to.add(index * 8) };
        // SAFETY: there is room for eight more.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), 8) };
    }
    if !length.is_multiple_of(8) {
        // SAFETY: as above; the rounding up leaves a whole word.
        let bytes = unsafe { word(place, length / 8).as_ref() }.load(Ordering::Relaxed).to_ne_bytes();
        // SAFETY: within the room at `to`.
        let to = unsafe { to.add(length / 8 * 8) };
        // SAFETY: the last few bytes of the room.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), length % 8) };
    }
}
