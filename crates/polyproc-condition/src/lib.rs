//! Condition variable between processes: no handshake, and no death keeps a notifier waiting.
