//! Random deaths under load, with exact books.
//!
//! A few *workers*, each a process, add to shared counters as fast as they can: a `Mutex` by its guard, with a timeout
//! and with `try_lock`, an `RLock` that they nest, a `Value` that they update. After each addition a worker *acknowledges*
//! it, in memory that needs no lock. Meanwhile the parent kills random workers with `SIGKILL`, at random moments, some of
//! them after a `SIGSTOP`, and starts new ones in their place.
//!
//! Every counter has a part for each worker's place beside the total. So after each death the books can be checked
//! exactly: the dead worker's parts are what it acknowledged, and at most one more, in one of the counters: the addition
//! that it had made and not yet acknowledged. At the end, totals, parts and acknowledgements must agree to the last one.
//!
//! What else fails: a worker, or the parent, that makes no progress for five seconds, and the message says what each was
//! doing; a wait that only its backstop ended; a sum that repair cannot explain.
//!
//! The seed decides who is killed, how, and after which pause, and what the workers do. It does not decide what the
//! scheduler does: the same seed makes the same kind of run, not the same run.

mod books;
mod worker;

pub use books::{Books, OBJECTS, PLACES};

use crate::child::{Child, Ending};
use crate::random::Random;
use crate::shared::Shared;
use books::{Board, Doing, TIMEOUT};
use core::fmt;
use polyproc_sys::atomic::Ordering;
use std::time::{Duration, Instant};

/// So long is a worker waited for that is to be killed at a certain point.
const PATIENCE: Duration = Duration::from_micros(300);

/// What came of a soak.
#[derive(Debug, Default)]
pub struct Report {
    /// How many workers were killed.
    pub kills: u32,
    /// How many of them stood still at the time.
    pub stopped: u32,
    /// What they were doing: outside, about to have a lock, inside, about to be out.
    pub doing: [u32; 4],
    /// How many had made an addition that they had not acknowledged.
    pub unacknowledged: u32,
    /// How often somebody found the data of a dead one and repaired it.
    pub repairs: u64,
    /// How many additions there were.
    pub additions: u64,
    /// The longest that anybody waited for a lock.
    pub longest_wait: Duration,
    /// The longest that a worker was made to stand still.
    pub longest_stop: Duration,
    /// Waits that only their backstop ended.
    pub rescues: u64,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [outside, entering, inside, leaving] = self.doing;
        let rate = f64::from(self.kills) / self.took.as_secs_f64().max(f64::EPSILON);
        write!(
            f,
            "{} kills in {:.1} s, {rate:.0} a second: {entering} entering, {inside} inside, {leaving} leaving, \
             {outside} outside, {} while stopped; {} unacknowledged; {} repairs; {} additions; longest wait {:?}, \
             longest stop {:?}; {} ended by a backstop",
            self.kills,
            self.took.as_secs_f64(),
            self.stopped,
            self.unacknowledged,
            self.repairs,
            self.additions,
            self.longest_wait,
            self.longest_stop,
            self.rescues
        )
    }
}

/// A worker's place: the process that is there now.
struct Place {
    worker: Child,
    /// Its progress when it was looked at, and when that was another.
    progress: u64,
    since: Instant,
}

struct Soak {
    random: Random,
    books: Books,
    board: Shared<Board>,
    places: Vec<Place>,
    report: Report,
}

/// Kills so many workers, and checks the books.
///
/// # Panics
///
/// If the books are wrong, somebody hangs, or a wake-up was lost.
pub fn run(seed: u64, kills: u32) -> Report {
    let mut random = Random::new(seed);
    let books = Books::new();
    let board = Shared::<Board>::new();
    let places = (0..PLACES).map(|place| start(&mut random, &books, &board, place)).collect();
    let mut soak = Soak { random, books, board, places, report: Report::default() };
    let start = Instant::now();
    for _ in 0..kills {
        soak.round();
    }
    soak.report.took = start.elapsed();
    soak.close()
}

/// Works at a place of the books for as long as the process lives.
pub fn work_forever(books: &Books, place: usize) {
    worker::work(books, &Board::default(), place, Random::new(place as u64));
}

fn start(random: &mut Random, books: &Books, board: &Shared<Board>, place: usize) -> Place {
    let seed = random.number();
    let worker = Child::fork(|| worker::work(books, board, place, Random::new(seed)));
    Place { worker, progress: u64::MAX, since: Instant::now() }
}

