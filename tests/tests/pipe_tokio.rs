//! Connections that tasks of tokio wait at. They have no backstop: a wake-up that is lost hangs, and the watchdog sees it.

use polyproc_pipe::{Bytes, Connection, Raw, RecvError, SendError, pipe, pipe_with_capacity};
use polyproc_testing::{Child, Watchdog, wait_for_the_end, watchdog};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// A forked child keeps the ends of other tests alive.
fn alone() -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), watchdog())
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn four_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

type Numbers = Connection<u64, u64, Raw>;
type Messages = Connection<Vec<u8>, Vec<u8>, Bytes>;

/// Every length from nothing to several times the ring.
fn message(n: u64) -> Vec<u8> {
    (0..n * 7919 % 20_000).map(|at| (at + n) as u8).collect()
}

#[test]
fn both_directions_at_once_and_longer_than_the_ring() {
    let _alone = alone();
    for runtime in [one_thread(), four_threads()] {
        let (here, there): (Messages, Messages) = pipe_with_capacity(4096).unwrap();
        let run = async |end: Messages| {
            let receiver = end.clone();
            let received = tokio::spawn(async move {
                for n in 0..500 {
                    assert!(receiver.recv_async().await.unwrap() == message(n), "message {n}");
                }
            });
            for n in 0..500 {
                end.send_async(message(n)).await.unwrap();
            }
            received.await.unwrap();
        };
        runtime.block_on(async { tokio::join!(run(here), run(there)) });
    }
}

#[test]
fn tasks_and_threads_at_the_same_end_get_every_message_once() {
    let _alone = alone();
    let runtime = four_threads();
    const EACH: u64 = 20_000;
    let (here, there): (Numbers, Numbers) = pipe_with_capacity(4096).unwrap();
    let sum = Arc::new(Mutex::new(Vec::new()));
    let receive = |n: Result<u64, RecvError>, sum: &Mutex<Vec<u64>>| match n {
        Ok(n) => {
            sum.lock().unwrap().push(n);
            true
        }
        Err(RecvError::Disconnected) => false,
        Err(error) => panic!("{error}"),
    };
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let (there, sum) = (there.clone(), Arc::clone(&sum));
            runtime.spawn(async move { while receive(there.recv_async().await, &sum) {} })
        })
        .collect();
    let receiving = std::thread::spawn({
        let (there, sum) = (there.clone(), Arc::clone(&sum));
        move || while receive(there.recv(), &sum) {}
    });
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let here = here.clone();
            runtime.spawn(async move {
                for n in 0..EACH {
                    here.send_async(sender * EACH + n).await.unwrap();
                    if n % 1_000 == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            })
        })
        .collect();
    (0..EACH).for_each(|n| here.send(3 * EACH + n).unwrap());
    runtime.block_on(async {
        for sender in senders {
            sender.await.unwrap();
        }
        drop(here);
        for receiver in receivers {
            receiver.await.unwrap();
        }
    });
    receiving.join().unwrap();
    let mut received = core::mem::take(&mut *sum.lock().unwrap());
    received.sort_unstable();
    assert!(received.into_iter().eq(0..4 * EACH), "each message once");
}

#[test]
fn a_send_that_is_given_up_is_never_seen() {
    let _alone = alone();
    let (here, there): (Messages, Messages) = pipe_with_capacity(4096).unwrap();
    one_thread().block_on(async {
        let start = Instant::now();
        let patience = Duration::from_millis(20);
        tokio::time::timeout(patience, here.send_async(vec![1; 100_000])).await.unwrap_err();
        assert!(start.elapsed() >= patience);
        let whole = here.send_async(vec![2; 100_000]);
        let received = async { there.recv_async().await.unwrap() };
        let (sent, received) = tokio::join!(whole, received);
        sent.unwrap();
        assert!(received == vec![2; 100_000]);
    });
}

#[test]
fn while_a_task_sends_in_parts_others_wait_for_the_rest() {
    let _alone = alone();
    let (here, there): (Messages, Messages) = pipe_with_capacity(4096).unwrap();
    let runtime = four_threads();
    let long = runtime.spawn({
        let here = here.clone();
        async move { here.send_async(vec![1; 100_000]).await.unwrap() }
    });
    while here.try_send(vec![2]).is_ok() {
        there.recv().unwrap();
    }
    assert!(matches!(here.try_send(Vec::new()), Err(SendError::Full(_))));
    let short = std::thread::spawn(move || here.send(vec![3]).unwrap());
    let received: Vec<_> = (0..2).map(|_| there.recv().unwrap()).collect();
    assert!(received == [vec![1; 100_000], vec![3]]);
    runtime.block_on(long).unwrap();
    short.join().unwrap();
}

