//! Random deaths of producers and consumers of a queue, and every message accounted for.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test soak_queue -- --nocapture
//! POLYPROC_QUEUE_SECONDS=600 cargo test --release -p polyproc-tests --test soak_queue -- --nocapture
//! POLYPROC_SEED=12345 cargo test --release -p polyproc-tests --test soak_queue -- --nocapture
//! ```
//!
//! Producers note what they are about to put, and what `put` has acknowledged; consumers note that they are about to get,
//! and what they have received. So at the end, every acknowledged message was received once, or a consumer was killed
//! between getting and noting; what a producer was killed at is there or not; nothing is there twice. With claims, nothing
//! is lost at all, and what comes again says so.

use polyproc_queue::{GetError, GetManyError, PutError, Queue, Raw};
use polyproc_sys::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use polyproc_tests::child::{Child, Ending};
use polyproc_tests::random::{Random, from_environment, seed};
use polyproc_tests::shared::Shared;
use polyproc_tests::system::{mapped_regions, one_at_a_time, open_descriptors};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const PLACES: usize = 3;
/// As many messages of one producer fit in a part of the books.
const PART: usize = 1 << 16;
const PARTS: usize = 96;
/// So many at a time, where it is many.
const BATCH: u64 = 7;
/// Beyond this, it is a hang.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A queue is used no longer than this, so that the books suffice.
const ROUND: Duration = Duration::from_millis(1_500);

/// Whose it is, and its number.
type Message = [u64; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Bounded,
    Claims,
    Many,
}

/// Received messages of one producer: in the low bits how often as new, in the high ones how often again.
struct Part([AtomicU8; PART]);

impl Default for Part {
    fn default() -> Part {
        Part([const { AtomicU8::new(0) }; PART])
    }
}

const AGAIN: u8 = 16;

#[derive(Default)]
struct Board {
    stop: AtomicU32,
    /// Of each producer: what comes next that it has not begun to put, and what is acknowledged.
    begun: [AtomicU64; PLACES],
    acknowledged: [AtomicU64; PLACES],
    /// Of each consumer: whether it may have something that it has not noted; how much it has received.
    taking: [AtomicU32; PLACES],
    received: [AtomicU64; PLACES],
}

struct Round {
    mode: Mode,
    queue: Queue<Message, Raw>,
    board: Shared<Board>,
    parts: Vec<Vec<Shared<Part>>>,
}

#[derive(Debug, Default)]
struct Report {
    kills: u64,
    stopped: u64,
    messages: u64,
    in_hand: u64,
    undecided: u64,
    again: u64,
}

impl Round {
    fn new(mode: Mode) -> Round {
        let queue = match mode {
            Mode::Bounded => Queue::bounded(5).unwrap(),
            _ => Queue::with_max_bytes(1 << 18).unwrap(),
        };
        let parts = (0..PLACES).map(|_| (0..PARTS).map(|_| Shared::new()).collect()).collect();
        Round { mode, queue, board: Shared::new(), parts }
    }

    fn note(&self, message: Message, again: bool) {
        let [place, number] = message;
        let cell = &self.parts[place as usize][number as usize / PART].0[number as usize % PART];
        cell.fetch_add(if again { AGAIN } else { 1 }, Ordering::Relaxed);
    }

