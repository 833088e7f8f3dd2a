//! Kills a process at every instruction of what it does with a connection.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_pipe -- --nocapture
//! POLYPROC_KILL_FULL=1 cargo test --release -p polyproc-tests --test kill_pipe -- --nocapture
//! ```
//!
//! The victim makes the pipe and sends one end to a peer, so that nobody else has a copy. Whatever it is killed at, the
//! peer receives what was sent, whole and in order, then hears that nobody is left, and sleeps no longer than that.

use polyproc_pipe::{Bytes, Connection, Receiver, RecvError, SendError, Sender, pipe_with_capacity, simplex};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::futex::backstop_rescues;
use polyproc_tests::kill::{Fault, Operation, Outcome, Report, When};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::{one_at_a_time, state};
use polyproc_tests::trace::{Event, Tracee};
use std::sync::mpsc;
use std::time::{Duration, Instant};

type End = Connection<Vec<u8>, Vec<u8>, Bytes>;

struct Scene {
    courier: Sender<End>,
    at_courier: Receiver<End>,
    /// How many messages the peer has received or sent.
    passed: Shared<AtomicU32>,
    /// How many peers have come to their end.
    ended: Shared<AtomicU32>,
}

impl Scene {
    fn new() -> Scene {
        let (courier, at_courier) = simplex().unwrap();
        Scene { courier, at_courier, passed: Shared::new(), ended: Shared::new() }
    }

    /// As the victim, before it begins: its end of a pipe, of which the peer gets the other. Looking was in vain so often
    /// that whoever waits sleeps at once.
    fn end(&self) -> End {
        let (own, given) = pipe_with_capacity(4096).unwrap();
        for _ in 0..10 {
            assert!(matches!(own.recv_timeout(Duration::from_micros(20)), Err(RecvError::Empty)));
        }
        own.send_bytes(&message(0, 16)).unwrap();
        self.courier.send(given).unwrap();
        own
    }

