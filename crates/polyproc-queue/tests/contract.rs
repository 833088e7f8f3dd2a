//! The names and signatures that a program may rely on, written out: that this compiles is most of the test.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#![allow(clippy::type_complexity, reason = "the types are what it is about")]

use polyproc_queue::{
    Bytes, Claim, Codec, DecodeError, EncodeError, GetError, GetManyError, Iter, JoinableQueue, MessageRef,
    Postcard, PutError, PutManyError, Queue, Raw, Reservation, TaskDoneError, TryGetError, TryPutError,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::{Debug, Display};
use std::io;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Square { of: u64 },
    Say(String),
    Stop,
}

/// A handle, as all of polyproc's are.
fn is_handle<H: Clone + Send + Sync + Debug + Serialize + DeserializeOwned + 'static>() {}

fn is_error<E: Error + Send + Sync + 'static>() {}

#[test]
fn queues_have_these_methods() {
    type Q = Queue<Order>;
    is_handle::<Q>();
    is_handle::<Queue<u64, Raw>>();
    is_handle::<Queue<Vec<u8>, Bytes>>();
    let _: [fn() -> io::Result<Q>; 1] = [Q::new];
    let _: fn(usize) -> io::Result<Q> = Q::bounded;
    let _: fn(u64) -> io::Result<Q> = Q::with_max_bytes;
    let _: [fn(&Q, Order) -> Result<(), PutError<Order>>; 2] = [Q::put, Q::try_put];
    let _: fn(&Q, Order, Duration) -> Result<(), PutError<Order>> = Q::put_timeout;
    let _: fn(&Q, Order, Instant) -> Result<(), PutError<Order>> = Q::put_until;
    let _: [fn(&Q, Vec<Order>) -> Result<(), PutManyError<Order>>; 2] = [Q::put_many, Q::try_put_many];
    let _: fn(&Q, [Order; 2], Duration) -> Result<(), PutManyError<Order>> = Q::put_many_timeout;
    let _: [fn(&Q) -> Result<Order, GetError>; 2] = [Q::get, Q::try_get];
    let _: fn(&Q, Duration) -> Result<Order, GetError> = Q::get_timeout;
    let _: fn(&Q, Instant) -> Result<Order, GetError> = Q::get_until;
    let _: [fn(&Q, usize) -> Result<Vec<Order>, GetManyError<Order>>; 2] = [Q::get_many, Q::try_get_many];
    let _: fn(&Q, usize, Duration) -> Result<Vec<Order>, GetManyError<Order>> = Q::get_many_timeout;
    let _: fn(&Q, &mut Vec<u8>) -> Result<usize, GetError> = Q::get_into;
    let _: for<'a> fn(&'a Q) -> Iter<'a, Order, Postcard> = Q::iter;
    let _: fn(&Q) -> usize = Q::len;
    let _: [fn(&Q) -> bool; 3] = [Q::is_empty, Q::is_full, Q::is_closed];
    let _: fn(&Q) -> Option<usize> = Q::capacity;
    let _: fn(&Q) = Q::close;
    let _: [for<'a> fn(&'a Q) -> Result<Claim<'a, Order>, GetError>; 2] = [Q::claim, Q::try_claim];
    let _: for<'a> fn(&'a Q, Duration) -> Result<Claim<'a, Order>, GetError> = Q::claim_timeout;
    let _: fn(Claim<'static, Order>) -> Order = Claim::ack;
    let _: fn(&Claim<'static, Order>) -> bool = Claim::is_redelivered;
}

#[test]
fn bytes_have_these_methods_too() {
    type Q = Queue<Vec<u8>, Bytes>;
    let _: [for<'a> fn(&'a Q, usize) -> Result<Reservation<'a>, PutError<usize>>; 2] =
        [Q::reserve, Q::try_reserve];
    let _: for<'a> fn(&'a Q, usize, Duration) -> Result<Reservation<'a>, PutError<usize>> =
        Q::reserve_timeout;
    let _: fn(Reservation<'static>) = Reservation::commit;
    let _: [for<'a> fn(&'a Q) -> Result<MessageRef<'a>, GetError>; 2] = [Q::get_ref, Q::try_get_ref];
    let _: for<'a> fn(&'a Q, Duration) -> Result<MessageRef<'a>, GetError> = Q::get_ref_timeout;
    let _: fn(MessageRef<'static>) = MessageRef::release;
    let _: fn(&Q, &[u8]) -> Result<(), PutError<()>> = Q::put_bytes;
    // Any queue's messages can be read where they lie.
    let _: for<'a> fn(&'a Queue<u64, Raw>) -> Result<MessageRef<'a>, GetError> = Queue::get_ref;
}

