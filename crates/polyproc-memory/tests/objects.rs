//! Objects and arenas: what they are made of, and what happens when there is no more room.

mod common;

use common::*;
use core::alloc::Layout;
use polyproc_memory::{Arena, CreateError, Object, Region, Shape};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

fn file_of(region: &Region) -> File {
    File::from(region.as_fd().try_clone_to_owned().unwrap())
}

fn payload_bytes(object: &Object, count: usize) -> Vec<u8> {
    // SAFETY: the payload has that many bytes, and nobody else touches them.
    unsafe { core::slice::from_raw_parts(object.payload().as_ptr(), count) }.to_vec()
}

fn cause(error: &io::Error) -> &CreateError {
    error.get_ref().and_then(|cause| cause.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn a_small_object_takes_a_page_and_a_descriptor() {
    let object = Object::create(None, &NUMBER).unwrap();
    let page = file_of(object.region()).metadata().unwrap();
    assert_eq!((object.region().len(), page.len()), (4096, 4096));
    assert_eq!(std::os::unix::fs::MetadataExt::blocks(&page) * 512, 4096, "not allocated up front");
    assert_eq!(object.count(), 1);
}

#[test]
fn memory_is_for_its_owner_and_cannot_change_its_size() {
    let object = Object::create(None, &NUMBER).unwrap();
    let file = file_of(object.region());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(seals(&file) & SEALS, SEALS);
    // SAFETY: this command takes no argument.
    let flags = unsafe { libc::fcntl(object.region().as_fd().as_raw_fd(), libc::F_GETFD) };
    assert_eq!(flags, libc::FD_CLOEXEC);
    for size in [0, 4095, 4097] {
        assert_eq!(file.set_len(size).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}

#[test]
fn the_name_shows_in_the_maps() {
    let number = Object::create(None, &NUMBER).unwrap();
    let lock = Object::create(None, &LOCK).unwrap();
    let arena = Arena::labelled("names of things", 64).unwrap();
    for (region, name) in [
        (number.region(), "/memfd:polyproc:number:Q (deleted)"),
        (lock.region(), "/memfd:polyproc:lock (deleted)"),
        (arena.region(), "/memfd:polyproc:arena:names of things (deleted)"),
    ] {
        let inode = std::os::unix::fs::MetadataExt::ino(&file_of(region).metadata().unwrap());
        let lines = maps(&format!(" {inode} "));
        assert!(lines.len() == 1 && lines[0].ends_with(name), "{lines:?}");
        assert!(lines[0].contains(" rw-s "), "{lines:?}");
    }
}

#[test]
fn a_label_has_its_limits() {
    assert!(Arena::labelled(&"x".repeat(234), 64).is_ok());
    for label in ["x".repeat(235), "a\0b".to_owned()] {
        let error = Arena::labelled(&label, 64).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(matches!(cause(&error), CreateError::Label { .. }));
        assert_eq!(error.to_string(), "a label has at most 234 bytes, none of them NUL");
    }
}

#[test]
fn a_payload_is_zero_and_aligned() {
    for align in [1, 8, 64, 128, 256, 1024, 4096] {
        let payload = Layout::from_size_align(100, align).unwrap();
        let object = Object::create(None, &Shape { payload, ..NUMBER }).unwrap();
        assert_eq!(object.payload().addr().get() % align.max(64), 0);
        assert_eq!(payload_bytes(&object, 100), [0; 100]);
        // The other side finds it.
        let again = Object::attach(object.region(), object.offset(), |_| Some(Shape { payload, ..NUMBER }));
        assert!(again.unwrap().same_object(&object));
    }
}

#[test]
fn too_much_alignment_is_an_error() {
    let arena = Arena::new(4096).unwrap();
    let shape = |align| Shape { payload: Layout::from_size_align(8, align).unwrap(), ..NUMBER };
    let error = Object::create(Some(&arena), &shape(128)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "the payload is to be aligned to 128 bytes, and at most 64 are possible here"
    );
    assert_eq!(arena.used(), 0);
    let error = Object::create(None, &shape(8192)).unwrap_err();
    assert!(matches!(cause(&error), CreateError::Align { requested: 8192, .. }));
}

#[test]
fn a_lock_needs_its_room() {
    let shape = Shape { lock: true, ..NUMBER };
    let error = Object::create(None, &shape).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "a payload of 8 bytes is too small to begin with a lock");
}

#[test]
fn nothing_is_something_too() {
    let empty = bytes(0).unwrap();
    let object = Object::create(None, &empty).unwrap();
    assert_eq!(object.count(), 0);
    let arena = Arena::new(64).unwrap();
    let in_arena = Object::create(Some(&arena), &empty).unwrap();
    assert_eq!((arena.remaining(), in_arena.offset()), (0, 64));
    assert_eq!(Arena::new(0).unwrap().capacity(), 0);
}

#[test]
fn an_arena_is_used_to_the_last_byte_and_says_when_it_is_full() {
    let arena = Arena::new(3 * 128 - 1).unwrap();
    assert_eq!((arena.capacity(), arena.used()), (384, 0));
    let objects: Vec<_> = (0..3).map(|_| Object::create(Some(&arena), &NUMBER).unwrap()).collect();
    assert_eq!((arena.remaining(), arena.used()), (0, 384));
    let error = Object::create(Some(&arena), &NUMBER).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(error.to_string(), "the arena is full: the object takes 128 bytes, 0 of 384 are left");
    // What is there is not touched, and what is large does not spoil the rest.
    drop(objects);
    let arena = Arena::new(256).unwrap();
    let error = Object::create(Some(&arena), &bytes(i64::MAX as u64 - 4096).unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(Object::create(Some(&arena), &NUMBER).is_ok());
}

#[test]
fn a_hundred_thousand_objects_take_128_bytes_each_and_one_descriptor() {
    const COUNT: u64 = 100_000;
    let arena = Arena::new(COUNT as usize * 128).unwrap();
    let objects: Vec<_> = (0..COUNT).map(|_| Object::create(Some(&arena), &NUMBER).unwrap()).collect();
    assert_eq!(arena.remaining(), 0);
    for (value, object) in objects.iter().enumerate() {
        number(object).store(value as u64, Ordering::Relaxed);
        assert!(object.region().is_same(arena.region()));
    }
    assert!(objects.iter().zip(0..).all(|(object, value)| number(object).load(Ordering::Relaxed) == value));
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    in_child(|| {
        first_to_go();
        for size in [1 << 40, 1 << 50, 1 << 62] {
            let error = Object::create(None, &bytes(size).unwrap()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
            let CreateError::Memory { requested, available: Some(available), .. } = cause(&error) else {
                panic!("{error:?}");
            };
            assert!(*requested > size && *available > 0);
            assert_eq!(
                error.to_string(),
                format!("not enough memory for {requested} bytes to share: {available} bytes are available")
            );
        }
        true
    })
    .succeeds();
}

#[test]
fn a_size_that_overflows_is_an_error() {
    for size in [usize::MAX, usize::MAX - 64, usize::MAX - 4096, isize::MAX as usize + 1] {
        let error = Arena::new(size).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size}: {error}");
        assert_eq!(error.to_string(), "the size of the shared memory overflows");
    }
    let largest = Layout::from_size_align(i64::MAX as usize, 1).unwrap();
    let error = Object::create(None, &Shape { payload: largest, ..NUMBER }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
}

#[test]
fn threads_and_processes_share_an_arena_without_overlap() {
    const WORKERS: u64 = 6;
    const EACH: u64 = 5000;
    let arena = Arena::new((WORKERS * EACH * 128) as usize).unwrap();
    let ready = Object::create(None, &NUMBER).unwrap();
    let work = |worker: u64| {
        number(&ready).fetch_add(1, Ordering::Relaxed);
        while number(&ready).load(Ordering::Relaxed) < WORKERS {
            std::thread::yield_now();
        }
        for index in 0..EACH {
            let object = Object::create(Some(&arena), &NUMBER).unwrap();
            // An object that another one overlaps has something in it already.
            assert_eq!(number(&object).fetch_add(worker * EACH + index + 1, Ordering::Relaxed), 0);
        }
        true
    };
    let children: Vec<_> = (0..WORKERS / 2).map(|worker| in_child(|| work(worker))).collect();
    std::thread::scope(|scope| {
        for worker in WORKERS / 2..WORKERS {
            scope.spawn(move || work(worker));
        }
    });
    children.into_iter().for_each(Child::succeeds);
    assert_eq!(arena.remaining(), 0);
    let found: BTreeSet<u64> = (0..WORKERS * EACH)
        .map(|index| {
            let object = Object::attach(arena.region(), 64 + index * 128, |_| Some(NUMBER)).unwrap();
            number(&object).load(Ordering::Relaxed)
        })
        .collect();
    assert!(found.iter().copied().eq(1..=WORKERS * EACH), "{} of {} are there", found.len(), WORKERS * EACH);
}

#[test]
fn handles_are_threads_and_small() {
    fn is_handle<T: Clone + Send + Sync + core::fmt::Debug + 'static>() {}
    is_handle::<Object>();
    is_handle::<Region>();
    is_handle::<Arena>();
    is_handle::<polyproc_memory::handover::Descriptor>();
    assert_eq!(size_of::<Object>(), 24);
    let object = Object::create(None, &NUMBER).unwrap();
    let text = format!("{object:?}");
    assert!(text.starts_with("Object { region: Region { len: 4096"), "{text}");
}
