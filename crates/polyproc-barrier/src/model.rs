//! What the models of the barrier see of it.

use crate::raw::RawBarrier;

/// Whether the first round is open, and no dead thread had come to it: then nobody but the test ends it.
pub fn is_untouched_by_the_dead(barrier: &RawBarrier) -> bool {
    barrier.is_untouched_by_the_dead()
}

/// The number of the round.
pub fn round(barrier: &RawBarrier) -> u32 {
    barrier.round()
}
