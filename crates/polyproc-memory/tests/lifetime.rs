//! One mapping a process, gone with the last handle, except where a lock is held; and what a fork does to it.
//!
//! These tests count mappings and descriptors of the whole process, so they run one after the other.

mod common;

use common::*;
use polyproc_memory::{Arena, Object, Region, handover, without_noexec_seal};
use polyproc_sys::futex::{OWNER_DIED, WAITERS};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptor(region: &Region) -> OwnedFd {
    region.as_fd().try_clone_to_owned().unwrap()
}

/// How often a memory file is mapped.
fn mapped(descriptor: &OwnedFd) -> usize {
    let file = File::from(descriptor.try_clone().unwrap());
    maps(&format!(" {} ", file.metadata().unwrap().ino())).len()
}

#[test]
fn the_last_handle_unmaps_and_closes() {
    let _alone = alone();
    let before = descriptors();
    let object = Object::create(None, &NUMBER).unwrap();
    assert_eq!(descriptors(), before + 1);
    let descriptor = descriptor(object.region());
    let (clone, region) = (object.clone(), object.region().clone());
    drop(object);
    drop(region);
    number(&clone).store(1, Ordering::Relaxed);
    assert_eq!(mapped(&descriptor), 1);
    drop(clone);
    assert_eq!(mapped(&descriptor), 0);
    drop(descriptor);
    assert_eq!(descriptors(), before);
}

#[test]
fn an_object_keeps_its_arena_mapped() {
    let _alone = alone();
    let arena = Arena::new(256).unwrap();
    let descriptor = descriptor(arena.region());
    let object = Object::create(Some(&arena), &LOCK).unwrap();
    drop(arena);
    lock(&object).0.store(1, Ordering::Relaxed);
    assert_eq!(mapped(&descriptor), 1);
    drop(object);
    assert_eq!(mapped(&descriptor), 0);
}

#[test]
fn what_is_received_again_is_mapped_once() {
    let _alone = alone();
    let before = descriptors();
    let object = Object::create(None, &NUMBER).unwrap();
    let received: Vec<_> = (0..10).map(|_| Region::from_fd(descriptor(object.region())).unwrap()).collect();
    assert_eq!(descriptors(), before + 1);
    assert!(received.iter().all(|region| region.is_same(object.region())));
    let kept = descriptor(object.region());
    drop(object);
    assert_eq!(mapped(&kept), 1);
    let again = Object::attach(&received[9], 64, |_| Some(NUMBER)).unwrap();
    number(&again).store(5, Ordering::Relaxed);
    drop((received, again));
    assert_eq!(mapped(&kept), 0);
    // What was written is there as long as the file is open.
    let region = Region::from_fd(kept).unwrap();
    let object = Object::attach(&region, 64, |_| Some(NUMBER)).unwrap();
    assert_eq!(number(&object).load(Ordering::Relaxed), 5);
    drop((object, region));
    assert_eq!(descriptors(), before);
}

#[test]
fn failures_leave_nothing_open() {
    let _alone = alone();
    let before = descriptors();
    for _ in 0..20 {
        assert!(Region::from_fd(sealed(&[7; 4096])).is_err());
        assert!(Region::from_fd(sealed(&[7; 5])).is_err());
        assert!(Object::create(None, &bytes(1 << 50).unwrap()).is_err());
        assert!(Arena::labelled("a\0b", 1).is_err());
        let arena = Arena::new(4096).unwrap();
        let received = vec![descriptor(arena.region()), sealed(&[7; 5]), sealed(&[7; 5])];
        handover::receive(received, || {
            assert!(handover::region(0).is_ok());
            assert!(handover::region(1).is_err());
            assert!(handover::region(3).is_err());
        });
    }
    assert_eq!(descriptors(), before);
}

/// A lock is held by a guard that was forgotten: its links in the thread's robust list must not dangle.
#[test]
fn a_held_lock_keeps_its_region_mapped() {
    let _alone = alone();
    let object = Object::create(None, &LOCK).unwrap();
    let (address, kept) = (object.payload(), descriptor(object.region()));
    let (word, holder) = lock(&object);
    holder.store(std::process::id(), Ordering::Relaxed);
    word.store(1234 | WAITERS, Ordering::Relaxed);
    drop(object);
    assert_eq!(mapped(&kept), 1);
    // Whoever receives it again gets the mapping that the lock is in.
    let received = |fd: &OwnedFd| {
        let region = Region::from_fd(fd.try_clone().unwrap()).unwrap();
        Object::attach(&region, 64, |_| Some(LOCK)).unwrap()
    };
    assert_eq!(received(&kept).payload(), address);
    assert_eq!(received(&kept).payload(), address);
    assert_eq!(mapped(&kept), 1);
    // A child made by fork holds nothing, but it does not know that nobody else can need the mapping: it stays.
    in_child(|| received(&kept).payload() == address).succeeds();
}

#[test]
fn a_lock_that_others_hold_or_nobody_does_not() {
    let _alone = alone();
    let me = std::process::id();
    for (word, holder) in [(0, me), (WAITERS, me), (OWNER_DIED | WAITERS, me), (1234, me + 1), (1234, 0)] {
        let object = Object::create(None, &LOCK).unwrap();
        let kept = descriptor(object.region());
        lock(&object).0.store(word, Ordering::Relaxed);
        lock(&object).1.store(holder, Ordering::Relaxed);
        drop(object);
        assert_eq!(mapped(&kept), 0, "{word:#x} {holder}");
    }
    // What looks like a held lock and is none.
    let object = Object::create(None, &bytes(64).unwrap()).unwrap();
    let kept = descriptor(object.region());
    // SAFETY: the payload has 64 bytes, aligned to 64, which nobody else touches.
    let words: &[AtomicU64; 8] = unsafe { object.payload().cast().as_ref() };
    words[0].store(1234, Ordering::Relaxed);
    words[1].store(me.into(), Ordering::Relaxed);
    drop(object);
    assert_eq!(mapped(&kept), 0);
}

