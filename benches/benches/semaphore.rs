//! Acquire and give back: ours beside `sem_wait` and `sem_post`, alone, in a crowd, and with many permits.

use libc::{sem_init, sem_post, sem_t, sem_wait};
use polyproc_benches::{Processes, Table, pin_to, scaled, time_each};
use polyproc_memory::{Kind, Object, Shape};
use polyproc_semaphore::{BoundedSemaphore, Permit, Semaphore};
use std::alloc::Layout;
use std::hint::black_box;
use std::sync::Barrier;

/// A POSIX semaphore in memory that processes share.
struct Posix {
    object: Object,
}

impl Posix {
    fn new(permits: u32) -> Posix {
        let layout = Layout::new::<sem_t>();
        let kind = Kind::new("sem_t");
        let shape = Shape { kind, code: 0, element: layout, count: 1, payload: layout, lock: false };
        let posix = Posix { object: Object::create(None, &shape).expect("memory for the benches") };
        // SAFETY: the payload has room for one, and nobody else knows of it.
        assert_eq!(unsafe { sem_init(posix.at(), 1, permits) }, 0);
        posix
    }

    fn at(&self) -> *mut sem_t {
        self.object.payload().cast().as_ptr()
    }

    #[inline(always)]
    fn acquire(&self) {
        // SAFETY: initialised by `new`; `self` keeps it mapped.
        while unsafe { sem_wait(self.at()) } != 0 {}
    }

    #[inline(always)]
    fn release(&self) {
        // SAFETY: as above.
        assert_eq!(unsafe { sem_post(self.at()) }, 0);
    }

    fn value(&self) -> i32 {
        let mut value = 0;
        // SAFETY: as above; the value is writable.
        assert_eq!(unsafe { libc::sem_getvalue(self.at(), &mut value) }, 0);
        value
    }
}

fn main() {
    pin_to(1);
    alone();
    many();
    crowd();
}

fn alone() {
    let count = scaled(10_000_000);
    let posix = Posix::new(3);
    let (ours, bounded) = (Semaphore::new(3).expect("memory"), BoundedSemaphore::new(3).expect("memory"));
    let released = Semaphore::new(3).expect("memory");
    let (held, beside) = (Semaphore::new(1).expect("memory"), Semaphore::new(3).expect("memory"));
    Table::new("acquire and give back, alone")
        .subject("sem_wait, sem_post", || {
            time_each(count, || {
                black_box(&posix).acquire();
                black_box(&posix).release();
            })
        })
        .subject("polyproc Semaphore", || time_each(count, || drop(black_box(&ours).acquire())))
        .subject("polyproc BoundedSemaphore", || time_each(count, || drop(black_box(&bounded).acquire())))
        .subject("polyproc Semaphore, while another is held", || {
            let _held = held.acquire();
            time_each(count, || drop(black_box(&beside).acquire()))
        })
        .subject("polyproc acquire, forget, release(1)", || {
            time_each(count / 4, || {
                black_box(&released).acquire().forget();
                black_box(&released).release(1).expect("there is room");
            })
        })
        .run();
    assert_eq!(posix.value(), 3);
    for left in [ours.available(), bounded.available(), released.available(), beside.available()] {
        assert_eq!(left, 3);
    }
}

/// What a look at all cells costs, when none has a permit.
fn many() {
    let count = scaled(20_000);
    let mut table = Table::new("try_acquire in vain");
    for (cells, name) in [(60, "60 cells"), (500, "500 cells"), (2000, "2,000 cells")] {
        table = table.subject(name, move || {
            let semaphore = Semaphore::new(cells).expect("memory");
            let (full, over) = (Barrier::new(2), Barrier::new(2));
            let time = std::thread::scope(|scope| {
                // In another thread: what this one holds has a cost of its own.
                scope.spawn(|| {
                    let held: Vec<Permit<'_>> = (0..cells).map(|_| semaphore.acquire()).collect();
                    full.wait();
                    over.wait();
                    drop(held);
                });
                full.wait();
                let time = time_each(count, || assert!(semaphore.try_acquire().is_err()));
                over.wait();
                time
            });
            assert_eq!(semaphore.available(), cells);
            time
        });
    }
    table.run();
}

/// Eight processes, three permits. Work inside and outside, so that there is something to be kept from.
fn crowd() {
    const CROWD: usize = 8;
    let rounds = scaled(30_000);
    let work = |turns: u32| {
        for turn in 0..turns {
            black_box(turn);
        }
    };
    let posix = Posix::new(3);
    let ours = Semaphore::new(3).expect("memory");
    let run = |round: &dyn Fn()| {
        let timed = Processes::fork(CROWD, |index| {
            pin_to(index);
            (0..rounds).for_each(|_| round());
            rounds
        })
        .run();
        assert_eq!(timed.figures, [rounds; CROWD]);
        polyproc_benches::nanos(timed.total) / (rounds * CROWD as u64) as f64
    };
    Table::new("three permits, eight processes")
        .subject("sem_wait, sem_post", || {
            run(&|| {
                posix.acquire();
                work(100);
                posix.release();
                work(100);
            })
        })
        .subject("polyproc Semaphore", || {
            run(&|| {
                let permit = ours.acquire();
                work(100);
                drop(permit);
                work(100);
            })
        })
        .run();
    assert_eq!((posix.value(), ours.available()), (3, 3));
}