#[test]
fn a_joinable_queue_is_a_queue_and_more() {
    type Q = JoinableQueue<Order>;
    is_handle::<Q>();
    let _: fn() -> io::Result<Q> = Q::new;
    let _: fn(usize) -> io::Result<Q> = Q::bounded;
    let _: fn(u64) -> io::Result<Q> = Q::with_max_bytes;
    let _: fn(&Q) -> Result<(), TaskDoneError> = Q::task_done;
    let _: fn(&Q) = Q::join;
    let _: fn(&Q, Duration) -> bool = Q::join_timeout;
    let _: fn(&Q, Instant) -> bool = Q::join_until;
    let _: fn(&Q) -> usize = Q::unfinished;
    let tasks = Q::new().unwrap();
    let queue: &Queue<Order> = &tasks;
    queue.put(Order::Stop).unwrap();
    for message in &tasks {
        assert_eq!(message.unwrap(), Order::Stop);
        tasks.task_done().unwrap();
        tasks.close();
    }
}

#[test]
fn errors_are_errors_and_give_the_message_back() {
    is_error::<PutError<Order>>();
    is_error::<TryPutError<Order>>();
    is_error::<PutManyError<Order>>();
    is_error::<GetError>();
    is_error::<TryGetError>();
    is_error::<GetManyError<Order>>();
    is_error::<TaskDoneError>();
    is_error::<DecodeError>();
    is_error::<EncodeError>();
    let _: fn(PutError<Order>) -> Order = PutError::into_message;
    let queue = Queue::<Order>::bounded(1).unwrap();
    queue.put(Order::Stop).unwrap();
    let message = || Order::Say("full".into());
    match queue.try_put(message()) {
        Err(TryPutError::Full(back)) => assert_eq!(back, message()),
        other => panic!("{other:?}"),
    }
    queue.close();
    match queue.put(message()) {
        Err(PutError::Closed(back)) => assert_eq!(back, message()),
        other => panic!("{other:?}"),
    }
    queue.get().unwrap();
    assert!(matches!(queue.try_get(), Err(TryGetError::Closed)));
    // `?` works in a function that returns anything's error.
    fn puts(queue: &Queue<Order>) -> Result<(), Box<dyn Error>> {
        queue.put(Order::Square { of: 1 })?;
        Ok(())
    }
    assert_eq!(puts(&queue).unwrap_err().to_string(), "the queue is closed");
}

#[test]
fn the_first_sentence_of_an_error_is_lower_case_and_without_a_full_stop() {
    let said: [&dyn Display; 9] = [
        &PutError::Full(()),
        &PutError::Closed(()),
        &PutError::TooLarge { message: (), length: 9, most: 8 },
        &PutError::TooManyLocks(()),
        &GetError::Empty,
        &GetError::Closed,
        &GetError::TooManyClaims,
        &GetError::TooManyLocks,
        &TaskDoneError,
    ];
    for said in said.map(ToString::to_string) {
        assert!(said.starts_with(char::is_lowercase) && !said.ends_with('.'), "{said:?}");
    }
}

/// A codec of one's own needs these, and no more.
#[derive(Debug)]
struct Shout;

impl Codec<String> for Shout {
    const CODE: u8 = b's';
    type Copied = Vec<u8>;

    fn encode<R>(message: &String, put: impl FnOnce(&[u8]) -> R) -> Result<R, EncodeError> {
        Ok(put(message.to_uppercase().as_bytes()))
    }

    fn copy(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    fn decode(copied: Vec<u8>) -> Result<String, DecodeError> {
        String::from_utf8(copied).map_err(|error| DecodeError::new(error.into_bytes(), "not UTF-8"))
    }
}

#[test]
fn a_codec_of_ones_own_is_easily_made() {
    let queue = Queue::<String, Shout>::new().unwrap();
    queue.put("hello".into()).unwrap();
    assert_eq!(queue.get().unwrap(), "HELLO");
}
