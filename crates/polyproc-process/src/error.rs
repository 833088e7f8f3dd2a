//! What can go wrong when a process is started or joined.

use nix::sys::signal::Signal;
use polyproc_memory::Said;
use polyproc_memory::handover::{self, ReceiveError};
use std::error::Error;
use std::fmt;
use std::io;

/// Why a process was not started. Nothing of it is left behind.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program has not called [`init`](crate::init), so that a child would not find its function, but run
    /// `main`.
    NotInitialised,
    /// The program runs with more privileges than its caller, as a set-user-ID program does. A child could
    /// not tell its start from an attack by way of its environment.
    Privileged,
    /// The function belongs to a shared library: the child would not find it there.
    NotInProgram,
    /// The arguments cannot be serialised.
    Encode(CodecError),
    /// An environment variable's name is empty or has an `=` or a NUL in it, or its value has a NUL in it.
    Environment {
        /// The variable's name.
        name: String,
    },
    /// A system call failed: out of descriptors, of processes, of memory; or no `/proc`. `EFBIG`: the
    /// arguments are longer than a file may be (`RLIMIT_FSIZE`, `ulimit -f`).
    System {
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl SpawnError {
    /// For `map_err`.
    pub(crate) fn system(call: &'static str) -> impl FnOnce(io::Error) -> SpawnError {
        move |source| SpawnError::System { call, source }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::NotInitialised => f.write_str(
                "polyproc is not initialised: call `polyproc::init()` at the beginning of `main` \
                 (in tests: `polyproc::init_for_tests!()`)",
            ),
            SpawnError::Privileged => {
                f.write_str("a program with more privileges than its caller cannot start itself again")
            }
            SpawnError::NotInProgram => {
                f.write_str("the function belongs to a shared library, not to the program itself")
            }
            SpawnError::Encode(error) => write!(f, "cannot serialise the arguments: {error}"),
            SpawnError::Environment { name } => {
                write!(f, "not a possible environment variable: {name:?}")
            }
            SpawnError::System { call, source } => {
                write!(f, "cannot start a process: {call}: {}", Said(source))
            }
        }
    }
}

impl Error for SpawnError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            SpawnError::Encode(error) => Some(error),
            SpawnError::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> io::Error {
        let kind = match &error {
            SpawnError::System { source, .. } => source.kind(),
            SpawnError::Privileged => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// Why arguments or a return value cannot be serialised or deserialised.
#[derive(Debug)]
pub struct CodecError {
    format: postcard::Error,
    handle: Option<ReceiveError>,
}

impl CodecError {
    /// To be made right after the hand-over in which it happened.
    pub(crate) fn new(format: postcard::Error) -> CodecError {
        CodecError { format, handle: handover::take_failure() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.handle {
            // The format drops the message of what a handle says.
            Some(handle) => handle.fmt(f),
            None => self.format.fmt(f),
        }
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.handle {
            Some(handle) => Some(handle),
            None => Some(&self.format),
        }
    }
}

/// Why there is no value to be had from a process, or not yet.
///
/// After [`TimedOut`](JoinError::TimedOut) the process goes on, and can be joined again. All others are
/// final.
///
/// # Example
///
/// ```
/// use polyproc_process::{JoinError, Process};
///
/// fn give_up() {
///     std::process::exit(3);
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// polyproc_process::init();
/// match Process::spawn(give_up, ())?.join() {
///     Err(JoinError::Exited(code)) => assert_eq!(code, 3),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// The function panicked.
    Panicked {
        /// The panic's message.
        message: String,
        /// Where it happened: file, line and column. `unknown place` if `resume_unwind` began it.
        location: String,
    },
    /// The process exited before the function returned: something called `exit` with this code.
    Exited(i32),
    /// A signal killed the process before the function returned.
    Signaled(i32),
    /// The time was over before the process.
    TimedOut,
    /// An earlier join has taken the value, or the error.
    AlreadyJoined,
    /// The function was not called, because the child could not read its arguments.
    Arguments(String),
    /// The function returned a value that the child could not send.
    Encode(String),
    /// The function returned a value that cannot be read here.
    Decode(CodecError),
    /// A system call failed. `ECHILD`: something else in this program has waited for the process, or ignores
    /// `SIGCHLD`, so that nobody knows how it ended; or it is another process that started it, of which this
    /// is a forked child.
    Io(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked { message, location } => write!(f, "panicked at {location}: {message}"),
            JoinError::Exited(code) => write!(f, "exited with code {code} before its function returned"),
            JoinError::Signaled(signal) => match Signal::try_from(*signal) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            JoinError::TimedOut => f.write_str("still running when the time was over"),
            JoinError::AlreadyJoined => f.write_str("already joined"),
            JoinError::Arguments(error) => write!(f, "cannot read the arguments: {error}"),
            JoinError::Encode(error) => write!(f, "cannot send the return value: {error}"),
            JoinError::Decode(error) => write!(f, "cannot read the return value: {error}"),
            JoinError::Io(error) => write!(f, "cannot join the process: {}", Said(error)),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            JoinError::Decode(error) => Some(error),
            JoinError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> io::Error {
        let kind = match &error {
            JoinError::Io(source) => source.kind(),
            JoinError::TimedOut => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_signal() {
        assert_eq!(JoinError::Signaled(9).to_string(), "killed by SIGKILL");
        assert_eq!(JoinError::Signaled(64).to_string(), "killed by signal 64");
    }

    #[test]
    fn the_errno_is_kept() {
        let error =
            SpawnError::System { call: "socketpair", source: io::Error::from_raw_os_error(libc::EMFILE) };
        let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
        let said = error.to_string();
        let limit = said.strip_prefix(
            "cannot start a process: socketpair: this process has no file descriptor left of its ",
        );
        let limit = limit.and_then(|rest| rest.strip_suffix(" (ulimit -n)"));
        assert!(limit.is_some_and(|limit| limit.parse::<u64>().is_ok()), "{said}");
        assert_eq!(io::Error::from(JoinError::TimedOut).kind(), io::ErrorKind::TimedOut);
    }
}
