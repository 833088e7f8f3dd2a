//! Nothing is measured here yet.

fn main() {}
