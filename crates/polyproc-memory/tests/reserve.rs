//! A reserve is addresses without memory, until it is allocated, and again after it is given back; for all processes.

mod common;

use common::*;
use core::alloc::Layout;
use polyproc_memory::{AttachError, CreateError, Object, Region, Shape, handover};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

fn grows(reserve: usize) -> Object {
    Object::with_reserve(&NUMBER, reserve).unwrap()
}

fn file_of(region: &Region) -> File {
    File::from(region.as_fd().try_clone_to_owned().unwrap())
}

/// The bytes of memory that a region takes, whoever uses them.
fn taken(object: &Object) -> u64 {
    file_of(object.region()).metadata().unwrap().blocks() * 512
}

/// The bytes of the reserve that these tests touch: atomics, because there are peers.
fn part(object: &Object, offset: usize, length: usize) -> &[AtomicU8] {
    let (start, reserve) = object.reserve();
    assert!(offset <= reserve && length <= reserve - offset);
    // SAFETY: the offset was checked.
    let start = unsafe { start.as_ptr().add(offset) };
    // SAFETY: that many bytes are mapped there as long as the object, and only atomics touch them.
    unsafe { core::slice::from_raw_parts(start.cast(), length) }
}

fn fill(part: &[AtomicU8], value: u8) {
    part.iter().for_each(|byte| byte.store(value, Ordering::Relaxed));
}

fn is_all(part: &[AtomicU8], value: u8) -> bool {
    part.iter().all(|byte| byte.load(Ordering::Relaxed) == value)
}

/// What the kernel says of this process's mappings of a region: of each its address, a number of kB, and its flags.
fn mappings(object: &Object, field: &str) -> Vec<(usize, u64, String)> {
    let inode = format!(" {} ", file_of(object.region()).metadata().unwrap().ino());
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut found, mut ours, mut number) = (Vec::new(), None, 0);
    for line in smaps.lines() {
        if line.contains(":/memfd:") || line.contains(" /memfd:") {
            let address = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
            ours = line.contains(&inode).then_some(address);
        } else if let Some(rest) = line.strip_prefix(field) {
            number = rest.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap();
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && let Some(address) = ours.take()
        {
            found.push((address, number, flags.to_owned()));
        }
    }
    found
}

fn cause(error: &io::Error) -> &CreateError {
    error.get_ref().and_then(|cause| cause.downcast_ref()).unwrap_or_else(|| panic!("{error:?}"))
}

/// The memory file that the process that started this one has under a number, as a descriptor of this one.
fn of_parent(number: i32) -> OwnedFd {
    let parent = std::os::unix::process::parent_id();
    File::options().read(true).write(true).open(format!("/proc/{parent}/fd/{number}")).unwrap().into()
}

#[test]
fn a_reserve_takes_addresses_and_no_memory() {
    let without = Object::create(None, &NUMBER).unwrap();
    let object = grows(1 << 30);
    let (start, length) = object.reserve();
    assert_eq!((start.addr().get() % PAGE, length), (0, 1 << 30));
    assert_eq!(start.addr().get() - object.payload().addr().get(), PAGE - 128);
    assert_eq!(object.region().len(), PAGE as u64 + (1 << 30));
    assert_eq!(file_of(object.region()).metadata().unwrap().len(), object.region().len());
    assert_eq!(taken(&object), taken(&without));
    let resident: u64 = mappings(&object, "Rss").iter().map(|(_, kibibytes, _)| kibibytes).sum();
    assert_eq!(resident, 4, "kB");
    number(&object).store(1, Ordering::Relaxed);
    assert_eq!(taken(&object), PAGE as u64);
    assert_eq!(seals(&file_of(object.region())) & SEALS, SEALS);
}

#[test]
fn a_large_reserve_takes_no_longer() {
    let begin = Instant::now();
    let objects: Vec<_> = (0..10).map(|_| grows(64 << 30)).collect();
    // Touching that many pages would take minutes.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(objects.iter().all(|object| object.reserve().1 == 64 << 30 && taken(object) == PAGE as u64));
    objects[9].allocate((64 << 30) - PAGE, PAGE).unwrap();
    fill(part(&objects[9], (64 << 30) - PAGE, PAGE), 1);
}

