//! A bar in the terminal while many tasks are done.
//!
//! ```sh
//! cargo run --release --example pool_progress
//! ```

use polyproc::Pool;
use std::time::Duration;

fn simulate(seed: u64) -> f64 {
    std::thread::sleep(Duration::from_millis(seed % 20));
    (seed as f64).sqrt()
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let pool = Pool::new(4)?;
    let roots = pool.batch().progress().map(simulate, 0..400)?;
    println!("{:.3}", roots.iter().sum::<f64>());
    Ok(())
}
