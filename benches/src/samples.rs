//! Times of single events, in memory that processes share: a child measures, its parent reads.

use polyproc_memory::{Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU64, Ordering};
use std::alloc::Layout;

/// Room for so many times in nanoseconds, all nought at first.
#[derive(Debug)]
pub struct Samples {
    object: Object,
    count: usize,
}

impl Samples {
    /// Room for `count` of them.
    ///
    /// # Panics
    ///
    /// Without memory.
    pub fn new(count: usize) -> Samples {
        let element = Layout::new::<AtomicU64>();
        let payload = Layout::array::<AtomicU64>(count).expect("a few samples");
        let shape =
            Shape { kind: Kind::new("samples"), code: 0, element, count: count as u64, payload, lock: false };
        Samples { object: Object::create(None, &shape).expect("memory for the samples"), count }
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: the payload holds so many, zeroed, and they are accessed as atomics only.
        unsafe { std::slice::from_raw_parts(self.object.payload().cast().as_ptr(), self.count) }
    }

    /// Notes one.
    ///
    /// # Panics
    ///
    /// If there is no such place.
    #[inline]
    pub fn note(&self, index: usize, nanos: u64) {
        // Relaxed: read after the process has ended.
        self.all()[index].store(nanos, Ordering::Relaxed);
    }

    /// All of them.
    pub fn nanos(&self) -> Vec<f64> {
        self.all().iter().map(|nanos| nanos.load(Ordering::Relaxed) as f64).collect()
    }
}
