//! What can be chosen about a pool before it is there.

use crate::core::{Core, Retry, Settings};
use crate::error::PoolError;
use crate::hub::Hub;
use crate::items::Parcel;
use crate::owner::Owner;
use crate::pool::Pool;
use crate::state::StatePool;
use crate::worker::{Initialize, Initialized, MakeState, SendState};
use polyproc_process::remote::Remote;
use polyproc_process::{Function, cpu_count};
use polyproc_sys::robust;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Chooses how many workers a pool has, how they begin and how long they live, and what becomes of tasks that
/// fail.
///
/// # Example
///
/// ```
/// use polyproc_pool::{Pool, Retry};
/// use std::time::Duration;
///
/// fn prepare(directory: String) -> std::io::Result<()> {
///     std::env::set_current_dir(directory)
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::builder()
///     .workers(2)
///     .initializer(prepare, ("/".to_owned(),))
///     .max_tasks_per_worker(1_000)
///     .retry(Retry::UpTo(2))
///     .task_timeout(Duration::from_secs(60))
///     .build()?;
/// let place = pool.apply(|| std::env::current_dir().unwrap().display().to_string(), ())?;
/// assert_eq!(place, "/");
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Builder {
    workers: Option<usize>,
    settings: Settings,
    failure: Option<PoolError>,
}

impl Builder {
    /// As [`Pool::new`] makes them: as many workers as this process may use CPUs; they live as long as the
    /// pool; a task whose worker dies is not tried again, and may take as long as it likes.
    pub fn new() -> Builder {
        Builder { workers: None, settings: Settings::default(), failure: None }
    }

    /// How many workers there are: [`cpu_count`] by default.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers);
        self
    }

    /// What each worker calls first, with these arguments, a tuple. It returns nothing, or a `Result`.
    ///
    /// If it fails or panics, the pool is [broken](PoolError::Initializer): all of its tasks fail with what
    /// it said, and no worker is started any more.
    pub fn initializer<F, Args>(mut self, function: F, arguments: Args) -> Builder
    where
        F: Function<Args>,
        F::Output: Initialized,
        Args: Serialize + DeserializeOwned + 'static,
    {
        self.settings.recipe.initializer =
            self.ingredient(Remote::new::<Initialize<Args>, F>(function), &arguments);
        self
    }

    /// After how many tasks a worker ends and another takes its place, for tasks that leave something behind.
    /// Zero counts as one.
    pub fn max_tasks_per_worker(mut self, tasks: usize) -> Builder {
        self.settings.max_tasks = Some(tasks.max(1));
        self
    }

    /// How often a task is tried if its worker dies. A task that panics, or takes too long, is not tried
    /// again.
    pub fn retry(mut self, retry: Retry) -> Builder {
        self.settings.retry = retry;
        self
    }

    /// How long a task may run. The worker of one that takes longer is killed, at most a tenth or some
    /// milliseconds later, and another has its place; the task's result is
    /// [`TaskError::TimedOut`](crate::TaskError::TimedOut).
    pub fn task_timeout(mut self, limit: Duration) -> Builder {
        self.settings.timeout = Some(limit);
        self
    }

    /// How many tasks the iterators [`imap`](Pool::imap) and [`imap_unordered`](Pool::imap_unordered) may
    /// have pulled from their input and not yielded: by default, a few times what the workers take at once.
    /// For [`map`](Pool::map), how many may be under way. Zero counts as one.
    ///
    /// It applies to the `_async` forms, too. By default these have no limit: whatever is submitted lies in
    /// memory until a worker takes it, and results until they are fetched. With a limit,
    /// [`apply_async`](Pool::apply_async) first waits until fewer of the pool's tasks are under way, and
    /// [`map_async`](Pool::map_async) returns when no more than so many of its own are.
    pub fn max_in_flight(mut self, tasks: usize) -> Builder {
        self.settings.max_in_flight = Some(tasks.max(1));
        self
    }

    /// Starts the workers. Does not wait until they are ready.
    ///
    /// # Errors
    ///
    /// [`PoolError`]; no worker is left behind.
    pub fn build(self) -> Result<Pool, PoolError> {
        self.open().map(Pool)
    }

    /// Starts the workers of a pool whose functions take each worker's own state: `init` makes it, once a
    /// worker, from these arguments, a tuple; [`StatePool::close`] returns what has become of it.
    ///
    /// # Errors
    ///
    /// [`PoolError`]; no worker is left behind.
    pub fn with_worker_state<F, Args>(
        mut self,
        init: F,
        arguments: Args,
    ) -> Result<StatePool<F::Output>, PoolError>
    where
        F: Function<Args>,
        F::Output: Serialize + DeserializeOwned + 'static,
        Args: Serialize + DeserializeOwned + 'static,
    {
        self.settings.recipe.state = self.ingredient(Remote::new::<MakeState<Args>, F>(init), &arguments);
        self.settings.recipe.farewell = match Remote::new::<SendState<F::Output>, ()>(()) {
            Ok(farewell) => Some(farewell),
            Err(error) => {
                self.failure = Some(error.into());
                None
            }
        };
        self.open().map(|owner| StatePool(owner, PhantomData))
    }

    fn ingredient<Args: Serialize + 'static>(
        &mut self,
        function: Result<Remote, polyproc_process::SpawnError>,
        arguments: &Args,
    ) -> Option<(Remote, Parcel)> {
        let function = function.map_err(PoolError::from);
        let parcel = Parcel::new(arguments).map_err(PoolError::Encode);
        match function.and_then(|function| Ok((function, parcel?))) {
            Ok(ingredient) => Some(ingredient),
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }

    fn open(self) -> Result<Owner, PoolError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let workers = self.workers.unwrap_or_else(cpu_count);
        if workers == 0 {
            return Err(PoolError::NoWorkers);
        }
        // Its threads and its workers would find out only later.
        robust::check()?;
        let hub = Arc::new(Hub::new(Core::new(self.settings, workers))?);
        hub.open()?;
        let supervisor = {
            let hub = Arc::clone(&hub);
            thread::Builder::new().name("polyproc-pool".into()).spawn(move || hub.supervise())
        };
        match supervisor {
            Ok(supervisor) => Ok(Owner::new(hub, supervisor)),
            Err(error) => {
                hub.close_up();
                Err(error.into())
            }
        }
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .field("max_tasks_per_worker", &self.settings.max_tasks)
            .field("retry", &self.settings.retry)
            .field("task_timeout", &self.settings.timeout)
            .field("max_in_flight", &self.settings.max_in_flight)
            .finish_non_exhaustive()
    }
}
