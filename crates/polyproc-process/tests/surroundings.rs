//! What a process finds around it: its name, environment, arguments, streams, descriptors and signals.

mod common;

use common::{Fd, open_descriptors, watchdog};
use polyproc_process::{
    Builder, Process, SpawnError, Stdio, current_process, init_for_tests, without_close_from,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

init_for_tests!();

fn my_name() -> String {
    current_process().name().into()
}

#[test]
fn names_nest_and_count_from_one_in_each_process() {
    let _watchdog = watchdog();
    fn parent() -> (String, Vec<String>) {
        let first = Process::spawn(my_name, ()).unwrap();
        let grandparent = || Process::spawn(my_name, ()).unwrap().join().unwrap();
        let second = Process::spawn(grandparent, ()).unwrap();
        let third = Builder::new().name("chosen").spawn(my_name, ()).unwrap();
        let fourth = Process::spawn(my_name, ()).unwrap();
        let mut names =
            vec![first.name().into(), second.name().into(), third.name().into(), fourth.name().into()];
        for process in [first, second, third, fourth] {
            names.push(process.join().unwrap());
        }
        (my_name(), names)
    }
    let process = Process::spawn(parent, ()).unwrap();
    let (name, names) = process.join().unwrap();
    assert_eq!(name, process.name());
    let number = name.strip_prefix("Process-").unwrap();
    assert!(number.parse::<u32>().unwrap() >= 1, "{name}");
    let child = |path: &str| format!("{name}:{path}");
    let expected = [
        child("1"),
        child("2"),
        "chosen".into(),
        child("4"),
        child("1"),
        child("2:1"),
        "chosen".into(),
        child("4"),
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_main_process_is_called_so() {
    let main = current_process();
    assert_eq!((main.name(), main.pid(), main.parent_pid()), ("MainProcess", std::process::id(), None));
    assert!(!main.is_daemon());
}

#[test]
fn a_process_knows_itself_and_its_parent() {
    let _watchdog = watchdog();
    fn who() -> (u32, Option<u32>, bool) {
        let me = current_process();
        (me.pid(), me.parent_pid(), me.is_daemon())
    }
    let process = Process::spawn(who, ()).unwrap();
    assert_eq!(process.join().unwrap(), (process.pid(), Some(std::process::id()), false));
    let process = Builder::new().daemon(true).spawn(who, ()).unwrap();
    assert!(process.is_daemon());
    assert_eq!(process.join().unwrap(), (process.pid(), Some(std::process::id()), true));
}

#[test]
fn standard_input_is_empty() {
    let _watchdog = watchdog();
    fn input() -> (PathBuf, usize) {
        let count = io::stdin().read_to_end(&mut Vec::new()).unwrap();
        (std::fs::read_link("/proc/self/fd/0").unwrap(), count)
    }
    assert_eq!(Process::spawn(input, ()).unwrap().join().unwrap(), ("/dev/null".into(), 0));
}

#[test]
fn the_environment_is_inherited_and_changed() {
    let _watchdog = watchdog();
    fn variables(names: Vec<String>) -> Vec<Option<String>> {
        names.into_iter().map(|name| std::env::var(name).ok()).collect()
    }
    let process = Builder::new()
        .env("POLYPROC_TEST_SET", "two words = one value")
        .env("POLYPROC_TEST_GONE", "x")
        .env_remove("POLYPROC_TEST_GONE")
        .env_remove("HOME")
        .spawn(
            variables,
            (["PATH", "POLYPROC_TEST_SET", "POLYPROC_TEST_GONE", "HOME"].map(String::from).to_vec(),),
        )
        .unwrap();
    let expected = vec![std::env::var("PATH").ok(), Some("two words = one value".into()), None, None];
    assert_eq!(process.join().unwrap(), expected);
}

#[test]
fn impossible_environments_are_refused() {
    for (name, value) in [("A=B", "x"), ("", "x"), ("A", "x\0y"), ("A\0", "x")] {
        let error = Builder::new().env(name, value).spawn(|| (), ()).unwrap_err();
        assert!(matches!(&error, SpawnError::Environment { name: given } if given == name), "{error}");
    }
}

#[test]
fn streams_lead_where_they_were_told() {
    let _watchdog = watchdog();
    fn shout() {
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        println!("{}", line.to_uppercase());
        eprintln!("{}", line.len());
    }
    let process = Builder::new()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn(shout, ())
        .unwrap();
    process.take_stdin().unwrap().write_all(b"hello\n").unwrap();
    assert!(process.take_stdin().is_none());
    let (mut out, mut err) = (String::new(), String::new());
    process.take_stdout().unwrap().read_to_string(&mut out).unwrap();
    process.take_stderr().unwrap().read_to_string(&mut err).unwrap();
    process.join().unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("HELLO\n\n", "6\n"));
}

#[test]
fn streams_can_lead_to_files_and_pipes() {
    let _watchdog = watchdog();
    fn copy() {
        io::copy(&mut io::stdin(), &mut io::stdout()).unwrap();
        io::copy(&mut &b"error"[..], &mut io::stderr()).unwrap();
    }
    let (input, mut to_input) = io::pipe().unwrap();
    let (mut from_output, output) = io::pipe().unwrap();
    let process = Builder::new()
        .stdin(input)
        .stdout(output)
        .stderr(File::options().write(true).open("/dev/null").unwrap())
        .spawn(copy, ())
        .unwrap();
    to_input.write_all(b"through two pipes").unwrap();
    drop(to_input);
    let mut said = String::new();
    from_output.read_to_string(&mut said).unwrap();
    process.join().unwrap();
    assert_eq!(said, "through two pipes");
}

#[test]
fn join_closes_a_standard_input_that_nobody_took() {
    let _watchdog = watchdog();
    fn count() -> usize {
        io::stdin().read_to_end(&mut Vec::new()).unwrap()
    }
    let process = Builder::new().stdin(Stdio::piped()).spawn(count, ()).unwrap();
    assert_eq!(process.join().unwrap(), 0);
}

#[test]
fn arguments_and_directory_are_the_parents() {
    let _watchdog = watchdog();
    fn look() -> (Vec<String>, PathBuf, String) {
        let title = std::fs::read_to_string("/proc/self/comm").unwrap();
        (std::env::args().collect(), std::env::current_dir().unwrap(), title.trim_end().into())
    }
    let (arguments, directory, title) = Process::spawn(look, ()).unwrap().join().unwrap();
    assert_eq!(arguments, std::env::args().collect::<Vec<_>>());
    assert_eq!(directory, std::env::current_dir().unwrap());
    let program = PathBuf::from(&arguments[0]).file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(title, program[..program.len().min(15)]);
}

/// The descriptors of a child of a process that holds one which it has forgotten to protect.
fn descriptors_of_a_child(_: ()) -> Vec<(i32, String)> {
    // SAFETY: duplicates standard error, for programs to inherit, as C code does.
    let careless = unsafe { libc::dup(2) };
    // SAFETY: made above.
    let _careless = unsafe { OwnedFd::from_raw_fd(careless) };
    let descriptors = Builder::new().spawn(open_descriptors, ()).unwrap().join().unwrap();
    assert!(open_descriptors().iter().any(|(number, _)| *number == careless));
    descriptors
}

#[test]
fn no_descriptor_leaks_into_a_child() {
    let _watchdog = watchdog();
    fn without(_: ()) -> Vec<(i32, String)> {
        without_close_from(true);
        descriptors_of_a_child(())
    }
    for descriptors in [
        Process::spawn(descriptors_of_a_child, ((),)).unwrap().join().unwrap(),
        Process::spawn(without, ((),)).unwrap().join().unwrap(),
    ] {
        // Streams, control socket, the parent's pidfd.
        let numbers: Vec<_> = descriptors.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4], "{descriptors:?}");
        assert!(descriptors[3].1.starts_with("socket:"), "{descriptors:?}");
        assert!(descriptors[4].1.contains("pidfd"), "{descriptors:?}");
    }
}

