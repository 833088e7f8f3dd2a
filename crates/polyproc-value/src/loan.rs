//! [`Loan`]: an array whose lock one process holds, and in whose parts others work meanwhile.

use crate::error::ArrayError;
use crate::span::span;
use crate::table::Table;
use bytemuck::Pod;
use core::fmt;
use core::ops::Range;
use polyproc_memory::Object;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Elements of an array that whoever holds its guard has lent.
///
/// For polyproc's own pool, which promises what no type can, across processes: that no two work on overlapping ranges at a
/// time, and that nobody does when the guard's borrow has ended, be it that they have returned or that they are dead.
///
/// If the process that lends is killed, its workers follow a moment later; whoever takes the lock meanwhile is told that
/// its holder died, and may see elements change.
pub struct Loan<T>(Table<T>);

impl<T> Loan<T> {
    pub(crate) fn new(table: Table<T>) -> Loan<T> {
        Loan(table)
    }
}

impl<T: Pod> Loan<T> {
    /// Works on a range of the elements.
    ///
    /// # Errors
    ///
    /// There is no such range.
    pub fn with<R>(&self, range: Range<usize>, f: impl FnOnce(&mut [T]) -> R) -> Result<R, ArrayError> {
        let range = span(range, self.0.len())?;
        // SAFETY: the lock is held by whoever lends; and the one user of this type gives a range to one worker at a time,
        // and keeps the guard borrowed until that one has returned or is dead.
        let elements = unsafe { self.0.part_mut(range) };
        Ok(f(elements))
    }
}

impl<T> Clone for Loan<T> {
    fn clone(&self) -> Loan<T> {
        Loan(self.0.clone())
    }
}

impl<T> fmt::Debug for Loan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.0.len()).finish_non_exhaustive()
    }
}

impl<T> Serialize for Loan<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.object().serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Loan<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loan<T>, D::Error> {
        let object = Object::deserialize(deserializer, Table::<T>::shape)?;
        Table::at(object).map(Loan).ok_or_else(|| serde::de::Error::custom("the array is too large"))
    }
}
