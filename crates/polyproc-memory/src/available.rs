//! How much memory there is, and how much of it is to be had.
//!
//! Allocating more than that would not fail: the kernel would kill processes until it fits. So a large
//! request is compared first. Two that come at the same moment can still both pass.

use crate::memfd;
use polyproc_sys::atomic::{AtomicU64, Ordering};
use std::fs;
use std::path::Path;

/// Smaller requests are not worth the look.
pub(crate) const WORTH_A_LOOK: u64 = 64 << 20;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Where those of version 1 that limit memory are.
const CGROUPS_1: &str = "/sys/fs/cgroup/memory";

/// Taken for the system's memory if it does not tell: one gibibyte.
const UNKNOWN: u64 = 1 << 30;

/// How much memory this process can count on at the most, in bytes: the system's, or the limit of its control
/// group, of version 1 or 2, or of a group around that, if that is less. Never zero.
///
/// For limits that nobody set, such as a quarter of the memory. It is looked up once, and remembered: the
/// first call reads a few small files, the others a number. Whether the memory is free, it does not say. If
/// the system does not tell, it is one gibibyte.
///
/// # Examples
///
/// ```
/// let most = polyproc_memory::physical_memory() / 4;
/// assert!(most > 0);
/// ```
pub fn physical_memory() -> u64 {
    // 0: not looked up yet. Two threads that do so at the same time find the same. No `OnceLock`: a fork in
    // the middle would leave it unfinished in the child for ever.
    static BYTES: AtomicU64 = AtomicU64::new(0);
    // Relaxed, and below: nothing rides on the number.
    let known = BYTES.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let system = memfd::physical_memory().unwrap_or(UNKNOWN);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = own_group(&groups).and_then(|group| lowest_limit(CGROUPS, group, "memory.max"));
    let version_1 =
        own_memory_group(&groups).and_then(|group| lowest_limit(CGROUPS_1, group, "memory.limit_in_bytes"));
    let bytes = [Some(system), unified, version_1].into_iter().flatten().min().unwrap_or(system).max(1);
    BYTES.store(bytes, Ordering::Relaxed);
    bytes
}

/// How large a region that nobody gave a size had better be at the most, in bytes: half of what a file may
/// have (`RLIMIT_FSIZE`, `ulimit -f`), and a quarter of what the address space may have (`RLIMIT_AS`,
/// `ulimit -v`). Reads two numbers each time.
///
/// # Examples
///
/// ```
/// assert!(polyproc_memory::modest_region() > 0);
/// ```
pub fn modest_region() -> u64 {
    let [file, addresses] = memfd::size_limits();
    (file / 2).min(addresses / 4)
}

/// The lowest limit in files of this name, of the group and those around it. Without a limit there stands
/// `max`, or no file, or more than there can be.
///
/// In a container the group's own directory may be missing, because its path is the host's: then it is the
/// uppermost.
fn lowest_limit(mounted: &str, group: &str, name: &str) -> Option<u64> {
    let group = Path::new(mounted).join(group.trim_start_matches('/'));
    let around = group.ancestors().take_while(|ancestor| ancestor.starts_with(mounted));
    around.filter_map(|ancestor| number(&ancestor.join(name))).min()
}

/// The number in a file. `None` if there is none, or something else in it.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The bytes that can be allocated without anybody being killed for it. `None` if the system does not tell.
pub(crate) fn bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let (memory, swap) = system(&meminfo)?;
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|groups| {
        let group = Path::new(CGROUPS).join(own_group(&groups)?.trim_start_matches('/'));
        // A group is bound by the limits of those around it.
        let around = group.ancestors().take_while(|ancestor| ancestor.starts_with(CGROUPS));
        around.filter_map(|ancestor| group_limit(ancestor, swap)).min()
    });
    let system = memory.saturating_add(swap);
    Some(group.map_or(system, |group| group.min(system)))
}

/// From /proc/meminfo: memory that is free or can be reclaimed, and free swap.
fn system(meminfo: &str) -> Option<(u64, u64)> {
    let kibibytes = |name| field(meminfo, name).map(|number| number.saturating_mul(1024));
    Some((kibibytes("MemAvailable:")?, kibibytes("SwapFree:").unwrap_or(0)))
}

