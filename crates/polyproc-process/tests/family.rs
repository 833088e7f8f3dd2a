//! Parents and children: who knows of whom, and who ends with whom.

mod common;

use common::{Fd, sleep_for_ever, watchdog};
use polyproc_process::{
    Builder, JoinError, Process, active_children, cpu_count, current_process, init_for_tests, parent_process,
};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

init_for_tests!();

/// A descriptor for any process.
fn open_process(pid: u32) -> OwnedFd {
    // SAFETY: takes two numbers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(descriptor >= 0, "{}", io::Error::last_os_error());
    // SAFETY: just made.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

fn ends_within(process: BorrowedFd<'_>, millis: u16) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(process, PollFlags::POLLIN)], millis).unwrap() == 1
}

fn read_pid(pipe: &mut impl Read) -> u32 {
    let mut bytes = [0; 4];
    pipe.read_exact(&mut bytes).unwrap();
    u32::from_ne_bytes(bytes)
}

fn write_pid(pipe: &mut File) {
    pipe.write_all(&std::process::id().to_ne_bytes()).unwrap();
}

/// Reports its id, then does nothing for ever.
fn report_and_sleep(pipe: Fd) {
    write_pid(&mut pipe.file());
    sleep_for_ever();
}

/// Starts such a process, daemon or not, and sleeps for ever itself.
fn have_child_and_sleep(daemon: bool, pipe: Fd) {
    let _child = Builder::new().daemon(daemon).spawn(report_and_sleep, (pipe,)).unwrap();
    sleep_for_ever();
}

#[test]
fn the_parent_is_known() {
    let _watchdog = watchdog();
    fn parent() -> (u32, String, bool) {
        let parent = parent_process().unwrap();
        (parent.pid(), parent.name().into(), parent.is_alive())
    }
    let expected = (std::process::id(), "MainProcess".to_string(), true);
    assert_eq!(Process::spawn(parent, ()).unwrap().join().unwrap(), expected);
    let nested =
        || (Process::spawn(parent, ()).unwrap().join().unwrap(), current_process().name().to_string());
    let process = Process::spawn(nested, ()).unwrap();
    let (parent, name) = process.join().unwrap();
    assert_eq!(parent, (process.pid(), name, true));
    assert!(parent_process().is_none());
}

#[test]
fn waiting_for_the_parent_takes_its_time() {
    let _watchdog = watchdog();
    fn wait(millis: u64) -> (bool, u128) {
        let start = Instant::now();
        let gone = parent_process().unwrap().wait_timeout(Duration::from_millis(millis)).unwrap();
        (gone, start.elapsed().as_millis())
    }
    let (gone, elapsed) = Process::spawn(wait, (50,)).unwrap().join().unwrap();
    assert!(!gone && elapsed >= 50, "{elapsed}");
    assert!(!Process::spawn(wait, (0,)).unwrap().join().unwrap().0);
}

#[test]
fn a_child_notices_that_its_parent_was_killed_and_goes_on() {
    let _watchdog = watchdog();
    fn orphan(pipe: Fd) {
        let mut pipe = pipe.file();
        let parent = parent_process().unwrap();
        write_pid(&mut pipe);
        parent.wait().unwrap();
        let gone = !parent.is_alive() && parent.wait_timeout(Duration::ZERO).unwrap();
        pipe.write_all(&[gone.into()]).unwrap();
    }
    fn parent(pipe: Fd) {
        let _child = Process::spawn(orphan, (pipe,)).unwrap();
        sleep_for_ever();
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let process = Process::spawn(parent, (writer.into(),)).unwrap();
    let orphan = open_process(read_pid(&mut reader));
    process.kill().unwrap();
    process.join().unwrap_err();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [1]);
    assert!(ends_within(orphan.as_fd(), 30_000));
}

#[test]
fn a_daemon_dies_when_its_parent_is_killed() {
    let _watchdog = watchdog();
    let (mut reader, writer) = io::pipe().unwrap();
    let process = Process::spawn(have_child_and_sleep, (true, writer.into())).unwrap();
    let daemon = open_process(read_pid(&mut reader));
    assert!(!ends_within(daemon.as_fd(), 20));
    process.kill().unwrap();
    assert!(ends_within(daemon.as_fd(), 30_000));
}

#[test]
fn a_family_of_daemons_dies_together() {
    let _watchdog = watchdog();
    fn daemon(pipe: Fd) {
        let _child = Builder::new().daemon(true).spawn(have_child_and_sleep, (true, pipe)).unwrap();
        sleep_for_ever();
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let process = Process::spawn(daemon, (writer.into(),)).unwrap();
    let youngest = open_process(read_pid(&mut reader));
    process.kill().unwrap();
    assert!(ends_within(youngest.as_fd(), 30_000));
}

#[test]
fn a_child_that_is_no_daemon_survives_its_parent() {
    let _watchdog = watchdog();
    let (mut reader, writer) = io::pipe().unwrap();
    let process = Process::spawn(have_child_and_sleep, (false, writer.into())).unwrap();
    let child = open_process(read_pid(&mut reader));
    process.kill().unwrap();
    assert!(matches!(process.join().unwrap_err(), JoinError::Signaled(libc::SIGKILL)));
    assert!(!ends_within(child.as_fd(), 100));
    // SAFETY: takes numbers; the descriptor is open.
    let result = unsafe {
        use std::os::fd::AsRawFd;
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            child.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<u8>(),
            0,
        )
    };
    assert_eq!(result, 0);
    assert!(ends_within(child.as_fd(), 30_000));
}

#[test]
fn a_process_that_returns_ends_its_daemons() {
    let _watchdog = watchdog();
    fn parent(pipe: Fd) -> u32 {
        let (mut reader, writer) = io::pipe().unwrap();
        let _daemon = Builder::new().daemon(true).spawn(report_and_sleep, (writer.into(),)).unwrap();
        let daemon = read_pid(&mut reader);
        pipe.file().write_all(&daemon.to_ne_bytes()).unwrap();
        // Until the test has a descriptor for the daemon.
        let mut go = [0];
        io::stdin().read_exact(&mut go).unwrap();
        daemon
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let process =
        Builder::new().stdin(polyproc_process::Stdio::piped()).spawn(parent, (writer.into(),)).unwrap();
    let daemon = open_process(read_pid(&mut reader));
    process.take_stdin().unwrap().write_all(b"!").unwrap();
    process.join().unwrap();
    // Its parent has waited for it.
    assert!(ends_within(daemon.as_fd(), 0));
}

#[test]
fn a_daemon_that_will_not_listen_is_killed() {
    let _watchdog = watchdog();
    fn deaf(pipe: Fd) {
        // SAFETY: ignoring a signal runs no code in a handler.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        report_and_sleep(pipe);
    }
    fn parent() {
        let (mut reader, writer) = io::pipe().unwrap();
        let _daemon = Builder::new().daemon(true).spawn(deaf, (writer.into(),)).unwrap();
        read_pid(&mut reader);
    }
    let start = Instant::now();
    Process::spawn(parent, ()).unwrap().join().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "the daemon had {:?}", start.elapsed());
}

#[test]
fn a_daemon_gets_the_time_to_end_by_itself() {
    let _watchdog = watchdog();
    fn tidy(pipe: Fd) {
        // A signal set instead of a handler: the process waits for its own end.
        let mut term = nix::sys::signal::SigSet::empty();
        term.add(nix::sys::signal::SIGTERM);
        term.thread_block().unwrap();
        let mut pipe = pipe.file();
        write_pid(&mut pipe);
        term.wait().unwrap();
        pipe.write_all(b"tidy").unwrap();
    }
    fn parent(to_test: Fd) {
        let (mut reader, writer) = io::pipe().unwrap();
        let copy = writer.try_clone().unwrap();
        let _daemon = Builder::new().daemon(true).spawn(tidy, (writer.into(),)).unwrap();
        read_pid(&mut reader);
        drop(copy);
        // The rest is read by a process that outlives this one's function.
        let forward = |from: Fd, to: Fd| {
            io::copy(&mut from.file(), &mut to.file()).unwrap();
        };
        let _forwarder = Process::spawn(forward, (reader.into(), to_test)).unwrap();
    }
    let (mut reader, writer) = io::pipe().unwrap();
    Process::spawn(parent, (writer.into(),)).unwrap().join().unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "tidy");
}

