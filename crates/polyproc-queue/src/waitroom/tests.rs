//! Who is told, and who is forgotten.

use super::*;
use crate::biased::{Biased, SLOTS, Side, Slot};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::futex::{WAITERS, Wait};

/// As somebody who has looked for news and does not sleep yet: all that tells it to look again.
fn seen(room: &Waitroom) -> Vec<u32> {
    let heralds = room.heralds.iter().map(|herald| &herald.word);
    [&room.door.word, &room.bell].into_iter().chain(heralds).map(|word| word.load(Ordering::SeqCst)).collect()
}

/// In particular what a dead one has published, though nobody that comes after it says so.
#[test]
fn whoever_does_not_sleep_yet_looks_again_after_a_death() {
    for is_alone in [false, true] {
        let room = Waitroom::new();
        let sleeper = room.enter();
        for round in 0..4 {
            if is_alone {
                // It sleeps on the door, and so that is what is raised.
                sleeper.lie_down(0, &mut Vec::new());
            }
            let before = seen(&room);
            std::thread::scope(|scope| {
                let dies = scope.spawn(|| core::mem::forget(room.raise()));
                dies.join().unwrap();
            });
            let dead = seen(&room);
            assert!(dead.contains(&(OWNER_DIED | WAITERS)), "round {round}: {dead:x?}");
            drop(room.raise());
            let after = seen(&room);
            assert!(!after.contains(&(OWNER_DIED | WAITERS)), "round {round}: {after:x?}");
            assert_ne!(after, before, "round {round}, alone: {is_alone}");
        }
    }
}

/// Or whoever publishes would look for sleepers for ever.
#[test]
fn several_that_have_gone_are_forgotten_with_the_first_wake_that_finds_nobody() {
    let (lock, slots) = (Biased::default(), core::array::from_fn::<_, SLOTS, _>(|_| Slot::default()));
    let side = Side { lock: &lock, slots: &slots };
    let room = Waitroom::new();
    for round in 0..3 {
        assert!(!room.is_occupied(), "round {round}");
        let (first, second) = (room.enter(), room.enter());
        for sleeper in [&first, &second] {
            assert_eq!(sleeper.sleep(side, core::iter::empty(), Deadline::PAST, || false), Wait::TimedOut);
            assert!(room.is_occupied());
        }
        if round == 1 {
            drop((first, second));
        }
        let mut herald = room.raise();
        herald.announce();
        herald.wake(1);
    }
    assert!(!room.is_occupied());
}
