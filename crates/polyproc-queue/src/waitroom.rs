//! Where those sleep that need a change which the holders of some lock make: a message, or room for one.
//!
//! Each side of the queue has a lock, and a waitroom for those who wait for what that lock's holders do:
//! consumers wait for the producers' news, producers for the room that consumers make. In between, a holder
//! has to know that somebody sleeps, and a sleeper has to be woken, whoever dies on the way.
//!
//! | word | values | what |
//! |---|---|---|
//! | `door` | 0: nobody is asleep | what all sleep on; robust |
//! | | [`NUMBER`] + somebody's place, + `ALONE` if that one knows of nobody else; or + `TICKET` and a holder's number | somebody may be asleep; who came last |
//! | | a holder's id + `WAITERS`, + `CAME` if somebody has come since | *raised*: that one is about to publish something and to wake |
//! | | `OWNER_DIED` + `WAITERS` | it died; the kernel has woken one |
//! | a herald | 0, [`NUMBER`], or a holder's id + `WAITERS` | robust: raised, where several sleep |
//! | `bell` | a number | changes with every holder that raises a herald, and with who comes to a door that is raised and marked |
//! | place | 0, or a sleeper's id + `WAITERS` | robust: somebody sleeps, or was woken and has not done its work yet |
//!
//! A **holder** looks at the door when it has taken its lock. If somebody may sleep, it raises a herald,
//! publishes, changes the bell and the door, releases the lock, wakes as many as it has news for, makes the
//! door 0 if there was nobody, and lowers the herald. First the lock: whoever is woken may take the CPU at
//! once, and would soon find it held. So the next holder may come while the herald is up, and takes another;
//! one that finds none of [`HERALDS`] free wakes everybody *before* it publishes: they find the lock held,
//! and sleep on that. If there is one that sleeps **alone**, see below, the holder raises the door itself,
//! which is all that this one sleeps on.
//!
//! A **sleeper** takes a place for the time from before its first sleep until its work is done. It says at
//! the door that it sleeps, looks at the lock's word, looks for news a last time, and then sleeps: on the
//! door, the bell, the heralds, the places of those who are here already, and, if the lock is held just now,
//! on the lock's word, marked so that its release wakes. Only the holder changes a raised door: its links are
//! in that thread's list. So there the sleeper marks it; and if it finds it marked, it rings the bell.
//!
//! One who finds itself **alone**, and neither the door raised nor the lock held, sleeps on the door only,
//! and without a timer. That is the usual case of one who waits for each message: one word, one wake. Its
//! holder, having published and released the lock, lowers the door to 0, and wakes then. So the sleeper,
//! which may run at once, finds nobody at the door, and may be alone again, while its waker has not come back
//! from the system call. If somebody has come meanwhile, it wakes first.
//!
//! # Why nobody sleeps for ever
//!
//! - **The holder took the lock before the sleeper came to the door**: then the sleeper finds the lock held
//!   and marks it, or finds it released and the news published. So whoever finds the door raised and sleeps
//!   on that has seen the news, or sleeps on the lock.
//! - **After it**: the holder sees that the door is not 0.
//! - **It takes no mutex, because the lock is [its own](crate::biased)**: the sleeper, having come to the
//!   door, takes it away. If the owner is inside then, the sleeper sleeps on that, too, and its leaving
//!   wakes. If not, its next visit takes the mutex.
//! - **The sleeper has looked for news and does not sleep yet when the holder wakes**: the door, or the bell,
//!   is not what it was before the holder published, so it does not begin to. What the door becomes when
//!   somebody comes, nobody else makes of it.
//! - **The holder publishes nothing**: the door, once raised, never is again what it was before. Others have
//!   found it raised, and not changed it.
//! - **The holder dies**, from raising to lowering: the kernel wakes one who sleeps on the door. **With a
//!   herald**: one who sleeps on that. **Having lowered it to 0, before the wake**: the kernel finds it 0
//!   with the operation pending, and wakes one, the one that there is. If somebody has come in between, so
//!   that it is not 0, that one has woken the other first.
//! - **The holder finds nobody to wake, and somebody comes before it makes the door 0**: that has changed, or
//!   is marked, and does not become 0.
//! - **A sleeper dies that a wake was spent on**: before it has done its work, it has a place. The kernel
//!   releases that and wakes one who sleeps on it: one that came later. Those that came before have been
//!   woken before, because the kernel wakes in the order of arrival. (Real-time threads it wakes before
//!   others. So one of those wakes one that sleeps alone when it comes: that one sleeps again, on its place,
//!   too. Among several, such a one may leave others to their backstop.)
//! - **A sleeper leaves with its deadline, or dies asleep**: the door may stay as it is, which costs the next
//!   holder one wake.
//!
//! # Without a timer
//!
//! One that sleeps alone relies on no backstop, however many die. It says so (`alone`) before it comes to the
//! door, and as long as it does, holders raise the door: then they or the kernel wake one who sleeps there,
//! which is the first, and it is that; they make it 0 only when they have woken everybody, or are about to
//! with the kernel behind them. Whoever comes to sleep comes to the door, too, and sleeps behind it.
//!
//! More than [`PLACES`] sleepers at once are legal; those without a place look every millisecond.

