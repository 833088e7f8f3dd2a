//! What can go wrong: with a task, with many of them, with the pool.

use polyproc_memory::Said;
use polyproc_process::SpawnError;
use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// Why a task has no result. It says nothing of the other tasks, which are untouched.
///
/// What the function itself returns as an `Err` is no such error: it is the task's result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The function panicked. The worker goes on.
    Panicked {
        /// The panic's message; `no message` if its payload is no text.
        message: String,
        /// File, line and column; `unknown place` if `resume_unwind` began it.
        location: String,
        /// The calls that led there; empty if `RUST_BACKTRACE` is `0` in the worker.
        backtrace: String,
    },
    /// The worker's process ended while it was at this task: it was killed, crashed, or something called
    /// `exit`. Another has its place.
    WorkerDied {
        /// Its process id.
        pid: u32,
        /// How it ended. The default one, if the program ignores `SIGCHLD` and so nobody knows.
        status: ExitStatus,
        /// How often the task was tried.
        attempt: u32,
    },
    /// Ten workers died when this task was next, and none of them began it: it may be what they cannot take,
    /// for instance because they have too little memory or too few descriptors left for it. It was not run.
    Unbegun {
        /// The last one's process id.
        pid: u32,
        /// How the last one ended.
        status: ExitStatus,
        /// How many they were.
        deaths: u32,
    },
    /// It took longer than the pool's [`task_timeout`](crate::Builder::task_timeout), and its worker was
    /// killed for it.
    TimedOut {
        /// The worker's process id.
        pid: u32,
        /// The pool's limit.
        limit: Duration,
    },
    /// It was [cancelled](crate::AsyncResult::cancel).
    Cancelled,
    /// The pool was terminated, or dropped, before it was done.
    Terminated,
    /// The pool was closed when it was submitted.
    Closed,
    /// The pool has no workers: why. After [`PoolError::Spawn`] and [`PoolError::Io`] it asks the system
    /// again, and later tasks may be run; otherwise it will have none.
    Broken(PoolError),
    /// Its arguments cannot be serialised, or not be sent: why. It was not run.
    Encode(String),
    /// The worker could not read its arguments: why. It was not run.
    Arguments(String),
    /// It was run, and the worker could not send what the function returned: why.
    Unsendable(String),
    /// It was run, and what the function returned cannot be read here: why.
    Decode(String),
    /// It was not done when the time was over. It goes on, and can be waited for again.
    NotReady,
    /// An earlier call has taken the result.
    AlreadyTaken,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Panicked { message, location, .. } => write!(f, "panicked at {location}: {message}"),
            TaskError::WorkerDied { pid, status, attempt } => {
                write!(f, "the worker {pid} died in the task, attempt {attempt}: {status}")
            }
            TaskError::Unbegun { pid, status, deaths } => {
                write!(
                    f,
                    "{deaths} workers died before they began the task, the last one was {pid}: {status}"
                )
            }
            TaskError::TimedOut { pid, limit } => {
                write!(f, "the task took longer than {limit:?}, and its worker {pid} was killed")
            }
            TaskError::Cancelled => f.write_str("the task was cancelled"),
            TaskError::Terminated => f.write_str("the pool was terminated before the task was done"),
            TaskError::Closed => f.write_str("the pool is closed"),
            TaskError::Broken(error) => error.fmt(f),
            TaskError::Encode(why) => write!(f, "cannot send the arguments: {why}"),
            TaskError::Arguments(why) => write!(f, "the worker cannot read the arguments: {why}"),
            TaskError::Unsendable(why) => write!(f, "the worker cannot send the result: {why}"),
            TaskError::Decode(why) => write!(f, "cannot read the result: {why}"),
            TaskError::NotReady => f.write_str("the task was not done when the time was over"),
            TaskError::AlreadyTaken => f.write_str("an earlier call has taken the result"),
        }
    }
}

impl Error for TaskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TaskError::Broken(error) => error.source(),
            _ => None,
        }
    }
}

/// What is wrong with a pool as a whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// A pool has one worker at least.
    NoWorkers,
    /// The initializer, or what makes the workers' state, failed or panicked; this is what it said.
    Initializer(String),
    /// Several workers in a row died before they were ready; this is how the last one ended.
    WorkersDie {
        /// Its process id.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// No worker can be started.
    Spawn(Arc<SpawnError>),
    /// The system refused something else.
    Io(Arc<io::Error>),
    /// The arguments of the initializer, or of what makes the workers' state, cannot be serialised: why.
    Encode(String),
    /// The pool was terminated.
    Terminated,
    /// The pool is neither closed nor terminated, so that a join would never end.
    StillOpen,
    /// The time was over before all workers had ended. They go on.
    TimedOut,
    /// A forked child has no pool: the workers are its parent's.
    Forked,
}

