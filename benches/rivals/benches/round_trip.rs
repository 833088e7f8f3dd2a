//! Eight bytes, or a token, there and back: awake on two CPUs, asleep on one, and asleep on two; all together, and each by itself.

use polyproc::Event;
#[cfg(feature = "iceoryx2")]
use polyproc_rivals::adapters::iceoryx2;
#[cfg(feature = "ipmpsc")]
use polyproc_rivals::adapters::ipmpsc;
#[cfg(feature = "raw_sync")]
use polyproc_rivals::adapters::raw_sync;
#[cfg(feature = "shaq")]
use polyproc_rivals::adapters::shaq;
#[cfg(feature = "shmem-ipc")]
use polyproc_rivals::adapters::shmem_ipc;
use polyproc_rivals::adapters::{boost, ours, pipe, posix, python};
use polyproc_rivals::channel::{Get, Put, round_trip, round_trip_threads};
use polyproc_rivals::token;
use polyproc_rivals::{Rivals, finish, rival};
use std::rc::Rc;
use std::time::Duration;

/// Where the two are, and how many trips they make.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    cpus: [usize; 2],
    pause: Duration,
    is_awake: bool,
    count: u64,
    /// For those who sleep although they need not.
    fewer: u64,
}

fn main() {
    let place = |name, cpus, pause, is_awake, count: u64, fewer: u64| Place {
        name,
        cpus,
        pause: Duration::from_micros(pause),
        is_awake,
        count: polyproc_benches::scaled(count).max(10),
        fewer: polyproc_benches::scaled(fewer).max(10),
    };
    let places = [
        place("awake, two CPUs", [0, 1], 0, true, 200_000, 5_000),
        place("asleep, one CPU", [0, 0], 0, false, 30_000, 30_000),
        place("asleep, two CPUs (200 us between)", [0, 1], 200, false, 1_000, 1_000),
    ];
    for place in places {
        messages(place);
    }
    for place in places {
        tokens(place);
    }
    finish();
}

/// A way there and a way back, whose ends are made before the fork.
fn ends<P: Put<8>, G: Get<8>>(count: u64, place: Place, mut make: impl FnMut() -> (P, G)) -> f64 {
    let ((there, at), (back, home)) = (make(), make());
    round_trip(count, place.cpus, place.pause, || (there, home), || (back, at))
}

/// The same for threads.
fn threads<P: Put<8> + Send, G: Get<8> + Send>(place: Place, mut make: impl FnMut() -> (P, G)) -> f64 {
    let ((there, at), (back, home)) = (make(), make());
    round_trip_threads(place.count, place.cpus, place.pause, [(there, home), (back, at)])
}

/// The ends of one side of two services. The other side makes its ends in the other order: each waits for its other end.
#[cfg(feature = "iceoryx2")]
fn message_ends(
    there: &iceoryx2::Messages<8>,
    back: &iceoryx2::Messages<8>,
    is_first: bool,
) -> (iceoryx2::Publish<8, false>, iceoryx2::Subscribe<8, false>) {
    if is_first {
        return (there.publisher(), back.subscriber());
    }
    let subscriber = there.subscriber();
    (back.publisher(), subscriber)
}

