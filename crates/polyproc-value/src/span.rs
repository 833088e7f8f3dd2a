//! Rust's ranges, as indices of an array.

use crate::error::ArrayError;
use core::ops::{Bound, Range, RangeBounds};

/// The elements of an array of `len` that a range means.
pub(crate) fn span(range: impl RangeBounds<usize>, len: usize) -> Result<Range<usize>, ArrayError> {
    let start = match range.start_bound() {
        Bound::Unbounded => Some(0),
        Bound::Included(&start) => Some(start),
        Bound::Excluded(&before) => before.checked_add(1),
    };
    let end = match range.end_bound() {
        // As slices do: `2..` of two elements is empty, and `3..` is out of range.
        Bound::Unbounded => Some(len.max(start.unwrap_or(0))),
        Bound::Included(&last) => last.checked_add(1),
        Bound::Excluded(&end) => Some(end),
    };
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= len => Ok(start..end),
        (start, end) => Err(ArrayError::range(start.unwrap_or(usize::MAX)..end.unwrap_or(usize::MAX), len)),
    }
}

/// That a slice of `slice` elements fits the range.
pub(crate) fn same_length(range: &Range<usize>, slice: usize) -> Result<(), ArrayError> {
    if range.len() == slice { Ok(()) } else { Err(ArrayError::LengthMismatch { range: range.len(), slice }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_mean_what_they_mean_for_slices() {
        let data: Vec<usize> = (0..5).collect();
        let bounds = |n: usize| [Bound::Unbounded, Bound::Included(n), Bound::Excluded(n)];
        for (a, b) in (0..8).flat_map(|a| (0..8).map(move |b| (a, b))) {
            for (start, end) in bounds(a).into_iter().flat_map(|s| bounds(b).map(|e| (s, e))) {
                let expected = data.get((start, end)).map(<[usize]>::to_vec);
                let found = span((start, end), data.len()).ok().map(|range| range.collect::<Vec<_>>());
                assert_eq!(found, expected, "{start:?} {end:?}");
            }
        }
    }

    #[test]
    fn what_overflows_is_out_of_range_even_of_the_longest_array() {
        assert!(span(..=usize::MAX, usize::MAX).is_err());
        assert!(span((Bound::Excluded(usize::MAX), Bound::Unbounded), usize::MAX).is_err());
        assert_eq!(span(..usize::MAX, usize::MAX), Ok(0..usize::MAX));
    }

    #[test]
    fn errors_have_all_the_numbers() {
        let message = |error: Result<Range<usize>, ArrayError>| error.unwrap_err().to_string();
        assert_eq!(message(span(1..6, 5)), "range 1..6 is out of range of an array of 5");
        assert_eq!(message(span(Range { start: 4, end: 2 }, 5)), "range 4..2 ends before it begins");
        assert_eq!(message(span(7.., 5)), "range 7..7 is out of range of an array of 5");
        let error = same_length(&(1..3), 4).unwrap_err();
        assert_eq!(error.to_string(), "a range of 2 elements, and a slice of 4");
    }
}
