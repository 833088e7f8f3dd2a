//! Kills a process at every instruction of every operation of a queue.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill_queue -- --nocapture
//! POLYPROC_KILL_FULL=1 cargo test --release -p polyproc-tests --test kill_queue -- --nocapture
//! ```
//!
//! Every message has a number, and says it from its first byte to its last. Whatever a living process has put is received
//! once by a living process, unless the victim took it; what the victim puts is there or not, as the phase says.

use polyproc_queue::{Bytes, GetError, JoinableQueue, PutError, Queue, Raw};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use polyproc_sys::thread;
use polyproc_tests::kill::{Operation, Outcome, When, is_full};
use polyproc_tests::shared::{Cues, Shared};
use polyproc_tests::system::one_at_a_time;
use std::time::Duration;

/// Short enough for many, long enough to be noticed as a wait.
const MOMENT: Duration = Duration::from_micros(20);
/// So long is nothing to happen before the helper helps.
const STILL: Duration = Duration::from_micros(400);
/// A message that leaves no room for another in the smallest segment.
const LARGE: usize = 40_000;

/// With one of sixteen bytes beside it, the smallest segment is full.
const FILL: usize = (64 << 10) - 24 - 8;
/// Three of these leave room for no message in the smallest segment.
const THIRD: usize = ((64 << 10) - 16) / 3 - 8;

/// The victim's first number. Those below are put before it comes, or by peers.
const VICTIM: u32 = 100;
/// The helper's first number.
const HELPER: u32 = 200;
const NUMBERS: usize = 256;

type Act = fn(&Scene);
type Tally = [AtomicU32; NUMBERS];

struct Scene {
    queue: JoinableQueue<Vec<u8>, Bytes>,
    /// How often each number was put by the living, and how often received.
    put: Shared<Books>,
    got: Shared<Books>,
    /// How many peers have gone on.
    passed: Shared<AtomicU32>,
}

struct Books(Tally);

impl Default for Books {
    fn default() -> Books {
        Books([const { AtomicU32::new(0) }; NUMBERS])
    }
}

fn message(number: u32, length: usize) -> Vec<u8> {
    vec![number as u8; length]
}

/// What a survivor has found.
struct Found {
    /// Put by the living, and gone.
    lost: Vec<u32>,
    /// What the victim has put.
    victims: Vec<u32>,
}

impl Scene {
    fn with(queue: JoinableQueue<Vec<u8>, Bytes>) -> Scene {
        Scene { queue, put: Shared::new(), got: Shared::new(), passed: Shared::new() }
    }

    fn new() -> Scene {
        Scene::with(JoinableQueue::new().unwrap())
    }

    fn bounded(messages: usize) -> Scene {
        Scene::with(JoinableQueue::bounded(messages).unwrap())
    }

    /// So many bytes, of which the smallest segment has 64 KiB.
    fn bytes(bytes: u64) -> Scene {
        Scene::with(JoinableQueue::with_max_bytes(bytes).unwrap())
    }

    /// With so many messages in it, from number 0 on.
    fn holding(self, count: u32) -> Scene {
        (0..count).for_each(|number| self.put(number, 16));
        self
    }

    /// Looking for news was in vain so often that those who wait sleep at once: fewer steps.
    fn weary(self) -> Scene {
        for _ in 0..10 {
            if self.queue.is_empty() {
                assert!(matches!(self.queue.get_timeout(MOMENT), Err(GetError::Empty)));
            }
            if self.queue.is_full() {
                assert!(matches!(self.queue.put_timeout(vec![0], MOMENT), Err(PutError::Full(_))));
            }
        }
        self
    }

