//! What an object is: the part of its header that both sides must agree on.

use core::alloc::Layout;
use core::fmt;

/// What an object is for: up to eight printable ASCII characters, such as `mutex`.
///
/// It stands in the object's header, and in the name of a region that holds one object.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind([u8; 8]);

impl Kind {
    /// The kind of this name.
    ///
    /// # Panics
    ///
    /// If the name is empty, longer than eight bytes, or has a character that is not printable ASCII. In a
    /// constant, that is an error at compile time.
    ///
    /// # Examples
    ///
    /// ```
    /// use polyproc_memory::Kind;
    /// const KIND: Kind = Kind::new("mutex");
    /// assert_eq!(KIND.to_string(), "mutex");
    /// ```
    pub const fn new(name: &str) -> Kind {
        let name = name.as_bytes();
        assert!(!name.is_empty() && name.len() <= 8, "a kind has one to eight characters");
        let mut bytes = [0; 8];
        let mut index = 0;
        while index < name.len() {
            assert!(name[index].is_ascii_graphic(), "a kind has printable ASCII characters only");
            bytes[index] = name[index];
            index += 1;
        }
        Kind(bytes)
    }

    /// As it stands in a header.
    pub(crate) const fn to_bits(self) -> u64 {
        u64::from_ne_bytes(self.0)
    }

    /// From a header: whatever stands there.
    pub(crate) const fn from_bits(bits: u64) -> Kind {
        Kind(bits.to_ne_bytes())
    }
}

/// The name. What a foreign header has in it that is not printable is escaped.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        write!(f, "{}", self.0[..end].escape_ascii())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({self})")
    }
}

/// What an object is, as its creator and everybody who attaches must agree.
///
/// It stands in the object's header, and each field is compared when another process attaches: the error says
/// which one differs, and how.
///
/// # Examples
///
/// ```
/// use core::alloc::Layout;
/// use polyproc_memory::{Kind, Shape};
///
/// // A counter: one i64, no lock before it.
/// let shape = Shape {
///     kind: Kind::new("counter"),
///     code: b'q',
///     element: Layout::new::<i64>(),
///     count: 1,
///     payload: Layout::new::<i64>(),
///     lock: false,
/// };
/// assert_eq!(shape.payload.size(), 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it is for.
    pub kind: Kind,
    /// The type code of its elements, an ASCII character such as `b'i'`, or 0 for none.
    pub code: u8,
    /// Size and alignment of one element of the user's.
    pub element: Layout,
    /// How many elements there are.
    pub count: u64,
    /// Size and alignment of the whole payload: the elements, and the primitive's own words.
    pub payload: Layout,
    /// Whether the payload begins with a lock laid out as [`polyproc_sys::robust`] says: its futex word in
    /// bytes 0 to 3, the process id of its holder in bytes 8 to 11.
    pub lock: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_its_name() {
        for name in ["m", "mutex", "semaphor"] {
            let kind = Kind::new(name);
            assert_eq!(kind.to_string(), name);
            assert_eq!(Kind::from_bits(kind.to_bits()), kind);
        }
        assert_eq!(Kind::from_bits(u64::MAX).to_string(), r"\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(format!("{:?}", Kind::new("event")), "Kind(event)");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "ninechars", "a b", "naïf", "a\0"] {
            assert!(std::panic::catch_unwind(|| Kind::new(name)).is_err(), "{name:?}");
        }
    }
}
