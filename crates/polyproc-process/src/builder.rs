//! What can be chosen about a process before it starts.

use crate::entry::{assert_plain, entry_of};
use crate::error::{CodecError, SpawnError};
use crate::function::Function;
use crate::process::Process;
use crate::start;
use polyproc_memory::handover;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;

/// Chooses a process's name, environment and standard streams, and whether it ends with its parent; then
/// starts it.
///
/// # Example
///
/// ```
/// use polyproc_process::{Builder, Stdio, current_process};
/// use std::io::Read;
///
/// fn greet(whom: String) {
///     let greeting = std::env::var("GREETING").unwrap();
///     println!("{greeting}, {whom}! I am {}.", current_process().name());
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// polyproc_process::init();
/// let process = Builder::new()
///     .name("greeter")
///     .env("GREETING", "Hello")
///     .stdout(Stdio::piped())
///     .spawn(greet, ("Bob".to_string(),))?;
/// let mut said = String::new();
/// process.take_stdout().unwrap().read_to_string(&mut said)?;
/// process.join()?;
/// assert_eq!(said, "Hello, Bob! I am greeter.\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder(Settings);

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    pub(crate) daemon: bool,
    /// In the order in which they were asked for; `None` takes the variable away.
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) streams: [Stdio; 3],
}

impl Builder {
    /// What [`Process::spawn`] uses: a name by number, not a daemon, this process's environment, no input,
    /// and this process's output.
    pub fn new() -> Builder {
        Builder(Settings {
            name: None,
            daemon: false,
            environment: Vec::new(),
            streams: [Stdio::null(), Stdio::inherit(), Stdio::inherit()],
        })
    }

    /// Names the process, for [`current_process`](crate::current_process) and what it says when it panics.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.0.name = Some(name.into());
        self
    }

    /// Whether the process ends with this one.
    ///
    /// A daemon is killed when its parent is gone, however the parent went, `SIGKILL` included; when the
    /// parent exits normally it gets a `SIGTERM` first, and a second to end by itself. For this it has one
    /// more thread, which sleeps.
    ///
    /// All other children are waited for when the parent exits normally, and go on if it is killed.
    ///
    /// A daemon may have children of its own; if they are daemons too, the whole family ends together.
    pub fn daemon(mut self, daemon: bool) -> Builder {
        self.0.daemon = daemon;
        self
    }

    /// Sets an environment variable of the process.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Builder {
        self.0.environment.push((name.as_ref().into(), Some(value.as_ref().into())));
        self
    }

    /// Takes a variable out of the process's environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Builder {
        self.0.environment.push((name.as_ref().into(), None));
        self
    }

    /// Where the process reads its standard input: [`Stdio::null`] unless set.
    pub fn stdin(mut self, stdio: impl Into<Stdio>) -> Builder {
        self.0.streams[0] = stdio.into();
        self
    }

    /// Where the process writes its standard output: [`Stdio::inherit`] unless set.
    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Builder {
        self.0.streams[1] = stdio.into();
        self
    }

    /// Where the process writes its errors: [`Stdio::inherit`] unless set.
    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Builder {
        self.0.streams[2] = stdio.into();
        self
    }

    /// Starts the process. See [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// [`SpawnError`]. Nothing is left behind.
    pub fn spawn<F, Args>(self, function: F, arguments: Args) -> Result<Process<F::Output>, SpawnError>
    where
        F: Function<Args>,
        F::Output: Serialize + DeserializeOwned,
        Args: Serialize + DeserializeOwned,
    {
        const { assert_plain::<F>() };
        start::check()?;
        let entry = entry_of::<F, Args>(function);
        let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(&arguments));
        let bytes = bytes.map_err(|error| SpawnError::Encode(CodecError::new(error)))?;
        Ok(Process::new(start::start(self.0, entry, &bytes, &descriptors)?))
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

/// Where a standard stream of a process leads.
///
/// Made by its functions, or from a file or the end of a pipe.
#[derive(Debug)]
pub struct Stdio(pub(crate) Target);

#[derive(Debug)]
pub(crate) enum Target {
    Inherit,
    Null,
    Piped,
    To(OwnedFd),
}

impl Stdio {
    /// Where this process's own leads.
    pub fn inherit() -> Stdio {
        Stdio(Target::Inherit)
    }

    /// To `/dev/null`: no input, and output that nobody sees.
    pub fn null() -> Stdio {
        Stdio(Target::Null)
    }

    /// To a pipe, whose other end is [`Process::take_stdin`], [`take_stdout`](Process::take_stdout) or
    /// [`take_stderr`](Process::take_stderr).
    pub fn piped() -> Stdio {
        Stdio(Target::Piped)
    }
}

impl From<OwnedFd> for Stdio {
    fn from(descriptor: OwnedFd) -> Stdio {
        Stdio(Target::To(descriptor))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        Stdio(Target::To(file.into()))
    }
}

impl From<PipeReader> for Stdio {
    fn from(reader: PipeReader) -> Stdio {
        Stdio(Target::To(reader.into()))
    }
}

impl From<PipeWriter> for Stdio {
    fn from(writer: PipeWriter) -> Stdio {
        Stdio(Target::To(writer.into()))
    }
}
