//! The handle of a pool, whatever its functions take: its life, its size, how it stands.

use crate::batch::Piece;
use crate::core::Phase;
use crate::crew::Stage;
use crate::error::PoolError;
use crate::hub::Hub;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) struct Owner {
    pub(crate) hub: Arc<Hub>,
    supervisor: Option<JoinHandle<()>>,
}

impl Owner {
    pub(crate) fn new(hub: Arc<Hub>, supervisor: JoinHandle<()>) -> Owner {
        Owner { hub, supervisor: Some(supervisor) }
    }

    pub(crate) fn close(&self) {
        if !self.hub.is_ours() {
            return;
        }
        let mut state = self.hub.lock();
        if matches!(state.core.phase, Phase::Open) {
            state.core.phase = Phase::Closed;
            // Whoever waits to submit is told so.
            state.core.room.notify_all();
        }
        state.core.release_workers();
        self.hub.attend(state);
    }

    pub(crate) fn terminate(&self) {
        if self.hub.is_ours() {
            let mut state = self.hub.lock();
            state.core.fall(Phase::Terminated);
            self.hub.attend(state);
        }
    }

    pub(crate) fn join(&self, timeout: Option<Duration>) -> Result<(), PoolError> {
        if !self.hub.is_ours() {
            return Err(PoolError::Forked);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let state = self.hub.lock();
        if matches!(state.core.phase, Phase::Open) {
            return Err(PoolError::StillOpen);
        }
        let ended = Arc::clone(&state.core.ended);
        let (state, is_over) = self.hub.wait(state, &ended, deadline, |core| core.has_ended());
        match &state.core.phase {
            Phase::Broken(error) if is_over => Err(error.clone()),
            _ if is_over => Ok(()),
            _ => Err(PoolError::TimedOut),
        }
    }

    /// The last states of the workers that have ended.
    pub(crate) fn states(&self) -> Vec<Piece> {
        std::mem::take(&mut self.hub.lock().core.states)
    }

    pub(crate) fn resize(&self, workers: usize) -> Result<(), PoolError> {
        if workers == 0 {
            return Err(PoolError::NoWorkers);
        }
        if !self.hub.is_ours() {
            return Err(PoolError::Forked);
        }
        let mut state = self.hub.lock();
        match &state.core.phase {
            Phase::Broken(error) => return Err(error.clone()),
            Phase::Terminated => return Err(PoolError::Terminated),
            Phase::Open | Phase::Closed => {}
        }
        state.core.resize(workers);
        self.hub.attend(state);
        Ok(())
    }

    pub(crate) fn stats(&self) -> Stats {
        if !self.hub.is_ours() {
            return Stats { workers: Vec::new(), tasks: 0, deaths: 0 };
        }
        let state = self.hub.lock();
        let core = &state.core;
        let workers = core.workers.iter().filter(|worker| worker.stage != Stage::Stopping);
        let workers = workers.map(|worker| {
            let since = worker.ready.map_or(Duration::ZERO, |ready| ready.elapsed());
            WorkerStats {
                pid: worker.process.pid(),
                started: worker.spawned,
                ready: worker.ready,
                working: worker.worked,
                waiting: since.saturating_sub(worker.worked),
                tasks: worker.tasks,
                is_busy: !worker.jobs.is_empty(),
            }
        });
        Stats { workers: workers.collect(), tasks: core.tasks, deaths: core.died }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.hub.is_ours() {
            return;
        }
        self.hub.end();
        if let Some(supervisor) = self.supervisor.take() {
            // It ends when the workers have.
            let _ = supervisor.join();
        }
    }
}

/// How a pool stands.
///
/// # Example
///
/// ```
/// # use polyproc_pool::Pool;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # polyproc_process::init();
/// let pool = Pool::new(2)?;
/// pool.map(|n: u64| n * n, 0..100)?;
/// let stats = pool.stats();
/// assert_eq!((stats.workers.len(), stats.tasks, stats.deaths), (2, 100, 0));
/// assert_eq!(stats.workers.iter().map(|worker| worker.tasks).sum::<u64>(), 100);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Those that are there, the oldest first.
    pub workers: Vec<WorkerStats>,
    /// Of how many tasks it is known what became of them.
    pub tasks: u64,
    /// How many workers died before they were told to end.
    pub deaths: u64,
}

/// The workers'.
impl IntoIterator for Stats {
    type Item = WorkerStats;
    type IntoIter = std::vec::IntoIter<WorkerStats>;

    fn into_iter(self) -> Self::IntoIter {
        self.workers.into_iter()
    }
}

/// How a worker stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started: Instant,
    /// When it was initialised; `None` if it is not yet.
    pub ready: Option<Instant>,
    /// For how long it has worked at what it has reported.
    pub working: Duration,
    /// The rest of its time since it was ready.
    pub waiting: Duration,
    /// How many tasks it has reported.
    pub tasks: u64,
    /// Whether it has work.
    pub is_busy: bool,
}
