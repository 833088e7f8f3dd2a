//! [`Pool`].

use crate::builder::Builder;
use crate::error::{MapError, PoolError, TaskError};
use crate::feed::{Feeder, Options, Submitted};
use crate::imap::{Imap, ImapUnordered};
use crate::map::map;
use crate::owner::{Owner, Stats};
use crate::result::{AsyncResult, one};
use crate::worker::{ForEachChunk, Map, StarMap};
use bytemuck::Pod;
use polyproc_process::Function;
use polyproc_process::remote::Remote;
use polyproc_value::ArrayGuard;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

/// Processes that call functions of this program, as many at a time as there are of them.
///
/// Dropping it [terminates](Pool::terminate) it, and waits for its workers' end. All of its operations can be
/// called by several threads at once. A child made by `fork` has no pool: its copy refuses.
///
/// See the [crate](crate) for what a death does, for what blocks, and for what it costs.
///
/// # Example
///
/// ```
/// use polyproc_pool::Pool;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.map(|n: u64| n * n, 0..6)?, [0, 1, 4, 9, 16, 25]);
/// for length in pool.imap(|text: String| text.len(), ["one", "three"].map(String::from)) {
///     println!("{}", length?);
/// }
/// assert_eq!(pool.apply(|a: i32, b: i32| a * b, (6, 7))?, 42);
/// pool.close();
/// pool.join()?;
/// # Ok(())
/// # }
/// ```
pub struct Pool(pub(crate) Owner);

impl Pool {
    /// Makes a pool of `workers` processes. They start at once, and are ready some milliseconds later.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if `workers` is 0, `init` was not called, or the system has run out of something. No
    /// worker is left behind.
    pub fn new(workers: usize) -> Result<Pool, PoolError> {
        Pool::builder().workers(workers).build()
    }

