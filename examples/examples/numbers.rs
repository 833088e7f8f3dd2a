//! Four processes, one number each. They run at the same time, so the order is theirs.
//!
//! ```sh
//! cargo run --release --example numbers
//! ```

use polyproc::Process;

fn print(number: i32) {
    println!("{number}");
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let processes = (0..4).map(|number| Process::spawn(print, (number,))).collect::<Result<Vec<_>, _>>()?;
    for process in processes {
        process.join()?;
    }
    Ok(())
}
