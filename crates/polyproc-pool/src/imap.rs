//! Results as they come, in the order of the input or in their own.

use crate::batch::{Piece, Take};
use crate::error::{PoolError, TaskError};
use crate::feed::{Feeder, Options};
use crate::hub::Hub;
use crate::progress::Progress;
use polyproc_process::SpawnError;
use polyproc_process::remote::Remote;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl<R> Take<R> for VecDeque<Result<R, TaskError>> {
    fn value(&mut self, _: usize, value: R) {
        self.push_back(Ok(value));
    }

    fn failure(&mut self, _: usize, error: TaskError) {
        self.push_back(Err(error));
    }
}

impl<R> Take<R> for VecDeque<(usize, Result<R, TaskError>)> {
    fn value(&mut self, index: usize, value: R) {
        self.push_back((index, Ok(value)));
    }

    fn failure(&mut self, index: usize, error: TaskError) {
        self.push_back((index, Err(error)));
    }
}

/// Pulls the first items, so that the workers begin before anybody asks for the first result.
fn begin<T: Serialize + 'static, I: Iterator<Item = T>>(
    hub: &Arc<Hub>,
    function: Result<Remote, SpawnError>,
    options: &Options,
    input: I,
) -> Feeder<I> {
    options.progress.begin(input.size_hint());
    let mut feeder = Feeder::new(hub, function, options, input);
    feeder.feed(Some(0));
    feeder.submitted.hub.attend(feeder.submitted.hub.lock());
    feeder
}

/// The results of [`Pool::imap`](crate::Pool::imap), in the order of the input.
///
/// Each `next` waits for the next result, and pulls from the input what the workers will soon need. A task
/// that failed is an `Err` in its place, and the iteration goes on. When it is dropped, what has not begun is
/// not run.
pub struct Imap<I, R> {
    feeder: Feeder<I>,
    /// Pieces that came before their turn, by their first index.
    early: BTreeMap<usize, Piece>,
    ready: VecDeque<Result<R, TaskError>>,
    yielded: usize,
    /// Of how many tasks the results were made ready.
    reached: usize,
    is_done: bool,
    progress: Progress,
}

impl<T: Serialize + 'static, I: Iterator<Item = T>, R: DeserializeOwned + 'static> Imap<I, R> {
    pub(crate) fn new(
        hub: &Arc<Hub>,
        function: Result<Remote, SpawnError>,
        options: &Options,
        input: I,
    ) -> Imap<I, R> {
        Imap {
            feeder: begin(hub, function, options, input),
            early: BTreeMap::new(),
            ready: VecDeque::new(),
            yielded: 0,
            reached: 0,
            is_done: false,
            progress: options.progress.clone(),
        }
    }

    /// The next result, if it comes within `timeout`; [`TaskError::NotReady`] if it does not, and then it can
    /// be asked for again. `None` at the end. A timeout of zero does not wait.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R, TaskError>> {
        self.next_by(Instant::now().checked_add(timeout))
    }

    fn next_by(&mut self, deadline: Option<Instant>) -> Option<Result<R, TaskError>> {
        loop {
            // Before the workers run dry, and not for each single one. The next result is not yielded yet.
            if self.ready.len() % 64 == 1 {
                self.feeder.feed(Some(self.yielded));
            }
            if let Some(result) = self.ready.pop_front() {
                self.yielded += 1;
                self.progress.advance(1);
                return Some(result);
            }
            // One after the other: long results need less memory so, and the same again and again.
            if let Some(piece) = self.early.remove(&self.reached) {
                self.reached += piece.count;
                let memory = piece.read(&mut self.ready);
                self.feeder.submitted.recycle(memory);
                continue;
            }
            if self.is_done {
                self.progress.end();
                return None;
            }
            if self.feeder.submitted.is_inherited() {
                self.is_done = true;
                return Some(Err(TaskError::Broken(PoolError::Forked)));
            }
            self.feeder.feed(Some(self.yielded));
            let (pieces, is_done) = self.feeder.submitted.wait(deadline);
            self.is_done = is_done;
            if pieces.is_empty() && !is_done {
                return Some(Err(TaskError::NotReady));
            }
            self.early.extend(pieces.into_iter().map(|piece| (piece.first, piece)));
        }
    }
}

