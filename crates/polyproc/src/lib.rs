//! What Python's `multiprocessing` offers, native and typed: processes and pools of them, shared values and
//! arrays, queues, pipes, and locks and everything built on them; as fast as threads, and safe against the
//! death of any process.
//!
//! `SIGKILL` any process at any instruction: nobody else hangs, nothing that was committed is lost or seen
//! twice, no lock, memory or descriptor leaks, and whoever is affected gets a typed error that names the
//! dead.
//!
//! # Example
//!
//! Four processes increment one number, a thousand times each.
//!
//! ```
//! use polyproc::{Process, Value};
//!
//! fn worker(n: u32, counter: Value<i32>) {
//!     for _ in 0..n {
//!         *counter.lock().unwrap() += 1;
//!     }
//! }
//!
//! fn main() -> polyproc::Result<()> {
//!     polyproc::init(); // In a child: runs its function and exits.
//!     let counter = Value::new(0)?;
//!     let workers = (0..4)
//!         .map(|_| Process::spawn(worker, (1_000, counter.clone())))
//!         .collect::<Result<Vec<_>, _>>()?;
//!     for worker in workers {
//!         worker.join()?;
//!     }
//!     assert_eq!(counter.get()?, 4_000);
//!     Ok(())
//! }
//! ```
//!
//! # What there is
//!
//! This crate only gathers others. If you need one thing, depend on one crate.
//!
//! | crate | feature | what |
//! |---|---|---|
//! | `polyproc-process` | `process` | [`Process`], [`Builder`], [`init`], [`current_process`], [`active_children`], [`cpu_count`] |
//! | `polyproc-pool` | `pool` | [`Pool`], [`StatePool`], [`AsyncResult`] |
//! | `polyproc-value` | `value` | [`Value`], [`Array`], their atomic forms [`RawValue`] and [`RawArray`], their run-time typed forms [`AnyValue`] and [`AnyArray`] |
//! | `polyproc-queue` | `queue` | [`Queue`], [`JoinableQueue`] |
//! | `polyproc-pipe` | `pipe` | [`pipe()`], [`Connection`], [`simplex`], [`wait`] |
//! | `polyproc-mutex` | `mutex` | [`Mutex`], [`RLock`] |
//! | `polyproc-rwlock` | `rwlock` | [`RwLock`] |
//! | `polyproc-condition` | `condition` | [`Condition`] |
//! | `polyproc-semaphore` | `semaphore` | [`Semaphore`], [`BoundedSemaphore`] |
//! | `polyproc-event` | `event` | [`Event`] |
//! | `polyproc-barrier` | `barrier` | [`Barrier`] |
//! | `polyproc-memory` | always | [`Arena`], for thousands of objects in one piece of memory |
//!
//! The page of each says what blocks, what a death does, and what it costs. Each crate is also here as a
//! whole, under its feature's name: [`mutex::RawMutex`] is `polyproc_mutex::RawMutex`.
//!
//! # From Python
//!
//! | Python | here |
//! |---|---|
//! | `Process(target=f, args=(x,)).start()` | [`Process::spawn(f, (x,))`](Process::spawn) |
//! | `p.join(); p.exitcode` | [`p.join()`](Process::join), which returns what `f` returned, or how it died |
//! | `if __name__ == "__main__":` | [`polyproc::init()`](init), the first line of `main` |
//! | `Value('i', 0)`, `Array('d', 10)` | `Value::new(0)` or [`value!('i', 0)`](macro@value); `Array::<f64>::zeroed(10)` or [`array!('d'; 10)`](macro@array) |
//! | `with v.get_lock(): v.value += 1` | [`v.update(\|n\| *n += 1)`](Value::update), or `*v.lock().unwrap() += 1` |
//! | `Value('i', 0, lock=False)` | [`RawValue`], whose every access is atomic |
//! | `Lock()`, `RLock()` | [`Mutex`], [`RLock`], with the data that they protect |
//! | `Semaphore(3)`, `with semaphore:` | [`Semaphore::new(3)`](Semaphore::new), whose [`acquire`](Semaphore::acquire) returns a [`Permit`] |
//! | `semaphore.release()` of what another acquired | [`Permit::forget`] there, [`release(1)`](Semaphore::release) here |
//! | `Condition().wait_for(f)` | [`condition.wait_while(guard, …)`](Condition::wait_while), with a guard of a [`Mutex`] or an [`RLock`] |
//! | `Event()`, `Barrier(5)` | [`Event`], [`Barrier`] |
//! | `Queue()`, `Queue(maxsize=n)` | [`Queue::new`], [`Queue::bounded`]; `close` ends it for the consumers too |
//! | `q.put_nowait(x)`, `queue.Full` | [`try_put`](Queue::try_put), [`PutError::Full`], which has the message |
//! | `JoinableQueue()` | [`JoinableQueue`] |
//! | `Pipe()`, `Pipe(duplex=False)` | [`pipe()`], [`simplex`], with a type for each direction |
//! | `connection.recv()`, `EOFError` | [`recv`](Connection::recv), [`RecvError::Disconnected`] |
//! | `multiprocessing.connection.wait([…])` | [`wait`] |
//! | `Pool(4)`, `Pool(4, initializer, initargs, maxtasksperchild)` | [`Pool::new(4)`](Pool::new), [`Pool::builder`] |
//! | `pool.map(f, xs)`, `pool.starmap(f, tuples)`, `chunksize=n` | [`Pool::map`], [`Pool::starmap`], [`Batch::chunk_size`] |
//! | `pool.imap(f, xs)`, `pool.imap_unordered(f, xs)` | [`Pool::imap`], [`Pool::imap_unordered`], which pull endless input as needed |
//! | `pool.apply_async(f, (x,)).get(timeout)` | [`Pool::apply_async`], [`AsyncResult::get_timeout`] |
//! | `callback=`, `error_callback=` | [`AsyncResult::then`] |
//! | a worker that dies: its task never returns | [`TaskError::WorkerDied`] for that task, and a new worker |

