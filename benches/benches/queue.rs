//! Messages from process to process: ours beside a hand-written ring, the limit, and crossbeam between threads.

use polyproc_benches::{NumberPipe, Processes, Ring, Table, nanos, pin_to, scaled, time_each};
use polyproc_queue::{Bytes, Queue, Raw};
use std::hint::black_box;
use std::time::Instant;

/// What message `number` looks like.
#[inline]
fn message<const N: usize>(number: u64) -> [u8; N] {
    let mut message = [0; N];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

/// Checks that it is that message.
#[inline]
fn check<const N: usize>(message: &[u8; N], number: u64) {
    assert_eq!(message[..8], number.to_le_bytes());
}

/// Two processes, pinned to two CPUs: nanoseconds a message.
fn pair(count: u64, put: impl Fn(), get: impl Fn()) -> f64 {
    let run = Processes::fork(2, |index| {
        pin_to(index);
        if index == 0 {
            put()
        } else {
            get()
        }
        0
    });
    nanos(run.run().total) / count as f64
}

/// The ring, with so many bytes in it.
fn ring<const N: usize>(count: u64, bytes: u64) -> f64 {
    let ring = Ring::<N>::new(bytes / N as u64);
    let put = || {
        let mut ring = ring.clone();
        for number in 0..count {
            ring.put(&message(number));
        }
    };
    let get = || {
        let mut ring = ring.clone();
        let mut got = [0; N];
        for number in 0..count {
            ring.get(&mut got);
            check(&got, number);
        }
    };
    pair(count, put, get)
}

/// Ours, bytes that the caller keeps, one at a time.
fn bytes<const N: usize>(count: u64, queue: Queue<Vec<u8>, Bytes>) -> f64 {
    let put = || (0..count).for_each(|number| queue.put_bytes(&message::<N>(number)).unwrap());
    let get = || {
        let mut got = Vec::with_capacity(N);
        for number in 0..count {
            queue.get_into(&mut got).unwrap();
            check::<N>(got.first_chunk().unwrap(), number);
        }
    };
    pair(count, put, get)
}

type Array<const N: usize> = Queue<[u8; N], Raw>;

/// Ours, plain data, one at a time.
fn ours<const N: usize>(count: u64, queue: Array<N>) -> f64 {
    let put = || (0..count).for_each(|number| queue.put(message(number)).unwrap());
    let get = || (0..count).for_each(|number| check(&queue.get().unwrap(), number));
    pair(count, put, get)
}

/// Ours, in batches.
fn batches<const N: usize>(count: u64, queue: Array<N>) -> f64 {
    let put = || {
        for batch in 0..count / 64 {
            queue.put_many((batch * 64..batch * 64 + 64).map(message)).unwrap();
        }
    };
    let get = || {
        let mut number = 0;
        while number < count / 64 * 64 {
            for got in queue.get_many(64).unwrap() {
                check(&got, number);
                number += 1;
            }
        }
    };
    pair(count, put, get)
}

/// crossbeam's bounded channel, between threads, with `Vec<u8>`.
fn crossbeam<const N: usize>(count: u64) -> f64 {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(16_384);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin_to(0);
            (0..count).for_each(|number| sender.send(message::<N>(number).to_vec()).unwrap());
        });
        scope.spawn(move || {
            // Counted before the other was pinned: not its CPU.
            pin_to(1);
            for number in 0..count {
                let got = receiver.recv().unwrap();
                assert_eq!(got[..8], number.to_le_bytes());
            }
        });
    });
    nanos(start.elapsed()) / count as f64
}

fn sizes<const N: usize>(title: &'static str, count: u64) {
    let count = scaled(count);
    Table::new(title)
        .subject("limit: a ring by hand", || ring::<N>(count, 1 << 20))
        .subject("polyproc Queue", || ours::<N>(count, Array::with_max_bytes(1 << 20).unwrap()))
        .subject("polyproc Queue, put_bytes, get_into", || {
            bytes::<N>(count, Queue::with_max_bytes(1 << 20).unwrap())
        })
        .subject("polyproc Queue, bounded to 1024", || ours::<N>(count, Array::bounded(1024).unwrap()))
        .subject("polyproc Queue, batches of 64", || {
            batches::<N>(count, Array::with_max_bytes(1 << 20).unwrap())
        })
        .subject("crossbeam bounded, threads", || crossbeam::<N>(count))
        .run();
}

