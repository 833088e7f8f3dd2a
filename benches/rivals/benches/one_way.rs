//! Messages one way, from one process to another on two CPUs, by copy and in place; and from many to many.

#[cfg(feature = "iceoryx2")]
use polyproc_rivals::adapters::iceoryx2::Messages;
#[cfg(feature = "ipmpsc")]
use polyproc_rivals::adapters::ipmpsc;
#[cfg(feature = "shaq")]
use polyproc_rivals::adapters::shaq;
#[cfg(feature = "shmem-ipc")]
use polyproc_rivals::adapters::shmem_ipc;
use polyproc_rivals::adapters::{boost, ours, pipe, python};
use polyproc_rivals::channel::{Get, Put, many, many_threads, one_way, one_way_threads, slots};
use polyproc_rivals::{Rivals, finish, rival};
use std::rc::Rc;

/// How many messages, of a size, take some tenths of a second.
#[derive(Clone, Copy)]
struct Counts {
    fast: u64,
    slow: u64,
    python: u64,
}

impl Counts {
    fn of(fast: u64, slow: u64, python: u64) -> Counts {
        let scaled = |count: u64| polyproc_benches::scaled(count).max(16);
        Counts { fast: scaled(fast), slow: scaled(slow), python: scaled(python) }
    }
}

/// One to one between processes, of two ends that are made before the fork.
fn ends<const N: usize, P: Put<N>, G: Get<N>>(count: u64, (put, get): (P, G)) -> f64 {
    one_way(count, || put, || get)
}

/// One to one between threads.
fn threads<const N: usize, P: Put<N> + Send, G: Get<N> + Send>(count: u64, (put, get): (P, G)) -> f64 {
    one_way_threads(count, put, get)
}

fn main() {
    small::<8>("8 bytes", Counts::of(2_000_000, 100_000, 20_000));
    small::<64>("64 bytes", Counts::of(2_000_000, 100_000, 20_000));
    large::<1024>("1 KiB", Counts::of(500_000, 100_000, 20_000));
    large::<{ 64 << 10 }>("64 KiB", Counts::of(20_000, 5_000, 3_000));
    large::<{ 1 << 20 }>("1 MiB", Counts::of(5_000, 200, 200));
    large::<{ 16 << 20 }>("16 MiB", Counts::of(40, 16, 16));
    in_place::<{ 64 << 10 }>("64 KiB", 100_000);
    in_place::<{ 1 << 20 }>("1 MiB", 20_000);
    for pairs in [2, 4, 16] {
        many_to_many(pairs, Counts::of(400_000, 100_000, 10_000));
    }
    finish();
}

fn title(size: &str) -> String {
    format!("messages of {size}, one producer, one consumer, two CPUs")
}

/// Those that are passed by value.
fn small<const N: usize>(size: &str, counts: Counts) {
    let fast = counts.fast;
    let mut table = Rivals::new(title(size))
        .series("messages, one producer, one consumer, two CPUs", "bytes", N as u64)
        .ours("polyproc Queue", move || {
            let queue = ours::Plain::<N>::new();
            ends(fast, (queue.clone(), queue))
        })
        .ours("polyproc Connection", move || {
            let (here, there) = ours::PlainEnd::<N>::pair();
            ends(fast, (Rc::new(here), Rc::new(there)))
        })
        .rival("crossbeam bounded, threads", move || {
            threads(fast, crossbeam_channel::bounded::<[u8; N]>(slots::<N>()))
        })
        .rival("std mpsc, threads", move || {
            threads(fast, std::sync::mpsc::sync_channel::<[u8; N]>(slots::<N>()))
        });
    table = rival!(table, "kanal", "kanal bounded, threads", move || {
        threads(fast, kanal::bounded::<[u8; N]>(slots::<N>()))
    });
    others::<N>(table, counts).run();
}

/// Those that the caller keeps, or that are on the heap.
fn large<const N: usize>(size: &str, counts: Counts) {
    let fast = counts.fast;
    let mut table = Rivals::new(title(size))
        .series("messages, one producer, one consumer, two CPUs", "bytes", N as u64)
        .ours("polyproc Queue", move || {
            let queue = ours::Kept::<N>::new();
            ends(fast, (queue.clone(), queue.clone()))
        })
        .ours("polyproc Connection", move || ends(fast, ours::KeptEnd::<N>::pair()))
        .rival("crossbeam bounded, threads", move || {
            threads::<N, _, _>(fast, crossbeam_channel::bounded::<Vec<u8>>(slots::<N>()))
        })
        .rival("std mpsc, threads", move || {
            threads::<N, _, _>(fast, std::sync::mpsc::sync_channel::<Vec<u8>>(slots::<N>()))
        });
    table = rival!(table, "kanal", "kanal bounded, threads", move || {
        threads::<N, _, _>(fast, kanal::bounded::<Vec<u8>>(slots::<N>()))
    });
    others::<N>(table, counts).run();
}

