//! The parent's side of a start.

use crate::builder::{Settings, Stdio, Target};
use crate::channel::{self, Start};
use crate::entry::Entry;
use crate::error::SpawnError;
use crate::family::{self, family};
use crate::raw::{self, CONTROL, Stream};
use crate::running::Running;
use crate::{child, image, init};
use polyproc_memory::handover::Descriptor;
use polyproc_sys::deadline::Deadline;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

/// A child, and the parent's ends of what leads to it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) running: Arc<Running>,
    pub(crate) control: OwnedFd,
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) stderr: Option<PipeReader>,
}

/// Whether a process can be started at all.
pub(crate) fn check() -> Result<(), SpawnError> {
    if !init::is_done() {
        Err(SpawnError::NotInitialised)
    } else if raw::is_privileged() {
        Err(SpawnError::Privileged)
    } else {
        Ok(())
    }
}

/// Starts a child that enters the program at `entry` with these arguments.
pub(crate) fn start(
    settings: Settings,
    entry: Entry,
    arguments: &[u8],
    descriptors: &[Descriptor],
) -> Result<Started, SpawnError> {
    let place = image::place_of(entry as *const ()).ok_or(SpawnError::NotInProgram)?;
    let (control, theirs) = channel::pair().map_err(SpawnError::system("socketpair"))?;
    let theirs = out_of_the_way(theirs).map_err(SpawnError::system("dup"))?;
    let identity = raw::identify(theirs.as_raw_fd())
        .ok_or_else(|| SpawnError::system("fstat")(io::Error::last_os_error()))?;
    let environment = environment(&settings.environment, &child::marker(identity))?;
    let [stdin, stdout, stderr] = settings.streams;
    let (stdin, to_stdin) = open_for_reading(stdin).map_err(SpawnError::system("stdin"))?;
    let (stdout, from_stdout) = open_for_writing(stdout).map_err(SpawnError::system("stdout"))?;
    let (stderr, from_stderr) = open_for_writing(stderr).map_err(SpawnError::system("stderr"))?;

    let mut family = family();
    let itself = family.itself().map_err(SpawnError::system("pidfd_open"))?;
    let (path, default_name) = family.next_child();
    let name = settings.name.unwrap_or(default_name);
    let start = Start {
        place,
        name: name.clone(),
        path,
        daemon: settings.daemon,
        parent_pid: std::process::id(),
        parent_name: family.name.clone(),
    };
    drop(family);

    let streams = [stdin, stdout, stderr];
    let pid = raw::start_again(&own_arguments(), &environment, &streams, theirs.as_fd())
        .map_err(SpawnError::system("posix_spawn"))?;
    drop((streams, theirs));
    let running = watch(pid, name, settings.daemon)?;

    let descriptors: Vec<_> =
        [itself.as_fd()].into_iter().chain(descriptors.iter().map(AsFd::as_fd)).collect();
    let sent = postcard::to_stdvec(&start)
        .map_err(io::Error::other)
        .and_then(|start| channel::send(control.as_fd(), &[&start, arguments], &descriptors));
    match sent {
        // It is dead already: `join` will say how it died.
        Err(error) if channel::is_gone(&error) => {}
        Err(error) => {
            let _ = running.signal(libc::SIGKILL);
            let _ = running.wait(Deadline::NEVER);
            return Err(SpawnError::system("sendmsg")(error));
        }
        Ok(()) => {}
    }
    family::enter(&running);
    Ok(Started { running, control, stdin: to_stdin, stdout: from_stdout, stderr: from_stderr })
}

/// Takes charge of a child that was just made, by its id for the last time.
///
/// On an error the child is dead, or, where the program ignores `SIGCHLD`, ends by itself when the caller
/// closes its control socket: a spawned one, that is, which waits there for its function.
pub(crate) fn watch(pid: libc::pid_t, name: String, daemon: bool) -> Result<Arc<Running>, SpawnError> {
    match raw::open_process(pid) {
        Ok(process) => Ok(Arc::new(Running::new(pid as u32, name, daemon, process))),
        Err(error) => {
            raw::kill_by_id(pid);
            Err(SpawnError::system("pidfd_open")(error))
        }
    }
}

/// The same descriptor with a number that the child's own do not overwrite.
fn out_of_the_way(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    let mut kept = vec![descriptor];
    while let Some(last) = kept.last()
        && last.as_raw_fd() <= CONTROL
    {
        // As long as the others are open, the number is another.
        let next = last.try_clone()?;
        kept.push(next);
    }
    Ok(kept.pop().expect("there is one at least"))
}