fn messages(place: Place) {
    let Place { count, fewer, .. } = place;
    let mut table = Rivals::new(format!("8 bytes there and back, {}", place.name))
        .ours("polyproc Connection", move || {
            let (here, there) = ours::PlainEnd::<8>::pair();
            let (here, there) = (Rc::new(here), Rc::new(there));
            round_trip(count, place.cpus, place.pause, || (here.clone(), here), || (there.clone(), there))
        })
        .ours("polyproc Queue", move || {
            ends(count, place, || {
                let queue = ours::Plain::<8>::new();
                (queue.clone(), queue)
            })
        });
    if place.is_awake {
        table = table.rival("limit: two spinning cache lines", move || {
            ends(count, place, || {
                let ring = ours::ring::<8>();
                (ring.clone(), ring)
            })
        });
        table = rival!(table, "shaq", "shaq, spinning", move || ends(count, place, shaq::one_to_one::<8>));
        table = rival!(table, "iceoryx2", "iceoryx2 publish-subscribe, polling", move || {
            let (there, back) = (iceoryx2::Messages::<8>::new(), iceoryx2::Messages::<8>::new());
            let ends = |is_first| message_ends(&there, &back, is_first);
            round_trip(count, place.cpus, place.pause, || ends(true), || ends(false))
        });
    }
    table = table
        .rival("crossbeam bounded, threads", move || {
            threads(place, || crossbeam_channel::bounded::<[u8; 8]>(64))
        })
        .rival("std mpsc, threads", move || threads(place, || std::sync::mpsc::sync_channel::<[u8; 8]>(64)));
    table = rival!(table, "kanal", "kanal bounded, threads", move || threads(place, || kanal::bounded::<
        [u8; 8],
    >(64)));
    table = table.rival("pipe(2)", move || ends(fewer, place, pipe::ends));
    table = rival!(table, "interprocess", "interprocess local socket", move || {
        let (here, there) = polyproc_rivals::adapters::interprocess::Socket::pair();
        let (back, home) = polyproc_rivals::adapters::interprocess::Socket::pair();
        round_trip(fewer, place.cpus, place.pause, || (here, home), || (back, there))
    });
    table = rival!(table, "interprocess", "interprocess unnamed pipe", move || {
        ends(fewer, place, polyproc_rivals::adapters::interprocess::pipe)
    });
    table = rival!(table, "ipc-channel", "ipc-channel bytes", move || {
        ends(fewer, place, || ::ipc_channel::ipc::bytes_channel().expect("a channel"))
    });
    table = rival!(table, "ipmpsc", "ipmpsc", move || {
        let (there, back) = (ipmpsc::Ring::new::<8>(), ipmpsc::Ring::new::<8>());
        round_trip(
            fewer,
            place.cpus,
            place.pause,
            || (there.sender(), back.receiver()),
            || (back.sender(), there.receiver()),
        )
    });
    table = rival!(table, "shmem-ipc", "shmem-ipc", move || ends(fewer, place, shmem_ipc::ends::<8>));
    let numbers = [fewer, place.cpus[1] as u64, place.pause.as_micros() as u64];
    if boost::is_there() {
        table = table.rival("Boost message_queue", move || boost::run("round_trip", &numbers));
    }
    if python::is_there() {
        let numbers = [(fewer / 5).max(10), numbers[1], numbers[2]];
        for (name, subject) in
            [("Python Pipe, bytes", "pipe_trip"), ("Python SimpleQueue", "simple_queue_trip")]
        {
            table = table.rival(name, move || python::run("channel.py", subject, &numbers));
        }
    }
    table.run_and_each();
}

fn tokens(place: Place) {
    let Place { cpus, pause, count, fewer, .. } = place;
    let mut table = Rivals::new(format!("a token by two events to and fro, {}", place.name))
        .ours("polyproc Event", move || {
            let events = [(); 2].map(|()| Event::new().expect("memory"));
            let set = |index: usize| {
                let events = &events;
                move || events[index].set()
            };
            let take = |index: usize| {
                let events = &events;
                move || {
                    events[index].wait();
                    events[index].clear();
                }
            };
            token::round_trip(count, cpus, pause, || (set(1), take(0)), || (set(0), take(1)))
        })
        .rival("POSIX semaphores", move || {
            let semaphores = [(); 2].map(|()| posix::Semaphore::new(0));
            let set = |index: usize| {
                let semaphores = &semaphores;
                move || semaphores[index].release()
            };
            let take = |index: usize| {
                let semaphores = &semaphores;
                move || semaphores[index].acquire()
            };
            token::round_trip(fewer, cpus, pause, || (set(1), take(0)), || (set(0), take(1)))
        });
    table = rival!(table, "raw_sync", "raw_sync Event", move || {
        let events = raw_sync::Events::sleeping();
        let ends = |mine, other| (events.set(other), events.take(mine));
        token::round_trip(fewer, cpus, pause, || ends(0, 1), || ends(1, 0))
    });
    if place.is_awake {
        table = rival!(table, "raw_sync", "raw_sync BusyEvent, spinning", move || {
            let events = raw_sync::Events::busy();
            let ends = |mine, other| (events.set(other), events.take(mine));
            token::round_trip(count, cpus, pause, || ends(0, 1), || ends(1, 0))
        });
    }
    if place.is_awake {
        table = rival!(table, "iceoryx2", "iceoryx2 publish-subscribe, polling", move || {
            let (there, back) = (iceoryx2::Messages::<8>::new(), iceoryx2::Messages::<8>::new());
            let ends = |is_first: bool| {
                let (mut publisher, mut subscriber) = message_ends(&there, &back, is_first);
                let set = move || publisher.put(&[0; 8]);
                (set, move || subscriber.get(&mut [0; 8], |_| ()))
            };
            token::round_trip(count, cpus, pause, || ends(true), || ends(false))
        });
    }
    table = rival!(table, "iceoryx2", "iceoryx2 event", move || {
        let events = iceoryx2::Events::new();
        token::round_trip(fewer, cpus, pause, || events.ends(1, 0), || events.ends(0, 1))
    });
    if python::is_there() {
        let numbers = [(fewer / 5).max(10), cpus[1] as u64, pause.as_micros() as u64];
        table = table.rival("Python Event", move || python::run("channel.py", "event_trip", &numbers));
    }
    table.run_and_each();
}
