//! How processes end, and what a join says of it.

mod common;

use common::{sleep_for_ever, watchdog};
use nix::poll::{PollFd, PollFlags, poll};
use polyproc_process::{Builder, JoinError, Process, Stdio, init_for_tests};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::time::{Duration, Instant};

init_for_tests!();

/// A process that would run for ever.
fn sleeper() -> Process<()> {
    Process::spawn(sleep_for_ever, ()).unwrap()
}

#[test]
fn a_panic_comes_with_its_message_and_place() {
    let _watchdog = watchdog();
    fn divide(a: i32, b: i32) -> i32 {
        assert_ne!(b, 0, "cannot divide {a}");
        a / b
    }
    let process = Builder::new().stderr(Stdio::null()).spawn(divide, (7, 0)).unwrap();
    match process.join().unwrap_err() {
        JoinError::Panicked { message, location } => {
            assert!(message.contains("cannot divide 7"), "{message}");
            assert!(location.contains("ends.rs:"), "{location}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(process.exit_status().unwrap().code(), Some(101));
}

#[test]
fn a_panic_says_in_which_process_it_is() {
    let _watchdog = watchdog();
    let process = Builder::new().name("thinker").stderr(Stdio::piped()).spawn(|| panic!("no idea"), ());
    let process: Process<()> = process.unwrap();
    let mut said = String::new();
    process.take_stderr().unwrap().read_to_string(&mut said).unwrap();
    assert!(process.take_stderr().is_none());
    assert!(said.contains(&format!("process thinker ({}):", process.pid())), "{said}");
    assert!(said.contains("no idea") && said.contains("ends.rs:"), "{said}");
    let error = process.join().unwrap_err().to_string();
    assert!(error.starts_with("panicked at ") && error.ends_with(": no idea"), "{error}");
}

#[test]
fn a_panic_that_is_passed_on_has_its_own_place_or_none() {
    use std::panic::{catch_unwind, resume_unwind};
    let _watchdog = watchdog();
    let place = |process: Process<()>| match process.join().unwrap_err() {
        JoinError::Panicked { message, location } => (message, location),
        other => panic!("{other}"),
    };
    let another = || {
        catch_unwind(|| panic!("an earlier one")).unwrap_err();
        resume_unwind(Box::new("without a hook"))
    };
    let process = Builder::new().stderr(Stdio::null()).spawn(another, ()).unwrap();
    assert_eq!(place(process), ("without a hook".into(), "unknown place".into()));
    let the_same = || resume_unwind(catch_unwind(|| panic!("number {}", 1)).unwrap_err());
    let process = Builder::new().stderr(Stdio::null()).spawn(the_same, ()).unwrap();
    let (message, location) = place(process);
    assert_eq!(message, "number 1");
    assert!(location.contains("ends.rs:"), "{location}");
}

#[test]
fn a_panic_with_a_payload_of_its_own_has_no_message() {
    let _watchdog = watchdog();
    let process =
        Builder::new().stderr(Stdio::null()).spawn(|| -> () { std::panic::panic_any(7) }, ()).unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(&error, JoinError::Panicked { message, .. } if message == "no message"), "{error}");
}

#[test]
fn a_panic_that_nobody_can_read_is_still_a_panic() {
    let _watchdog = watchdog();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let process = Builder::new().stderr(writer).spawn(|| -> u8 { panic!("unheard") }, ()).unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(&error, JoinError::Panicked { message, .. } if message == "unheard"), "{error}");
}

#[test]
fn a_panic_that_the_function_catches_is_its_own_affair() {
    let _watchdog = watchdog();
    let catch = || std::panic::catch_unwind(|| panic!("caught")).is_err();
    let process = Builder::new().stderr(Stdio::null()).spawn(catch, ()).unwrap();
    assert!(process.join().unwrap());
}

#[test]
fn exit_in_the_function_is_an_error_with_its_code() {
    let _watchdog = watchdog();
    for code in [0, 3, 255] {
        let process = Process::spawn(|code: i32| -> u8 { std::process::exit(code) }, (code,)).unwrap();
        let error = process.join().unwrap_err();
        assert!(matches!(error, JoinError::Exited(given) if given == code), "{error}");
        assert_eq!(error.to_string(), format!("exited with code {code} before its function returned"));
        assert_eq!(process.exit_status().unwrap().code(), Some(code));
    }
}

#[test]
fn a_killed_process_is_an_error_that_names_the_signal() {
    let _watchdog = watchdog();
    let process = sleeper();
    assert!(process.is_alive());
    assert_eq!(process.exit_status(), None);
    process.kill().unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(error, JoinError::Signaled(libc::SIGKILL)), "{error}");
    assert_eq!(error.to_string(), "killed by SIGKILL");
    assert_eq!(process.exit_status().unwrap().signal(), Some(libc::SIGKILL));
    assert!(!process.is_alive());
}

