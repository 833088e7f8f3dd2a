//! Where things run.

/// Pins the calling thread to one CPU, counted modulo the CPUs that there are.
///
/// # Panics
///
/// If the system refuses.
pub fn pin_to(index: usize) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the index is below the number of CPUs, and so within the set.
    unsafe { libc::CPU_SET(index % cpus, &mut set) };
    // SAFETY: the set is initialised and of the given size; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(result, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}
