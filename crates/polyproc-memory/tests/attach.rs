//! What is received is checked: each way in which it can be wrong, and what the error says.

mod common;

use common::*;
use core::alloc::Layout;
use polyproc_memory::{Arena, AttachError, Object, Region, Shape};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

// Where the headers' fields are. Written out here, so that a change of the layout does not go unnoticed.
const VERSION: usize = 8;
const BYTE_ORDER: usize = 12;
const POINTER_WIDTH: usize = 16;
const PAGE_SIZE: usize = 20;
const SIZE: usize = 24;
const BASE: usize = 32;
const CAPACITY: usize = 40;
const USED: usize = 48;
const OBJECT: usize = 64;
const KIND: usize = OBJECT + 8;
const CODE: usize = OBJECT + 16;
const FLAGS: usize = OBJECT + 20;
const ELEMENT_SIZE: usize = OBJECT + 24;
const ELEMENT_ALIGN: usize = OBJECT + 32;
const PAYLOAD_ALIGN: usize = OBJECT + 36;
const COUNT: usize = OBJECT + 40;
const PAYLOAD_SIZE: usize = OBJECT + 48;

/// The bytes of an arena with two numbers in it, at 64 and 192.
fn image() -> Vec<u8> {
    let arena = Arena::new(256).unwrap();
    for _ in 0..2 {
        let _ = Object::create(Some(&arena), &NUMBER).unwrap();
    }
    let file = File::from(arena.region().as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; arena.region().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Such bytes with others at one place.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = image();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

/// What a region of these bytes is refused for.
#[track_caller]
fn refused(content: &[u8]) -> AttachError {
    Region::from_fd(sealed(content)).expect_err("attached")
}

/// What the first object of a region of these bytes is refused for.
#[track_caller]
fn object_refused(content: &[u8]) -> AttachError {
    let region = Region::from_fd(sealed(content)).unwrap();
    Object::attach(&region, 64, |_| Some(NUMBER)).expect_err("attached")
}

macro_rules! assert_error {
    ($error:expr, $pattern:pat, $message:expr) => {{
        let error = $error;
        assert!(matches!(error, $pattern), "{error:?}");
        assert_eq!(error.to_string(), $message);
    }};
}

#[test]
fn an_unchanged_image_attaches() {
    let region = Region::from_fd(sealed(&image())).unwrap();
    for offset in [64, 192] {
        let object = Object::attach(&region, offset, |count| Some(Shape { count, ..NUMBER })).unwrap();
        assert_eq!((object.count(), object.offset()), (1, offset));
    }
}

#[test]
fn what_is_no_memory_file_is_refused() {
    let null = File::open("/dev/null").unwrap();
    assert_error!(
        Region::from_fd(null.into()).unwrap_err(),
        AttachError::NotAFile,
        "the descriptor is not of a memory file"
    );
    let (pipe, _other) = io::pipe().unwrap();
    assert!(matches!(Region::from_fd(pipe.into()), Err(AttachError::NotAFile)));
}

#[test]
fn missing_seals_are_named() {
    let unsealed = |seals| {
        let file = memfd(c"unsealed");
        file.write_all_at(&image(), 0).unwrap();
        seal(&file, seals);
        Region::from_fd(OwnedFd::from(file)).unwrap_err()
    };
    assert_error!(
        unsealed(0),
        AttachError::NotSealed { missing: 7 },
        "the memory is not sealed against changes of its size: F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW missing"
    );
    for (missing, name) in [(libc::F_SEAL_SHRINK, "F_SEAL_SHRINK"), (libc::F_SEAL_GROW, "F_SEAL_GROW")] {
        assert_eq!(
            unsealed(SEALS & !missing).to_string(),
            format!("the memory is not sealed against changes of its size: {name} missing")
        );
    }
    // A file that cannot be sealed at all.
    let program = File::open("/proc/self/exe").unwrap();
    assert!(matches!(Region::from_fd(program.into()), Err(AttachError::NotSealed { missing: 7 })));
}

#[test]
fn a_size_that_differs_is_refused() {
    assert_error!(
        refused(&[]),
        AttachError::Truncated { found: 0, expected: 64 },
        "the memory has 0 bytes and should have 64: it was truncated"
    );
    assert!(matches!(refused(&image()[..63]), AttachError::Truncated { found: 63, expected: 64 }));
    assert!(matches!(refused(&image()[..64]), AttachError::Truncated { found: 64, expected: 4096 }));
    assert!(matches!(refused(&image()[..4095]), AttachError::Truncated { found: 4095, expected: 4096 }));
    let mut longer = image();
    longer.resize(8192, 0);
    assert_error!(
        refused(&longer),
        AttachError::Oversized { found: 8192, expected: 4096 },
        "the memory has 8192 bytes and should have 4096"
    );
    assert!(matches!(
        refused(&patched(SIZE, &u64::MAX.to_ne_bytes())),
        AttachError::Truncated { found: 4096, expected: u64::MAX }
    ));
}

#[test]
fn a_header_of_another_build_is_refused() {
    assert_error!(refused(&[0; 4096]), AttachError::Foreign, "the memory is not a region of polyproc");
    assert!(matches!(refused(&patched(0, b"q")), AttachError::Foreign));
    assert_error!(
        refused(&patched(VERSION, &9u32.to_ne_bytes())),
        AttachError::Version { found: 9, expected: 1 },
        "the region has layout version 9, this program uses version 1"
    );
    assert_error!(
        refused(&patched(BYTE_ORDER, &0x0102_0304u32.swap_bytes().to_ne_bytes())),
        AttachError::ByteOrder { found: 0x0403_0201 },
        "the region has another byte order: its mark reads 0x04030201, not 0x01020304"
    );
    assert_error!(
        refused(&patched(POINTER_WIDTH, &32u32.to_ne_bytes())),
        AttachError::PointerWidth { found: 32, expected: 64 },
        "the region is of a 32-bit program, this is a 64-bit one"
    );
    let error = refused(&patched(PAGE_SIZE, &512u32.to_ne_bytes()));
    assert!(matches!(error, AttachError::PageSize { found: 512, .. }));
    assert!(error.to_string().starts_with("the region has pages of 512 bytes, this kernel's have "));
}

#[test]
fn a_hostile_region_header_is_refused() {
    for (at, value) in [
        (BASE, 0),
        (BASE, 65),
        (BASE, 4096),
        (BASE, u64::MAX),
        (BASE, u64::MAX - 63),
        (BASE, u64::MAX - 255),
        (CAPACITY, 1),
        (CAPACITY, 4096),
        (CAPACITY, u64::MAX),
        (CAPACITY, u64::MAX - 63),
    ] {
        let error = refused(&patched(at, &value.to_ne_bytes()));
        assert!(matches!(error, AttachError::Geometry { .. }), "{at} {value}: {error}");
    }
    assert_error!(
        refused(&patched(CAPACITY, &8192u64.to_ne_bytes())),
        AttachError::Geometry { base: 64, capacity: 8192, size: 4096 },
        "the region of 4096 bytes says that its objects take 8192 bytes from 64 on"
    );
}

/// The number of taken bytes is everybody's to write, at any time.
#[test]
fn a_scribbled_number_of_taken_bytes_makes_a_full_arena() {
    for value in [u64::MAX, u64::MAX - 63, 257, 1, 63, 1 << 40] {
        let region = Region::from_fd(sealed(&patched(USED, &value.to_ne_bytes()))).unwrap();
        let (bytes, _descriptors) = polyproc_memory::handover::send(|| postcard::to_stdvec(&0u32).unwrap());
        let descriptor = region.as_fd().try_clone_to_owned().unwrap();
        let arena: Arena =
            polyproc_memory::handover::receive(vec![descriptor], || postcard::from_bytes(&bytes).unwrap());
        assert!(arena.used() <= arena.capacity());
        let error = Object::create(Some(&arena), &NUMBER).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{value}");
    }
}

#[test]
fn an_object_that_is_something_else_is_refused() {
    assert_error!(
        object_refused(&patched(KIND, b"mutex\0")),
        AttachError::Kind { .. },
        "the object is of kind 'mutex', not 'number'"
    );
    assert_error!(
        object_refused(&patched(CODE, b"i")),
        AttachError::TypeCode { .. },
        "the object has type code 'i', not type code 'Q'"
    );
    assert_error!(
        object_refused(&patched(CODE, &[0])),
        AttachError::TypeCode { .. },
        "the object has no type code, not type code 'Q'"
    );
    assert_error!(
        object_refused(&patched(ELEMENT_SIZE, &4u64.to_ne_bytes())),
        AttachError::ElementSize { found: 4, expected: 8 },
        "the object's elements have 4 bytes each, not 8"
    );
    assert_error!(
        object_refused(&patched(ELEMENT_ALIGN, &4u32.to_ne_bytes())),
        AttachError::ElementAlign { found: 4, expected: 8 },
        "the object's elements are aligned to 4 bytes, not 8"
    );
    assert_error!(
        object_refused(&patched(COUNT, &2u64.to_ne_bytes())),
        AttachError::Count { found: 2, expected: 1 },
        "the object has 2 elements, not 1"
    );
    assert_error!(
        object_refused(&patched(PAYLOAD_SIZE, &16u64.to_ne_bytes())),
        AttachError::PayloadSize { found: 16, expected: 8 },
        "the object's payload has 16 bytes, not 8"
    );
    assert_error!(
        object_refused(&patched(PAYLOAD_ALIGN, &16u32.to_ne_bytes())),
        AttachError::PayloadAlign { found: 16, expected: 8 },
        "the object's payload is aligned to 16 bytes, not 8"
    );
    assert_error!(
        object_refused(&patched(FLAGS, &1u32.to_ne_bytes())),
        AttachError::Flags { found: 1, expected: 0 },
        "the object has the flags 0x1, not 0x0 (1: it begins with a lock)"
    );
    assert_error!(
        object_refused(&patched(OBJECT, &[0])),
        AttachError::NoObject { offset: 64 },
        "there is no object at offset 64 of the region"
    );
}

#[test]
fn an_offset_out_of_range_is_refused() {
    let region = Region::from_fd(sealed(&image())).unwrap();
    for offset in [0, 1, 63, 65, 257, 320, 384, 4032, 4096, 1 << 40, u64::MAX, u64::MAX - 63, u64::MAX - 127]
    {
        let error = Object::attach(&region, offset, |_| Some(NUMBER)).unwrap_err();
        assert!(matches!(error, AttachError::Offset { .. }), "{offset}: {error}");
        assert_eq!(
            error.to_string(),
            format!("an object at offset {offset} does not fit the region's room from 64 to 320")
        );
    }
    // Between two objects there is none.
    let error = Object::attach(&region, 128, |_| Some(NUMBER)).unwrap_err();
    assert!(matches!(error, AttachError::NoObject { offset: 128 }));
}

#[test]
fn a_hostile_count_is_refused() {
    let content = |count: u64, size: u64| {
        let mut image = image();
        let shape = bytes(5).unwrap();
        image[KIND..KIND + 8].copy_from_slice(b"bytes\0\0\0");
        image[CODE] = shape.code;
        image[ELEMENT_SIZE..ELEMENT_SIZE + 8].copy_from_slice(&1u64.to_ne_bytes());
        image[ELEMENT_ALIGN..ELEMENT_ALIGN + 4].copy_from_slice(&1u32.to_ne_bytes());
        image[PAYLOAD_ALIGN..PAYLOAD_ALIGN + 4].copy_from_slice(&1u32.to_ne_bytes());
        image[COUNT..COUNT + 8].copy_from_slice(&count.to_ne_bytes());
        image[PAYLOAD_SIZE..PAYLOAD_SIZE + 8].copy_from_slice(&size.to_ne_bytes());
        image
    };
    let attach = |count, size| {
        let region = Region::from_fd(sealed(&content(count, size))).unwrap();
        Object::attach(&region, 64, bytes)
    };
    // To the last byte of the room, and one more.
    assert_eq!(attach(192, 192).unwrap().count(), 192);
    assert!(matches!(attach(193, 193), Err(AttachError::Offset { offset: 64, .. })));
    let largest = i64::MAX as u64;
    assert!(matches!(attach(largest, largest), Err(AttachError::Offset { offset: 64, .. })));
    for count in [u64::MAX, u64::MAX - 63, largest + 1] {
        assert_error!(
            attach(count, count).unwrap_err(),
            AttachError::ImpossibleCount { .. },
            format!("the object says that it has {count} elements, more than there can be")
        );
    }
    assert!(matches!(attach(5, u64::MAX), Err(AttachError::PayloadSize { found: u64::MAX, expected: 5 })));
}

#[test]
fn a_place_without_the_alignment_is_refused() {
    let content = patched(PAYLOAD_ALIGN, &256u32.to_ne_bytes());
    let region = Region::from_fd(sealed(&content)).unwrap();
    let payload = Layout::new::<u64>().align_to(256).unwrap();
    assert_error!(
        Object::attach(&region, 64, |_| Some(Shape { payload, ..NUMBER })).unwrap_err(),
        AttachError::Misaligned { offset: 64, align: 256 },
        "an object at offset 64 of the region is not aligned to 256 bytes"
    );
}

#[test]
fn what_the_system_refuses_keeps_its_reason() {
    // Sealed against writing: it cannot be mapped for writing.
    let file = memfd(c"read only");
    file.write_all_at(&image(), 0).unwrap();
    seal(&file, SEALS & !libc::F_SEAL_SEAL);
    seal(&file, libc::F_SEAL_WRITE | libc::F_SEAL_SEAL);
    let error = Region::from_fd(file.into()).unwrap_err();
    let AttachError::Io(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.raw_os_error(), Some(libc::EPERM));
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn as_an_io_error_it_is_invalid_data() {
    let error = io::Error::from(refused(&[0; 4096]));
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(error.get_ref().unwrap().downcast_ref(), Some(AttachError::Foreign)));
}