#[test]
fn a_reserve_is_whole_pages_behind_the_last_one_of_the_object() {
    assert_eq!(grows(0).reserve().1, 0);
    assert_eq!(grows(1).reserve().1, PAGE);
    assert_eq!(grows(PAGE + 1).reserve().1, 2 * PAGE);
    assert_eq!(Object::create(None, &NUMBER).unwrap().reserve().1, 0);
    let arena = polyproc_memory::Arena::new(100).unwrap();
    assert_eq!(Object::create(Some(&arena), &bytes(20).unwrap()).unwrap().reserve().1, 0);
    for (size, align) in [(8, 8), (PAGE - 128, 64), (PAGE - 127, 64), (100, PAGE), (3 * PAGE, PAGE)] {
        let payload = Layout::from_size_align(size, align).unwrap();
        let object = Object::with_reserve(&Shape { payload, ..NUMBER }, PAGE).unwrap();
        let (start, length) = object.reserve();
        assert_eq!((start.addr().get() % PAGE, length), (0, PAGE));
        let between = start.addr().get() - (object.payload().addr().get() + size);
        assert!(between < PAGE, "{size} {align}: {between}");
        assert_eq!(taken(&object), object.region().len() - PAGE as u64);
    }
}

#[test]
fn what_is_allocated_is_zero_and_there_for_children_and_receivers() {
    // This child has no mapping before it receives the object.
    let (mut from_parent, mut to_receiver) = io::pipe().unwrap();
    let receiver = in_child(|| {
        let mut bytes = [0; 64];
        let length = from_parent.read(&mut bytes).unwrap();
        let (descriptor, bytes) = (i32::from_ne_bytes(bytes[..4].try_into().unwrap()), &bytes[4..length]);
        let object = handover::receive(vec![of_parent(descriptor)], || {
            let mut deserializer = postcard::Deserializer::from_bytes(bytes);
            Object::deserialize(&mut deserializer, |_| Some(NUMBER)).unwrap()
        });
        assert_eq!(object.reserve().1, 1 << 30);
        assert!(is_all(part(&object, MIB, 8 * MIB), 5));
        fill(part(&object, MIB, MIB), 6);
        object.allocate(100 * MIB, MIB).unwrap();
        fill(part(&object, 100 * MIB, MIB), 7);
        true
    });
    let object = grows(1 << 30);
    let before = taken(&object);
    object.allocate(MIB, 8 * MIB).unwrap();
    assert_eq!(taken(&object), before + 8 * MIB as u64);
    assert!(is_all(part(&object, MIB, 8 * MIB), 0));
    fill(part(&object, MIB, 8 * MIB), 5);
    assert_eq!(taken(&object), before + 8 * MIB as u64);
    in_child(|| is_all(part(&object, MIB, 8 * MIB), 5)).succeeds();

    let (bytes, descriptors) = handover::send(|| {
        let mut serializer = postcard::Serializer { output: postcard::ser_flavors::StdVec::new() };
        object.serialize(&mut serializer).unwrap();
        postcard::ser_flavors::Flavor::finalize(serializer.output).unwrap()
    });
    let mut message = descriptors[0].as_fd().as_raw_fd().to_ne_bytes().to_vec();
    message.extend_from_slice(&bytes);
    to_receiver.write_all(&message).unwrap();
    receiver.succeeds();
    // And what the receiver allocated, and wrote, is here.
    assert_eq!(taken(&object), before + 9 * MIB as u64);
    assert!(is_all(part(&object, MIB, MIB), 6) && is_all(part(&object, 2 * MIB, 7 * MIB), 5));
    assert!(is_all(part(&object, 100 * MIB, MIB), 7));
}

#[test]
fn what_is_allocated_again_stays_as_it_is() {
    let object = grows(8 * MIB);
    object.allocate(MIB, MIB).unwrap();
    fill(part(&object, MIB, MIB), 9);
    object.allocate(0, 8 * MIB).unwrap();
    assert!(is_all(part(&object, 0, MIB), 0) && is_all(part(&object, 2 * MIB, 6 * MIB), 0));
    assert!(is_all(part(&object, MIB, MIB), 9));
    object.allocate(8 * MIB, 0).unwrap();
    assert_eq!(taken(&object), (PAGE + 8 * MIB) as u64);
}

#[test]
fn what_is_given_back_is_the_systems_and_zero_when_it_comes_again() {
    let object = grows(16 * MIB);
    number(&object).store(77, Ordering::Relaxed);
    let before = taken(&object);
    object.allocate(0, 16 * MIB).unwrap();
    fill(part(&object, 0, 16 * MIB), 3);
    let (mut from_child, mut to_parent) = io::pipe().unwrap();
    let (mut from_parent, mut to_child) = io::pipe().unwrap();
    let child = in_child(|| {
        // Its page tables know the memory that goes.
        assert!(is_all(part(&object, 0, 16 * MIB), 3));
        to_parent.write_all(&[1]).unwrap();
        from_parent.read_exact(&mut [0]).unwrap();
        is_all(part(&object, 0, PAGE), 3)
            && is_all(part(&object, PAGE, 8 * MIB), 0)
            && is_all(part(&object, PAGE + 8 * MIB, 8 * MIB - PAGE), 3)
    });
    from_child.read_exact(&mut [0]).unwrap();
    object.give_back(PAGE, 8 * MIB).unwrap();
    assert_eq!(taken(&object), before + 8 * MIB as u64);
    object.allocate(PAGE, 8 * MIB).unwrap();
    assert!(is_all(part(&object, PAGE, 8 * MIB), 0));
    to_child.write_all(&[1]).unwrap();
    child.succeeds();
    object.give_back(0, 16 * MIB).unwrap();
    object.give_back(0, 16 * MIB).unwrap();
    object.give_back(MIB, 0).unwrap();
    assert_eq!(taken(&object), before);
    // The object itself was not touched, nor the size of the memory.
    assert_eq!(number(&object).load(Ordering::Relaxed), 77);
    assert_eq!(file_of(object.region()).metadata().unwrap().len(), object.region().len());
}

