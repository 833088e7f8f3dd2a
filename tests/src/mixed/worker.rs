//! What a worker does until it is killed.

use super::board::{Account, Board, Chore, GETS, NESTS, PLACES, PUTS, Phase, Slot, UPDATES, WRITES, add_one};
use super::books::{
    self, BOUNDED, Books, Ledger, PARTIES, PERMITS, PLAIN, Stock, Store, check_ledger, check_stock, repaired,
};
use crate::random::Random;
use polyproc_barrier::{BrokenCause, WaitError};
use polyproc_mutex::{MutexGuard, PoisonError};
use polyproc_semaphore::Permit;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::futex;
use std::time::{Duration, Instant};

type Guard<'a> = MutexGuard<'a, Stock>;

struct Worker<'a> {
    books: &'a Books,
    board: &'a Board,
    slot: &'a Slot,
    place: usize,
    random: Random,
}

/// Does one chore after the other until it is told to stop.
pub(super) fn work(books: &Books, board: &Board, place: usize, random: Random) {
    books::settle_at(place);
    let mut worker = Worker { books, board, slot: &board.slots[place], place, random };
    let before = futex::backstop_rescues();
    while !board.stopped() {
        let chore = worker.choose();
        worker.perform(chore);
        worker.slot.advance(chore, futex::backstop_rescues() - before);
    }
}

impl<'a> Worker<'a> {
    /// Those that wait for others are rarer: somebody has to do something meanwhile.
    fn choose(&mut self) -> Chore {
        match self.random.below(256) {
            0..60 => Chore::Semaphore,
            60..120 => Chore::Bounded,
            120..122 => Chore::Listen,
            122..124 => Chore::Meet,
            124..130 => Chore::Door,
            130..144 => Chore::Put,
            144..158 => Chore::Get,
            158..184 => Chore::Read,
            184..210 => Chore::Write,
            210..236 => Chore::Nest,
            _ => Chore::Update,
        }
    }

    fn perform(&mut self, chore: Chore) {
        self.slot.set_doing(chore, Phase::Entering);
        match chore {
            Chore::Semaphore => self.hold(PLAIN, chore),
            Chore::Bounded => self.hold(BOUNDED, chore),
            Chore::Listen => self.listen(),
            Chore::Door => self.pass_the_door(),
            Chore::Put => self.put(),
            Chore::Get => self.get(),
            Chore::Meet => self.meet(),
            Chore::Read => self.read(),
            Chore::Write => self.write(),
            Chore::Nest => self.nest(),
            Chore::Update => self.update(),
        }
    }

    /// Now and then a moment longer, so that deaths there are not too rare.
    fn linger(&mut self) {
        linger(&mut self.random);
    }

    fn hold(&mut self, which: usize, chore: Chore) {
        let account = &self.slot.accounts[which];
        if !self.board.enter(account) {
            return;
        }
        let store = self.books.store(which);
        match which {
            // One more than there were, for a while.
            PLAIN if self.random.below(8) == 0 && account.surplus() < 2 => store.release_one(account),
            BOUNDED if self.random.below(8) == 0 => {
                assert!(!store.release(PERMITS + 1), "more permits than the semaphore began with: {store:?}");
            }
            _ => {}
        }
        let start = Instant::now();
        let permit = match self.random.below(8) {
            0 => store.try_acquire(),
            1 => {
                let timeout = Duration::from_micros(self.random.below(2_000));
                let permit = store.acquire_timeout(timeout);
                assert!(permit.is_some() || start.elapsed() >= timeout, "a timeout before its time");
                permit
            }
            _ => Some(store.acquire()),
        };
        if let Some(permit) = permit {
            self.slot.waited(start.elapsed());
            self.slot.set_doing(chore, Phase::Inside);
            match self.random.below(4) {
                // To die with more than one thing in its hands.
                0 => {
                    let inner = [Chore::Read, Chore::Write, Chore::Nest, Chore::Update];
                    let inner = inner[self.random.below(4) as usize];
                    self.perform(inner);
                    self.slot.finish(inner);
                }
                _ => self.linger(),
            }
            self.slot.set_doing(chore, Phase::Leaving);
            if self.random.below(4) == 0 {
                self.hand_over(store, account, permit);
            } else {
                drop(permit);
            }
        }
        account.leave();
    }

