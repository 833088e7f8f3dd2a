//! Queue and JoinableQueue between processes: many producers, many consumers, strictly first in first out, safe against any death.
