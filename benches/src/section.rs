//! A critical section that takes a while: a busy loop in registers, the same code for everybody.

use crate::time_each;
use std::hint::black_box;

/// Turns of the loop that take so many nanoseconds.
pub fn turns(nanos: u64) -> u64 {
    const MANY: u64 = 1_000_000;
    // The fastest of some: what is measured while others run would make the sections too short.
    let fastest = (0..7).map(|_| time_each(1, || work(MANY))).fold(f64::INFINITY, f64::min);
    (nanos as f64 * MANY as f64 / fastest) as u64
}

/// So many turns, in which each waits for the one before.
#[inline(never)]
pub fn work(turns: u64) {
    let mut number = black_box(1u64);
    for _ in 0..turns {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_no_less_than_it_should() {
        let turns = turns(1000);
        let fastest = (0..20).map(|_| time_each(100, || work(turns))).fold(f64::INFINITY, f64::min);
        assert!(fastest > 900.0, "{turns} turns take {fastest} ns");
    }
}