    fn put(&self, number: u32, length: usize) {
        self.queue.put(message(number, length)).unwrap();
        self.put.0[number as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn receive(&self, message: &[u8]) {
        let number = message.first().copied().expect("no message of this test is empty");
        assert!(message.iter().all(|byte| *byte == number), "a message is damaged: {message:?}");
        self.got.0[usize::from(number)].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) {
        self.receive(&self.queue.get().unwrap());
    }

    fn pass(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    fn passed(&self) -> u32 {
        self.passed.load(Ordering::Relaxed)
    }

    /// As a survivor: so many peers have gone on, the queue has what its length says, and it goes on as ever.
    fn survey(&self, peers: u32, outcome: &Outcome<'_>) -> Found {
        assert_eq!(self.passed(), peers, "not all peers have gone on");
        let there = self.queue.len();
        assert_eq!(self.queue.is_empty(), there == 0);
        let mut last = None;
        for nth in 0..there {
            let message = match self.queue.try_get() {
                Ok(message) => message,
                Err(error) => panic!("message {nth} of {there}: {error}, {:?}", self.queue),
            };
            self.receive(&message);
            // What was claimed comes first, and then all is in the order in which it was put, before the victim came.
            if message[0] < 50 && nth > 0 {
                assert!(last < Some(message[0]), "{last:?} before {}", message[0]);
                last = Some(message[0]);
            }
        }
        match self.queue.try_get() {
            Err(GetError::Empty) if !self.queue.is_closed() => {}
            Err(GetError::Closed) if self.queue.is_closed() => {}
            other => panic!("{other:?} after {there} messages: {:?}", self.queue),
        }
        assert_eq!(self.queue.len(), 0);
        let mut found = Found { lost: vec![], victims: vec![] };
        for (number, (put, got)) in self.put.0.iter().zip(&self.got.0).enumerate() {
            let (put, got) = (put.load(Ordering::Relaxed), got.load(Ordering::Relaxed));
            let is_victims = (VICTIM..HELPER).contains(&(number as u32));
            assert!(got <= put || is_victims && got == 1, "{number} was received {got} times");
            if put > got {
                found.lost.push(number as u32);
            }
            if is_victims && got == 1 {
                found.victims.push(number as u32);
            }
        }
        if !self.queue.is_closed() {
            self.use_it();
            outcome.heals(|| {
                self.queue.put(vec![7]).unwrap();
                assert_eq!(self.queue.get().unwrap(), [7]);
            });
        }
        found
    }

    /// All its room is there, through all its segments, and nothing is where it should not be.
    fn use_it(&self) {
        let most = self.queue.capacity().unwrap_or(7).min(7);
        for length in [24, LARGE] {
            let mut count = 0;
            while count < most {
                match self.queue.try_put(message(count as u8 as u32, length)) {
                    Ok(()) => count += 1,
                    Err(PutError::Full(_)) if length == LARGE && count > 0 => break,
                    Err(error) => panic!("{error}, with {count} in it: {:?}", self.queue),
                }
            }
            for number in 0..count {
                assert_eq!(self.queue.try_get().unwrap(), message(number as u32, length));
            }
        }
        assert!(self.queue.is_empty());
    }
}

/// What the victim puts is there or not, and nothing else has changed. Beside others, its way is not always the same, and
/// so neither is the step from which on it is there.
fn is_put(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        let found = scene.survey(peers, outcome);
        assert_eq!(found.lost, []);
        match found.victims.len() {
            _ if peers != 0 => "either",
            0 => "absent",
            _ => "present",
        }
    }
}

/// The victim takes so many, or none. As above.
fn is_taken(count: usize, peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        let found = scene.survey(peers, outcome);
        match found.lost.len() {
            lost if lost != 0 && lost != count => panic!("{lost} are gone"),
            _ if peers != 0 => "either",
            0 => "there",
            _ => "taken",
        }
    }
}

/// The victim takes one or not, where its way is not always the same: how others come and go decides about it.
fn at_most_taken(count: usize, peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        let lost = scene.survey(peers, outcome).lost;
        assert!(lost.len() <= count, "{lost:?} are gone");
        "either"
    }
}

/// Nothing is lost, whatever happens.
fn is_whole(peers: u32) -> impl Fn(&Scene, &Outcome<'_>) -> &'static str {
    move |scene, outcome| {
        assert_eq!(scene.survey(peers, outcome).lost, []);
        "whole"
    }
}

/// The victim acts on the queue.
fn operation(
    name: impl Into<String>,
    setup: impl Fn() -> Scene + 'static,
    act: impl Fn(&Scene) + 'static,
) -> Operation<Scene> {
    // What the dynamic linker binds at its first use is bound here, and not in some plays only.
    let warm = Scene::new().holding(3);
    warm.queue.get_many(2).unwrap();
    drop(warm.queue.get_ref().unwrap());
    Operation::new(name, setup).victim(move |scene, stage| {
        // The first use of a thread is not stepped through each time.
        thread::current();
        // Nor is how the allocator finds memory for small messages, which differs from play to play.
        drop((0..7).map(|_| message(0, 16)).collect::<Vec<_>>());
        stage.begin();
        act(scene);
        stage.end();
    })
}

fn put_one(scene: &Scene) {
    scene.queue.put(message(VICTIM, 16)).unwrap();
}

fn get_one(scene: &Scene) {
    scene.queue.get().unwrap();
}

/// A peer that gets one.
fn getter(scene: &Scene, _: &Cues) {
    scene.get();
    scene.pass();
}

/// A peer that gets one, from its cue on.
fn getter_at(cue: u32) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        scene.get();
        scene.pass();
    }
}

/// A peer that puts one, from its cue on.
fn putter_at(cue: u32, number: u32, length: usize) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(cue);
        scene.put(number, length);
        scene.pass();
    }
}

/// A peer that comes when the victim is gone: sees to it that so many go on, but only by what the dead owe nobody. As
/// long as there is something that somebody could go on with, it does nothing.
fn helper(peers: u32, act: fn(&Scene) -> bool) -> impl Fn(&Scene, &Cues) {
    move |scene, cues| {
        cues.wait(u32::MAX);
        while scene.passed() < peers {
            let before = scene.passed();
            std::thread::sleep(STILL);
            if scene.passed() == before {
                act(scene);
            }
        }
    }
}

/// Puts one if there is none.
fn feed(scene: &Scene) -> bool {
    let is_due = scene.queue.is_empty();
    if is_due {
        let put = scene.put.0[HELPER as usize..].iter().take_while(|put| put.load(Ordering::Relaxed) != 0);
        scene.put(HELPER + put.count() as u32, 16);
    }
    is_due
}

/// Takes one if there is no room.
fn drain(scene: &Scene) -> bool {
    let is_due = scene.queue.is_full();
    if is_due {
        scene.get();
    }
    is_due
}

/// Some of them, unless all are asked for.
fn some(steps: u32, count: u32) -> impl Iterator<Item = u32> {
    (0..steps).step_by(if is_full() { 1 } else { (steps / count + 1) as usize })
}

#[test]
fn put() {
    let _turn = one_at_a_time();
    operation("put", Scene::new, put_one).check(&["absent", "present"], is_put(0)).run().assert_clean();
    for asleep in 1..=3 {
        let mut put = operation(format!("put, {asleep} asleep"), || Scene::new().weary(), put_one);
        for _ in 0..asleep {
            put = put.peer(getter);
        }
        put.peer(helper(asleep, feed))
            .check(&["either"], is_put(asleep))
            .thinly(if asleep == 2 { 2 } else { 6 })
            .run()
            .assert_clean();
    }
}