    /// Chooses more about a pool than its size.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Chooses more about a single `map`, `imap` or the like.
    pub fn batch(&self) -> Batch<'_> {
        Batch { pool: self, options: Options::default() }
    }

    /// Calls `function` with each item of the input, and returns what it returned, in the input's order.
    /// Blocks until all are done.
    ///
    /// The input is pulled in this thread, and not much faster than the workers take it.
    ///
    /// # Errors
    ///
    /// [`MapError`] if any task failed. All others have been run, and the error has what became of each.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_pool::{Pool, TaskError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # polyproc_process::init();
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.map(|n: u64| n * n, 0..4)?, [0, 1, 4, 9]);
    ///
    /// // One fails, the others have results.
    /// let results = pool.map(|n: u32| 100 / n, [5, 0, 10]).unwrap_err().into_results();
    /// assert!(matches!(results[0], Ok(20)));
    /// assert!(matches!(results[1], Err(TaskError::Panicked { .. })));
    /// assert!(matches!(results[2], Ok(10)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F, T, R>(&self, function: F, input: impl IntoIterator<Item = T>) -> Result<Vec<R>, MapError<R>>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.batch().map(function, input)
    }

    /// [`map`](Pool::map) for functions of several arguments: the input is tuples.
    ///
    /// # Errors
    ///
    /// As for [`map`](Pool::map).
    ///
    /// # Example
    ///
    /// ```
    /// # use polyproc_pool::Pool;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # polyproc_process::init();
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.starmap(u32::pow, [(2, 10), (3, 2)])?, [1024, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn starmap<F, Args>(
        &self,
        function: F,
        input: impl IntoIterator<Item = Args>,
    ) -> Result<Vec<F::Output>, MapError<F::Output>>
    where
        F: Function<Args>,
        Args: Serialize + DeserializeOwned + 'static,
        F::Output: Serialize + DeserializeOwned + 'static,
    {
        self.batch().starmap(function, input)
    }

    /// Calls `function` with each item of the input, and yields each result, in the input's order, as soon as
    /// it is there.
    ///
    /// The input may be endless: it is pulled when a result is asked for, in that thread, as far ahead as
    /// [`max_in_flight`](Builder::max_in_flight) says.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_pool::Pool;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # polyproc_process::init();
    /// let pool = Pool::new(2)?;
    /// let mut squares = pool.imap(|n: u64| n * n, 0..); // As many as are asked for.
    /// assert_eq!(squares.next().unwrap()?, 0);
    /// assert_eq!(squares.next().unwrap()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn imap<F, T, R, I>(&self, function: F, input: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = T>,
    {
        self.batch().imap(function, input)
    }

    /// [`imap`](Pool::imap), but yields results in the order in which they come.
    pub fn imap_unordered<F, T, R, I>(&self, function: F, input: I) -> ImapUnordered<I::IntoIter, R>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = T>,
    {
        self.batch().imap_unordered(function, input)
    }

    /// Calls `function` with these arguments, a tuple, in a worker, and returns what it returned. Blocks
    /// until then.
    ///
    /// # Errors
    ///
    /// [`TaskError`].
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_pool::{Pool, TaskError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # polyproc_process::init();
    /// let pool = Pool::new(2)?;
    /// assert_eq!(pool.apply(|a: u32, b: u32| a + b, (1, 2))?, 3);
    /// let error = pool.apply(|| std::process::exit(7), ()).map(|()| ()).unwrap_err();
    /// assert!(matches!(error, TaskError::WorkerDied { .. }));
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply<F, Args>(&self, function: F, arguments: Args) -> Result<F::Output, TaskError>
    where
        F: Function<Args>,
        Args: Serialize + DeserializeOwned + 'static,
        F::Output: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<StarMap<Args>, F>(function);
        let submitted = Submitted::one(&self.0.hub, function, &arguments, true);
        one(submitted.wait_for_all())
    }

    /// [`apply`](Pool::apply) without the wait: if something goes wrong, the result says so.
    ///
    /// The arguments lie in memory until a worker takes them, however many there are, unless
    /// [`max_in_flight`](Builder::max_in_flight) says how many there may be: then this waits until there are
    /// fewer.
    pub fn apply_async<F, Args>(&self, function: F, arguments: Args) -> AsyncResult<F::Output>
    where
        F: Function<Args>,
        Args: Serialize + DeserializeOwned + 'static,
        F::Output: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<StarMap<Args>, F>(function);
        AsyncResult::of_one(Submitted::one(&self.0.hub, function, &arguments, false))
    }

    /// [`map`](Pool::map) without the wait. The input is pulled to its end, at once, unless
    /// [`max_in_flight`](Builder::max_in_flight) says how much may be under way.
    pub fn map_async<F, T, R>(
        &self,
        function: F,
        input: impl IntoIterator<Item = T>,
    ) -> AsyncResult<Vec<R>, MapError<R>>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.batch().map_async(function, input)
    }

    /// [`starmap`](Pool::starmap) without the wait. The input is pulled as by [`map_async`](Pool::map_async).
    pub fn starmap_async<F, Args>(
        &self,
        function: F,
        input: impl IntoIterator<Item = Args>,
    ) -> AsyncResult<Vec<F::Output>, MapError<F::Output>>
    where
        F: Function<Args>,
        Args: Serialize + DeserializeOwned + 'static,
        F::Output: Serialize + DeserializeOwned + 'static,
    {
        self.batch().starmap_async(function, input)
    }

    /// Has the workers work on an array in place: calls `function` with `len` elements at a time, and the
    /// last time with those that are left. Blocks until all are done. No element is copied. A worker keeps
    /// the array's memory mapped until it has had nothing to do for a second, or another function: the next
    /// pass is faster than the first.
    ///
    /// This thread holds the array's lock all the time, so nobody else sees the array half-way. If this
    /// process is killed, whoever takes the lock next is told so, and has it when no worker is at the array
    /// any more: the workers die a moment after their pool, and one that is stopped (`SIGSTOP`) when it is
    /// continued or killed.
    ///
    /// # Errors
    ///
    /// [`MapError`] if any part was not done; parts are counted from 0. A part whose worker died may be half
    /// done.
    ///
    /// # Panics
    ///
    /// If `len` is 0.
    ///
    /// # Example
    ///
    /// ```
    /// # use polyproc_pool::Pool;
    /// # use polyproc_value::Array;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # polyproc_process::init();
    /// let pool = Pool::new(2)?;
    /// let array = Array::new(&[1, 2, 3, 4, 5])?;
    /// pool.for_each_chunk(&mut array.lock().unwrap(), 2, |part: &mut [i32]| {
    ///     part.iter_mut().for_each(|n| *n *= 2);
    /// })?;
    /// assert_eq!(array.to_vec()?, [2, 4, 6, 8, 10]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each_chunk<F, T>(
        &self,
        array: &mut ArrayGuard<'_, T>,
        len: usize,
        function: F,
    ) -> Result<(), MapError<()>>
    where
        F: Fn(&mut [T]) + Copy + Send + 'static,
        T: Pod,
    {
        assert!(len > 0, "a part has one element at least");
        let count = array.len();
        let lending = array.lend();
        let part = |start: usize| (lending.loan(), start, count.min(start.saturating_add(len)));
        let parts = (0..count).step_by(len).map(part);
        let function = Remote::new::<ForEachChunk<T>, F>(function);
        map::<_, ()>(&self.0.hub, function, &Options::default(), parts).map(drop)
    }

    /// Takes no more tasks. What was submitted is still done, and then the workers end. Does not block.
    pub fn close(&self) {
        self.0.close();
    }

    /// Kills the workers. What is not done fails with [`TaskError::Terminated`]. Does not block, takes no
    /// lock that a worker could hold, and can be called by a callback.
    pub fn terminate(&self) {
        self.0.terminate();
    }

    /// After [`close`](Pool::close) or [`terminate`](Pool::terminate), waits until all workers have ended.
    ///
    /// # Errors
    ///
    /// [`PoolError::StillOpen`] if it was neither closed nor terminated; or what broke the pool.
    pub fn join(&self) -> Result<(), PoolError> {
        self.0.join(None)
    }

    /// [`join`](Pool::join), but waits no longer than `timeout`. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// [`PoolError::TimedOut`] if workers are still at work; they go on. Otherwise as for
    /// [`join`](Pool::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), PoolError> {
        self.0.join(Some(timeout))
    }

    /// Changes the number of workers. New ones are started soon, by whichever thread attends to the pool;
    /// those that are too many begin nothing more, and end after the task that they are at. Does not block.
    ///
    /// # Errors
    ///
    /// [`PoolError::NoWorkers`] for 0, or why the pool has ended.
    pub fn resize(&self, workers: usize) -> Result<(), PoolError> {
        self.0.resize(workers)
    }

    /// What the pool and its workers are doing. Does not block.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// How a single `map`, `imap` or the like is run.
