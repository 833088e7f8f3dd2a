//! What the models see of the waitroom: one waitroom with its lock, and messages that are only counted. And
//! what they can take out of the protocol, to show that each part is needed.

use crate::biased::{Biased, SLOTS, Side, Slot};
use crate::waitroom::Waitroom;
use core::fmt;
use core::mem::ManuallyDrop;
use polyproc_sys::atomic::{AtomicU64, Ordering};
use polyproc_sys::deadline::Deadline;
use polyproc_sys::thread;
use std::sync::Mutex;

/// A part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The holder's announcement that it is about to publish and to wake.
    Herald,
    /// A sleeper's last look for news.
    LastLook,
    /// That one who was woken wakes another if there is more.
    PassOn,
    /// A sleeper's place.
    Place,
    /// That a sleeper marks the lock that is held.
    Mark,
    /// That a sleeper marks a door that somebody has raised.
    Came,
    /// That the door is 0, where the kernel may have to wake, before one is woken that sleeps alone.
    Zero,
    /// That one who would be woken before one that sleeps alone wakes that one first.
    Overtaken,
    /// The barrier of who takes a lock away from its owner.
    Barrier,
    /// That the kernel knows where the owner is inside.
    Pending,
    /// That the owner looks, when it leaves, whether it has to wake somebody.
    Call,
}

/// Not the checker's: set before a model begins.
static WITHOUT: Mutex<Option<Part>> = Mutex::new(None);

/// Takes a part out, or none.
pub fn set_without(part: Option<Part>) {
    *WITHOUT.lock().unwrap_or_else(|error| error.into_inner()) = part;
}

pub(crate) fn is_without(part: Part) -> bool {
    *WITHOUT.lock().unwrap_or_else(|error| error.into_inner()) == Some(part)
}

/// A producers' lock, a waitroom for those who wait for its holders, and messages that are only counted.
pub struct Stage {
    lock: Biased,
    slots: [Slot; SLOTS],
    room: Waitroom,
    put: AtomicU64,
    /// How many were taken, and above [`TAKER`] who took the last.
    taken: AtomicU64,
}

const TAKER: u32 = 32;

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").finish_non_exhaustive()
    }
}

impl Default for Stage {
    fn default() -> Stage {
        Stage {
            lock: Biased::default(),
            slots: core::array::from_fn(|_| Slot::default()),
            room: Waitroom::new(),
            put: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }
}

impl Stage {
    /// Puts so many messages in one step, as a producer does.
    ///
    /// # Panics
    ///
    /// If the calling thread holds the lock.
    pub fn put(&self, count: u32) {
        let side = self.side();
        if let Some(inside) = side.enter() {
            let asleep = self.room.looks_occupied();
            if !asleep {
                self.publish(count);
            }
            side.leave(inside);
            if !asleep {
                return;
            }
        }
        // SAFETY: the stage outlives the threads of a model.
        unsafe { side.lock_until(Deadline::NEVER) }.unwrap();
        // Who vanishes drops nothing.
        let mut herald = None;
        if self.room.is_occupied() {
            herald = Some(ManuallyDrop::new(self.room.raise()));
        }
        self.publish(count);
        if let Some(herald) = &mut herald {
            herald.announce();
        }
        // SAFETY: locked above.
        unsafe { side.unlock() };
        if let Some(herald) = herald {
            ManuallyDrop::into_inner(herald).wake(count);
        }
    }

    /// Comes to put something, and does not, as a producer whose message is too large. Others do something
    /// when it has released the lock, and has not said yet that there is no news.
    ///
    /// # Panics
    ///
    /// If the calling thread holds the lock.
    pub fn put_nothing(&self, others: impl FnOnce()) {
        let side = self.side();
        // SAFETY: the stage outlives the threads of a model.
        unsafe { side.lock_until(Deadline::NEVER) }.unwrap();
        // Who vanishes drops nothing.
        let mut herald = None;
        if self.room.is_occupied() {
            herald = Some(ManuallyDrop::new(self.room.raise()));
        }
        // SAFETY: locked above.
        unsafe { side.unlock() };
        others();
        drop(herald.map(ManuallyDrop::into_inner));
    }

    fn publish(&self, count: u32) {
        let put = self.put.load(Ordering::Relaxed);
        self.put.store(put + u64::from(count), Ordering::Release);
    }

    fn side(&self) -> Side<'_> {
        Side { lock: &self.lock, slots: &self.slots }
    }

    /// Becomes the one to whom the lock is granted.
    ///
    /// # Panics
    ///
    /// If it is granted to somebody else, or the calling thread holds it.
    pub fn become_owner(&self) {
        let side = self.side();
        for _ in 0..2 {
            // SAFETY: the stage outlives the threads of a model.
            unsafe { side.lock_until(Deadline::NEVER) }.unwrap();
            // SAFETY: locked above.
            unsafe { side.unlock() };
        }
        side.leave(side.enter().expect("it was taken twice in a row"));
    }

    /// Takes a message, waiting for it. With one step that counts, as a consumer; the consumers' lock is left
    /// out.
    pub fn take(&self) {
        // Who vanishes drops nothing.
        let mut sleeper = None;
        while !self.try_take() {
            let sleeper = sleeper.get_or_insert_with(|| ManuallyDrop::new(self.room.enter()));
            sleeper.sleep(self.side(), core::iter::empty(), Deadline::NEVER, || self.len() != 0);
        }
        if sleeper.is_some() && self.len() != 0 && !is_without(Part::PassOn) {
            self.room.pass_on(1);
        }
        drop(sleeper.map(ManuallyDrop::into_inner));
    }

    fn try_take(&self) -> bool {
        loop {
            let taken = self.taken.load(Ordering::SeqCst);
            if taken as u32 as u64 == self.put.load(Ordering::SeqCst) {
                return false;
            }
            let next = (u64::from(taken as u32) + 1) | u64::from(thread::current().tid()) << TAKER;
            if self.taken.compare_exchange(taken, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// How many messages there are.
    pub fn len(&self) -> u64 {
        self.put.load(Ordering::SeqCst) - u64::from(self.taken.load(Ordering::SeqCst) as u32)
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many were put ever.
    pub fn number(&self) -> u64 {
        self.put.load(Ordering::SeqCst)
    }

    /// Who took the last one, 0 for nobody.
    pub fn taker(&self) -> u32 {
        (self.taken.load(Ordering::SeqCst) >> TAKER) as u32
    }
}
