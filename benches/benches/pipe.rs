//! Connections, beside what they are made of.
fn main() {}