impl<T: Serialize + 'static, I: Iterator<Item = T>, R: DeserializeOwned + 'static> Iterator for Imap<I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Result<R, TaskError>> {
        self.next_by(None)
    }
}

impl<I, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("yielded", &self.yielded)
            .field("is_done", &self.is_done)
            .finish_non_exhaustive()
    }
}

/// The results of [`Pool::imap_unordered`](crate::Pool::imap_unordered), as they come.
///
/// As [`Imap`], but a slow task holds up no other's result. [`indexed`](ImapUnordered::indexed) says whose
/// each is.
pub struct ImapUnordered<I, R> {
    feeder: Feeder<I>,
    pieces: VecDeque<Piece>,
    ready: VecDeque<(usize, Result<R, TaskError>)>,
    yielded: usize,
    is_done: bool,
    progress: Progress,
}

impl<T: Serialize + 'static, I: Iterator<Item = T>, R: DeserializeOwned + 'static> ImapUnordered<I, R> {
    pub(crate) fn new(
        hub: &Arc<Hub>,
        function: Result<Remote, SpawnError>,
        options: &Options,
        input: I,
    ) -> ImapUnordered<I, R> {
        let feeder = begin(hub, function, options, input);
        let progress = options.progress.clone();
        let (pieces, ready) = (VecDeque::new(), VecDeque::new());
        ImapUnordered { feeder, pieces, ready, yielded: 0, is_done: false, progress }
    }

    /// The results with the indices of their tasks in the input.
    ///
    /// # Example
    ///
    /// ```
    /// # use polyproc_pool::Pool;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # polyproc_process::init();
    /// let pool = Pool::new(2)?;
    /// let mut squares = [0; 4];
    /// for (index, square) in pool.imap_unordered(|n: u64| n * n, 0..4).indexed() {
    ///     squares[index] = square?;
    /// }
    /// assert_eq!(squares, [0, 1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn indexed(mut self) -> impl Iterator<Item = (usize, Result<R, TaskError>)> {
        std::iter::from_fn(move || {
            self.next_by(None).map(|(index, result)| (index.unwrap_or_default(), result))
        })
    }

    /// The next result, if one comes within this time; [`TaskError::NotReady`] if none does, and then it can
    /// be asked for again. `None` at the end. Zero does not wait.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R, TaskError>> {
        self.next_by(Instant::now().checked_add(timeout)).map(|(_, result)| result)
    }

    fn next_by(&mut self, deadline: Option<Instant>) -> Option<(Option<usize>, Result<R, TaskError>)> {
        loop {
            if self.ready.len() % 64 == 1 {
                self.feeder.feed(Some(self.yielded));
            }
            if let Some((index, result)) = self.ready.pop_front() {
                self.yielded += 1;
                self.progress.advance(1);
                return Some((Some(index), result));
            }
            if let Some(piece) = self.pieces.pop_front() {
                let memory = piece.read(&mut self.ready);
                self.feeder.submitted.recycle(memory);
                continue;
            }
            if self.is_done {
                self.progress.end();
                return None;
            }
            if self.feeder.submitted.is_inherited() {
                self.is_done = true;
                return Some((None, Err(TaskError::Broken(PoolError::Forked))));
            }
            self.feeder.feed(Some(self.yielded));
            let (pieces, is_done) = self.feeder.submitted.wait(deadline);
            self.is_done = is_done;
            if pieces.is_empty() && !is_done {
                return Some((None, Err(TaskError::NotReady)));
            }
            self.pieces.extend(pieces);
        }
    }
}

impl<T: Serialize + 'static, I: Iterator<Item = T>, R: DeserializeOwned + 'static> Iterator
    for ImapUnordered<I, R>
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Result<R, TaskError>> {
        self.next_by(None).map(|(_, result)| result)
    }
}

impl<I, R> fmt::Debug for ImapUnordered<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ImapUnordered");
        debug.field("yielded", &self.yielded).field("is_done", &self.is_done).finish_non_exhaustive()
    }
}
