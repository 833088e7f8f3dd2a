//! What the models of the barrier see of it.

use crate::raw::RawBarrier;

/// Whether the first round is open, and this process, which is dead, had not come to it: then nobody but the
/// test ends it.
pub fn is_untouched_by(barrier: &RawBarrier, dead: u32) -> bool {
    barrier.is_untouched_by(dead)
}

/// The number of the round.
pub fn round(barrier: &RawBarrier) -> u32 {
    barrier.round()
}
