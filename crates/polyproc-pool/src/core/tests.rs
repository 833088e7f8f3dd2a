//! What can be seen from outside of a pool only by chance: here a worker's work stands still where it is
//! looked at.

use super::*;
use crate::crew::Stage;
use crate::items::{self, Appended, Parcel, Tag};
use crate::wire::{Kind, Report};
use crate::worker::{Initialize, Map};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use polyproc_process::init_for_tests;
use polyproc_testing::{state, wait_until, watchdog};
use polyproc_value::RawArray;
use std::cell::Cell;
use std::sync::OnceLock;

init_for_tests!();

/// How many tasks were begun, and how many may end.
static GATE: OnceLock<RawArray<u64>> = OnceLock::new();

fn remember(gate: RawArray<u64>) {
    let _ = GATE.set(gate);
}

fn gated(n: u64) -> u64 {
    let gate = GATE.get().unwrap();
    gate.store(0, n + 1).unwrap();
    while gate.load(1).unwrap() <= n {
        std::thread::sleep(Duration::from_micros(50));
    }
    n
}

fn long(_: u64) -> Vec<u8> {
    vec![7; 4 << 20]
}

/// A pool's core with one worker, that nobody attends to but the test.
struct Scene {
    core: Core,
    gate: RawArray<u64>,
}

impl Scene {
    fn new(settings: Settings) -> Scene {
        let gate = RawArray::zeroed(2).unwrap();
        let initializer = Remote::new::<Initialize<(RawArray<u64>,)>, _>(remember).unwrap();
        let parcel = Parcel::new(&(gate.clone(),)).unwrap();
        let recipe = Recipe { initializer: Some((initializer, parcel)), ..Recipe::default() };
        let mut core = Core::new(settings, 1);
        core.workers.push(Worker::start(1, &recipe).unwrap());
        wait_until("the worker is ready", || {
            core.receive();
            core.workers[0].stage == Stage::Ready
        });
        Scene { core, gate }
    }

    fn submit(&mut self, function: Remote, tasks: std::ops::Range<u64>) -> BatchId {
        let id = self.core.begin(Ok(function), Some(tasks.clone().count()));
        let (mut bytes, count) = (Vec::new(), tasks.clone().count());
        for task in tasks {
            assert!(matches!(items::append(&mut bytes, Tag::Value, &task), Appended::Plain));
        }
        self.core.enter(id, Source::new(bytes, Vec::new(), 0, count));
        id
    }

    fn submit_gated(&mut self, tasks: std::ops::Range<u64>) -> BatchId {
        self.submit(Remote::new::<Map<u64, u64>, _>(gated).unwrap(), tasks)
    }

    fn wait_for_begin_of(&self, task: u64) {
        wait_until("it has begun", || self.gate.load(0).unwrap() == task + 1);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.core.workers.iter_mut().for_each(Worker::kill);
        self.core.workers.iter().for_each(|worker| drop(worker.process.join()));
    }
}

fn limited() -> Settings {
    Settings { timeout: Some(Duration::from_secs(1000)), max_tasks: Some(100), ..Settings::default() }
}

/// What was begun along with the task that takes too long would have to die with it.
#[test]
fn with_a_limit_each_task_is_begun_by_itself() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(limited());
    scene.submit_gated(0..8);
    scene.wait_for_begin_of(0);
    let revoked = scene.core.workers[0].revoke();
    assert_eq!(revoked.iter().map(|(_, items)| items.count).sum::<usize>(), 7);
    assert_eq!(scene.core.workers[0].given, 1, "what comes back does not count for the worker's lifetime");
}

/// Its report lies there unread: whoever is at the front is what the worker is at, and may be killed for.
#[test]
fn what_is_done_is_not_what_the_worker_is_at() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    scene.gate.store(1, 1).unwrap();
    let (done, next) = (scene.submit_gated(0..1), scene.submit_gated(1..2));
    assert_eq!(scene.core.workers[0].jobs.front().unwrap().batch, done);
    scene.wait_for_begin_of(1);
    scene.core.take_unbegun(0);
    assert_eq!(scene.core.workers[0].jobs.iter().map(|job| job.batch).collect::<Vec<_>>(), [next]);
}

/// What lies behind what it will soon do waits for whoever is free first, and lets others have their turn.
#[test]
fn a_worker_has_its_next_job_and_few_behind_it() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    for task in 0..40 {
        scene.submit_gated(task..task + 1);
    }
    assert!((2..=3).contains(&scene.core.workers[0].jobs.len()), "{}", scene.core.workers[0].jobs.len());
}

