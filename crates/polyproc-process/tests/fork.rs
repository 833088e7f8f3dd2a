//! `fork`, in processes of one thread: the tests run it in spawned children, because the test harness has many.

mod common;

use common::{Fd, open_descriptors, sleep_for_ever, watchdog};
use polyproc_memory::Arena;
use polyproc_process::{
    Builder, JoinError, Process, Stdio, active_children, current_process, init_for_tests, parent_process,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

init_for_tests!();

fn fork<R: Serialize + DeserializeOwned>(f: impl FnOnce() -> R) -> Process<R> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert_eq!(threads, 1);
    // SAFETY: this process has one thread, as just seen.
    unsafe { Process::fork(f) }.unwrap()
}

/// Runs the test in a process of its own.
fn alone<R: Serialize + DeserializeOwned>(test: impl polyproc_process::Function<(), Output = R>) -> R {
    Builder::new().spawn(test, ()).unwrap().join().unwrap()
}

#[test]
fn what_is_captured_is_there_and_the_value_comes_back() {
    let _watchdog = watchdog();
    alone(|| {
        let text = "captured".to_string();
        let process = fork(|| text.clone() + " and returned");
        assert_eq!(process.join().unwrap(), "captured and returned");
        assert!(process.exit_status().unwrap().success());
        let large = vec![7u8; 1 << 20];
        assert!(fork(|| large.clone()).join().unwrap() == large);
    });
}

#[test]
fn a_forked_child_has_a_name_and_a_parent() {
    let _watchdog = watchdog();
    alone(|| {
        let me = current_process();
        let forked = || {
            let (child, parent) = (current_process(), parent_process().unwrap());
            let nested = fork(|| current_process().name().to_string()).join().unwrap();
            (child.name().to_string(), nested, child.pid(), parent.pid(), parent.is_alive())
        };
        let process = fork(forked);
        let name = format!("{}:1", me.name());
        assert_eq!(process.name(), name);
        let expected = (name.clone(), format!("{name}:1"), process.pid(), me.pid(), true);
        assert_eq!(process.join().unwrap(), expected);
        assert_eq!(fork(|| ()).name(), format!("{}:2", me.name()));
    });
}

#[test]
fn it_ends_as_others_do() {
    let _watchdog = watchdog();
    let quiet = Builder::new().stderr(Stdio::piped()).spawn(
        || {
            let panicked = fork(|| -> u8 { panic!("forked and lost") });
            match panicked.join().unwrap_err() {
                JoinError::Panicked { message, location } => {
                    assert_eq!(message, "forked and lost");
                    assert!(location.contains("fork.rs:"), "{location}");
                }
                other => panic!("{other}"),
            }
            assert_eq!(panicked.exit_status().unwrap().code(), Some(101));
            let exited = fork(|| -> u8 { std::process::exit(4) });
            assert!(matches!(exited.join().unwrap_err(), JoinError::Exited(4)));
            let killed = fork(sleep_for_ever);
            assert!(matches!(
                killed.join_timeout(Duration::from_millis(5)).unwrap_err(),
                JoinError::TimedOut
            ));
            killed.kill().unwrap();
            assert!(matches!(killed.join().unwrap_err(), JoinError::Signaled(libc::SIGKILL)));
            assert_eq!(killed.exit_status().unwrap().signal(), Some(libc::SIGKILL));
        },
        (),
    );
    let quiet = quiet.unwrap();
    let mut said = String::new();
    quiet.take_stderr().unwrap().read_to_string(&mut said).unwrap();
    let mentions = said.matches("forked and lost").count();
    assert_eq!((mentions, said.matches("\nprocess ").count()), (1, 1), "{said}");
    quiet.join().unwrap();
}

#[test]
fn a_panic_of_the_parent_is_not_the_childs() {
    let _watchdog = watchdog();
    let parent = || {
        // In this process, a spawned child, the hook notes it.
        std::panic::catch_unwind(|| panic!("told twice")).unwrap_err();
        let process = fork(|| -> u8 { std::panic::resume_unwind(Box::new("told twice")) });
        match process.join().unwrap_err() {
            JoinError::Panicked { location, .. } => location,
            other => panic!("{other}"),
        }
    };
    let process = Builder::new().stderr(Stdio::null()).spawn(parent, ()).unwrap();
    assert_eq!(process.join().unwrap(), "unknown place");
}

