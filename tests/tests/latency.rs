//! A killed holder's lock reaches the next waiter at once.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test latency -- --nocapture
//! ```

use polyproc_tests::latency;
use std::time::Duration;

/// A busy machine can delay any wake. A lock that needed its backstop would be at 250 ms each time.
const BATCHES: u32 = 3;

#[test]
fn killed_holders_lock_reaches_the_next_waiter_within_a_millisecond() {
    let bound = Duration::from_millis(1);
    let mut best = Duration::MAX;
    for _ in 0..BATCHES {
        let latencies = latency::measure(1000);
        println!("{latencies}");
        best = best.min(latencies.per_mille(990));
        if best <= bound {
            return;
        }
    }
    panic!("the 99th percentile is {best:?} at best, in {BATCHES} batches");
}
