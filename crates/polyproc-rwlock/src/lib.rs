//! RwLock between processes: many readers or one writer, and the dead hold nothing.