#[test]
fn no_descriptor_stays_behind_in_the_parent() {
    let _watchdog = watchdog();
    fn spawn_many(large: bool) -> (usize, usize) {
        let spawn = || {
            let size = if large { 100_000 } else { 10 };
            let arguments = (vec![1u8; size], Fd::of(io::stdout()));
            let sum = |bytes: Vec<u8>, _: Fd| bytes;
            let process = Builder::new().stdout(Stdio::piped()).spawn(sum, arguments).unwrap();
            assert_eq!(process.join().unwrap().len(), size);
        };
        spawn();
        let before = open_descriptors().len();
        for _ in 0..50 {
            spawn();
        }
        (before, open_descriptors().len())
    }
    for large in [false, true] {
        let (before, after) = Process::spawn(spawn_many, (large,)).unwrap().join().unwrap();
        assert_eq!(before, after);
    }
}

#[test]
fn descriptors_with_the_numbers_of_streams_are_not_overwritten() {
    let _watchdog = watchdog();
    /// Closes its streams, so that the next descriptors get their numbers.
    fn careless() -> String {
        for stream in [0, 1] {
            // SAFETY: nobody uses it afterwards as what it was.
            unsafe { libc::close(stream) };
        }
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!((reader.as_raw_fd(), writer.as_raw_fd()), (0, 1));
        // In the child, 1 becomes `/dev/null` before 2 becomes what is 1 here.
        let say = || eprint!("from the grandchild");
        let process = Builder::new().stdout(Stdio::null()).stderr(writer).spawn(say, ()).unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        process.join().unwrap();
        said
    }
    assert_eq!(Process::spawn(careless, ()).unwrap().join().unwrap(), "from the grandchild");
}

