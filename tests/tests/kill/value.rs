//! `Value`: an update or a set that is killed anywhere leaves the old or the new value, and poisons nothing.

use crate::scene::SOON;
use polyproc_tests::kill::{Operation, Outcome, When};
use polyproc_tests::system::one_at_a_time;
use polyproc_value::Value;

fn survey<const N: usize>(value: &Value<[u64; N]>, outcome: &Outcome<'_>) -> &'static str {
    let found = *value.lock_timeout(SOON).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    assert!(!value.is_locked() && !value.is_poisoned());
    outcome.heals(|| value.update(|whole| whole[0] += 1).unwrap());
    if found == [0; N] {
        "old"
    } else if found == [1; N] {
        "new"
    } else {
        panic!("neither old nor new: {found:?}")
    }
}

/// One word is stored at once, more go into a second slot.
fn changing<const N: usize>(name: &str, change: fn(&Value<[u64; N]>)) {
    let _turn = one_at_a_time();
    let changing = |name: &str| {
        Operation::new(name, || Value::new([0; N]).unwrap())
            .victim(move |value, stage| {
                value.get().unwrap();
                stage.begin();
                change(value);
                stage.end();
            })
            .check(&["old", "new"], survey)
    };
    changing(name).run().assert_clean();
    // Another holds the lock at first, and a third waits for it.
    changing(&format!("{name}, held at first, one asleep"))
        .peer(|value, cues| {
            let guard = value.lock().unwrap();
            cues.wait(1);
            drop(guard);
        })
        .peer(|value, _| _ = value.get().unwrap())
        .cue(When::Asleep)
        .thinly(3)
        .run()
        .assert_clean();
}

#[test]
fn update_of_one_word() {
    changing::<1>("Value: update of one word", |value| value.update(|word| word[0] = 1).unwrap());
}

#[test]
fn update_of_many_words() {
    changing::<20>("Value: update of many words", |value| {
        value.update(|words| words.iter_mut().for_each(|word| *word += 1)).unwrap();
    });
}

#[test]
fn set() {
    changing::<1>("Value: set of one word", |value| value.set([1]).unwrap());
    changing::<3>("Value: set of three words", |value| value.set([1; 3]).unwrap());
}
