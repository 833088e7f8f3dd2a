//! How much memory there is to be had.
//!
//! Allocating more than that would not fail: the kernel would kill processes until it fits. So a large request is
//! compared first. Two that come at the same moment can still both pass.

use std::fs;
use std::path::Path;

/// Smaller requests are not worth the look.
pub(crate) const WORTH_A_LOOK: u64 = 64 << 20;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

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

/// What the group in this directory may still take, `None` if it has no limit.
fn group_limit(directory: &Path, free_swap: u64) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (most, current) = (number("memory.max")?, number("memory.current")?);
    let reclaimable = read("memory.stat").map_or(0, |stat| reclaimable(&stat));
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
