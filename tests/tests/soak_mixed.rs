//! Random deaths among processes that use all primitives at once.
//!
//! ```sh
//! cargo test --release -p polyproc-tests --test soak_mixed -- --nocapture
//! POLYPROC_KILLS=100000 cargo test --release -p polyproc-tests --test soak_mixed -- --nocapture
//! POLYPROC_SEED=12345 cargo test --release -p polyproc-tests --test soak_mixed -- --nocapture
//! ```

use polyproc_tests::mixed;
use polyproc_tests::random::{from_environment, seed};
use polyproc_tests::system::{mapped_regions, one_at_a_time, open_descriptors};

#[test]
fn random_kills_leave_all_books_exact() {
    let _turn = one_at_a_time();
    let before = (open_descriptors(), mapped_regions());
    let (seed, kills) = (seed(), from_environment("POLYPROC_KILLS").unwrap_or(2_000));
    println!("POLYPROC_SEED={seed} POLYPROC_KILLS={kills}");
    let report = mixed::run(seed, kills as u32);
    println!("{report}");
    assert_eq!(before, (open_descriptors(), mapped_regions()), "descriptors and regions are left");
    // A soak in which nobody died in the middle of something has shown nothing.
    if kills >= 2_000 {
        assert!(report.died.iter().all(|deaths| *deaths > 0), "{report}");
        assert!(report.repairs > 0 && report.made_up > 0 && report.audits > 0, "{report}");
        assert!(report.pulses_heard > 0 && report.rounds > 0 && report.broken[1] > 0, "{report}");
    }
}
