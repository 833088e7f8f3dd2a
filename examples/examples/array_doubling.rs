//! A child doubles the elements of a shared array; the parent sees them doubled.
//!
//! ```sh
//! cargo run --release --example array_doubling
//! ```

use polyproc::{Array, Process};

fn double(numbers: Array<i32>) {
    for number in numbers.lock().unwrap().iter_mut() {
        *number *= 2;
    }
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let numbers = Array::new(&[1, 2, 3, 4, 5])?;
    Process::spawn(double, (numbers.clone(),))?.join()?;

    println!("{:?}", numbers.to_vec()?);
    Ok(())
}