/// A consumer comes at every step of the producer.
#[test]
fn put_for_one_that_comes_at_any_time() {
    let _turn = one_at_a_time();
    let steps = operation("put", Scene::new, put_one).run().steps();
    for step in some(steps, 6) {
        operation(format!("put, one comes after step {step}"), || Scene::new().weary(), put_one)
            .peer(getter)
            .peer(getter_at(1))
            .peer(helper(2, feed))
            .cue(When::Step(step))
            .thinly(5)
            .check(&["either"], is_put(2))
            .run()
            .assert_clean();
    }
}

#[test]
fn put_into_a_full_queue() {
    let _turn = one_at_a_time();
    let full = || Scene::bounded(2).holding(2).weary();
    operation("put, full, one is taken while asleep", full, put_one)
        .peer(getter_at(1))
        .cue(When::Asleep)
        .thinly(120)
        .check(&["either"], is_put(1))
        .run()
        .assert_clean();
    operation("put, full, another asleep before", full, put_one)
        .peer(putter_at(0, 10, 16))
        .peer(getter_at(1))
        .peer(getter_at(2))
        .peer(helper(3, drain))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(120)
        .check(&["either"], is_put(3))
        .run()
        .assert_clean();
    operation("put, full, another asleep behind", full, put_one)
        .peer(putter_at(1, 10, 16))
        .peer(getter_at(2))
        .peer(helper(2, drain))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(120)
        .check(&["either"], is_put(2))
        .run()
        .assert_clean();
}

#[test]
fn get() {
    let _turn = one_at_a_time();
    operation("get", || Scene::new().holding(2), get_one)
        .check(&["there", "taken"], is_taken(1, 0))
        .run()
        .assert_clean();
    for asleep in 1..=3 {
        let full = || Scene::bounded(2).holding(2).weary();
        let mut get = operation(format!("get, {asleep} asleep for room"), full, get_one);
        for number in 0..asleep {
            get = get.peer(putter_at(0, 60 + number, 16));
        }
        get.peer(helper(asleep, drain))
            .check(&["either"], is_taken(1, asleep))
            .thinly(if asleep == 2 { 2 } else { 6 })
            .run()
            .assert_clean();
    }
}

#[test]
fn get_from_an_empty_queue() {
    let _turn = one_at_a_time();
    let empty = || Scene::new().weary();
    operation("get, empty, put while asleep", empty, get_one)
        .peer(putter_at(1, 0, 16))
        .cue(When::Asleep)
        .thinly(40)
        .check(&["either"], is_taken(1, 1))
        .run()
        .assert_clean();
    operation("get, empty, another asleep before", empty, get_one)
        .peer(getter)
        .peer(putter_at(1, 0, 16))
        .peer(putter_at(2, 1, 16))
        .peer(helper(3, feed))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(40)
        .check(&["either"], is_taken(1, 3))
        .run()
        .assert_clean();
    operation("get, empty, another asleep behind", empty, get_one)
        .peer(getter_at(1))
        .peer(putter_at(2, 0, 16))
        .peer(helper(2, feed))
        .cue(When::Asleep)
        .cue(When::Next)
        .thinly(40)
        .check(&["either"], is_taken(1, 2))
        .run()
        .assert_clean();
    operation("get, empty, what is put is stolen", empty, get_one)
        .peer(putter_at(1, 0, 16))
        .peer(|scene, cues| {
            cues.wait(1);
            if let Ok(message) = scene.queue.try_get() {
                scene.receive(&message);
            }
            cues.wait(2);
            scene.put(1, 16);
        })
        .cue(When::Asleep)
        .cue(When::Asleep)
        .thinly(80)
        .check(&["either"], at_most_taken(1, 1))
        .run()
        .assert_clean();
}

/// A message is put at every step of a consumer on its way to sleep, with another asleep.
#[test]
fn get_for_which_a_message_comes_at_any_time() {
    let _turn = one_at_a_time();
    let empty = || Scene::new().weary();
    let steps = operation("get, empty", empty, get_one)
        .peer(putter_at(1, 0, 16))
        .cue(When::Asleep)
        .thinly(100)
        .run()
        .first_sleep();
    for step in some(steps, 8) {
        operation(format!("get, empty, put after step {step}"), empty, get_one)
            .peer(getter)
            .peer(putter_at(1, 0, 16))
            .peer(putter_at(1, 1, 16))
            .peer(helper(3, feed))
            .cue(When::Step(step))
            .thinly(60)
            .check(&["either"], is_taken(1, 3))
            .run()
            .assert_clean();
    }
}