/// As many bytes, all nought, without a way over the stack.
fn zeroed<const N: usize>() -> Box<[u8; N]> {
    vec![0; N].into_boxed_slice().try_into().expect("as long as it was made")
}

/// Messages that are passed on in a thread: the memory that carries the bytes is the channel's.
fn crossbeam_large<const N: usize>(count: u64) -> f64 {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(4);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin_to(0);
            let mut message = zeroed::<N>();
            for number in 0..count {
                message[..8].copy_from_slice(&number.to_le_bytes());
                sender.send(message.to_vec()).unwrap();
            }
        });
        scope.spawn(move || {
            pin_to(1);
            let mut got = zeroed::<N>();
            for number in 0..count {
                got.copy_from_slice(&receiver.recv().unwrap());
                check(&got, number);
            }
        });
    });
    nanos(start.elapsed()) / count as f64
}

/// Large messages: by copy, and in place.
fn large<const N: usize>(title: &'static str, count: u64) {
    let count = scaled(count).max(8);
    let room = (4 * N as u64).max(1 << 20);
    let queue = || Queue::<Vec<u8>, Bytes>::with_max_bytes(room).unwrap();
    Table::new(title)
        .subject("limit: a ring by hand", || {
            let ring = Ring::<N>::new(room / N as u64);
            let put = || {
                let (mut ring, mut message) = (ring.clone(), zeroed());
                for number in 0..count {
                    message[..8].copy_from_slice(&number.to_le_bytes());
                    ring.put(&message);
                }
            };
            let get = || {
                let (mut ring, mut got) = (ring.clone(), zeroed());
                for number in 0..count {
                    ring.get(&mut got);
                    check(&got, number);
                }
            };
            pair(count, put, get)
        })
        .subject("polyproc Queue, put_bytes and get_into", || {
            let queue = queue();
            let put = || {
                let mut message = vec![0; N];
                for number in 0..count {
                    message[..8].copy_from_slice(&number.to_le_bytes());
                    queue.put_bytes(&message).unwrap();
                }
            };
            let get = || {
                let mut got = Vec::with_capacity(N);
                for number in 0..count {
                    assert_eq!(queue.get_into(&mut got).unwrap(), N);
                    assert_eq!(got[..8], number.to_le_bytes());
                }
            };
            pair(count, put, get)
        })
        .subject("polyproc Queue, reserve and get_ref", || {
            // The room for the first few is made when they come, which takes as long as it is large: once, 25 ms for 64 MiB
            // on the machine where this was written. So there are many more messages than copies.
            let count = scaled(200_000).max(8);
            let queue = queue();
            let put = || {
                for number in 0..count {
                    let mut place = queue.reserve(N).unwrap();
                    place[..8].copy_from_slice(&number.to_le_bytes());
                    place.commit();
                }
            };
            let get = || {
                for number in 0..count {
                    assert_eq!(queue.get_ref().unwrap()[..8], number.to_le_bytes());
                }
            };
            pair(count, put, get)
        })
        .subject("crossbeam bounded, threads", || crossbeam_large::<N>(count))
        .subject("one copy, no queue", || {
            let (mut message, mut got) = (vec![0u8; N], vec![0u8; N]);
            let mut number = 0u64;
            let time = time_each(count, || {
                message[..8].copy_from_slice(&number.to_le_bytes());
                black_box(&mut got).copy_from_slice(black_box(&message));
                number += 1;
            });
            assert_eq!(got[..8], (count - 1).to_le_bytes());
            time
        })
        .run();
}

