//! The simulated thread's identity.

use super::RECORD;

/// The calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Current(u32);

/// The calling thread.
pub fn current() -> Current {
    Current(RECORD.with(|record| record.tid.get()))
}

/// The calling thread.
#[allow(clippy::missing_safety_doc)]
pub unsafe fn registered() -> Current {
    current()
}

/// The calling thread's process: it is alone there.
pub fn pid() -> u32 {
    current().0
}

/// The calling thread's token.
pub fn token() -> u64 {
    current().token()
}

/// Nobody forks in a model.
pub fn forks() -> u32 {
    0
}

#[allow(missing_docs)]
impl Current {
    pub fn tid(self) -> u32 {
        self.0
    }
    pub fn pid(self) -> u32 {
        self.0
    }
    pub fn token(self) -> u64 {
        u64::from(self.0)
    }
}
