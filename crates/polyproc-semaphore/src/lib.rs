//! Semaphore and BoundedSemaphore between processes: as fast as POSIX semaphores, and a permit comes back when its holder dies.
