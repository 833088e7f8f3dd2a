//! Connections, beside what they are made of: a spinning cache line, a ring by hand, `pipe(2)`.

use polyproc_benches::{
    Events, NumberPipe, Processes, Ring, Samples, Table, is_test, nanos, pin_to, scaled, spreads,
};
use polyproc_pipe::{Bytes, Connection, Raw, RecvError, pipe_with_capacity};
use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

/// Two processes, pinned to these CPUs: nanoseconds a message.
fn pair(cpus: [usize; 2], count: u64, first: impl Fn(), second: impl Fn()) -> f64 {
    let run = Processes::fork(2, |index| {
        pin_to(cpus[index]);
        if index == 0 {
            first()
        } else {
            second()
        }
        0
    });
    nanos(run.run().total) / count as f64
}

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
    pair([0, 1], count, put, get)
}

fn one_way<const N: usize>(count: u64, capacity: Option<usize>) -> f64 {
    let (here, there) = connection::<[u8; N], Raw>(capacity);
    let send = || (0..count).for_each(|number| here.send(message(number)).unwrap());
    let receive = || (0..count).for_each(|number| check(&there.recv().unwrap(), number));
    pair([0, 1], count, send, receive)
}

/// A connection as it comes, or with rings of this size.
fn connection<T, C>(capacity: Option<usize>) -> (Connection<T, T, C>, Connection<T, T, C>) {
    capacity.map_or_else(Connection::pair, pipe_with_capacity).unwrap()
}

fn small<const N: usize>(title: &'static str, count: u64) {
    let count = scaled(count);
    Table::new(title)
        .subject("limit: a ring by hand", || ring::<N>(count, 1 << 20))
        .subject("the same, of 128 KiB", || ring::<N>(count, 128 << 10))
        .subject("polyproc Connection", || one_way::<N>(count, None))
        .subject("polyproc Connection, 128 KiB", || one_way::<N>(count, Some(128 << 10)))
        .subject("polyproc Connection, 1 MiB", || one_way::<N>(count, Some(1 << 20)))
        .run();
}

fn large() {
    const N: usize = 1 << 20;
    let count = scaled(2_000).max(20);
    let ours = |capacity| {
        let (here, there) = connection::<Vec<u8>, Bytes>(capacity);
        let send = || {
            let mut bytes = vec![1; N];
            for number in 0..count {
                bytes[..8].copy_from_slice(&number.to_le_bytes());
                here.send_bytes(black_box(&bytes)).unwrap();
            }
        };
        let receive = || {
            let mut got = Vec::new();
            for number in 0..count {
                got.clear();
                assert_eq!(there.recv_bytes_into(&mut got, N).unwrap(), N);
                assert_eq!(got[..8], number.to_le_bytes());
            }
        };
        pair([0, 1], count, send, receive)
    };
    Table::new("messages of 1 MiB, one way, two CPUs")
        .subject("limit: a ring by hand", || {
            let ring = Ring::<N>::new(4);
            let put = || {
                let mut ring = ring.clone();
                let mut bytes = Box::new([1; N]);
                for number in 0..count {
                    bytes[..8].copy_from_slice(&number.to_le_bytes());
                    ring.put(&bytes);
                }
            };
            let get = || {
                let mut ring = ring.clone();
                let mut got = Box::new([0; N]);
                for number in 0..count {
                    ring.get(&mut got);
                    check(&got, number);
                }
            };
            pair([0, 1], count, put, get)
        })
        .subject("polyproc Connection", || ours(None))
        .subject("polyproc Connection, 128 KiB", || ours(Some(128 << 10)))
        .subject("polyproc Connection, 1 MiB", || ours(Some(1 << 20)))
        .run();
}

fn there_and_back(title: &'static str, cpus: [usize; 2], count: u64, is_hot: bool) {
    let count = scaled(count).max(10);
    // To be asleep when the answer comes, the other one waits a little before it sends it.
    let pause = || {
        if !is_hot && cpus[0] != cpus[1] {
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    let table = if is_hot {
        Table::new(title).subject("limit: two spinning cache lines", || {
            let (there, back) = (Ring::<8>::new(64), Ring::<8>::new(64));
            let first = || {
                let (mut there, mut back) = (there.clone(), back.clone());
                let mut got = [0; 8];
                for number in 0..count {
                    there.put(&message(number));
                    back.get(&mut got);
                    check(&got, number);
                }
            };
            let second = || {
                let (mut there, mut back) = (there.clone(), back.clone());
                let mut got = [0; 8];
                for _ in 0..count {
                    there.get(&mut got);
                    back.put(&got);
                }
            };
            pair(cpus, count, first, second)
        })
    } else {
        Table::new(title).subject("pipe(2)", || {
            let (there, back) = (NumberPipe::new(), NumberPipe::new());
            let first = || {
                for number in 0..count {
                    there.put(number);
                    assert_eq!(back.get(), number);
                }
            };
            let second = || {
                for _ in 0..count {
                    let number = there.get();
                    pause();
                    back.put(number);
                }
            };
            pair(cpus, count, first, second)
        })
    };
    table
        .subject("polyproc Connection", || {
            let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
            let first = || {
                for number in 0..count {
                    here.send(number).unwrap();
                    assert_eq!(here.recv().unwrap(), number);
                }
            };
            let second = || {
                for _ in 0..count {
                    let number = there.recv().unwrap();
                    pause();
                    there.send(number).unwrap();
                }
            };
            pair(cpus, count, first, second)
        })
        .run();
}

/// How soon a sleeping receiver hears that the other side was killed.
fn deaths() {
    let count = if is_test() { 10 } else { 1_000 };
    let death = || {
        let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
        // SAFETY: this program has one thread here.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            here.close().unwrap();
            there.send(1).unwrap();
            let _ = there.recv();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        drop(there);
        assert_eq!(here.recv().unwrap(), 1);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1));
            let begin = Instant::now();
            // SAFETY: a child that is not reaped yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            begin
        });
        assert!(matches!(here.recv(), Err(RecvError::Disconnected)));
        let end = Instant::now();
        let begin = killer.join().unwrap();
        // SAFETY: the same child.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        nanos(end - begin)
    };
    let took = Events::of(|| (0..count).map(|_| death()).collect());
    let title = "from a peer's kill to Disconnected, asleep";
    spreads(title, "nothing", &[("polyproc Connection", took)]);
}

