//! Functions as numbers that hold in every process of this program.
//!
//! Address space layout randomisation puts the program somewhere else each time, but a function is always at
//! the same distance from the beginning. Only the program's own file can be counted from: shared libraries
//! move on their own.
//!
//! See dl_iterate_phdr(3).

#![allow(unsafe_code)]

use core::hash::Hasher;
use core::ops::Range;
use core::ptr;
use core::slice;
use polyproc_sys::atomic::{AtomicUsize, Ordering};
use std::hash::DefaultHasher;

/// The program's own file as it is mapped in this process.
#[derive(Debug, Default)]
struct Image {
    /// What to add to the addresses that the file speaks of.
    base: usize,
    /// Where its code lies.
    code: Vec<Range<usize>>,
    /// Tells builds apart: the segments' sizes and places, and the notes, a build id among them where the
    /// linker made one.
    build: u64,
}

/// The number of a function, and of the build that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct Place {
    build: u64,
    offset: u64,
}

/// Where the function at this address is in the program; `None` if it belongs to a shared library.
pub(crate) fn place_of(function: *const ()) -> Option<Place> {
    let image = image();
    let address = function.expose_provenance();
    image
        .code
        .iter()
        .any(|code| code.contains(&address))
        .then(|| Place { build: image.build, offset: address.wrapping_sub(image.base) as u64 })
}

/// The address of the function at this place; `None` if the place is from another build or outside of the
/// program's code.
pub(crate) fn address_of(place: Place) -> Option<*const ()> {
    let image = image();
    let address = image.base.wrapping_add(usize::try_from(place.offset).ok()?);
    let is_code = place.build == image.build && image.code.iter().any(|code| code.contains(&address));
    is_code.then(|| ptr::with_exposed_provenance(address))
}

/// Where the [`Image`] is; 0 before it is known.
static IMAGE: AtomicUsize = AtomicUsize::new(0);

/// Reads the image, so that nobody has to do it among threads. To be called by [`init`](crate::init).
pub(crate) fn prepare() {
    image();
}

/// Nobody waits here for another thread, which a forked child might not have: two that come at once both
/// read.
fn image() -> &'static Image {
    // Acquire: the image was written by whoever published it.
    let mut known = IMAGE.load(Ordering::Acquire);
    if known == 0 {
        let mut image = Box::new(Image::default());
        // SAFETY: the function below has the type that is asked for, and gets the `Image` that it expects.
        unsafe { libc::dl_iterate_phdr(Some(read_first), ptr::from_mut(&mut *image).cast()) };
        let read = Box::into_raw(image).expose_provenance();
        match IMAGE.compare_exchange(0, read, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => known = read,
            Err(faster) => {
                known = faster;
                // SAFETY: made from a box above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(ptr::with_exposed_provenance_mut::<Image>(read)) });
            }
        }
    }
    // SAFETY: the address of an image that was published above: it is never changed and never freed.
    unsafe { &*ptr::with_exposed_provenance::<Image>(known) }
}

/// Reads the first object of the list, which is the program itself, and stops.
extern "C" fn read_first(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library passes a valid struct.
    let info = unsafe { &*info };
    // SAFETY: `image` passes an `Image` that nobody else uses meanwhile.
    let image = unsafe { &mut *data.cast::<Image>() };
    // SAFETY: the struct says where the program headers are, and how many; they stay mapped.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    image.base = info.dlpi_addr as usize;
    let mut hasher = DefaultHasher::new();
    let range = |header: &libc::Elf64_Phdr| {
        let start = image.base.wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    };
    let loaded = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD;
    for header in headers {
        for number in [header.p_type.into(), header.p_vaddr, header.p_filesz, header.p_memsz] {
            hasher.write_u64(number);
        }
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
            image.code.push(range(header));
        }
        let notes = range(header);
        let readable = |header: &libc::Elf64_Phdr| {
            header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R
                && range(header).start <= notes.start
                && notes.end <= range(header).end
        };
        if header.p_type == libc::PT_NOTE && headers.iter().filter(loaded).any(readable) {
            let notes = ptr::with_exposed_provenance::<u8>(notes.start);
            // SAFETY: within a segment that is loaded, readable and never written, as just checked.
            hasher.write(unsafe { slice::from_raw_parts(notes, header.p_memsz as usize) });
        }
    }
    image.build = hasher.finish();
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> u8 {
        1
    }

    fn second() -> u8 {
        2
    }

    #[test]
    fn a_function_is_found_again() {
        for function in [first as *const (), second as *const ()] {
            assert_eq!(address_of(place_of(function).unwrap()), Some(function));
        }
        assert_ne!(place_of(first as *const ()), place_of(second as *const ()));
    }

    #[test]
    fn a_shared_library_has_no_place() {
        assert_eq!(place_of(libc::getpid as *const ()), None);
    }

    #[test]
    fn other_builds_and_places_outside_the_code_are_refused() {
        let place = place_of(first as *const ()).unwrap();
        for wrong in [
            Place { build: place.build ^ 1, ..place },
            Place { offset: u64::MAX, ..place },
            Place { offset: 0, ..place },
            Place { offset: 1 << 60, ..place },
        ] {
            assert_eq!(address_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn all_threads_find_the_same_image() {
        let barrier = std::sync::Barrier::new(8);
        let find = || {
            barrier.wait();
            ptr::from_ref(image()).expose_provenance()
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(find)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found.iter().all(|&place| place == found[0] && place != 0), "{found:?}");
    }

    #[test]
    fn the_build_is_more_than_a_constant() {
        assert_ne!(image().build, Image::default().build);
        assert!(!image().code.is_empty());
    }
}
