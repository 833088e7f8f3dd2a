//! Models of the lock: every interleaving of a few threads, one of which may vanish at any step.
//!
//! ```sh
//! RUSTFLAGS="--cfg polyproc_loom" cargo test --release -p polyproc-rwlock --test model
//! RUSTFLAGS="--cfg polyproc_shuttle" cargo test --release -p polyproc-rwlock --test model
//! ```
#![cfg(any(polyproc_loom, polyproc_shuttle))]

#[cfg(polyproc_loom)]
use loom as checker;
#[cfg(polyproc_shuttle)]
use shuttle as checker;

use polyproc_mutex::{RawMutex, Refusal};
use polyproc_rwlock::{RawRwLock, ReaderSlot};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::model::{End, Explorer, Number, run};
// Not the checker's: it would take part in the unwinding when a model fails.
use std::sync::{Arc, Mutex};

/// A lock, and a number that a writer would corrupt for the others if somebody was inside beside it.
struct Shared {
    writer: RawMutex,
    slots: Vec<ReaderSlot>,
    number: Number,
}

impl Shared {
    fn new(slots: usize) -> Arc<Shared> {
        let slots = (0..slots).map(|_| ReaderSlot::new()).collect();
        Arc::new(Shared { writer: RawMutex::new(), slots, number: Default::default() })
    }

    fn lock(&self) -> RawRwLock<'_> {
        RawRwLock::new(&self.writer, &self.slots)
    }

    /// Reads twice in a row: a writer beside it would be seen.
    fn read(&self, deadline: Deadline) -> Result<(), Refusal> {
        // SAFETY: every thread of a model keeps the lock alive by an `Arc`.
        let slot = unsafe { self.lock().read_until(deadline) }?;
        assert_eq!(self.number.get() % 2, 0, "a reader saw a writer at work");
        // SAFETY: got just now.
        unsafe { slot.unlock() };
        Ok(())
    }

    /// A read within a read.
    fn read_twice(&self) {
        // SAFETY: as in `read`.
        let outer = unsafe { self.lock().read_until(Deadline::NEVER) }.unwrap();
        self.read(Deadline::NEVER).unwrap();
        assert_eq!(self.number.get() % 2, 0, "a reader saw a writer at work");
        // SAFETY: got above.
        unsafe { outer.unlock() };
    }

    /// Makes the number odd and even again.
    fn write(&self, deadline: Deadline) -> Result<(), Refusal> {
        // SAFETY: as in `read`.
        unsafe { self.lock().write_until(deadline) }?;
        self.writer.enter();
        self.number.increment();
        self.number.increment();
        self.writer.leave();
        // SAFETY: locked above.
        unsafe { self.writer.unlock() };
        Ok(())
    }

    /// As a survivor, whatever a dead writer left.
    fn write_and_repair(&self) {
        // SAFETY: as in `read`.
        unsafe { self.lock().write_until(Deadline::NEVER) }.unwrap();
        // SAFETY: locked above.
        unsafe { self.writer.unlock() };
    }
}

/// One at a time: they share the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MODEL: Explorer = Explorer { random: 2_000, rare: 0 };

/// What a thread of a play does.
type Part = fn(&Shared);

const READ: Part = |shared| shared.read(Deadline::NEVER).unwrap();
const READ_TWICE: Part = |shared| shared.read_twice();
const WRITE: Part = |shared| shared.write(Deadline::NEVER).unwrap();
/// Only waits for the lock to write. If it vanishes, the number is as it was.
const PASS: Part = |shared| shared.write_and_repair();

/// Deadlines that lie ahead, which in a model run out as soon as the thread would sleep.
const READ_SOON: Part = |shared| match shared.read(soon()) {
    Ok(()) | Err(Refusal::TimedOut) => {}
    other => panic!("{other:?}"),
};
const WRITE_SOON: Part = |shared| match shared.write(soon()) {
    Ok(()) | Err(Refusal::TimedOut) => {}
    other => panic!("{other:?}"),
};

fn soon() -> Deadline {
    Deadline::after(std::time::Duration::from_secs(3600))
}

/// The first part is the mortal thread's; the others are played beside it. Then whoever is left must still get the lock.
fn play(slots: usize, parts: &[Part], mortal: Option<u32>) -> End {
    let shared = Shared::new(slots);
    let threads: Vec<_> = (2..)
        .zip(&parts[1..])
        .map(|(tid, part)| {
            let (shared, part) = (shared.clone(), *part);
            checker::thread::spawn(move || run(tid, None, || part(&shared)))
        })
        .collect();
    let end = run(1, mortal, || parts[0](&shared));
    for thread in threads {
        assert_eq!(thread.join().unwrap(), End::Finished);
    }
    run(9, None, || shared.write_and_repair());
    // A dead writer may have left the number odd, and then readers are told.
    if shared.writer.poison_cause().is_none() {
        run(10, None, || READ(&shared));
    }
    run(11, None, || shared.write_and_repair());
    assert_eq!(shared.lock().readers(), 0);
    assert!(shared.writer.is_free());
    end
}

/// Plays without a death, and then with one at each step of the first part.
fn play_all(slots: usize, preemptions: usize, parts: &'static [Part]) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|error| error.into_inner());
    MODEL.explore(preemptions, move || assert_eq!(play(slots, parts, None), End::Finished));
    let steps = MODEL.vanish_at_every_step(preemptions, move |mortal| play(slots, parts, mortal));
    assert!(steps >= 8, "the mortal thread had only {steps} steps");
    println!("vanished at {steps} steps");
}

#[test]
fn a_reader_and_a_writer() {
    play_all(1, 3, &[READ, WRITE]);
}

#[test]
fn a_writer_that_waits_and_a_reader() {
    play_all(1, 3, &[PASS, READ]);
}

#[test]
fn two_readers_and_a_writer() {
    play_all(2, 1, &[READ, READ, WRITE]);
}

/// The readers want the same slot: one overtakes the other between release and wake, or waits for it.
#[test]
fn two_readers_of_one_slot_and_a_writer() {
    play_all(1, 1, &[READ, READ, WRITE]);
}

#[test]
fn a_writer_that_waits_and_two_readers() {
    play_all(2, 1, &[PASS, READ, READ]);
}

#[test]
fn two_writers_and_a_reader() {
    play_all(1, 1, &[PASS, WRITE, READ]);
}

#[test]
fn a_read_within_a_read() {
    play_all(2, 2, &[READ_TWICE, WRITE]);
    play_all(1, 2, &[READ_TWICE, WRITE]);
}

#[test]
fn who_gives_up_strands_nobody() {
    play_all(1, 2, &[READ_SOON, WRITE]);
    play_all(1, 2, &[READ, WRITE_SOON]);
    play_all(1, 2, &[READ, READ_SOON]);
}
