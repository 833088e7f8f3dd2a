//! Events: a token that two processes pass to and fro, both awake or both asleep, beside what the hardware and the kernel
//! take for it; and what set, clear and a look cost when nobody waits.

use polyproc_benches::{
    Events, Processes, Samples, Table, is_test, median, nanos, pin_to, scaled, spreads, time_each,
};
use polyproc_event::{Arena, Event};
use polyproc_memory::{Kind, Object, Shape};
use polyproc_sys::atomic::{AtomicU32, AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{Futex, backstop_rescues};
use std::alloc::Layout;
use std::hint::{black_box, spin_loop};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Something that one process sets, and another waits for and takes.
trait Flag {
    fn set(&self);
    fn take(&self);
}

impl Flag for Event {
    #[inline(always)]
    fn set(&self) {
        Event::set(self);
    }

    #[inline(always)]
    fn take(&self) {
        self.wait();
        self.clear();
    }
}

/// A word in a cache line of its own.
#[repr(C, align(128))]
struct Line(AtomicU32);

impl Flag for Line {
    #[inline(always)]
    fn set(&self) {
        self.0.store(1, Ordering::Release);
    }

    #[inline(always)]
    fn take(&self) {
        while self.0.load(Ordering::Acquire) == 0 {
            spin_loop();
        }
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A word that is slept on: what the kernel takes.
#[repr(C, align(128))]
struct Word(Futex);

impl Flag for Word {
    #[inline(always)]
    fn set(&self) {
        self.0.store(1, Ordering::Release);
        self.0.wake(1);
    }

    #[inline(always)]
    fn take(&self) {
        while self.0.swap(0, Ordering::Acquire) == 0 {
            self.0.wait(0, Deadline::NEVER);
        }
    }
}

/// Two of them in shared memory, all zero, which must be a flag that is not set.
struct Pair<T> {
    object: Object,
    of: std::marker::PhantomData<T>,
}

impl<T> Pair<T> {
    fn new() -> Pair<T> {
        let layout = Layout::new::<[T; 2]>();
        let shape = Shape {
            kind: Kind::new("bench"),
            code: 0,
            element: layout,
            count: 1,
            payload: layout,
            lock: false,
        };
        Pair { object: Object::create(None, &shape).expect("memory"), of: std::marker::PhantomData }
    }

    fn get(&self) -> &[T; 2] {
        // SAFETY: the payload is as large and aligned as the pair, zeroed, and made of atomics only.
        unsafe { self.object.payload().cast().as_ref() }
    }
}

/// A round trip of the token between two processes on these CPUs.
fn round_trip<T: Flag>(pair: &[T; 2], cpus: [usize; 2], count: u64) -> f64 {
    let timed = Processes::fork(2, |index| {
        pin_to(cpus[index]);
        let (mine, other) = (&pair[index], &pair[1 - index]);
        let mut trips = 0;
        while trips < count {
            if index == 0 {
                other.set();
                mine.take();
            } else {
                mine.take();
                other.set();
            }
            trips += 1;
        }
        assert_eq!(backstop_rescues(), 0);
        trips
    })
    .run();
    assert_eq!(timed.figures, [count, count]);
    nanos(timed.total) / count as f64
}

/// Every round trip by itself: what reading the clock takes, some tens of nanoseconds, is part of it. `pause` is how long the
/// other side waits with its answer, which does not count: long enough for the first to have fallen asleep, or nothing.
fn each_trip<T: Flag>(pair: &[T; 2], cpus: [usize; 2], count: u64, pause: Duration) -> Vec<f64> {
    // The first ones warm up.
    let warm = count / 10;
    let samples = Samples::new(count as usize);
    Processes::fork(2, |index| {
        pin_to(cpus[index]);
        let (mine, other) = (&pair[index], &pair[1 - index]);
        for trip in 0..count + warm {
            if index == 0 {
                let start = Instant::now();
                other.set();
                mine.take();
                let time = start.elapsed().saturating_sub(pause);
                if trip >= warm {
                    samples.note((trip - warm) as usize, time.as_nanos() as u64);
                }
            } else {
                mine.take();
                if !pause.is_zero() {
                    let taken = Instant::now();
                    while taken.elapsed() < pause {
                        spin_loop();
                    }
                }
                other.set();
            }
        }
        assert_eq!(backstop_rescues(), 0);
        0
    })
    .run();
    let times = samples.nanos();
    assert!(times.iter().all(|time| *time > 0.0), "a trip was not timed");
    times
}

/// The same by two cache lines, that are looked at until they have the number of the round: what the hardware takes. Not
/// even taking the token back is a store.
fn spinning(pair: &[Line; 2], count: u64) -> f64 {
    let timed = Processes::fork(2, |index| {
        pin_to(index);
        let (mine, other) = (&pair[index].0, &pair[1 - index].0);
        let hear = |round| {
            while mine.load(Ordering::Acquire) != round {
                spin_loop();
            }
        };
        for round in 1..=count as u32 {
            if index == 0 {
                other.store(round, Ordering::Release);
                hear(round);
            } else {
                hear(round);
                other.store(round, Ordering::Release);
            }
        }
        u64::from(mine.load(Ordering::Relaxed))
    })
    .run();
    assert_eq!(timed.figures, [count, count]);
    nanos(timed.total) / count as f64
}

/// From the set to the end of the wait, when the other has been asleep for long, on another CPU: the median of `count`.
fn one_way<T: Flag>(pair: &[T; 2], count: u64) -> f64 {
    /// Longer than anybody looks before sleeping, and until the CPU is idle.
    const ASLEEP: Duration = Duration::from_micros(200);
    let at = Pair::<AtomicU64>::new();
    let at = &at.get()[0];
    let epoch = Instant::now();
    let timed = Processes::fork(2, |index| {
        pin_to(index);
        let mut times = Vec::with_capacity(count as usize);
        for _ in 0..count {
            if index == 0 {
                pair[0].take();
                let now = epoch.elapsed().as_nanos() as u64;
                times.push((now - at.load(Ordering::Relaxed)) as f64);
                pair[1].set();
            } else {
                let asleep = Instant::now();
                while asleep.elapsed() < ASLEEP {
                    spin_loop();
                }
                at.store(epoch.elapsed().as_nanos() as u64, Ordering::Relaxed);
                pair[0].set();
                pair[1].take();
            }
        }
        if index == 0 { median(&times) as u64 } else { 0 }
    })
    .run();
    timed.figures[0] as f64
}

fn events() -> [Event; 2] {
    let arena = Arena::new(4096).expect("memory");
    [(); 2].map(|()| Event::new_in(&arena).expect("an event"))
}

fn main() {
    let several = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    if several {
        let count = scaled(300_000);
        Table::new("a token by two flags to and fro, two CPUs, both awake")
            .subject("limit: two cache lines, spinning", || spinning(Pair::new().get(), count))
            .subject("polyproc Event", || round_trip(&events(), [0, 1], count))
            .run();
    }
    let count = scaled(100_000);
    Table::new("a token by two flags to and fro, one CPU, so that each side sleeps")
        .subject("limit: two futexes", || round_trip(Pair::<Word>::new().get(), [0, 0], count))
        .subject("polyproc Event", || round_trip(&events(), [0, 0], count))
        .run();
    if several {
        let count = if is_test() { 20 } else { 1_000 };
        Table::new("from a set to the end of a long sleep on another CPU, one way")
            .subject("limit: a futex", || one_way(Pair::<Word>::new().get(), count))
            .subject("polyproc Event", || one_way(&events(), count))
            .run();
    }

    let none = Duration::ZERO;
    if several {
        let count = scaled(200_000);
        let lines = Events::of(|| each_trip(Pair::<Line>::new().get(), [0, 1], count, none));
        let ours = Events::of(|| each_trip(&events(), [0, 1], count, none));
        let title = "each round trip, two CPUs, both awake";
        spreads(
            title,
            "a tenth as many",
            &[("limit: two cache lines, spinning", lines), ("polyproc Event", ours)],
        );
    }
    let count = scaled(50_000);
    let words = Events::of(|| each_trip(Pair::<Word>::new().get(), [0, 0], count, none));
    let ours = Events::of(|| each_trip(&events(), [0, 0], count, none));
    let title = "each round trip, one CPU, so that each side sleeps";
    spreads(title, "a tenth as many", &[("limit: two futexes", words), ("polyproc Event", ours)]);
    if several {
        let (count, pause) = (if is_test() { 20 } else { 2_000 }, Duration::from_micros(200));
        let words = Events::of(|| each_trip(Pair::<Word>::new().get(), [0, 1], count, pause));
        let ours = Events::of(|| each_trip(&events(), [0, 1], count, pause));
        let title = "each round trip, two CPUs, asleep for 200 us in between";
        spreads(title, "a tenth as many", &[("limit: two futexes", words), ("polyproc Event", ours)]);
    }

    pin_to(1);
    let count = scaled(10_000_000);
    let event = Event::new().expect("an event");
    let limit = AtomicU32::new(0);
    let std = (Mutex::new(false), Condvar::new());
    let std_set = |value: bool| {
        *black_box(&std).0.lock().unwrap() = value;
        if value {
            std.1.notify_all();
        }
    };
    Table::new("set and clear, nobody waits")
        .subject("limit: two compare-and-swaps", || {
            time_each(count, || {
                let _ = black_box(&limit).compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed);
                let _ = black_box(&limit).compare_exchange(1, 0, Ordering::SeqCst, Ordering::Relaxed);
            })
        })
        .subject("polyproc Event", || {
            time_each(count, || {
                black_box(&event).set();
                black_box(&event).clear();
            })
        })
        .subject("std Mutex<bool> and Condvar, threads", || {
            time_each(count, || {
                std_set(true);
                std_set(false);
            })
        })
        .run();
    assert_eq!((limit.load(Ordering::SeqCst), event.is_set()), (0, false));
    event.set();
    Table::new("is it set?")
        .subject("limit: a load", || {
            time_each(count, || assert_eq!(black_box(&limit).load(Ordering::SeqCst), 0))
        })
        .subject("polyproc Event::is_set", || time_each(count, || assert!(black_box(&event).is_set())))
        .subject("polyproc Event::wait, already set", || time_each(count, || black_box(&event).wait()))
        .subject("polyproc Event::set, already set", || time_each(count, || black_box(&event).set()))
        .run();
}