impl From<io::Error> for PoolError {
    fn from(error: io::Error) -> PoolError {
        PoolError::Io(Arc::new(error))
    }
}

impl From<SpawnError> for PoolError {
    fn from(error: SpawnError) -> PoolError {
        PoolError::Spawn(Arc::new(error))
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolError::NoWorkers => f.write_str("a pool has one worker at least"),
            PoolError::Initializer(why) => write!(f, "the pool's initializer failed: {why}"),
            PoolError::WorkersDie { pid, status } => {
                write!(f, "the pool's workers die before they are ready, the last one, {pid}, with {status}")
            }
            PoolError::Spawn(error) => write!(f, "cannot start a worker: {error}"),
            PoolError::Io(error) => write!(f, "the pool cannot go on: {}", Said(error)),
            PoolError::Encode(why) => write!(f, "cannot send the arguments of the initializer: {why}"),
            PoolError::Terminated => f.write_str("the pool was terminated"),
            PoolError::StillOpen => f.write_str("a pool is closed or terminated before it is joined"),
            PoolError::TimedOut => f.write_str("the pool's workers had not ended when the time was over"),
            PoolError::Forked => f.write_str("the pool belongs to the process that this one was forked from"),
        }
    }
}

impl Error for PoolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PoolError::Spawn(error) => Some(&**error),
            PoolError::Io(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<PoolError> for io::Error {
    fn from(error: PoolError) -> io::Error {
        let kind = match &error {
            PoolError::Io(source) => source.kind(),
            PoolError::TimedOut => io::ErrorKind::TimedOut,
            PoolError::NoWorkers | PoolError::StillOpen => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Of many tasks at least one has no result. All were run to their end; here is what became of each.
///
/// # Example
///
/// ```
/// # use polyproc_pool::{Pool, TaskError};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::new(2)?;
/// let error = pool.map(|n: u32| 12 / n, [3, 0, 4]).unwrap_err();
/// assert_eq!(error.index(), 1);
/// assert!(matches!(error.error(), TaskError::Panicked { .. }));
/// let results = error.into_results();
/// assert_eq!(results.iter().flatten().collect::<Vec<_>>(), [&4, &3]);
/// # Ok(())
/// # }
/// ```
pub struct MapError<R> {
    /// The first failure's index.
    index: usize,
    error: TaskError,
    results: Vec<Result<R, TaskError>>,
}

impl<R> MapError<R> {
    /// `None` if nothing failed.
    pub(crate) fn new(results: Vec<Result<R, TaskError>>) -> Option<MapError<R>> {
        let failed =
            |(index, result): (usize, &Result<R, TaskError>)| Some((index, result.as_ref().err()?.clone()));
        let (index, error) = results.iter().enumerate().find_map(failed)?;
        Some(MapError { index, error, results })
    }

    /// The index of the first task without a result, in the order of the input.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Why it has none.
    pub fn error(&self) -> &TaskError {
        &self.error
    }

    /// Why it has none.
    pub fn into_error(self) -> TaskError {
        self.error
    }

    /// All failures, with their indices.
    pub fn errors(&self) -> impl Iterator<Item = (usize, &TaskError)> {
        let errors = self.results.iter().enumerate();
        errors.filter_map(|(index, result)| result.as_ref().err().map(|error| (index, error)))
    }

    /// What became of each task, in the order of the input.
    pub fn into_results(self) -> Vec<Result<R, TaskError>> {
        self.results
    }
}

/// Without the results: they need not be `Debug`.
impl<R> fmt::Debug for MapError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.errors().count();
        f.debug_struct("MapError")
            .field("index", &self.index)
            .field("error", self.error())
            .field("failed", &failed)
            .field("tasks", &self.results.len())
            .finish()
    }
}

impl<R> fmt::Display for MapError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}: {}", self.index, self.error())?;
        match self.errors().count() {
            0 | 1 => Ok(()),
            failed => write!(f, " (and {} more of {} tasks)", failed - 1, self.results.len()),
        }
    }
}

impl<R> Error for MapError<R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error().source()
    }
}

/// Without results: of what is not ready, or was taken before.
impl<R> From<TaskError> for MapError<R> {
    fn from(error: TaskError) -> MapError<R> {
        MapError { index: 0, error, results: Vec::new() }
    }
}

impl<R> From<MapError<R>> for TaskError {
    fn from(error: MapError<R>) -> TaskError {
        error.into_error()
    }
}
