//! Typed duplex connections between processes.