/// Many producers and many consumers, not pinned: nanoseconds a message.
fn many(pairs: usize, count: u64) -> f64 {
    let queue = Array::<64>::bounded(1024).unwrap();
    let each = count / pairs as u64;
    let run = Processes::fork(2 * pairs, |index| {
        if index < pairs {
            (0..each).for_each(|number| queue.put(message(number)).unwrap());
            each
        } else {
            (0..each).map(|_| u64::from_le_bytes(queue.get().unwrap()[..8].try_into().unwrap())).sum()
        }
    });
    let run = run.run();
    let sum: u64 = run.figures[pairs..].iter().sum();
    assert_eq!(sum, pairs as u64 * (0..each).sum::<u64>(), "what was put was got");
    nanos(run.total) / (each * pairs as u64) as f64
}

fn crossbeam_many(pairs: usize, count: u64) -> f64 {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(1024);
    let each = count / pairs as u64;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..pairs {
            let (sender, receiver) = (sender.clone(), receiver.clone());
            scope.spawn(move || {
                (0..each).for_each(|number| sender.send(message::<64>(number).to_vec()).unwrap())
            });
            scope.spawn(move || (0..each).for_each(|_| drop(receiver.recv().unwrap())));
        }
    });
    nanos(start.elapsed()) / (each * pairs as u64) as f64
}

/// One message there and one back, and both sides asleep in between.
fn asleep(one_cpu: bool) {
    let count = scaled(20_000);
    let rounds = |work: &dyn Fn(usize)| {
        let run = Processes::fork(2, |index| {
            pin_to(if one_cpu { 0 } else { index });
            work(index);
            0
        });
        nanos(run.run().total) / count as f64
    };
    let title = if one_cpu { "there and back, asleep, one CPU" } else { "there and back, two CPUs" };
    Table::new(title)
        .subject("pipe(2)", || {
            let (there, back) = (NumberPipe::new(), NumberPipe::new());
            rounds(&|index| {
                for number in 0..count {
                    if index == 0 {
                        there.put(number);
                        assert_eq!(back.get(), number);
                    } else {
                        back.put(there.get());
                    }
                }
            })
        })
        .subject("polyproc Queue", || {
            let (there, back) = (Queue::<u64, Raw>::new().unwrap(), Queue::<u64, Raw>::new().unwrap());
            rounds(&|index| {
                for number in 0..count {
                    if index == 0 {
                        there.put(number).unwrap();
                        assert_eq!(back.get().unwrap(), number);
                    } else {
                        back.put(there.get().unwrap()).unwrap();
                    }
                }
            })
        })
        .run();
}

fn main() {
    let only = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if is_wanted("8") {
        sizes::<8>("messages of 8 bytes, one producer, one consumer, two CPUs", 5_000_000);
    }
    if is_wanted("64") {
        sizes::<64>("messages of 64 bytes, one producer, one consumer, two CPUs", 3_000_000);
    }
    if is_wanted("1024") {
        sizes::<1024>("messages of 1 KiB, one producer, one consumer, two CPUs", 500_000);
    }
    if is_wanted("large") {
        large::<{ 64 << 10 }>("messages of 64 KiB, one producer, one consumer, two CPUs", 20_000);
        large::<{ 1 << 20 }>("messages of 1 MiB, one producer, one consumer, two CPUs", 5_000);
        large::<{ 16 << 20 }>("messages of 16 MiB, one producer, one consumer, two CPUs", 256);
    }
    if is_wanted("many") {
        let count = scaled(500_000).max(16);
        Table::new("messages of 64 bytes, producers and consumers, any CPU")
            .subject("polyproc Queue, 1 and 1", || many(1, count))
            .subject("polyproc Queue, 2 and 2", || many(2, count))
            .subject("polyproc Queue, 4 and 4", || many(4, count))
            .subject("polyproc Queue, 16 and 16", || many(16, count))
            .run();
        for pairs in [2, 4, 16] {
            let title = format!("messages of 64 bytes, {pairs} producers, {pairs} consumers, any CPU");
            Table::new(title.leak())
                .subject("crossbeam bounded, threads", || crossbeam_many(pairs, count))
                .subject("polyproc Queue", || many(pairs, count))
                .run();
        }
    }
    if is_wanted("asleep") {
        asleep(true);
        asleep(false);
    }
}