#[test]
fn many_at_once() {
    let _turn = one_at_a_time();
    let put_many = |scene: &Scene| {
        scene.queue.put_many((0..5).map(|nth| message(VICTIM + nth, 16))).unwrap();
    };
    operation("put_many, 3 asleep", || Scene::new().weary(), put_many)
        .peer(getter)
        .peer(getter)
        .peer(getter)
        .peer(helper(3, feed))
        .thinly(32)
        .check(&["absent", "present"], |scene, outcome| {
            let found = scene.survey(3, outcome);
            match found.victims.len() {
                0 => "absent",
                5 => "present",
                some => panic!("{some} of 5"),
            }
        })
        .run()
        .assert_clean();
    operation("put_many, through a full queue", || Scene::bounded(3).weary(), put_many)
        .peer(|scene, cues| {
            cues.wait(1);
            // As many as the victim has put, sooner or later.
            for _ in 0..3 {
                match scene.queue.get_timeout(Duration::from_millis(20)) {
                    Ok(message) => scene.receive(&message),
                    Err(error) => assert!(matches!(error, GetError::Empty)),
                }
            }
        })
        .cue(When::Asleep)
        .thinly(250)
        .check(&["either"], |scene, outcome| {
            let found = scene.survey(0, outcome);
            assert!(found.victims.iter().copied().eq(VICTIM..VICTIM + found.victims.len() as u32));
            assert!([0, 3, 4, 5].contains(&found.victims.len()), "{:?}", found.victims);
            "either"
        })
        .run()
        .assert_clean();
    operation(
        "get_many, 3 asleep for room",
        || Scene::bounded(5).holding(5).weary(),
        |scene| {
            assert_eq!(scene.queue.get_many(4).unwrap().len(), 4);
        },
    )
    .peer(putter_at(0, 60, 16))
    .peer(putter_at(0, 61, 16))
    .peer(putter_at(0, 62, 16))
    .peer(helper(3, drain))
    .thinly(7)
    .check(&["either"], is_taken(4, 3))
    .run()
    .assert_clean();
}

#[test]
fn segments() {
    let _turn = one_at_a_time();
    let filled = || {
        let scene = Scene::bytes(1 << 20);
        scene.put(0, FILL);
        scene
    };
    let full = move || {
        let scene = filled();
        scene.put(1, 16);
        scene
    };
    // What the allocator does in between is not always the same, so nor is the step from which on it is there.
    operation("put, grows", full, put_one)
        .check(&["either"], |scene, outcome| {
            assert_eq!(scene.survey(0, outcome).lost, []);
            "either"
        })
        .run()
        .assert_clean();
    operation("put_many, grows in the middle", filled, |scene| {
        scene.queue.put_many((0..4).map(|nth| message(VICTIM + nth, 16))).unwrap();
    })
    .thinly(3)
    .check(&["either"], |scene, outcome| {
        let found = scene.survey(0, outcome);
        assert_eq!(found.lost, []);
        match found.victims[..] {
            [] | [VICTIM] | [_, _, _, _] => "either",
            _ => panic!("{:?}", found.victims),
        }
    })
    .run()
    .assert_clean();
    let grown = move || {
        let scene = full();
        scene.put(2, 16);
        scene.get();
        scene
    };
    operation("get, the last of a segment and the first of the next", grown, |scene| {
        scene.queue.get().unwrap();
        scene.queue.get().unwrap();
    })
    .check(&["there", "one", "two"], |scene, outcome| {
        let lost = scene.survey(0, outcome).lost;
        assert!(lost.iter().copied().eq(1..1 + lost.len() as u32), "{lost:?}");
        ["there", "one", "two"][lost.len()]
    })
    .run()
    .assert_clean();
    operation("get_many, beyond the end of a segment", grown, |scene| {
        assert_eq!(scene.queue.get_many(2).unwrap().len(), 2);
    })
    .check(&["there", "one", "two"], |scene, outcome| {
        let lost = scene.survey(0, outcome).lost;
        assert!(lost.iter().copied().eq(1..1 + lost.len() as u32), "{lost:?}");
        ["there", "one", "two"][lost.len()]
    })
    .run()
    .assert_clean();
    let drained = move || {
        let scene = grown();
        scene.get();
        scene
    };
    operation("get, the last, and shrinks", drained, get_one)
        .check(&["there", "taken"], is_taken(1, 0))
        .run()
        .assert_clean();
    // Producers come first, and fill the smallest: not everything that the dead one left is given back, then.
    operation("get, the last, and shrinks, before it grows", drained, get_one)
        .check(&["there", "taken"], |scene, outcome| {
            scene.put(60, FILL);
            (61..65).for_each(|number| scene.put(number, 16));
            is_taken(1, 0)(scene, outcome)
        })
        .run()
        .assert_clean();
    // It has gone farther before: what the segments say that lies behind is old.
    let drained_again = || {
        let scene = Scene::bytes(1 << 20);
        scene.queue.put_many([message(0, FILL), message(0, FILL), message(0, 2 * FILL)]).unwrap();
        assert_eq!(scene.queue.get_many(3).unwrap().len(), 3);
        // So many that it goes back at the first drain again, as soon as that is.
        for _ in 0..1_100 {
            scene.queue.put(message(0, 16)).unwrap();
            scene.queue.get().unwrap();
        }
        scene.put(0, FILL);
        (1..4).for_each(|number| scene.put(number, 16));
        (0..3).for_each(|_| scene.get());
        scene
    };
    operation("get, the last, and shrinks, as it did before", drained_again, get_one)
        .check(&["there", "taken"], is_taken(1, 0))
        .run()
        .assert_clean();
    let behind = || {
        let scene = Scene::bytes(1 << 16);
        (0..3).for_each(|number| scene.put(number, THIRD));
        (0..2).for_each(|_| scene.get());
        scene
    };
    operation("put, wraps", behind, put_one).check(&["absent", "present"], is_put(0)).run().assert_clean();
}