/// It may live on for a moment, and begin what it was given.
#[test]
fn a_killed_worker_gets_nothing_more() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    scene.core.workers[0].kill();
    let id = scene.submit_gated(0..1);
    assert!(scene.core.workers[0].jobs.is_empty());
    assert_eq!(scene.core.batch(id).queued, 1);
}

/// The first part of a message has used up what the line was armed for.
#[test]
fn a_line_is_armed_again_after_a_part_of_a_message() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    let pid = scene.core.workers[0].process.pid();
    let signal = |signal| kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    scene.core.workers[0].is_armed = !scene.core.workers[0].line.prepare_wait().unwrap();
    assert!(scene.core.workers[0].is_armed);
    let id = scene.submit(Remote::new::<Map<u64, Vec<u8>>, _>(long).unwrap(), 0..1);
    wait_until("a part has come", || scene.core.workers[0].line.has_news());
    signal(Signal::SIGSTOP);
    wait_until("it is stopped", || state(pid) == Some('T'));
    scene.core.receive_from(0);
    assert_eq!(scene.core.batch(id).settled, 0);
    assert!(!scene.core.workers[0].is_armed);
    signal(Signal::SIGCONT);
    wait_until("the rest has come", || {
        scene.core.receive();
        scene.core.batch(id).settled == 1
    });
}

/// A worker that says more than it can know, or less, has been written over: what it was given is told by its death.
#[test]
fn reports_of_other_than_there_is_are_not_believed() {
    let _watchdog = watchdog();
    for (kind, count, length) in [
        (Kind::Done, 0, 0),
        (Kind::DoneInSlab, 0, 0),
        (Kind::Part, 2, 0),
        (Kind::Done, u32::MAX, 0),
        (Kind::DoneInSlab, 1, u64::MAX),
        (Kind::DoneInSlab, 1, 9),
    ] {
        let mut scene = Scene::new(Settings::default());
        let id = scene.submit_gated(0..1);
        let job = scene.core.workers[0].jobs[0].number;
        let report = Report { kind, count, job, worked: 0 };
        let bytes = [&report.to_bytes()[..], &u64::to_le_bytes(length)].concat();
        scene.core.take_report(0, bytes, Vec::new());
        assert!(scene.core.workers[0].is_doomed, "{kind:?}");
        assert_eq!((scene.core.batch(id).settled, scene.core.workers[0].jobs.len()), (0, 1), "{kind:?}");
        assert_eq!(scene.core.workers[0].long, 0, "{kind:?}");
        wait_until("it is dead", || !scene.core.workers[0].process.is_alive());
        scene.core.bury(0);
        let batch = scene.core.batch(id);
        assert_eq!(batch.settled + batch.queued, 1, "{kind:?}: nobody will hear of it");
    }
}

/// Whoever looks when nothing is to be done looks for ever.
#[test]
fn the_system_is_asked_again_only_for_a_worker_that_is_wanted() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    scene.submit_gated(0..1);
    scene.wait_for_begin_of(0);
    scene.core.wanted = 2;
    let respite = Some(Instant::now());
    scene.core.respite = respite;
    assert_eq!(scene.core.watch(), respite);
    assert_eq!(scene.core.missing(), 1);
    scene.core.phase = Phase::Closed;
    assert_eq!((scene.core.watch(), scene.core.missing()), (None, 0));
    // In place of one that is about to leave.
    scene.core.phase = Phase::Open;
    scene.core.wanted = 1;
    scene.core.workers[0].is_leaving = true;
    assert_eq!((scene.core.watch(), scene.core.missing()), (respite, 1));
}

