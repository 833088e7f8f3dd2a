//! Subjects: messages one way, there and back, and from many to many.
//!
//! Each message has a number at its beginning and at its end. From one to one they must come in order, all of them; from many
//! to many, the sum of what was got must be the sum of what was put. A tenth as many messages pass before the time counts:
//! they touch all memory, and make all connections.

use crate::each;
use polyproc_benches::{Processes, Samples, Timed, nanos, pin_to};
use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

/// One end of a channel of messages of `N` bytes.
pub trait Put<const N: usize> {
    /// Copies a message into the channel, and waits for room.
    fn put(&mut self, message: &[u8; N]);
}

/// The other end.
pub trait Get<const N: usize> {
    /// Waits for a message, and shows it when it is in memory of the receiver's own: the buffer, or what the channel gave it.
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R;
}

/// So many bytes, all nought, without a way over the stack.
pub fn zeroed<const N: usize>() -> Box<[u8; N]> {
    vec![0; N].into_boxed_slice().try_into().expect("as long as it was made")
}

/// How many messages there is room for: 1 MiB of them, but at least 4.
pub const fn slots<const N: usize>() -> usize {
    let many = (1 << 20) / N;
    if many < 4 { 4 } else { many }
}

#[inline(always)]
fn stamp<const N: usize>(message: &mut [u8; N], number: u64) {
    message[N - 8..].copy_from_slice(&number.to_le_bytes());
    message[..8].copy_from_slice(&number.to_le_bytes());
}

#[inline(always)]
fn stamps<const N: usize>(message: &[u8; N]) -> [u64; 2] {
    let number = |from: usize| u64::from_le_bytes(message[from..from + 8].try_into().unwrap());
    [number(0), number(N - 8)]
}

/// As many messages as go before the time counts.
fn warm(count: u64) -> u64 {
    (count / 10).max(8)
}

/// A side of a channel, at work.
pub enum Side<const N: usize, P, G> {
    /// Puts.
    Put(P, Box<[u8; N]>),
    /// Gets.
    Get(G, Box<[u8; N]>),
}

impl<const N: usize, P: Put<N>, G: Get<N>> Side<N, P, G> {
    /// The side that puts.
    pub fn putter(put: P) -> Side<N, P, G> {
        Side::Put(put, zeroed())
    }

    /// The side that gets.
    pub fn getter(get: G) -> Side<N, P, G> {
        Side::Get(get, zeroed())
    }

    /// Its part of `count` messages, one to one.
    #[inline(always)]
    fn pass(&mut self, count: u64) -> u64 {
        match self {
            Side::Put(put, message) => {
                for number in 0..count {
                    stamp(message, number);
                    put.put(black_box(message));
                }
            }
            Side::Get(get, buffer) => {
                for number in 0..count {
                    assert_eq!(get.get(buffer, stamps), [number; 2], "not the message that was due");
                }
            }
        }
        count
    }

    /// Its part of many to many: numbers from `first` on are put, any are got. The sum of their squares.
    #[inline(always)]
    fn mix(&mut self, first: u64, count: u64) -> u64 {
        let square = |number: u64| number.wrapping_mul(number).wrapping_add(number);
        let mut sum = 0u64;
        for number in first..first + count {
            match self {
                Side::Put(put, message) => {
                    stamp(message, number);
                    put.put(black_box(message));
                    sum = sum.wrapping_add(square(number));
                }
                Side::Get(get, buffer) => {
                    let [number, end] = get.get(buffer, stamps);
                    assert_eq!(number, end, "a torn message");
                    sum = sum.wrapping_add(square(number));
                }
            }
        }
        sum
    }
}

fn checked(timed: &Timed, count: u64) -> f64 {
    assert_eq!(timed.figures, [count; 2]);
    nanos(timed.total) / count as f64
}

/// Nanoseconds a message from a process to another, on two CPUs. Each makes its end itself.
pub fn one_way<const N: usize, P: Put<N>, G: Get<N>>(
    count: u64,
    put: impl FnOnce() -> P,
    get: impl FnOnce() -> G,
) -> f64 {
    // Each process takes from its own copy.
    let (put, get) = (Cell::new(Some(put)), Cell::new(Some(get)));
    let timed = Processes::prepared(2, |index| {
        pin_to(index);
        let mut side = match index {
            0 => Side::<N, P, G>::putter(put.take().unwrap()()),
            _ => Side::getter(get.take().unwrap()()),
        };
        side.pass(warm(count));
        move || side.pass(count)
    });
    checked(&timed.run(), count)
}