#![forbid(unsafe_code)]

/// The examples in the crate's and in the project's README run.
#[cfg(all(doctest, feature = "process", feature = "value"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../README.md")]
mod readme {}

mod error;

pub use error::{Error, Result};
pub use polyproc_memory::{Arena, CreateError};

#[cfg(feature = "barrier")]
#[doc(no_inline)]
pub use polyproc_barrier as barrier;
#[cfg(feature = "condition")]
#[doc(no_inline)]
pub use polyproc_condition as condition;
#[cfg(feature = "event")]
#[doc(no_inline)]
pub use polyproc_event as event;
/// The crates as a whole: their raw forms, and what else is not gathered here.
#[doc(no_inline)]
pub use polyproc_memory as memory;
#[cfg(feature = "mutex")]
#[doc(no_inline)]
pub use polyproc_mutex as mutex;
#[cfg(feature = "pipe")]
#[doc(no_inline)]
pub use polyproc_pipe as pipe;
#[cfg(feature = "pool")]
#[doc(no_inline)]
pub use polyproc_pool as pool;
#[cfg(feature = "process")]
#[doc(no_inline)]
pub use polyproc_process as process;
#[cfg(feature = "queue")]
#[doc(no_inline)]
pub use polyproc_queue as queue;
#[cfg(feature = "rwlock")]
#[doc(no_inline)]
pub use polyproc_rwlock as rwlock;
#[cfg(feature = "semaphore")]
#[doc(no_inline)]
pub use polyproc_semaphore as semaphore;
#[cfg(feature = "value")]
#[doc(no_inline)]
pub use polyproc_value as value;

#[cfg(feature = "barrier")]
pub use polyproc_barrier::{Barrier, BarrierWait, BrokenBarrier, BrokenCause, WaitError};
#[cfg(feature = "condition")]
pub use polyproc_condition::{Condition, WaitTimeoutResult};
#[cfg(feature = "event")]
pub use polyproc_event::Event;
#[cfg(any(feature = "queue", feature = "pipe"))]
pub use polyproc_memory::codec::{Bytes, Codec, DecodeError, EncodeError, Postcard, Raw};
#[cfg(feature = "mutex")]
pub use polyproc_mutex::{
    LockTimeoutError, Mutex, MutexGuard, NestedError, PoisonCause, PoisonError, RLock, RLockGuard,
    TryLockError,
};
#[cfg(feature = "pipe")]
pub use polyproc_pipe::{
    Connection, Receiver, RecvError, SendError, Sender, Waitable, pipe, pipe_with_capacity, simplex, wait,
};
#[cfg(feature = "pool")]
pub use polyproc_pool::{
    AsyncResult, Batch, Builder as PoolBuilder, Imap, ImapUnordered, Initialized, MapError, Pool, PoolError,
    Retry, StatePool, Stats, TaskError, WorkerStats,
};
#[cfg(feature = "process")]
pub use polyproc_process::{
    Builder, Child, CodecError, CurrentProcess, Function, JoinError, Parent, Process, SpawnError, Stdio,
    active_children, cpu_count, current_process, init, init_for_tests, parent_process,
};
#[cfg(feature = "queue")]
pub use polyproc_queue::{
    Claim, GetError, GetManyError, JoinableQueue, MessageRef, PutError, PutManyError, Queue, Reservation,
    TaskDoneError, TryGetError, TryPutError,
};
#[cfg(feature = "rwlock")]
pub use polyproc_rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(feature = "semaphore")]
pub use polyproc_semaphore::{
    AcquireTimeoutError, BoundedSemaphore, Permit, ReleaseError, Semaphore, TryAcquireError,
};
#[cfg(feature = "value")]
pub use polyproc_value::{
    AnyArray, AnyArrayError, AnyValue, AnyValueError, Array, ArrayError, ArrayGuard, Integer, Number,
    NumberError, OutOfRange, Poisoned, RawArray, RawValue, Scalar, TypeCode, UnknownTypeCode, Value,
    ValueGuard, array, raw_array, raw_value, value,
};
