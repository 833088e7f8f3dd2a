//! Getting: in order, no sooner and no later, and what does not decode harms nothing else.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_queue::{Bytes, Codec, DecodeError, EncodeError, GetError, GetManyError, Queue, Raw};
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use support::{hand_over, takes, watchdog};

const SOON: Duration = Duration::from_millis(30);
const NOW: Duration = Duration::ZERO;

/// Odd numbers do not decode.
struct Even;

impl Codec<u32> for Even {
    const CODE: u8 = b'e';
    type Copied = Vec<u8>;

    fn encode<R>(message: &u32, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(&message.to_le_bytes()))
    }

    fn copy(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    fn decode(bytes: Vec<u8>) -> Result<u32, DecodeError> {
        let number = u32::from_le_bytes(bytes[..].try_into().unwrap());
        if number % 2 == 1 { Err(DecodeError::new(bytes, "odd")) } else { Ok(number) }
    }
}

#[test]
fn an_empty_queue_says_so_when_the_time_is_over() {
    let _watchdog = watchdog();
    let queue = Queue::<u32>::new().unwrap();
    let is_empty = |result| assert!(matches!(result, Err(GetError::Empty)));
    takes(NOW, || is_empty(queue.try_get()));
    takes(NOW, || is_empty(queue.get_timeout(NOW)));
    takes(NOW, || is_empty(queue.get_until(Instant::now() - SOON)));
    takes(SOON, || is_empty(queue.get_timeout(SOON)));
    takes(SOON, || is_empty(queue.get_until(Instant::now() + SOON)));
    takes(SOON, || assert!(matches!(queue.get_many_timeout(3, SOON), Err(GetManyError::Empty))));
    takes(NOW, || assert!(matches!(queue.try_get_many(3), Err(GetManyError::Empty))));
    takes(SOON, || assert!(matches!(queue.claim_timeout(SOON), Err(GetError::Empty))));
    takes(SOON, || assert!(matches!(queue.get_ref_timeout(SOON), Err(GetError::Empty))));
    assert_eq!(queue.get_many(0).unwrap(), []);
    queue.put(1).unwrap();
    assert_eq!(queue.get_until(Instant::now() - SOON).unwrap(), 1);
}

#[test]
fn a_message_that_does_not_decode_is_an_error_of_its_own() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Even>::bounded(4).unwrap();
    queue.put_many([2, 3, 4]).unwrap();
    assert_eq!(queue.get().unwrap(), 2);
    let error = queue.get().unwrap_err();
    assert_eq!(error.to_string(), "a message of 4 bytes cannot be decoded");
    assert_eq!(error.source().unwrap().to_string(), "odd");
    let GetError::Decode(error) = error else { panic!("{error}") };
    assert_eq!(error.bytes(), 3u32.to_le_bytes());
    assert_eq!(error.into_bytes(), 3u32.to_le_bytes());
    assert_eq!((queue.len(), queue.get().unwrap()), (1, 4));

    // A claim of it is over.
    queue.put_many([5, 6]).unwrap();
    assert!(matches!(queue.claim(), Err(GetError::Decode(_))));
    assert_eq!(queue.claim().unwrap().ack(), 6);
    assert!(queue.is_empty());

    // Its bytes can be had without it.
    queue.put(7).unwrap();
    let mut bytes = vec![0; 100];
    assert_eq!(queue.get_into(&mut bytes).unwrap(), 4);
    assert_eq!(bytes, 7u32.to_le_bytes());
}

#[test]
fn get_many_loses_nothing_beside_what_does_not_decode() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Even>::new().unwrap();
    queue.put_many([0, 1, 2, 3, 4, 6]).unwrap();
    let error = queue.get_many(5).unwrap_err();
    assert_eq!(error.to_string(), "2 of 5 messages cannot be decoded");
    assert_eq!(error.source().unwrap().to_string(), "a message of 4 bytes cannot be decoded");
    let GetManyError::Decode(messages) = error else { panic!("{error}") };
    let numbers: Vec<_> = messages
        .iter()
        .map(|message| match message {
            Ok(number) => (*number, true),
            Err(error) => (u32::from_le_bytes(error.bytes().try_into().unwrap()), false),
        })
        .collect();
    assert_eq!(numbers, [(0, true), (1, false), (2, true), (3, false), (4, true)]);
    assert_eq!(queue.get_many(5).unwrap(), [6]);
    assert!(queue.is_empty());
}