/// The same between threads.
pub fn one_way_threads<const N: usize, P: Put<N> + Send, G: Get<N> + Send>(
    count: u64,
    put: P,
    get: G,
) -> f64 {
    let (put, get) = (Mutex::new(Some(put)), Mutex::new(Some(get)));
    let timed = threads(2, |index| {
        pin_to(index);
        let mut side = match index {
            0 => Side::<N, P, G>::putter(put.lock().unwrap().take().unwrap()),
            _ => Side::getter(get.lock().unwrap().take().unwrap()),
        };
        side.pass(warm(count));
        move || side.pass(count)
    });
    checked(&timed, count)
}

/// Nanoseconds a message there and back, by two processes on these CPUs; the second waits for `pause` before it answers.
///
/// If [`each`] is wanted, the pause is a busy one, and is not part of the times of single trips: what is left is the way of a
/// message to one who sleeps, and the way back to another.
pub fn round_trip<P: Put<8>, G: Get<8>>(
    count: u64,
    cpus: [usize; 2],
    pause: Duration,
    first: impl FnOnce() -> (P, G),
    second: impl FnOnce() -> (P, G),
) -> f64 {
    let (first, second) = (Cell::new(Some(first)), Cell::new(Some(second)));
    let samples = each::samples(count);
    let timed = Processes::prepared(2, |index| {
        pin_to(cpus[index]);
        let (mut put, mut get) = match index {
            0 => first.take().unwrap()(),
            _ => second.take().unwrap()(),
        };
        let samples = samples.as_ref();
        trips(index, warm(count), pause, &mut put, &mut get);
        move || trips_or_each(index, count, pause, &mut put, &mut get, samples)
    })
    .run();
    each::keep(samples);
    checked(&timed, count)
}

/// The same between threads.
pub fn round_trip_threads<P: Put<8> + Send, G: Get<8> + Send>(
    count: u64,
    cpus: [usize; 2],
    pause: Duration,
    ends: [(P, G); 2],
) -> f64 {
    let ends = ends.map(|ends| Mutex::new(Some(ends)));
    let samples = each::samples(count);
    let timed = threads(2, |index| {
        pin_to(cpus[index]);
        let (mut put, mut get) = ends[index].lock().unwrap().take().unwrap();
        let samples = samples.as_ref();
        trips(index, warm(count), pause, &mut put, &mut get);
        move || trips_or_each(index, count, pause, &mut put, &mut get, samples)
    });
    each::keep(samples);
    checked(&timed, count)
}

#[inline(always)]
fn trips(index: usize, count: u64, pause: Duration, put: &mut impl Put<8>, get: &mut impl Get<8>) -> u64 {
    let mut buffer = [0; 8];
    for number in 0..count {
        if index == 0 {
            put.put(&number.to_le_bytes());
        }
        let got = get.get(&mut buffer, |bytes| u64::from_le_bytes(*bytes));
        assert_eq!(got, number, "not the message that was due");
        if index == 1 {
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            put.put(&got.to_le_bytes());
        }
    }
    count
}

/// The trips, each timed by itself if there is room for the times.
fn trips_or_each(
    index: usize,
    count: u64,
    pause: Duration,
    put: &mut impl Put<8>,
    get: &mut impl Get<8>,
    samples: Option<&Samples>,
) -> u64 {
    let Some(samples) = samples else { return trips(index, count, pause, put, get) };
    let mut buffer = [0; 8];
    for number in 0..count {
        let start = Instant::now();
        if index == 0 {
            put.put(&number.to_le_bytes());
        }
        let got = get.get(&mut buffer, |bytes| u64::from_le_bytes(*bytes));
        assert_eq!(got, number, "not the message that was due");
        if index == 0 {
            samples.note(number as usize, without(start, pause));
        } else {
            be_busy(pause);
            put.put(&got.to_le_bytes());
        }
    }
    count
}

/// Does nothing for some time, awake.
pub(crate) fn be_busy(pause: Duration) {
    let start = Instant::now();
    while !pause.is_zero() && start.elapsed() < pause {
        spin_loop();
    }
}

/// Nanoseconds since then, less a pause.
pub(crate) fn without(start: Instant, pause: Duration) -> u64 {
    start.elapsed().saturating_sub(pause).as_nanos() as u64
}