    /// Forgets a permit, and releases one in its place, unless it had released one before.
    fn hand_over(&mut self, store: Store<'_>, account: &Account, permit: Permit<'_>) {
        Store::forget(permit, account);
        self.linger();
        if account.surplus() < 0 {
            store.release_one(account);
        }
    }

    fn listen(&mut self) {
        self.slot.begin_to_listen();
        self.books.pulse.wait();
        self.slot.has_heard();
    }

    fn pass_the_door(&mut self) {
        let door = &self.books.door;
        match self.random.below(3) {
            0 => door.set(),
            1 => door.clear(),
            _ => {
                let (start, timeout) = (Instant::now(), Duration::from_micros(self.random.below(2_000)));
                let set = door.wait_timeout(timeout);
                assert!(set || start.elapsed() >= timeout, "a timeout before its time");
            }
        }
    }

    fn put(&mut self) {
        let Some(mut stock) = self.wait_for_stock(false) else { return };
        self.slot.set_doing(Chore::Put, Phase::Inside);
        books::put(&mut stock, self.place, || linger(&mut self.random));
        // With the lock held: if it dies before, the lock is poisoned, and who repairs notifies.
        self.books.not_empty.notify_one();
        self.slot.set_doing(Chore::Put, Phase::Leaving);
        drop(stock);
        self.slot.acknowledge(PUTS);
    }

    fn get(&mut self) {
        let Some(mut stock) = self.wait_for_stock(true) else { return };
        self.slot.set_doing(Chore::Get, Phase::Inside);
        books::get(&mut stock, self.place, || linger(&mut self.random));
        self.books.not_full.notify_one();
        self.slot.set_doing(Chore::Get, Phase::Leaving);
        drop(stock);
        self.slot.acknowledge(GETS);
    }

