//! Connections, beside what they are made of: a spinning cache line, a ring by hand, `pipe(2)`.

use polyproc_benches::{Processes, Ring, Table, is_test, median, nanos, pin_to, scaled};
use polyproc_pipe::{Bytes, Connection, Raw, RecvError, pipe_with_capacity};
use std::hint::black_box;
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

/// A pipe of numbers.
struct Numbers(std::io::PipeReader, std::io::PipeWriter);

impl Numbers {
    fn new() -> Numbers {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Numbers(reader, writer)
    }

    fn put(&self, number: u64) {
        std::io::Write::write_all(&mut &self.1, &number.to_le_bytes()).expect("a write");
    }

    fn get(&self) -> u64 {
        let mut bytes = [0; 8];
        std::io::Read::read_exact(&mut &self.0, &mut bytes).expect("a read");
        u64::from_le_bytes(bytes)
    }
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
            let (there, back) = (Numbers::new(), Numbers::new());
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
    let mut took: Vec<f64> = (0..count)
        .map(|_| {
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
        })
        .collect();
    took.sort_by(f64::total_cmp);
    println!("\nkilled peer to Disconnected, asleep, {count} kills");
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] / 1e3;
    println!("p50 {:.0} us, p99 {:.0} us, max {:.0} us", median(&took) / 1e3, at(0.99), at(1.0));
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
    if wanted("deaths") {
        deaths();
    }
}