#[test]
fn an_iterator_goes_on_after_what_does_not_decode() {
    let _watchdog = watchdog();
    let queue = Queue::<u32, Even>::new().unwrap();
    queue.put_many(0..6).unwrap();
    queue.close();
    let numbers: Vec<_> = queue.iter().map(|message| message.is_ok()).collect();
    assert_eq!(numbers, [true, false, true, false, true, false]);
}

#[test]
fn another_types_messages_do_not_decode() {
    let _watchdog = watchdog();
    let queue = Queue::<String>::new().unwrap();
    let numbers: Queue<u16> = hand_over(&queue).unwrap();
    queue.put("a text".into()).unwrap();
    queue.put(String::new()).unwrap();
    // It begins with a number, and there is more.
    let GetError::Decode(error) = numbers.get().unwrap_err() else { panic!() };
    assert_eq!(error.bytes(), b"\x06a text");
    assert_eq!(error.source().unwrap().to_string(), "6 bytes are left over");
    assert_eq!(numbers.get().unwrap(), 0);
}

#[test]
fn messages_of_no_length_are_messages() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::bounded(3).unwrap();
    queue.put_many([vec![], vec![], vec![]]).unwrap();
    assert!(queue.is_full());
    assert_eq!((queue.len(), queue.get().unwrap()), (3, vec![]));
    assert_eq!(queue.get_ref().unwrap().len(), 0);
    assert_eq!((queue.get_many(9).unwrap(), queue.len()), (vec![vec![]], 0));
    queue.reserve(0).unwrap().commit();
    assert_eq!(queue.try_claim().unwrap().ack(), []);

    let units = Queue::<()>::new().unwrap();
    for _ in 0..100_000 {
        units.put(()).unwrap();
    }
    assert_eq!((units.len(), units.get_many(200_000).unwrap().len()), (100_000, 100_000));
    let none = Queue::<[u8; 0], Raw>::new().unwrap();
    none.put([]).unwrap();
    assert_eq!((none.len(), none.get().unwrap()), (1, []));
}

#[test]
fn positions_wrap_and_nobody_notices() {
    let _watchdog = watchdog();
    for before in [0, 8, 16, 100, 5_000, 70_000, 200_000] {
        let queue = Queue::<Vec<u8>, Bytes>::starting_at(u64::MAX - before, 1000, 1 << 22).unwrap();
        let message = |number: usize| vec![number as u8; number * 37 % 700];
        let (mut put, mut got) = (0, 0);
        let kept = {
            queue.put(b"kept".to_vec()).unwrap();
            queue.get_ref().unwrap()
        };
        while got < 3_000 {
            for _ in 0..=put % 11 {
                queue.put(message(put)).unwrap();
                put += 1;
            }
            assert_eq!(queue.len(), put - got);
            for next in queue.get_many(put % 13 + 1).unwrap() {
                assert_eq!(next, message(got), "{before}");
                got += 1;
            }
        }
        assert_eq!(*kept, *b"kept");
        drop(kept);
        while got < put {
            assert_eq!(queue.claim().unwrap().ack(), message(got));
            got += 1;
        }
        assert!(queue.is_empty());
    }
}

/// Copies as `Bytes` does, but panics at an empty message.
#[derive(Debug)]
struct Fussy;

impl Codec<Vec<u8>> for Fussy {
    const CODE: u8 = b'f';
    type Copied = Vec<u8>;

    fn encode<R>(message: &Vec<u8>, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(message))
    }

    fn copy(bytes: &[u8]) -> Vec<u8> {
        assert!(!bytes.is_empty(), "an empty message");
        bytes.to_vec()
    }

    fn own(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn decode(copied: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
        Ok(copied)
    }
}

#[test]
fn a_copy_that_panics_leaves_the_message_and_holds_up_nobody() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Fussy>::new().unwrap();
    queue.put(Vec::new()).unwrap();
    for _ in 0..2 {
        let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.get()));
        assert!(got.is_err());
        assert_eq!(queue.len(), 1);
    }
    // Nor another thread.
    let other = queue.clone();
    let got = std::thread::spawn(move || drop(other.get())).join();
    assert!(got.is_err());
    drop(queue.get_ref().unwrap());
    queue.put(vec![7]).unwrap();
    assert_eq!(queue.try_get().unwrap(), [7]);
}

