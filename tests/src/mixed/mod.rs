//! Random deaths among processes that use all primitives at once, with exact books.
//!
//! A few *workers*, each a process, do one *chore* after another, at random: see [`Chore`]. Meanwhile the parent kills
//! random workers with `SIGKILL`, at random moments, some of them after a `SIGSTOP`, and starts new ones in their place.
//! [`soak`](crate::soak) does the same with locks alone, and faster.
//!
//! What a worker has done it *acknowledges*, in memory that needs no lock. After each death, this must be so:
//!
//! | primitive | exact is |
//! |---|---|
//! | `Semaphore`, `BoundedSemaphore` | the number of permits: what it began with, plus released, minus forgotten; one more or less if the dead was about to release or forget. A bounded one has room for what was forgotten and no more |
//! | `Event` | whoever slept on it when the parent set it goes on, even if it is cleared at once |
//! | `Condition`, `Mutex` | a buffer: each item is got once, in its turn; each place put and got what it acknowledged, at most one more |
//! | `Barrier` | who passes does so after the action of its round, which the leader ran, and nobody else. The rounds passed and those led fit together, but for the dead |
//! | `RwLock`, `RLock`, `Value` | the parts and the total; each part is what was acknowledged, at most one more; and one more in one of all the ledgers only |
//!
//! To count the permits, the parent keeps everybody from acquiring one for a moment. It makes up for those that the dead
//! had forgotten or released in excess, on the books.
//!
//! What else fails: a worker, or the parent, that makes no progress for five seconds, and the message says what each was
//! doing; a timeout before its time; a wait that only its backstop ended. No page of a crate leaves a single death to a
//! backstop. Two at the same few instructions, which some do, have not been seen here.
//!
//! Most waits are without a timeout. So that they are not for ever, the parent puts and gets an item where all others
//! want the same.
//!
//! The seed decides who is killed, how, and after which pause, and what the workers do; not what the scheduler does.

mod audit;
mod board;
mod books;
mod report;
mod worker;

pub use board::{CHORES, Chore, PLACES};
pub use report::Report;

use crate::child::{Child, Ending};
use crate::random::Random;
use crate::shared::Shared;
use board::{Board, GETS, LEDGERS, NESTS, PARENT, PUTS, Phase, UPDATES, WRITES};
use books::{Books, GROUPS, PARTIES, TIMEOUT};
use polyproc_sys::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long is a worker waited for that is to be killed at a certain point.
const PATIENCE: Duration = Duration::from_micros(300);

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
    board: Arc<Shared<Board>>,
    places: Vec<Place>,
    /// How many died at each barrier.
    died_meeting: [u64; GROUPS],
    report: Report,
}

