//! Hints that a cache line is going to be used: it is on its way while something else is done.
//!
//! They have no effect but on time: no address is wrong, nothing is read or written that anybody could see,
//! and no order of the memory model is touched. But a line that another CPU works with is taken away from it,
//! as by a real access: a hint that comes too early makes both wait. On processors other than x86_64 they do
//! nothing.

/// The line with this address is going to be read.
#[inline(always)]
pub fn prefetch_read(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "a hint accesses nothing")]
    // SAFETY: cannot fail, whatever the address, and has no effect but on time.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) address, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The line with this address is going to be written to, and to be this CPU's alone.
#[inline(always)]
pub fn prefetch_write(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "a hint accesses nothing")]
    // SAFETY: as above; a processor that does not know the instruction takes it for one that does nothing.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
