//! Four workers square numbers, as Python's `Pool.map` does.
//!
//! ```sh
//! cargo run --release --example pool_map
//! ```

use polyproc::Pool;

fn square(n: u64) -> u64 {
    n * n
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let pool = Pool::new(4)?;
    println!("{:?}", pool.map(square, 0..10)?);
    println!("{:?}", pool.starmap(u64::pow, [(2, 10), (3, 4)])?);

    // What goes wrong is one task's affair.
    let divided = pool.map(|n: u64| 100 / n, [5, 0, 20]);
    for (n, result) in divided.unwrap_err().into_results().into_iter().enumerate() {
        match result {
            Ok(quotient) => println!("task {n}: {quotient}"),
            Err(_) => println!("task {n}: failed"),
        }
    }
    pool.close();
    pool.join()?;
    Ok(())
}
