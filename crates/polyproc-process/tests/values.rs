//! What goes into a process and what comes out: arguments, handles, return values.

mod common;

use common::{Fd, open_descriptors, watchdog};
use polyproc_memory::{Arena, Kind, Object, Shape};
use polyproc_process::{Builder, JoinError, Process, SpawnError, Stdio, active_children, init_for_tests};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

init_for_tests!();

fn add(a: i32, b: i32) -> i32 {
    a + b
}

#[test]
fn a_function_returns_its_value() {
    let _watchdog = watchdog();
    assert_eq!(Process::spawn(add, (40, 2)).unwrap().join().unwrap(), 42);
}

#[test]
fn a_closure_returns_its_value() {
    let _watchdog = watchdog();
    let process =
        Process::spawn(|text: String, times: u64| text.repeat(times as usize), ("ab".into(), 3)).unwrap();
    assert_eq!(process.join().unwrap(), "ababab");
}

#[test]
fn different_functions_are_told_apart() {
    let _watchdog = watchdog();
    let one = Process::spawn(|| 1, ()).unwrap();
    let two = Process::spawn(|| 2, ()).unwrap();
    let three = Process::spawn(|n: i32| n, (3,)).unwrap();
    assert_eq!([one.join().unwrap(), two.join().unwrap(), three.join().unwrap()], [1, 2, 3]);
}

/// A function with a type parameter is as many functions as it has types.
fn size<T>(_: T) -> usize {
    size_of::<T>()
}

#[test]
fn generic_functions_know_their_types() {
    let _watchdog = watchdog();
    assert_eq!(Process::spawn(size::<u8>, (1,)).unwrap().join().unwrap(), 1);
    assert_eq!(Process::spawn(size::<u64>, (1,)).unwrap().join().unwrap(), 8);
}

#[test]
fn no_argument_and_twelve() {
    let _watchdog = watchdog();
    Process::spawn(|| (), ()).unwrap().join().unwrap();
    #[expect(clippy::too_many_arguments)]
    fn twelve(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8, l: u8) -> Vec<u8> {
        vec![a, b, c, d, e, f, g, h, i, j, k, l]
    }
    let process = Process::spawn(twelve, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)).unwrap();
    assert_eq!(process.join().unwrap(), (1..=12).collect::<Vec<u8>>());
}

#[test]
fn structs_maps_and_results_travel() {
    let _watchdog = watchdog();
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Job {
        name: String,
        weights: BTreeMap<String, f64>,
    }
    fn heaviest(job: Job) -> Result<String, String> {
        let heaviest = job.weights.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        heaviest.map(|(name, _)| name).ok_or(job.name)
    }
    let weights = BTreeMap::from([("feather".to_string(), 0.01), ("anvil".to_string(), 70.0)]);
    let full = Process::spawn(heaviest, (Job { name: "full".into(), weights },)).unwrap();
    let empty = Process::spawn(heaviest, (Job { name: "empty".into(), weights: BTreeMap::new() },)).unwrap();
    assert_eq!(full.join().unwrap(), Ok("anvil".to_string()));
    assert_eq!(empty.join().unwrap(), Err("empty".to_string()));
}

/// Anything that is neither constant nor periodic.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn large_arguments_and_values_travel() {
    let _watchdog = watchdog();
    fn reversed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }
    for length in [60 << 10, (64 << 10) - 64, 64 << 10, 10 << 20] {
        let bytes = pattern(length);
        let mut received = Process::spawn(reversed, (bytes.clone(),)).unwrap().join().unwrap();
        received.reverse();
        assert!(received == bytes, "{length} bytes");
    }
}

#[test]
fn a_large_value_does_not_wait_for_the_join() {
    let _watchdog = watchdog();
    let process = Process::spawn(pattern, (10 << 20,)).unwrap();
    // The process ends by itself, though nobody has asked for its value yet.
    let mut poll = [nix::poll::PollFd::new(process.sentinel(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut poll, 30_000u16).unwrap(), 1);
    assert!(process.join().unwrap() == pattern(10 << 20));
}

#[test]
fn handles_speak_of_the_same_memory() {
    let _watchdog = watchdog();
    let arena = Arena::new(1 << 20).unwrap();
    fn allocate(arena: Arena, same: Arena) -> (Arena, bool) {
        let shape = Shape {
            kind: Kind::new("test"),
            code: 0,
            element: Layout::new::<u64>(),
            count: 1,
            payload: Layout::new::<u64>(),
            lock: false,
        };
        let object = Object::create(Some(&arena), &shape).unwrap();
        drop(object);
        let same = arena.used() == same.used();
        (arena, same)
    }
    let before = arena.used();
    let process = Process::spawn(allocate, (arena.clone(), arena.clone())).unwrap();
    let (returned, same) = process.join().unwrap();
    assert!(same);
    assert!(arena.used() > before);
    assert_eq!(returned.used(), arena.used());
}

#[test]
fn a_handle_made_in_the_child_outlives_it() {
    let _watchdog = watchdog();
    let process = Process::spawn(|| Arena::new(12_345).unwrap(), ()).unwrap();
    let arena = process.join().unwrap();
    assert!(!process.is_alive());
    assert!(arena.capacity() >= 12_345);
}

#[test]
fn hundreds_of_descriptors_travel_both_ways() {
    let _watchdog = watchdog();
    fn write_numbers(pipes: Vec<Fd>) -> Vec<Fd> {
        let mut files: Vec<_> = pipes.into_iter().map(Fd::file).collect();
        for (number, file) in files.iter_mut().enumerate() {
            file.write_all(&(number as u32).to_le_bytes()).unwrap();
        }
        files.into_iter().map(|file| Fd(file.into())).collect()
    }
    let (mut reader, writer) = io::pipe().unwrap();
    let pipes: Vec<_> = (0..300).map(|_| Fd::of(&writer)).collect();
    drop(writer);
    let process = Process::spawn(write_numbers, (pipes,)).unwrap();
    let returned = process.join().unwrap();
    assert_eq!(returned.len(), 300);
    let mut last = returned.into_iter().next_back().unwrap().file();
    last.write_all(b"last").unwrap();
    drop(last);
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    let expected: Vec<u8> = (0..300u32).flat_map(u32::to_le_bytes).chain(*b"last").collect();
    assert_eq!(said, expected);
}

/// A value that goes wrong on its way.
#[derive(Debug)]
enum Bad {
    /// Cannot be serialised.
    Mute,
    /// Can be serialised, but not read.
    Garbled,
}

impl Serialize for Bad {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Bad::Mute => Err(serde::ser::Error::custom("mute")),
            Bad::Garbled => serializer.serialize_u32(1),
        }
    }
}

