//! Copies of long messages, as fast as whatever lies between two CPUs.
//!
//! `memcpy` is not: from some length on (2 KiB with glibc 2.36 on AMD's processors) it uses the string
//! instruction, `rep movsb`, which has two slow cases there. If the destination lies less than 32 bytes
//! behind the source, as their lower twelve bits have it, it copies byte by byte, and takes seventeen times
//! as long; messages behind a header are a few bytes off, so one of the two copies on their way often is such
//! a case. And it reads past the caches when it likes: what another CPU has just written then takes two to
//! three times as long, or not, for whole runs. Plain loads and stores know nothing of either.
//!
//! They are in assembly, so that they may go to and from memory that another process writes meanwhile: what
//! is copied is then any mixture of bytes, and nothing else is wrong. On processors other than x86_64, the
//! standard library's copy takes their place, which has no such licence: whoever does not trust the other
//! process has something else there.

use core::ptr;

/// From here on a copy is long: shorter ones are not worth a call.
pub const LONG: usize = 256;

/// What is put into memory for another process fills the cache from here on, rather than to be found there.
#[cfg(target_arch = "x86_64")]
const HUGE: usize = 4 << 20;

/// Copies `length` bytes, which may overlap nowhere.
///
/// # Safety
///
/// So many bytes are readable at `from` and writable at `to`, and nobody else uses them meanwhile but, on
/// x86_64 and from [`LONG`] on, other processes.
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    if length >= LONG {
        if std::is_x86_feature_detected!("avx") {
            // SAFETY: the caller's; the processor has it.
            return unsafe { wide::copy(from, to, length) };
        }
        // SAFETY: the caller's.
        return unsafe { narrow::copy(from, to, length) };
    }
    // SAFETY: the caller's.
    unsafe { ptr::copy_nonoverlapping(from, to, length) };
}

/// [`copy`] to memory from which another process is going to get it: a huge one past the caches, which it
/// would only flush.
///
/// # Safety
///
/// As for [`copy`].
#[inline]
pub unsafe fn copy_away(from: *const u8, to: *mut u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    if length >= HUGE && std::is_x86_feature_detected!("avx") {
        // SAFETY: the caller's; the processor has it.
        return unsafe { wide::copy_past_caches(from, to, length) };
    }
    // SAFETY: the caller's.
    unsafe { copy(from, to, length) };
}

/// Appends `bytes` to `to`.
#[inline]
pub fn append(to: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() < LONG { to.extend_from_slice(bytes) } else { append_long(to, bytes) }
}

#[inline(never)]
fn append_long(to: &mut Vec<u8>, bytes: &[u8]) {
    to.reserve(bytes.len());
    let end = to.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: room for so many was reserved, and what a vector has to spare is not part of a slice.
    unsafe { copy(bytes.as_ptr(), end, bytes.len()) };
    // SAFETY: initialised by the copy, within the capacity.
    unsafe { to.set_len(to.len() + bytes.len()) };
}

/// With registers of 32 bytes.
#[cfg(target_arch = "x86_64")]
mod wide {
    use core::arch::asm;
    use core::arch::x86_64::_mm256_zeroupper;

    const STEP: usize = 128;

