//! Which descriptors of this process are ends of pipes. Whoever waits at one asks for the bell first, and has
//! but the number.

use crate::end::End;
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::fork::Mutex;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

static ENDS: Mutex<BTreeMap<RawFd, Weak<End>>> = Mutex::new(BTreeMap::new());

/// Enters an end that is new here. One that had the same descriptor before is gone.
pub(crate) fn enter(end: &Arc<End>) {
    // Whether the handler is registered: 0 or 1. No `Once`: a fork while another thread is inside would leave
    // it unfinished in the child for ever. Two threads may register it both, which does no harm.
    static AT_FORK: AtomicU32 = AtomicU32::new(0);
    // Relaxed: an end that is shared with another thread was entered before, after the handler was
    // registered.
    if AT_FORK.load(Ordering::Relaxed) == 0 {
        // Its own handlers first.
        drop(ENDS.lock());
        // SAFETY: the handler is a function of the program's lifetime; what it does is stated there.
        let result = unsafe { libc::pthread_atfork(None, None, Some(begin_anew)) };
        assert_eq!(result, 0, "no memory to register a fork handler");
        AT_FORK.store(1, Ordering::Relaxed);
    }
    ENDS.lock().insert(end.socket().as_raw_fd(), Arc::downgrade(end));
}

/// Runs in the child of a fork, on the one thread that it has. Whatever else comes before or after it: the
/// table is free, and who is in it is not changed.
extern "C" fn begin_anew() {
    for end in ENDS.lock().values().filter_map(Weak::upgrade) {
        end.begin_anew();
        // Somebody has it, and never lets go of it in this process: it is not dropped here, where the table
        // is locked.
        debug_assert!(Arc::strong_count(&end) > 1);
    }
}

/// Takes an end out, before its descriptor is closed.
pub(crate) fn leave(descriptor: BorrowedFd<'_>) {
    ENDS.lock().remove(&descriptor.as_raw_fd());
}

/// The end whose descriptor this is. `None` if it is another thing's.
pub(crate) fn end_of(descriptor: BorrowedFd<'_>) -> Option<Arc<End>> {
    ENDS.lock().get(&descriptor.as_raw_fd()).and_then(Weak::upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pipe, wait};
    use polyproc_testing::{Child, watchdog};
    use std::sync::mpsc;
    use std::time::Duration;

    /// By a thread that makes a pipe in this very moment, for instance.
    #[test]
    fn a_child_that_was_forked_while_they_were_locked_has_them_all() {
        let _dog = watchdog();
        let (here, there) = pipe::<u8, u8>().unwrap();
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || {
                let _ends = ENDS.lock();
                sender.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            });
            receiver.recv().unwrap();
            let child = Child::run(|| {
                let (own, other) = pipe::<u8, u8>().unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        for end in [&here, &own] {
                            std::thread::sleep(Duration::from_millis(10));
                            end.send(1).unwrap();
                        }
                    });
                    // The sender does not ring for who has not asked for it.
                    assert_eq!(wait(&[&other, &there], Duration::from_secs(10)).unwrap(), [1]);
                    there.recv().unwrap();
                    assert_eq!(wait(&[&other, &there], Duration::from_secs(10)).unwrap(), [0]);
                });
            });
            child.join();
        });
    }
}
