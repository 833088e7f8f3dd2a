//! The grant: who gets it, how it ends, and what it keeps out.

use super::*;

/// A lock of its own.
#[derive(Default)]
struct Lock {
    lock: Biased,
    slots: [Slot; SLOTS],
}

impl Lock {
    fn side(&self) -> Side<'_> {
        Side { lock: &self.lock, slots: &self.slots }
    }

    fn lock(&self, deadline: Deadline) -> Result<(), Refusal> {
        // SAFETY: the lock outlives the threads of a test.
        unsafe { self.side().lock_until(deadline) }?;
        // SAFETY: locked above.
        unsafe { self.side().unlock() };
        Ok(())
    }

    /// Until it is granted, or it is clear that it is not.
    fn own(&self) -> bool {
        (0..2 * MOST).any(|_| {
            self.lock(Deadline::NEVER).unwrap();
            self.enter()
        })
    }

    fn enter(&self) -> bool {
        self.side().enter().map(|inside| self.side().leave(inside)).is_some()
    }
}

#[test]
fn who_always_comes_is_granted_it_until_another_comes() {
    let lock = Lock::default();
    for _ in 0..FIRST {
        lock.lock(Deadline::NEVER).unwrap();
        assert!(!lock.enter());
    }
    assert!(lock.own() && lock.enter());
    // The owner may take the mutex, too, and keeps what it has.
    lock.lock(Deadline::NEVER).unwrap();
    assert!(lock.enter());
    std::thread::scope(|scope| _ = scope.spawn(|| lock.lock(Deadline::PAST).unwrap()));
    assert!(!lock.enter());
    assert!(lock.own());
}

#[test]
fn a_visit_takes_it_away_for_once() {
    let lock = Lock::default();
    let visit = || {
        // SAFETY: the lock outlives the threads of a test.
        unsafe { lock.side().visit() }?;
        // SAFETY: locked above.
        unsafe { lock.side().unlock() };
        Ok(())
    };
    let visited_by_another = || std::thread::scope(|scope| scope.spawn(visit).join().unwrap());
    assert!(lock.own());
    for _ in 0..20 {
        assert_eq!(visited_by_another(), Ok(()));
        assert!(!lock.enter());
        lock.lock(Deadline::NEVER).unwrap();
        assert!(lock.enter(), "granted again at once");
    }
    // By the owner itself it takes nothing away.
    visit().unwrap();
    assert!(lock.enter());
    // And while somebody is inside, it does not wait.
    let inside = lock.side().enter().unwrap();
    assert_eq!((visit(), visited_by_another()), (Err(Refusal::TimedOut), Err(Refusal::TimedOut)));
    lock.side().leave(inside);
    assert!(lock.enter(), "nor does it take anything away");
    // One whose grant is a while off yet is none the farther from it.
    lock.side().note_disturbance();
    lock.lock.bias.store(NOBODY, Ordering::Relaxed);
    let left = lock.lock.left.load(Ordering::Relaxed);
    assert!(left > 10);
    assert_eq!(visited_by_another(), Ok(()));
    assert_eq!(lock.lock.left.load(Ordering::Relaxed), left);
    assert!(lock.own());
}

#[test]
fn while_the_owner_is_inside_another_waits() {
    let lock = Lock::default();
    assert!(lock.own());
    let inside = lock.side().enter().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(lock.lock(Deadline::PAST), Err(Refusal::TimedOut));
            let start = std::time::Instant::now();
            assert_eq!(lock.lock(Deadline::after(Duration::from_millis(30))), Err(Refusal::TimedOut));
            assert!(start.elapsed() >= Duration::from_millis(30));
        });
        other.join().unwrap();
        let waiter = scope.spawn(|| lock.lock(Deadline::NEVER).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiter.is_finished());
        lock.side().leave(inside);
        waiter.join().unwrap();
    });
    assert!(!lock.enter());
    assert_eq!(futex::backstop_rescues(), 0);
}

#[test]
fn the_owner_does_not_wait_for_itself() {
    let lock = Lock::default();
    assert!(lock.own());
    let inside = lock.side().enter().unwrap();
    assert!(lock.side().enter().is_none());
    assert_eq!(lock.lock(Deadline::NEVER), Err(Refusal::OwnedByCaller));
    assert_eq!(lock.lock(Deadline::after(Duration::from_millis(1))), Err(Refusal::TimedOut));
    lock.side().leave(inside);
    assert!(lock.enter());
}

#[test]
fn threads_that_have_ended_leave_their_slots_to_others() {
    let lock = Lock::default();
    for nth in 0..3 * SLOTS {
        let granted = std::thread::scope(|scope| scope.spawn(|| lock.own()).join().unwrap());
        assert!(granted, "thread {nth}");
    }
}

#[test]
fn more_threads_than_slots_take_turns() {
    let lock = Lock::default();
    let (turn, done) = (std::sync::Mutex::new(()), std::sync::Barrier::new(SLOTS + 2));
    let granted: Vec<_> = std::thread::scope(|scope| {
        let own = || {
            let granted = {
                let _turn = turn.lock().unwrap();
                lock.own()
            };
            // Nobody ends before all have had their turn.
            done.wait();
            granted
        };
        let threads: Vec<_> = (0..SLOTS + 2).map(|_| scope.spawn(own)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(granted.iter().filter(|granted| **granted).count(), SLOTS);
}
