//! raw_sync: its mutex, its lock for readers and writers, its event, and its event that spins.

use crate::Shared;
use crate::lock::Counter;
use crate::rwlock::{ReadWrite, add_one};
use raw_sync::Timeout;
use raw_sync::events::{BusyEvent, Event, EventImpl, EventInit, EventState};
use raw_sync::locks::{LockImpl, LockInit, Mutex, RwLock};

/// Room for whatever it needs, and numbers in a line of their own.
#[repr(C, align(64))]
struct Room {
    bytes: [u8; 512],
    number: u64,
    other: u64,
}

/// A counter under its mutex.
pub struct RawSync {
    lock: Box<dyn LockImpl>,
    room: Shared<Room>,
}

impl RawSync {
    /// One at nought.
    pub fn new() -> RawSync {
        let room = Shared::<Room>::new();
        assert!(Mutex::size_of(Some(room.at().cast())) <= 512);
        // SAFETY: room enough, which lives as long as the lock, and the number as its data.
        let lock = unsafe { Mutex::new(room.at().cast(), (&raw mut (*room.at()).number).cast()) };
        RawSync { lock: lock.expect("a mutex").0, room }
    }
}

impl Counter for RawSync {
    #[inline(always)]
    fn work_and_add(&self, work: impl FnOnce()) {
        let guard = self.lock.lock().expect("the lock");
        work();
        // SAFETY: the data that it was made with, a number, which the lock guards.
        unsafe { *guard.cast::<u64>() += 1 };
    }

    fn total(&self) -> u64 {
        // SAFETY: nobody else is at work.
        unsafe { (*self.room.at()).number }
    }
}

/// Two numbers under its lock for readers and writers.
pub struct RawSyncRwLock {
    lock: Box<dyn LockImpl>,
    _room: Shared<Room>,
}

impl RawSyncRwLock {
    /// Two at nought.
    pub fn new() -> RawSyncRwLock {
        let room = Shared::<Room>::new();
        assert!(RwLock::size_of(Some(room.at().cast())) <= 512);
        // SAFETY: room enough, which lives as long as the lock, and the numbers as its data.
        let lock = unsafe { RwLock::new(room.at().cast(), (&raw mut (*room.at()).number).cast()) };
        RawSyncRwLock { lock: lock.expect("a lock").0, _room: room }
    }
}

impl ReadWrite for RawSyncRwLock {
    #[inline(always)]
    fn read(&self) -> [u64; 2] {
        let guard = self.lock.rlock().expect("the lock");
        // SAFETY: the data that it was made with, two numbers, which nobody writes meanwhile.
        unsafe { *guard.cast::<[u64; 2]>() }
    }

    #[inline(always)]
    fn write(&self) {
        let guard = self.lock.lock().expect("the lock");
        // SAFETY: the same, which the lock guards.
        add_one(unsafe { &mut *guard.cast::<[u64; 2]>() });
    }
}

/// Two events that reset themselves.
pub struct Events {
    events: [Box<dyn EventImpl>; 2],
    _rooms: [Shared<Room>; 2],
}

impl Events {
    fn new<E: EventInit>() -> Events {
        let rooms = [Shared::<Room>::new(), Shared::new()];
        let events = rooms.each_ref().map(|room| {
            assert!(E::size_of(Some(room.at().cast())) <= 512);
            // SAFETY: room enough, which lives as long as the event.
            unsafe { E::new(room.at().cast(), true) }.expect("an event").0
        });
        Events { events, _rooms: rooms }
    }

    /// Two that sleep.
    pub fn sleeping() -> Events {
        Events::new::<Event>()
    }

    /// Two that spin.
    pub fn busy() -> Events {
        Events::new::<BusyEvent>()
    }

    /// What sets one.
    pub fn set(&self, index: usize) -> impl FnMut() {
        move || self.events[index].set(EventState::Signaled).expect("a signal")
    }

    /// What waits for one, and takes it.
    pub fn take(&self, index: usize) -> impl FnMut() {
        move || self.events[index].wait(Timeout::Infinite).expect("a wait")
    }
}