/// Bytes are what there is too little of: the room of what was taken is there, whoever died when.
#[test]
fn room_for_bytes() {
    let _turn = one_at_a_time();
    let full = || {
        let scene = Scene::bytes(1 << 16);
        scene.put(0, 16);
        scene.put(1, FILL);
        for _ in 0..10 {
            assert!(scene.queue.put_timeout(message(0, 16), MOMENT).is_err());
        }
        scene
    };
    // Nothing was taken, or all that was put in place of it is there.
    let take = |scene: &Scene| {
        let is_due = scene.queue.len() == 2;
        if is_due {
            scene.get();
        }
        is_due
    };
    let acts: [(&str, Act); 3] = [
        ("get, one asleep for bytes", get_one),
        ("get_ref, one asleep for bytes", |scene| drop(scene.queue.get_ref().unwrap())),
        ("claim, acknowledge, one asleep for bytes", |scene| drop(scene.queue.claim().unwrap().ack())),
    ];
    for (name, act) in acts {
        operation(name, full, act)
            .peer(putter_at(0, 60, 16))
            .peer(helper(1, take))
            .thinly(3)
            .check(&["either"], is_taken(1, 1))
            .run()
            .assert_clean();
    }
}

#[test]
fn close() {
    let _turn = one_at_a_time();
    let check = |peers: u32| {
        move |scene: &Scene, outcome: &Outcome<'_>| {
            let helped = scene.put.0[HELPER as usize].load(Ordering::Relaxed) != 0;
            scene.put.0[HELPER as usize].store(0, Ordering::Relaxed);
            assert!(scene.queue.is_closed() || peers == 0);
            let found = scene.survey(peers, outcome);
            assert_eq!(found.lost, []);
            if scene.queue.is_closed() && !helped { "closed" } else { "open" }
        }
    };
    /// Closes it if the victim has not. The note of it is where a put would be noted.
    fn closer(scene: &Scene, cues: &Cues) {
        cues.wait(u32::MAX);
        if !scene.queue.is_closed() {
            scene.put.0[HELPER as usize].store(1, Ordering::Relaxed);
            scene.queue.close();
        }
    }
    let told = |scene: &Scene, _: &Cues| {
        assert!(matches!(scene.queue.get(), Err(GetError::Closed)));
        scene.pass();
    };
    let refused = |scene: &Scene, _: &Cues| {
        assert!(matches!(scene.queue.put(message(60, 16)), Err(PutError::Closed(_))));
        scene.pass();
    };
    operation("close", || Scene::new().holding(2), |scene| scene.queue.close())
        .check(&["open", "closed"], check(0))
        .run()
        .assert_clean();
    operation("close, 3 asleep for messages", || Scene::new().weary(), |scene| scene.queue.close())
        .peer(told)
        .peer(told)
        .peer(told)
        .peer(closer)
        .check(&["open", "closed"], check(3))
        .thinly(4)
        .run()
        .assert_clean();
    let full = || Scene::bounded(2).holding(2).weary();
    operation("close, 3 asleep for room", full, |scene| scene.queue.close())
        .peer(refused)
        .peer(refused)
        .peer(refused)
        .peer(closer)
        .check(&["open", "closed"], check(3))
        .thinly(4)
        .run()
        .assert_clean();
}

/// As long as another claim stands, nobody comes who would put right what the dead one has left, but who sleeps for the room.
#[test]
fn room_beside_a_claim() {
    let _turn = one_at_a_time();
    let take = |scene: &Scene| {
        let message = scene.queue.try_get();
        message.iter().for_each(|message| scene.receive(message));
        message.is_ok()
    };
    Operation::new("acknowledge beside a claim, one asleep for bytes", || {
        let scene = Scene::bytes(1 << 16);
        scene.put(0, 16);
        scene.put(1, 16);
        scene.put(2, FILL - 24);
        for _ in 0..10 {
            assert!(scene.queue.put_timeout(message(0, 16), MOMENT).is_err());
        }
        scene
    })
    .victim(|scene: &Scene, stage| {
        let claim = scene.queue.claim().unwrap();
        stage.begin();
        claim.ack();
        stage.end();
    })
    .peer(|scene, _| {
        let claim = scene.queue.claim().unwrap();
        while scene.passed() == 0 {
            std::thread::sleep(STILL);
        }
        scene.receive(&claim.ack());
        scene.pass();
    })
    .peer(putter_at(0, 60, 16))
    .peer(helper(1, take))
    .check(&["either"], is_taken(1, 2))
    .run()
    .assert_clean();
}

