//! Which descriptors of this process are ends of pipes. Whoever waits at one asks for the bell first, and has but the number.

use crate::end::End;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::Duration;

type Ends = BTreeMap<RawFd, Weak<End>>;

static ENDS: Mutex<Ends> = Mutex::new(BTreeMap::new());

/// Nobody is inside for longer than a few instructions; but a child that was forked meanwhile finds it locked for ever.
fn ends() -> Option<MutexGuard<'static, Ends>> {
    for _ in 0..2000 {
        match ENDS.try_lock() {
            Ok(ends) => return Some(ends),
            Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(50)),
        }
    }
    None
}

/// Enters an end that is new here. One that had the same descriptor before is gone.
pub(crate) fn enter(end: &Arc<End>) {
    if let Some(mut ends) = ends() {
        ends.insert(end.socket().as_raw_fd(), Arc::downgrade(end));
    }
}

/// Takes an end out, before its descriptor is closed.
pub(crate) fn leave(descriptor: BorrowedFd<'_>) {
    if let Some(mut ends) = ends() {
        ends.remove(&descriptor.as_raw_fd());
    }
}

/// The end whose descriptor this is. `None` if it is another thing's.
pub(crate) fn end_of(descriptor: BorrowedFd<'_>) -> io::Result<Option<Arc<End>>> {
    let ends =
        ends().ok_or_else(|| io::Error::other("forked while another thread made or dropped a pipe"))?;
    Ok(ends.get(&descriptor.as_raw_fd()).and_then(Weak::upgrade))
}