#[test]
fn a_task_hears_of_a_death_and_of_a_close() {
    let _alone = alone();
    let runtime = one_thread();
    let (here, there) = pipe::<u8, u8>().unwrap();
    let child = Child::run(|| {
        there.send(7).unwrap();
        wait_for_the_end();
    });
    drop(there);
    let patience = Duration::from_millis(30);
    let killing = async {
        tokio::time::sleep(patience).await;
        tokio::task::spawn_blocking(|| child.kill()).await.unwrap();
    };
    let waiting = async {
        assert_eq!(here.recv_async().await.unwrap(), 7);
        let start = Instant::now();
        (here.recv_async().await, start.elapsed())
    };
    let ((), (received, took)) = runtime.block_on(async { tokio::join!(killing, waiting) });
    assert!(matches!(received, Err(RecvError::Disconnected)), "{received:?}");
    assert!(took > patience / 2 && took < Duration::from_secs(1), "{took:?}");
    let sent = runtime.block_on(here.send_async(1));
    assert!(matches!(sent, Err(SendError::Disconnected(1))), "{sent:?}");

    let (here, _there) = pipe::<u8, u8>().unwrap();
    let closing = async {
        tokio::time::sleep(patience).await;
        here.close().unwrap();
    };
    let start = Instant::now();
    let (received, ()) = runtime.block_on(async { tokio::join!(here.recv_async(), closing) });
    assert!(matches!(received, Err(RecvError::Closed)), "{received:?}");
    assert!(start.elapsed() >= patience && start.elapsed() < Duration::from_secs(1));
}

#[test]
fn nothing_gets_between_the_parts_even_if_there_is_room() {
    let _alone = alone();
    let (here, there): (Messages, Messages) = pipe_with_capacity(4096).unwrap();
    one_thread().block_on(async {
        let mut long = Box::pin(here.send_async(vec![1; 100_000]));
        tokio::time::timeout(Duration::from_millis(5), &mut long).await.unwrap_err();
        // Takes the parts that are there, so that there is room for something short.
        assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
        assert!(matches!(here.try_send(vec![2]), Err(SendError::Full(_))));
        let mut short = Box::pin(here.send_async(vec![3]));
        tokio::time::timeout(Duration::from_millis(5), &mut short).await.unwrap_err();
        let (sent, received) = tokio::join!(long, there.recv_async());
        sent.unwrap();
        assert!(received.unwrap() == vec![1; 100_000]);
        short.await.unwrap();
        assert_eq!(there.try_recv().unwrap(), [3]);
        here.try_send(vec![2]).unwrap();
        assert_eq!(there.try_recv().unwrap(), [2]);
    });
}

/// A thread and a task wait for one message each. Whoever wakes up first must leave the other one waiting properly.
#[test]
fn a_thread_that_has_waited_wakes_the_tasks_when_it_goes() {
    let _alone = alone();
    let runtime = four_threads();
    let (here, there): (Numbers, Numbers) = pipe_with_capacity(4096).unwrap();
    for round in 0..3_000 {
        let task = runtime.spawn({
            let there = there.clone();
            async move { there.recv_async().await.unwrap() }
        });
        let thread = runtime.spawn_blocking({
            let there = there.clone();
            move || there.recv().unwrap()
        });
        // Late enough that they sleep, now and then.
        if round % 3 != 0 {
            std::thread::sleep(Duration::from_micros(round % 200));
        }
        here.send(round).unwrap();
        std::thread::sleep(Duration::from_micros(round % 50));
        here.send(round).unwrap();
        let received = runtime.block_on(async { (task.await.unwrap(), thread.await.unwrap()) });
        assert_eq!(received, (round, round));
    }
}

/// Somebody asks for a message in the moment in which one comes, while a task sleeps: that it finds one, or none, does not
/// take the task's bell away.
#[test]
fn who_asks_in_between_does_not_silence_the_bell() {
    let _alone = alone();
    let runtime = four_threads();
    let (here, there): (Numbers, Numbers) = pipe_with_capacity(4096).unwrap();
    let (received, news) = std::sync::mpsc::channel();
    let task = runtime.spawn({
        let there = there.clone();
        async move {
            while let Ok(n) = there.recv_async().await {
                received.send(n).unwrap();
            }
        }
    });
    for round in 0..3_000u64 {
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                start.wait();
                (0..20).find_map(|_| there.try_recv().ok())
            });
            start.wait();
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            here.send(2 * round).unwrap();
            let found = asking.join().unwrap();
            if found.is_none() {
                assert_eq!(news.recv().unwrap(), 2 * round);
            }
        });
        here.send(2 * round + 1).unwrap();
        assert_eq!(news.recv().unwrap(), 2 * round + 1);
    }
    drop(here);
    runtime.block_on(task).unwrap();
}