/// Sleeps, then says so.
fn slow(pipe: Fd) {
    std::thread::sleep(Duration::from_millis(150));
    pipe.file().write_all(b"done").unwrap();
}

#[test]
fn a_process_waits_for_its_children_at_its_end() {
    let _watchdog = watchdog();
    fn returns(pipe: Fd) -> u8 {
        drop(Process::spawn(slow, (pipe,)).unwrap());
        5
    }
    fn exits(pipe: Fd) -> u8 {
        let _child = Process::spawn(slow, (pipe,)).unwrap();
        std::process::exit(6);
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let start = Instant::now();
    let process = Process::spawn(returns, (writer.into(),)).unwrap();
    assert_eq!(process.join().unwrap(), 5);
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "done");

    let (_reader, writer) = io::pipe().unwrap();
    let start = Instant::now();
    let process = Process::spawn(exits, (writer.into(),)).unwrap();
    assert!(matches!(process.join().unwrap_err(), JoinError::Exited(6)));
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
}

/// In a child, where no other test starts processes.
#[test]
fn active_children_are_those_that_run() {
    let _watchdog = watchdog();
    fn parent() {
        assert!(active_children().is_empty());
        let first = Builder::new().name("first").spawn(sleep_for_ever, ()).unwrap();
        let second = Builder::new().name("second").daemon(true).spawn(sleep_for_ever, ()).unwrap();
        let pid = second.pid();
        // Without a handle it is still a child.
        drop(second);
        let children = active_children();
        let seen: Vec<_> =
            children.iter().map(|child| (child.name(), child.pid(), child.is_daemon())).collect();
        assert_eq!(seen, [("first", first.pid(), false), ("second", pid, true)]);
        assert!(children.iter().all(|child| child.is_alive() && child.exit_status().is_none()));
        let shown = format!("{:?}", children[1]);
        assert_eq!(shown, format!("Child {{ name: \"second\", pid: {pid}, alive: true, .. }}"));
        children[0].terminate().unwrap();
        assert!(matches!(first.join().unwrap_err(), JoinError::Signaled(libc::SIGTERM)));
        children[1].kill().unwrap();
        assert!(ends_within(children[1].sentinel(), 30_000));
        assert!(active_children().is_empty());
        assert!(children.iter().all(|child| !child.is_alive() && child.exit_status().is_some()));
        children[1].terminate().unwrap();
    }
    Process::spawn(parent, ()).unwrap().join().unwrap();
}

