//! Whole programs with a pool: what becomes of the workers when the program is killed, or interrupted at its terminal. Each
//! scenario is a run of this very file.

mod common;

use common::{spin, state, wait_until, watchdog};
use nix::pty::openpty;
use nix::sys::signal::{SigHandler, Signal};
use polyproc_pool::Pool;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Names the scenario to play. Workers inherit it, but never get that far.
const SCENARIO: &str = "POLYPROC_TEST_SCENARIO";

fn main() {
    polyproc_process::init();
    match std::env::var(SCENARIO).as_deref() {
        Err(_) => test(),
        Ok("works") => works(),
        Ok("handles_interrupts") => handles_interrupts(),
        Ok("exits") => exits(),
        Ok("panics") => panics(),
        Ok(other) => panic!("no scenario {other}"),
    }
}

fn test() {
    // A shell has its background jobs ignore it, and so would the programs.
    // SAFETY: the default disposition runs no code of this program.
    unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
    let tests: [(&str, fn()); 5] = [
        ("a_killed_program_leaves_no_worker", a_killed_program_leaves_no_worker),
        (
            "an_interrupt_ends_program_and_workers_in_silence",
            an_interrupt_ends_program_and_workers_in_silence,
        ),
        ("an_interrupt_that_is_handled_does_not_touch_the_workers", an_interrupt_that_is_handled),
        ("a_program_that_exits_leaves_no_worker", a_program_that_exits_leaves_no_worker),
        ("a_program_that_panics_leaves_no_worker", a_program_that_panics_leaves_no_worker),
    ];
    for (name, test) in tests {
        let _watchdog = watchdog();
        test();
        println!("test {name} ... ok");
    }
}

/// Says which its workers are, and has them work for ever.
fn works() {
    let pool = say_workers();
    let forever = |_: u32| loop {
        std::thread::sleep(Duration::from_secs(3600));
    };
    pool.map::<_, _, ()>(forever, 0..10).unwrap();
}

fn say_workers() -> Pool {
    let pool = Pool::new(3).unwrap();
    wait_until("all are ready", || pool.stats().workers.iter().all(|worker| worker.ready.is_some()));
    let pids: Vec<String> = pool.stats().workers.iter().map(|worker| worker.pid.to_string()).collect();
    println!("workers {}", pids.join(" "));
    std::io::stdout().flush().unwrap();
    pool
}

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Goes on until it was interrupted three times, and says whether all results were right.
fn handles_interrupts() {
    extern "C" fn count(_: i32) {
        INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler adds to an atomic, which is all.
    unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::Handler(count)) }.unwrap();
    let pool = say_workers();
    let task = |n: u64| {
        spin(Duration::from_micros(200));
        n + 1
    };
    for (expected, result) in (1..).zip(pool.imap(task, 0..)) {
        assert_eq!(result.unwrap(), expected);
        if INTERRUPTS.load(Ordering::Relaxed) >= 3 {
            break;
        }
    }
    assert_eq!(pool.stats().deaths, 0);
    println!("all right");
}

fn exits() {
    let _pool = say_workers();
    std::process::exit(0);
}

fn panics() {
    let _pool = say_workers();
    panic!("as planned");
}

fn command(scenario: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(SCENARIO, scenario);
    command
}

/// The workers that the program speaks of.
fn workers(output: &mut impl BufRead) -> Vec<u32> {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let pids: Vec<u32> =
        line.split_whitespace().skip(1).map(|pid| pid.parse().unwrap_or_else(|_| panic!("{line}"))).collect();
    assert_eq!(pids.len(), 3, "{line}");
    assert!(pids.iter().all(|&pid| state(pid).is_some()));
    pids
}

#[track_caller]
fn assert_gone(pids: &[u32]) {
    wait_until("the workers are gone", || pids.iter().all(|&pid| matches!(state(pid), None | Some('Z'))));
}

fn a_killed_program_leaves_no_worker() {
    let mut program = command("works").stdout(Stdio::piped()).spawn().unwrap();
    let pids = workers(&mut BufReader::new(program.stdout.take().unwrap()));
    program.kill().unwrap();
    assert_eq!(program.wait().unwrap().signal(), Some(9));
    assert_gone(&pids);
}

fn a_program_that_exits_leaves_no_worker() {
    let mut program = command("exits").stdout(Stdio::piped()).spawn().unwrap();
    let pids = {
        let mut line = String::new();
        BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.split_whitespace().skip(1).map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!((pids.len(), program.wait().unwrap().code()), (3, Some(0)));
    assert_gone(&pids);
}

fn a_program_that_panics_leaves_no_worker() {
    let mut program = command("panics").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<u32> = line.split_whitespace().skip(1).map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(program.wait().unwrap().code(), Some(101));
    assert_gone(&pids);
}

/// Starts it as the foreground of a terminal of its own, and returns that.
fn at_terminal(scenario: &str) -> (Child, std::fs::File) {
    let pty = openpty(None, None).unwrap();
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let number = pty.slave.as_raw_fd();
    let mut command = command(scenario);
    command.stdin(slave()).stdout(slave()).stderr(slave());
    let become_foreground = move || {
        nix::unistd::setsid()?;
        // SAFETY: takes numbers; the descriptor is the terminal's, which becomes the session's own.
        unsafe { nix::libc::ioctl(number, nix::libc::TIOCSCTTY, 0) };
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls, and nothing else.
    unsafe { command.pre_exec(become_foreground) };
    let program = command.spawn().unwrap();
    (program, std::fs::File::from(pty.master))
}

fn an_interrupt_ends_program_and_workers_in_silence() {
    let (mut program, terminal) = at_terminal("works");
    let mut output = BufReader::new(terminal.try_clone().unwrap());
    let pids = workers(&mut output);
    (&terminal).write_all(b"\x03").unwrap();
    assert_eq!(program.wait().unwrap().signal(), Some(2));
    assert_gone(&pids);
    let mut said = String::new();
    // The terminal is at its end, which it calls an error.
    let _ = output.read_to_string(&mut said);
    assert_eq!(said.trim(), "^C");
}

fn an_interrupt_that_is_handled() {
    let (mut program, terminal) = at_terminal("handles_interrupts");
    let mut output = BufReader::new(terminal.try_clone().unwrap());
    let pids = workers(&mut output);
    while program.try_wait().unwrap().is_none() {
        (&terminal).write_all(b"\x03").unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(program.wait().unwrap().code(), Some(0));
    assert_gone(&pids);
    let mut said = String::new();
    let _ = output.read_to_string(&mut said);
    assert!(said.contains("all right") && !said.contains("panicked"), "{said}");
}
