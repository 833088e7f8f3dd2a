//! Kills a process at every instruction of every operation of the locks.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test kill -- --nocapture
//! POLYPROC_KILL_FULL=1 cargo test --release -p polyproc-tests --test kill -- --nocapture
//! ```
//!
//! The first leaves out some of the many placements in time of two processes, the second nothing. What each line says
//! is in the docs of [`polyproc_tests::kill`].

mod census;
mod contended;
mod free;
mod raw;
mod recovery;
mod rlock;
mod scene;
mod value;
