//! Requests and replies of types of one's own, to several servers at once; one of them dies.
//!
//! ```sh
//! cargo run --release --example request_reply
//! ```

use polyproc::{Connection, Process, RecvError, pipe, wait};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Request {
    Square(u64),
    Crash,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    result: u64,
}

fn serve(requests: Connection<Reply, Request>) {
    for request in requests.iter() {
        match request.unwrap() {
            Request::Square(n) => requests.send(Reply { result: n * n }).unwrap(),
            Request::Crash => std::process::abort(),
        }
    }
}

fn main() -> polyproc::Result<()> {
    polyproc::init();
    let mut servers = Vec::new();
    for _ in 0..3 {
        let (here, there) = pipe::<Request, Reply>()?;
        servers.push((Process::spawn(serve, (there,))?, here));
    }
    for (n, (_, server)) in (0..).zip(&servers) {
        server.send(Request::Square(n + 10))?;
    }
    servers[1].1.send(Request::Crash)?;

    let mut open = vec![true; servers.len()];
    let mut replies = 0;
    while replies < 3 || open[1] {
        let waiting: Vec<usize> = (0..servers.len()).filter(|server| open[*server]).collect();
        let connections: Vec<_> = waiting.iter().map(|server| &servers[*server].1).collect();
        for ready in wait(&connections, None)? {
            let server = waiting[ready];
            match servers[server].1.recv() {
                Ok(reply) => {
                    println!("server {server}: {}", reply.result);
                    replies += 1;
                }
                Err(RecvError::Disconnected) => open[server] = false,
                Err(error) => return Err(error.into()),
            }
        }
    }
    for (server, (process, connection)) in servers.into_iter().enumerate() {
        drop(connection);
        match process.join() {
            Ok(()) => println!("server {server}: done"),
            Err(error) => println!("server {server}: {error}"),
        }
    }
    Ok(())
}
