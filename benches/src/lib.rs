//! Micro benches and contention benches between processes.
