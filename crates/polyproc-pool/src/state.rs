//! [`StatePool`]: a pool whose workers keep something from one task to the next.

use crate::error::{MapError, PoolError, TaskError};
use crate::feed::{Feeder, Options, Submitted};
use crate::imap::{Imap, ImapUnordered};
use crate::map::{collect, map};
use crate::owner::{Owner, Stats};
use crate::result::{AsyncResult, one};
use crate::worker::MapWithState;
use polyproc_process::remote::Remote;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// A [`Pool`](crate::Pool) whose functions take `&mut S` before their argument: their worker's own state,
/// made when it started by what [`Builder::with_worker_state`](crate::Builder::with_worker_state) was given.
///
/// A connection, a cache, a large table that each worker loads once, handles of shared memory. A worker that
/// dies takes its state along; the next one makes its own.
///
/// # Example
///
/// ```
/// use polyproc_pool::Pool;
/// use std::collections::HashMap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::builder().workers(2).with_worker_state(HashMap::<String, u32>::new, ())?;
/// let words = "one two one three one two".split(' ').map(String::from);
/// pool.map(|counts, word: String| *counts.entry(word).or_insert(0) += 1, words)?;
/// let mut ones = 0;
/// for counts in pool.close()? {
///     ones += counts.get("one").unwrap_or(&0);
/// }
/// assert_eq!(ones, 3);
/// # Ok(())
/// # }
/// ```
pub struct StatePool<S>(pub(crate) Owner, pub(crate) PhantomData<fn() -> S>);

impl<S: 'static> StatePool<S> {
    /// As [`Pool::map`](crate::Pool::map).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn map<F, T, R>(&self, function: F, input: impl IntoIterator<Item = T>) -> Result<Vec<R>, MapError<R>>
    where
        F: Fn(&mut S, T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<MapWithState<S, T, R>, F>(function);
        map(&self.0.hub, function, &Options::default(), input.into_iter())
    }

    /// As [`Pool::imap`](crate::Pool::imap).
    pub fn imap<F, T, R, I>(&self, function: F, input: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(&mut S, T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = T>,
    {
        let function = Remote::new::<MapWithState<S, T, R>, F>(function);
        Imap::new(&self.0.hub, function, &Options::default(), input.into_iter())
    }

    /// As [`Pool::imap_unordered`](crate::Pool::imap_unordered).
    pub fn imap_unordered<F, T, R, I>(&self, function: F, input: I) -> ImapUnordered<I::IntoIter, R>
    where
        F: Fn(&mut S, T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = T>,
    {
        let function = Remote::new::<MapWithState<S, T, R>, F>(function);
        ImapUnordered::new(&self.0.hub, function, &Options::default(), input.into_iter())
    }

    /// As [`Pool::apply`](crate::Pool::apply), with one argument.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply<F, T, R>(&self, function: F, argument: T) -> Result<R, TaskError>
    where
        F: Fn(&mut S, T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<MapWithState<S, T, R>, F>(function);
        let submitted = Submitted::one(&self.0.hub, function, &argument, true);
        one(submitted.wait_for_all())
    }

    /// As [`Pool::apply_async`](crate::Pool::apply_async), with one argument.
    pub fn apply_async<F, T, R>(&self, function: F, argument: T) -> AsyncResult<R>
    where
        F: Fn(&mut S, T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<MapWithState<S, T, R>, F>(function);
        AsyncResult::of_one(Submitted::one(&self.0.hub, function, &argument, false))
    }

    /// As [`Pool::map_async`](crate::Pool::map_async).
    pub fn map_async<F, T, R>(
        &self,
        function: F,
        input: impl IntoIterator<Item = T>,
    ) -> AsyncResult<Vec<R>, MapError<R>>
    where
        F: Fn(&mut S, T) -> R + Copy + Send + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let function = Remote::new::<MapWithState<S, T, R>, F>(function);
        let mut feeder = Feeder::new(&self.0.hub, function, &Options::default(), input.into_iter());
        feeder.feed_all();
        AsyncResult::of_all(feeder.submitted)
    }

    /// Has the workers do what was submitted and end, waits for that, and returns their last states, in no
    /// order: of those that ended earlier, because they had done their number of tasks or were too many, as
    /// well.
    ///
    /// # Errors
    ///
    /// A state that cannot be sent or read, as [`TaskError::Unsendable`] or [`TaskError::Decode`], with all
    /// others; what broke the pool, as [`TaskError::Broken`].
    pub fn close(self) -> Result<Vec<S>, MapError<S>>
    where
        S: DeserializeOwned,
    {
        self.0.close();
        let joined = self.0.join(None);
        let mut states = self.0.states();
        for (index, state) in states.iter_mut().enumerate() {
            state.first = index;
        }
        let states = collect(states)?;
        joined.map(|()| states).map_err(|error| TaskError::Broken(error).into())
    }

    /// As [`Pool::terminate`](crate::Pool::terminate). The states are lost.
    pub fn terminate(&self) {
        self.0.terminate();
    }

    /// As [`Pool::join`](crate::Pool::join), after [`terminate`](StatePool::terminate).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn join(&self) -> Result<(), PoolError> {
        self.0.join(None)
    }

    /// As [`Pool::join_timeout`](crate::Pool::join_timeout).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), PoolError> {
        self.0.join(Some(timeout))
    }

    /// As [`Pool::resize`](crate::Pool::resize).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resize(&self, workers: usize) -> Result<(), PoolError> {
        self.0.resize(workers)
    }

    /// As [`Pool::stats`](crate::Pool::stats).
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl<S> fmt::Debug for StatePool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatePool").field("stats", &self.0.stats()).finish_non_exhaustive()
    }
}
