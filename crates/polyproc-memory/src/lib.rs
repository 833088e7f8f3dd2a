//! Shared memory that cannot leak: sealed memfd regions, arenas, and handles that travel between processes.
