//! Doubles 100 million numbers in shared memory, in place: alone, and by a pool. No number is copied anywhere.
//!
//! ```sh
//! cargo run --release --example parallel_array
//! ```
//!
//! The work is next to nothing, so it is memory that limits both. What a process touches for the first time takes longer, so
//! the best of a few passes counts.

use polyproc::{Array, Pool, cpu_count};
use std::time::{Duration, Instant};

const COUNT: usize = 100_000_000;
const PASSES: u32 = 5;

fn double(part: &mut [u32]) {
    part.iter_mut().for_each(|n| *n = n.wrapping_mul(2));
}

/// The shortest of some passes.
fn best(mut pass: impl FnMut() -> polyproc::Result<()>) -> polyproc::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..PASSES {
        let start = Instant::now();
        pass()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let array = Array::<u32>::zeroed(COUNT)?;
    let pool = Pool::new(cpu_count())?;
    let mut numbers = array.lock()?;
    numbers.iter_mut().zip(1..).for_each(|(n, index)| *n = index);

    let alone = best(|| {
        double(&mut numbers);
        Ok(())
    })?;
    let together = best(|| Ok(pool.for_each_chunk(&mut numbers, COUNT / 64, double)?))?;

    assert!(numbers.iter().zip(1u32..).all(|(n, index)| *n == index << (2 * PASSES)));
    println!("{COUNT} numbers, doubled {} times", 2 * PASSES);
    eprintln!(
        "alone {alone:.1?}, by {} workers {together:.1?}: {:.2} times as fast",
        cpu_count(),
        alone.as_secs_f64() / together.as_secs_f64()
    );
    Ok(())
}
