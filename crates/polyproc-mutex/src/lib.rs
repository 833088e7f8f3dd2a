//! Mutex and RLock between processes: as fast as std's, and safe against the death of any holder.
