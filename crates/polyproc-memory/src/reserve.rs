//! The reserve of an object that grows: addresses that become memory when they are wanted.
//!
//! ```text
//!           allocated          not allocated      allocated     not allocated
//! | object  | #################| - - - - - - - - -|#############| - - - - - - - - - - - |
//!           ^ reserve().0                                                               ^ .0 + .1
//! ```
//!
//! The reserve is a part of the memory file and of each process's mapping of it from the beginning, so nobody
//! ever maps anything again, no address changes, and there is nothing to tell the others but which pages are
//! allocated. That is for the object to keep in its payload.

use crate::error::CreateError;
use crate::memfd;
use crate::object::Object;
use crate::shape::Shape;
use core::ptr::NonNull;
use std::io;

/// # Memory in reserve
impl Object {
    /// Makes an object in a region of its own, with a reserve behind it: `reserve` bytes, rounded up to whole
    /// pages, that have addresses in each process, and are no memory yet.
    ///
    /// A byte of the reserve may be touched after it was [allocated](Object::allocate), and not before, nor
    /// after it was [given back](Object::give_back). Touching it nevertheless is not noticed as long as there
    /// is memory: the kernel allocates what is touched, be it only read. When there is none, that kills: a
    /// process that the kernel chooses, or this one (`SIGBUS`).
    ///
    /// A reserve costs addresses, two more system calls, and no memory; 64 GiB hardly more than 64 KiB. It is
    /// left out of core dumps, because a dump would allocate what it reads. It counts where a program's
    /// address space is limited (`ulimit -v`). A program that locks all its future memory (`mlockall` with
    /// `MCL_FUTURE`) should not have one: the kernel would allocate all of it for the lock.
    ///
    /// # Errors
    ///
    /// As [`create`](Object::create). The object and its reserve together can be too large to count
    /// (`TooLarge`), for the address space (`Mapping`), or for the process's limit for a file (`FileSize`).
    /// Who receives the object gets an [`AttachError::Io`](crate::AttachError) with a `Mapping` in it if the
    /// address space there has no room.
    ///
    /// # Examples
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use polyproc_memory::{Kind, Object, Shape};
    ///
    /// let layout = Layout::new::<u64>();
    /// let kind = Kind::new("log");
    /// let shape = Shape { kind, code: 0, element: layout, count: 1, payload: layout, lock: false };
    /// let object = Object::with_reserve(&shape, 64 << 30)?;
    /// let (reserve, length) = object.reserve();
    /// assert_eq!(length, 64 << 30);
    ///
    /// object.allocate(1 << 20, 1 << 20)?;
    /// // SAFETY: this place lies within what was allocated, and nobody else has the object.
    /// unsafe { reserve.add((2 << 20) - 1).write(7) };
    ///
    /// object.give_back(1 << 20, 1 << 20)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn with_reserve(shape: &Shape, reserve: usize) -> io::Result<Object> {
        Object::make(None, shape, reserve as u64)
    }

    /// Where its reserve lies in this process, aligned to a page, and how many bytes it has. Without a
    /// reserve these are zero, and the address is of no use.
    ///
    /// The length is this process's own copy: it was checked against the size of the memory file, and nobody
    /// can change either. It is that of the region, so that an object that was made with a certain reserve
    /// had better check on receipt that it has it.
    pub fn reserve(&self) -> (NonNull<u8>, usize) {
        self.region().mapping().reserve()
    }

    /// Puts memory behind `length` bytes of the reserve, from `offset` on. Both are whole pages.
    ///
    /// After that, and until it is given back, touching these bytes is as safe as touching the payload, in
    /// every process. They are zero, except where they were allocated before: there they stay as they are.
    ///
    /// It takes about a quarter of a millisecond a mebibyte, and half of that where it is allocated already;
    /// the first touch of each page in each process costs a page fault on top, as always. It waits for nobody
    /// but the kernel, which lets one process at a time allocate or give back in one region, in steps of two
    /// mebibytes. A process that is killed in here has allocated a part of it.
    ///
    /// # Errors
    ///
    /// [`CreateError`] in an [`io::Error`]. On an error a part of it may be allocated; it can be tried again.
    ///
    /// - `Reserve`: these bytes are not whole pages, or not within the reserve.
    /// - `Memory`: there is not as much memory. Before the process allocates two mebibytes, at once or in
    ///   pieces, it looks whether they are available in the system, and in the control groups of version 2
    ///   that it is in; allocated already or not. What the look misses the kernel finds out: a system that
    ///   does not overcommit refuses (`ENOSPC`), and so may one that would have to swap what it has just
    ///   allocated (`ENOMEM`). But a system or a control group may also kill a process of its choice, as with
    ///   all memory: if others take what the look saw, or the group is of version 1.
    ///
    /// The limit for the size of files (`RLIMIT_FSIZE`) has no say here, and there is no `SIGXFSZ`: the file
    /// has its size already. A signal that interrupts does not show.
    pub fn allocate(&self, offset: usize, length: usize) -> io::Result<()> {
        let from = self.place(offset, length)?;
        memfd::allocate_more(self.region().mapping().file(), from, length as u64)
    }

    /// Gives `length` bytes of the reserve, from `offset` on, back to the system. Both are whole pages.
    ///
    /// What was in them is gone, in every process: their content, and the memory. Allocated again, they are
    /// zero. The caller sees to it that nobody uses them any more, and that nobody allocates them at the same
    /// time. Giving back what is not allocated does nothing.
    ///
    /// It takes less time than allocating the same, next to none for what is not allocated, and waits for
    /// nobody but the kernel, as [`allocate`](Object::allocate) does. The kernel finishes it even if the
    /// process is killed meanwhile.
    ///
    /// # Errors
    ///
    /// [`CreateError::Reserve`] in an [`io::Error`] if these bytes are not whole pages, or not within the
    /// reserve.
    pub fn give_back(&self, offset: usize, length: usize) -> io::Result<()> {
        let from = self.place(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        memfd::punch(self.region().mapping().file(), from, length as u64)
    }

    /// Where these bytes of the reserve are in the memory file.
    fn place(&self, offset: usize, length: usize) -> Result<u64, CreateError> {
        let page = memfd::page_size();
        let (offset, length) = (offset as u64, length as u64);
        let (start, reserve) = self.region().mapping().geometry().reserve(page);
        let whole = offset.is_multiple_of(page.into()) && length.is_multiple_of(page.into());
        if whole && offset <= reserve && length <= reserve - offset {
            Ok(start + offset)
        } else {
            Err(CreateError::Reserve { offset, length, reserve })
        }
    }
}
