//! Where the kernel makes no barriers for others. One test, because the switch is the process's.

use polyproc_queue::{Queue, Raw};
use polyproc_sys::membarrier::without_membarrier;
use std::time::{Duration, Instant};

/// As many puts and gets by this thread that both locks would be granted to it.
fn use_it(queue: &Queue<u64, Raw>) {
    for number in 0..300 {
        queue.put(number).unwrap();
        assert_eq!(queue.get().unwrap(), number);
    }
}

#[test]
fn without_barriers_nothing_is_granted_and_what_was_is_taken_away_by_waiting() {
    let queue = Queue::<u64, Raw>::new().unwrap();
    use_it(&queue);
    // From here on as in a sandbox, while both locks are granted to this thread.
    without_membarrier(true);
    let begin = Instant::now();
    std::thread::scope(|scope| _ = scope.spawn(|| queue.put(7).unwrap()));
    assert!(begin.elapsed() >= Duration::from_millis(20), "it was granted, and taken away too soon");
    assert_eq!(queue.get().unwrap(), 7);
    std::thread::scope(|scope| _ = scope.spawn(|| use_it(&queue)));
    // Nobody has to wait any more, whoever comes and goes.
    let begin = Instant::now();
    for _ in 0..100 {
        std::thread::scope(|scope| _ = scope.spawn(|| use_it(&queue)));
    }
    assert!(begin.elapsed() < Duration::from_millis(100 * 2 * 20 / 2), "something was granted");
    // Four at once, and nothing is lost.
    const EACH: u64 = 5_000;
    let sum: u64 = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (1..=EACH).for_each(|number| queue.put(number).unwrap()));
        }
        let getters: Vec<_> =
            (0..2).map(|_| scope.spawn(|| (0..EACH).map(|_| queue.get().unwrap()).sum::<u64>())).collect();
        getters.into_iter().map(|getter| getter.join().unwrap()).sum()
    });
    assert_eq!(sum, 2 * (1..=EACH).sum::<u64>());
    // With barriers again: another queue is granted, taken away by one that has them, and nothing is lost.
    without_membarrier(false);
    let queue = Queue::<u64, Raw>::new().unwrap();
    for _ in 0..20 {
        use_it(&queue);
        std::thread::scope(|scope| _ = scope.spawn(|| use_it(&queue)));
    }
    assert!(queue.is_empty());
}
