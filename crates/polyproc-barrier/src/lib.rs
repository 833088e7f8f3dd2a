//! Barrier between processes: a party that dies breaks it for the others, at once.