/// Nanoseconds a message from `pairs` processes to as many, on any CPU.
pub fn many<const N: usize, P: Put<N>, G: Get<N>>(
    pairs: usize,
    count: u64,
    put: impl Fn() -> P,
    get: impl Fn() -> G,
) -> f64 {
    let each = (count / pairs as u64).max(1);
    let timed = Processes::prepared(2 * pairs, |index| {
        let mut side = if index < pairs { Side::<N, P, G>::putter(put()) } else { Side::getter(get()) };
        side.mix(0, warm(each));
        move || side.mix(index as u64 * each, each)
    })
    .run();
    summed(&timed, pairs, each)
}

/// The same between threads.
pub fn many_threads<const N: usize, P: Put<N>, G: Get<N>>(
    pairs: usize,
    count: u64,
    put: impl Fn() -> P + Sync,
    get: impl Fn() -> G + Sync,
) -> f64 {
    let each = (count / pairs as u64).max(1);
    let timed = threads(2 * pairs, |index| {
        let mut side = if index < pairs { Side::<N, P, G>::putter(put()) } else { Side::getter(get()) };
        side.mix(0, warm(each));
        move || side.mix(index as u64 * each, each)
    });
    summed(&timed, pairs, each)
}

fn summed(timed: &Timed, pairs: usize, each: u64) -> f64 {
    let sum = |figures: &[u64]| figures.iter().fold(0u64, |sum, figure| sum.wrapping_add(*figure));
    let (put, got) = timed.figures.split_at(pairs);
    assert_eq!(sum(got), sum(put), "what was got is not what was put");
    nanos(timed.total) / (each * pairs as u64) as f64
}

/// As [`Processes::prepared`] and its run, by threads.
fn threads<R: FnMut() -> u64>(count: usize, prepare: impl Fn(usize) -> R + Sync) -> Timed {
    let start = Barrier::new(count);
    let runs: Vec<_> = std::thread::scope(|scope| {
        let run = |index| {
            let (prepare, start) = (&prepare, &start);
            scope.spawn(move || {
                let mut run = prepare(index);
                start.wait();
                let begun = Instant::now();
                let figure = run();
                (begun, Instant::now(), figure)
            })
        };
        let threads: Vec<_> = (0..count).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let begun = runs.iter().map(|run| run.0).min().unwrap();
    Timed {
        total: runs.iter().map(|run| run.1).max().unwrap() - begun,
        each: runs.iter().map(|run| run.1 - run.0).collect(),
        figures: runs.iter().map(|run| run.2).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::{ours, pipe};
    use std::io::{PipeReader, PipeWriter};
    use std::panic::catch_unwind;

    /// A pipe that does something wrong with message 5.
    struct Wrong(PipeWriter, Fault);

    #[derive(Clone, Copy)]
    enum Fault {
        Lost,
        Twice,
        Torn,
    }

    impl Put<16> for Wrong {
        fn put(&mut self, message: &[u8; 16]) {
            if stamps(message)[0] != 5 {
                return self.0.put(message);
            }
            match self.1 {
                // As many messages as there should be, so that nobody waits for ever.
                Fault::Lost => stamp_put(&mut self.0, 6),
                Fault::Twice => stamp_put(&mut self.0, 4),
                Fault::Torn => {
                    let mut message = *message;
                    message[15] ^= 1;
                    self.0.put(&message);
                }
            }
        }
    }

    fn stamp_put(writer: &mut PipeWriter, number: u64) {
        let mut message = [0; 16];
        stamp(&mut message, number);
        Put::<16>::put(writer, &message);
    }

    #[test]
    fn sound_channels_pass() {
        let (put, get) = pipe::ends();
        assert!(one_way::<16, _, _>(100, || put, || get) > 0.0);
        let queue = ours::Plain::<64>::bounded(16);
        assert!(many(2, 1000, || queue.clone(), || queue.clone()) > 0.0);
    }

    #[test]
    fn messages_that_are_lost_doubled_or_torn_fail() {
        for fault in [Fault::Lost, Fault::Twice, Fault::Torn] {
            let wrong = || {
                let (put, get) = pipe::ends();
                one_way::<16, Wrong, PipeReader>(100, || Wrong(put, fault), || get)
            };
            assert!(catch_unwind(wrong).is_err());
            let mixed = || {
                let (put, get) = pipe::ends();
                many::<16, Wrong, PipeReader>(
                    1,
                    100,
                    || Wrong(put.try_clone().unwrap(), fault),
                    || get.try_clone().unwrap(),
                )
            };
            assert!(catch_unwind(mixed).is_err());
        }
    }
}
