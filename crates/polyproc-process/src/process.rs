//! The handle of a child.

use crate::builder::Builder;
use crate::channel::{self, Verdict};
use crate::entry::assert_plain;
use crate::error::{CodecError, JoinError, SpawnError};
use crate::family::{self, family};
use crate::function::Function;
use crate::running::{End, Running};
use crate::start::Started;
use polyproc_memory::handover;
use polyproc_sys::deadline::Deadline;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A process that runs a function of this program, and whose return value, an `R`, comes back.
///
/// Dropping it does not end the process, which goes on; its value is lost. When this process exits, it waits
/// for the child anyway, or ends it if it is a [daemon](Builder::daemon).
///
/// All operations use a pidfd, so they never reach another process that was given the same id later. They can
/// be called from several threads.
///
/// # Example
///
/// ```
/// use polyproc_process::Process;
///
/// fn sum(numbers: Vec<u64>) -> u64 {
///     numbers.iter().sum()
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     polyproc_process::init();
///     let process = Process::spawn(sum, (vec![1, 2, 3],))?;
///     assert_eq!(process.join()?, 6);
///     Ok(())
/// }
/// ```
pub struct Process<R> {
    running: Arc<Running>,
    /// The socket on which the outcome comes, until somebody has taken it.
    control: Mutex<Option<OwnedFd>>,
    stdin: Mutex<Option<PipeWriter>>,
    stdout: Mutex<Option<PipeReader>>,
    stderr: Mutex<Option<PipeReader>>,
    value: PhantomData<fn() -> R>,
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<R: Serialize + DeserializeOwned> Process<R> {
    /// Starts a process that calls `function` with `arguments`, a tuple.
    ///
    /// The program starts itself again, and [`init`](crate::init) in the child finds the function. The child
    /// does not have this process's memory: the arguments are serialised, and handles among them, like a
    /// `Value` or a `Mutex`, stand for the same shared memory in both processes. So arguments and return
    /// value own what they hold: `String`, not `&str`. The child has this process's arguments, environment
    /// and working directory, no standard input, this process's output, and no other descriptors but those
    /// that belong to its arguments.
    ///
    /// Threads that the function leaves behind end with it.
    ///
    /// Blocks for as long as the system takes to start the program, which is usually less than a millisecond.
    /// It does not wait for the function to begin. Threads may call it at the same time.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]: `init` was not called, the arguments cannot be serialised, or the system is out of
    /// something. Nothing is left behind.
    pub fn spawn<F, Args>(function: F, arguments: Args) -> Result<Process<R>, SpawnError>
    where
        F: Function<Args, Output = R>,
        Args: Serialize + DeserializeOwned,
    {
        const { assert_plain::<F>() };
        Builder::new().spawn(function, arguments)
    }
}

impl Process<()> {
    /// Chooses more about a process than its function, then starts it:
    /// `Process::builder().name("reader").spawn(f, ())`.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits until the process has ended, and returns what its function returned, or says how it ended
    /// instead.
    ///
    /// Blocks for as long as the process runs, and for as long as its own children do that are not daemons:
    /// it waits for them at its end. A value that the function has returned counts, whatever happens to the
    /// process afterwards. The process's standard input is closed first if it is a pipe that nobody has
    /// taken. A process that writes more into a pipe than it holds ends only when somebody reads it.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says how the process ended otherwise. Where the program ignores `SIGCHLD`, a process
    /// that left no value is [`JoinError::Io`] with `ECHILD`: the system does not tell how it ended.
    ///
    /// Only the process that started it can join it. In a copy of that process, made by `fork`, this is
    /// [`JoinError::Io`] with `ECHILD` at once, and the value stays where it belongs.
    pub fn join(&self) -> Result<R, JoinError> {
        self.check_ours()?;
        drop(take(&self.stdin));
        self.join_until(Deadline::NEVER)
    }

    /// Like [`join`](Process::join), but waits no longer than `timeout`. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// [`JoinError::TimedOut`] if the process still runs. It goes on, and can be joined again. Otherwise as
    /// [`join`](Process::join).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_process::{JoinError, Process};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// polyproc_process::init();
    /// let process = Process::spawn(|| std::thread::sleep(Duration::from_secs(60)), ())?;
    /// assert!(matches!(process.join_timeout(Duration::from_millis(10)), Err(JoinError::TimedOut)));
    /// process.kill()?;
    /// assert!(matches!(process.join(), Err(JoinError::Signaled(9))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_timeout(&self, timeout: Duration) -> Result<R, JoinError> {
        self.join_until(Deadline::after(timeout))
    }

