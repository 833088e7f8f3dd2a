//! Handles travel inside a hand-over, and only there.

mod common;

use common::*;
use polyproc_memory::handover::{self, Descriptor, ReceiveError};
use polyproc_memory::{Arena, AttachError, Object, Shape};
use serde::de::value::SeqDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

/// A handle as a primitive would have it.
#[derive(Clone, Debug)]
struct Number(Object);

impl Number {
    fn new(arena: Option<&Arena>) -> Number {
        Number(Object::create(arena, &NUMBER).unwrap())
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        Object::deserialize(deserializer, |count| Some(Shape { count, ..NUMBER })).map(Number)
    }
}

/// The same, of another kind.
#[derive(Debug)]
struct Bytes(#[allow(dead_code)] Object);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Object::deserialize(deserializer, bytes).map(Bytes)
    }
}

fn owned(descriptors: &[Descriptor]) -> Vec<OwnedFd> {
    descriptors.iter().map(|descriptor| descriptor.as_fd().try_clone_to_owned().unwrap()).collect()
}

fn send(value: &impl Serialize) -> (Vec<u8>, Vec<Descriptor>) {
    let (bytes, descriptors) = handover::send(|| postcard::to_stdvec(value));
    (bytes.unwrap(), descriptors)
}

#[test]
fn a_round_trip_keeps_which_is_which() {
    let arena = Arena::new(1 << 16).unwrap();
    let alone = Number::new(None);
    let (first, second) = (Number::new(Some(&arena)), Number::new(Some(&arena)));
    let (message, descriptors) = send(&(&first, &alone, &second, &arena, &first));
    assert_eq!(descriptors.len(), 2, "one for each region");

    type Message = (Number, Number, Number, Arena, Number);
    let received: Message =
        handover::receive(owned(&descriptors), || postcard::from_bytes(&message).unwrap());
    assert!(received.0.0.same_object(&first.0) && received.4.0.same_object(&first.0));
    assert!(received.1.0.same_object(&alone.0));
    assert!(received.2.0.same_object(&second.0) && !received.2.0.same_object(&first.0));
    assert!(received.3.region().is_same(arena.region()));
    number(&received.2.0).store(7, Ordering::Relaxed);
    assert_eq!(number(&second.0).load(Ordering::Relaxed), 7);
}

#[test]
fn a_process_that_never_had_the_region_gets_it() {
    // The child lets go of all that it inherited, but for the descriptors, and maps the region anew.
    let value = Number::new(None);
    number(&value.0).store(41, Ordering::Relaxed);
    let (message, descriptors) = send(&value);
    let mut received = Some((owned(&descriptors), value, descriptors));
    in_child(|| {
        let (received, value, descriptors) = received.take().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(
            &std::fs::File::from(value.0.region().as_fd().try_clone_to_owned().unwrap()).metadata().unwrap(),
        );
        drop((value, descriptors));
        assert!(maps(&format!(" {inode} ")).is_empty());
        let value: Number = handover::receive(received, || postcard::from_bytes(&message).unwrap());
        assert_eq!(maps(&format!(" {inode} ")).len(), 1);
        number(&value.0).fetch_add(1, Ordering::Relaxed) == 41
    })
    .succeeds();
    let (_received, value, _descriptors) = received.unwrap();
    assert_eq!(number(&value.0).load(Ordering::Relaxed), 42);
}

