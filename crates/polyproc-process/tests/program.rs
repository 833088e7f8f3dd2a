//! Whole programs, with a `main` that calls `init` itself. Each scenario is a run of this very file.

mod common;

use common::{sleep_for_ever, watchdog};
use polyproc_process::{Builder, JoinError, Process, SpawnError, active_children, init};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Names the scenario to play. Children inherit it, but never get that far.
const SCENARIO: &str = "POLYPROC_TEST_SCENARIO";

fn main() {
    let scenario = std::env::var(SCENARIO);
    // The one scenario in which a child does not do as it should.
    if scenario.as_deref() != Ok("forgets_init_in_the_child") || std::env::var_os("POLYPROC_CHILD").is_none()
    {
        init();
        // Again, to no effect.
        init();
    }
    match scenario.as_deref() {
        Err(_) => test(),
        Ok("nothing") => {}
        Ok("spawns") => spawns(),
        Ok("deletes_itself") => deletes_itself(),
        Ok("replaces_itself") => replaces_itself(),
        Ok("ignores_children") => ignores_children(),
        Ok("panics") => panics(),
        Ok("forgets_init_in_the_child") => forgets_init_in_the_child(),
        Ok("has_a_family") => has_a_family(),
        Ok(other) => panic!("no scenario {other}"),
    }
}

fn test() {
    let tests: [(&str, fn()); 8] = [
        ("a_program_spawns_from_main", a_program_spawns_from_main),
        ("a_deleted_program_still_finds_itself", a_deleted_program_still_finds_itself),
        ("a_replaced_program_still_finds_itself", a_replaced_program_still_finds_itself),
        ("a_program_may_ignore_its_children", a_program_may_ignore_its_children),
        ("a_main_that_panics_waits_for_its_children", a_main_that_panics_waits_for_its_children),
        ("a_child_that_forgets_init_does_not_start_itself_again", a_child_that_forgets_init),
        ("a_killed_family_leaves_nothing", a_killed_family_leaves_nothing),
        ("starting_costs_little_more_than_posix_spawn", starting_costs_little_more_than_posix_spawn),
    ];
    for (name, test) in tests {
        let _watchdog = watchdog();
        test();
        println!("test {name} ... ok");
    }
}

