//! Results in order, each as soon as it is there; the input has no end.
//!
//! ```sh
//! cargo run --release --example pool_imap
//! ```

use polyproc::Pool;
use std::time::Duration;

fn slow_square(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(20 * (5 - n % 5)));
    n * n
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let pool = Pool::new(4)?;
    for square in pool.imap(slow_square, 0..).take(10) {
        println!("{}", square?);
    }
    Ok(())
}
