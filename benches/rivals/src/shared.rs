//! Memory that forked processes share, for what has no memory of its own.

use std::ptr::NonNull;

/// Room for a `T`, all nought at first, that a process made later by `fork` shares.
pub struct Shared<T>(NonNull<T>);

impl<T> Shared<T> {
    /// Fresh memory.
    ///
    /// # Panics
    ///
    /// Without memory.
    pub fn new() -> Shared<T> {
        let (read_write, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping wherever the kernel likes.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<T>(), read_write, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        assert!(align_of::<T>() <= 4096);
        Shared(NonNull::new(at.cast()).expect("a mapping is not at nought"))
    }

    /// Where it is: mapped as long as this lives.
    pub fn at(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}