#[test]
fn terminate_and_interrupt_send_their_signals() {
    let _watchdog = watchdog();
    // A shell has its background jobs ignore it, and so would the children.
    // SAFETY: the default disposition runs no code of this program.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    let (terminated, interrupted) = (sleeper(), sleeper());
    terminated.terminate().unwrap();
    interrupted.interrupt().unwrap();
    assert!(matches!(terminated.join().unwrap_err(), JoinError::Signaled(libc::SIGTERM)));
    assert!(matches!(interrupted.join().unwrap_err(), JoinError::Signaled(libc::SIGINT)));
    // Nobody is there any more, and that is no error.
    terminated.terminate().unwrap();
    terminated.kill().unwrap();
    interrupted.interrupt().unwrap();
}

#[test]
fn all_deaths_by_signal_are_told_apart() {
    let _watchdog = watchdog();
    fn raise(signal: i32) {
        // A child ignores what its parent ignores, as under `nohup`.
        // SAFETY: the default action is a valid one.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: ends the process, as it is meant to.
        unsafe { libc::raise(signal) };
    }
    for signal in [libc::SIGSEGV, libc::SIGTERM, libc::SIGHUP, libc::SIGRTMIN(), libc::SIGRTMAX()] {
        let error = Process::spawn(raise, (signal,)).unwrap().join().unwrap_err();
        assert!(matches!(error, JoinError::Signaled(given) if given == signal), "{error}");
    }
    let error = Process::spawn(|| std::process::abort(), ()).map(|process: Process<()>| process.join());
    assert!(matches!(error.unwrap(), Err(JoinError::Signaled(libc::SIGABRT))));
}

#[test]
fn only_the_first_join_gets_the_value() {
    let _watchdog = watchdog();
    let process = Process::spawn(|| 5, ()).unwrap();
    assert_eq!(process.join().unwrap(), 5);
    assert!(matches!(process.join().unwrap_err(), JoinError::AlreadyJoined));
    assert!(matches!(process.try_join().unwrap_err(), JoinError::AlreadyJoined));
    assert!(matches!(process.join_timeout(Duration::MAX).unwrap_err(), JoinError::AlreadyJoined));
    assert!(process.exit_status().unwrap().success());
    let process = sleeper();
    process.kill().unwrap();
    assert!(matches!(process.join().unwrap_err(), JoinError::Signaled(_)));
    assert_eq!(process.join().unwrap_err().to_string(), "already joined");
}

#[test]
fn of_many_threads_that_join_one_gets_the_value() {
    let _watchdog = watchdog();
    let process = Process::spawn(
        || {
            std::thread::sleep(Duration::from_millis(50));
            9
        },
        (),
    )
    .unwrap();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| process.join())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| matches!(result, Ok(9))).count(), 1);
    assert_eq!(results.iter().filter(|result| matches!(result, Err(JoinError::AlreadyJoined))).count(), 3);
}

#[test]
fn join_timeout_waits_its_time_and_no_longer_than_the_process() {
    let _watchdog = watchdog();
    let process = sleeper();
    for millis in [1, 30] {
        let (start, timeout) = (Instant::now(), Duration::from_millis(millis));
        let error = process.join_timeout(timeout).unwrap_err();
        assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
        assert_eq!(error.to_string(), "still running when the time was over");
    }
    assert!(process.is_alive());
    process.kill().unwrap();
    let error = process.join_timeout(Duration::from_secs(3600)).unwrap_err();
    assert!(matches!(error, JoinError::Signaled(libc::SIGKILL)), "{error}");
}

#[test]
fn a_zero_timeout_looks_once() {
    let _watchdog = watchdog();
    let process = sleeper();
    assert!(matches!(process.join_timeout(Duration::ZERO).unwrap_err(), JoinError::TimedOut));
    process.kill().unwrap();
    wait_for(&process);
    assert!(matches!(process.join_timeout(Duration::ZERO).unwrap_err(), JoinError::Signaled(_)));
}

