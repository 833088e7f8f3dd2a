//! Ours, and the limit.

use crate::channel::{Get, Put, slots};
use crate::lock::Counter;
use crate::rwlock::{ReadWrite, add_one};
use polyproc::{Mutex, RwLock, Value};
use polyproc_benches::Ring;
use polyproc_pipe::{Connection, pipe_with_capacity};
use polyproc_queue::{Bytes, Queue, Raw};

impl Counter for Mutex<u64> {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        let mut number = self.lock().unwrap();
        work();
        *number += 1;
    }

    fn total(&self) -> u64 {
        *self.lock().unwrap()
    }
}

impl Counter for Value<u64> {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        self.update(|number| {
            work();
            *number += 1;
        })
        .unwrap();
    }

    fn total(&self) -> u64 {
        self.get().unwrap()
    }
}

impl ReadWrite for RwLock<[u64; 2]> {
    #[inline(always)]
    fn read(&self) -> [u64; 2] {
        *RwLock::read(self).unwrap()
    }

    #[inline(always)]
    fn write(&self) {
        add_one(&mut RwLock::write(self).unwrap());
    }
}

/// Two numbers under a lock, with room for so many readers at a time.
pub fn rwlock(readers: u32) -> RwLock<[u64; 2]> {
    RwLock::with_readers([0; 2], readers as _).expect("memory")
}

/// A counter under a mutex.
pub fn mutex() -> Mutex<u64> {
    Mutex::new(0).expect("memory")
}

/// A counter.
pub fn value() -> Value<u64> {
    Value::new(0).expect("memory")
}

/// Room for [`slots`] messages, and what comes with them.
fn room<const N: usize>() -> u64 {
    ((slots::<N>() * N) as u64).max(1 << 20)
}

/// Plain data by value: for small messages.
#[derive(Clone)]
pub struct Plain<const N: usize>(Queue<[u8; N], Raw>);

impl<const N: usize> Plain<N> {
    /// A queue.
    pub fn new() -> Plain<N> {
        Plain(Queue::with_max_bytes(room::<N>()).expect("memory"))
    }

    /// A queue that is bounded to so many.
    pub fn bounded(count: u64) -> Plain<N> {
        Plain(Queue::bounded(count as _).expect("memory"))
    }
}

impl<const N: usize> Put<N> for Plain<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        self.0.put(*message).unwrap();
    }
}

impl<const N: usize> Get<N> for Plain<N> {
    #[inline(always)]
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        read(&self.0.get().unwrap())
    }
}

/// Bytes that the caller keeps.
pub struct Kept<const N: usize>(Queue<Vec<u8>, Bytes>, Vec<u8>);

impl<const N: usize> Kept<N> {
    /// A queue.
    pub fn new() -> Kept<N> {
        Kept(Queue::with_max_bytes(room::<N>()).expect("memory"), Vec::new())
    }
}

impl<const N: usize> Clone for Kept<N> {
    fn clone(&self) -> Kept<N> {
        Kept(self.0.clone(), Vec::with_capacity(N))
    }
}

impl<const N: usize> Put<N> for Kept<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        self.0.put_bytes(message).unwrap();
    }
}

impl<const N: usize> Get<N> for Kept<N> {
    #[inline(always)]
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        assert_eq!(self.0.get_into(&mut self.1).unwrap(), N);
        read(self.1.first_chunk().unwrap())
    }
}

/// In place: the two numbers are all that is written and read.
#[derive(Clone)]
pub struct InPlace<const N: usize>(Queue<Vec<u8>, Bytes>);

impl<const N: usize> InPlace<N> {
    /// A queue.
    pub fn new() -> InPlace<N> {
        InPlace(Queue::with_max_bytes(room::<N>()).expect("memory"))
    }
}

impl<const N: usize> Put<N> for InPlace<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        let mut place = self.0.reserve(N).unwrap();
        place[..8].copy_from_slice(&message[..8]);
        place[N - 8..].copy_from_slice(&message[N - 8..]);
        place.commit();
    }
}

impl<const N: usize> Get<N> for InPlace<N> {
    #[inline(always)]
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        let message = self.0.get_ref().unwrap();
        assert_eq!(message.len(), N);
        read(message.first_chunk().unwrap())
    }
}

/// An end of a connection, plain data.
pub struct PlainEnd<const N: usize>(Connection<[u8; N], [u8; N], Raw>);

impl<const N: usize> PlainEnd<N> {
    /// Both ends, with rings of the room of the queues.
    pub fn pair() -> (PlainEnd<N>, PlainEnd<N>) {
        let (here, there) = pipe_with_capacity(room::<N>() as usize).expect("memory");
        (PlainEnd(here), PlainEnd(there))
    }
}

impl<const N: usize> Put<N> for std::rc::Rc<PlainEnd<N>> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        self.0.send(*message).unwrap();
    }
}

impl<const N: usize> Get<N> for std::rc::Rc<PlainEnd<N>> {
    #[inline(always)]
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        read(&self.0.recv().unwrap())
    }
}

/// An end of a connection, bytes that the caller keeps.
pub struct KeptEnd<const N: usize>(Connection<Vec<u8>, Vec<u8>, polyproc_pipe::Bytes>, Vec<u8>);

impl<const N: usize> KeptEnd<N> {
    /// Both ends.
    pub fn pair() -> (KeptEnd<N>, KeptEnd<N>) {
        let (here, there) = pipe_with_capacity(room::<N>() as usize).expect("memory");
        (KeptEnd(here, Vec::with_capacity(N)), KeptEnd(there, Vec::with_capacity(N)))
    }
}

impl<const N: usize> Put<N> for KeptEnd<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        self.0.send_bytes(message).unwrap();
    }
}

impl<const N: usize> Get<N> for KeptEnd<N> {
    #[inline(always)]
    fn get<R>(&mut self, _: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        self.1.clear();
        assert_eq!(self.0.recv_bytes_into(&mut self.1, N).unwrap(), N);
        read(self.1.first_chunk().unwrap())
    }
}

/// The limit: the best ring by hand, of one producer and one consumer, spinning, and safe against nothing.
pub fn ring<const N: usize>() -> Ring<N> {
    Ring::new(slots::<N>().next_power_of_two() as u64)
}

impl<const N: usize> Put<N> for Ring<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) {
        Ring::put(self, message);
    }
}

impl<const N: usize> Get<N> for Ring<N> {
    #[inline(always)]
    fn get<R>(&mut self, buffer: &mut [u8; N], read: impl FnOnce(&[u8; N]) -> R) -> R {
        Ring::get(self, buffer);
        read(buffer)
    }
}