impl<'de> Deserialize<'de> for Bad {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bad, D::Error> {
        u32::deserialize(deserializer)?;
        Err(serde::de::Error::custom("garbled"))
    }
}

/// In a child, where no other test opens descriptors or starts processes.
#[test]
fn arguments_that_cannot_be_sent_leave_nothing_behind() {
    let _watchdog = watchdog();
    fn try_it() -> (String, bool, usize) {
        let before = open_descriptors();
        let error = Process::spawn(|_: Fd, _: Bad| (), (Fd::of(io::stdout()), Bad::Mute)).unwrap_err();
        assert!(matches!(error, SpawnError::Encode(_)), "{error}");
        (error.to_string(), open_descriptors() == before, active_children().len())
    }
    let (message, same, children) = Process::spawn(try_it, ()).unwrap().join().unwrap();
    assert!(message.starts_with("cannot serialise the arguments: "), "{message}");
    assert!(same, "descriptors stayed open");
    assert_eq!(children, 0);
}

#[test]
fn arguments_that_cannot_be_read_are_an_error_of_join() {
    let _watchdog = watchdog();
    let process = Process::spawn(|_: Bad| (), (Bad::Garbled,)).unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(error, JoinError::Arguments(_)), "{error}");
    assert_eq!(process.exit_status().unwrap().code(), Some(1));
}

#[test]
fn values_that_cannot_be_sent_or_read_are_errors_of_join() {
    let _watchdog = watchdog();
    let mute = Process::spawn(|| Bad::Mute, ()).unwrap();
    let garbled = Process::spawn(|| Bad::Garbled, ()).unwrap();
    let (mute_error, garbled_error) = (mute.join().unwrap_err(), garbled.join().unwrap_err());
    assert!(matches!(mute_error, JoinError::Encode(_)), "{mute_error}");
    assert!(matches!(garbled_error, JoinError::Decode(_)), "{garbled_error}");
    assert_eq!(mute.exit_status().unwrap().code(), Some(1));
    // There, everything was all right.
    assert_eq!(garbled.exit_status().unwrap().code(), Some(0));
}

#[test]
fn a_descriptor_that_is_no_region_says_so() {
    let _watchdog = watchdog();
    /// Serialised as a plain descriptor, read as an arena.
    #[derive(Debug)]
    struct Disguised;
    impl Serialize for Disguised {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            Fd::of(io::stdout()).serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Disguised {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Disguised, D::Error> {
            Arena::deserialize(deserializer).map(|_| Disguised)
        }
    }
    let error = Process::spawn(|_: Disguised| (), (Disguised,)).unwrap().join().unwrap_err();
    let expected = "cannot read the arguments: ";
    let reason =
        error.to_string().strip_prefix(expected).map(str::to_string).unwrap_or_else(|| panic!("{error}"));
    // The format's own message, which says nothing, is not what we get.
    assert!(!reason.to_lowercase().contains("serde"), "{reason}");
}

#[test]
fn a_panic_while_reading_the_arguments_is_a_panic() {
    let _watchdog = watchdog();
    #[derive(Serialize)]
    struct Explosive;
    impl<'de> Deserialize<'de> for Explosive {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Explosive, D::Error> {
            panic!("boom")
        }
    }
    let process = Builder::new().stderr(Stdio::null()).spawn(|_: Explosive| (), (Explosive,)).unwrap();
    let error = process.join().unwrap_err();
    assert!(matches!(&error, JoinError::Panicked { message, .. } if message == "boom"), "{error}");
}

#[test]
fn threads_can_spawn_at_the_same_time() {
    let _watchdog = watchdog();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..20 {
                    let process = Process::spawn(add, (1000 * thread, round)).unwrap();
                    assert_eq!(process.join().unwrap(), 1000 * thread + round);
                }
            });
        }
    });
}
