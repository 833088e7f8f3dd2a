//! The names and signatures that a program may rely on, written out: that this compiles is most of the test.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]
#![allow(clippy::type_complexity, reason = "the types are what it is about")]

use polyproc_pipe::{
    Bytes, Codec, Connection, DecodeError, EncodeError, Postcard, Raw, Receiver, RecvError, SendError,
    Sender, Waitable, pipe, pipe_with_capacity, simplex, wait,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Question(String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Answer {
    Yes,
    No { because: String },
}

/// A handle, as all of polyproc's are.
fn is_handle<H: Clone + Send + Sync + Debug + Serialize + DeserializeOwned + AsFd + 'static>() {}

fn is_error<E: Error + Send + Sync + 'static>() {}

#[test]
fn connections_have_these_methods() {
    type C = Connection<Question, Answer>;
    is_handle::<C>();
    is_handle::<Connection<u64, u64, Raw>>();
    is_handle::<Connection<Vec<u8>, Vec<u8>, Bytes>>();
    let _: [fn() -> io::Result<(C, Connection<Answer, Question>)>; 2] = [pipe::<Question, Answer>, C::pair];
    let _: fn(usize) -> io::Result<(C, Connection<Answer, Question, Postcard>)> = pipe_with_capacity;
    let _: [fn(&C, Question) -> Result<(), SendError<Question>>; 2] = [C::send, C::try_send];
    let _: fn(&C, Question, Duration) -> Result<(), SendError<Question>> = C::send_timeout;
    let _: fn(&C, Question, Instant) -> Result<(), SendError<Question>> = C::send_until;
    let _: [fn(&C) -> Result<Answer, RecvError>; 2] = [C::recv, C::try_recv];
    let _: fn(&C, Duration) -> Result<Answer, RecvError> = C::recv_timeout;
    let _: fn(&C, Instant) -> Result<Answer, RecvError> = C::recv_until;
    let _: fn(&C, &[u8]) -> Result<(), SendError<()>> = C::send_bytes;
    let _: fn(&C, usize) -> Result<Vec<u8>, RecvError> = C::recv_bytes;
    let _: fn(&C, &mut Vec<u8>, usize) -> Result<usize, RecvError> = C::recv_bytes_into;
    let _: fn(&C, Duration) -> io::Result<bool> = C::poll;
    let _: fn(&C, Option<Duration>) -> io::Result<bool> = C::poll;
    let _: fn(&C) -> io::Result<()> = C::close;
    let _: fn(&C) -> Result<(), SendError<()>> = C::close_send;
    let _: fn(&C) -> bool = C::is_closed;
    let _: fn(&C) -> io::Result<bool> = C::prepare_wait;
    let _: fn(&C) -> BorrowedFd<'_> = C::as_fd;
    type B = Connection<Vec<u8>, Vec<u8>, Bytes>;
    let _: [fn(&B, &[u8], &[BorrowedFd<'_>]) -> Result<(), SendError<()>>; 2] =
        [B::send_with, B::try_send_with];
    let _: [fn(&B, &mut Vec<u8>) -> Result<Vec<OwnedFd>, RecvError>; 2] = [B::recv_with, B::try_recv_with];
}

#[test]
fn one_direction_has_these_methods() {
    type S = Sender<Question>;
    type R = Receiver<Question>;
    is_handle::<S>();
    is_handle::<R>();
    let _: [fn() -> io::Result<(S, R)>; 2] = [simplex, S::pair];
    let _: fn() -> io::Result<(Sender<u64, Raw>, Receiver<u64, Raw>)> = Sender::pair;
    let _: [fn(&S, Question) -> Result<(), SendError<Question>>; 2] = [S::send, S::try_send];
    let _: fn(&S, Question, Duration) -> Result<(), SendError<Question>> = S::send_timeout;
    let _: fn(&S, Question, Instant) -> Result<(), SendError<Question>> = S::send_until;
    let _: fn(&S, &[u8]) -> Result<(), SendError<()>> = S::send_bytes;
    let _: [fn(&R) -> Result<Question, RecvError>; 2] = [R::recv, R::try_recv];
    let _: fn(&R, Duration) -> Result<Question, RecvError> = R::recv_timeout;
    let _: fn(&R, Instant) -> Result<Question, RecvError> = R::recv_until;
    let _: fn(&R, usize) -> Result<Vec<u8>, RecvError> = R::recv_bytes;
    let _: fn(&R, &mut Vec<u8>, usize) -> Result<usize, RecvError> = R::recv_bytes_into;
    let _: fn(&R, Option<Duration>) -> io::Result<bool> = R::poll;
    let _: fn(&R) -> io::Result<bool> = R::prepare_wait;
    let _: fn(&R) -> bool = R::has_news;
    let _: (fn(&S) -> io::Result<()>, fn(&R) -> io::Result<()>) = (S::close, R::close);
    let _: (fn(&S) -> bool, fn(&R) -> bool) = (S::is_closed, R::is_closed);
}

#[test]
fn wait_takes_whatever_has_a_descriptor() {
    let (a, at_a) = pipe::<u8, u8>().unwrap();
    let (b, at_b) = simplex::<String>().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    a.send(1).unwrap();
    b.send("b".into()).unwrap();
    let _: io::Result<Vec<usize>> = wait(&[&at_a], None);
    let _: io::Result<Vec<usize>> = wait(&[&at_b], Some(Duration::MAX));
    let _: io::Result<Vec<usize>> = wait(&[&null], Duration::from_secs(1));
    let all: [Waitable<'_>; 3] = [(&at_a).into(), (&at_b).into(), null.as_fd().into()];
    assert_eq!(wait(&all, None).unwrap(), [0, 1, 2]);
    assert_eq!(wait(&[at_a.as_fd(), null.as_fd()], Duration::ZERO).unwrap(), [0, 1]);
}

#[test]
fn errors_are_errors_and_give_the_message_back() {
    // Whatever the message is.
    struct Nothing;
    is_error::<SendError<String>>();
    is_error::<RecvError>();
    is_error::<DecodeError>();
    is_error::<EncodeError>();
    let _: fn(SendError<Nothing>) -> Nothing = SendError::into_message;
    let (here, there) = pipe::<Question, Answer>().unwrap();
    drop(there);
    match here.send(Question("anybody?".into())) {
        Err(SendError::Disconnected(Question(text))) => assert_eq!(text, "anybody?"),
        other => panic!("{other:?}"),
    }
    fn receives(connection: &Connection<Question, Answer>) -> Result<Answer, Box<dyn Error>> {
        Ok(connection.recv()?)
    }
    assert_eq!(
        receives(&here).unwrap_err().to_string(),
        "the other end of the connection is gone, or sends no more"
    );
}

#[test]
fn an_error_says_which_number_is_the_limit() {
    let too_large: SendError<()> = SendError::TooLarge { message: (), most: 1 << 30 };
    assert_eq!(too_large.to_string(), "the message is larger than any can be, at most 1073741824 bytes");
    let too_many: SendError<()> = SendError::TooLarge { message: (), most: 65_535 };
    assert_eq!(too_many.to_string(), "the message has more descriptors than any can have, at most 65535");
    let too_long = RecvError::TooLong { length: 9, max: 8 };
    assert_eq!(too_long.to_string(), "the message has 9 bytes, and 8 were allowed");
}

#[cfg(feature = "tokio")]
#[test]
fn tasks_have_these_methods() {
    fn is_future<T>(_: &(impl Future<Output = T> + Send)) {}
    let (here, there) = pipe::<Question, Answer>().unwrap();
    let receiving = here.recv_async();
    is_future::<Result<Answer, RecvError>>(&receiving);
    let sending = there.send_async(Answer::No { because: "it is a test".into() });
    is_future::<Result<(), SendError<Answer>>>(&sending);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        sending.await.unwrap();
        assert_ne!(receiving.await.unwrap(), Answer::Yes);
    });
    let (sender, receiver) = simplex::<Answer>().unwrap();
    let receiving = receiver.recv_async();
    is_future::<Result<Answer, RecvError>>(&receiving);
    let sending = sender.send_async(Answer::Yes);
    is_future::<Result<(), SendError<Answer>>>(&sending);
    runtime.block_on(async {
        let (received, sent) = tokio::join!(receiving, sending);
        sent.unwrap();
        assert_eq!(received.unwrap(), Answer::Yes);
        sender.close().unwrap();
        assert!(matches!(receiver.recv_async().await, Err(RecvError::Disconnected)));
    });
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

    fn own(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    fn decode(copied: Vec<u8>) -> Result<String, DecodeError> {
        String::from_utf8(copied).map_err(|error| DecodeError::new(error.into_bytes(), "not UTF-8"))
    }
}

#[test]
fn a_codec_of_ones_own_is_easily_made() {
    let (here, there) = Connection::<String, String, Shout>::pair().unwrap();
    here.send("hello".into()).unwrap();
    assert_eq!(there.recv().unwrap(), "HELLO");
}
