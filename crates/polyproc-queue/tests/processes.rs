//! Many processes: one order for all messages, exact bounds, and nobody is told what is not so.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{GetError, PutError, Queue, Raw};
use polyproc_sys::futex::backstop_rescues;
use support::{Child, Slot, wait_until, watchdog, woken_in_time};

#[test]
fn what_was_put_first_is_got_first_whoever_put_it() {
    const MESSAGES: u64 = 3_000;
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::new().unwrap();
    let turn = Slot::new();
    let producers = [0, 1, 2].map(|producer| {
        Child::run(|| {
            for number in (producer..MESSAGES).step_by(3) {
                while turn.get() != number {
                    std::thread::yield_now();
                }
                queue.put(number).unwrap();
                turn.set(number + 1);
            }
        })
    });
    for number in 0..MESSAGES {
        assert_eq!(queue.get().unwrap(), number);
    }
    producers.into_iter().for_each(Child::join);
}

#[test]
fn each_message_is_got_once_and_each_producers_in_their_order() {
    const EACH: u64 = 4_000;
    let _watchdog = watchdog();
    let queue = Queue::<(u8, u64, String)>::bounded(32).unwrap();
    let (sum, count) = (Slot::new(), Slot::new());
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            Child::run(|| {
                let mut next = [0; 3];
                for message in &queue {
                    let (producer, number, text) = message.unwrap();
                    assert!(number >= next[usize::from(producer)], "{producer} {number}");
                    assert_eq!(text.len() as u64, number % 100);
                    next[usize::from(producer)] = number + 1;
                    sum.add(number);
                    count.add(1);
                }
            })
        })
        .collect();
    let producers = [0, 1, 2].map(|producer| {
        Child::run(|| {
            for number in 0..EACH {
                queue.put((producer, number, "x".repeat(number as usize % 100))).unwrap();
            }
        })
    });
    producers.into_iter().for_each(Child::join);
    queue.close();
    consumers.into_iter().for_each(Child::join);
    assert_eq!((count.get(), sum.get()), (3 * EACH, 3 * EACH * (EACH - 1) / 2));
}

#[test]
fn a_bound_holds_exactly_for_many_producers() {
    const EACH: u64 = 500;
    const BOUND: u64 = 5;
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::bounded(BOUND as usize).unwrap();
    let put = Slot::new();
    let producers: Vec<_> = (0..4)
        .map(|_| {
            Child::run(|| {
                for number in 0..EACH {
                    queue.put(number).unwrap();
                    put.add(1);
                }
            })
        })
        .collect();
    for got in 0..4 * EACH {
        if got % 10 == 0 && got + BOUND <= 4 * EACH {
            wait_until("as many are put as there is room for", || put.get() == got + BOUND);
            assert!(queue.is_full());
            assert_eq!(queue.len() as u64, BOUND);
            assert!(matches!(queue.try_put(7), Err(PutError::Full(7))));
        }
        let before = put.get();
        assert!(before <= got + BOUND, "{before} were put before {got} were got");
        queue.get().unwrap();
    }
    producers.into_iter().for_each(Child::join);
    assert!(queue.is_empty());
}

#[test]
fn right_after_a_put_it_is_there_for_every_other_process() {
    let _watchdog = watchdog();
    let queue = Queue::<u64, Raw>::bounded(1).unwrap();
    let (asked, put) = (Slot::new(), Slot::new());
    let producer = Child::run(|| {
        for number in 1..=1_000 {
            while asked.get() != number {
                std::thread::yield_now();
            }
            queue.try_put(number).unwrap();
            assert!(queue.is_full() && !queue.is_empty());
            assert!(matches!(queue.try_put(0), Err(PutError::Full(0))));
            put.set(number);
        }
    });
    for number in 1..=1_000 {
        assert!(queue.is_empty() && !queue.is_full());
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
        asked.set(number);
        while put.get() != number {
            std::thread::yield_now();
        }
        assert_eq!((queue.is_empty(), queue.is_full(), queue.len()), (false, true, 1));
        assert_eq!(queue.try_get().unwrap(), number);
    }
    producer.join();
}

#[test]
fn one_message_wakes_one_who_sleeps() {
    let _watchdog = watchdog();
    woken_in_time(|| {
        let queue = Queue::<u64, Raw>::new().unwrap();
        let (asking, got, rescues) = (Slot::new(), Slot::new(), Slot::new());
        let mut waiters = Vec::new();
        for number in 1..=3 {
            waiters.push(Child::run(|| {
                asking.add(1);
                got.add(queue.get().unwrap());
                rescues.add(backstop_rescues());
            }));
            wait_until("it asks", || asking.get() == number);
            waiters[number as usize - 1].wait_asleep();
        }
        for (number, sum) in [(1, 1), (10, 11), (100, 111)] {
            assert_eq!(got.get(), sum - number);
            queue.put(number).unwrap();
            wait_until("the message is got", || got.get() == sum);
        }
        waiters.into_iter().for_each(Child::join);
        rescues.get()
    });
}

/// Sixty have a place; the others look by themselves.
#[test]
fn more_may_sleep_than_there_are_places() {
    let _watchdog = watchdog();
    let (there, back) = (Queue::<u64, Raw>::new().unwrap(), Queue::<u64, Raw>::bounded(1).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..70 {
            scope.spawn(|| back.put(there.get().unwrap()).unwrap());
        }
        let mut numbers = Vec::new();
        for number in 0..70 {
            there.put(number).unwrap();
        }
        while numbers.len() < 70 {
            numbers.push(back.get().unwrap());
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..70));
    });
}
