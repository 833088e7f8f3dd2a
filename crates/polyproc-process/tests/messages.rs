//! What a child makes of a parent that dies, or talks nonsense, before the child knows what to run. The tests play the
//! parent by hand.

mod common;

use common::watchdog;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use polyproc_process::init_for_tests;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

init_for_tests!();

/// Starts this program as a child that waits for its message. Should it run `main`, it would list the tests.
fn start() -> (Child, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let stat = nix::sys::stat::fstat(&theirs).unwrap();
    let marker = format!("3:{}:{}:{}", stat.st_dev, stat.st_ino, std::process::id());
    let number = theirs.as_raw_fd();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--list").env("POLYPROC_CHILD", marker).stdout(Stdio::piped()).stderr(Stdio::piped());
    assert!(number > 3);
    let put_in_place = move || {
        // SAFETY: takes two numbers; nobody uses what the second was before.
        let result = unsafe { libc::dup2(number, 3) };
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: dup2 is async-signal-safe, and making the error allocates nothing.
    unsafe { command.pre_exec(put_in_place) };
    (command.spawn().unwrap(), ours)
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: usize) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let numbers = vec![null.as_raw_fd(); descriptors];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if descriptors == 0 { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
}

fn prefix(length: usize, descriptors: u32) -> Vec<u8> {
    [&(length as u64).to_ne_bytes()[..], &descriptors.to_ne_bytes(), &0u32.to_ne_bytes()].concat()
}

/// A start message with this body, and `/dev/null` for the parent's pidfd.
fn send_body(socket: &OwnedFd, body: &[u8]) {
    send(socket, &[&prefix(body.len(), 1), body].concat(), 1);
}

/// The child's exit code; it must not have said anything.
fn code_of(child: Child) -> Option<i32> {
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert_eq!(said, ["", ""]);
    output.status.code()
}

/// What the child answers, as the text in it.
fn answer(socket: &OwnedFd) -> String {
    let mut bytes = [0; 1000];
    let length = recv(socket.as_fd().as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn a_child_whose_parent_is_gone_exits_quietly() {
    let _watchdog = watchdog();
    let (child, socket) = start();
    drop(socket);
    assert_eq!(code_of(child), Some(69));
}

#[test]
fn a_child_whose_parent_dies_in_the_middle_of_a_message_exits_quietly() {
    let _watchdog = watchdog();
    let (child, socket) = start();
    send(&socket, &prefix(0, 300), 253);
    drop(socket);
    assert_eq!(code_of(child), Some(69));
}

#[test]
fn nonsense_is_answered_and_not_run() {
    let _watchdog = watchdog();
    for nonsense in [&b"x"[..], &[0; 200], &prefix(1, 0), &prefix(usize::MAX, 0)] {
        let (child, socket) = start();
        send(&socket, nonsense, 0);
        let answer = answer(&socket);
        assert!(answer.ends_with("malformed message between a process and its parent"), "{answer:?}");
        assert_eq!(code_of(child), Some(1));
    }
}

#[test]
fn a_message_that_is_no_start_is_answered() {
    let _watchdog = watchdog();
    let (child, socket) = start();
    send(&socket, &prefix(0, 0), 0);
    assert!(answer(&socket).ends_with("malformed start message"));
    assert_eq!(code_of(child), Some(1));

    let (child, socket) = start();
    send_body(&socket, &[0xff; 50]);
    assert!(answer(&socket).ends_with("malformed start message"));
    assert_eq!(code_of(child), Some(1));
}

#[test]
fn a_function_of_another_build_is_not_called() {
    let _watchdog = watchdog();
    // A place in this program's code, which would be called if the build were not looked at.
    let program = std::env::current_exe().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let own: Vec<_> = maps.lines().filter(|line| line.ends_with(program.to_str().unwrap())).collect();
    let start_of = |line: &str| u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let code = own.iter().find(|line| line.contains(" r-xp ")).unwrap();
    // The segment begins somewhere in its first page.
    let (build, offset) = (1u64, start_of(code) + 4096 + 64 - start_of(own[0]));
    let start_message = (build, offset, "name", vec![1u32], false, std::process::id(), "parent");
    let (child, socket) = start();
    send_body(&socket, &postcard::to_stdvec(&start_message).unwrap());
    let answer = answer(&socket);
    assert!(answer.ends_with("the program's file is not the one that the parent runs"), "{answer:?}");
    assert_eq!(code_of(child), Some(1));
}
