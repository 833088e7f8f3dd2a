//! [`Number`]: what a lock is there for.

/// A number that nothing guards but what a model is about. If two threads are at it without an order between
/// them, loom says so, and under shuttle an increment is lost.
#[derive(Debug, Default)]
pub struct Number {
    #[cfg(polyproc_loom)]
    cell: loom::cell::UnsafeCell<u32>,
    #[cfg(polyproc_shuttle)]
    cell: shuttle::sync::atomic::AtomicU32,
}

// SAFETY: loom fails at an access that another is not ordered with, before it is made.
unsafe impl Sync for Number {}

#[cfg(polyproc_loom)]
impl Number {
    /// What it is.
    pub fn get(&self) -> u32 {
        // SAFETY: loom has looked whether somebody writes.
        self.cell.with(|number| unsafe { *number })
    }

    fn set(&self, number: u32) {
        // SAFETY: loom has looked whether somebody else reads or writes.
        self.cell.with_mut(|cell| unsafe { *cell = number });
    }
}

#[cfg(polyproc_shuttle)]
impl Number {
    /// What it is.
    pub fn get(&self) -> u32 {
        self.cell.load(shuttle::sync::atomic::Ordering::SeqCst)
    }

    fn set(&self, number: u32) {
        self.cell.store(number, shuttle::sync::atomic::Ordering::SeqCst);
    }
}

impl Number {
    /// Adds one, in two steps.
    pub fn increment(&self) {
        self.set(self.get() + 1);
    }
}
