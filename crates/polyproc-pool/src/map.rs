//! All results at once.

use crate::batch::Piece;
use crate::error::{MapError, TaskError};
use crate::feed::{Feeder, Options};
use crate::hub::Hub;
use polyproc_process::SpawnError;
use polyproc_process::remote::Remote;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Calls the function with all of the input, and returns what it returned, in the input's order.
pub(crate) fn map<T: Serialize, R: DeserializeOwned>(
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
            collected.take(piece);
        }
        if is_done {
            options.progress.end();
            return collected.finish();
        }
    }
}

/// The results of a whole batch.
pub(crate) fn collect<R: DeserializeOwned>(pieces: Vec<Piece>) -> Result<Vec<R>, MapError<R>> {
    let mut collected = Collected::default();
    pieces.into_iter().for_each(|piece| collected.take(piece));
    collected.finish()
}

/// Runs of results, as they come.
struct Collected<R> {
    /// The first one's index, and theirs.
    runs: Vec<(usize, Vec<R>)>,
    failures: Vec<(usize, TaskError)>,
}

impl<R> Default for Collected<R> {
    fn default() -> Collected<R> {
        Collected { runs: Vec::new(), failures: Vec::new() }
    }
}

impl<R: DeserializeOwned> Collected<R> {
    fn take(&mut self, piece: Piece) {
        // What follows upon the last one goes into the same run.
        let follows = self.runs.last().is_some_and(|(first, run)| first + run.len() == piece.first);
        if !follows {
            self.runs.push((piece.first, Vec::with_capacity(piece.count)));
        }
        let Collected { runs, failures } = self;
        piece.read(|index, result| match result {
            Ok(result) => {
                let (first, run) = runs.last_mut().expect("pushed above");
                if *first + run.len() == index {
                    run.push(result);
                } else {
                    runs.push((index, vec![result]));
                }
            }
            Err(error) => failures.push((index, error)),
        });
    }

    fn finish(mut self) -> Result<Vec<R>, MapError<R>> {
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
