//! A child that greets, without an argument and with one.
//!
//! ```sh
//! cargo run --release --example hello
//! ```

use polyproc::Process;

fn hello() {
    println!("hello world");
}

fn hello_to(name: String) {
    println!("hello {name}");
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    Process::spawn(hello, ())?.join()?;
    Process::spawn(hello_to, ("bob".to_owned(),))?.join()?;
    Ok(())
}
