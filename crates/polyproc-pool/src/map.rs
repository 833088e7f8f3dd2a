//! All results at once.

use crate::batch::{Piece, Take};
use crate::error::{MapError, TaskError};
use crate::feed::{Feeder, Options};
use crate::hub::Hub;
use polyproc_process::SpawnError;
use polyproc_process::remote::Remote;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
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
    collected.run.reserve_exact(likely::<R>(feeder.expected()));
    loop {
        feeder.feed(None);
        let (pieces, is_done) = feeder.submitted.wait(None);
        for piece in pieces {
            options.progress.advance(piece.count);
            collected.take(piece, |memory| feeder.submitted.recycle(memory));
            feeder.submitted.attend();
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
    collected.run.reserve_exact(likely::<R>(pieces.iter().map(|piece| piece.count).sum()));
    pieces.into_iter().for_each(|piece| collected.take(piece, drop));
    collected.finish()
}

/// For how many of so many results memory is set aside before they come.
fn likely<R>(count: usize) -> usize {
    count.min(AHEAD / size_of::<R>().max(1))
}

/// No more memory is set aside before there is something to put into it.
const AHEAD: usize = 64 << 20;

/// So many pieces may wait for one that comes before them.
const EARLY: usize = 16;

/// Runs of results, as they come. Those that come a little before others wait, so that there are few runs,
/// which have to be put together: often one.
struct Collected<R> {
    /// Pieces that came before their turn, by their first index.
    early: BTreeMap<usize, Piece>,
    /// Where those end that were taken in last.
    reached: usize,
    /// Those that are ended: the first one's index, and theirs.
    runs: Vec<(usize, Vec<R>)>,
    first: usize,
    run: Vec<R>,
    failures: Vec<(usize, TaskError)>,
}

impl<R> Default for Collected<R> {
    fn default() -> Collected<R> {
        Collected {
            early: BTreeMap::new(),
            reached: 0,
            runs: Vec::new(),
            first: 0,
            run: Vec::new(),
            failures: Vec::new(),
        }
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
    /// Takes in a piece, and gives back memory that can be used again.
    fn take(&mut self, piece: Piece, mut recycle: impl FnMut(Vec<u8>)) {
        if piece.is_lent() {
            // It lies where others want to.
            recycle(self.read(piece));
        } else {
            self.early.insert(piece.first, piece);
        }
        while let Some(&first) = self.early.keys().next()
            && (first == self.reached || self.early.len() > EARLY)
            && let Some(piece) = self.early.remove(&first)
        {
            recycle(self.read(piece));
        }
    }

    fn read(&mut self, piece: Piece) -> Vec<u8> {
        self.reached = piece.first + piece.count;
        if self.first + self.run.len() != piece.first {
            self.begin(piece.first);
        }
        self.run.reserve(piece.count);
        piece.read(self)
    }

    fn finish(mut self) -> Result<Vec<R>, MapError<R>> {
        for piece in std::mem::take(&mut self.early).into_values() {
            self.read(piece);
        }
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
