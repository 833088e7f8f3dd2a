//! The examples are in `examples/`. `cargo run --release --example NAME` runs one.