    /// # Safety
    ///
    /// As for [`copy`](super::copy), and at least 32 bytes.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
        let head = head(to);
        // The first and the last ones, whatever is between: some bytes twice.
        // SAFETY: at least so many.
        unsafe { one(from, to) };
        let mut done = head;
        while length - done > STEP {
            let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
            // SAFETY: reads and writes 128 bytes that are left, and the destination is aligned to 32.
            unsafe {
                asm!(
                    "vmovups {a}, [{from}]",
                    "vmovups {b}, [{from} + 32]",
                    "vmovups {c}, [{from} + 64]",
                    "vmovups {d}, [{from} + 96]",
                    "vmovaps [{to}], {a}",
                    "vmovaps [{to} + 32], {b}",
                    "vmovaps [{to} + 64], {c}",
                    "vmovaps [{to} + 96], {d}",
                    from = in(reg) from,
                    to = in(reg) to,
                    a = out(ymm_reg) _,
                    b = out(ymm_reg) _,
                    c = out(ymm_reg) _,
                    d = out(ymm_reg) _,
                    options(nostack, preserves_flags)
                );
            }
            done += STEP;
        }
        // SAFETY: the caller's; so many are done.
        unsafe { rest(from, to, done, length) };
        // By itself the compiler does not: it knows of the lower halves of what is lost in assembly, and no
        // more.
        _mm256_zeroupper();
    }

    /// Stores that do not read the destination's lines first, and leave none of them in the cache.
    ///
    /// # Safety
    ///
    /// As for [`copy`](super::copy), and at least 64 bytes.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn copy_past_caches(from: *const u8, to: *mut u8, length: usize) {
        // SAFETY: at least so many.
        unsafe { one(from, to) };
        // SAFETY: as above.
        unsafe { one(from.wrapping_add(32), to.wrapping_add(32)) };
        // Whole lines.
        let mut done = 64 - to.addr() % 64;
        while length - done > 64 {
            let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
            // SAFETY: reads and writes 64 bytes that are left, and the destination is aligned to 64.
            unsafe {
                asm!(
                    "vmovups {a}, [{from}]",
                    "vmovups {b}, [{from} + 32]",
                    "vmovntps [{to}], {a}",
                    "vmovntps [{to} + 32], {b}",
                    from = in(reg) from,
                    to = in(reg) to,
                    a = out(ymm_reg) _,
                    b = out(ymm_reg) _,
                    options(nostack, preserves_flags)
                );
            }
            done += 64;
        }
        // Such stores wait for no later one: without this, they could be seen after the store that publishes
        // the message. SAFETY: touches no memory.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
        // SAFETY: the caller's; so many are done.
        unsafe { rest(from, to, done, length) };
        // By itself the compiler does not: it knows of the lower halves of what is lost in assembly, and no
        // more.
        _mm256_zeroupper();
    }

    /// So many bytes are before the destination's first place that is aligned to 32, and at least one.
    fn head(to: *mut u8) -> usize {
        32 - to.addr() % 32
    }

    /// The last bytes, when `done` of them are copied.
    ///
    /// # Safety
    ///
    /// As for [`copy`](super::copy), at least 32 bytes, and no more done than that.
    #[target_feature(enable = "avx")]
    unsafe fn rest(from: *const u8, to: *mut u8, mut done: usize, length: usize) {
        while length - done > 32 {
            // SAFETY: so many are left.
            unsafe { one(from.wrapping_add(done), to.wrapping_add(done)) };
            done += 32;
        }
        let last = length - 32;
        // SAFETY: the last 32 of them.
        unsafe { one(from.wrapping_add(last), to.wrapping_add(last)) };
    }

    /// # Safety
    ///
    /// 32 bytes are readable and writable.
    #[target_feature(enable = "avx")]
    #[inline]
    unsafe fn one(from: *const u8, to: *mut u8) {
        // SAFETY: reads and writes these bytes and nothing else.
        unsafe {
            asm!(
                "vmovups {value}, [{from}]",
                "vmovups [{to}], {value}",
                from = in(reg) from,
                to = in(reg) to,
                value = out(ymm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// With registers of 16 bytes, which every processor of this architecture has.
#[cfg(target_arch = "x86_64")]
mod narrow {
    use core::arch::asm;

    /// # Safety
    ///
    /// As for [`copy`](super::copy), and at least 16 bytes.
    #[cold]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
        let mut done = 0;
        while length - done > 16 {
            // SAFETY: so many are left.
            unsafe { one(from.wrapping_add(done), to.wrapping_add(done)) };
            done += 16;
        }
        let last = length - 16;
        // SAFETY: the last 16 of them.
        unsafe { one(from.wrapping_add(last), to.wrapping_add(last)) };
    }

    /// # Safety
    ///
    /// 16 bytes are readable and writable.
    unsafe fn one(from: *const u8, to: *mut u8) {
        // SAFETY: reads and writes these bytes and nothing else.
        unsafe {
            asm!(
                "movups {value}, [{from}]",
                "movups [{to}], {value}",
                from = in(reg) from,
                to = in(reg) to,
                value = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Copy = unsafe fn(*const u8, *mut u8, usize);

    /// Every way that is there.
    fn ways() -> Vec<(&'static str, Copy)> {
        let mut ways: Vec<(&'static str, Copy)> = vec![("copy", copy as Copy), ("copy_away", copy_away)];
        #[cfg(target_arch = "x86_64")]
        {
            ways.push(("narrow", narrow::copy));
            if std::is_x86_feature_detected!("avx") {
                // SAFETY: the caller's, and the processor has it.
                ways.push(("wide", |from, to, length| unsafe { wide::copy(from, to, length) }));
                ways.push(("past caches", |from, to, length| {
                    // SAFETY: the caller's, and the processor has it.
                    unsafe { wide::copy_past_caches(from, to, length) }
                }));
            }
        }
        ways
    }

    #[test]
    fn all_bytes_arrive_and_no_others_change() {
        let source: Vec<u8> = (0..2_000u32).map(|index| (index * 7 + index / 251) as u8 | 1).collect();
        for (name, way) in ways() {
            for length in (LONG..LONG + 200).chain([511, 512, 513, 1_000, 1_024, 1_500]) {
                for (before, behind) in [(0, 0), (1, 0), (0, 1), (8, 24), (31, 33), (63, 5), (17, 64)] {
                    let mut target = vec![0u8; 2_000];
                    let (from, to) = (source[before..].as_ptr(), target[behind..].as_mut_ptr());
                    // SAFETY: so many are there, in both.
                    unsafe { way(from, to, length) };
                    assert_eq!(
                        target[behind..behind + length],
                        source[before..before + length],
                        "{name}, {length} bytes from {before} to {behind}"
                    );
                    let others = target[..behind].iter().chain(&target[behind + length..]);
                    assert!(others.copied().all(|byte| byte == 0), "{name}, {length} bytes to {behind}");
                }
            }
        }
    }

    /// Else other code that uses the lower halves waits for the upper ones, on some processors.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_upper_halves_of_the_registers_are_left_empty() {
        #[target_feature(enable = "avx")]
        unsafe fn copy_and_look(way: Copy, from: &[u8], to: &mut [u8]) -> u128 {
            let mut upper = 0u128;
            // SAFETY: as many bytes are in both.
            unsafe { way(from.as_ptr(), to.as_mut_ptr(), from.len()) };
            // SAFETY: reads what the copy has left in some registers, and writes the 16 bytes.
            unsafe {
                core::arch::asm!(
                    "vorps ymm0, ymm0, ymm1",
                    "vorps ymm0, ymm0, ymm2",
                    "vorps ymm0, ymm0, ymm3",
                    "vextractf128 xmm0, ymm0, 1",
                    "vmovups [{upper}], xmm0",
                    upper = in(reg) &raw mut upper,
                    out("xmm0") _,
                    options(nostack, preserves_flags)
                );
            }
            upper
        }
        if std::is_x86_feature_detected!("avx") {
            let (from, mut to) = (vec![0xff; 5_000], vec![0; 5_000]);
            for (name, way) in ways() {
                // SAFETY: the processor has it.
                assert_eq!(unsafe { copy_and_look(way, &from, &mut to) }, 0, "{name}");
            }
        }
    }

    #[test]
    fn short_and_huge_ones_arrive_too() {
        let source: Vec<u8> = (0..(5u32 << 20) + 77).map(|index| (index / 13) as u8).collect();
        for length in [0, 1, 7, 31, 255, 4 << 20, source.len()] {
            for (name, way) in [("copy", copy as Copy), ("copy_away", copy_away)] {
                let mut target = vec![0; length + 1];
                // SAFETY: so many are there, in both.
                unsafe { way(source.as_ptr(), target.as_mut_ptr(), length) };
                assert!(target[..length] == source[..length], "{name}, {length} bytes");
                assert_eq!(target[length], 0, "{name}, {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_appended_follows_what_was_there() {
        let mut bytes = b"before".to_vec();
        append(&mut bytes, b"");
        append(&mut bytes, b", between");
        append(&mut bytes, &[b'.'; 1_000]);
        assert_eq!(&bytes[..15], b"before, between");
        assert_eq!((bytes.len(), bytes[15..].iter().all(|byte| *byte == b'.')), (1_015, true));
    }
}