    /// As a survivor: how many messages passed. The peer has come to its end.
    fn survey(&self, phases: &[&'static str]) -> &'static str {
        assert_eq!(self.ended.load(Ordering::Relaxed), 1, "the peer has not come to its end");
        phases[self.passed.load(Ordering::Relaxed) as usize - 1]
    }
}

fn message(number: u8, length: usize) -> Vec<u8> {
    vec![number; length]
}

/// A peer that receives until nobody is left.
fn receiver(length: usize) -> impl Fn(&Scene, &Cues) {
    move |scene, _| {
        let end = scene.at_courier.recv().unwrap();
        for number in 0.. {
            match end.recv() {
                Ok(got) => {
                    let length = if number == 0 { 16 } else { length };
                    assert!(got == message(number, length), "message {number} is damaged");
                    scene.passed.fetch_add(1, Ordering::Relaxed);
                }
                Err(RecvError::Disconnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(matches!(end.send(vec![1]), Err(SendError::Disconnected(bytes)) if bytes == [1]));
        scene.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A peer that sends until nobody is left.
fn sender(length: usize) -> impl Fn(&Scene, &Cues) {
    move |scene, _| {
        let end = scene.at_courier.recv().unwrap();
        assert_eq!(end.recv().unwrap(), message(0, 16));
        for number in 1u8.. {
            match end.send(message(number, length)) {
                Ok(()) => {}
                Err(SendError::Disconnected(back)) => {
                    assert_eq!(back, message(number, length));
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        scene.passed.store(1, Ordering::Relaxed);
        scene.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The victim sends one message of this length.
fn sends(length: usize) -> Operation<Scene> {
    let phases: &[&str] = &["unsent", "sent"];
    Operation::new(format!("send {length} bytes"), Scene::new)
        .victim(move |scene, stage| {
            let end = scene.end();
            let message = message(1, length);
            stage.begin();
            end.send_bytes(&message).unwrap();
            stage.end();
        })
        .peer(receiver(length))
        .check(phases, |scene, _: &Outcome<'_>| scene.survey(&["unsent", "sent"]))
}

#[test]
fn a_send_to_a_sleeping_receiver() {
    let _turn = one_at_a_time();
    sends(16).run().assert_clean();
    sends(0).run().assert_clean();
}

#[test]
fn a_send_that_goes_on_with_a_run() {
    let _turn = one_at_a_time();
    let phases: &[&str] = &["unsent", "sent"];
    let run = || {
        Operation::new("send 8 bytes behind others", Scene::new)
            .victim(move |scene, stage| {
                let end = scene.end();
                // In a burst: the third one begins a run.
                (1..5).for_each(|number| end.send_bytes(&message(number, 8)).unwrap());
                stage.begin();
                end.send_bytes(&message(5, 8)).unwrap();
                stage.end();
            })
            .peer(receiver(8))
            .check(phases, |scene, _: &Outcome<'_>| {
                scene.survey(&["lost", "lost", "lost", "lost", "unsent", "sent"])
            })
            .run()
    };
    // Whether it is a burst goes by the clock: who was interrupted in the middle takes other steps than the times before.
    let took_others = |report: &Report| report.faults().any(|fault| matches!(fault, Fault::Order { .. }));
    let mut report = run();
    for _ in 0..4 {
        if took_others(&report) {
            report = run();
        }
    }
    report.assert_clean();
}

#[test]
fn a_send_in_parts() {
    let _turn = one_at_a_time();
    // Each byte of a long copy is a step.
    sends(6_000).thinly(997).run().assert_clean();
}

/// To a receiver that is behind: some are held back. It looks when the victim is gone.
#[test]
fn a_send_in_parts_that_are_held_back() {
    let _turn = one_at_a_time();
    const LENGTHS: [usize; 3] = [16, 40_000, 600_000];
    Operation::new("send 600,000 bytes behind others", Scene::new)
        .victim(|scene, stage| {
            let (own, given) = pipe_with_capacity(1 << 20).unwrap();
            own.send_bytes(&message(0, LENGTHS[0])).unwrap();
            scene.courier.send(given).unwrap();
            own.send_bytes(&message(1, LENGTHS[1])).unwrap();
            let message = message(2, LENGTHS[2]);
            stage.begin();
            own.send_bytes(&message).unwrap();
            stage.end();
        })
        .peer(|scene: &Scene, cues: &Cues| {
            let end = scene.at_courier.recv().unwrap();
            cues.wait(1);
            for number in 0.. {
                match end.recv() {
                    Ok(got) => {
                        let length = LENGTHS[number as usize];
                        assert!(got == message(number, length), "message {number} is damaged");
                        scene.passed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(RecvError::Disconnected) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            scene.ended.fetch_add(1, Ordering::Relaxed);
        })
        .cue(When::So(|_| false))
        .check(&["unsent", "sent"], |scene, _| scene.survey(&["lost", "unsent", "sent"]))
        // Most steps are those of a long copy.
        .thinly(997)
        .run()
        .assert_clean();
}

#[test]
fn a_receive_and_the_room_that_it_makes() {
    let _turn = one_at_a_time();
    // Each byte of a long copy is a step.
    for (length, every) in [(24, 1), (1_500, 67), (6_000, 1_499)] {
        Operation::new(format!("receive {length} bytes"), Scene::new)
            .victim(move |scene, stage| {
                let end = scene.end();
                // The peer is at its first message, or waits for room.
                stage.begin();
                for number in 1..3 {
                    assert!(end.recv().unwrap() == message(number, length));
                }
                stage.end();
            })
            .peer(sender(length))
            .check(&["told"], |scene, _| scene.survey(&["told"]))
            .thinly(every)
            .run()
            .assert_clean();
    }
}

/// Whether it was closed for sending or not: what was sent before is received, then the end, once and for all; and when the
/// victim is gone, sending to it fails.
#[test]
fn an_end_for_sending() {
    let _turn = one_at_a_time();
    Operation::new("close_send", Scene::new)
        .victim(|scene, stage| {
            let end = scene.end();
            stage.begin();
            end.close_send().unwrap();
            stage.end();
        })
        .peer(|scene: &Scene, _: &Cues| {
            let end = scene.at_courier.recv().unwrap();
            assert_eq!(end.recv().unwrap(), message(0, 16));
            for _ in 0..2 {
                assert!(matches!(end.recv(), Err(RecvError::Disconnected)));
            }
            let refused = loop {
                if let Err(refused) = end.send(vec![1; 100]) {
                    break refused;
                }
            };
            assert!(matches!(refused, SendError::Disconnected(bytes) if bytes == [1; 100]));
            scene.passed.store(1, Ordering::Relaxed);
            scene.ended.fetch_add(1, Ordering::Relaxed);
        })
        .check(&["told"], |scene, _| scene.survey(&["told"]))
        .run()
        .assert_clean();
}

#[test]
fn a_close_and_a_drop() {
    let _turn = one_at_a_time();
    Operation::new("close, drop", Scene::new)
        .victim(|scene, stage| {
            let end = scene.end();
            stage.begin();
            end.close().unwrap();
            drop(end);
            stage.end();
        })
        .peer(receiver(0))
        .check(&["told"], |scene, _| scene.survey(&["told"]))
        .run()
        .assert_clean();
}

/// Stops the sender after so many steps of its last message, until the receiver sleeps or has it. `false` if it makes fewer.
fn falls_asleep_after(steps: u32, before: &[usize], length: usize) -> bool {
    let (here, there): (End, End) = pipe_with_capacity(4096).unwrap();
    let mut sender = Tracee::fork(|stage| {
        before.iter().for_each(|length| there.send_bytes(&message(1, *length)).unwrap());
        let last = message(2, length);
        stage.begin();
        there.send_bytes(&last).unwrap();
        stage.end();
        loop {
            std::thread::park();
        }
    });
    assert_eq!(sender.go(Duration::from_secs(10)), Ok(()));
    let is_on = AtomicU32::new(0);
    let rescues = backstop_rescues();
    let is_there = std::thread::scope(|scope| {
        let (tell, hear) = mpsc::channel();
        let (here, is_on) = (&here, &is_on);
        let receiver = scope.spawn(move || {
            before.iter().for_each(|length| assert!(here.recv().unwrap() == message(1, *length)));
            for _ in 0..10 {
                assert!(matches!(here.recv_timeout(Duration::from_micros(20)), Err(RecvError::Empty)));
            }
            // SAFETY: gettid has no arguments and cannot fail.
            tell.send(unsafe { libc::gettid() } as u32).unwrap();
            while is_on.load(Ordering::Acquire) == 0 {
                core::hint::spin_loop();
            }
            assert!(here.recv().unwrap() == message(2, length));
        });
        let thread = hear.recv().unwrap();
        let stepped = (0..steps).all(|_| sender.step() == Event::Stepped);
        is_on.store(1, Ordering::Release);
        let mut looks = 0;
        while stepped && looks < 2 && !receiver.is_finished() {
            looks = if state(thread) == Some('S') { looks + 1 } else { 0 };
            std::thread::sleep(Duration::from_micros(50));
        }
        if stepped {
            assert_eq!(sender.finish(Duration::from_secs(10)), Some(Event::Marked));
        }
        let begin = Instant::now();
        receiver.join().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(2), "step {steps}");
        stepped
    });
    sender.kill();
    assert_eq!(
        backstop_rescues(),
        rescues,
        "forgotten: it fell asleep after step {steps} of a send of {length} bytes"
    );
    is_there
}

/// In each moment: before the sender looks whether it sleeps, between that and the message, and after it.
#[test]
fn a_receiver_that_falls_asleep_at_any_step_of_a_send_is_woken() {
    let _turn = one_at_a_time();
    // With a run, at a full line, and by itself.
    for (before, length) in [(&[8; 4][..], 8), (&[8; 30], 8), (&[16; 5], 24)] {
        let steps = (0..).take_while(|steps| falls_asleep_after(*steps, before, length)).count();
        println!("a send of {length} bytes behind {} of {}: {steps} steps", before.len(), before[0]);
        assert!((20..2_000).contains(&steps), "{steps}");
    }
}
