//! Starting a process that runs a function, and waiting for its end.

use polyproc::Process;
use polyproc_benches::{is_test, time_each};
use polyproc_rivals::adapters::python;
use polyproc_rivals::{Rivals, finish, rival};

fn square(number: u64) -> u64 {
    number * number
}

fn main() {
    polyproc::init();
    #[cfg(feature = "procspawn")]
    procspawn::init();
    let count = if is_test() { 2 } else { 100 };
    let mut table = Rivals::new("start a process with an argument and wait for its result")
        .ours("polyproc Process::spawn, join", || {
            time_each(count, || {
                let process = Process::spawn(square, (12,)).expect("a process");
                assert_eq!(process.join().expect("its end"), 144);
            })
        })
        .rival("std::thread::spawn, join", || {
            time_each(count, || assert_eq!(std::thread::spawn(|| square(12)).join().unwrap(), 144))
        });
    table = rival!(table, "procspawn", "procspawn::spawn, join", || {
        time_each(count, || {
            let mut process = procspawn::spawn(12, square);
            assert_eq!(process.join_timeout(std::time::Duration::from_secs(10)).expect("its result"), 144);
        })
    });
    if python::is_there() {
        for (name, subject) in [
            ("Python Process, fork", "fork"),
            ("Python Process, spawn", "spawn"),
            ("Python Process, forkserver", "forkserver"),
        ] {
            let fewer = if subject == "fork" { count } else { (count / 20).max(2) };
            table = table.rival(name, move || python::run("process.py", subject, &[fewer]));
        }
    }
    table.run();
    finish();
}
