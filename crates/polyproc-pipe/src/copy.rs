//! Copies to and from memory that a peer may write at any time.
//!
//! No reference and no plain access of Rust's touches that memory: a race with a peer would be undefined.
//! What is short goes word by word, as atomics, or by instructions for two words, which the compiler does not
//! look into; what is long, by such instructions for more ([`polyproc_sys::copy`]). What arrives may be torn,
//! and is judged in private memory, after the copy.

use core::ptr::NonNull;
use polyproc_sys::atomic::{AtomicU64, Ordering};
#[cfg(target_arch = "x86_64")]
use polyproc_sys::copy;

/// Two words at a time, where there are instructions for that.
#[cfg(target_arch = "x86_64")]
mod wide {
    use core::arch::asm;
    use core::arch::x86_64::__m128i;

    /// # Safety
    ///
    /// 16 bytes are mapped at `shared`, and readable at `private`.
    #[inline(always)]
    pub(super) unsafe fn store(private: *const u8, shared: *mut u8) {
        // SAFETY: so many bytes are readable, and any bytes are a value.
        let value = unsafe { private.cast::<__m128i>().read_unaligned() };
        // SAFETY: writes the 16 mapped bytes and nothing else.
        unsafe {
            asm!("movups [{}], {}", in(reg) shared, in(xmm_reg) value, options(nostack, preserves_flags));
        }
    }

    /// # Safety
    ///
    /// 16 bytes are mapped at `shared`, and writable at `private`.
    #[inline(always)]
    pub(super) unsafe fn load(shared: *const u8, private: *mut u8) {
        let value: __m128i;
        // SAFETY: reads the 16 mapped bytes and nothing else.
        unsafe {
            asm!("movups {}, [{}]", out(xmm_reg) value, in(reg) shared, options(nostack, preserves_flags, readonly));
        }
        // SAFETY: so many bytes are writable.
        unsafe { private.cast::<__m128i>().write_unaligned(value) };
    }
}

#[inline(always)]
fn word(place: NonNull<u8>, offset: usize) -> NonNull<AtomicU64> {
    // SAFETY: the callers stay within what they may access.
    unsafe { place.add(offset) }.cast()
}

/// Up to so many bytes go to shared memory word by word: a message that was put together a moment ago is not
/// in the cache yet, and a CPU does not load two words at once that were stored one by one before they are.
#[cfg(target_arch = "x86_64")]
const FRESH: usize = 64;

/// Copies `bytes` to shared memory.
///
/// # Safety
///
/// `place` is aligned to 8, and `bytes.len()` bytes from there, rounded up to a multiple of 8, are mapped.
#[inline(always)]
pub(crate) unsafe fn to_shared(bytes: &[u8], place: NonNull<u8>) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    {
        if bytes.len() >= copy::LONG {
            // SAFETY: the caller's.
            return unsafe { copy::copy(bytes.as_ptr(), place.as_ptr(), bytes.len()) };
        }
        while bytes.len() > FRESH && bytes.len() - done >= 16 {
            // SAFETY: within the bytes, and as many at the place.
            unsafe { wide::store(bytes.as_ptr().wrapping_add(done), place.as_ptr().wrapping_add(done)) };
            done += 16;
        }
    }
    let (words, rest) = bytes[done..].as_chunks::<8>();
    for chunk in words {
        // SAFETY: mapped and aligned, as the caller says.
        let word = unsafe { word(place, done).as_ref() };
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        done += 8;
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: as above; the rounding up leaves room for a whole word.
        let word = unsafe { word(place, done).as_ref() };
        word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Copies `length` bytes from shared memory to `to`, which is private.
///
/// # Safety
///
/// `place` is aligned to 8, `length` bytes from there, rounded up to a multiple of 8, are mapped, and `to`
/// has room for `length` bytes.
#[inline(always)]
pub(crate) unsafe fn from_shared(place: NonNull<u8>, to: *mut u8, length: usize) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    {
        if length >= copy::LONG {
            // SAFETY: the caller's.
            return unsafe { copy::copy(place.as_ptr(), to, length) };
        }
        while length - done >= 16 {
            // SAFETY: as many are mapped, and there is room for as many.
            unsafe { wide::load(place.as_ptr().wrapping_add(done), to.wrapping_add(done)) };
            done += 16;
        }
    }
    while length - done >= 8 {
        // SAFETY: mapped and aligned, as the caller says.
        let bytes = unsafe { word(place, done).as_ref() }.load(Ordering::Relaxed).to_ne_bytes();
        // SAFETY: there is room for eight more.
        unsafe { to.wrapping_add(done).cast::<[u8; 8]>().write_unaligned(bytes) };
        done += 8;
    }
    if length > done {
        // SAFETY: as above; the rounding up leaves a whole word.
        let bytes = unsafe { word(place, done).as_ref() }.load(Ordering::Relaxed).to_ne_bytes();
        // SAFETY: the last few bytes of the room.
        unsafe { to.wrapping_add(done).copy_from_nonoverlapping(bytes.as_ptr(), length - done) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever the message lies, and not a byte more, but for the rest of the last word.
    #[test]
    fn any_length_from_anywhere_arrives_whole() {
        let private: Vec<u8> = (0..9_000u32).map(|n| (n % 251) as u8 | 1).collect();
        let lengths = (0..=200usize).chain([255, 256, 257, 1_000, 1_023, 4_095, 4_097, 8_191]);
        for length in lengths {
            for offset in 0..9 {
                let mut words = vec![!0u64; length.div_ceil(8) + 3];
                let shared = NonNull::new(words.as_mut_ptr().wrapping_add(1).cast::<u8>()).unwrap();
                let bytes = &private[offset..][..length];
                // SAFETY: whole words are there.
                unsafe { to_shared(bytes, shared) };
                let mut back = vec![0xaa; length + 17];
                // SAFETY: so much room is there.
                unsafe { from_shared(shared, back.as_mut_ptr().wrapping_add(offset), length) };
                assert_eq!(&back[offset..][..length], bytes, "{length} from {offset}");
                assert!(back[..offset].iter().chain(&back[offset + length..]).all(|byte| *byte == 0xaa));
                assert_eq!((words[0], words[length.div_ceil(8) + 1]), (!0, !0), "{length} from {offset}");
            }
        }
    }
}