#[test]
fn what_is_no_part_of_the_reserve_is_refused() {
    let (large, none) = (grows(16 * PAGE), Object::create(None, &NUMBER).unwrap());
    let before = (taken(&large), taken(&none));
    let top = usize::MAX - PAGE + 1;
    for (object, offset, length) in [
        (&large, 1, PAGE),
        (&large, 0, 1),
        (&large, 0, PAGE - 1),
        (&large, 15 * PAGE, 2 * PAGE),
        (&large, 16 * PAGE, PAGE),
        (&large, 17 * PAGE, 0),
        (&large, 0, 17 * PAGE),
        (&large, PAGE, top),
        (&large, top, PAGE),
        (&large, top, top),
        (&large, usize::MAX, usize::MAX),
        (&none, 0, PAGE),
        (&none, PAGE, 0),
    ] {
        for error in [object.allocate(offset, length), object.give_back(offset, length)] {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset} {length}: {error}");
            assert!(matches!(cause(&error), CreateError::Reserve { .. }));
        }
    }
    assert_eq!((taken(&large), taken(&none)), before);
    assert_eq!(
        large.allocate(4096, 5000).unwrap_err().to_string(),
        "5000 bytes from 4096 on are not whole pages of 4096 bytes within a reserve of 65536"
    );
    none.allocate(0, 0).unwrap();
    none.give_back(0, 0).unwrap();
}

#[test]
fn more_than_there_can_be_is_an_error() {
    let before = descriptors_of_reserves();
    for reserve in [usize::MAX, usize::MAX - PAGE, isize::MAX as usize] {
        let error = Object::with_reserve(&NUMBER, reserve).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{reserve}: {error}");
        assert!(matches!(cause(&error), CreateError::TooLarge));
    }
    // A file can be as large, an address space not.
    let error = Object::with_reserve(&NUMBER, 1 << 60).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    assert!(
        matches!(cause(&error), CreateError::Mapping { requested, .. } if *requested > 1 << 60),
        "{error}"
    );
    assert!(error.to_string().contains("(ulimit -v)"), "{error}");
    assert_eq!(descriptors_of_reserves(), before);
}

/// How many descriptors this process has of regions with a kind that no other test uses, at a size that none has.
fn descriptors_of_reserves() -> usize {
    let huge =
        |entry: &std::fs::DirEntry| std::fs::metadata(entry.path()).is_ok_and(|file| file.len() > 1 << 60);
    std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter(huge).count()
}

#[test]
fn more_memory_than_there_is_is_an_error_and_takes_none() {
    in_child(|| {
        first_to_go();
        let object = grows(1 << 40);
        for length in [1 << 40, 1 << 39] {
            let error = object.allocate(0, length).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
            let CreateError::Memory { requested, available: Some(_), .. } = cause(&error) else {
                panic!("{error:?}");
            };
            assert_eq!(*requested, length as u64);
        }
        taken(&object) == PAGE as u64
    })
    .succeeds();
}

#[test]
fn a_reserve_stays_out_of_core_dumps() {
    let object = grows(MIB);
    let (start, _) = object.reserve();
    let mappings = mappings(&object, "Size");
    let parts: Vec<_> = mappings
        .iter()
        .map(|(address, kibibytes, flags)| {
            (*address, *kibibytes, flags.split_whitespace().any(|flag| flag == "dd"))
        })
        .collect();
    assert_eq!(parts, [(start.addr().get() - PAGE, 4, false), (start.addr().get(), 1024, true)]);
}