#[test]
fn claims() {
    let _turn = one_at_a_time();
    let two = || Scene::new().holding(2);
    operation("claim", two, |scene| core::mem::forget(scene.queue.claim().unwrap()))
        .check(&["whole"], is_whole(0))
        .run()
        .assert_clean();
    operation("claim, acknowledge", two, |scene| drop(scene.queue.claim().unwrap().ack()))
        .check(&["there", "taken"], is_taken(1, 0))
        .thinly(2)
        .run()
        .assert_clean();
    operation("claim, hand back", two, |scene| drop(scene.queue.claim().unwrap()))
        .check(&["whole"], is_whole(0))
        .run()
        .assert_clean();
    operation("get_ref", two, |scene| drop(scene.queue.get_ref().unwrap()))
        .check(&["there", "taken"], is_taken(1, 0))
        .run()
        .assert_clean();
    operation("two claims, acknowledged in the other order", two, |scene| {
        let (first, second) = (scene.queue.claim().unwrap(), scene.queue.claim().unwrap());
        second.ack();
        first.ack();
    })
    .check(&["there", "one", "two"], |scene, outcome| {
        let found = scene.survey(0, outcome);
        ["there", "one", "two"][found.lost.len()]
    })
    .thinly(6)
    .run()
    .assert_clean();
    // Whoever sleeps gets what the dead had claimed.
    operation(
        "claim, two asleep",
        || Scene::new().weary(),
        |scene| {
            core::mem::forget(scene.queue.claim().unwrap());
        },
    )
    .peer(getter_at(1))
    .peer(getter_at(1))
    .peer(putter_at(2, 0, 16))
    .peer(helper(3, feed))
    .cue(When::Asleep)
    .cue(When::Next)
    .thinly(40)
    .check(&["whole"], is_whole(3))
    .run()
    .assert_clean();
    operation(
        "hand back, two asleep",
        || Scene::new().holding(1).weary(),
        |scene| {
            drop(scene.queue.claim().unwrap());
        },
    )
    .peer(getter_at(1))
    .peer(getter_at(1))
    .peer(helper(2, feed))
    .cue(When::So(|scene| scene.queue.is_empty()))
    .thinly(2)
    .check(&["whole"], is_whole(2))
    .run()
    .assert_clean();
    // The last claim of a closed queue ends, and with it the waits for it.
    operation(
        "acknowledge, closed, two asleep",
        || Scene::new().holding(1).weary(),
        |scene| {
            let claim = scene.queue.claim().unwrap();
            scene.queue.close();
            claim.ack();
        },
    )
    .peer(|scene, cues| {
        cues.wait(1);
        match scene.queue.get() {
            Ok(message) => scene.receive(&message),
            Err(error) => assert!(matches!(error, GetError::Closed)),
        }
        scene.pass();
    })
    .peer(|scene, cues| {
        cues.wait(1);
        match scene.queue.get() {
            Ok(message) => scene.receive(&message),
            Err(error) => assert!(matches!(error, GetError::Closed)),
        }
        scene.pass();
    })
    .peer(|scene, cues| {
        cues.wait(u32::MAX);
        scene.queue.close();
    })
    .cue(When::So(|scene| scene.queue.is_closed()))
    .thinly(9)
    .check(&["either"], at_most_taken(1, 2))
    .run()
    .assert_clean();
}

/// One has claimed a message and died; the victim is the one who gets it again.
#[test]
fn redelivered() {
    let _turn = one_at_a_time();
    let doomed = |scene: &Scene, _: &Cues| core::mem::forget(scene.queue.claim().unwrap());
    let acts: [(&str, Act); 3] = [
        ("get, redelivered", |scene| drop(scene.queue.get().unwrap())),
        ("claim, acknowledge, redelivered", |scene| {
            let claim = scene.queue.claim().unwrap();
            assert!(claim.is_redelivered());
            claim.ack();
        }),
        ("get_many, redelivered and another", |scene| {
            assert_eq!(scene.queue.get_many(2).unwrap().len(), 2);
        }),
    ];
    for (name, act) in acts {
        operation(name, || Scene::new().holding(2), act)
            .doomed_peer(doomed)
            .thinly(2)
            .check(&["there", "taken", "both"], |scene, outcome| {
                ["there", "taken", "both"][scene.survey(0, outcome).lost.len()]
            })
            .run()
            .assert_clean();
    }
}

#[test]
fn messages_in_place() {
    let _turn = one_at_a_time();
    let reserve = |scene: &Scene| {
        let mut place = scene.queue.reserve(16).unwrap();
        place.fill(VICTIM as u8);
        place.commit();
    };
    operation("reserve, commit", Scene::new, reserve)
        .check(&["absent", "present"], is_put(0))
        .run()
        .assert_clean();
    operation("reserve, commit, two asleep", || Scene::new().weary(), reserve)
        .peer(getter)
        .peer(getter)
        .peer(helper(2, feed))
        .thinly(2)
        .check(&["either"], is_put(2))
        .run()
        .assert_clean();
    operation("reserve, another waits", Scene::new, |scene| drop(scene.queue.reserve(16).unwrap()))
        .peer(putter_at(1, 0, 16))
        .cue(When::Step(40))
        .check(&["either"], is_put(1))
        .run()
        .assert_clean();
}

#[test]
fn joining() {
    let _turn = one_at_a_time();
    let one = || {
        let scene = Scene::new().holding(1);
        scene.get();
        (0..10).for_each(|_| assert!(!scene.queue.join_timeout(MOMENT)));
        scene
    };
    let joiner = |scene: &Scene, _: &Cues| {
        scene.queue.join();
        scene.pass();
    };
    let finisher = |scene: &Scene, cues: &Cues| {
        cues.wait(u32::MAX);
        if scene.queue.unfinished() != 0 {
            scene.got.0[HELPER as usize].store(1, Ordering::Relaxed);
            scene.put.0[HELPER as usize].store(1, Ordering::Relaxed);
            scene.queue.task_done().unwrap();
        }
    };
    operation("task_done, 3 join", one, |scene| scene.queue.task_done().unwrap())
        .peer(joiner)
        .peer(joiner)
        .peer(joiner)
        .peer(finisher)
        .check(&["undone", "done"], |scene, outcome| {
            let helped = scene.put.0[HELPER as usize].load(Ordering::Relaxed) != 0;
            assert_eq!(scene.queue.unfinished(), 0);
            assert_eq!(scene.survey(3, outcome).lost, []);
            if helped { "undone" } else { "done" }
        })
        .run()
        .assert_clean();
    operation("join, another joins", one, |scene| scene.queue.join())
        .peer(joiner)
        .peer(|scene, cues| {
            cues.wait(1);
            scene.queue.task_done().unwrap();
        })
        .cue(When::Asleep)
        .thinly(16)
        .check(&["whole"], is_whole(1))
        .run()
        .assert_clean();
}

