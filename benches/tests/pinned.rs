//! Where those who are measured ran is seen, not believed. A test program of its own: what is seen is gathered in one place.

use polyproc_benches::{Processes, cpu_count, pin_to, pinned, pinned_to};

#[test]
fn where_everybody_ran_is_seen() {
    let run = |pins: bool| {
        Processes::fork(2, |index| {
            if pins {
                pin_to(index);
            }
            0
        })
        .run()
    };
    if cpu_count() < 2 {
        return;
    }
    let (_, both) = pinned(|| run(true));
    assert!(both.starts_with("CPUs ") && both.contains(" and "), "{both}");
    assert_eq!(pinned(|| run(false)).1, "not pinned");
    assert_eq!(pinned(|| ()).1, "not pinned");
    let (_, inherited) = pinned(|| pinned_to(1, || run(false)));
    assert!(inherited.starts_with("CPU "), "{inherited}");
    let (_, by_threads) = pinned(|| {
        std::thread::scope(|scope| {
            for index in 0..2 {
                scope.spawn(move || pin_to(index));
            }
        });
    });
    assert_eq!(by_threads, both);
    assert_eq!(pinned(|| run(false)).1, "not pinned", "nobody is pinned any more");
}
