//! [`Loan`]: an array whose lock one process holds, and in whose parts others work meanwhile.
//!
//! Who works in a part *claims* the array for that time, which the kernel remembers until the claim is given
//! back or its process is gone. The array's `loan` word is a number and a state:
//!
//! | state | who works | who changes it |
//! |---|---|---|
//! | `FREE` | nobody | the holder of the lock lends: the next number, `LENT` |
//! | `LENT` | whoever has a loan of this number | the holder of the lock, when it has what it lent back, or the next holder if that one has died: `REVOKED` |
//! | `REVOKED` | who had begun before | the same, when nobody claims the array any more: `FREE` |
//!
//! A worker claims first and then looks at the word; who revokes writes the word first and then looks for
//! claims. So of the two at least one sees the other: either the worker does not begin, or it is waited for.
//! Wherever anybody is killed, the next holder of the lock finds the word as it is, and goes on from there.

use crate::array::ArrayGuard;
use crate::span::span;
use crate::table::Table;
use bytemuck::Pod;
use core::fmt;
use core::ops::Range;
use polyproc_memory::{Claimant, Object};
use polyproc_sys::atomic::{Ordering, fence};
use polyproc_sys::deadline::Deadline;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::thread;
use std::time::Duration;

/// The bits of the word that are the state. The others number the loans.
const STATE: u64 = 3;
const FREE: u64 = 0;
const LENT: u64 = 1;
const REVOKED: u64 = 2;
/// The next loan.
const NEXT: u64 = STATE + 1;

/// How long whoever waits for the end of a loan sleeps between two looks, at the most.
const PAUSE: Duration = Duration::from_millis(5);

impl<T> Table<T> {
    /// Whether parts of it are lent, or were by a process that is dead.
    #[inline(always)]
    pub(crate) fn is_lent(&self) -> bool {
        // Relaxed: the caller has the lock, and so has whoever changes it.
        self.loan().load(Ordering::Relaxed) & STATE != FREE
    }

    /// As one who has just taken the lock: waits until nobody works any more on what a dead holder has lent.
    /// `false` if somebody still does at the deadline.
    #[inline(always)]
    pub(crate) fn await_return(&self, deadline: Deadline) -> bool {
        !self.is_lent() || self.end_loan(deadline)
    }

    /// As the holder of the lock: begins a loan. Its number, and its state.
    fn lend(&self) -> u64 {
        let word = (self.loan().load(Ordering::Relaxed) & !STATE).wrapping_add(NEXT) | LENT;
        // Relaxed: workers hear of the number from this process, after this.
        self.loan().store(word, Ordering::Relaxed);
        word
    }

    /// As the holder of the lock: ends a loan, its own or that of a dead holder, and waits until nobody works
    /// any more. `false` if somebody still does at the deadline.
    #[cold]
    pub(crate) fn end_loan(&self, deadline: Deadline) -> bool {
        let number = self.loan().load(Ordering::Relaxed) & !STATE;
        self.loan().store(number | REVOKED, Ordering::Relaxed);
        // Pairs with the fence in `Loan::with`: see above.
        fence(Ordering::SeqCst);
        let mut pause = Duration::from_micros(20);
        // A system that cannot tell has no room for claims, either: it is asked again.
        while !matches!(self.object().is_claimed(), Ok(false)) {
            if deadline.has_passed() {
                return false;
            }
            thread::sleep(deadline.remaining().map_or(pause, |left| left.min(pause)));
            pause = (pause * 2).min(PAUSE);
        }
        self.loan().store(number | FREE, Ordering::Relaxed);
        true
    }
}

/// Elements of an array, lent by whoever holds its guard, until this is dropped: which waits until nobody
/// works on them.
#[doc(hidden)]
pub struct Lending<'a, T> {
    guard: &'a ArrayGuard<'a, T>,
    /// The array's word; 0 in a forked child, which has nothing to lend.
    number: u64,
}

impl<'a, T> Lending<'a, T> {
    pub(crate) fn new(guard: &'a ArrayGuard<'a, T>) -> Lending<'a, T> {
        let number = if guard.is_inherited() { 0 } else { guard.table().lend() };
        Lending { guard, number }
    }

    /// For whoever is to work on a part.
    pub fn loan(&self) -> Loan<T> {
        Loan { table: self.guard.table().clone(), number: self.number, claimant: None }
    }
}

impl<T> Drop for Lending<'_, T> {
    fn drop(&mut self) {
        if self.number != 0 && !self.guard.is_inherited() {
            self.guard.table().end_loan(Deadline::NEVER);
        }
    }
}

impl<T> fmt::Debug for Lending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lending").field("len", &self.guard.table().len()).finish_non_exhaustive()
    }
}

/// Elements of an array that whoever holds its guard has lent.
///
/// For polyproc's own pool, which promises what no type can, across processes: that no two work on
/// overlapping ranges at a time. That nobody works on any when the array is somebody else's again, the loan
/// sees to itself: also if the process that lends is killed. Then whoever takes the lock next waits until
/// those who are at work have returned or are dead, and those who come later are refused.
pub struct Loan<T> {
    table: Table<T>,
    number: u64,
    claimant: Option<Claimant>,
}

impl<T: Pod> Loan<T> {
    /// Works on a range of the elements.
    ///
    /// # Errors
    ///
    /// There is no such range, the loan is over, or the system refuses what it takes to claim the array.
    pub fn with<R>(&mut self, range: Range<usize>, f: impl FnOnce(&mut [T]) -> R) -> io::Result<R> {
        let range = span(range, self.table.len()).map_err(io::Error::other)?;
        let claimant = match self.claimant.take() {
            Some(claimant) => claimant,
            None => self.table.object().claimant()?,
        };
        let claim = self.claimant.insert(claimant).claim()?;
        // Pairs with the fence in `end_loan`: see above.
        fence(Ordering::SeqCst);
        if self.number & STATE != LENT || self.table.loan().load(Ordering::Relaxed) != self.number {
            return Err(io::Error::other("the loan is over"));
        }
        // SAFETY: the lock is held by whoever lends, or nobody has taken it since, and whoever does waits for
        // this claim; and the one user of this type gives a range to one worker at a time.
        let elements = unsafe { self.table.part_mut(range) };
        let result = f(elements);
        drop(claim);
        Ok(result)
    }

    /// Takes over what another loan of the same array has opened.
    pub fn follow(&mut self, last: Loan<T>) {
        if self.table.object().same_object(last.table.object()) {
            self.claimant = last.claimant;
        }
    }
}

impl<T> Clone for Loan<T> {
    fn clone(&self) -> Loan<T> {
        Loan { table: self.table.clone(), number: self.number, claimant: None }
    }
}

impl<T> fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.table.len()).finish_non_exhaustive()
    }
}

impl<T> Serialize for Loan<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Part(self.table.object()), self.number).serialize(serializer)
    }
}

/// An object as a part of something larger.
struct Part<'a>(&'a Object);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A table, the same way.
struct Whole<T>(Table<T>);

impl<'de, T: Pod> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole<T>, D::Error> {
        let object = Object::deserialize(deserializer, Table::<T>::shape)?;
        Table::at(object).map(Whole).ok_or_else(|| serde::de::Error::custom("the array is too large"))
    }
}

impl<'de, T: Pod> Deserialize<'de> for Loan<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loan<T>, D::Error> {
        let (Whole(table), number) = <(Whole<T>, u64)>::deserialize(deserializer)?;
        Ok(Loan { table, number, claimant: None })
    }
}
