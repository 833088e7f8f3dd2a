//! The books of what has no data: permits and rounds. And the last look at all of them.

use super::Soak;
use super::board::{LEDGERS, PARENT, PLACES, Slot};
use super::books::{self, BOUNDED, GROUPS, PARTIES, PERMITS, STORES, Store, TIMEOUT};
use crate::child::{Child, Ending};
use polyproc_sys::atomic::Ordering;
use std::time::Instant;

impl Soak {
    /// After a death: makes up for permits that the dead had forgotten; and counts them, if it may have been killed at
    /// forgetting or releasing one, and now and then.
    pub(super) fn count_permits(&mut self, place: usize) {
        for which in 0..STORES {
            if self.board.slots[place].accounts[which].doubt() != 0 || self.random.below(32) == 0 {
                self.audit(which, place);
            }
            let dead = &self.board.slots[place].accounts[which];
            let parent = &self.board.slots[PARENT].accounts[which];
            let store = self.books.store(which);
            for _ in dead.surplus()..0 {
                store.release_one(parent);
                self.report.made_up += 1;
            }
            dead.transfer_to(parent);
            // What the dead have released in excess, as soon as it is to be had.
            if parent.surplus() > 0
                && let Some(permit) = store.try_acquire()
            {
                Store::forget(permit, parent);
            }
        }
    }

    /// Counts the permits while nobody has one.
    fn audit(&mut self, which: usize, place: usize) {
        self.board.audit.store(1, Ordering::SeqCst);
        let start = Instant::now();
        while self.board.slots[..PLACES].iter().any(|slot| slot.accounts[which].is_inside()) {
            if start.elapsed() > TIMEOUT {
                panic!("somebody does not come out of a semaphore\n{}", self.describe());
            }
            std::thread::yield_now();
        }
        self.report.longest_wait = self.report.longest_wait.max(start.elapsed());
        self.report.audits += 1;
        self.compare(which, place);
        self.board.audit.store(0, Ordering::SeqCst);
    }

    /// The number of permits, when nobody has any, against the books.
    fn compare(&mut self, which: usize, place: usize) {
        let store = self.books.store(which);
        let expected = self.expected(which);
        let dead = &self.board.slots[place].accounts[which];
        let doubt = dead.doubt();
        let available = i64::from(store.available());
        assert!(
            available == expected || available == expected + doubt,
            "{available} permits; by the books {expected}, with a doubt of {doubt}: {store:?}"
        );
        if doubt != 0 {
            self.report.in_doubt += 1;
            dead.settle(available != expected);
        }
        if which == BOUNDED {
            // There is room for what is missing, and no more.
            let room = u32::try_from(i64::from(PERMITS) - available).expect("never more than it began with");
            assert!(!store.release(room + 1), "more permits than it began with: {store:?}");
            assert_eq!(i64::from(store.available()), available, "a refused release released something");
        }
    }

    /// How many permits there are when nobody has any.
    fn expected(&self, which: usize) -> i64 {
        let surplus = |slot: &Slot| slot.accounts[which].surplus();
        i64::from(PERMITS) + self.board.slots.iter().map(surplus).sum::<i64>()
    }

    /// At the end: the number of permits, exactly.
    pub(super) fn close_accounts(&mut self) {
        for which in 0..STORES {
            let (expected, store) = (self.expected(which), self.books.store(which));
            assert_eq!(i64::from(store.available()), expected, "permits at the end: {store:?}");
            // And all of them can be had.
            let permits: Vec<_> = (0..expected).map_while(|_| store.try_acquire()).collect();
            assert_eq!(permits.len() as i64, expected, "permits that nobody can have: {store:?}");
            assert!(store.try_acquire().is_none(), "a permit too many: {store:?}");
        }
    }

    /// At the end: parts, totals and acknowledgements.
    pub(super) fn close_ledgers(&mut self) {
        let mut sums = [0; LEDGERS];
        for place in 0..PLACES {
            let parts = self.parts(place);
            for (ledger, part) in parts.into_iter().enumerate() {
                assert_eq!(
                    part,
                    self.board.slots[place].acknowledged(ledger),
                    "ledger {ledger} of place {place}"
                );
                sums[ledger] += part;
            }
        }
        let stock = self
            .books
            .with_stock(|stock| (*stock, books::put_by(stock, PARENT), books::got_by(stock, PARENT)));
        let Some(((stock, put, got), mended)) = stock else { panic!("nobody holds it any more") };
        assert!(!mended, "nobody died in the end");
        let parent = &self.board.slots[PARENT];
        assert_eq!(
            [put, got],
            [0, 1].map(|ledger| parent.acknowledged(ledger)),
            "what the parent put and got"
        );
        books::check_stock(&stock);
        assert_eq!((self.books.not_empty.waiting(), self.books.not_full.waiting()), (0, 0), "nobody waits");
        self.report.additions = sums.iter().sum();
    }

    /// At the end: the rounds; and that the living can meet again.
    pub(super) fn close_barriers(&mut self) {
        for group in 0..GROUPS {
            let slots = &self.board.slots[group * PARTIES..][..PARTIES];
            let sum = |count: fn(&Slot) -> u64| slots.iter().map(count).sum::<u64>();
            let passed = sum(|slot| slot.passed.load(Ordering::Relaxed));
            let led = sum(|slot| slot.led.load(Ordering::Relaxed));
            let spoilt = sum(|slot| slot.spoilt.load(Ordering::Relaxed));
            let (dead, parties) = (self.died_meeting[group], PARTIES as u64);
            let rounds = self.board.rounds[group].load(Ordering::Relaxed);
            let what =
                format!("{rounds} rounds, {led} led, {spoilt} spoilt, {passed} passed, {dead} died there");
            // Each action was of a round that was led to its end, or broken; or its leader died.
            assert!((led + spoilt..=led + spoilt + dead).contains(&rounds), "{what}");
            // All parties passed each round that was led to its end; but for the dead, who acknowledged no more.
            assert!(passed + dead >= parties * led, "{what}");
            assert!(passed <= parties * led + (parties - 1) * dead, "{what}");

            let barrier = &self.books.barriers[group];
            barrier.reset();
            let meet = || _ = barrier.wait_timeout(TIMEOUT).expect("all are there and alive");
            let mut three: Vec<Child> = (0..PARTIES).map(|_| Child::fork(meet)).collect();
            for child in &mut three {
                assert_eq!(child.wait(2 * TIMEOUT), Some(Ending::Exited(0)), "{:?}", child.complaint());
            }
            self.report.rounds += led;
        }
    }
}