/// As if it had been stopped in the middle of its first word: the gate says that it has begun, and nothing
/// says what it is at.
#[test]
fn a_worker_that_stands_still_where_it_begins_a_task_is_replaced() {
    let _watchdog = watchdog();
    let limit = Duration::from_secs(1);
    let mut scene = Scene::new(Settings { timeout: Some(limit), ..Settings::default() });
    let pid = Pid::from_raw(i32::try_from(scene.core.workers[0].process.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until("it is stopped", || state(scene.core.workers[0].process.pid()) == Some('T'));
    let id = scene.submit_gated(0..1);
    let worker = &mut scene.core.workers[0];
    assert!(worker.board.begin(0, worker.jobs[0].number) && worker.position().is_none());
    for (times, is_doomed) in [(9, false), (11, false), (19, false), (21, true)] {
        scene.core.workers[0].since = Instant::now().checked_sub(limit * times).unwrap();
        scene.core.watch();
        assert_eq!(scene.core.workers[0].is_doomed, is_doomed, "{times}");
    }
    wait_until("it is dead", || !scene.core.workers[0].process.is_alive());
    scene.core.bury(0);
    // Its function was not called: another worker may have it.
    assert_eq!((scene.core.batch(id).queued, scene.core.batch(id).settled), (1, 0));
    // Nor did it die of what it had next.
    assert_eq!(scene.core.batch(id).sources[0].shunned, 0);
}

#[test]
fn of_idle_workers_no_more_are_told_to_end_than_are_too_many() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    let recipe = scene.core.settings.recipe.clone();
    scene.core.wanted = 4;
    for id in 2..=4 {
        scene.core.welcome(Worker::start(id, &recipe).unwrap());
    }
    wait_until("all are ready", || {
        scene.core.receive();
        scene.core.workers.iter().all(|worker| worker.stage == Stage::Ready)
    });
    for (wanted, ending) in [(3, 1), (3, 1), (2, 2), (1, 3)] {
        scene.core.resize(wanted);
        let stopping = scene.core.workers.iter().filter(|worker| worker.stage == Stage::Stopping);
        assert_eq!((stopping.count(), scene.core.missing()), (ending, 0), "{wanted} are wanted");
    }
}

/// One that is as long as it may be in the line's place: after two of them a worker takes none.
fn heavy(item: Vec<u8>) -> u64 {
    gated(u64::from(item[0]))
}

/// Which tasks of a batch wait, in which order.
fn waiting(core: &mut Core, id: BatchId) -> Vec<usize> {
    let batch = core.batch(id);
    let waiting: Vec<usize> =
        batch.sources.iter().flat_map(|source| source.first..source.first + source.count).collect();
    assert_eq!(batch.queued, waiting.len());
    waiting
}

/// Tasks begin in the order in which they came.
#[test]
fn what_a_worker_does_not_take_keeps_its_place() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    let function = Remote::new::<Map<Vec<u8>, u64>, _>(heavy).unwrap();
    // It would take many that are soon done.
    scene.core.pace.learn(function, 1, 100);
    let id = scene.core.begin(Ok(function), Some(1));
    let mut bytes = Vec::new();
    for task in 0..5 {
        assert!(matches!(
            items::append(&mut bytes, Tag::Value, &vec![task as u8; crate::crew::INLINE]),
            Appended::Plain
        ));
    }
    scene.core.batch(id).chunk = Some(1);
    scene.core.enter(id, Source::new(bytes, Vec::new(), 0, 5));
    assert_eq!(scene.core.workers[0].jobs.len(), 2);
    assert_eq!(waiting(&mut scene.core, id), [2, 3, 4]);
}

/// As above.
#[test]
fn what_comes_back_from_a_worker_is_in_front_again() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(limited());
    let function = Remote::new::<Map<u64, u64>, _>(gated).unwrap();
    let id = scene.core.begin(Ok(function), Some(4));
    for first in [0, 4, 8] {
        let mut bytes = Vec::new();
        for task in first..first + 4u64 {
            assert!(matches!(items::append(&mut bytes, Tag::Value, &task), Appended::Plain));
        }
        scene.core.enter(id, Source::new(bytes, Vec::new(), first as usize, 4));
    }
    scene.wait_for_begin_of(0);
    assert_eq!(scene.core.workers[0].jobs.len(), 2);
    assert_eq!(waiting(&mut scene.core, id), [8, 9, 10, 11]);
    let revoked = scene.core.workers[0].revoke();
    scene.core.take_back(revoked);
    assert_eq!(waiting(&mut scene.core, id), (1..12).collect::<Vec<_>>());
    assert_eq!(scene.core.workers[0].given, 1);
    // And so it goes on.
    scene.core.dispatch();
    scene.gate.store(1, 100).unwrap();
    wait_until("all are done", || {
        scene.core.receive();
        scene.core.batch(id).settled == 12
    });
}

