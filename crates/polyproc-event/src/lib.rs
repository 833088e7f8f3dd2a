//! Event between processes: set it, and everybody who waits goes on, whoever dies.
