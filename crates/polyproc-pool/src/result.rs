//! A result that will be there.

use crate::batch::Piece;
use crate::error::{MapError, TaskError};
use crate::feed::Submitted;
use crate::map::collect;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The result of a task that [`Pool::apply_async`](crate::Pool::apply_async) submitted, or of all tasks of
/// [`Pool::map_async`](crate::Pool::map_async), when it is there.
///
/// Dropping it leaves the task alone: it is run, and its result is dropped.
///
/// # Example
///
/// ```
/// use polyproc_pool::{Pool, TaskError};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::new(2)?;
/// let sum = pool.apply_async(|a: u32, b: u32| a + b, (1, 2));
/// let squares = pool.map_async(|n: u32| n * n, 0..5);
/// assert_eq!(sum.get()?, 3);
/// assert_eq!(squares.get()?, [0, 1, 4, 9, 16]);
///
/// let slow = pool.apply_async(|| std::thread::sleep(Duration::from_secs(60)), ());
/// assert!(matches!(slow.get_timeout(Duration::from_millis(10)), Err(TaskError::NotReady)));
/// assert!(slow.cancel());
/// assert!(matches!(slow.get(), Err(TaskError::Cancelled)));
/// # Ok(())
/// # }
/// ```
pub struct AsyncResult<R, E = TaskError> {
    submitted: Mutex<Option<Arc<Submitted>>>,
    collect: fn(Vec<Piece>) -> Result<R, E>,
}

impl<R: DeserializeOwned + 'static> AsyncResult<R> {
    pub(crate) fn of_one(submitted: Submitted) -> AsyncResult<R> {
        AsyncResult { submitted: Mutex::new(Some(Arc::new(submitted))), collect: one }
    }
}

impl<R: DeserializeOwned + 'static> AsyncResult<Vec<R>, MapError<R>> {
    pub(crate) fn of_all(submitted: Submitted) -> AsyncResult<Vec<R>, MapError<R>> {
        AsyncResult { submitted: Mutex::new(Some(Arc::new(submitted))), collect }
    }
}

/// The result of a batch of one task.
pub(crate) fn one<R: DeserializeOwned + 'static>(pieces: Vec<Piece>) -> Result<R, TaskError> {
    let mut results = VecDeque::new();
    pieces.into_iter().for_each(|piece| drop(piece.read(&mut results)));
    results.pop_front().unwrap_or(Err(TaskError::AlreadyTaken))
}

impl<R, E: From<TaskError>> AsyncResult<R, E> {
    /// Waits for the result, and takes it.
    ///
    /// # Errors
    ///
    /// Why there is none; [`TaskError::AlreadyTaken`] the second time.
    pub fn get(&self) -> Result<R, E> {
        self.get_by(None)
    }

    /// Waits for the result, no longer than `timeout`, and takes it. A timeout of zero looks once.
    ///
    /// # Errors
    ///
    /// [`TaskError::NotReady`] if it is not there: the task goes on, and can be waited for again. Otherwise
    /// as for [`get`](AsyncResult::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<R, E> {
        self.get_by(Some(timeout))
    }

    fn get_by(&self, timeout: Option<Duration>) -> Result<R, E> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Others may ask, wait and cancel meanwhile.
        let submitted = self.lock().clone().ok_or(TaskError::AlreadyTaken)?;
        if !submitted.is_done(deadline) {
            return Err(TaskError::NotReady.into());
        }
        // Of several that waited, one has it.
        self.lock().take().ok_or(TaskError::AlreadyTaken)?;
        (self.collect)(submitted.take())
    }

    /// Waits until the result is there, and leaves it.
    pub fn wait(&self) {
        self.is_done(None);
    }

    /// Waits until the result is there, no longer than `timeout`, and leaves it. Returns whether it is there.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.is_done(Instant::now().checked_add(timeout))
    }

    /// Whether the result is there, or was taken. Does not block.
    pub fn is_ready(&self) -> bool {
        self.is_done(Some(Instant::now()))
    }

    fn is_done(&self, deadline: Option<Instant>) -> bool {
        let submitted = self.lock().clone();
        submitted.is_none_or(|submitted| submitted.is_done(deadline))
    }

    /// Cancels what is not done. A task that waits is never run; a task that runs ends with its worker, which
    /// is killed and replaced. Its result is [`TaskError::Cancelled`]. Returns whether there was anything to
    /// cancel. Does not block.
    pub fn cancel(&self) -> bool {
        let submitted = self.lock().clone();
        let Some(submitted) = submitted.filter(|submitted| !submitted.is_inherited()) else { return false };
        let mut state = submitted.hub.lock();
        let is_cancelled = state.core.cancel(submitted.id);
        submitted.hub.attend(state);
        is_cancelled
    }

    /// Calls `callback` with the result when it is there, in a thread of the pool that does nothing else. It
    /// may take long, which holds up only other callbacks; if it panics, standard error says so, and nobody
    /// is harmed. It may use the pool, terminate it, and drop it.
    ///
    /// # Panics
    ///
    /// If the system has no thread to call it.
    pub fn then(self, callback: impl FnOnce(Result<R, E>) + Send + 'static)
    where
        R: 'static,
        E: 'static,
    {
        let collect = self.collect;
        match self.submitted.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => callback(Err(TaskError::AlreadyTaken.into())),
            Some(submitted) if submitted.is_inherited() => callback(collect(submitted.take())),
            Some(submitted) => {
                let mut state = submitted.hub.lock();
                state.core.call_back(submitted.id, Box::new(move |pieces| callback(collect(pieces))));
                submitted.hub.attend(state);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Submitted>>> {
        self.submitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R, E> fmt::Debug for AsyncResult<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult").finish_non_exhaustive()
    }
}
