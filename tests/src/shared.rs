//! Memory that a test shares with the children it forks, and two things to put there.

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use polyproc_sys::atomic::{AtomicU8, AtomicU32, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::Futex;
use std::io;

/// A value in memory of its own that stays shared across a `fork`. For atomics, and what is made of them.
///
/// Not polyproc's own shared memory, so that a test's instruments do not hang on what they measure. Nothing is dropped:
/// the memory is only unmapped, by each process for itself.
pub struct Shared<T> {
    at: NonNull<T>,
}

impl<T: Default + Sync> Shared<T> {
    /// The default value, shared.
    ///
    /// # Panics
    ///
    /// If there is no memory.
    #[expect(clippy::new_without_default, reason = "allocating memory is nobody's default")]
    pub fn new() -> Shared<T> {
        const { assert!(align_of::<T>() <= 4096) }
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(at != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        let at = NonNull::new(at.cast::<T>()).expect("mmap does not return null");
        // SAFETY: the mapping is large enough, aligned to a page, and nobody else knows of it.
        unsafe { at.write(T::default()) };
        Shared { at }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped and initialised until `self` is dropped; what changes in it is atomic, as `Sync` demands.
        unsafe { self.at.as_ref() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; nothing refers to it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), size_of::<T>()) };
    }
}

// SAFETY: it gives out `&T` only.
unsafe impl<T: Sync> Sync for Shared<T> {}
// SAFETY: as above; it is unmapped from any thread.
unsafe impl<T: Sync> Send for Shared<T> {}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A line of text that one process leaves for another. Cut off if it is long.
#[derive(Debug)]
pub struct Note {
    length: AtomicU32,
    bytes: [AtomicU8; 1000],
}

impl Default for Note {
    fn default() -> Note {
        Note { length: AtomicU32::new(0), bytes: [const { AtomicU8::new(0) }; 1000] }
    }
}

impl Note {
    /// Writes it, once.
    pub fn write(&self, text: &str) {
        for (cell, byte) in self.bytes.iter().zip(text.bytes()) {
            cell.store(byte, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `read`.
        self.length.store(text.len().min(self.bytes.len()) as u32, Ordering::Release);
    }

    /// What was written, if anything was.
    pub fn read(&self) -> Option<String> {
        // Acquire: pairs with the Release in `write`.
        let length = self.length.load(Ordering::Acquire) as usize;
        let bytes: Vec<u8> = self.bytes[..length].iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        (length != 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Cues for the actors of a play: numbers that only go up.
#[derive(Debug, Default)]
pub struct Cues {
    given: Futex,
}

impl Cues {
    /// Sleeps until the cue with this number, or a later one, has been given.
    pub fn wait(&self, number: u32) {
        loop {
            // Acquire: pairs with the Release in `give`.
            let given = self.given.load(Ordering::Acquire);
            if given >= number {
                return;
            }
            self.given.wait(given, Deadline::NEVER);
        }
    }

    /// Gives the cue with this number, and so all before it.
    pub fn give(&self, number: u32) {
        // Release: pairs with the Acquire in `wait`.
        if self.given.swap(number, Ordering::Release) != number {
            self.given.wake_all();
        }
    }

    /// Gives all cues that there can be.
    pub fn give_all(&self) {
        self.give(u32::MAX);
    }

    /// The last one given.
    pub fn given(&self) -> u32 {
        self.given.load(Ordering::Relaxed)
    }
}