fn command(program: &Path, scenario: &str) -> Command {
    let mut command = Command::new(program);
    command.env(SCENARIO, scenario);
    command
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// What a scenario prints; it must end well.
fn play(program: &Path, scenario: &str) -> String {
    let output = command(program, scenario).output().unwrap();
    let (said, complaint) = texts(&output);
    assert!(output.status.success(), "{}: {complaint}", output.status);
    said
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn spawns() {
    let processes: Vec<_> = (0..4).map(|n: u64| Process::spawn(|n: u64| n * n, (n,)).unwrap()).collect();
    let squares: Vec<_> = processes.iter().map(|process| process.join().unwrap()).collect();
    println!("{squares:?}");
}

fn a_program_spawns_from_main() {
    assert_eq!(play(&this_program(), "spawns"), "[0, 1, 4, 9]\n");
}

/// A copy of this program that goes away with the value.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Copy {
        let path = std::env::temp_dir().join(format!("polyproc-test-{}-{name}", std::process::id()));
        std::fs::copy(this_program(), &path).unwrap();
        Copy(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn deletes_itself() {
    std::fs::remove_file(this_program()).unwrap();
    spawns();
}

fn a_deleted_program_still_finds_itself() {
    let copy = Copy::new("deleted");
    assert_eq!(play(&copy.0, "deletes_itself"), "[0, 1, 4, 9]\n");
    assert!(!copy.0.exists());
}

fn replaces_itself() {
    let path = this_program();
    let other = path.with_extension("new");
    std::fs::copy("/bin/true", &other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    spawns();
}

fn a_replaced_program_still_finds_itself() {
    let copy = Copy::new("replaced");
    assert_eq!(play(&copy.0, "replaces_itself"), "[0, 1, 4, 9]\n");
}

/// The kernel then waits for children itself, and nobody hears how they ended.
fn ignores_children() {
    // SAFETY: ignoring a signal runs no code in a handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let process = Process::spawn(|| 7, ()).unwrap();
    assert_eq!(process.join().unwrap(), 7);
    assert!(process.exit_status().is_none() && !process.is_alive());
    let process = Process::spawn(sleep_for_ever, ()).unwrap();
    assert!(process.is_alive());
    process.kill().unwrap();
    match process.join().unwrap_err() {
        JoinError::Io(error) => assert_eq!(error.raw_os_error(), Some(libc::ECHILD)),
        other => panic!("{other}"),
    }
    process.kill().unwrap();
    assert!(active_children().is_empty());
    println!("ignored");
}

fn a_program_may_ignore_its_children() {
    assert_eq!(play(&this_program(), "ignores_children"), "ignored\n");
}

fn panics() {
    let slow = || {
        std::thread::sleep(Duration::from_millis(150));
        println!("the child is done");
    };
    drop(Process::spawn(slow, ()).unwrap());
    panic!("main is done");
}

fn a_main_that_panics_waits_for_its_children() {
    let start = Instant::now();
    let mut main = command(&this_program(), "panics");
    let mut main = main.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(main.wait().unwrap().code(), Some(101));
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    let mut said = String::new();
    main.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "the child is done\n");
}

fn forgets_init_in_the_child() {
    match Process::spawn(|| 1, ()) {
        Ok(process) => {
            println!("main: {}", process.join().unwrap_err());
            println!("children: {}", active_children().len());
        }
        Err(SpawnError::NotInitialised) => {
            println!("child: refused");
            io::stdout().flush().unwrap();
            std::process::exit(5);
        }
        Err(other) => panic!("{other}"),
    }
}

fn a_child_that_forgets_init() {
    let said = play(&this_program(), "forgets_init_in_the_child");
    assert_eq!(said, "child: refused\nmain: exited with code 5 before its function returned\nchildren: 0\n");
}

/// Reports each member's id, and that it is there, then sleeps for ever.
fn has_a_family() {
    fn member(depth: u32) {
        println!("{}", std::process::id());
        io::stdout().flush().unwrap();
        if depth > 0 {
            for _ in 0..2 {
                drop(Builder::new().daemon(true).spawn(member, (depth - 1,)).unwrap());
            }
        }
        sleep_for_ever();
    }
    member(2);
}

fn a_killed_family_leaves_nothing() {
    let files = |folder: &str| {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name.to_string_lossy().contains("polyproc:"));
        names
    };
    let mut main = command(&this_program(), "has_a_family").stdout(Stdio::piped()).spawn().unwrap();
    let mut output = main.stdout.take().unwrap();
    let mut said = Vec::new();
    while said.iter().filter(|&&byte| byte == b'\n').count() < 7 {
        let mut bytes = [0; 100];
        let count = output.read(&mut bytes).unwrap();
        assert_ne!(count, 0);
        said.extend_from_slice(&bytes[..count]);
    }
    main.kill().unwrap();
    main.wait().unwrap();
    // All of them hold the pipe open: its end is the end of the last one.
    assert_eq!(output.read(&mut [0; 100]).unwrap(), 0);
    for folder in ["/dev/shm", &std::env::temp_dir().to_string_lossy()] {
        assert_eq!(files(folder), Vec::<std::ffi::OsString>::new());
    }
}

/// Prints the figures. It fails only if something is very wrong: other tests may run at the same time.
fn starting_costs_little_more_than_posix_spawn() {
    let program = this_program();
    let rounds = 60;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let process = Process::spawn(|| (), ()).unwrap();
        process.join().unwrap();
        ours.push(start.elapsed());
        // The same program, which is started by posix_spawn, and whose main returns at once.
        let mut nothing = command(&program, "nothing");
        let nothing = nothing.stdin(Stdio::null());
        let start = Instant::now();
        assert!(nothing.spawn().unwrap().wait().unwrap().success());
        theirs.push(start.elapsed());
    }
    ours.sort();
    theirs.sort();
    let (ours, theirs) = (ours[rounds / 2], theirs[rounds / 2]);
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("spawn + join {ours:?}, posix_spawn + wait {theirs:?}: {ratio:.2} x");
    assert!(ratio < 5.0);
}
