//! Shared memory into which long items are written before it is known which worker gets them: so they are
//! copied once on their way there, and the worker reads them out.

use crate::crew::{Lease, SLAB_KEPT, Slab};

/// How many items may lie here at a time. Others go through memory of the pool's own.
pub(crate) const PLACES: usize = 8;

/// Longer items do not lie here: their memory is not to be kept.
const LONGEST: usize = SLAB_KEPT / 2;

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    slabs: [Slab; PLACES],
    /// Which slab each is, of all that there ever were, from 1.
    numbers: [u64; PLACES],
    last: u64,
}

/// A slab of the shelf, as long as there is a clone.
#[derive(Clone, Debug)]
pub(crate) struct Lent {
    pub(crate) place: usize,
    pub(crate) number: u64,
    pub(crate) lease: Lease,
    /// How many bytes the item has that was written there.
    pub(crate) length: usize,
}

impl Shelf {
    /// A slab for about so many bytes. `None` if all are taken, or it would be too large to be kept, or there
    /// is no memory.
    pub(crate) fn lend(&mut self, length: usize) -> Option<Lent> {
        if length > LONGEST {
            return None;
        }
        let free = |slab: &&Slab| !slab.is_taken();
        let place = self.slabs.iter().position(|slab| free(&slab) && slab.fits(length));
        let place = match place {
            Some(place) => place,
            None => {
                let place = self.slabs.iter().position(|slab| free(&slab))?;
                // With room for the next, which may be a little longer.
                self.slabs[place] = Slab::new(length).ok()?;
                self.last += 1;
                self.numbers[place] = self.last;
                place
            }
        };
        Some(Lent { place, number: self.numbers[place], lease: self.slabs[place].lease()?, length: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_lent_again_when_nobody_uses_it() {
        let mut shelf = Shelf::default();
        let all: Vec<Lent> = (0..PLACES).map(|_| shelf.lend(1000).unwrap()).collect();
        assert!(shelf.lend(1000).is_none());
        let (number, place) = (all[3].number, all[3].place);
        let kept = all[3].clone();
        drop(all);
        assert_ne!(shelf.lend(1000).unwrap().place, place, "of somebody who still has it");
        drop(kept);
        let all: Vec<Lent> = (0..PLACES).map(|_| shelf.lend(1000).unwrap()).collect();
        assert_eq!(all[place].number, number);
        drop(all);
        let larger = shelf.lend(1 << 20).unwrap();
        assert!(larger.number > PLACES as u64);
        larger.lease.with(|place| assert!(place.len() >= 1 << 20));
        assert!(shelf.lend(LONGEST + 1).is_none());
    }
}