/// The rest of the message is the parent's to send.
#[test]
fn a_child_that_is_forked_in_the_middle_of_a_tasks_message_does_not_wait_for_it() {
    let _alone = alone();
    let runtime = one_thread();
    let (here, there): (Messages, Messages) = pipe_with_capacity(4096).unwrap();
    runtime.block_on(async {
        let mut sending = Box::pin(here.send_async(vec![1; 50_000]));
        let soon = tokio::time::timeout(Duration::from_millis(20), &mut sending).await;
        assert!(soon.is_err(), "it fits");
        let child = Child::run(|| {
            // SAFETY: takes a number. Nobody handles the signal, so it ends a child that waits for ever.
            unsafe { libc::alarm(10) };
            assert!(matches!(here.send(vec![2]), Err(SendError::Corrupt(_))));
            assert!(matches!(here.try_send(vec![2]), Err(SendError::Corrupt(_))));
            there.send(vec![3]).unwrap();
            assert_eq!(here.recv().unwrap(), [3]);
        });
        child.join();
        let (sent, received) = tokio::join!(sending, there.recv_async());
        sent.unwrap();
        assert_eq!(received.unwrap(), [1; 50_000]);
    });
}

/// In a sandbox, while the other side has the kernel's barriers and makes none itself: that one may have looked too early.
#[test]
fn a_task_that_cannot_have_the_kernels_barrier_looks_by_itself() {
    let _alone = alone();
    let (here, there) = Numbers::pair().unwrap();
    let child = Child::run(|| {
        here.close().unwrap();
        polyproc_pipe::without_membarrier(true);
        let soon = |timeout| async move { tokio::time::timeout(timeout, there.recv_async()).await };
        let begin = Instant::now();
        let received = one_thread().block_on(soon(Duration::from_secs(15)));
        assert_eq!(received.unwrap().unwrap(), 1);
        assert!(begin.elapsed() < Duration::from_secs(10));
    });
    // The child's, too, is closed when it has ended.
    child.wait_asleep();
    here.send_quietly(1).unwrap();
    child.join();
}

type Courier = Connection<Vec<Numbers>, (), polyproc_pipe::Postcard>;

/// As many messages with descriptors as the socket has room for.
fn fill(here: &Courier, given: &Numbers) -> usize {
    (0..).take_while(|_| here.try_send(vec![given.clone()]).is_ok()).count()
}

/// How long the calling thread works in `f`, which waits.
fn worked<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is writable.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) }, 0);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let before = now();
    (f(), now() - before)
}

#[test]
fn a_task_without_room_for_descriptors_rests_until_there_is_some() {
    let _alone = alone();
    let (kept, given) = Numbers::pair().unwrap();
    // By itself, and while a thread is inside that waits for the same.
    for has_other in [false, true] {
        let (here, there) = Courier::pair().unwrap();
        let sent = fill(&here, &given);
        assert!(sent > 0);
        std::thread::scope(|scope| {
            if has_other {
                scope.spawn(|| here.send(vec![given.clone()]).unwrap());
                std::thread::sleep(Duration::from_millis(20));
            }
            let receiving = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                for _ in 0..=sent + usize::from(has_other) {
                    assert_eq!(there.recv().unwrap().len(), 1);
                }
            });
            let (result, worked) = worked(|| one_thread().block_on(here.send_async(vec![given.clone()])));
            result.unwrap();
            assert!(worked < Duration::from_millis(100), "{worked:?}");
            receiving.join().unwrap();
        });
        // It hears of the end as well.
        fill(&here, &given);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| one_thread().block_on(here.send_async(vec![given.clone()])));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!sending.is_finished());
            drop(there);
            assert!(matches!(sending.join().unwrap(), Err(SendError::Disconnected(_))));
        });
    }
    kept.send(1).unwrap();
    assert_eq!(given.recv().unwrap(), 1);
}

/// Nobody else's descriptors come between, and what is given up is taken back.
#[test]
fn a_task_that_has_sent_some_of_a_messages_descriptors_sends_the_others_or_takes_them_back() {
    let _alone = alone();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for gives_up in [false, true] {
        let pairs: Vec<_> = (0..130).map(|_| Numbers::pair().unwrap()).collect();
        let many = || pairs.iter().map(|(_, there)| there.clone()).collect::<Vec<_>>();
        let (here, there) = Courier::pair().unwrap();
        let most = fill(&here, &pairs[0].1);
        (0..most).for_each(|_| drop(there.recv().unwrap()));
        // Room for one packet more, and there will be two.
        (1..most).for_each(|_| here.try_send(vec![pairs[0].1.clone()]).unwrap());
        one_thread().block_on(async {
            let mut sending = std::pin::pin!(here.send_async(many()));
            let waited = tokio::time::timeout(Duration::from_millis(20), sending.as_mut()).await;
            assert!(waited.is_err());
            assert!(matches!(here.try_send(Vec::new()), Err(SendError::Full(_))));
            let receiving = || {
                for _ in 1..most {
                    assert_eq!(there.recv().unwrap().len(), 1);
                }
            };
            if gives_up {
                return receiving();
            }
            std::thread::scope(|scope| {
                scope.spawn(receiving);
            });
            sending.await.unwrap();
            assert_eq!(there.recv().unwrap().len(), 130);
        });
        let before = open();
        assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
        assert!(if gives_up { open() < before } else { open() == before });
        here.send(many()).unwrap();
        let received = there.recv().unwrap();
        received[129].send(129).unwrap();
        assert_eq!(pairs[129].0.recv().unwrap(), 129);
    }
}
