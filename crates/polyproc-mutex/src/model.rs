//! What the models of the lock can take out of it, to show that it is needed.

use std::sync::Mutex;

static BLIND: Mutex<bool> = Mutex::new(false);

/// Whether new holders look at the census of waiters. Without that, a waiter that is woken and dies strands the others.
pub fn be_blind(blind: bool) {
    *BLIND.lock().unwrap() = blind;
}

pub(crate) fn is_blind() -> bool {
    *BLIND.lock().unwrap()
}