#[test]
fn outside_of_a_hand_over_it_says_how() {
    let (value, arena) = (Number::new(None), Arena::new(64).unwrap());
    let attempts: [&dyn Fn() -> _; 2] = [&|| postcard::to_stdvec(&value), &|| postcard::to_stdvec(&arena)];
    for attempt in attempts {
        assert!(attempt().is_err());
        let failure = handover::take_failure().unwrap();
        assert!(matches!(failure, ReceiveError::NotInHandover));
        assert_eq!(
            failure.to_string(),
            "a polyproc handle travels only inside a hand-over: pass it as an argument of Process::spawn, or send it \
             through a Connection"
        );
    }
    // A format that keeps messages has it in its own error.
    let format = SeqDeserializer::<_, serde::de::value::Error>::new([0u64, 64].into_iter());
    assert_eq!(Number::deserialize(format).unwrap_err().to_string(), handover::NOT_IN_HANDOVER);
    let (message, _descriptors) = send(&value);
    assert!(postcard::from_bytes::<Number>(&message).is_err());
    assert!(matches!(handover::take_failure(), Some(ReceiveError::NotInHandover)));
    assert!(handover::take_failure().is_none());
    assert!(handover::attach(arena.region().clone().into()).is_none());
    assert!(matches!(handover::region(0), Err(ReceiveError::NotInHandover)));
    assert_eq!(io::Error::from(handover::descriptor(0).unwrap_err()).kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn what_was_not_sent_is_not_received() {
    let value = Number::new(None);
    let (message, descriptors) = send(&value);
    assert!(handover::receive(Vec::new(), || postcard::from_bytes::<Number>(&message)).is_err());
    assert_eq!(
        handover::take_failure().unwrap().to_string(),
        "the message names its descriptor number 0, and 0 came with it"
    );
    let far = postcard::to_stdvec(&(u32::MAX, 64u64)).unwrap();
    assert!(handover::receive(owned(&descriptors), || postcard::from_bytes::<Number>(&far)).is_err());
    assert!(matches!(
        handover::take_failure(),
        Some(ReceiveError::NoDescriptor { index: u32::MAX, count: 1 })
    ));
}

#[test]
fn what_is_something_else_is_named() {
    let value = Number::new(None);
    let (message, descriptors) = send(&value);
    handover::receive(owned(&descriptors), || {
        assert!(postcard::from_bytes::<Bytes>(&message).is_err());
        let failure = handover::take_failure().unwrap();
        assert_eq!(failure.to_string(), "the object is of kind 'number', not 'bytes'");
        assert!(
            matches!(&failure, ReceiveError::Attach(error) if matches!(**error, AttachError::Kind { .. }))
        );
        assert_eq!(io::Error::from(failure).kind(), io::ErrorKind::InvalidData);
    });
    // A descriptor that is no region, asked for twice.
    let (pipe, _other) = io::pipe().unwrap();
    handover::receive(vec![pipe.into()], || {
        for _ in 0..2 {
            let error = handover::region(0).unwrap_err();
            assert_eq!(error.to_string(), "the descriptor is not of a memory file");
        }
    });
}

#[test]
fn other_descriptors_travel_too() {
    let (reader, writer) = io::pipe().unwrap();
    let writer = Descriptor::from(OwnedFd::from(writer));
    let (indices, descriptors) = handover::send(|| {
        let first = handover::attach(writer.clone()).unwrap();
        let other = handover::attach(OwnedFd::from(reader).into()).unwrap();
        (first, other, handover::attach(writer.clone()).unwrap())
    });
    assert_eq!((indices, descriptors.len()), ((0, 1, 0), 2));
    assert_eq!(descriptors[0].as_fd().as_raw_fd(), writer.as_fd().as_raw_fd());
    handover::receive(owned(&descriptors), || {
        let (one, two) = (handover::descriptor(0).unwrap(), handover::descriptor(0).unwrap());
        assert_ne!(one.as_raw_fd(), two.as_raw_fd());
        io::Write::write_all(&mut std::fs::File::from(one), b"x").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut std::fs::File::from(handover::descriptor(1).unwrap()), &mut byte).unwrap();
        assert_eq!(byte, *b"x");
    });
    // Who keeps one has what came, and whoever else wants it a duplicate.
    handover::receive(owned(&descriptors), || {
        let one = handover::kept_descriptor(0).unwrap();
        let number = one.as_raw_fd();
        assert_ne!(handover::kept_descriptor(0).unwrap().as_raw_fd(), number);
        assert_ne!(handover::descriptor(0).unwrap().as_raw_fd(), number);
        drop(one);
        let one = handover::kept_descriptor(0).unwrap();
        assert_eq!(one.as_raw_fd(), number);
        assert!(handover::region(0).is_err());
        io::Write::write_all(&mut std::fs::File::from(one.try_clone().unwrap()), b"x").unwrap();
        assert!(handover::kept_descriptor(0).is_err() && handover::kept_descriptor(2).is_err());
    });
    assert!(handover::kept_descriptor(0).is_err());
    // A region's descriptor can be had after the region was.
    let arena = Arena::new(64).unwrap();
    handover::receive(vec![arena.region().as_fd().try_clone_to_owned().unwrap()], || {
        assert!(handover::region(0).unwrap().is_same(arena.region()));
        assert!(handover::region(0).unwrap().is_same(arena.region()));
        let duplicate = handover::descriptor(0).unwrap();
        assert!(polyproc_memory::Region::from_fd(duplicate).unwrap().is_same(arena.region()));
    });
}

#[test]
fn hand_overs_nest() {
    let (outer, inner) = (Arena::new(64).unwrap(), Arena::new(64).unwrap());
    let ((), descriptors) = handover::send(|| {
        assert_eq!(handover::attach(outer.region().clone().into()), Some(0));
        let ((), inside) = handover::send(|| {
            assert_eq!(handover::attach(inner.region().clone().into()), Some(0));
        });
        assert_eq!(inside.len(), 1);
        handover::receive(owned(&inside), || {
            // The innermost one receives: nothing can be sent in it.
            assert_eq!(handover::attach(inner.region().clone().into()), None);
            assert!(handover::region(0).unwrap().is_same(inner.region()));
        });
        assert!(matches!(handover::region(0), Err(ReceiveError::NotInHandover)));
        assert_eq!(handover::attach(inner.region().clone().into()), Some(1));
        assert_eq!(handover::attach(outer.region().clone().into()), Some(0));
    });
    assert_eq!(descriptors.len(), 2);
}

#[test]
fn a_panic_ends_a_hand_over() {
    let arena = Arena::new(64).unwrap();
    let attach = || handover::attach(arena.region().clone().into());
    let ((), descriptors) = handover::send(|| {
        assert_eq!(attach(), Some(0));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            handover::send(|| {
                assert_eq!(attach(), Some(0));
                handover::receive(Vec::new(), || panic!("on purpose"))
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(attach(), Some(0), "the outer one goes on");
    });
    assert_eq!(descriptors.len(), 1);
    assert_eq!(attach(), None);
}

#[test]
fn a_hand_over_is_its_threads_own() {
    let arena = Arena::new(64).unwrap();
    handover::send(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(handover::attach(arena.region().clone().into()), None));
        });
        assert_eq!(handover::attach(arena.region().clone().into()), Some(0));
    });
}