///
/// # Example
///
/// ```
/// # use polyproc_pool::Pool;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::new(2)?;
/// let first = pool.batch().chunk_size(1).max_in_flight(8).imap(|n: u64| n * n, 0..).nth(5);
/// assert_eq!(first.unwrap()?, 25);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Batch<'a> {
    pool: &'a Pool,
    options: Options,
}

impl Batch<'_> {
    /// How many tasks a worker begins at a time, at most 4,096. What it has not begun can go to another that
    /// has nothing to do. By default, as many as take some 25 µs, as far as was measured; with a
    /// [`task_timeout`](Builder::task_timeout), one.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn chunk_size(mut self, tasks: usize) -> Self {
        assert!(tasks > 0, "a chunk has one task at least");
        self.options.chunk = Some(tasks);
        self
    }

    /// As [`Builder::max_in_flight`], for these tasks.
    pub fn max_in_flight(mut self, tasks: usize) -> Self {
        self.options.max_in_flight = Some(tasks.max(1));
        self
    }

    /// Draws a bar of how many tasks are done on standard error, if that is a terminal.
    #[cfg(feature = "progress")]
    pub fn progress(self) -> Self {
        let style =
            indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} [{elapsed} < {eta}, {per_sec}]");
        let bar = indicatif::ProgressBar::no_length();
        self.progress_bar(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// Moves this bar on as tasks are done, and finishes it.
    #[cfg(feature = "progress")]
    pub fn progress_bar(mut self, bar: indicatif::ProgressBar) -> Self {
        self.options.progress.bar = Some(bar);
        self
    }

    /// [`Pool::map`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn map<F, T, R>(&self, function: F, input: impl IntoIterator<Item = T>) -> Result<Vec<R>, MapError<R>>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<Map<T, R>, F>(function);
        map(&self.pool.0.hub, function, &self.options, input.into_iter())
    }

    /// [`Pool::starmap`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn starmap<F, Args>(
        &self,
        function: F,
        input: impl IntoIterator<Item = Args>,
    ) -> Result<Vec<F::Output>, MapError<F::Output>>
    where
        F: Function<Args>,
        Args: Serialize + DeserializeOwned + 'static,
        F::Output: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<StarMap<Args>, F>(function);
        map(&self.pool.0.hub, function, &self.options, input.into_iter())
    }

    /// [`Pool::imap`].
    pub fn imap<F, T, R, I>(&self, function: F, input: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = T>,
    {
        let function = Remote::new::<Map<T, R>, F>(function);
        Imap::new(&self.pool.0.hub, function, &self.options, input.into_iter())
    }

    /// [`Pool::imap_unordered`].
    pub fn imap_unordered<F, T, R, I>(&self, function: F, input: I) -> ImapUnordered<I::IntoIter, R>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = T>,
    {
        let function = Remote::new::<Map<T, R>, F>(function);
        ImapUnordered::new(&self.pool.0.hub, function, &self.options, input.into_iter())
    }

    /// [`Pool::map_async`].
    pub fn map_async<F, T, R>(
        &self,
        function: F,
        input: impl IntoIterator<Item = T>,
    ) -> AsyncResult<Vec<R>, MapError<R>>
    where
        F: Fn(T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<Map<T, R>, F>(function);
        let mut feeder = Feeder::new(&self.pool.0.hub, function, &self.options, input.into_iter());
        feeder.feed_all();
        AsyncResult::of_all(feeder.submitted)
    }

    /// [`Pool::starmap_async`].
    pub fn starmap_async<F, Args>(
        &self,
        function: F,
        input: impl IntoIterator<Item = Args>,
    ) -> AsyncResult<Vec<F::Output>, MapError<F::Output>>
    where
        F: Function<Args>,
        Args: Serialize + DeserializeOwned + 'static,
        F::Output: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<StarMap<Args>, F>(function);
        let mut feeder = Feeder::new(&self.pool.0.hub, function, &self.options, input.into_iter());
        feeder.feed_all();
        AsyncResult::of_all(feeder.submitted)
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("options", &self.options).finish_non_exhaustive()
    }
}