/// Nobody waits to see what is known: but of what is not, and of what is short, first whether it is not over soon.
#[test]
fn what_is_known_to_take_long_is_shared_at_once() {
    let _watchdog = watchdog();
    let function = Remote::new::<Map<u64, u64>, _>(gated).unwrap();
    for (nanoseconds, is_shared) in [(None, false), (Some(10_000), false), (Some(1_000_000), true)] {
        let mut scene = Scene::new(Settings::default());
        nanoseconds.iter().for_each(|nanoseconds| scene.core.pace.learn(function, 1, *nanoseconds));
        (0..2).for_each(|task| _ = scene.submit_gated(task..task + 1));
        scene.wait_for_begin_of(0);
        assert_eq!(scene.core.workers[0].jobs.len(), 2);
        let recipe = scene.core.settings.recipe.clone();
        scene.core.workers.push(Worker::start(2, &recipe).unwrap());
        // Nothing depends on what it does.
        scene.core.workers[1].stage = Stage::Ready;
        // It has only just begun, however long this takes.
        scene.core.workers[0].since = Instant::now() + Duration::from_secs(3600);
        scene.core.share();
        assert_eq!(scene.core.workers[1].jobs.len(), usize::from(is_shared), "{nanoseconds:?}");
        scene.core.workers[0].since = Instant::now().checked_sub(PATIENCE).unwrap();
        scene.core.share();
        assert_eq!(scene.core.workers[1].jobs.len(), 1, "{nanoseconds:?}");
    }
}

/// It ends after the task that it is at; and it does not, if it is wanted again before.
#[test]
fn a_worker_that_is_to_leave_keeps_what_it_is_at_and_may_stay_after_all() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(limited());
    let ids = [0..3, 3..6].map(|tasks| scene.submit_gated(tasks));
    scene.wait_for_begin_of(0);
    scene.core.resize(0);
    let had = |scene: &Scene| {
        let jobs = &scene.core.workers[0].jobs;
        jobs.iter().map(|job| job.items.count).collect::<Vec<_>>()
    };
    assert_eq!(had(&scene), [1]);
    assert_eq!(
        (waiting(&mut scene.core, ids[0]), waiting(&mut scene.core, ids[1])),
        (vec![1, 2], vec![0, 1, 2])
    );
    scene.core.dispatch();
    assert_eq!((had(&scene), scene.core.missing()), (vec![1], 0), "it gets nothing more");
    scene.core.resize(1);
    assert_eq!((had(&scene), scene.core.missing()), (vec![1, 2], 0), "no other is needed");
    scene.gate.store(1, 100).unwrap();
    wait_until("all are done", || {
        scene.core.receive();
        ids.map(|id| scene.core.batch(id).settled) == [3, 3]
    });
    assert_eq!(scene.core.workers[0].stage, Stage::Ready);
}

thread_local! {
    /// Happens in this thread when it has seen that a task takes too long, before it does anything about it.
    pub(super) static BEFORE_IT_IS_REVOKED: Cell<Option<Box<dyn Fn()>>> = const { Cell::new(None) };
}

/// Who is at something else by then has to die for nothing, nor has who is done.
#[test]
fn a_task_that_ends_when_it_is_about_to_be_killed_takes_no_other_along() {
    let _watchdog = watchdog();
    for is_last in [false, true] {
        let mut scene = Scene::new(limited());
        let id = scene.submit_gated(if is_last { 0..1 } else { 0..3 });
        scene.wait_for_begin_of(0);
        let (gate, worker) = (scene.gate.clone(), &mut scene.core.workers[0]);
        assert!(worker.position().is_some());
        // It was seen there long ago.
        worker.seen = worker.position();
        worker.since = Instant::now().checked_sub(Duration::from_secs(1_001)).unwrap();
        let line = worker.line.clone();
        BEFORE_IT_IS_REVOKED.set(Some(Box::new(move || {
            gate.store(1, 1).unwrap();
            let goes_on = || if is_last { line.has_news() } else { gate.load(0).unwrap() == 2 };
            wait_until("it goes on", goes_on);
        })));
        scene.core.watch();
        assert!(BEFORE_IT_IS_REVOKED.take().is_none(), "it did not take too long");
        assert!(!scene.core.workers[0].is_doomed, "the last: {is_last}");
        scene.gate.store(1, 100).unwrap();
        wait_until("all are done", || {
            scene.core.receive();
            scene.core.batch(id).settled == if is_last { 1 } else { 3 }
        });
    }
}

