//! Five processes go through three rounds in lock step; one of them announces each round.
//!
//! ```sh
//! cargo run --release --example barrier
//! ```

use polyproc::{Barrier, Process};

fn party(barrier: Barrier) {
    for round in 1..=3 {
        if barrier.wait().unwrap().leader {
            println!("all have arrived for round {round}");
        }
        // Nobody begins the next round before it is announced.
        barrier.wait().unwrap();
    }
}

fn main() -> polyproc::Result<()> {
    polyproc::init();

    let barrier = Barrier::new(5)?;
    let parties = (0..5).map(|_| Process::spawn(party, (barrier.clone(),))).collect::<Result<Vec<_>, _>>()?;
    for party in parties {
        party.join()?;
    }
    Ok(())
}
