//! Plain data, from bytes straight to the place where it is wanted.

use bytemuck::Pod;
use core::mem::MaybeUninit;
use polyproc_sys::copy;

/// Copies a message to its place, and returns it. `None`, and nothing was done, if there are not as many
/// bytes as it has.
#[inline(always)]
pub(super) fn copy_to<'a, T: Pod>(bytes: &[u8], place: &'a mut MaybeUninit<T>) -> Option<&'a mut T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // Not the standard library's copy, which has slow cases from a few KiB on. SAFETY: so many bytes are
    // readable, and writable at the place, which is borrowed: the two do not overlap, and nobody else uses
    // either.
    unsafe { copy::copy(bytes.as_ptr(), place.as_mut_ptr().cast(), bytes.len()) };
    // SAFETY: all of it was written, and any bytes are a `Pod`.
    Some(unsafe { place.assume_init_mut() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        copy_to(bytes, &mut MaybeUninit::uninit()).copied()
    }

    #[test]
    fn as_many_bytes_as_it_has_are_a_message() {
        let bytes: Vec<u8> = (0..5_000u32).map(|at| (at * 7 + at / 251) as u8).collect();
        assert_eq!(copied(&[]), Some([]));
        assert_eq!(copied(&[7]), Some([7]));
        // From anywhere.
        for from in 0..40 {
            assert_eq!(copied::<255>(&bytes[from..][..255]).unwrap(), bytes[from..][..255]);
            assert_eq!(copied::<256>(&bytes[from..][..256]).unwrap(), bytes[from..][..256]);
            assert_eq!(copied::<4096>(&bytes[from..][..4096]).unwrap(), bytes[from..][..4096]);
        }
    }

    #[test]
    fn fewer_and_more_are_none() {
        let bytes = [1; 301];
        assert_eq!(copied::<300>(&bytes[..299]), None);
        assert_eq!(copied::<300>(&bytes), None);
        assert_eq!(copied::<300>(&[]), None);
        assert_eq!(copied::<0>(&bytes[..1]), None);
    }
}