/// Kills so many workers, and checks the books.
///
/// # Panics
///
/// If the books are wrong, somebody hangs, or a wake-up was lost.
pub fn run(seed: u64, kills: u32) -> Report {
    let mut random = Random::new(seed);
    let board = Arc::new(Shared::<Board>::new());
    let books = Books::new(&board);
    let places = (0..PLACES).map(|place| start(&mut random, &books, &board, place)).collect();
    let report = Report::default();
    let mut soak = Soak { random, books, board, places, died_meeting: [0; GROUPS], report };
    let start = Instant::now();
    for _ in 0..kills {
        soak.round();
    }
    soak.report.took = start.elapsed();
    soak.close()
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
        let mut place = self.random.below(PLACES as u64) as usize;
        let sleepers = if self.random.below(2) == 0 { self.sleepers() } else { Vec::new() };
        if self.random.below(8) == 0 {
            self.stop_one(place);
        } else if self.random.below(4) != 0 {
            place = self.lie_in_wait(place);
        }
        let early = self.random.below(2) == 0;
        if !sleepers.is_empty() {
            self.books.pulse.set();
            if early {
                self.books.pulse.clear();
            }
        }
        let ending = self.places[place].worker.kill();
        if ending != Ending::Killed(libc::SIGKILL) {
            panic!("a worker ended by itself: {ending:?} {:?}", self.places[place].worker.complaint());
        }
        self.books.pulse.clear();
        self.report.kills += 1;
        self.settle_accounts(place);
        self.hear(&sleepers, place);
        self.count_permits(place);
        self.places[place] = start(&mut self.random, &self.books, &self.board, place);
        self.watch();
    }

    /// Another one stands still for a while and goes on; or this one does, before its end.
    fn stop_one(&mut self, place: usize) {
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

    /// Waits a moment for a worker to be in the middle of a chore, where it is for the smallest part of its time. That
    /// one, or the one that was to be killed.
    fn lie_in_wait(&mut self, place: usize) -> usize {
        let wanted = (Chore::ALL[self.random.below(CHORES as u64) as usize], 1 + self.random.below(3) as u32);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(found) = (0..PLACES).find(|place| self.board.slots[*place].doing() == wanted) {
                return found;
            }
            std::hint::spin_loop();
        }
        place
    }

    /// Who sleeps on the event, and the number of its wait.
    fn sleepers(&self) -> Vec<(usize, u64)> {
        let asleep = |place: usize| {
            let number = self.board.slots[place].listening()?;
            let asleep = crate::system::state(self.places[place].worker.pid()) == Some('S');
            // The same wait before and after: it is asleep in it.
            (asleep && self.board.slots[place].listening() == Some(number)).then_some((place, number))
        };
        (0..PLACES).filter_map(asleep).collect()
    }

    /// Waits until all who slept on the event have heard of it.
    fn hear(&mut self, sleepers: &[(usize, u64)], dead: usize) {
        for &(place, number) in sleepers.iter().filter(|(place, _)| *place != dead) {
            let start = Instant::now();
            while self.board.slots[place].listening() == Some(number) {
                if start.elapsed() > TIMEOUT {
                    panic!("place {place} has not heard of a pulse\n{}", self.describe());
                }
                std::thread::yield_now();
            }
            self.report.pulses_heard += 1;
            self.report.longest_wait = self.report.longest_wait.max(start.elapsed());
        }
    }

    /// After the death of a place's worker: its parts, against what it had acknowledged.
    fn settle_accounts(&mut self, place: usize) {
        let (chore, phase) = self.board.slots[place].doing();
        if phase != Phase::Outside as u32 {
            self.report.died[chore as usize] += 1;
        }
        if chore == Chore::Meet && phase != Phase::Outside as u32 {
            self.died_meeting[place / PARTIES] += 1;
        }
        self.board.slots[place].clear();
        let parts = self.parts(place);
        let slot = &self.board.slots[place];
        let mut unacknowledged = 0;
        for (ledger, part) in parts.into_iter().enumerate() {
            let acknowledged = slot.acknowledged(ledger);
            assert!(
                part == acknowledged || part == acknowledged + 1,
                "ledger {ledger}: a dead worker had acknowledged {acknowledged} additions, and {part} are there"
            );
            unacknowledged += part - acknowledged;
            slot.settle(ledger, part);
        }
        assert!(unacknowledged <= 1, "a dead worker had {unacknowledged} additions under way at a time");
        self.report.unacknowledged += unacknowledged as u32;
        self.report.rescues += slot.take_rescues();
    }

    /// A place's part in each ledger. Puts and gets an item if everybody wants the same.
    fn parts(&mut self, place: usize) -> [u64; LEDGERS] {
        let start = Instant::now();
        let stock = self.relieve(place);
        let rlock = self.books.read_rlock();
        let value = self.books.read_value();
        let rwlock = self.books.read_rwlock();
        self.report.longest_wait = self.report.longest_wait.max(start.elapsed());
        let (Some(((put, got), mended)), Some((rlock, a)), Some((value, _)), Some((rwlock, b))) =
            (stock, rlock, value, rwlock)
        else {
            panic!("a lock is not to be had in {TIMEOUT:?}\n{}", self.describe());
        };
        self.report.repairs += u64::from(mended) + u64::from(a) + u64::from(b);
        for ledger in [&rlock, &value, &rwlock] {
            books::check_ledger(ledger);
        }
        let mut parts = [0; LEDGERS];
        (parts[PUTS], parts[GETS]) = (put, got);
        (parts[NESTS], parts[UPDATES], parts[WRITES]) = (rlock[place], value[place], rwlock[place]);
        parts
    }

    /// Puts an item if somebody waits for one and there is none; gets one if somebody waits for room. What the place has
    /// put and got so far.
    fn relieve(&self, place: usize) -> Option<((u64, u64), bool)> {
        let (books, parent) = (&self.books, &self.board.slots[PARENT]);
        books.with_stock(|stock| {
            if books::items(stock) == 0 && books.not_empty.waiting() > 0 {
                books::put(stock, PARENT, || {});
                books.not_empty.notify_one();
                parent.acknowledge(PUTS);
            } else if books::is_full(stock) && books.not_full.waiting() > 0 {
                books::get(stock, PARENT, || {});
                books.not_full.notify_one();
                parent.acknowledge(GETS);
            }
            (books::put_by(stock, place), books::got_by(stock, place))
        })
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
        let mut text = format!("{:#?}\n", self.books);
        for (place, here) in self.places.iter().enumerate() {
            let state = crate::system::state(here.worker.pid());
            let (pid, slot) = (here.worker.pid(), &self.board.slots[place]);
            text += &format!("place {place}: process {pid}, {state:?}, {}\n", slot.describe());
        }
        text
    }

    /// Lets the workers end by themselves and closes the books.
    fn close(mut self) -> Report {
        self.board.stop.store(1, Ordering::SeqCst);
        let start = Instant::now();
        let mut left: Vec<usize> = (0..PLACES).collect();
        while !left.is_empty() {
            // Who waits for others must be told that they will not come.
            self.books.barriers.iter().for_each(|barrier| barrier.abort());
            self.books.pulse.set();
            if self.relieve(PARENT).is_none() || start.elapsed() > TIMEOUT {
                panic!("places {left:?} do not come to their end\n{}", self.describe());
            }
            left.retain(|place| match self.places[*place].worker.wait(Duration::from_micros(500)) {
                Some(Ending::Exited(0)) => false,
                Some(ending) => {
                    let complaint = self.places[*place].worker.complaint();
                    panic!("a worker ended with {ending:?} {complaint:?}")
                }
                None => true,
            });
        }
        self.close_ledgers();
        self.close_accounts();
        self.close_barriers();
        for slot in &self.board.slots {
            self.report.add(slot);
        }
        // Who is made to stand still with a lock for longer than a backstop is no lost wake-up.
        let excused = self.report.longest_stop > Duration::from_millis(200);
        assert!(self.report.rescues == 0 || excused, "a wake-up was lost: {}", self.report);
        self.report
    }
}
