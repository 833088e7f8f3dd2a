//! The usual case of a put and a get: the lock is free, nobody sleeps, there is room or a message, and it lies in one piece.
//!
//! The same steps as in [`ring`](crate::ring), without anything that is not needed for them. Whatever is not usual is left
//! to it, with the lock held.

use crate::consumer::Consumer;
use crate::error::{GetRefusal, PutRefusal};
use crate::layout::{HEADER, LENGTH, PADDING};
use crate::producer::Producer;
use crate::raw::RawQueue;
use crate::ring::{is_before, segment_size, word};
use core::ptr::NonNull;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::deadline::Deadline;

impl RawQueue {
    /// Puts one message.
    #[inline(always)]
    pub(crate) fn put(&self, message: &[u8], deadline: Deadline) -> Result<(), PutRefusal> {
        let header = self.header();
        let producers = &header.producers;
        // SAFETY: unlocked below, or by the `Producer`; the queue keeps it mapped.
        if let Err(refusal) = unsafe { producers.lock.try_lock() } {
            return self.put_later(message, deadline, refusal);
        }
        let length = message.len();
        let need = HEADER + ((length as u64 + (HEADER - 1)) & !(HEADER - 1));
        let (tail, number) = header.put.0.get();
        let index = producers.segment.load(Ordering::Relaxed);
        let segment = header.segment(index);
        let base = segment.base.load(Ordering::Relaxed);
        let size = segment_size(index);
        let offset = tail.wrapping_sub(base) & (size - 1);
        let free = producers.free_seen.load(Ordering::Relaxed);
        let from = if is_before(free, base) { base } else { free };
        let usual = !header.news.is_occupied()
            && !self.is_closed()
            && length <= self.largest
            && offset + need <= segment.backed.load(Ordering::Relaxed)
            && tail.wrapping_sub(from) + need <= size
            && tail.wrapping_sub(free) + need <= self.max_bytes
            && (self.most == 0
                || number.wrapping_sub(producers.taken_seen.load(Ordering::Relaxed)) < self.most);
        if !usual {
            // SAFETY: locked above, and left to it.
            return self.put_otherwise(message, deadline, unsafe { Producer::new(self) });
        }
        // SAFETY: within the segment, which is memory up to here, and between the tail and the consumers.
        let record = unsafe { self.at_offset(index, offset) };
        // SAFETY: a word in the ring, aligned as all records are.
        unsafe { word(record) }.store(length as u64, Ordering::Relaxed);
        // SAFETY: the record's room reaches beyond its header.
        let place = unsafe { record.add(HEADER as usize) };
        // SAFETY: the place has room for the message, and is the caller's alone as long as the lock is held.
        unsafe { write(message, place) };
        header.put.0.set(tail.wrapping_add(need), number.wrapping_add(1));
        // SAFETY: locked above.
        unsafe { producers.lock.unlock() };
        Ok(())
    }

    /// Gets one message, which `copy` copies out of its place.
    #[inline(always)]
    pub(crate) fn get<R>(&self, deadline: Deadline, copy: impl FnOnce(&[u8]) -> R) -> Result<R, GetRefusal> {
        let header = self.header();
        let consumers = &header.consumers;
        // SAFETY: unlocked below, or by the `Consumer`; the queue keeps it mapped.
        if let Err(refusal) = unsafe { consumers.lock.try_lock() } {
            return self.get_later(deadline, copy, refusal);
        }
        let (head, number) = header.taken.0.mark.get();
        let mut tail = consumers.tail_seen.load(Ordering::Relaxed);
        if tail == head {
            // Acquire: pairs with the Release of `publish`.
            tail = header.put.0.position.load(Ordering::Acquire);
            consumers.tail_seen.store(tail, Ordering::Relaxed);
        }
        let index = consumers.segment.load(Ordering::Relaxed);
        let segment = header.segment(index);
        let usual = tail != head
            && !header.room.is_occupied()
            && consumers.claims.load(Ordering::Relaxed) == 0
            && segment.end.load(Ordering::Relaxed) != head;
        if !usual {
            // SAFETY: locked above, and left to it.
            return self.get_otherwise(deadline, copy, unsafe { Consumer::new(self) });
        }
        let offset = head.wrapping_sub(segment.base.load(Ordering::Relaxed)) & (segment_size(index) - 1);
        // SAFETY: a record begins here, and the segment is memory at least up to the end of it.
        let record = unsafe { self.at_offset(index, offset) };
        // SAFETY: a word in the ring, aligned as all records are.
        let record_header = unsafe { word(record) }.load(Ordering::Relaxed);
        if record_header & PADDING != 0 {
            // SAFETY: locked above, and left to it.
            return self.get_otherwise(deadline, copy, unsafe { Consumer::new(self) });
        }
        let length = record_header & LENGTH;
        // SAFETY: the record reaches beyond its header.
        let place = unsafe { record.add(HEADER as usize) };
        // SAFETY: so many bytes were written there before the message was published, and nobody writes them before it is
        // freed.
        let copied = copy(unsafe { core::slice::from_raw_parts(place.as_ptr(), length as usize) });
        let next = head.wrapping_add(HEADER + ((length + (HEADER - 1)) & !(HEADER - 1)));
        header.taken.0.mark.set(next, number.wrapping_add(1));
        // Release: pairs with the Acquire in `make_room`.
        header.taken.0.free.store(next, Ordering::Release);
        if tail == next && index != 0 {
            // SAFETY: locked above, and left to it.
            unsafe { Consumer::new(self) }.may_be_drained();
        } else {
            // SAFETY: locked above.
            unsafe { consumers.lock.unlock() };
        }
        Ok(copied)
    }
}

/// Copies a message to its place.
///
/// # Safety
///
/// The place is the caller's alone, and has room for it.
#[inline(always)]
pub(crate) unsafe fn write(message: &[u8], place: NonNull<u8>) {
    // SAFETY: the caller's; a message that is put lies in private memory.
    unsafe { core::ptr::copy_nonoverlapping(message.as_ptr(), place.as_ptr(), message.len()) };
}