/// From /proc/self/cgroup: the process's group in the unified hierarchy.
fn own_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// From /proc/self/cgroup: the process's group in the hierarchy of version 1 that limits memory.
fn own_memory_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|controller| controller == "memory").then_some(group)
    })
}

/// What the group in this directory may still take, `None` if it has no limit.
fn group_limit(directory: &Path, free_swap: u64) -> Option<u64> {
    let number = |name: &str| number(&directory.join(name));
    let (most, current) = (number("memory.max")?, number("memory.current")?);
    let reclaimable = fs::read_to_string(directory.join("memory.stat")).map_or(0, |stat| reclaimable(&stat));
    let swap = match (number("memory.swap.max"), number("memory.swap.current")) {
        (Some(most), Some(current)) => free_swap.min(most.saturating_sub(current)),
        _ => free_swap,
    };
    Some(most.saturating_sub(current.saturating_sub(reclaimable)).saturating_add(swap))
}

/// From memory.stat: the file cache in a group, which makes room when memory is wanted.
fn reclaimable(stat: &str) -> u64 {
    ["inactive_file", "active_file"].iter().filter_map(|name| field(stat, name)).sum()
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? == name { words.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24683888 kB\nMemFree:        23000000 kB\n\
                           MemAvailable:   22000000 kB\nSwapTotal:       2000000 kB\nSwapFree:        1000000 kB\n";

    #[test]
    fn the_system_tells() {
        assert_eq!(system(MEMINFO), Some((22_000_000 << 10, 1_000_000 << 10)));
        assert_eq!(system("MemTotal: 5 kB\n"), None);
        assert!(bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_group_is_found_in_the_unified_hierarchy_only() {
        assert_eq!(own_group("4:memory:/a\n0::/user.slice/b\n"), Some("/user.slice/b"));
        assert_eq!(own_group("4:memory:/a\n"), None);
    }

    #[test]
    fn version_1_names_its_controllers() {
        let groups = "9:name=systemd:/s\n5:cpu,memory:/a:b/c\n4:memoryless:/d\n0::/e\n";
        assert_eq!(own_memory_group(groups), Some("/a:b/c"));
        assert_eq!(own_memory_group("0::/memory\n4:memoryless:/d\nmemory\n"), None);
    }

    #[test]
    fn the_lowest_limit_around_holds() {
        let directory = std::env::temp_dir().join(format!("polyproc-memory-limits-{}", std::process::id()));
        let mounted = directory.to_str().unwrap();
        fs::create_dir_all(directory.join("a/b")).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        let limit = |group| lowest_limit(mounted, group, "most");
        let none = limit("/a/b");
        write("a/b/most", "max\n");
        let unlimited = limit("/a/b");
        write("a/b/most", "4096\n");
        let own = (limit("/a/b"), limit("/a"), limit("/"));
        write("a/most", "1024\n");
        write("most", "2048\n");
        let around = (limit("/a/b"), limit("/"), limit("/of/the/host"));
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((none, unlimited, own), (None, None, (Some(4096), None, None)));
        assert_eq!(around, (Some(1024), Some(2048), Some(2048)));
    }

    #[test]
    fn there_is_as_much_memory_as_the_system_says_at_the_most() {
        let total = field(&fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:").unwrap() << 10;
        let found = physical_memory();
        // Memory can be plugged in and out, and a part of it be kept from view; it is never off by this much.
        assert!(found > 0 && found < 2 * total, "{found} {total}");
        assert_eq!(physical_memory(), found);
    }

    #[test]
    fn a_group_limits_and_its_file_cache_does_not_count() {
        let directory = std::env::temp_dir().join(format!("polyproc-memory-group-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        let unlimited = group_limit(&directory, 50);
        write("memory.max", "1000\n");
        let limited = group_limit(&directory, 50);
        write("memory.stat", "anon 5\nfile 300\ninactive_file 200\nactive_file 100\n");
        let with_cache = group_limit(&directory, 50);
        write("memory.swap.max", "30\n");
        write("memory.swap.current", "10\n");
        let with_swap_limit = group_limit(&directory, 50);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            (unlimited, limited, with_cache, with_swap_limit),
            (None, Some(350), Some(650), Some(620))
        );
    }
}
