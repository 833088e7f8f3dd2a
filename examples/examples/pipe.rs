//! A connection to a child: it says hello, and is answered.
//!
//! ```sh
//! cargo run --release --example pipe
//! ```

use polyproc::{Connection, Process, pipe};

fn greet(connection: Connection<String, String>) {
    while let Ok(name) = connection.recv() {
        connection.send(format!("hello, {name}")).unwrap();
    }
    // The parent has dropped its end: nothing comes any more.
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let (here, there) = pipe::<String, String>()?;
    let child = Process::spawn(greet, (there,))?;
    for name in ["world", "Wörld", ""] {
        here.send(name.to_owned())?;
        println!("{:?}", here.recv()?);
    }
    drop(here);
    child.join()?;
    Ok(())
}