/// One died with a lock; the victim is the one who takes it over.
#[test]
fn after_a_death() {
    let _turn = one_at_a_time();
    operation("put, after a dead producer", || Scene::new().weary(), put_one)
        .doomed_peer(|scene, _| core::mem::forget(scene.queue.reserve(16).unwrap()))
        .peer(getter)
        .peer(getter)
        .peer(helper(2, feed))
        .thinly(5)
        .check(&["either"], is_put(2))
        .run()
        .assert_clean();
    operation("put, a producer dies while it waits", || Scene::new().weary(), put_one)
        .doomed_peer(|scene, cues| {
            let place = scene.queue.reserve(16).unwrap();
            cues.wait(1);
            core::mem::forget(place);
        })
        .peer(getter)
        .peer(getter)
        .peer(helper(2, feed))
        .cue(When::Asleep)
        .thinly(20)
        .check(&["either"], is_put(2))
        .run()
        .assert_clean();
}

/// Takes both locks so often in a row that they are granted to the calling thread. What is in the queue is in the same order
/// afterwards: there are none, or a divisor of the number of turns.
fn own(scene: &Scene) {
    const TURNS: usize = 140;
    let there = scene.queue.len();
    assert!(there == 0 || TURNS.is_multiple_of(there));
    for _ in 0..TURNS {
        if there == 0 {
            scene.queue.put(message(0, 16)).unwrap();
            scene.queue.get().unwrap();
        } else {
            let message = scene.queue.get().unwrap();
            scene.queue.put(message).unwrap();
        }
    }
    (0..TURNS).for_each(|_| scene.queue.task_done().unwrap());
}

impl Scene {
    /// Both locks are granted to a process that is no part of the play.
    fn owned(self) -> Scene {
        own(&self);
        self
    }
}

/// As [`operation`], by a victim to which both locks are granted.
fn operation_of_the_owner(
    name: impl Into<String>,
    setup: impl Fn() -> Scene + 'static,
    act: impl Fn(&Scene) + 'static,
) -> Operation<Scene> {
    Operation::new(name, setup).victim(move |scene, stage| {
        own(scene);
        drop((0..7).map(|_| message(0, 16)).collect::<Vec<_>>());
        stage.begin();
        act(scene);
        stage.end();
    })
}

#[test]
fn put_by_the_owner() {
    let _turn = one_at_a_time();
    let report = operation_of_the_owner("put, owner", Scene::new, put_one)
        .check(&["absent", "present"], is_put(0))
        .run();
    report.assert_clean();
    let steps = report.steps();
    let shared = operation("put", Scene::new, put_one).run().steps();
    assert!(steps < shared, "an owner takes {steps} steps, and another {shared}");
    for asleep in 1..=2 {
        let mut put =
            operation_of_the_owner(format!("put, owner, {asleep} asleep"), || Scene::new().weary(), put_one);
        for _ in 0..asleep {
            put = put.peer(getter);
        }
        put.peer(helper(asleep, feed)).check(&["either"], is_put(asleep)).thinly(6).run().assert_clean();
    }
    for step in some(steps, 12) {
        operation_of_the_owner(format!("put, owner, another puts after step {step}"), Scene::new, put_one)
            .peer(putter_at(1, 10, 16))
            .cue(When::Step(step))
            .check(&["either"], is_put(1))
            .thinly(3)
            .run()
            .assert_clean();
        operation_of_the_owner(
            format!("put, owner, one falls asleep after step {step}"),
            || Scene::new().weary(),
            put_one,
        )
        .peer(getter_at(1))
        .peer(helper(1, feed))
        .cue(When::Step(step))
        .check(&["either"], is_put(1))
        .thinly(3)
        .run()
        .assert_clean();
    }
}

#[test]
fn get_by_the_owner() {
    let _turn = one_at_a_time();
    let report = operation_of_the_owner("get, owner", || Scene::new().holding(2), get_one)
        .check(&["there", "taken"], is_taken(1, 0))
        .run();
    report.assert_clean();
    let steps = report.steps();
    for step in some(steps, 12) {
        operation_of_the_owner(
            format!("get, owner, another gets after step {step}"),
            || Scene::new().holding(2),
            get_one,
        )
        .peer(getter_at(1))
        .cue(When::Step(step))
        .check(&["either"], is_taken(1, 1))
        .thinly(3)
        .run()
        .assert_clean();
        operation_of_the_owner(
            format!("get, owner, one falls asleep for room after step {step}"),
            || Scene::bounded(2).holding(2).weary(),
            get_one,
        )
        .peer(putter_at(1, 60, 16))
        .peer(helper(1, drain))
        .cue(When::Step(step))
        .check(&["either"], is_taken(1, 1))
        .thinly(3)
        .run()
        .assert_clean();
    }
}

/// The victim takes the lock away from somebody who is not inside.
#[test]
fn taking_the_lock_away() {
    let _turn = one_at_a_time();
    operation("put, owned by another", || Scene::new().owned(), put_one)
        .check(&["absent", "present"], is_put(0))
        .run()
        .assert_clean();
    operation("get, owned by another", || Scene::new().holding(2).owned(), get_one)
        .check(&["there", "taken"], is_taken(1, 0))
        .run()
        .assert_clean();
    operation("get, empty, owned by another, put while asleep", || Scene::new().owned().weary(), get_one)
        .peer(putter_at(1, 0, 16))
        .cue(When::Asleep)
        .thinly(40)
        .check(&["either"], is_taken(1, 1))
        .run()
        .assert_clean();
    operation("put, owned by another, 2 asleep", || Scene::new().owned().weary(), put_one)
        .peer(getter)
        .peer(getter)
        .peer(helper(2, feed))
        .check(&["either"], is_put(2))
        .thinly(4)
        .run()
        .assert_clean();
}

