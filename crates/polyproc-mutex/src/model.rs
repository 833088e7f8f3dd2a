//! What the models of the lock can change about it: to show that a part is needed, or to reach one that is
//! rarely used.

use std::sync::Mutex;

static BLIND: Mutex<bool> = Mutex::new(false);
static PATIENCE: Mutex<u32> = Mutex::new(u32::MAX);

/// Whether new holders look at the census of waiters. Without that, a waiter that is woken and dies strands
/// the others.
pub fn be_blind(blind: bool) {
    *BLIND.lock().unwrap() = blind;
}

pub(crate) fn is_blind() -> bool {
    *BLIND.lock().unwrap()
}

/// How many useless wakes begin a new census.
pub fn set_patience(patience: u32) {
    *PATIENCE.lock().unwrap() = patience;
}

pub(crate) fn patience() -> u32 {
    *PATIENCE.lock().unwrap()
}