/// Another has it at once, and it was begun by nobody.
#[test]
fn a_stopped_worker_keeps_nothing_that_it_has_not_begun() {
    let _watchdog = watchdog();
    let limit = Duration::from_secs(1);
    let mut scene = Scene::new(Settings { timeout: Some(limit), ..Settings::default() });
    let pid = scene.core.workers[0].process.pid();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGSTOP).unwrap();
    wait_until("it is stopped", || state(pid) == Some('T'));
    // It has had nothing to do for long.
    scene.core.workers[0].since = Instant::now().checked_sub(limit * 1000).unwrap();
    let id = scene.submit_gated(0..1);
    scene.core.watch();
    assert!(!scene.core.workers[0].is_doomed && scene.core.workers[0].jobs.len() == 1);
    for (times, is_doomed) in [(9, false), (11, true)] {
        scene.core.workers[0].since = Instant::now().checked_sub(limit * times).unwrap();
        scene.core.watch();
        assert_eq!(
            (scene.core.workers[0].is_doomed, scene.core.batch(id).queued == 1),
            (is_doomed, is_doomed)
        );
    }
}

/// And not only when another one has been started.
#[test]
fn what_a_dead_worker_had_not_begun_goes_to_who_is_there() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(limited());
    let id = scene.submit_gated(0..4);
    scene.wait_for_begin_of(0);
    let recipe = scene.core.settings.recipe.clone();
    // As after two that died before they were ready.
    (scene.core.wanted, scene.core.deaths) = (2, 2);
    scene.core.welcome(Worker::start(2, &recipe).unwrap());
    scene.core.workers[0].since = Instant::now() + Duration::from_secs(3600);
    wait_until("it is ready", || {
        scene.core.receive();
        scene.core.workers[1].stage == Stage::Ready
    });
    assert_eq!(scene.core.deaths, 0, "in a row");
    assert_eq!(scene.core.workers[1].jobs.len(), 0);
    let _ = scene.core.workers[0].process.kill();
    wait_until("it is dead", || !scene.core.workers[0].process.is_alive());
    scene.core.bury(0);
    let jobs = &scene.core.workers[0].jobs;
    assert_eq!((scene.core.workers[0].id, jobs.iter().map(|job| job.items.count).sum::<usize>()), (2, 3));
    assert_eq!((scene.core.batch(id).settled, scene.core.died), (1, 1));
}

/// Who has cost a worker is given alone, and its neighbours begin afresh.
#[test]
fn what_was_tried_goes_alone_and_says_nothing_of_what_is_behind_it() {
    for (tried, shunned) in [(2, 0), (0, 3), (1, 1)] {
        let mut bytes = Vec::new();
        for task in 0..4u64 {
            assert!(matches!(items::append(&mut bytes, Tag::Value, &task), Appended::Plain));
        }
        let mut source = Source { tried, shunned, ..Source::new(bytes, Vec::new(), 7, 4) };
        let (first, _) = source.split(4, 1000);
        assert_eq!((first.first, first.count, first.tried, first.shunned), (7, 1, tried, shunned));
        let (rest, _) = source.split(4, 1000);
        assert_eq!((rest.first, rest.count, rest.tried, rest.shunned), (8, 3, 0, 0));
        assert_eq!(source.count, 0);
    }
}

/// Its result lies there, and nobody has received it yet.
#[test]
fn what_is_done_cannot_be_cancelled() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(Settings::default());
    scene.gate.store(1, 1).unwrap();
    let id = scene.submit_gated(0..1);
    scene.core.complete(id);
    wait_until("it is done", || scene.core.workers[0].line.has_news());
    assert!(!scene.core.cancel(id));
    assert!(!scene.core.workers[0].is_doomed && scene.core.batch(id).is_done());
    assert!(matches!(scene.core.batch(id).pieces[..], [Piece { count: 1, what: What::Items { .. }, .. }]));
}

/// As long as there is a worker, what waits may wait for it.
#[test]
fn a_pool_that_the_system_refuses_another_worker_goes_on_with_those_that_it_has() {
    let _watchdog = watchdog();
    let mut scene = Scene::new(limited());
    let id = scene.submit_gated(0..1);
    (1..5).for_each(|task| _ = scene.submit_gated(task..task + 1));
    scene.core.wanted = 2;
    (0..2 * REFUSALS).for_each(|_| scene.core.regret(PoolError::NoWorkers));
    assert_eq!((scene.core.turns.len(), scene.core.batch(id).settled), (3, 0));
}
