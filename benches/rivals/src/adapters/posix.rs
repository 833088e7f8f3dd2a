//! What libc has: mutexes, robust or not, locks for readers and writers, and semaphores, shared by processes.

use crate::Shared;
use crate::lock::Counter;
use crate::rwlock::{ReadWrite, add_one};
use libc::{pthread_mutex_t, pthread_rwlock_t, sem_t};
use std::mem::MaybeUninit;

#[repr(C)]
struct Locked<L> {
    lock: L,
    number: u64,
}

/// A counter under a pthread mutex.
pub struct Pthread(Shared<Locked<pthread_mutex_t>>);

impl Pthread {
    /// A plain or a robust one.
    pub fn new(is_robust: bool) -> Pthread {
        let shared = Shared::<Locked<pthread_mutex_t>>::new();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: room for them.
        let mut result = unsafe { libc::pthread_mutexattr_init(attributes) };
        // SAFETY: initialised above.
        result |= unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
        if is_robust {
            // SAFETY: likewise.
            result |= unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
        }
        assert_eq!(result, 0);
        // SAFETY: within the mapping, of which nobody else knows.
        let lock = unsafe { &raw mut (*shared.at()).lock };
        // SAFETY: room for a mutex, and initialised attributes.
        assert_eq!(unsafe { libc::pthread_mutex_init(lock, attributes) }, 0);
        Pthread(shared)
    }
}

impl Pthread {
    /// Runs something while it is locked.
    #[inline(always)]
    pub fn within(&self, f: impl FnOnce()) {
        // SAFETY: initialised by `new`.
        assert_eq!(unsafe { libc::pthread_mutex_lock(&raw mut (*self.0.at()).lock) }, 0);
        f();
        // SAFETY: as above, and held.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(&raw mut (*self.0.at()).lock) }, 0);
    }
}

impl Counter for Pthread {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        self.within(|| {
            work();
            // SAFETY: the number is only touched by who holds the mutex.
            unsafe { (*self.0.at()).number += 1 };
        });
    }

    fn total(&self) -> u64 {
        // SAFETY: nobody else is at work.
        unsafe { (*self.0.at()).number }
    }
}

/// A semaphore, with a number beside it.
pub struct Semaphore(Shared<Locked<sem_t>>);

impl Semaphore {
    /// With so many permits.
    pub fn new(permits: u32) -> Semaphore {
        let shared = Shared::<Locked<sem_t>>::new();
        // SAFETY: room for a semaphore, of which nobody else knows.
        assert_eq!(unsafe { libc::sem_init(&raw mut (*shared.at()).lock, 1, permits) }, 0);
        Semaphore(shared)
    }

    /// Takes a permit.
    #[inline(always)]
    pub fn acquire(&self) {
        // SAFETY: initialised by `new`.
        while unsafe { libc::sem_wait(&raw mut (*self.0.at()).lock) } != 0 {}
    }

    /// Gives one back.
    #[inline(always)]
    pub fn release(&self) {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sem_post(&raw mut (*self.0.at()).lock) }, 0);
    }

    /// How many permits there are.
    pub fn available(&self) -> u32 {
        let mut value = 0;
        // SAFETY: as above, and the value is writable.
        assert_eq!(unsafe { libc::sem_getvalue(&raw mut (*self.0.at()).lock, &mut value) }, 0);
        value as u32
    }
}

/// With one permit, it is a lock.
impl Counter for Semaphore {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        self.acquire();
        work();
        // SAFETY: only touched by who has the permit.
        unsafe { (*self.0.at()).number += 1 };
        self.release();
    }

    fn total(&self) -> u64 {
        // SAFETY: nobody else is at work.
        unsafe { (*self.0.at()).number }
    }
}

#[repr(C)]
struct Pair {
    lock: pthread_rwlock_t,
    numbers: [u64; 2],
}

/// Two numbers under a lock for readers and writers.
pub struct RwLock(Shared<Pair>);

impl RwLock {
    /// One that prefers readers, which is the default.
    pub fn new() -> RwLock {
        let shared = Shared::<Pair>::new();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: room for them.
        let mut result = unsafe { libc::pthread_rwlockattr_init(attributes) };
        // SAFETY: initialised above.
        result |= unsafe { libc::pthread_rwlockattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) };
        assert_eq!(result, 0);
        // SAFETY: within the mapping, of which nobody else knows.
        let lock = unsafe { &raw mut (*shared.at()).lock };
        // SAFETY: room for a lock, and initialised attributes.
        assert_eq!(unsafe { libc::pthread_rwlock_init(lock, attributes) }, 0);
        RwLock(shared)
    }

    #[inline(always)]
    fn lock(&self) -> *mut pthread_rwlock_t {
        // SAFETY: within the mapping.
        unsafe { &raw mut (*self.0.at()).lock }
    }

    #[inline(always)]
    fn unlock(&self) {
        // SAFETY: initialised by `new`, and held.
        assert_eq!(unsafe { libc::pthread_rwlock_unlock(self.lock()) }, 0);
    }
}

impl ReadWrite for RwLock {
    #[inline(always)]
    fn read(&self) -> [u64; 2] {
        // SAFETY: initialised by `new`.
        assert_eq!(unsafe { libc::pthread_rwlock_rdlock(self.lock()) }, 0);
        // SAFETY: nobody writes.
        let numbers = unsafe { (*self.0.at()).numbers };
        self.unlock();
        numbers
    }

    #[inline(always)]
    fn write(&self) {
        // SAFETY: initialised by `new`.
        assert_eq!(unsafe { libc::pthread_rwlock_wrlock(self.lock()) }, 0);
        // SAFETY: nobody else reads or writes.
        add_one(unsafe { &mut (*self.0.at()).numbers });
        self.unlock();
    }
}
