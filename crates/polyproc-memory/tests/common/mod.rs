//! What the tests share: shapes, memory files made by hand, a look at the process.
#![allow(dead_code, reason = "each test binary uses a part")]

use core::alloc::Layout;
use polyproc_memory::{Kind, Object, Shape};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, AtomicU64};

pub(crate) const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;

/// One u64 without a lock.
pub(crate) const NUMBER: Shape = Shape {
    kind: Kind::new("number"),
    code: b'Q',
    element: Layout::new::<u64>(),
    count: 1,
    payload: Layout::new::<u64>(),
    lock: false,
};

/// A lock of 64 bytes, without anything behind it.
pub(crate) const LOCK: Shape = Shape {
    kind: Kind::new("lock"),
    code: 0,
    element: Layout::new::<()>(),
    count: 1,
    payload: Layout::new::<[u64; 8]>(),
    lock: true,
};

/// So many bytes.
pub(crate) fn bytes(count: u64) -> Option<Shape> {
    let payload = Layout::array::<u8>(usize::try_from(count).ok()?).ok()?;
    Some(Shape {
        kind: Kind::new("bytes"),
        code: b'B',
        element: Layout::new::<u8>(),
        count,
        payload,
        lock: false,
    })
}

/// The u64 at the beginning of an object's payload.
pub(crate) fn number(object: &Object) -> &AtomicU64 {
    // SAFETY: every payload is aligned to 64 and, in these tests, has at least eight bytes, which only atomics touch.
    unsafe { object.payload().cast().as_ref() }
}

/// The futex word and the holder of an object that begins with a lock.
pub(crate) fn lock(object: &Object) -> (&AtomicU32, &AtomicU32) {
    // SAFETY: the object was made with the shape `LOCK`: 64 bytes, aligned to 64, which only atomics touch.
    let words: &[AtomicU32; 16] = unsafe { object.payload().cast().as_ref() };
    (&words[0], &words[2])
}

/// An empty memory file that can be sealed.
pub(crate) fn memfd(name: &core::ffi::CStr) -> File {
    // SAFETY: the name is a live C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0);
    // SAFETY: the kernel has just made it.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn seal(file: &File, seals: i32) {
    // SAFETY: this command takes an integer.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
}

pub(crate) fn seals(file: &impl AsRawFd) -> i32 {
    // SAFETY: this command takes no argument.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) }
}

/// A sealed memory file with this content.
pub(crate) fn sealed(content: &[u8]) -> OwnedFd {
    let file = memfd(c"by hand");
    file.write_all_at(content, 0).unwrap();
    seal(&file, SEALS);
    file.into()
}

/// The lines of /proc/self/maps with this text in them.
pub(crate) fn maps(text: &str) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// How many descriptors this process has.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs `f` in a forked child, which is killed after ten seconds. The result tells whether it returned true.
pub(crate) fn in_child(f: impl FnOnce() -> bool) -> Child {
    // SAFETY: the child runs `f`, which in these tests allocates, and takes no lock but those that are safe in a child.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: SIGALRM's default action ends the child.
        unsafe { libc::alarm(10) };
        let good = std::panic::catch_unwind(core::panic::AssertUnwindSafe(f)).unwrap_or(false);
        // SAFETY: ends the child without the harness's exit handlers.
        unsafe { libc::_exit(if good { 0 } else { 1 }) };
    }
    Child(pid)
}

/// Ends this child soon, and before anybody else if memory runs out: for those that ask for more than there is. If the
/// error does not come, nobody else is to suffer.
pub(crate) fn first_to_go() {
    std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
    // SAFETY: SIGALRM's default action ends the child.
    unsafe { libc::alarm(2) };
}

#[must_use]
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Waits for its end. Zero if it returned true.
    pub(crate) fn status(self) -> i32 {
        let mut status = 0;
        // SAFETY: waits for a child of this process that nobody else waits for.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        status
    }

    /// Asserts that it returned true.
    #[track_caller]
    pub(crate) fn succeeds(self) {
        assert_eq!(self.status(), 0, "wait status of the child");
    }
}