/// Who is the same for all sizes.
fn others<const N: usize>(mut table: Rivals<'_>, counts: Counts) -> Rivals<'_> {
    let Counts { fast, slow, python } = counts;
    table = table.rival("limit: a ring by hand", move || {
        let ring = ours::ring::<N>();
        ends(fast, (ring.clone(), ring))
    });
    table = rival!(table, "shaq", "shaq, spinning", move || ends(fast, shaq::one_to_one::<N>()));
    table = rival!(table, "shmem-ipc", "shmem-ipc", move || ends::<N, _, _>(fast, shmem_ipc::ends::<N>()));
    table = rival!(table, "ipmpsc", "ipmpsc", move || {
        let ring = ipmpsc::Ring::new::<N>();
        one_way::<N, _, _>(slow, || ring.sender(), || ring.receiver())
    });
    table = rival!(table, "iceoryx2", "iceoryx2 publish-subscribe, polling", move || {
        let service = Messages::<N>::new();
        one_way(slow, || service.publisher::<false>(), || service.subscriber::<false>())
    });
    table = table.rival("pipe(2)", move || ends::<N, _, _>(slow, pipe::ends()));
    table = rival!(table, "interprocess", "interprocess local socket", move || {
        ends::<N, _, _>(slow, polyproc_rivals::adapters::interprocess::Socket::pair())
    });
    table = rival!(table, "interprocess", "interprocess unnamed pipe", move || {
        ends::<N, _, _>(slow, polyproc_rivals::adapters::interprocess::pipe())
    });
    table = rival!(table, "ipc-channel", "ipc-channel bytes", move || {
        ends::<N, _, _>(slow, ::ipc_channel::ipc::bytes_channel().expect("a channel"))
    });
    table = rival!(table, "ipc-channel", "ipc-channel Vec<u8>", move || {
        // Eight times as slow as bytes, from some size on.
        let typed = if N > 1 << 16 { (slow / 4).max(16) } else { slow };
        ends::<N, _, _>(typed, ::ipc_channel::ipc::channel::<Vec<u8>>().expect("a channel"))
    });
    if boost::is_there() {
        let numbers = [N as u64, slow, slots::<N>() as u64];
        table = table.rival("Boost message_queue", move || boost::run("one_way", &numbers));
    }
    if python::is_there() {
        for (name, subject) in [
            ("Python Queue", "queue"),
            ("Python SimpleQueue", "simple_queue"),
            ("Python Pipe, bytes", "pipe"),
        ] {
            table = table.rival(name, move || python::run("channel.py", subject, &[N as u64, python, 1]));
        }
        if python::has_faster_fifo() {
            table = table.rival("faster-fifo", move || {
                python::run("channel.py", "faster_fifo", &[N as u64, python, 1])
            });
        }
    }
    table
}

/// Only the two ends of a message are written and read: nobody copies it.
fn in_place<const N: usize>(size: &str, count: u64) {
    let count = polyproc_benches::scaled(count).max(16);
    let mut table = Rivals::new(format!("messages of {size} in place, one producer, one consumer, two CPUs"))
        .ours("polyproc Queue, reserve and get_ref", move || {
            let queue = ours::InPlace::<N>::new();
            ends(count, (queue.clone(), queue))
        });
    table = rival!(table, "iceoryx2", "iceoryx2 publish-subscribe, polling", move || {
        let service = Messages::<N>::new();
        one_way(count, || service.publisher::<true>(), || service.subscriber::<true>())
    });
    table.run();
}

fn many_to_many(pairs: usize, counts: Counts) {
    const SLOTS: usize = 1024;
    let Counts { fast, slow, python } = counts;
    let mut table =
        Rivals::new(format!("messages of 64 bytes, {pairs} producers, {pairs} consumers, any CPU"))
            .series("messages of 64 bytes from many to many, any CPU", "pairs", pairs as u64)
            .ours("polyproc Queue", move || {
                let queue = ours::Plain::<64>::bounded(SLOTS as u64);
                many(pairs, fast, || queue.clone(), || queue.clone())
            })
            .rival("crossbeam bounded, threads", move || {
                let (put, get) = crossbeam_channel::bounded::<[u8; 64]>(SLOTS);
                many_threads(pairs, fast, || put.clone(), || get.clone())
            });
    table = rival!(table, "kanal", "kanal bounded, threads", move || {
        let (put, get) = kanal::bounded::<[u8; 64]>(SLOTS);
        many_threads(pairs, fast, || put.clone(), || get.clone())
    });
    table = rival!(table, "shaq", "shaq, yielding", move || {
        // A side that is put aside between its two steps holds up all others of its side, for a time slice.
        let slow = if pairs > 2 { (slow / 50).max(16) } else { slow };
        let (put, get) = shaq::many_to_many::<64>(SLOTS);
        many(pairs, slow, || put.clone(), || get.clone())
    });
    if boost::is_there() {
        let numbers = [pairs as u64, slow, SLOTS as u64];
        table = table.rival("Boost message_queue", move || boost::run("many", &numbers));
    }
    if python::is_there() {
        let numbers = [64, python, pairs as u64];
        table = table
            .rival("Python Queue", move || python::run("channel.py", "queue", &numbers))
            .rival("Python SimpleQueue", move || python::run("channel.py", "simple_queue", &numbers));
        if python::has_faster_fifo() {
            table =
                table.rival("faster-fifo", move || python::run("channel.py", "faster_fifo_many", &numbers));
        }
    }
    table.run();
}