/// Whether the system still lists the process, as a zombie at least.
fn is_listed(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn dropped_children_do_not_stay_as_zombies() {
    let _watchdog = watchdog();
    fn ended_and_dropped() -> u32 {
        let process = Process::spawn(|| (), ()).unwrap();
        assert!(ends_within(process.sentinel(), 30_000));
        assert!(is_listed(process.pid()));
        process.pid()
    }
    fn parent() {
        let pid = ended_and_dropped();
        assert!(is_listed(pid));
        assert!(active_children().is_empty());
        assert!(!is_listed(pid));

        let pid = ended_and_dropped();
        assert!(is_listed(pid));
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        assert!(!is_listed(pid));
    }
    Process::spawn(parent, ()).unwrap().join().unwrap();
}

#[test]
fn a_child_that_was_reaped_on_the_way_can_be_joined() {
    let _watchdog = watchdog();
    let process = Process::spawn(|| "late".to_string(), ()).unwrap();
    assert!(ends_within(process.sentinel(), 30_000));
    active_children();
    assert!(!is_listed(process.pid()));
    assert!(process.exit_status().unwrap().success());
    assert_eq!(process.join().unwrap(), "late");
}

#[test]
fn the_cpu_count_knows_the_affinity() {
    let _watchdog = watchdog();
    fn pinned() -> usize {
        // SAFETY: all-zero is a valid, empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: asks for this thread's set, into one of the given size.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
        assert_eq!(result, 0);
        // SAFETY: within the set.
        let first = (0..1024).find(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).unwrap();
        // SAFETY: the set is initialised.
        unsafe { libc::CPU_ZERO(&mut set) };
        // SAFETY: within the set.
        unsafe { libc::CPU_SET(first, &mut set) };
        // SAFETY: the set has the given size.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) }, 0);
        cpu_count()
    }
    assert!(cpu_count() >= 1);
    assert_eq!(Process::spawn(pinned, ()).unwrap().join().unwrap(), 1);
}
