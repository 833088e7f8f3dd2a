//! The times of single round trips, if a table wants them.
//!
//! A subject that is run by [`of`] times each of its events too, and leaves the times by [`keep`]; it asks by [`is_wanted`]. A
//! program of its own is told by the variable [`WANTED`] in its environment, and prints them below its figure.

use polyproc_benches::{Events, Samples};
use std::sync::Mutex;

/// Set for programs that are to print the times of their events.
pub const WANTED: &str = "POLYPROC_EACH";

static TIMES: Mutex<Option<Vec<f64>>> = Mutex::new(None);

/// Runs a subject: the times of its events.
pub(crate) fn of(run: impl FnOnce()) -> Events {
    Events::of(|| {
        *TIMES.lock().unwrap() = Some(Vec::new());
        run();
        TIMES.lock().unwrap().take().unwrap_or_default()
    })
}

/// Whether they are wanted.
pub(crate) fn is_wanted() -> bool {
    TIMES.lock().unwrap().is_some()
}

/// Room for so many, in memory that processes share, if they are wanted: to be made before the fork.
pub(crate) fn samples(count: u64) -> Option<Samples> {
    is_wanted().then(|| Samples::new(count as usize))
}

/// Leaves them.
pub(crate) fn keep(samples: Option<Samples>) {
    if let Some(samples) = samples {
        let nanos = samples.nanos();
        assert!(nanos.iter().all(|nanos| *nanos > 0.0), "a trip was not timed");
        keep_nanos(nanos);
    }
}

/// Leaves them, of another kind.
pub(crate) fn keep_nanos(nanos: Vec<f64>) {
    if let Some(times) = &mut *TIMES.lock().unwrap() {
        times.extend(nanos);
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::{pipe, posix::Semaphore};
    use crate::{channel, each, token};
    use std::time::Duration;

    #[test]
    fn each_trip_is_timed_without_its_pause() {
        let pause = Duration::from_millis(60);
        for by_token in [false, true] {
            let events = each::of(|| {
                if by_token {
                    let semaphores = [(); 2].map(|()| Semaphore::new(0));
                    let ends = |mine: usize, other: usize| {
                        let semaphores = &semaphores;
                        (move || semaphores[other].release(), move || semaphores[mine].acquire())
                    };
                    token::round_trip(4, [0, 1], pause, || ends(0, 1), || ends(1, 0));
                } else {
                    let ((there, at), (back, home)) = (pipe::ends(), pipe::ends());
                    channel::round_trip(4, [0, 1], pause, || (there, home), || (back, at));
                }
            });
            assert_eq!(events.nanos().len(), 4);
            // The fastest: other programs may take the CPUs meanwhile.
            let fastest = events.nanos().iter().copied().fold(f64::INFINITY, f64::min);
            assert!(fastest < 50e6, "{events:?}");
        }
    }
}
