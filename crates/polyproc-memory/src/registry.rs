//! The regions of this process: one mapping for each memory file, however often it is received.

use crate::error::AttachError;
use crate::layout::{Geometry, LINE};
use crate::mapping::{Identity, Mapping};
use crate::memfd;
use polyproc_sys::atomic::Ordering;
use polyproc_sys::fork::Mutex;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

type Regions = BTreeMap<Identity, Arc<Mapping>>;

/// Every mapping with at least one handle.
static REGIONS: Mutex<Regions> = Mutex::new(BTreeMap::new());

/// What tells the region in this file from all others. It is that region's as long as the file is open, which
/// is as long as it stands in the registry.
fn identity(metadata: &Metadata, geometry: &Geometry) -> Identity {
    (metadata.dev(), metadata.ino(), geometry.made)
}

/// Enters a region that this process has just made.
pub(crate) fn enter(file: File, geometry: Geometry) -> io::Result<Arc<Mapping>> {
    let identity = identity(&file.metadata()?, &geometry);
    let mapping = Arc::new(Mapping::new(file, identity, geometry)?);
    mapping.initialise();
    REGIONS.lock().insert(identity, Arc::clone(&mapping));
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
    let mut regions = REGIONS.lock();
    if let Some(mapping) = regions.get(&identity) {
        // Relaxed: what stands in the registry has a handle, and only the holder of its lock takes the last
        // one away.
        mapping.handles.fetch_add(1, Ordering::Relaxed);
        return Ok(Arc::clone(mapping));
    }
    let mapping = Arc::new(Mapping::new(file, identity, geometry)?);
    regions.insert(identity, Arc::clone(&mapping));
    Ok(mapping)
}

/// Gives one handle back. The last one takes the mapping out of the registry, unless a lock in it is still
/// held.
pub(crate) fn release(mapping: &Mapping) {
    let mut handles = mapping.handles.load(Ordering::Relaxed);
    while handles > 1 {
        // Release: pairs with the Acquire below, so that what was done through this handle is done.
        match mapping.handles.compare_exchange(handles, handles - 1, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => handles = other,
        }
    }
    let mut regions = REGIONS.lock();
    if mapping.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
        // Somebody received the region at this very moment.
        return;
    }
    if mapping.holds_lock() {
        // The lock is a node in its thread's robust list: it must stay where it is, for the life of the
        // process.
        mapping.handles.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let mapping = regions.remove(&mapping.identity());
    // Unmapping takes time: others need not wait for it.
    drop(regions);
    drop(mapping);
}
