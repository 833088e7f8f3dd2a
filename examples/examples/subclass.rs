//! What a subclass of Python's `Process` with a `run` method is here: a struct that is the argument, and its method that
//! is the function.
//!
//! ```sh
//! cargo run --release --example subclass
//! ```

use polyproc::Process;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Greeter {
    name: String,
}

impl Greeter {
    /// Runs in the child.
    fn run(self) {
        println!("hello from {}", self.name);
    }

    /// Runs in the parent.
    fn start(self) -> Result<Process<()>, polyproc::SpawnError> {
        Process::spawn(Greeter::run, (self,))
    }
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let greeter = Greeter { name: "a child".to_owned() };
    greeter.start()?.join()?;
    Ok(())
}