impl Soak {
    /// Kills one.
    fn round(&mut self) {
        std::thread::sleep(Duration::from_micros(self.random.below(400)));
        let place = self.random.below(PLACES as u64) as usize;
        let stops = self.random.below(8) == 0;
        if stops {
            // Another one stands still for a while and goes on, and so may this one before its end.
            let other = self.random.below(PLACES as u64) as usize;
            let start = Instant::now();
            self.places[other].worker.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_micros(self.random.below(5_000)));
            if other != place {
                self.places[other].worker.signal(libc::SIGCONT);
            }
            self.report.stopped += u32::from(other == place);
            self.report.longest_stop = self.report.longest_stop.max(start.elapsed());
        }
        if self.random.below(2) == 0 {
            self.lie_in_wait(place);
        }
        let ending = self.places[place].worker.kill();
        if ending != Ending::Killed(libc::SIGKILL) {
            panic!("a worker ended by itself: {ending:?} {:?}", self.places[place].worker.complaint());
        }
        self.report.kills += 1;
        self.settle_accounts(place);
        self.places[place] = start(&mut self.random, &self.books, &self.board, place);
        self.watch();
    }

    /// Waits a moment for the worker to be in the middle of it, where it is for the smallest part of its time.
    fn lie_in_wait(&mut self, place: usize) {
        let wanted = if self.random.below(2) == 0 { Doing::Inside } else { Doing::Leaving };
        let start = Instant::now();
        while self.board.slots[place].doing() != wanted as u32 && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
    }

    /// After the death of a place's worker: its parts, against what it had acknowledged.
    fn settle_accounts(&mut self, place: usize) {
        let slot = &self.board.slots[place];
        self.report.doing[slot.doing() as usize] += 1;
        let mut unacknowledged = 0;
        for object in 0..OBJECTS {
            let start = Instant::now();
            let Some((ledger, repaired)) = self.books.read(object) else {
                panic!(
                    "not in {TIMEOUT:?}: the lock of {}\n{}",
                    self.books.describe(object),
                    self.describe()
                );
            };
            self.report.longest_wait = self.report.longest_wait.max(start.elapsed());
            self.report.repairs += u64::from(repaired);
            let (part, acknowledged) = (ledger[place], slot.acknowledged(object));
            assert!(
                part == acknowledged || part == acknowledged + 1,
                "a dead worker had acknowledged {acknowledged} additions, and {part} are in {ledger:?}, {}",
                self.books.describe(object)
            );
            unacknowledged += part - acknowledged;
            slot.settle(object, part);
        }
        assert!(unacknowledged <= 1, "a dead worker had {unacknowledged} additions under way at a time");
        self.report.unacknowledged += unacknowledged as u32;
        self.report.rescues += slot.take_rescues();
    }

    /// Sees to it that everybody goes on.
    fn watch(&mut self) {
        for place in 0..PLACES {
            let progress = self.board.slots[place].progress();
            let here = &mut self.places[place];
            if progress != here.progress {
                here.progress = progress;
                here.since = Instant::now();
            } else if here.since.elapsed() > TIMEOUT {
                panic!("no progress for {TIMEOUT:?} at place {place}\n{}", self.describe());
            }
        }
    }

    /// What everybody does.
    fn describe(&self) -> String {
        let mut text = String::new();
        for object in 0..OBJECTS {
            text += &format!("{}\n", self.books.describe(object));
        }
        for (place, here) in self.places.iter().enumerate() {
            let state = crate::system::state(here.worker.pid());
            let (pid, slot) = (here.worker.pid(), &self.board.slots[place]);
            text += &format!("place {place}: process {pid}, {state:?}, {}\n", slot.describe());
        }
        text
    }

    /// Lets the workers end by themselves and closes the books.
    fn close(mut self) -> Report {
        self.board.stop.store(1, Ordering::Relaxed);
        for place in 0..PLACES {
            match self.places[place].worker.wait(TIMEOUT) {
                Some(Ending::Exited(0)) => {}
                Some(ending) => {
                    panic!("a worker ended with {ending:?} {:?}", self.places[place].worker.complaint())
                }
                None => panic!("place {place} does not come to its end\n{}", self.describe()),
            }
            self.report.rescues += self.board.slots[place].take_rescues();
        }
        for object in 0..OBJECTS {
            let (ledger, repaired) = self.books.read(object).expect("nobody holds it any more");
            assert!(!repaired, "nobody died in the end");
            let parts: u64 = ledger[..PLACES].iter().sum();
            let acknowledged: u64 = self.board.slots.iter().map(|slot| slot.acknowledged(object)).sum();
            let total = ledger[PLACES];
            assert_eq!((total, parts), (acknowledged, acknowledged), "{ledger:?}");
            self.report.additions += total;
        }
        for slot in &self.board.slots {
            self.report.repairs += slot.repairs();
            self.report.longest_wait = self.report.longest_wait.max(slot.longest_wait());
        }
        // Who is made to stand still with a lock for longer than a backstop is no lost wake-up.
        let excused = self.report.longest_stop > Duration::from_millis(200);
        assert!(self.report.rescues == 0 || excused, "a wake-up was lost: {}", self.report);
        self.report
    }
}
