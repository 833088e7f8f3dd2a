//! Several threads wait at one end, in different ways: none of them depends on its backstop.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

use polyproc_pipe::{Bytes, Connection, Raw, RecvError, pipe, pipe_with_capacity, wait};
use polyproc_sys::futex::backstop_rescues;
use polyproc_testing::{Child, Watchdog, watchdog, woken_in_time};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

type Numbers = Connection<u64, u64, Raw>;

/// Well below the backstop's quarter of a second.
const SOON: Duration = Duration::from_millis(60);
const MOMENT: Duration = Duration::from_millis(20);

/// The rescues that a test counts are to be its own.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

/// Runs rounds, each of which says how long after its reason somebody woke. On a busy machine one of them may
/// be late: one that is forgotten is late each time.
#[track_caller]
fn wakes_soon(mut round: impl FnMut() -> Duration) {
    let late: Vec<_> = (0..4).map_while(|_| Some(round()).filter(|late| *late >= SOON)).collect();
    assert!(late.len() < 4, "woke after {late:?}");
}

#[test]
fn after_another_gave_up_receiving_the_next_message_wakes_who_waits() {
    let _alone = alone();
    for comes_first in [true, false] {
        wakes_soon(|| {
            let (here, there) = Numbers::pair().unwrap();
            let rescues = backstop_rescues();
            let late = scope(|scope| {
                let receiving = scope.spawn(|| {
                    sleep(if comes_first { Duration::ZERO } else { MOMENT });
                    here.recv_timeout(2 * MOMENT)
                });
                let waiting = scope.spawn(|| {
                    sleep(if comes_first { MOMENT } else { Duration::ZERO });
                    wait(&[&here], None)
                });
                assert!(matches!(receiving.join().unwrap(), Err(RecvError::Empty)));
                sleep(MOMENT);
                assert!(!waiting.is_finished());
                let begin = Instant::now();
                there.send(1).unwrap();
                assert_eq!(waiting.join().unwrap().unwrap(), [0]);
                begin.elapsed()
            });
            assert!(backstop_rescues() == rescues || late >= SOON);
            late
        });
    }
}

#[test]
fn after_another_took_a_message_the_next_one_wakes_who_waits() {
    let _alone = alone();
    wakes_soon(|| {
        let (here, there) = Numbers::pair().unwrap();
        let (_silent, other) = Numbers::pair().unwrap();
        scope(|scope| {
            let receiving = scope.spawn(|| {
                let first = here.recv().unwrap();
                let waiting = scope.spawn(|| wait(&[&other, &here], None));
                (first, here.recv().unwrap(), waiting)
            });
            sleep(MOMENT);
            there.send(1).unwrap();
            sleep(MOMENT);
            there.send(2).unwrap();
            let (first, second, waiting) = receiving.join().unwrap();
            assert_eq!((first, second), (1, 2));
            if waiting.is_finished() {
                // It saw the second message before the other one took it.
                return Duration::ZERO;
            }
            sleep(MOMENT);
            let begin = Instant::now();
            there.send(3).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), [1]);
            begin.elapsed()
        })
    });
}

#[test]
fn one_message_wakes_all_who_wait_for_it() {
    let _alone = alone();
    wakes_soon(|| {
        let (here, there) = Numbers::pair().unwrap();
        scope(|scope| {
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| wait(&[&here], None))).collect();
            let polling = scope.spawn(|| here.poll(None));
            sleep(MOMENT);
            assert!(!polling.is_finished() && waiting.iter().all(|one| !one.is_finished()));
            let begin = Instant::now();
            there.send(1).unwrap();
            assert!(polling.join().unwrap().unwrap());
            for one in waiting {
                assert_eq!(one.join().unwrap().unwrap(), [0]);
            }
            begin.elapsed()
        })
    });
}

/// It waits at the same socket, and takes the bell.
#[test]
fn a_message_wakes_who_waits_for_it_beside_one_who_waits_for_room() {
    let _alone = alone();
    wakes_soon(|| {
        let (here, there) = pipe_with_capacity::<Vec<u8>, Vec<u8>, Bytes>(4096).unwrap();
        scope(|scope| {
            let sending = scope.spawn(|| here.send(vec![1; 100_000]));
            sleep(MOMENT);
            let waiting = scope.spawn(|| wait(&[&here], None));
            sleep(MOMENT);
            let begin = Instant::now();
            there.send(vec![2]).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), [0]);
            let late = begin.elapsed();
            assert!(!sending.is_finished());
            assert_eq!(there.recv().unwrap().len(), 100_000);
            sending.join().unwrap().unwrap();
            late
        })
    });
}

#[test]
fn who_closes_an_end_wakes_those_who_wait_for_it() {
    let _alone = alone();
    wakes_soon(|| {
        let (here, _there) = Numbers::pair().unwrap();
        scope(|scope| {
            let waiting = scope.spawn(|| wait(&[&here], None));
            sleep(MOMENT);
            let begin = Instant::now();
            here.close().unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), [0]);
            begin.elapsed()
        })
    });
}