#[test]
fn no_signal_is_blocked_and_broken_pipes_are_errors() {
    let _watchdog = watchdog();
    fn look() -> (String, io::ErrorKind) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        (blocked.trim().into(), writer.write_all(b"x").unwrap_err().kind())
    }
    let look = || {
        let (blocked, kind) = look();
        (blocked, kind == io::ErrorKind::BrokenPipe)
    };
    let all = nix::sys::signal::SigSet::all();
    let before = all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK).unwrap();
    let process = Process::spawn(look, ());
    before.thread_set_mask().unwrap();
    assert_eq!(process.unwrap().join().unwrap(), ("0000000000000000".into(), true));
}

/// What another program, started by a child in the usual way, says its name is.
fn name_in_another_program(marker: Option<String>) -> (String, String, Option<i32>) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "another_program", "--nocapture"]).env("POLYPROC_TEST_PROGRAM", "1");
    if let Some(marker) = marker {
        command.env("POLYPROC_CHILD", marker);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Only does something when the tests below start it.
#[test]
fn another_program() {
    if std::env::var_os("POLYPROC_TEST_PROGRAM").is_some() {
        println!("I am {} and my child says {:?}", my_name(), Process::spawn(|| 5, ()).unwrap().join());
    }
}

#[test]
fn an_inherited_marker_harms_nobody() {
    let _watchdog = watchdog();
    let (said, _, code) = Process::spawn(name_in_another_program, (None,)).unwrap().join().unwrap();
    assert!(said.contains("I am MainProcess and my child says Ok(5)"), "{said}");
    assert_eq!(code, Some(0));
}

#[test]
fn malformed_markers_are_ignored() {
    let _watchdog = watchdog();
    for marker in ["", "3", "nonsense", "3:1:1:1", "-1:1:1:1", "0:0:0:0"] {
        let (said, _, code) = name_in_another_program(Some(marker.into()));
        assert!(said.contains("I am MainProcess and my child says Ok(5)"), "{marker:?}: {said}");
        assert_eq!(code, Some(0));
    }
}

#[test]
fn a_child_whose_control_socket_is_gone_does_not_run_main() {
    let _watchdog = watchdog();
    let marker = format!("3:1:1:{}", std::process::id());
    let (said, complaint, code) = name_in_another_program(Some(marker));
    assert_eq!(said, "");
    assert_eq!(complaint, "polyproc: something closed descriptor 3 before `init()` was called\n");
    assert_eq!(code, Some(69));
}
