//! Items, one behind the other, in memory that is longer than they are.
//!
//! So an item is written into memory that is there, and nobody has to be asked for more, nor does anybody
//! change the vector meanwhile: what counts them stays in a register, which made half of the time of a small
//! item.

use crate::items::{self, Appended, Tag};
use serde::Serialize;

#[derive(Debug, Default)]
pub(crate) struct Pile {
    place: Vec<u8>,
    /// How many bytes of it are items.
    used: usize,
}

impl Pile {
    /// An empty one, with room for so many bytes; more are found if there have to be.
    pub(crate) fn new(room: usize) -> Pile {
        Pile { place: vec![0; room], used: 0 }
    }

    /// An empty one in memory that was used before.
    pub(crate) fn reuse(mut memory: Vec<u8>) -> Pile {
        memory.clear();
        Pile { place: memory, used: 0 }
    }

    /// Appends a value.
    #[inline(always)]
    pub(crate) fn append<T: Serialize + 'static>(&mut self, value: &T) -> Appended {
        match self.place.get_mut(self.used..).and_then(|place| items::put(place, value)) {
            Some(length) => {
                self.used += length;
                Appended::Plain
            }
            None => self.append_slowly(Tag::Value, value),
        }
    }

    /// Appends what has no room here, or handles in it, or cannot be written, or is no value.
    #[cold]
    #[inline(never)]
    pub(crate) fn append_slowly<T: Serialize + 'static>(&mut self, tag: Tag, value: &T) -> Appended {
        self.place.truncate(self.used);
        let appended = items::append(&mut self.place, tag, value);
        self.used = self.place.len();
        appended
    }

    /// Appends a text, which can always be done.
    #[cold]
    pub(crate) fn append_text(&mut self, tag: Tag, text: &str) {
        let _ = self.append_slowly(tag, &text.to_owned());
    }

    /// Appends bytes.
    pub(crate) fn append_bytes(&mut self, bytes: &[u8]) {
        self.place.truncate(self.used);
        self.place.extend_from_slice(bytes);
        self.used = self.place.len();
    }

    /// Leaves so many bytes free, of the room that there is.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.used = (self.used + bytes).min(self.place.len());
    }

    /// All that is here.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.place[..self.used]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.place[..self.used]
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Forgets all that is behind this place.
    #[inline(always)]
    pub(crate) fn truncate(&mut self, length: usize) {
        self.used = self.used.min(length);
    }

    /// Takes out all that is behind this place.
    pub(crate) fn split_off(&mut self, at: usize) -> Vec<u8> {
        let rest = self.place[at..self.used].to_vec();
        self.used = at;
        rest
    }

    /// Sees to it that there is room for so many bytes, and memory for not many times more.
    pub(crate) fn make_room(&mut self, room: usize, most: usize) {
        if self.place.capacity() > most {
            self.place = self.bytes().to_vec();
        }
        if self.place.len() < room {
            self.place.resize(room, 0);
        }
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.place.truncate(self.used);
        self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the room, across its end, and behind it.
    #[test]
    fn items_pass_wherever_they_lie() {
        let values: Vec<Vec<u8>> = (0..80).map(|n| vec![n as u8; n * 7]).collect();
        let mut expected = Vec::new();
        for value in &values {
            assert!(matches!(items::append(&mut expected, Tag::Value, value), Appended::Plain));
        }
        for room in (0..expected.len() + 10).step_by(5) {
            let mut pile = Pile::new(room);
            for value in &values {
                assert!(matches!(pile.append(value), Appended::Plain));
            }
            assert_eq!(pile.bytes(), expected);
            let rest = pile.split_off(100);
            assert_eq!((pile.bytes(), &rest[..]), expected.split_at(100));
            pile.append_bytes(&rest);
            assert!(pile.into_bytes() == expected, "{room}");
        }
    }

    #[test]
    fn what_is_forgotten_leaves_no_trace() {
        let mut pile = Pile::new(20);
        assert!(matches!(pile.append(&7u64), Appended::Plain));
        let before = pile.bytes().to_vec();
        for value in [vec![1u8; 3], vec![2; 30], vec![3; 300]] {
            assert!(matches!(pile.append(&value), Appended::Plain));
            pile.truncate(before.len());
            assert_eq!(pile.bytes(), before);
        }
        pile.make_room(400, 100);
        assert_eq!((pile.bytes(), pile.place.len()), (&before[..], 400));
    }
}