/// A queue of plain data: batches are runs. Seven are in it, from 0 on, as one run, or as one that was taken in part.
struct Plain {
    queue: Queue<u64, Raw>,
}

impl Plain {
    const THERE: u64 = 7;

    fn new() -> Plain {
        let queue = Queue::bounded(64).unwrap();
        queue.put_many(0..Plain::THERE).unwrap();
        Plain { queue }
    }

    /// In the middle of a run.
    fn in_part() -> Plain {
        let queue = Queue::bounded(64).unwrap();
        queue.put_many([100, 101].into_iter().chain(0..Plain::THERE)).unwrap();
        assert_eq!(queue.get_many(2).unwrap(), [100, 101]);
        Plain { queue }
    }

    /// Both locks are granted to the calling thread. What is in the queue is put once more, as one run.
    fn own(&self) {
        let there = self.queue.try_get_many(64).unwrap();
        for number in 0..140 {
            self.queue.put(number).unwrap();
            self.queue.get().unwrap();
        }
        self.queue.put_many(there).unwrap();
    }

    /// What is left, without the first so many of what was there; and then it goes on as ever.
    fn has_lost(&self, extra: &[u64]) -> u64 {
        let left = self.queue.len();
        let got: Vec<u64> = (0..left).map(|_| self.queue.try_get().unwrap()).collect();
        assert!(self.queue.is_empty() && self.queue.try_get().is_err());
        let old = got.iter().copied().take_while(|number| *number < 50).collect::<Vec<_>>();
        assert_eq!(&got[old.len()..], extra);
        let lost = Plain::THERE - old.len() as u64;
        assert!(old.into_iter().eq(lost..Plain::THERE), "{got:?}");
        self.queue.try_put_many(0..64).unwrap();
        assert!(self.queue.try_put(64).is_err(), "it takes 64");
        assert!(self.queue.get_many(10).unwrap().into_iter().eq(0..10));
        assert!(self.queue.get_many(64).unwrap().into_iter().eq(10..64));
        lost
    }
}

fn operation_on_runs(
    name: &'static str,
    setup: fn() -> Plain,
    owner: bool,
    act: fn(&Plain),
) -> Operation<Plain> {
    Operation::new(format!("{name}{}", if owner { ", owner" } else { "" }), setup).victim(
        move |scene: &Plain, stage| {
            thread::current();
            if owner {
                scene.own();
            }
            // How the allocator finds memory is not stepped through each time.
            drop((Vec::<u64>::with_capacity(3), Vec::<u64>::with_capacity(7)));
            stage.begin();
            act(scene);
            stage.end();
        },
    )
}

#[test]
fn runs() {
    let _turn = one_at_a_time();
    let setups: [(fn() -> Plain, bool); 3] =
        [(Plain::new, false), (Plain::in_part, false), (Plain::new, true)];
    for (setup, owner) in setups {
        operation_on_runs("get_many, a part of a run", setup, owner, |scene| {
            assert_eq!(scene.queue.get_many(3).unwrap(), [0, 1, 2]);
        })
        .check(&["there", "taken"], |scene, _| match scene.has_lost(&[]) {
            0 => "there",
            3 => "taken",
            lost => panic!("{lost} are gone"),
        })
        .run()
        .assert_clean();
        operation_on_runs("get_many, a run", setup, owner, |scene| {
            assert!(scene.queue.get_many(7).unwrap().into_iter().eq(0..7));
        })
        .check(&["there", "taken"], |scene, _| match scene.has_lost(&[]) {
            0 => "there",
            7 => "taken",
            lost => panic!("{lost} are gone"),
        })
        .run()
        .assert_clean();
        operation_on_runs("get, twice, out of a run", setup, owner, |scene| {
            assert_eq!((scene.queue.get().unwrap(), scene.queue.get().unwrap()), (0, 1));
        })
        .check(&["there", "one", "two"], |scene, _| ["there", "one", "two"][scene.has_lost(&[]) as usize])
        .run()
        .assert_clean();
        operation_on_runs("put_many, a run", setup, owner, |scene| {
            scene.queue.put_many([100, 101, 102]).unwrap();
        })
        .check(&["absent", "present"], |scene, _| {
            let is_present = scene.queue.len() as u64 != Plain::THERE;
            assert_eq!(scene.has_lost(if is_present { &[100, 101, 102] } else { &[] }), 0);
            if is_present { "present" } else { "absent" }
        })
        .run()
        .assert_clean();
        operation_on_runs("claim and ack, out of a run", setup, owner, |scene| {
            let claim = scene.queue.claim().unwrap();
            assert_eq!(scene.queue.get().unwrap(), 1);
            assert_eq!(claim.ack(), 0);
        })
        .check(&["there", "claimed", "both"], |scene, _| {
            let left = scene.queue.len();
            if left == 6 && scene.queue.try_claim().unwrap().is_redelivered() {
                // It comes first, and the one that was got meanwhile is gone.
                assert_eq!(scene.queue.get().unwrap(), 0);
                assert_eq!(scene.has_lost(&[]), 2);
                return "claimed";
            }
            match scene.has_lost(&[]) {
                0 => "there",
                2 => "both",
                lost => panic!("{lost} are gone"),
            }
        })
        .run()
        .assert_clean();
    }
}
