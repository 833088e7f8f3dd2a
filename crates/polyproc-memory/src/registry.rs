//! The regions of this process: one mapping for each memory file, however often it is received.

use crate::error::AttachError;
use crate::layout::{Geometry, LINE};
use crate::mapping::{Identity, Mapping};
use crate::memfd;
use core::cell::{Cell, UnsafeCell};
use polyproc_sys::atomic::{AtomicU32, Ordering};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Regions = BTreeMap<Identity, Arc<Mapping>>;

/// Every mapping with at least one handle.
static REGIONS: Mutex<Regions> = Mutex::new(BTreeMap::new());

fn regions() -> MutexGuard<'static, Regions> {
    // Whether the fork handlers are registered: 0 or 1. No `Once`: a fork while another thread is inside would leave it
    // unfinished in the child for ever. Two threads may register them both, so the handlers count themselves.
    static AT_FORK: AtomicU32 = AtomicU32::new(0);
    if AT_FORK.load(Ordering::Acquire) == 0 {
        // SAFETY: the handlers are functions of the program's lifetime; what they do is stated there.
        let result = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
        assert_eq!(result, 0, "no memory to register fork handlers");
        AT_FORK.store(1, Ordering::Release);
    }
    lock()
}

fn lock() -> MutexGuard<'static, Regions> {
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registry's lock during a fork, so that the child never inherits it from a thread that it does not have.
struct Held(UnsafeCell<Option<MutexGuard<'static, Regions>>>);

// SAFETY: the cell is touched only by the thread that forks, and only while it holds the lock whose guard is in it.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

thread_local! {
    /// How many pairs of the handlers below are between their two calls.
    static FORKING: Cell<u32> = const { Cell::new(0) };
}

extern "C" fn before_fork() {
    if FORKING.replace(FORKING.get() + 1) != 0 {
        return;
    }
    let guard = lock();
    // SAFETY: this thread holds the lock, so no other is between `before_fork` and `after_fork`.
    unsafe { HELD.0.get().write(Some(guard)) };
}

/// Runs in the parent, and in the child.
extern "C" fn after_fork() {
    if FORKING.replace(FORKING.get() - 1) != 1 {
        return;
    }
    // SAFETY: this thread holds the lock: it took it in `before_fork`. The child's one thread is a copy of that thread.
    let guard = unsafe { HELD.0.get().replace(None) };
    drop(guard);
}

/// What tells the region in this file from all others. It is that region's as long as the file is open, which is as
/// long as it stands in the registry.
fn identity(metadata: &Metadata, geometry: &Geometry) -> Identity {
    (metadata.dev(), metadata.ino(), geometry.made)
}

/// Enters a region that this process has just made.
pub(crate) fn enter(file: File, geometry: Geometry) -> io::Result<Arc<Mapping>> {
    let identity = identity(&file.metadata()?, &geometry);
    let mapping = Arc::new(Mapping::new(file, identity, geometry)?);
    mapping.initialise();
    regions().insert(identity, Arc::clone(&mapping));
    Ok(mapping)
}

/// The mapping of a received file: the one that there is, or a new one. Counts one handle more.
pub(crate) fn attach(file: File) -> Result<Arc<Mapping>, AttachError> {
    // First the seals, then the size: it cannot change any more.
    let missing = memfd::missing_seals(&file)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(AttachError::NotAFile);
    }
    if missing != 0 {
        return Err(AttachError::NotSealed { missing });
    }
    let size = metadata.len();
    if size < LINE {
        return Err(AttachError::Truncated { found: size, expected: LINE });
    }
    let geometry = Geometry::judge(&memfd::read_header(&file)?, size, memfd::page_size())?;
    let identity = identity(&metadata, &geometry);
    let mut regions = regions();
    if let Some(mapping) = regions.get(&identity) {
        // Relaxed: what stands in the registry has a handle, and only the holder of its lock takes the last one away.
        mapping.handles.fetch_add(1, Ordering::Relaxed);
        return Ok(Arc::clone(mapping));
    }
    let mapping = Arc::new(Mapping::new(file, identity, geometry)?);
    regions.insert(identity, Arc::clone(&mapping));
    Ok(mapping)
}

/// Gives one handle back. The last one takes the mapping out of the registry, unless a lock in it is still held.
pub(crate) fn release(mapping: &Mapping) {
    let mut handles = mapping.handles.load(Ordering::Relaxed);
    while handles > 1 {
        // Release: pairs with the Acquire below, so that what was done through this handle is done.
        match mapping.handles.compare_exchange(handles, handles - 1, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => handles = other,
        }
    }
    let mut regions = regions();
    if mapping.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
        // Somebody received the region at this very moment.
        return;
    }
    if mapping.holds_lock() {
        // The lock is a node in its thread's robust list: it must stay where it is, for the life of the process.
        mapping.handles.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let mapping = regions.remove(&mapping.identity());
    // Unmapping takes time: others need not wait for it.
    drop(regions);
    drop(mapping);
}
