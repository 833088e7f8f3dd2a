//! A program that never calls `init`.

mod common;

use common::watchdog;
use polyproc_process::{Builder, Process, SpawnError, active_children};

#[test]
fn spawn_says_what_is_missing_and_starts_nothing() {
    let _watchdog = watchdog();
    for _ in 0..3 {
        let error = Process::spawn(|| (), ()).unwrap_err();
        assert!(matches!(error, SpawnError::NotInitialised), "{error}");
        assert!(error.to_string().contains("call `polyproc::init()` at the beginning of `main`"), "{error}");
        let error = Builder::new().name("anything").spawn(|| (), ()).unwrap_err();
        assert!(matches!(error, SpawnError::NotInitialised), "{error}");
    }
    assert!(active_children().is_empty());
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children, "");
}
