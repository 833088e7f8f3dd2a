//! What the system shows of processes from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Makes the tests of one program run one after the other: they count descriptors and measure times.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a process is doing, as the scheduler sees it: `R` runs or could, `S` sleeps in a system call, `T` and `t` are
/// stopped, `Z` is dead, `D` waits for a moment inside the kernel. `None` if it is gone.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses, and may have some of its own.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

/// How many descriptors this process has open.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc is there").count()
}

/// How many of polyproc's regions this process has mapped.
///
/// # Panics
///
/// If there is no `/proc`.
pub fn mapped_regions() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is there");
    maps.lines().filter(|line| line.contains("memfd:polyproc:")).count()
}

/// The names in a folder; none if it is not there.
pub fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether the kernel is at least this one.
pub fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs() {
        // Another thread of it may run, but the state is the first thread's, which waits for the tests.
        assert!(matches!(state(std::process::id()), Some('R' | 'S')));
        assert_eq!(state(u32::MAX), None);
    }

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(kernel_is_at_least(2, 6));
        assert!(!kernel_is_at_least(99, 0));
    }
}
