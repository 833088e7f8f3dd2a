//! Tests with real processes, and the harness that kills them at every instruction.
//!
//! Four things kill processes here, each for another kind of mistake:
//!
//! | what | kills | finds |
//! |---|---|---|
//! | [`kill`] | one process after each instruction of an operation, with others placed where it hurts most | any instruction at which a death strands somebody or leaves a wrong state |
//! | [`soak`] | random processes at random moments, thousands of times, under load | what nobody thought of placing |
//! | [`mixed`] | the same among processes that use all primitives at once | what one primitive does to another; a permit, an item, a pulse that is lost or there twice |
//! | [`latency`] | the holder of a lock that one other sleeps on | how long the dead keep the living waiting |
//!
//! All of them need only what an ordinary user may do: `fork`, signals and `ptrace` of one's own children.
//!
//! # How to run them
//!
//! ```sh
//! cargo test --release -p polyproc-tests                        # all, the short forms
//! cargo test --release -p polyproc-tests --test kill -- --nocapture
//! POLYPROC_KILL_FULL=1 cargo test --release -p polyproc-tests --test kill -- --nocapture
//! POLYPROC_KILLS=100000 cargo test --release -p polyproc-tests --test soak -- --nocapture
//! POLYPROC_SEED=12345 cargo test --release -p polyproc-tests --test soak -- --nocapture
//! POLYPROC_KILLS=100000 cargo test --release -p polyproc-tests --test soak_mixed -- --nocapture
//! cargo test --release -p polyproc-tests --test latency -- --nocapture
//! ```
//!
//! # How to add an operation to the kill harness
//!
//! One value of [`Operation`](kill::Operation): what the victim does, who else is there, what the survivors must find.
//!
//! ```
//! use polyproc_mutex::Mutex;
//! use polyproc_tests::kill::Operation;
//! use std::time::Duration;
//!
//! let report = Operation::new("add one", || Mutex::new(0u64).unwrap())
//!     // Stepped and killed between `begin` and `end`. What comes before is not.
//!     .victim(|mutex, stage| {
//!         drop(mutex.lock());
//!         stage.begin();
//!         *mutex.lock().unwrap() += 1;
//!         stage.end();
//!     })
//!     // In another process, after each kill. Names what it found.
//!     .check(&["old", "poisoned", "new"], |mutex, _| {
//!         match mutex.lock_timeout(Duration::from_millis(50)).map(|guard| *guard) {
//!             Ok(0) => "old",
//!             Ok(1) => "new",
//!             Err(polyproc_mutex::LockTimeoutError::Poisoned(_)) => "poisoned",
//!             other => panic!("{other:?}"),
//!         }
//!     })
//!     .run();
//! // Every state was found, each in its turn; nobody hung, nothing leaked.
//! report.assert_clean();
//! ```

#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "forks, signals and waits")]
pub mod child;
pub mod kill;
pub mod latency;
pub mod mixed;
pub mod random;
#[allow(unsafe_code, reason = "maps memory that forked children share")]
pub mod shared;
pub mod soak;
pub mod system;
#[allow(unsafe_code, reason = "ptrace")]
pub mod trace;
