//! [`JoinableQueue`]: a queue that knows when all of its work is done.

use crate::error::{GetError, TaskDoneError};
use crate::queue::{Iter, Queue, at_least_one, default_bytes};
use core::fmt;
use core::ops::Deref;
use polyproc_memory::codec::{Codec, Postcard};
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::time::{Duration, Instant};

/// The kind of its memory.
const KIND: &str = "joinable";

/// A [`Queue`] whose messages are tasks. Each is counted when it is put, and again when somebody says that it
/// is done. [`join`](JoinableQueue::join) waits until the counts are equal.
///
/// It has all the methods of a queue. A worker that dies between getting a task and saying that it is done
/// leaves the task undone, and whoever joins goes on waiting. If tasks must survive that, get them by
/// [`claim`](Queue::claim), and call `task_done` after `ack`.
///
/// # Example
///
/// ```
/// use polyproc_queue::JoinableQueue;
///
/// let tasks = JoinableQueue::<u32>::new()?;
/// tasks.put(1).unwrap();
/// tasks.put(2).unwrap();
/// let worker = {
///     let tasks = tasks.clone();
///     std::thread::spawn(move || {
///         for task in tasks.iter() {
///             task.unwrap(); // Work.
///             tasks.task_done().unwrap();
///         }
///     })
/// };
/// tasks.join();
/// assert_eq!(tasks.unfinished(), 0);
/// tasks.close();
/// worker.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct JoinableQueue<T, C = Postcard> {
    queue: Queue<T, C>,
}

impl<T, C: Codec<T>> JoinableQueue<T, C> {
    /// Makes an empty queue that takes any number of tasks: see [`Queue::new`].
    ///
    /// # Errors
    ///
    /// As for [`Queue::new`].
    pub fn new() -> io::Result<JoinableQueue<T, C>> {
        Ok(JoinableQueue { queue: Queue::create(KIND, 0, default_bytes(), 0)? })
    }

    /// Makes an empty queue that takes at most `messages` tasks at a time: see [`Queue::bounded`].
    ///
    /// # Errors
    ///
    /// As for [`Queue::bounded`].
    pub fn bounded(messages: usize) -> io::Result<JoinableQueue<T, C>> {
        Ok(JoinableQueue { queue: Queue::create(KIND, at_least_one(messages)?, default_bytes(), 0)? })
    }

    /// Makes an empty queue that takes any number of tasks, up to `bytes` bytes together: see
    /// [`Queue::with_max_bytes`].
    ///
    /// # Errors
    ///
    /// As for [`Queue::with_max_bytes`].
    pub fn with_max_bytes(bytes: u64) -> io::Result<JoinableQueue<T, C>> {
        Ok(JoinableQueue { queue: Queue::create(KIND, 0, bytes, 0)? })
    }

    /// Says that a task is done. Call it once for each task that was got.
    ///
    /// # Errors
    ///
    /// [`TaskDoneError`] if it has already been said for as many as were ever put. Nothing changes.
    ///
    /// # Panics
    ///
    /// If the calling thread holds 2,048 locks, as many as the kernel releases for a dead thread.
    ///
    /// # Example
    ///
    /// ```
    /// use polyproc_queue::JoinableQueue;
    ///
    /// let tasks = JoinableQueue::<u32>::new()?;
    /// tasks.put(7).unwrap();
    /// let task = tasks.claim().unwrap(); // It survives this process.
    /// task.ack();
    /// tasks.task_done().unwrap();
    /// assert!(tasks.task_done().is_err()); // Once too often.
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn task_done(&self) -> Result<(), TaskDoneError> {
        match self.queue.raw().task_done() {
            Ok(true) => Ok(()),
            Ok(false) => Err(TaskDoneError),
            Err(refusal) => refusal.panic(),
        }
    }

    /// Waits until all tasks that were put are done, for as long as it takes.
    pub fn join(&self) {
        self.queue.raw().join(Deadline::NEVER);
    }

    /// [`join`](JoinableQueue::join), for at most `timeout`. Returns whether all are done.
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.queue.raw().join(Deadline::after(timeout))
    }

    /// [`join`](JoinableQueue::join), until `deadline` at the latest. Returns whether all are done.
    pub fn join_until(&self, deadline: Instant) -> bool {
        self.queue.raw().join(Deadline::at(deadline))
    }

    /// How many tasks were put and are not done, whether they are still in the queue or not.
    pub fn unfinished(&self) -> usize {
        self.queue.raw().unfinished() as usize
    }
}

impl<T, C> Deref for JoinableQueue<T, C> {
    type Target = Queue<T, C>;

    fn deref(&self) -> &Queue<T, C> {
        &self.queue
    }
}

impl<'a, T, C: Codec<T>> IntoIterator for &'a JoinableQueue<T, C> {
    type Item = Result<T, GetError>;
    type IntoIter = Iter<'a, T, C>;

    fn into_iter(self) -> Iter<'a, T, C> {
        self.iter()
    }
}

impl<T, C> Clone for JoinableQueue<T, C> {
    fn clone(&self) -> JoinableQueue<T, C> {
        JoinableQueue { queue: self.queue.clone() }
    }
}

impl<T, C> fmt::Debug for JoinableQueue<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.fmt_as("JoinableQueue", f)
    }
}

impl<T, C> Serialize for JoinableQueue<T, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.queue.serialize(serializer)
    }
}

impl<'de, T, C: Codec<T>> Deserialize<'de> for JoinableQueue<T, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JoinableQueue<T, C>, D::Error> {
        Ok(JoinableQueue { queue: Queue::receive(deserializer, KIND)? })
    }
}