/// Gets as many as there are, and as many again, until it panics with nothing to return.
fn get_all_until_panic<T, C: Codec<T>>(queue: &Queue<T, C>) -> Vec<T> {
    let mut got = Vec::new();
    loop {
        let more = catch_unwind(AssertUnwindSafe(|| queue.try_get_many(usize::MAX)));
        match more {
            Ok(Ok(more)) => got.extend(more),
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => return got,
        }
    }
}

/// Those that were got before it, in another segment for instance, come to the caller, who meets the panic at the next call.
#[test]
fn a_copy_that_panics_late_loses_nothing_that_was_got_before() {
    let _watchdog = watchdog();
    for before in [1, 10, 1_000, 4_000, 30_000] {
        let queue = Queue::<Vec<u8>, Fussy>::new().unwrap();
        let message = |number: usize| [&number.to_ne_bytes()[..], &[1; 100]].concat();
        for number in 0..before {
            queue.put(message(number)).unwrap();
        }
        queue.put(Vec::new()).unwrap();
        queue.put(message(before)).unwrap();
        let mut got = get_all_until_panic(&queue);
        while got.len() < before {
            // Those that were not got yet are all there.
            assert_eq!(queue.len(), before - got.len() + 2);
            got.push(queue.get().unwrap());
        }
        assert!(got.iter().enumerate().all(|(number, got)| *got == message(number)), "{before} before it");
        drop(queue.get_ref().unwrap());
        assert_eq!(queue.try_get_many(2).unwrap(), [message(before)]);
    }
}

/// One that was handed back, and comes before the others, or between them.
#[test]
fn a_message_that_was_delivered_again_is_not_lost_by_a_panic_at_the_next() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Fussy>::new().unwrap();
    queue.put(vec![1]).unwrap();
    queue.put(vec![2]).unwrap();
    queue.put(Vec::new()).unwrap();
    drop(queue.claim().unwrap());
    let mut got = get_all_until_panic(&queue);
    while got.len() < 2 {
        got.push(queue.get().unwrap());
    }
    assert_eq!(got, [[1], [2]]);
    assert_eq!(queue.len(), 1);
}

/// Decoding is done when all are out of the queue: one that panics is one that does not decode.
#[test]
fn a_decode_that_panics_costs_no_other_message() {
    struct Shy;
    impl Codec<u32> for Shy {
        const CODE: u8 = b'y';
        type Copied = Vec<u8>;

        fn encode<R>(message: &u32, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
            Even::encode(message, put)
        }

        fn copy(bytes: &[u8]) -> Vec<u8> {
            bytes.to_vec()
        }

        fn decode(bytes: Vec<u8>) -> Result<u32, DecodeError> {
            assert_ne!(bytes[0], 7, "a seven");
            Even::decode(bytes)
        }
    }
    let _watchdog = watchdog();
    let queue = Queue::<u32, Shy>::new().unwrap();
    queue.put_many([2, 4, 7, 6, 7, 5, 8]).unwrap();
    let error = queue.get_many(9).unwrap_err();
    let GetManyError::Decode(messages) = error else { panic!("{error}") };
    let messages: Vec<_> = messages
        .into_iter()
        .map(|message| message.map_err(|error| error.source().unwrap().to_string()))
        .collect();
    let panicked = || Err("the codec panicked".to_owned());
    let odd = Err("odd".to_owned());
    assert_eq!(messages, [Ok(2), Ok(4), panicked(), Ok(6), panicked(), odd, Ok(8)]);
    assert!(queue.is_empty());
}

/// By one who always gets, too, and into a vector that has room for any number.
#[test]
fn messages_without_bytes_are_counted() {
    let queue = Queue::<(), Raw>::new().unwrap();
    for _ in 0..10_000 {
        queue.put_many([(), (), ()]).unwrap();
        assert_eq!(queue.get_many(2).unwrap().len(), 2);
        assert_eq!(queue.get_many(usize::MAX).unwrap().len(), 1);
        assert!(queue.try_get_many(usize::MAX).is_err());
    }
}