    /// The buffer with an item, or with room for one; or, now and then, what there is when the time is over: nothing.
    fn wait_for_stock(&mut self, item: bool) -> Option<Guard<'a>> {
        let condition = if item { &self.books.not_empty } else { &self.books.not_full };
        let lacks = |stock: &mut Stock| {
            check_stock(stock);
            if item { books::items(stock) == 0 } else { books::is_full(stock) }
        };
        let hurry = self.random.below(4) == 0;
        let start = Instant::now();
        let timeout = Duration::from_micros(self.random.below(2_000));
        let mut stock = self.mended(self.books.stock.lock());
        loop {
            if !hurry {
                match condition.wait_while(stock, lacks) {
                    Ok(stock) => return Some(stock),
                    Err(error) => stock = self.mended(Err(error)),
                }
                continue;
            }
            match condition.wait_timeout_while(stock, timeout, lacks) {
                Ok((_, result)) if result.timed_out() => {
                    assert!(start.elapsed() >= timeout, "a timeout before its time");
                    return None;
                }
                Ok((stock, _)) => return Some(stock),
                Err(error) => {
                    let cause = error.cause();
                    stock = self.mended(Err(PoisonError::new(error.into_inner().0, cause)));
                }
            }
        }
    }

    fn mended(&self, result: Result<Guard<'a>, PoisonError<Guard<'a>>>) -> Guard<'a> {
        result.unwrap_or_else(|error| {
            let mut stock = error.into_inner();
            self.books.mend_stock(&mut stock);
            self.slot.count_repair();
            stock
        })
    }

    fn meet(&mut self) {
        let group = self.place / PARTIES;
        let (barrier, rounds) = (&self.books.barriers[group], &self.board.rounds[group]);
        let before = rounds.load(Ordering::SeqCst);
        let result = if self.random.below(4) == 0 {
            barrier.wait_timeout(Duration::from_micros(self.random.below(4_000)))
        } else {
            barrier.wait()
        };
        self.slot.set_doing(Chore::Meet, Phase::Leaving);
        let acted = self.slot.take_acted();
        match result {
            Ok(wait) => {
                assert_eq!(wait.leader, acted, "the leader runs the action, and nobody else");
                assert!(rounds.load(Ordering::SeqCst) > before, "nobody ran the action of this round");
                if wait.leader {
                    add_one(&self.slot.led);
                }
                add_one(&self.slot.passed);
            }
            Err(WaitError::Broken(broken)) => {
                if acted {
                    add_one(&self.slot.spoilt);
                }
                add_one(&self.slot.broken);
                if matches!(broken.cause(), BrokenCause::PartyDied { .. }) {
                    add_one(&self.slot.bereft);
                }
                if barrier.is_broken() && !self.board.stopped() {
                    barrier.reset();
                }
            }
            Err(error) => panic!("{error}"),
        }
        if self.random.below(64) == 0 {
            barrier.abort();
        }
    }

    fn read(&mut self) {
        let start = Instant::now();
        if let Ok(ledger) = self.books.rwlock.read() {
            self.slot.waited(start.elapsed());
            self.slot.set_doing(Chore::Read, Phase::Inside);
            check_ledger(&ledger);
            self.linger();
            check_ledger(&ledger);
            self.slot.set_doing(Chore::Read, Phase::Leaving);
            return;
        }
        // Poisoned. A reader can repair nothing.
        if let Err(error) = self.books.rwlock.write() {
            let mut ledger = error.into_inner();
            *ledger = repaired(*ledger);
            self.books.rwlock.clear_poison();
            self.slot.count_repair();
        }
    }

    fn write(&mut self) {
        let start = Instant::now();
        let mut ledger = self.books.rwlock.write().unwrap_or_else(|error| {
            let mut ledger = error.into_inner();
            *ledger = repaired(*ledger);
            self.books.rwlock.clear_poison();
            self.slot.count_repair();
            ledger
        });
        self.slot.waited(start.elapsed());
        self.slot.set_doing(Chore::Write, Phase::Inside);
        add(&mut ledger, self.place, &mut self.random);
        self.slot.set_doing(Chore::Write, Phase::Leaving);
        drop(ledger);
        self.slot.acknowledge(WRITES);
    }

    fn nest(&mut self) {
        let start = Instant::now();
        let mut outer = self.books.rlock.lock().unwrap_or_else(|error| {
            let mut guard = error.into_inner();
            let ledger = repaired(*guard);
            guard.set(ledger).expect("its only guard");
            self.books.rlock.clear_poison();
            self.slot.count_repair();
            guard
        });
        self.slot.waited(start.elapsed());
        self.slot.set_doing(Chore::Nest, Phase::Inside);
        let mut ledger = {
            let inner = self.books.rlock.lock().expect("repaired above");
            *inner
        };
        add(&mut ledger, self.place, &mut self.random);
        outer.set(ledger).expect("its only guard");
        self.slot.set_doing(Chore::Nest, Phase::Leaving);
        drop(outer);
        self.slot.acknowledge(NESTS);
    }

    fn update(&mut self) {
        let start = Instant::now();
        let updated = self.books.value.update(|ledger| {
            self.slot.waited(start.elapsed());
            self.slot.set_doing(Chore::Update, Phase::Inside);
            add(ledger, self.place, &mut self.random);
        });
        updated.unwrap_or_else(|error| panic!("an update poisoned its value: {error}"));
        self.slot.acknowledge(UPDATES);
    }
}

fn linger(random: &mut Random) {
    if random.below(8) == 0 {
        for _ in 0..random.below(4_000) {
            std::hint::spin_loop();
        }
    }
}

/// One addition, in two changes.
fn add(ledger: &mut Ledger, place: usize, random: &mut Random) {
    check_ledger(ledger);
    ledger[place] += 1;
    // So that the two changes are not made one.
    std::hint::black_box(&mut *ledger);
    linger(random);
    ledger[PLACES] += 1;
}
