//! Handles in other processes, and what they do not attach to.
#![cfg(not(any(polyproc_loom, polyproc_shuttle)))]

mod support;

use polyproc_memory::handover;
use polyproc_queue::{Bytes, JoinableQueue, PutError, Queue, Raw};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use support::{Child, hand_over, receive, send, wait_for_the_end, watchdog};

#[test]
fn a_process_that_has_never_seen_it_attaches() {
    let _watchdog = watchdog();
    let (mut from_parent, mut to_child) = io::pipe().unwrap();
    let parent = std::process::id();
    let child = Child::run(|| {
        let mut message = [0; 64];
        let length = from_parent.read(&mut message).unwrap();
        let number = i32::from_ne_bytes(message[..4].try_into().unwrap());
        let file =
            File::options().read(true).write(true).open(format!("/proc/{parent}/fd/{number}")).unwrap();
        let queue: Queue<String> = receive(&message[4..length], vec![file.into()]).unwrap();
        assert_eq!(queue.capacity(), Some(1));
        queue.put("hello".into()).unwrap();
        queue.put("world".into()).unwrap();
        queue.close();
    });
    let queue = Queue::<String>::bounded(1).unwrap();
    let (bytes, descriptors) = send(&queue);
    let mut message = descriptors[0].as_fd().as_raw_fd().to_ne_bytes().to_vec();
    message.extend_from_slice(&bytes);
    to_child.write_all(&message).unwrap();
    assert_eq!(queue.iter().map(Result::unwrap).collect::<Vec<_>>(), ["hello", "world"]);
    child.join();
}

#[test]
fn what_arrives_is_the_same_queue_with_its_limits() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::with_max_bytes(100_000).unwrap();
    let there: Queue<Vec<u8>, Bytes> = hand_over(&queue).unwrap();
    let most = |queue: &Queue<Vec<u8>, Bytes>| match queue.reserve(1 << 40) {
        Err(PutError::TooLarge { most, .. }) => most,
        other => panic!("{other:?}"),
    };
    assert_eq!(most(&queue), most(&there));
    queue.put(vec![1; 90_000]).unwrap_or_else(|error| assert_eq!(error.into_message().len(), 90_000));
    assert_eq!(there.len(), queue.len());

    let tasks = JoinableQueue::<u32>::bounded(3).unwrap();
    let there: JoinableQueue<u32> = hand_over(&tasks).unwrap();
    tasks.put(1).unwrap();
    assert_eq!((there.unfinished(), there.capacity()), (1, Some(3)));
    there.task_done().unwrap();
    tasks.join();
}

fn refused<B: DeserializeOwned>(handle: &impl Serialize, words: &[&str]) {
    let Err(error) = hand_over::<B>(handle) else { panic!("attached") };
    for word in words {
        assert!(error.contains(word), "{error:?} has no {word:?}");
    }
}

#[test]
fn another_codec_kind_or_layout_is_refused_and_named() {
    let queue = Queue::<u32>::new().unwrap();
    refused::<Queue<u32, Raw>>(&queue, &["code"]);
    refused::<Queue<Vec<u8>, Bytes>>(&queue, &["code"]);
    refused::<JoinableQueue<u32>>(&queue, &["queue", "joinable"]);
    let raw = Queue::<u32, Raw>::new().unwrap();
    refused::<Queue<u64, Raw>>(&raw, &["4", "8"]);
    refused::<Queue<u32>>(&raw, &["code"]);
    refused::<Queue<u32>>(&JoinableQueue::<u32>::new().unwrap(), &["queue", "joinable"]);
}

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
    answer: Queue<u32>,
}

#[test]
fn a_handle_in_a_message_is_refused_with_the_way_to_send_it() {
    let (queue, answer) = (Queue::<Order>::new().unwrap(), Queue::new().unwrap());
    let error = queue.put(Order { number: 1, answer }).map_err(|error| {
        let source = error.source().unwrap().to_string();
        (source, error.into_message().number)
    });
    assert_eq!(error, Err((handover::NOT_IN_HANDOVER.to_owned(), 1)));
    assert!(handover::NOT_IN_HANDOVER.contains("Connection"));
    assert!(queue.is_empty());
}

#[test]
fn debug_tells_how_it_stands() {
    let _watchdog = watchdog();
    let queue = Queue::<Vec<u8>, Bytes>::bounded(3).unwrap();
    queue.put_many([vec![1], vec![2]]).unwrap();
    let claim = queue.claim().unwrap();
    let said = "len: 1, capacity: Some(3), closed: false, producer: None, consumer: None, claims: 1, ..";
    assert_eq!(format!("{queue:?}"), format!("Queue {{ {said} }}"));
    claim.ack();
    let (mut ready, mut said) = io::pipe().unwrap();
    let holder = Child::run(|| {
        let _place = queue.reserve(1).unwrap();
        said.write_all(&[1]).unwrap();
        wait_for_the_end();
    });
    ready.read_exact(&mut [0]).unwrap();
    assert!(format!("{queue:?}").contains(&format!("producer: Some({})", holder.pid())));
    holder.kill();
    let tasks = JoinableQueue::<u32>::new().unwrap();
    tasks.close();
    assert!(format!("{tasks:?}").starts_with("JoinableQueue { len: 0, capacity: None, closed: true,"));
}