fn open_for_reading(stdio: Stdio) -> io::Result<(Stream, Option<PipeWriter>)> {
    open(stdio, |reader, writer| (reader.into(), writer))
}

fn open_for_writing(stdio: Stdio) -> io::Result<(Stream, Option<PipeReader>)> {
    open(stdio, |reader, writer| (writer.into(), reader))
}

fn open<T>(
    stdio: Stdio,
    divide: impl FnOnce(PipeReader, PipeWriter) -> (OwnedFd, T),
) -> io::Result<(Stream, Option<T>)> {
    Ok(match stdio.0 {
        Target::Inherit => (Stream::Inherit, None),
        Target::Null => (Stream::Null, None),
        Target::To(descriptor) => (Stream::To(out_of_the_way(descriptor)?), None),
        Target::Piped => {
            let (reader, writer) = io::pipe()?;
            let (theirs, ours) = divide(reader, writer);
            (Stream::To(out_of_the_way(theirs)?), Some(ours))
        }
    })
}

/// What this program was started with, so that the child looks the same to `ps`, and to what reads the
/// arguments before `init`.
fn own_arguments() -> Vec<CString> {
    std::env::args_os().map(|argument| c_string(argument).expect("it was a C string")).collect()
}

/// This process's environment, changed as asked, and with the marker.
fn environment(changes: &[(OsString, Option<OsString>)], marker: &str) -> Result<Vec<CString>, SpawnError> {
    let changed = |name: &OsStr| name == child::MARKER || changes.iter().any(|(changed, _)| changed == name);
    let kept = std::env::vars_os().filter(|(name, _)| !changed(name));
    let mut environment: Vec<CString> =
        kept.map(|(name, value)| assignment(&name, &value).expect("they were C strings")).collect();
    for (index, (name, value)) in changes.iter().enumerate() {
        let impossible = || SpawnError::Environment { name: name.to_string_lossy().into() };
        if name.is_empty() || name.as_bytes().iter().any(|&byte| byte == b'=' || byte == 0) {
            return Err(impossible());
        }
        let changed_again = changes[index + 1..].iter().any(|(later, _)| later == name);
        if let Some(value) = value {
            let assignment = assignment(name, value).ok_or_else(impossible)?;
            if !changed_again && name != child::MARKER {
                environment.push(assignment);
            }
        }
    }
    environment.extend(assignment(child::MARKER.as_ref(), marker.as_ref()));
    Ok(environment)
}

/// `name=value`; `None` if there is a NUL in it.
fn assignment(name: &OsStr, value: &OsStr) -> Option<CString> {
    let mut assignment = OsString::with_capacity(name.len() + value.len() + 2);
    assignment.push(name);
    assignment.push("=");
    assignment.push(value);
    c_string(assignment)
}

fn c_string(string: OsString) -> Option<CString> {
    CString::new(string.into_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn has(environment: &[CString], assignment: &str) -> bool {
        environment.iter().any(|entry| entry.as_bytes() == assignment.as_bytes())
    }

    #[test]
    fn the_last_change_of_a_variable_counts() {
        let change = |name: &str, value: Option<&str>| (name.into(), value.map(Into::into));
        let changes = [
            change("POLYPROC_TEST_A", Some("1")),
            change("POLYPROC_TEST_B", Some("2")),
            change("POLYPROC_TEST_A", Some("3=4")),
            change("POLYPROC_TEST_B", None),
            change("PATH", None),
            change(child::MARKER, Some("forged")),
        ];
        let environment = environment(&changes, "marker").unwrap();
        assert!(has(&environment, "POLYPROC_TEST_A=3=4"));
        assert!(has(&environment, "POLYPROC_CHILD=marker"));
        for prefix in ["POLYPROC_TEST_B=", "PATH="] {
            assert!(
                !environment.iter().any(|entry| entry.as_bytes().starts_with(prefix.as_bytes())),
                "{prefix}"
            );
        }
        for once in ["POLYPROC_TEST_A=", "POLYPROC_CHILD="] {
            let count =
                environment.iter().filter(|entry| entry.as_bytes().starts_with(once.as_bytes())).count();
            assert_eq!(count, 1, "{once}");
        }
    }

    #[test]
    fn impossible_variables_are_errors() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            let changes = [(name.into(), Some(value.into()))];
            let error = environment(&changes, "marker").unwrap_err();
            assert!(matches!(&error, SpawnError::Environment { name: given } if given == name), "{error}");
        }
    }

    #[test]
    fn descriptors_are_moved_out_of_the_way() {
        let file = File::open("/dev/null").unwrap();
        assert!(out_of_the_way(file.into()).unwrap().as_raw_fd() > CONTROL);
    }
}