    /// As a producer, for as long as the process lives. What a dead one was at is left alone.
    fn produce(&self, place: usize, mut random: Random) {
        let (begun, acknowledged) = (&self.board.begun[place], &self.board.acknowledged[place]);
        let most = if self.mode == Mode::Many { BATCH } else { 1 };
        while self.board.stop.load(Ordering::Relaxed) == 0 {
            let first = begun.load(Ordering::Relaxed);
            if first + most >= (PARTS * PART) as u64 {
                return;
            }
            let count = 1 + random.below(most);
            begun.store(first + count, Ordering::SeqCst);
            let messages = (first..first + count).map(|number| [place as u64, number]);
            let put = if most == 1 {
                self.queue.put([place as u64, first]).map_err(PutError::into_message).is_ok()
            } else {
                self.queue.put_many(messages).is_ok()
            };
            assert!(put, "a queue that is open takes what fits");
            acknowledged.store(first + count, Ordering::SeqCst);
            if random.below(200) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(300)));
            }
        }
    }

    /// As a consumer.
    fn consume(&self, place: usize, mut random: Random) {
        let taking = &self.board.taking[place];
        let mut last = [None; PLACES];
        let mut in_order = |[producer, number]: Message| {
            assert!(last[producer as usize] < Some(number), "{producer}'s {number} comes late");
            last[producer as usize] = Some(number);
        };
        loop {
            taking.store(1, Ordering::SeqCst);
            match self.mode {
                Mode::Claims => match self.queue.claim() {
                    Ok(claim) => {
                        self.note(*claim, claim.is_redelivered());
                        if random.below(20) == 0 {
                            continue; // Handed back, to be delivered again.
                        }
                        claim.ack();
                    }
                    Err(GetError::Closed) => return,
                    Err(error) => panic!("{error}"),
                },
                Mode::Many => match self.queue.get_many(BATCH as usize) {
                    Ok(messages) => messages.into_iter().for_each(|message| {
                        in_order(message);
                        self.note(message, false);
                    }),
                    Err(GetManyError::Closed) => return,
                    Err(error) => panic!("{error}"),
                },
                _ => match self.queue.get() {
                    Ok(message) => {
                        in_order(message);
                        self.note(message, false);
                    }
                    Err(GetError::Closed) => return,
                    Err(error) => panic!("{error}"),
                },
            }
            taking.store(0, Ordering::SeqCst);
            self.board.received[place].fetch_add(1, Ordering::Relaxed);
            if random.below(200) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(300)));
            }
        }
    }

    fn start(&self, place: usize, random: &mut Random) -> Child {
        let random = Random::new(random.number());
        if place < PLACES {
            Child::fork(|| self.produce(place, random))
        } else {
            Child::fork(|| self.consume(place - PLACES, random))
        }
    }

    /// Kills for a while, closes, drains, and checks.
    fn run(&self, random: &mut Random, report: &mut Report) {
        let mut undecided = HashSet::new();
        let mut in_hand = 0;
        let mut workers: Vec<Child> = (0..2 * PLACES).map(|place| self.start(place, random)).collect();
        let mut settle = |place: usize, report: &mut Report, in_hand: &mut u64| {
            if place < PLACES {
                let (begun, acknowledged) = (&self.board.begun[place], &self.board.acknowledged[place]);
                let (first, end) = (acknowledged.load(Ordering::SeqCst), begun.load(Ordering::SeqCst));
                undecided.extend((first..end).map(|number| (place, number)));
                report.undecided += end - first;
                acknowledged.store(end, Ordering::SeqCst);
            } else if self.board.taking[place - PLACES].swap(0, Ordering::SeqCst) != 0 {
                *in_hand += if self.mode == Mode::Many { BATCH } else { 1 };
            }
        };
        let start = Instant::now();
        while start.elapsed() < ROUND {
            std::thread::sleep(Duration::from_micros(random.below(1_500)));
            let place = random.below(2 * PLACES as u64) as usize;
            let stops = random.below(8) == 0;
            if stops {
                workers[place].signal(libc::SIGSTOP);
                std::thread::sleep(Duration::from_micros(random.below(3_000)));
            }
            let ending = workers[place].kill();
            assert!(ending != Ending::Exited(101), "{:?}", workers[place].complaint());
            report.kills += 1;
            report.stopped += u64::from(stops);
            settle(place, report, &mut in_hand);
            workers[place] = self.start(place, random);
        }
        self.board.stop.store(1, Ordering::SeqCst);
        for (place, worker) in workers.iter_mut().enumerate() {
            if place == PLACES {
                self.queue.close();
            }
            let ending = worker.wait(TIMEOUT);
            let what = format!("{:?}, place {place}, {:?}, {:?}", self.mode, worker.complaint(), self.queue);
            assert_eq!(ending, Some(Ending::Exited(0)), "{what}");
            assert_eq!(worker.rescues(), 0, "a wake-up was lost: {what}");
        }
        assert!(self.queue.is_empty(), "{:?}", self.queue);
        let mut lost = vec![];
        for place in 0..PLACES {
            let end = self.board.acknowledged[place].load(Ordering::SeqCst);
            assert_eq!(end, self.board.begun[place].load(Ordering::SeqCst));
            report.messages += end;
            for number in 0..end {
                let cell = &self.parts[place][number as usize / PART].0[number as usize % PART];
                let seen = cell.load(Ordering::Relaxed);
                let (new, again) = (seen % AGAIN, seen / AGAIN);
                report.again += u64::from(again);
                assert!(new <= 1, "{place}'s {number} was received {new} times in mode {:?}", self.mode);
                assert!(again == 0 || self.mode == Mode::Claims);
                if seen == 0 && !undecided.contains(&(place, number)) {
                    lost.push((place, number));
                }
            }
        }
        report.in_hand += lost.len() as u64;
        let most = if self.mode == Mode::Claims { 0 } else { in_hand };
        assert!(
            lost.len() as u64 <= most,
            "{:?}: lost {lost:?}, and {most} can have been in hand",
            self.mode
        );
    }
}

#[test]
fn every_message_is_accounted_for() {
    let _turn = one_at_a_time();
    let before = (open_descriptors(), mapped_regions());
    let (seed, seconds) = (seed(), from_environment("POLYPROC_QUEUE_SECONDS").unwrap_or(8));
    println!("POLYPROC_SEED={seed} POLYPROC_QUEUE_SECONDS={seconds}");
    let mut random = Random::new(seed);
    let mut report = Report::default();
    let start = Instant::now();
    for mode in [Mode::Plain, Mode::Bounded, Mode::Claims, Mode::Many].into_iter().cycle() {
        if start.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        Round::new(mode).run(&mut random, &mut report);
    }
    println!("{report:?} in {:?}", start.elapsed());
    assert_eq!(before, (open_descriptors(), mapped_regions()), "descriptors and regions are left");
    assert!(report.kills > 100 && report.messages > 1_000, "{report:?}");
}
