//! What producers and consumers do while they hold their lock: all of it plain code, with one store each that
//! counts.
//!
//! | step | what counts | killed before it | killed after it |
//! |---|---|---|---|
//! | put, of one message or many | the store of `put`'s position | nothing happened; the bytes are overwritten | the messages are there |
//! | get, of one message, or many of one segment | the store of `taken`'s position | the messages are still there | they are gone |
//! | on to another segment | the store of the producers' `segment` | the new segment is not in use | it is |
//! | leaving a segment | the store of the consumers' `oldest` | its memory is given back once more | it is given back |
//! | | the store of their `segment` | it is left once more, and not used before that | it may be used again |
//! | claim | the store of `taken`'s position | the message is still there | it is the claimer's, as long as it lives |
//! | acknowledge | the store to the claim's word | the message is delivered again | it is gone |
//!
//! What a death leaves beside that:
//!
//! - `free` follows `taken` a store later. Whoever takes the next message sets it too, and so does a producer
//!   that finds no room because of it ([`Consumer::settle`](crate::consumer::Consumer::settle)).
//! - A segment's `end` and `next` are set before the producers go on. So the segment that they write to has
//!   no end, whatever is written there; and a consumer looks for its end once more when it has seen that they
//!   are gone.
//! - A claim whose message was not taken: it is none, and is cleared before anything else is taken, because
//!   it would look like one afterwards. To be found, claims are counted before they are made, and after they
//!   are gone.
//!
//! [`Producer`](crate::producer::Producer) and [`Consumer`](crate::consumer::Consumer) do it; here is what
//! both need.

use crate::layout::{Header, SMALLEST, Segment};
use crate::raw::RawQueue;
use core::ptr::NonNull;
use polyproc_sys::atomic::AtomicU64;

/// Where segment `index` begins in the reserve.
#[inline(always)]
pub(crate) fn segment_offset(index: u32) -> u64 {
    (SMALLEST << index) - SMALLEST
}

/// How long segment `index` is.
#[inline(always)]
pub(crate) fn segment_size(index: u32) -> u64 {
    SMALLEST << index
}

/// Whether position `a` comes before `b`. They are never 2^63 apart.
#[inline(always)]
pub(crate) fn is_before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

impl Header {
    #[inline(always)]
    pub(crate) fn segment(&self, index: u32) -> &Segment {
        // The mask keeps the compiler from checking what the trusted memory says.
        &self.segments.0[index as usize % crate::layout::SEGMENTS]
    }
}

/// The word at a place in the ring.
///
/// # Safety
///
/// The place is eight bytes of mapped memory, aligned to as many.
#[inline(always)]
pub(crate) unsafe fn word<'a>(place: NonNull<u8>) -> &'a AtomicU64 {
    // SAFETY: the caller's; headers are only accessed as atomics while a record is there.
    unsafe { AtomicU64::from_ptr(place.as_ptr().cast()) }
}

impl RawQueue {
    /// Milliseconds, on a monotonic clock that all processes share.
    pub(crate) fn now(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a valid timespec to write to.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
    }
}
