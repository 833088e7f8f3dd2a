//! Where things run.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The CPUs that the process could run on before any of its threads was pinned.
fn cpus() -> &'static [usize] {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(affinity)
}

/// The CPUs that the calling thread may run on.
fn affinity() -> Vec<usize> {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the set is writable and of the given size; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    assert_eq!(result, 0, "sched_getaffinity: {}", std::io::Error::last_os_error());
    // SAFETY: the index is within the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
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
    let cpu = cpus[index % cpus.len()];
    restrict_to(&[cpu]);
    note_pin(Some(cpu));
}

/// Lets the calling thread run on these CPUs.
fn restrict_to(cpus: &[usize]) {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: one of a set of the same size.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the set is initialised and of the given size; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) };
    assert_eq!(result, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
}

/// Runs something pinned as by [`pin_to`], and then lets the calling thread run where it ran before: whoever is forked or
/// started later inherits that.
pub fn pinned_to<T>(index: usize, run: impl FnOnce() -> T) -> T {
    let before = affinity();
    pin_to(index);
    let result = run();
    restrict_to(&before);
    result
}

/// The CPU that the calling thread is pinned to, if it is.
pub(crate) fn own_pin() -> Option<usize> {
    // So that what there is was seen before.
    let (all, own) = (cpu_count(), affinity());
    (own.len() == 1 && all > 1).then(|| own[0])
}

/// Where threads and processes were seen to run since this was last emptied: pinned to a CPU, or on any.
static PINS: Mutex<BTreeSet<Option<usize>>> = Mutex::new(BTreeSet::new());

/// Notes that somebody who takes part in what is being measured is pinned, or is not. A process that ends must tell its parent.
pub fn note_pin(cpu: Option<usize>) {
    PINS.lock().unwrap_or_else(PoisonError::into_inner).insert(cpu);
}

/// Runs something, and says where those who took part were pinned, as in `CPUs 0 and 1`. If none has said, it is where the
/// calling thread is.
pub fn pinned<T>(run: impl FnOnce() -> T) -> (T, String) {
    let take = || std::mem::take(&mut *PINS.lock().unwrap_or_else(PoisonError::into_inner));
    take();
    let result = run();
    let mut pins = take();
    if pins.is_empty() {
        pins.insert(own_pin());
    }
    (result, describe(&pins))
}

fn describe(pins: &BTreeSet<Option<usize>>) -> String {
    let cpus: Vec<String> = pins.iter().flatten().map(usize::to_string).collect();
    let cpus = match cpus.split_last() {
        None => return "not pinned".to_owned(),
        Some((only, [])) => format!("CPU {only}"),
        Some((last, others)) => format!("CPUs {} and {last}", others.join(", ")),
    };
    if pins.contains(&None) { cpus + ", some not" } else { cpus }
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
        let available = || std::thread::available_parallelism().unwrap().get();
        pinned_to(1, || assert_eq!(available(), 1));
        assert_eq!(available(), cpu_count());
        for index in [0, 1, 0] {
            pin_to(index);
            assert_eq!(on() as usize, cpus()[index % cpu_count()]);
        }
        assert_eq!(available(), 1);
    }

    #[test]
    fn several_pins_are_described() {
        assert_eq!(describe(&[None].into()), "not pinned");
        assert_eq!(describe(&[None, Some(3), Some(4)].into()), "CPUs 3 and 4, some not");
        assert_eq!(describe(&[Some(3), Some(4), Some(5)].into()), "CPUs 3, 4 and 5");
    }
}
