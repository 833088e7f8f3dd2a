//! At the limits of the process: descriptors, address space, file size; and what is left of the dead.
//!
//! These tests change what holds for the whole process, so they run one after the other.

mod common;

use common::*;
use polyproc_memory::{Arena, AttachError, CreateError, Object, Region};
use std::error::Error;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f` with another limit.
fn limited<R>(resource: libc::__rlimit_resource_t, limit: u64, f: impl FnOnce() -> R) -> R {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `before` is writable and of the right type.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut before) }, 0);
    let now = libc::rlimit { rlim_cur: limit.min(before.rlim_max), ..before };
    // SAFETY: `now` is of the right type.
    assert_eq!(unsafe { libc::setrlimit(resource, &now) }, 0);
    let result = f();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &before) }, 0);
    result
}

fn cause(error: &io::Error) -> &CreateError {
    error.get_ref().and_then(|cause| cause.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn out_of_descriptors_says_so_and_names_the_arena() {
    let _alone = alone();
    let arena = Arena::new(1 << 16).unwrap();
    let (objects, error, in_arena) = limited(libc::RLIMIT_NOFILE, 64, || {
        let mut objects = Vec::new();
        let error = loop {
            match Object::create(None, &NUMBER) {
                Ok(object) => objects.push(object),
                Err(error) => break error,
            }
            assert!(objects.len() < 64);
        };
        // The arena's way needs none.
        (objects, error, Object::create(Some(&arena), &NUMBER))
    });
    assert!(in_arena.is_ok());
    assert!(!objects.is_empty());
    assert!(matches!(cause(&error), CreateError::Descriptors { .. }));
    assert!(error.to_string().starts_with("this process has no file descriptor left of its "), "{error}");
    assert!(error.to_string().ends_with("place many objects in one Arena"), "{error}");
    let system = error.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(system.raw_os_error(), Some(libc::EMFILE));
}

#[test]
fn receiving_needs_no_descriptor_more() {
    let _alone = alone();
    let arena = Arena::new(64).unwrap();
    let received = arena.region().as_fd().try_clone_to_owned().unwrap();
    let region = limited(libc::RLIMIT_NOFILE, 0, || {
        polyproc_memory::handover::receive(vec![received], || polyproc_memory::handover::region(0))
    });
    assert!(region.unwrap().is_same(arena.region()));
}

#[test]
fn a_full_address_space_is_an_error() {
    let _alone = alone();
    let before = descriptors();
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let error = limited(libc::RLIMIT_AS, pages * 4096 + (8 << 20), || Arena::new(32 << 20)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    assert!(matches!(cause(&error), CreateError::Mapping { .. }));
    assert!(error.to_string().contains("place many objects in one Arena"), "{error}");
    assert_eq!(descriptors(), before);
}

/// Beyond this limit the kernel would answer with a signal that kills.
#[test]
fn a_limit_for_files_is_an_error_and_no_death() {
    let _alone = alone();
    // In a child: this process may write what its tests print to a file.
    in_child(|| {
        let (fits, too_large) =
            limited(libc::RLIMIT_FSIZE, 1 << 20, || (Arena::new((1 << 20) - 64), Arena::new(1 << 20)));
        assert!(fits.is_ok());
        let error = too_large.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
        assert_eq!(error.to_string(), "1052672 bytes are above the limit of 1048576 for a file (ulimit -f)");
        true
    })
    .succeeds();
}

/// A reserve counts for both limits when it is made, and never again.
#[test]
fn a_reserve_beyond_a_limit_is_an_error_and_no_death() {
    let _alone = alone();
    let before = descriptors();
    // In a child: this process may write what its tests print to a file.
    in_child(|| {
        let (fits, too_large) = limited(libc::RLIMIT_FSIZE, 1 << 20, || {
            (Object::with_reserve(&NUMBER, (1 << 20) - 4096), Object::with_reserve(&NUMBER, 1 << 20))
        });
        assert!(fits.is_ok());
        let error = too_large.unwrap_err();
        assert!(
            matches!(cause(&error), CreateError::FileSize { requested: 1_052_672, limit: 1_048_576 }),
            "{error}"
        );
        drop(fits);

        let object = Object::with_reserve(&NUMBER, 64 << 20).unwrap();
        let grown = limited(libc::RLIMIT_FSIZE, 0, || {
            object.allocate(8 << 20, 8 << 20).and_then(|()| object.give_back(8 << 20, 8 << 20))
        });
        assert!(grown.is_ok(), "{grown:?}");
        true
    })
    .succeeds();

    let object = Object::with_reserve(&NUMBER, 64 << 20).unwrap();
    let descriptor = object.region().as_fd().try_clone_to_owned().unwrap();
    drop(object);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let (made, received) = limited(libc::RLIMIT_AS, pages * 4096 + (8 << 20), || {
        (Object::with_reserve(&NUMBER, 64 << 20), Region::from_fd(descriptor))
    });
    let error = made.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    let AttachError::Io(received) = received.unwrap_err() else { panic!("attached otherwise") };
    for error in [&error, &received] {
        assert!(matches!(cause(error), CreateError::Mapping { requested: 67_112_960, .. }), "{error}");
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn a_dead_maker_leaves_nothing_behind() {
    let _alone = alone();
    let children = || {
        in_child(|| {
            let arena = Arena::labelled("left behind", 1 << 20).unwrap();
            let object = Object::create(Some(&arena), &NUMBER).unwrap();
            let region: Region = object.region().clone();
            core::mem::forget((arena, object, region));
            true
        })
    };
    let before = std::fs::read_dir("/dev/shm").map(|entries| entries.count()).unwrap_or(0);
    for _ in 0..20 {
        children().succeeds();
    }
    assert_eq!(std::fs::read_dir("/dev/shm").map(|entries| entries.count()).unwrap_or(0), before);
    assert!(maps("left behind").is_empty());
}
