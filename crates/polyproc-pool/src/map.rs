//! All results at once.

use crate::batch::{Piece, Take};
use crate::error::{MapError, TaskError};
use crate::feed::{Feeder, Options};
use crate::hub::Hub;
use polyproc_process::SpawnError;
use polyproc_process::remote::Remote;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Calls the function with all of the input, and returns what it returned, in the input's order.
pub(crate) fn map<T: Serialize + 'static, R: DeserializeOwned + 'static>(
    hub: &Arc<Hub>,
    function: Result<Remote, SpawnError>,
    options: &Options,
    input: impl Iterator<Item = T>,
) -> Result<Vec<R>, MapError<R>> {
    options.progress.begin(input.size_hint());
    let mut feeder = Feeder::new(hub, function, options, input);
    let mut collected = Collected::default();
    loop {
        feeder.feed(None);
        let (pieces, is_done) = feeder.submitted.wait(None);
        for piece in pieces {
            options.progress.advance(piece.count);
            let memory = collected.take(piece);
            feeder.submitted.recycle(memory);
        }
        if is_done {
            options.progress.end();
            return collected.finish();
        }
    }
}

/// The results of a whole batch.
pub(crate) fn collect<R: DeserializeOwned + 'static>(pieces: Vec<Piece>) -> Result<Vec<R>, MapError<R>> {
    let mut collected = Collected::default();
    pieces.into_iter().for_each(|piece| drop(collected.take(piece)));
    collected.finish()
}

/// Runs of results, as they come.
struct Collected<R> {
    /// Those that are ended: the first one's index, and theirs.
    runs: Vec<(usize, Vec<R>)>,
    first: usize,
    run: Vec<R>,
    failures: Vec<(usize, TaskError)>,
}

impl<R> Default for Collected<R> {
    fn default() -> Collected<R> {
        Collected { runs: Vec::new(), first: 0, run: Vec::new(), failures: Vec::new() }
    }
}

impl<R> Take<R> for Collected<R> {
    #[inline(always)]
    fn value(&mut self, index: usize, value: R) {
        if self.first + self.run.len() != index {
            self.begin(index);
        }
        self.run.push(value);
    }

    fn failure(&mut self, index: usize, error: TaskError) {
        self.failures.push((index, error));
    }
}

impl<R> Collected<R> {
    /// Begins another run.
    #[cold]
    fn begin(&mut self, index: usize) {
        let run = std::mem::take(&mut self.run);
        self.runs.push((self.first, run));
        self.first = index;
    }
}

impl<R: DeserializeOwned + 'static> Collected<R> {
    /// Takes in a piece, and returns memory that can be used again.
    fn take(&mut self, piece: Piece) -> Vec<u8> {
        self.run.reserve(piece.count);
        piece.read(self)
    }

    fn finish(mut self) -> Result<Vec<R>, MapError<R>> {
        self.begin(0);
        self.runs.retain(|(_, run)| !run.is_empty());
        self.runs.sort_unstable_by_key(|(first, _)| *first);
        if self.failures.is_empty() {
            let mut runs = self.runs.into_iter().map(|(_, run)| run);
            let mut results = runs.next().unwrap_or_default();
            for mut run in runs {
                results.append(&mut run);
            }
            return Ok(results);
        }
        self.failures.sort_unstable_by_key(|(index, _)| *index);
        let count = self.failures.len() + self.runs.iter().map(|(_, run)| run.len()).sum::<usize>();
        let mut results = Vec::with_capacity(count);
        let mut failures = self.failures.into_iter().peekable();
        let mut until = |next: usize, results: &mut Vec<Result<R, TaskError>>| {
            while let Some((_, error)) = failures.next_if(|(index, _)| *index < next) {
                results.push(Err(error));
            }
        };
        for (first, run) in self.runs {
            until(first, &mut results);
            results.extend(run.into_iter().map(Ok));
        }
        until(usize::MAX, &mut results);
        Err(MapError::new(results).expect("there are failures"))
    }
}