/// One end of a way there and back: sends a number, and waits for one.
trait Ends {
    fn send(&mut self, number: u64);
    fn receive(&mut self) -> u64;
}

impl Ends for Connection<u64, u64, Raw> {
    fn send(&mut self, number: u64) {
        Connection::send(self, number).unwrap();
    }

    fn receive(&mut self) -> u64 {
        self.recv().unwrap()
    }
}

impl Ends for (NumberPipe, NumberPipe) {
    fn send(&mut self, number: u64) {
        self.0.put(number);
    }

    fn receive(&mut self) -> u64 {
        self.1.get()
    }
}

impl Ends for (Ring<8>, Ring<8>) {
    fn send(&mut self, number: u64) {
        self.0.put(&message(number));
    }

    fn receive(&mut self) -> u64 {
        let mut got = [0; 8];
        self.1.get(&mut got);
        u64::from_le_bytes(got)
    }
}

/// Every round trip by itself, after a tenth as many. `pause` is how long the other side waits with its answer, which does
/// not count: long enough for the first to have fallen asleep, or nothing.
fn each_trip<E: Ends>(ends: [E; 2], cpus: [usize; 2], count: u64, pause: Duration) -> Vec<f64> {
    let warm = count / 10;
    let samples = Samples::new(count as usize);
    let ends = ends.map(|end| Cell::new(Some(end)));
    Processes::fork(2, |index| {
        pin_to(cpus[index]);
        let mut end = ends[index].take().unwrap();
        for trip in 0..count + warm {
            if index == 0 {
                let start = Instant::now();
                end.send(trip);
                assert_eq!(end.receive(), trip);
                let time = start.elapsed().saturating_sub(pause);
                if trip >= warm {
                    samples.note((trip - warm) as usize, time.as_nanos() as u64);
                }
            } else {
                let number = end.receive();
                let taken = Instant::now();
                while !pause.is_zero() && taken.elapsed() < pause {
                    spin_loop();
                }
                end.send(number);
            }
        }
        0
    })
    .run();
    let times = samples.nanos();
    assert!(times.iter().all(|time| *time > 0.0), "a trip was not timed");
    times
}

/// How single round trips are spread.
fn each() {
    let ours = || {
        let (here, there) = Connection::<u64, u64, Raw>::pair().unwrap();
        [here, there]
    };
    let pipes = || {
        // A number goes into one pipe and comes out of the other.
        let (there, back) = (NumberPipe::new(), NumberPipe::new());
        [(there.twin(), back.twin()), (back, there)]
    };
    let rings = || {
        let (there, back) = (Ring::<8>::new(64), Ring::<8>::new(64));
        [(there.clone(), back.clone()), (back, there)]
    };
    let none = Duration::ZERO;
    let count = scaled(200_000);
    let limit = Events::of(|| each_trip(rings(), [0, 1], count, none));
    let own = Events::of(|| each_trip(ours(), [0, 1], count, none));
    let title = "each 8 bytes there and back, two CPUs, both awake";
    let warm_up = "a tenth as many";
    spreads(title, warm_up, &[("limit: two spinning cache lines", limit), ("polyproc Connection", own)]);
    let count = scaled(50_000);
    let pipe = Events::of(|| each_trip(pipes(), [0, 0], count, none));
    let own = Events::of(|| each_trip(ours(), [0, 0], count, none));
    let title = "each 8 bytes there and back, one CPU, so that each side sleeps";
    spreads(title, warm_up, &[("pipe(2)", pipe), ("polyproc Connection", own)]);
    let (count, pause) = (if is_test() { 20 } else { 2_000 }, Duration::from_micros(200));
    let pipe = Events::of(|| each_trip(pipes(), [0, 1], count, pause));
    let own = Events::of(|| each_trip(ours(), [0, 1], count, pause));
    let title = "each 8 bytes there and back, two CPUs, asleep for 200 us in between";
    spreads(title, warm_up, &[("pipe(2)", pipe), ("polyproc Connection", own)]);
}

fn main() {
    let only = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if wanted("8") {
        small::<8>("messages of 8 bytes, one way, two CPUs", 10_000_000);
    }
    if wanted("64") {
        small::<64>("messages of 64 bytes, one way, two CPUs", 5_000_000);
    }
    if wanted("large") {
        large();
    }
    if wanted("hot") {
        there_and_back("8 bytes there and back, awake, two CPUs", [0, 1], 500_000, true);
    }
    if wanted("asleep") {
        there_and_back("8 bytes there and back, asleep, one CPU", [0, 0], 100_000, false);
        there_and_back("8 bytes there and back, asleep, two CPUs (200 us between)", [0, 1], 2_000, false);
    }
    if wanted("each") {
        each();
    }
    if wanted("deaths") {
        deaths();
    }
}