#[test]
fn what_is_received_has_the_reserve_that_the_file_has() {
    let object = grows(4 * PAGE);
    object.allocate(PAGE, PAGE).unwrap();
    fill(part(&object, PAGE, PAGE), 4);
    let descriptor = object.region().as_fd().try_clone_to_owned().unwrap();
    let again =
        Object::attach(&Region::from_fd(descriptor.try_clone().unwrap()).unwrap(), 64, |_| Some(NUMBER));
    let again = again.unwrap();
    // The same mapping, and after the last handle another one.
    assert_eq!(again.reserve(), object.reserve());
    drop((object, again));
    let region = Region::from_fd(descriptor).unwrap();
    let object = Object::attach(&region, 64, |_| Some(NUMBER)).unwrap();
    assert_eq!(object.reserve().1, 4 * PAGE);
    assert!(is_all(part(&object, PAGE, PAGE), 4));
    assert_eq!(taken(&object), 2 * PAGE as u64);

    let mut image = vec![0; PAGE];
    file_of(&region).read_exact_at(&mut image, 0).unwrap();
    let of_size = |size: u64| {
        let file = memfd(c"by hand");
        file.write_all_at(&image, 0).unwrap();
        file.set_len(size).unwrap();
        seal(&file, SEALS);
        Region::from_fd(file.into())
    };
    let whole = 5 * PAGE as u64;
    assert!(of_size(whole).is_ok());
    for size in [PAGE as u64, 4 * PAGE as u64, whole - 1] {
        let error = of_size(size).unwrap_err();
        assert!(
            matches!(error, AttachError::Truncated { found, expected } if (found, expected) == (size, whole))
        );
    }
    for size in [whole + 1, 2 * whole, 1 << 40] {
        let error = of_size(size).unwrap_err();
        assert!(
            matches!(error, AttachError::Oversized { found, expected } if (found, expected) == (size, whole))
        );
    }
}

#[test]
fn processes_allocate_and_give_back_beside_each_other() {
    const WORKERS: usize = 4;
    const EACH: usize = 32 * PAGE;
    let object = grows(WORKERS * EACH);
    let work = |worker: usize| {
        let (offset, mine) = (worker * EACH, part(&object, worker * EACH, EACH));
        for round in 1..=50 {
            object.allocate(offset, EACH).unwrap();
            assert!(is_all(mine, 0), "{worker} {round}");
            fill(mine, round);
            assert!(is_all(mine, round), "{worker} {round}");
            object.give_back(offset, EACH).unwrap();
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
    assert_eq!(taken(&object), PAGE as u64);
}

/// Wherever a process is killed while it allocates or gives back, the others go on.
#[test]
fn a_killed_process_leaves_a_usable_reserve() {
    const LENGTH: usize = 4 * MIB;
    let object = grows(LENGTH);
    let rounds = number(&object);
    for round in 0..16u64 {
        let reached = rounds.load(Ordering::Relaxed);
        // SAFETY: the child makes system calls and writes to shared memory, nothing else, until it is killed.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: SIGALRM's default action ends the child.
            unsafe { libc::alarm(10) };
            loop {
                object.allocate(0, LENGTH).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
                object.give_back(0, LENGTH).unwrap();
            }
        }
        // Once it has begun, somewhere in the next rounds.
        let deadline = Instant::now() + Duration::from_secs(10);
        while rounds.load(Ordering::Relaxed) == reached {
            assert!(Instant::now() < deadline, "the child does not get there");
            std::thread::yield_now();
        }
        let until = Instant::now() + Duration::from_micros(round * 200);
        while Instant::now() < until {
            core::hint::spin_loop();
        }
        // SAFETY: the child is not reaped, so the id is its own.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        let mut status = 0;
        // SAFETY: waits for a child of this process that nobody else waits for.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, libc::SIGKILL);
        assert!(taken(&object) <= (PAGE + LENGTH) as u64);
        object.allocate(0, LENGTH).unwrap();
        assert!(is_all(part(&object, 0, LENGTH), 0));
        assert_eq!(taken(&object), (PAGE + LENGTH) as u64);
        object.give_back(0, LENGTH).unwrap();
        assert_eq!(taken(&object), PAGE as u64);
    }
}

/// A profiler's signals neither fail an allocation nor stop it for ever.
#[test]
fn signals_do_not_show() {
    extern "C" fn count(_signal: libc::c_int) {
        SEEN.fetch_add(1, Ordering::Relaxed);
    }
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let object = grows(256 * MIB);
    in_child(|| {
        // SAFETY: a zeroed sigaction is one without flags.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = count as *const () as usize;
        // SAFETY: the handler is async-signal-safe: it counts.
        assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &action, core::ptr::null_mut()) }, 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 500 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        // SAFETY: the timer is readable and of the right type.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, core::ptr::null_mut()) }, 0);
        while SEEN.load(Ordering::Relaxed) < 5 {
            object.allocate(0, 64 * MIB).unwrap();
            object.give_back(0, 64 * MIB).unwrap();
        }
        true
    })
    .succeeds();
    assert_eq!(taken(&object), PAGE as u64);
}