/// The objects of an arena are walked, over what a killed creator left behind.
#[test]
fn a_held_lock_is_found_behind_others_and_behind_holes() {
    let _alone = alone();
    for held in [false, true] {
        let arena = Arena::new(1 << 16).unwrap();
        let kept = descriptor(arena.region());
        let first = Object::create(Some(&arena), &bytes(1000).unwrap()).unwrap();
        // The number of taken bytes is 48 bytes into the region, whose first object has its payload at 128.
        let used = first.payload().as_ptr().wrapping_sub(128 - 48).cast::<u64>();
        // SAFETY: an aligned u64 of the mapping, which only atomics touch.
        let used = unsafe { AtomicU64::from_ptr(used) };
        assert_eq!(used.load(Ordering::Relaxed), arena.used() as u64);
        // A creator was killed after it took its place.
        used.fetch_add(192, Ordering::Relaxed);
        let locks: Vec<_> = (0..3).map(|_| Object::create(Some(&arena), &LOCK).unwrap()).collect();
        lock(&locks[2]).1.store(std::process::id(), Ordering::Relaxed);
        lock(&locks[2]).0.store(u32::from(held), Ordering::Relaxed);
        drop((arena, first, locks));
        assert_eq!(mapped(&kept), usize::from(held));
    }
}

/// While one thread drops the last handle, another receives the region.
#[test]
fn receiving_and_dropping_race_without_harm() {
    const ROUNDS: u64 = 3000;
    let _alone = alone();
    let before = descriptors();
    let object = Object::create(None, &NUMBER).unwrap();
    let kept = descriptor(object.region());
    drop(object);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let region = Region::from_fd(kept.try_clone().unwrap()).unwrap();
                    let object = Object::attach(&region, 64, |_| Some(NUMBER)).unwrap();
                    assert!(Region::from_fd(kept.try_clone().unwrap()).unwrap().is_same(&region));
                    drop(region);
                    let clone = object.clone();
                    drop(object);
                    number(&clone).fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(mapped(&kept), 0);
    let region = Region::from_fd(kept.try_clone().unwrap()).unwrap();
    let object = Object::attach(&region, 64, |_| Some(NUMBER)).unwrap();
    assert_eq!(number(&object).load(Ordering::Relaxed), 3 * ROUNDS);
    drop((object, region, kept));
    assert_eq!(descriptors(), before);
}

#[test]
fn a_forked_child_has_the_memory_and_lets_go_by_itself() {
    let _alone = alone();
    let object = Object::create(None, &LOCK).unwrap();
    let kept = descriptor(object.region());
    lock(&object).1.store(std::process::id(), Ordering::Relaxed);
    lock(&object).0.store(1234, Ordering::Relaxed);
    let mut inherited = Some(object);
    in_child(|| {
        let object = inherited.take().unwrap();
        lock(&object).0.fetch_add(1, Ordering::Relaxed);
        let clone = object.clone();
        drop((object, clone));
        // The parent holds the lock, not this process.
        mapped(&kept) == 0
    })
    .succeeds();
    let object = inherited.unwrap();
    assert_eq!(lock(&object).0.swap(0, Ordering::Relaxed), 1235);
    drop(object);
    assert_eq!(mapped(&kept), 0);
}

/// A fork in the very moment in which another thread has the registry locked.
#[test]
fn a_fork_beside_busy_threads_leaves_the_child_able() {
    let _alone = alone();
    let object = Object::create(None, &NUMBER).unwrap();
    let kept = descriptor(object.region());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Nobody else has this one: each time it is mapped anew, which is done under the lock.
                let unmapped = descriptor(Arena::new(64).unwrap().region());
                while !done.load(Ordering::Relaxed) {
                    drop(Region::from_fd(unmapped.try_clone().unwrap()).unwrap());
                }
            });
        }
        let children: Vec<_> = (0..100)
            .map(|_| {
                in_child(|| {
                    let received = Region::from_fd(kept.try_clone().unwrap()).unwrap();
                    Object::create(None, &NUMBER).is_ok() && received.is_same(object.region())
                })
            })
            .collect();
        let failed =
            children.into_iter().filter_map(|child| Some(child.status()).filter(|status| *status != 0));
        let failed: Vec<_> = failed.collect();
        done.store(true, Ordering::Relaxed);
        assert!(failed.is_empty(), "wait statuses of {} of 100 children: {failed:?}", failed.len());
    });
}

#[test]
fn a_kernel_without_noexec_is_served_too() {
    let _alone = alone();
    for without in [true, false] {
        without_noexec_seal(without);
        let object = Object::create(None, &LOCK).unwrap();
        let file = File::from(descriptor(object.region()));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(seals(&file) & SEALS, SEALS);
        if without {
            assert_eq!(seals(&file) & libc::F_SEAL_EXEC, 0);
        } else if seals(&file) & libc::F_SEAL_EXEC != 0 {
            assert!(file.set_permissions(PermissionsExt::from_mode(0o700)).is_err());
        }
        let region = Region::from_fd(file.into()).unwrap();
        assert!(region.is_same(object.region()));
    }
}
