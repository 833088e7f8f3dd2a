//! What happens when the system runs out.

mod common;

use common::{Fd, open_descriptors, watchdog};
use polyproc_process::{Builder, JoinError, Process, SpawnError, Stdio, active_children, init_for_tests};
use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

init_for_tests!();

fn limit_descriptors(limit: u64) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid to be written.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) }, 0);
    limits.rlim_cur = limit;
    // SAFETY: the struct is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) }, 0);
}

/// How many children there are as the system sees it.
fn children() -> usize {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    children.split_whitespace().count()
}

#[test]
fn out_of_descriptors_is_an_error_at_every_step() {
    let _watchdog = watchdog();
    fn try_all(piped: bool) -> (u32, u32) {
        // What is made once is made now, and no number below the highest is free.
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        let highest = open_descriptors().into_iter().map(|(number, _)| number).max().unwrap();
        let mut filling = vec![Fd::of(io::stdout())];
        while filling[filling.len() - 1].0.as_raw_fd() < highest {
            filling.push(Fd::of(io::stdout()));
        }
        let open = open_descriptors();
        let highest = open.iter().map(|(number, _)| *number).max().unwrap();
        let (mut refused, mut worked) = (0, 0);
        for spare in 0..10 {
            limit_descriptors(highest as u64 + 1 + spare);
            let stream = || if piped { Stdio::piped() } else { Stdio::null() };
            let arguments = (Vec::<u8>::from([1; 100_000]),);
            let spawned = Builder::new()
                .stdin(stream())
                .stdout(stream())
                .spawn(|bytes: Vec<u8>| bytes.len(), arguments);
            limit_descriptors(1024);
            match spawned {
                Ok(process) => {
                    worked += 1;
                    assert_eq!(process.join().unwrap(), 100_000);
                }
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error, SpawnError::System { .. }), "{error}");
                    let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
                    assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{error}");
                }
            }
            assert_eq!(children(), 0);
            assert!(active_children().is_empty());
            assert_eq!(open_descriptors(), open, "with {spare} to spare");
        }
        (refused, worked)
    }
    // The socket pair takes two; the child's pidfd and the file with the arguments replace one of them.
    let (refused, worked) = Process::spawn(try_all, (false,)).unwrap().join().unwrap();
    assert!(refused >= 3 && worked >= 6, "{refused} refused, {worked} worked");
    // Each pipe takes two more, at first. (And a C library before glibc 2.34 makes us look at what is open.)
    let (refused, worked) = Process::spawn(try_all, (true,)).unwrap().join().unwrap();
    assert!(refused >= 6 && worked >= 3, "{refused} refused, {worked} worked");
}

#[test]
fn a_child_without_room_for_its_arguments_says_so() {
    let _watchdog = watchdog();
    fn parent() -> String {
        *RESERVED.lock().unwrap() = (0..20).map(|_| Fd::of(io::stdout())).collect();
        let descriptors: Vec<_> = (0..200).map(|_| Fd::of(io::stdout())).collect();
        let process = Process::spawn(|passed: Passed| passed.0.len(), (Passed(descriptors),)).unwrap();
        process.join().unwrap_err().to_string()
    }
    let message = Process::spawn(parent, ()).unwrap().join().unwrap();
    assert_eq!(
        message,
        "cannot read the arguments: this process has no file descriptor left of its 100 (ulimit -n)"
    );
}

/// Low numbers, for what the start of a process opens.
static RESERVED: Mutex<Vec<Fd>> = Mutex::new(Vec::new());

/// Descriptors that take the limit down on their way out: the child, which inherits it, has no room for them.
struct Passed(Vec<Fd>);

impl serde::Serialize for Passed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let result = self.0.serialize(serializer);
        RESERVED.lock().unwrap().clear();
        limit_descriptors(100);
        result
    }
}

impl<'de> serde::Deserialize<'de> for Passed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Passed, D::Error> {
        Vec::deserialize(deserializer).map(Passed)
    }
}

#[test]
fn a_parent_without_room_for_the_value_says_so() {
    let _watchdog = watchdog();
    fn parent() -> String {
        let process =
            Process::spawn(|| (0..300).map(|_| Fd::of(io::stdout())).collect::<Vec<_>>(), ()).unwrap();
        while process.is_alive() {
            std::thread::yield_now();
        }
        limit_descriptors(50);
        let error = process.join().unwrap_err();
        assert!(matches!(error, JoinError::Io(_)), "{error}");
        let said = error.to_string();
        limit_descriptors(1024);
        said
    }
    let message = Process::spawn(parent, ()).unwrap().join().unwrap();
    assert_eq!(
        message,
        "cannot join the process: this process has no file descriptor left of its 50 (ulimit -n)"
    );
}

fn limit_file_size(limit: u64) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid to be written.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits) }, 0);
    limits.rlim_cur = limit;
    // SAFETY: the struct is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limits) }, 0);
}

#[test]
fn arguments_longer_than_a_file_may_be_are_an_error() {
    let _watchdog = watchdog();
    fn parent() -> (Option<i32>, usize, usize) {
        let spawn = || Process::spawn(|bytes: Vec<u8>| bytes.len(), (vec![1; 300_000],));
        limit_file_size(200_000);
        let error = spawn().unwrap_err();
        let errno = error.source().and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
        let left = children();
        limit_file_size(400_000);
        (errno, left, spawn().unwrap().join().unwrap())
    }
    let seen = Process::spawn(parent, ()).unwrap().join().unwrap();
    assert_eq!(seen, (Some(libc::EFBIG), 0, 300_000));
}

#[test]
fn a_value_longer_than_a_file_may_be_is_an_error() {
    let _watchdog = watchdog();
    fn large(limit: u64) -> Vec<u8> {
        limit_file_size(limit);
        vec![1; 300_000]
    }
    let error = Process::spawn(large, (200_000,)).unwrap().join().unwrap_err();
    assert!(matches!(&error, JoinError::Encode(said) if said.contains("File too large")), "{error}");
    assert_eq!(Process::spawn(large, (400_000,)).unwrap().join().unwrap().len(), 300_000);
}