mod herald;
mod sleeper;
#[cfg(all(test, not(any(polyproc_loom, polyproc_shuttle))))]
mod tests;

#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) use {herald::Herald, sleeper::Sleeper};

use crate::robust::{NUMBER, Robust, is_owned};
use polyproc_sys::atomic::{AtomicU32, Ordering, fence_after_rmw};
use polyproc_sys::futex::{Futex, OWNER_DIED};

/// Of the door: nobody is asleep.
const NOBODY: u32 = 0;
/// Of the door, if it is not raised: somebody may be asleep. In its lower bits may be who came last, as
/// place + 1.
const ASLEEP: u32 = NUMBER;
/// Beside that: who came last knows of nobody else.
const ALONE: u32 = 1 << 28;
/// Beside that: a holder's number, from the bell.
const TICKET: u32 = 1 << 27;
/// In a raised door: somebody has come since.
const CAME: u32 = OWNER_DIED;

/// So many sleep in safety.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const PLACES: usize = 60;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const PLACES: usize = 3;

/// So many more than one wake at a time, each having released the lock.
#[cfg(not(any(polyproc_loom, polyproc_shuttle)))]
pub(crate) const HERALDS: usize = 3;
/// Few, for the models' sake.
#[cfg(any(polyproc_loom, polyproc_shuttle))]
pub(crate) const HERALDS: usize = 1;

/// See the page above. All zero is an empty one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Waitroom {
    door: Robust,
    /// Raised where several sleep.
    heralds: [Robust; HERALDS],
    /// What all sleep on but one that sleeps alone.
    bell: Futex,
    /// So many places were ever used.
    used: AtomicU32,
    /// Who sleeps and knows of nobody else, as place + 1.
    alone: AtomicU32,
    reserved: AtomicU32,
    places: [Robust; PLACES],
}

impl Waitroom {
    /// An empty one.
    #[cfg(any(test, polyproc_loom, polyproc_shuttle))]
    pub(crate) fn new() -> Waitroom {
        Waitroom {
            door: Robust::default(),
            heralds: core::array::from_fn(|_| Robust::default()),
            bell: Futex::new(0),
            used: AtomicU32::new(0),
            alone: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            places: core::array::from_fn(|_| Robust::default()),
        }
    }

    /// As the holder of the lock's mutex, since a moment: may somebody be asleep?
    #[inline(always)]
    pub(crate) fn is_occupied(&self) -> bool {
        // Pairs with the fence in `sleep`: either the sleeper sees that the lock is held, or this sees it.
        fence_after_rmw();
        self.looks_occupied()
    }

    /// As the lock's owner, inside: may somebody be asleep? A sleeper takes the lock away from its owner when
    /// it has said that it sleeps.
    #[inline(always)]
    pub(crate) fn looks_occupied(&self) -> bool {
        self.door.word.load(Ordering::Relaxed) != NOBODY
    }

    /// As one who was woken: wakes so many more.
    #[cold]
    #[inline(never)]
    pub(crate) fn pass_on(&self, count: u32) {
        self.door.word.wake(count);
    }

    /// Wakes everybody, and whoever is about to sleep: what they sleep on has changed.
    #[cold]
    pub(crate) fn call_all(&self) {
        let word = &self.door.word;
        let mut door = word.load(Ordering::SeqCst);
        loop {
            if is_owned(door) {
                self.bell.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if door == NOBODY {
                break;
            }
            match word.compare_exchange(door, ASLEEP, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(other) => door = other,
            }
        }
        word.wake_all();
    }
}