/// Their bytes go straight to where the caller has them, in whichever way they are got, and by whoever gets them.
#[test]
fn plain_messages_of_any_size_come_whole() {
    fn whole<const N: usize>() {
        let message =
            |number: usize| -> [u8; N] { std::array::from_fn(|at| (number * 31 + at * 7 + at / 251) as u8) };
        let queue = Queue::<[u8; N], Raw>::new().unwrap();
        // So many that one who always gets is granted the lock on the way, and that they wrap.
        for number in 0..200 {
            queue.put(message(number)).unwrap();
            queue.put(message(number + 1)).unwrap();
            assert!(queue.get().unwrap() == message(number), "{N} bytes, get {number}");
            assert!(queue.try_get().unwrap() == message(number + 1), "{N} bytes, try_get {number}");
        }
        for number in 0..4 {
            queue.put(message(number)).unwrap();
        }
        // By one who is granted nothing.
        let other = queue.clone();
        let got = std::thread::spawn(move || other.get_timeout(SOON).unwrap()).join().unwrap();
        assert!(got == message(0), "{N} bytes, by another");
        assert!(queue.claim().unwrap().ack() == message(1), "{N} bytes, claim");
        queue.close();
        let rest: Vec<_> = queue.iter().map(Result::unwrap).collect();
        assert!(rest == [message(2), message(3)], "{N} bytes, iter");
        assert!(matches!(queue.get(), Err(GetError::Closed)));
    }
    let _watchdog = watchdog();
    whole::<1>();
    whole::<8>();
    whole::<63>();
    whole::<255>();
    whole::<256>();
    whole::<1000>();
    whole::<1024>();
    whole::<4096>();
    whole::<{ 20 << 10 }>();
}

#[test]
fn a_plain_message_may_be_aligned_to_more_than_the_queue_is() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C, align(64))]
    struct Wide([u64; 40]);
    // SAFETY: no padding, any bytes, and nothing that is dropped.
    unsafe impl bytemuck::Zeroable for Wide {}
    // SAFETY: as above.
    unsafe impl bytemuck::Pod for Wide {}

    let queue = Queue::<Wide, Raw>::new().unwrap();
    for number in 0..100 {
        queue.put(Wide([number; 40])).unwrap();
        assert_eq!(queue.get().unwrap(), Wide([number; 40]));
    }
}

/// What is in its place, whoever says so: a codec is not trusted with memory.
#[derive(Debug)]
struct Elsewhere;

impl Codec<[u8; 300]> for Elsewhere {
    const CODE: u8 = b'E';
    const IS_PLAIN: bool = true;
    type Copied = [u8; 300];

    fn encode<R>(message: &[u8; 300], put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(message))
    }

    fn copy(bytes: &[u8]) -> [u8; 300] {
        bytes.try_into().unwrap()
    }

    fn decode(copied: [u8; 300]) -> Result<[u8; 300], DecodeError> {
        match copied[0] {
            1 => Err(DecodeError::new(copied.to_vec(), "it begins with 1")),
            _ => Ok(copied),
        }
    }

    fn read_to<'a>(
        bytes: &[u8],
        place: &'a mut std::mem::MaybeUninit<[u8; 300]>,
    ) -> Result<&'a mut [u8; 300], DecodeError> {
        match bytes[0] {
            2 => Ok(Box::leak(Box::new([2; 300]))),
            _ => Ok(place.write(Self::read(bytes)?)),
        }
    }
}

#[test]
fn a_codec_that_reads_to_another_place_gets_nothing() {
    let _watchdog = watchdog();
    let queue = Queue::<[u8; 300], Elsewhere>::new().unwrap();
    queue.put_many([[0; 300], [1; 300], [0; 300], [2; 300]]).unwrap();
    assert_eq!(queue.get().unwrap(), [0; 300]);
    let GetError::Decode(error) = queue.get().unwrap_err() else { panic!() };
    assert_eq!(error.bytes(), [1; 300]);
    assert_eq!(queue.get().unwrap(), [0; 300]);
    for _ in 0..2 {
        let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.get()));
        assert!(got.is_err());
        // It is still there, and holds up nobody.
        assert_eq!(queue.len(), 1);
    }
    assert_eq!(*queue.get_ref().unwrap(), [2; 300]);
}