#[test]
fn exit_handlers_of_the_parent_do_not_run_in_the_child() {
    let _watchdog = watchdog();
    extern "C" fn say() {
        // SAFETY: the bytes are valid, and descriptor 1 is ours.
        unsafe { libc::write(1, b"handler ".as_ptr().cast(), 8) };
    }
    fn parent() {
        // SAFETY: the handler is a function of the program.
        unsafe { libc::atexit(say) };
        print!("printed once ");
        fork(|| print!("by the child ")).join().unwrap();
    }
    let process = Builder::new().stdout(Stdio::piped()).spawn(parent, ()).unwrap();
    let mut said = String::new();
    process.take_stdout().unwrap().read_to_string(&mut said).unwrap();
    process.join().unwrap();
    assert_eq!(said, "printed once by the child handler ");
}

#[test]
fn a_forked_child_can_spawn_and_waits_for_its_own() {
    let _watchdog = watchdog();
    fn slow(pipe: Fd) {
        std::thread::sleep(Duration::from_millis(150));
        pipe.file().write_all(b"done").unwrap();
    }
    alone(|| {
        let (mut reader, writer) = io::pipe().unwrap();
        let start = Instant::now();
        let process = fork(|| {
            assert!(active_children().is_empty());
            drop(Process::spawn(slow, (writer.into(),)).unwrap());
            Process::spawn(|| 11, ()).unwrap().join().unwrap()
        });
        assert_eq!(process.join().unwrap(), 11);
        assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "done");
    });
}

#[test]
fn siblings_are_not_children() {
    let _watchdog = watchdog();
    alone(|| {
        let sibling = fork(sleep_for_ever);
        let view = || (active_children().len(), sibling.is_alive(), sibling.exit_status().is_none());
        assert_eq!(fork(view).join().unwrap(), (0, true, true));
        assert_eq!(active_children().len(), 1);
        let join = || is_not_ours(sibling.try_join()) && is_not_ours(sibling.join());
        assert!(fork(join).join().unwrap());
        sibling.kill().unwrap();
        sibling.join().unwrap_err();
    });
}

fn is_not_ours<T>(joined: Result<T, JoinError>) -> bool {
    matches!(joined, Err(JoinError::Io(error)) if error.raw_os_error() == Some(libc::ECHILD))
}

#[test]
fn a_bare_fork_leaves_the_value_to_the_parent() {
    let _watchdog = watchdog();
    alone(|| {
        let process = Process::spawn(|| 42, ()).unwrap();
        nix::poll::poll(
            &mut [nix::poll::PollFd::new(process.sentinel(), nix::poll::PollFlags::POLLIN)],
            nix::poll::PollTimeout::NONE,
        )
        .unwrap();
        // SAFETY: this process has one thread.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let refused = is_not_ours(process.join())
                && is_not_ours(process.try_join())
                && is_not_ours(process.join_timeout(Duration::from_millis(5)));
            // SAFETY: ends the process.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert_eq!(process.join().unwrap(), 42);
    });
}

#[test]
fn a_bare_fork_begins_a_family_of_its_own() {
    let _watchdog = watchdog();
    alone(|| {
        let sibling = fork(sleep_for_ever);
        // SAFETY: this process has one thread.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let alone = active_children().is_empty() && parent_process().is_none();
            let value = Process::spawn(|| 3, ()).map(|process| process.join().unwrap());
            // An exit that runs the handlers must not wait for the sibling, which never ends.
            std::process::exit(if alone && matches!(value, Ok(3)) { 0 } else { 1 });
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert!(sibling.is_alive());
        sibling.kill().unwrap();
        sibling.join().unwrap_err();
    });
}

#[test]
fn handles_can_be_returned() {
    let _watchdog = watchdog();
    alone(|| {
        let arena = fork(|| Arena::new(4096).unwrap()).join().unwrap();
        assert!(arena.capacity() >= 4096);
    });
}

#[test]
fn no_descriptor_stays_behind() {
    let _watchdog = watchdog();
    let (before, after) = alone(|| {
        fork(|| ()).join().unwrap();
        let before = open_descriptors().len();
        for _ in 0..20 {
            fork(|| ()).join().unwrap();
        }
        (before, open_descriptors().len())
    });
    assert_eq!(before, after);
}