/// While another receives one message after the other, and comes and goes.
#[test]
fn who_waits_hears_of_other_things_and_of_the_end() {
    let _alone = alone();
    let (here, there) = Numbers::pair().unwrap();
    let (read, mut written) = std::io::pipe().unwrap();
    scope(|scope| {
        scope.spawn(|| while !matches!(here.recv_timeout(Duration::from_micros(50)), Ok(u64::MAX)) {});
        let sending = scope.spawn(|| {
            for number in 0..30_000 {
                there.send(number).unwrap();
                if number.is_multiple_of(100) {
                    sleep(Duration::from_micros(100));
                }
            }
            there.send(u64::MAX).unwrap();
        });
        let mut is_written = false;
        while !sending.is_finished() {
            let ready = wait(&[here.as_fd(), read.as_fd()], MOMENT).unwrap();
            assert_eq!(ready.contains(&1), is_written);
            if !is_written {
                written.write_all(b"x").unwrap();
                is_written = true;
            }
        }
    });
    assert_eq!(wait(&[here.as_fd()], Duration::ZERO).unwrap(), [0usize; 0]);
    drop(there);
    assert_eq!(wait(&[here.as_fd()], None).unwrap(), [0]);
}

/// Whoever takes it, every message wakes somebody, and the last one all.
#[test]
fn any_number_of_threads_wait_in_any_way() {
    const MESSAGES: u64 = 2_000;
    let _alone = alone();
    woken_in_time(|| {
        let (here, there) = Numbers::pair().unwrap();
        let rescues = backstop_rescues();
        let sums = scope(|scope| {
            let until_the_end = |next: &dyn Fn() -> Result<u64, RecvError>| {
                let mut sum = 0;
                loop {
                    match next() {
                        Ok(number) => sum += number,
                        Err(RecvError::Empty) => {}
                        Err(RecvError::Disconnected) => return sum,
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            let here = &here;
            let by_wait = move || {
                until_the_end(&|| {
                    assert_eq!(wait(&[here], None).unwrap(), [0]);
                    here.try_recv()
                })
            };
            let by_poll = move || {
                until_the_end(&|| {
                    assert!(here.poll(None).unwrap());
                    here.try_recv()
                })
            };
            let threads = [
                scope.spawn(by_wait),
                scope.spawn(by_wait),
                scope.spawn(by_poll),
                scope.spawn(move || until_the_end(&|| here.recv_timeout(Duration::from_micros(300)))),
                scope.spawn(move || until_the_end(&|| here.recv())),
            ];
            for number in 1..=MESSAGES {
                there.send(number).unwrap();
                if number.is_multiple_of(7) {
                    // They fall asleep.
                    sleep(Duration::from_micros(number % 500));
                }
            }
            there.close_send().unwrap();
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(sums.iter().sum::<u64>(), MESSAGES * (MESSAGES + 1) / 2);
        backstop_rescues() - rescues
    });
}

/// The deadline is not past because of the others.
#[test]
fn who_waits_beside_others_for_nothing_keeps_its_deadline() {
    let _alone = alone();
    let (here, there) = pipe::<u64, u64>().unwrap();
    scope(|scope| {
        let receiving = scope.spawn(|| here.recv());
        sleep(MOMENT);
        for timeout in [Duration::ZERO, Duration::from_millis(5), MOMENT] {
            let begin = Instant::now();
            assert!(wait(&[&here], timeout).unwrap().is_empty());
            assert!(begin.elapsed() >= timeout);
        }
        there.send(1).unwrap();
        assert_eq!(receiving.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn threads_that_have_waited_leave_no_descriptor() {
    let _alone = alone();
    Child::run(|| {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (here, there) = Numbers::pair().unwrap();
        let is_woken = || {
            scope(|scope| {
                let waiting = scope.spawn(|| {
                    assert!(wait(&[&here], MOMENT).unwrap().is_empty());
                    wait(&[&here], None)
                });
                sleep(2 * MOMENT);
                there.send(1).unwrap();
                assert_eq!(waiting.join().unwrap().unwrap(), [0]);
                here.recv().unwrap();
            });
        };
        let before = count();
        (0..3).for_each(|_| is_woken());
        assert_eq!(count(), before);
        for _ in 0..3 {
            assert!(wait(&[&here], Duration::from_nanos(1)).unwrap().is_empty());
            assert_eq!(count(), before);
        }
        Child::run(|| {
            assert!(wait(&[&here], Duration::from_nanos(1)).unwrap().is_empty());
            assert_eq!(count(), before);
            scope(|scope| {
                let waiting = scope.spawn(|| here.recv_timeout(MOMENT));
                assert!(wait(&[&here], 2 * MOMENT).unwrap().is_empty());
                assert!(matches!(waiting.join().unwrap(), Err(RecvError::Empty)));
            });
        })
        .join();
        assert!(wait(&[&here], MOMENT).unwrap().is_empty());
        is_woken();
    })
    .join();
}

/// Then it cannot be told by those of its process, and looks every millisecond.
#[test]
fn without_room_for_another_descriptor_it_wakes_all_the_same() {
    let _alone = alone();
    Child::run(|| {
        wakes_soon(|| {
            let (here, there) = Numbers::pair().unwrap();
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `limit` is of the right type.
            assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
            let few = libc::rlimit { rlim_cur: 3, ..limit };
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &few) }, 0);
            let late = scope(|scope| {
                let waiting = scope.spawn(|| wait(&[&here], None));
                assert!(matches!(here.recv_timeout(2 * MOMENT), Err(RecvError::Empty)));
                assert!(!waiting.is_finished());
                let begin = Instant::now();
                there.send(1).unwrap();
                assert_eq!(waiting.join().unwrap().unwrap(), [0]);
                begin.elapsed()
            });
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            late
        });
    })
    .join();
}
