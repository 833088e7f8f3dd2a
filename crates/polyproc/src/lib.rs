//! Python's multiprocessing for Rust: typed shared memory, crash-safe locks, processes.
