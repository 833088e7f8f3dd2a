//! Where things run.

use std::sync::OnceLock;

/// The CPUs that the process could run on before any of its threads was pinned.
fn cpus() -> &'static [usize] {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(|| {
        // SAFETY: all-zero is an empty set.
        let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        // SAFETY: the set is writable and of the given size; 0 is the calling thread.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
        assert_eq!(result, 0, "sched_getaffinity: {}", std::io::Error::last_os_error());
        // SAFETY: the index is within the set.
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
    })
}

/// How many CPUs there are for the benches, whether or not the calling thread is pinned to one of them.
pub fn cpu_count() -> usize {
    cpus().len()
}

/// Pins the calling thread to one CPU, counted modulo the CPUs that there are. One that was pinned before may be pinned
/// again, to any of them.
///
/// # Panics
///
/// If the system refuses.
pub fn pin_to(index: usize) {
    let cpus = cpus();
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: one of a set of the same size.
    unsafe { libc::CPU_SET(cpus[index % cpus.len()], &mut set) };
    // SAFETY: the set is initialised and of the given size; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(result, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_can_be_pinned_again() {
        let on = || {
            // SAFETY: asks where the thread runs.
            unsafe { libc::sched_getcpu() }
        };
        for index in [0, 1, 0] {
            pin_to(index);
            assert_eq!(on() as usize, cpus()[index % cpu_count()]);
        }
        assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
    }
}
