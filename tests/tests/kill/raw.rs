//! The protocol below the handles, as other primitives use it: without a critical section, so that no death poisons.

use polyproc_mutex::RawMutex;
use polyproc_sys::deadline::Deadline;
use polyproc_tests::kill::{Operation, Outcome, When};
use polyproc_tests::shared::Shared;
use polyproc_tests::system::one_at_a_time;

fn lock(mutex: &RawMutex) {
    // SAFETY: the mutex stays where it is: no process unmaps it before the end of the play.
    unsafe { mutex.lock_until(Deadline::NEVER) }.unwrap();
}

fn unlock(mutex: &RawMutex) {
    // SAFETY: each caller has locked it.
    unsafe { mutex.unlock() };
}

fn survey(mutex: &Shared<RawMutex>, outcome: &Outcome<'_>) -> &'static str {
    // SAFETY: as in `lock`.
    assert_eq!(unsafe { mutex.try_lock() }, Ok(()), "{:?}", **mutex);
    assert_eq!(mutex.poison_cause(), None);
    assert_eq!(mutex.owner(), Some(std::process::id()));
    unlock(mutex);
    outcome.heals(|| {
        lock(mutex);
        unlock(mutex);
    });
    "free"
}

#[test]
fn lock_and_unlock() {
    let _turn = one_at_a_time();
    Operation::new("RawMutex: lock, unlock", Shared::<RawMutex>::new)
        .victim(|mutex, stage| {
            lock(mutex);
            unlock(mutex);
            stage.begin();
            lock(mutex);
            unlock(mutex);
            stage.end();
        })
        .check(&["free"], survey)
        .run()
        .assert_clean();
}

#[test]
fn lock_and_unlock_between_waiters() {
    let _turn = one_at_a_time();
    Operation::new("RawMutex: lock and unlock, one before and one behind", Shared::<RawMutex>::new)
        .victim(|mutex, stage| {
            lock(mutex);
            unlock(mutex);
            stage.begin();
            lock(mutex);
            unlock(mutex);
            stage.end();
        })
        .peer(|mutex, cues| {
            lock(mutex);
            cues.wait(2);
            unlock(mutex);
        })
        .peer(|mutex, _| {
            lock(mutex);
            unlock(mutex);
        })
        .peer(|mutex, cues| {
            cues.wait(1);
            lock(mutex);
            unlock(mutex);
        })
        .cue(When::Asleep)
        .cue(When::Next)
        .check(&["free"], survey)
        .run()
        .assert_clean();
}
