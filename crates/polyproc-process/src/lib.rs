//! Processes that run a function of this program: spawned safely, joined with its result, and named when they die.