#[test]
fn try_join_does_not_wait() {
    let _watchdog = watchdog();
    let (reader, writer) = std::io::pipe().unwrap();
    fn wait_for_end_of(pipe: common::Fd) -> u8 {
        pipe.file().read_to_end(&mut Vec::new()).unwrap();
        77
    }
    let process = Process::spawn(wait_for_end_of, (reader.into(),)).unwrap();
    assert!(process.try_join().unwrap().is_none());
    assert!(process.try_join().unwrap().is_none());
    drop(writer);
    wait_for(&process);
    assert_eq!(process.try_join().unwrap(), Some(77));
}

fn wait_for<R>(process: &Process<R>) {
    assert_eq!(poll(&mut [PollFd::new(process.sentinel(), PollFlags::POLLIN)], 30_000u16).unwrap(), 1);
}

#[test]
fn the_sentinel_is_readable_at_the_end_and_not_before() {
    let _watchdog = watchdog();
    let process = sleeper();
    assert_eq!(process.as_fd().as_raw_fd(), process.sentinel().as_raw_fd());
    assert_eq!(poll(&mut [PollFd::new(process.sentinel(), PollFlags::POLLIN)], 0u8).unwrap(), 0);
    process.kill().unwrap();
    wait_for(&process);
    // It stays so after the join.
    process.join().unwrap_err();
    wait_for(&process);
}

fn leave_a_program_behind() -> u32 {
    std::process::Command::new("sleep").arg("60").spawn().unwrap().id()
}

/// A pipe that the other program had inherited would be open as long as that runs.
#[test]
fn a_process_has_ended_though_a_program_that_it_started_goes_on() {
    let _watchdog = watchdog();
    let process = Process::spawn(leave_a_program_behind, ()).unwrap();
    let left = process.join_timeout(Duration::from_secs(10)).unwrap();
    wait_for(&process);
    assert!(process.exit_status().unwrap().success());
    let left = libc::pid_t::try_from(left).unwrap();
    // SAFETY: no memory is touched.
    assert_eq!(unsafe { libc::kill(left, libc::SIGKILL) }, 0, "it still ran");
}

#[test]
fn a_kill_ends_a_join_that_is_under_way() {
    let _watchdog = watchdog();
    let process = sleeper();
    std::thread::scope(|scope| {
        let join = scope.spawn(|| process.join());
        std::thread::sleep(Duration::from_millis(20));
        process.kill().unwrap();
        assert!(matches!(join.join().unwrap(), Err(JoinError::Signaled(libc::SIGKILL))));
    });
}

#[test]
fn signals_do_not_end_a_join() {
    let _watchdog = watchdog();
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all-zero is a valid sigaction, without SA_RESTART.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    // SAFETY: the handler does nothing.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
    let process = Process::spawn(
        || {
            std::thread::sleep(Duration::from_millis(100));
            "slept".to_string()
        },
        (),
    )
    .unwrap();
    let join = std::thread::spawn(move || process.join());
    while !join.is_finished() {
        // SAFETY: the thread has not been joined, so its handle is valid.
        unsafe { libc::pthread_kill(join.as_pthread_t(), libc::SIGUSR1) };
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(join.join().unwrap().unwrap(), "slept");
}

#[test]
fn a_value_counts_even_if_the_process_dies_in_its_exit_handlers() {
    let _watchdog = watchdog();
    extern "C" fn die() {
        // SAFETY: ends the process, as it is meant to.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    fn answer() -> i32 {
        // SAFETY: the handler is a function of the program.
        unsafe { libc::atexit(die) };
        42
    }
    let process = Process::spawn(answer, ()).unwrap();
    assert_eq!(process.join().unwrap(), 42);
    assert_eq!(process.exit_status().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_process_stopped_by_a_signal_still_lives() {
    let _watchdog = watchdog();
    let process = sleeper();
    let pid = nix::unistd::Pid::from_raw(process.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
    assert!(matches!(process.join_timeout(Duration::from_millis(20)).unwrap_err(), JoinError::TimedOut));
    assert!(process.is_alive());
    process.kill().unwrap();
    assert!(matches!(process.join().unwrap_err(), JoinError::Signaled(libc::SIGKILL)));
}

#[test]
fn debug_shows_who_it_is() {
    let _watchdog = watchdog();
    let process = Builder::new().name("shown").spawn(|| (), ()).unwrap();
    process.join().unwrap();
    let shown = format!("{process:?}");
    assert!(shown.contains("\"shown\"") && shown.contains(&process.pid().to_string()), "{shown}");
}