    /// Like [`join`](Process::join), but does not block: `None` if the process still runs.
    ///
    /// # Errors
    ///
    /// As [`join`](Process::join).
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_process::Process;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// polyproc_process::init();
    /// let process = Process::spawn(|n: u32| n + 1, (41,))?;
    /// let answer = loop {
    ///     match process.try_join()? {
    ///         Some(answer) => break answer,
    ///         None => std::thread::yield_now(), // Or something useful.
    ///     }
    /// };
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_join(&self) -> Result<Option<R>, JoinError> {
        match self.join_until(Deadline::PAST) {
            Ok(value) => Ok(Some(value)),
            Err(JoinError::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// In a forked child the control socket is the parent's, too: whoever reads from it takes the value away.
    fn check_ours(&self) -> Result<(), JoinError> {
        let not_ours = || JoinError::Io(io::Error::from_raw_os_error(libc::ECHILD));
        self.running.is_ours().then_some(()).ok_or_else(not_ours)
    }

    fn join_until(&self, deadline: Deadline) -> Result<R, JoinError> {
        self.check_ours()?;
        if self.control.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Err(JoinError::AlreadyJoined);
        }
        let end = self.running.wait(deadline).map_err(JoinError::Io)?.ok_or(JoinError::TimedOut)?;
        family().strike(&self.running);
        // Another thread may have been waiting, too.
        let control = take(&self.control).ok_or(JoinError::AlreadyJoined)?;
        // The sender is dead: what is not there now will not come.
        match channel::receive(control.as_fd(), libc::MSG_DONTWAIT).map_err(JoinError::Io)? {
            Some(message) => read_outcome(message),
            None => Err(how_it_ended(end)),
        }
    }
}

fn read_outcome<R: DeserializeOwned>(message: channel::Message) -> Result<R, JoinError> {
    let (verdict, value) = postcard::take_from_bytes::<Verdict>(&message.body)
        .map_err(|error| JoinError::Io(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    match verdict {
        Verdict::Returned => {
            let value = handover::receive(message.descriptors, || postcard::from_bytes(value));
            value.map_err(|error| JoinError::Decode(CodecError::new(error)))
        }
        Verdict::Panicked { message, location } => Err(JoinError::Panicked { message, location }),
        Verdict::Arguments(error) => Err(JoinError::Arguments(error)),
        Verdict::Value(error) => Err(JoinError::Encode(error)),
    }
}

/// The error of a process that ended without an outcome.
fn how_it_ended(end: End) -> JoinError {
    match end {
        End::Status(status) => match (status.code(), status.signal()) {
            (Some(code), _) => JoinError::Exited(code),
            (_, signal) => JoinError::Signaled(signal.unwrap_or_default()),
        },
        End::Unknown => JoinError::Io(io::Error::from_raw_os_error(libc::ECHILD)),
    }
}

impl<R> Process<R> {
    pub(crate) fn new(started: Started) -> Process<R> {
        Process {
            running: started.running,
            control: Mutex::new(Some(started.control)),
            stdin: Mutex::new(started.stdin),
            stdout: Mutex::new(started.stdout),
            stderr: Mutex::new(started.stderr),
            value: PhantomData,
        }
    }

    /// The process's id, as the system shows it. When the process has ended, another one may get it.
    pub fn pid(&self) -> u32 {
        self.running.pid
    }

    /// Its name: what [`Builder::name`] gave it, or `Process-1`, `Process-2` and so on.
    pub fn name(&self) -> &str {
        &self.running.name
    }

    /// Whether it ends with this process: see [`Builder::daemon`].
    pub fn is_daemon(&self) -> bool {
        self.running.daemon
    }

    /// Whether it still runs. Does not block.
    pub fn is_alive(&self) -> bool {
        self.running.is_alive()
    }

    /// How it ended; `None` if it still runs, or if something else in this program has waited for it. Does
    /// not block.
    ///
    /// It says nothing of the function's value, and can be asked before and after a join.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        family::exit_status(&self.running)
    }

    /// Asks it to end, by `SIGTERM`. Without effect if it has ended. Does not wait.
    ///
    /// # Errors
    ///
    /// What the system says if the signal cannot be sent.
    pub fn terminate(&self) -> io::Result<()> {
        self.running.signal(libc::SIGTERM)
    }

    /// Ends it, by `SIGKILL`, which no process can refuse. Without effect if it has ended. Does not wait.
    ///
    /// Its own children go on, unless they are daemons.
    ///
    /// # Errors
    ///
    /// What the system says if the signal cannot be sent.
    pub fn kill(&self) -> io::Result<()> {
        self.running.signal(libc::SIGKILL)
    }

    /// Interrupts it as Ctrl-C does, by `SIGINT`. Without effect if it has ended. Does not wait.
    ///
    /// # Errors
    ///
    /// What the system says if the signal cannot be sent.
    pub fn interrupt(&self) -> io::Result<()> {
        self.running.signal(libc::SIGINT)
    }

    /// A descriptor (a pidfd) that becomes readable when it ends, for `poll`, `epoll` and async runtimes.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.running.sentinel()
    }

    /// The pipe to its standard input, once, if it was started with [`Stdio::piped`](crate::Stdio::piped).
    pub fn take_stdin(&self) -> Option<PipeWriter> {
        take(&self.stdin)
    }

    /// The pipe from its standard output, once, if it was started with [`Stdio::piped`](crate::Stdio::piped).
    pub fn take_stdout(&self) -> Option<PipeReader> {
        take(&self.stdout)
    }

    /// The pipe from its errors, once, if it was started with [`Stdio::piped`](crate::Stdio::piped).
    pub fn take_stderr(&self) -> Option<PipeReader> {
        take(&self.stderr)
    }
}

impl<R> AsFd for Process<R> {
    /// The [`sentinel`](Process::sentinel).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sentinel()
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("alive", &self.is_alive())
            .finish_non_exhaustive()
    }
}
